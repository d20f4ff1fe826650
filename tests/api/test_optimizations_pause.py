"""Pause, resume and cancel of an optimization: nothing new begins, nothing is lost, nothing is paid twice."""

from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.domain import leases
from shared.models import Budget, Event, Execution, Job, State
from tests.rows import event_data
from tests.support import LEASE_SECONDS, Api, Drain, make_triage, optimization_body


@pytest.fixture
def path(api: Api) -> str:
    """The address of an optimization that has just been asked for."""
    make_triage(api, cases=40)
    started = api.expect(202, "POST", "/v1/optimizations", optimization_body(seed=7))
    return f"/v1/optimizations/{started['optimization_id']}"


def read(api: Api, path: str) -> Any:
    return api.expect(200, "GET", path)


def steer(api: Api, path: str, verb: str) -> Any:
    return api.expect(200, "POST", f"{path}/{verb}")


def undisturbed(api: Api, drain: Drain) -> Any:
    """The same run, never paused."""
    started = api.expect(202, "POST", "/v1/optimizations", optimization_body(seed=7))
    drain()
    return read(api, f"/v1/optimizations/{started['optimization_id']}")


@pytest.mark.parametrize("before", [0, 1, 6, 17, 40])
def test_a_paused_run_starts_nothing_and_comes_out_the_same_when_it_goes_on(
    api: Api, drain: Drain, path: str, before: int
) -> None:
    """Before its first step, in its calls, and between a barrier and its step."""
    drain(most=before)

    paused = steer(api, path, "pause")
    ran = drain()
    waiting = read(api, path)
    resumed = steer(api, path, "resume")
    drain()

    done, other = read(api, path), undisturbed(api, drain)
    assert (paused["status"], waiting["status"], ran) == ("paused", "paused", 0)
    assert resumed["status"] == ("running" if before else "queued")
    assert done["status"] == "succeeded"
    assert (done["result"], done["spent"]) == (other["result"], other["spent"])
    with db.reading() as session:
        assert session.scalars(sa.select(Execution.attempts).distinct()).all() == [1]


def test_calls_in_flight_end_and_are_kept(api: Api, drain: Drain, path: str) -> None:
    drain(most=1)
    held = drain.claim(limit=5)

    steer(api, path, "pause")
    for lease in held:
        drain.run(lease)

    kept = read(api, path)
    assert (kept["spent"]["task_calls"], kept["progress"]["step"]) == (5, {"done": 5, "total": 16})
    assert drain() == 0


def test_calls_that_end_the_wait_of_a_step_during_the_pause_are_not_forgotten(
    api: Api, drain: Drain, path: str
) -> None:
    drain(most=1)
    held = drain.claim(limit=16)
    steer(api, path, "pause")
    for lease in held:
        drain.run(lease)

    ran = drain()
    steer(api, path, "resume")
    drain()

    assert (len(held), ran) == (16, 0)
    assert read(api, path)["status"] == "succeeded"


def test_a_step_in_flight_ends_and_its_calls_wait(api: Api, drain: Drain, path: str) -> None:
    (step,) = drain.claim()
    outcome = drain.outcome(step)
    steer(api, path, "pause")

    from worker.recording import record
    from worker.tasks import STEPS

    record(STEPS, [(step, outcome)])

    assert drain() == 0
    shown = read(api, path)
    assert (shown["status"], shown["progress"]["step"]) == ("paused", {"done": 0, "total": 16})
    steer(api, path, "resume")
    assert drain() > 16


def test_a_call_whose_worker_died_waits_for_the_resume(api: Api, drain: Drain, path: str) -> None:
    drain(most=1)
    drain.claim(limit=3)
    steer(api, path, "pause")

    db.offset_clock(LEASE_SECONDS + 1)
    with db.transaction() as session:
        swept = leases.sweep(session)
    ran = drain()
    steer(api, path, "resume")
    drain()

    done = read(api, path)
    assert (swept.requeued, ran) == (3, 0)
    assert (done["status"], done["spent"]["ambiguous_attempts"]) == ("succeeded", 3)


def test_the_sweep_lets_nothing_of_a_paused_run_go(api: Api, drain: Drain, path: str) -> None:
    from shared.domain import budgets

    drain(most=4)
    steer(api, path, "pause")
    drain()

    with db.transaction() as session:
        budgets.unblock_stranded(session)
        restarted = leases.restart_stalled(session)

    with db.reading() as session:
        free = sa.select(Job.id).where(Job.state == State.QUEUED, Job.blocked_by.is_(None))
        assert session.scalars(free).all() == []
    assert restarted == 0


def test_another_run_is_not_touched(api: Api, drain: Drain, path: str) -> None:
    steer(api, path, "pause")

    assert undisturbed(api, drain)["status"] == "succeeded"


def test_a_paused_run_can_be_canceled(api: Api, drain: Drain, path: str) -> None:
    drain(most=6)
    steer(api, path, "pause")

    canceled = steer(api, path, "cancel")

    assert canceled["status"] == "canceled"
    assert canceled["spent"]["task_calls"] == 5
    with db.reading() as session:
        assert session.scalar(sa.select(sa.func.count()).where(Job.state.in_(("queued", "running")))) == 0
    assert api.post(f"{path}/resume").status_code == 409


def test_each_change_has_one_event_however_often_it_is_asked_for(api: Api, path: str) -> None:
    for verb in ("pause", "pause", "resume", "resume"):
        steer(api, path, verb)

    with db.reading() as session:
        types = session.scalars(sa.select(Event.type).order_by(Event.id)).all()
    assert [one for one in types if one in ("optimization.paused", "optimization.resumed")] == [
        "optimization.paused",
        "optimization.resumed",
    ]
    assert event_data("optimization.resumed") == [{"state": "queued"}]


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_run_that_has_ended_keeps_its_state(api: Api, drain: Drain, path: str, verb: str) -> None:
    drain()

    answer = api.post(f"{path}/{verb}")

    assert (answer.status_code, answer.get_json()["detail"]) == (409, "the optimization has already succeeded")
    with db.reading() as session:
        assert not session.scalars(sa.select(Budget.held)).one()


# ---- ceilings ------------------------------------------------------------------------------------


def stopped(api: Api, drain: Drain, calls: int, **fields: Any) -> Any:
    """A run that ended because it had so few calls."""
    body = optimization_body(budget={"max_task_calls": calls}, seed=7, **fields)
    started = api.expect(202, "POST", "/v1/optimizations", body)
    drain()
    done = read(api, f"/v1/optimizations/{started['optimization_id']}")
    assert done["finish_reason"] == "budget_task_calls"
    return done


def unlimited(api: Api, drain: Drain, calls: int = 1_000) -> Any:
    body = optimization_body(budget={"max_task_calls": calls}, seed=7)
    started = api.expect(202, "POST", "/v1/optimizations", body)
    drain()
    return read(api, f"/v1/optimizations/{started['optimization_id']}")


def test_a_continuation_repeats_the_first_run_for_nothing_and_goes_on(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    first = stopped(api, drain, 80)

    started = api.expect(
        202,
        "POST",
        f"/v1/optimizations/{first['optimization_id']}/continue",
        {"budget": {"max_task_calls": 1_000}},
    )
    drain()

    done, whole = read(api, f"/v1/optimizations/{started['optimization_id']}"), unlimited(api, drain)
    assert (started["relation"], started["source_id"]) == ("continuation", first["optimization_id"])
    assert done["result"] == whole["result"]
    assert done["progress"]["curve"] == whole["progress"]["curve"]
    # The holdout of the first run may be of another candidate, which the whole run never bought.
    assert 0 < done["spent"]["task_calls"] < whole["spent"]["task_calls"]
    assert read(api, f"/v1/optimizations/{first['optimization_id']}") == first


def test_a_continuation_never_passes_the_ceiling_of_both(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    first = stopped(api, drain, 80)

    path = f"/v1/optimizations/{first['optimization_id']}/continue"
    started = api.expect(202, "POST", path, {"budget": {"max_task_calls": 95}})
    drain()

    done = read(api, f"/v1/optimizations/{started['optimization_id']}")
    assert done["finish_reason"] == "budget_task_calls"
    assert first["spent"]["task_calls"] + done["spent"]["task_calls"] <= 95
    with db.reading() as session:
        (budget,) = session.scalars(sa.select(Budget).where(Budget.limit_task_calls == 95))
    assert budget.spent_task_calls == first["spent"]["task_calls"] + done["spent"]["task_calls"]


def test_a_canceled_run_goes_on_with_what_was_paid_for(api: Api, drain: Drain, path: str) -> None:
    drain(most=12)
    canceled = steer(api, path, "cancel")

    started = api.expect(202, "POST", f"{path}/continue", {})
    drain()

    done, other = read(api, f"/v1/optimizations/{started['optimization_id']}"), undisturbed(api, drain)
    assert done["result"] == other["result"]
    assert done["spent"]["task_calls"] == other["spent"]["task_calls"] - canceled["spent"]["task_calls"]


def test_a_raised_ceiling_holds_for_what_is_still_to_be_decided(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    body = optimization_body(budget={"max_task_calls": 80}, seed=7)
    started = api.expect(202, "POST", "/v1/optimizations", body)
    path = f"/v1/optimizations/{started['optimization_id']}"
    drain(most=17)

    raised = api.expect(200, "POST", f"{path}/budget", {"max_task_calls": 1_000})
    drain()

    done, whole = read(api, path), unlimited(api, drain)
    assert raised["spec"]["budget"]["max_task_calls"] == 1_000
    assert (done["result"], done["spent"]) == (whole["result"], whole["spent"])
    (told,) = event_data("optimization.budget_raised")
    assert (told["from"]["max_task_calls"], told["to"]["max_task_calls"]) == (80, 1_000)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, ""),
        ({"max_task_calls": 79}, "/max_task_calls"),
        ({"max_cost_usd": 5}, "/max_cost_usd"),
        ({"max_task_calls": True}, "/max_task_calls"),
    ],
)
def test_ceilings_are_only_raised(api: Api, body: dict[str, Any], pointer: str) -> None:
    make_triage(api, cases=40)
    started = api.expect(202, "POST", "/v1/optimizations", optimization_body(budget={"max_task_calls": 80}))

    answer = api.post(f"/v1/optimizations/{started['optimization_id']}/budget", body)

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.get_json()["errors"]] == [pointer]


def test_the_ceiling_that_it_has_is_no_change(api: Api) -> None:
    make_triage(api, cases=40)
    started = api.expect(202, "POST", "/v1/optimizations", optimization_body(budget={"max_task_calls": 80}))
    path = f"/v1/optimizations/{started['optimization_id']}/budget"
    api.expect(200, "POST", path, {"max_task_calls": 90})

    again = api.expect(200, "POST", path, {"max_task_calls": 90})

    assert again["spec"]["budget"]["max_task_calls"] == 90
    assert len(event_data("optimization.budget_raised")) == 1


def test_a_run_is_continued_once(api: Api, drain: Drain, path: str) -> None:
    drain(most=12)
    steer(api, path, "cancel")
    first = api.expect(202, "POST", f"{path}/continue", {})

    answer = api.post(f"{path}/continue", {})

    assert answer.status_code == 409
    assert first["optimization_id"] in answer.get_json()["detail"]


def test_a_run_that_ended_by_itself_is_not_continued(api: Api, drain: Drain, path: str) -> None:
    drain()

    answer = api.post(f"{path}/continue", {})

    assert answer.status_code == 409
    assert "ended by itself" in answer.get_json()["detail"]


# ---- clone ---------------------------------------------------------------------------------------


def test_a_clone_differs_by_its_seed_and_by_what_was_asked_for(api: Api, drain: Drain, path: str) -> None:
    drain()
    first = read(api, path)
    api.expect(201, "POST", "/v1/datasets/tickets/cases", [{"inputs": {"ticket": "new"}, "expected": {"a": 1}}])

    same = api.expect(202, "POST", f"{path}/clone", {"seed": 7})
    other = api.expect(202, "POST", f"{path}/clone", {"seed": 8, "knobs": {"max_rounds": 1}, "name": "again"})
    drain()

    same, other = (read(api, f"/v1/optimizations/{one['optimization_id']}") for one in (same, other))
    assert (same["spec"], same["result"], same["spent"]) == (first["spec"], first["result"], first["spent"])
    assert (same["relation"], same["source_id"]) == ("clone", first["optimization_id"])
    assert same["dataset_revision"] == first["dataset_revision"]
    knobs = {**first["spec"]["knobs"], "max_rounds": 1}
    assert other["spec"] == {**first["spec"], "seed": 8, "knobs": knobs}
    assert (other["name"], len(other["progress"]["curve"])) == ("again", 1)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/seed"),
        ({"seed": 1, "knobs": {"beam_width": 1}}, "/knobs/beam_width"),
        ({"seed": 1, "evaluation": {"eta": 99}}, "/evaluation/eta"),
        ({"seed": 1, "budget": {"max_task_calls": 5}}, "/budget/max_task_calls"),
        ({"seed": 1, "strategy": "random"}, "/strategy"),
    ],
)
def test_a_bad_clone_is_named(api: Api, path: str, body: dict[str, Any], pointer: str) -> None:
    answer = api.post(f"{path}/clone", body)

    assert answer.status_code == 422, answer.get_data(as_text=True)
    assert [error["pointer"] for error in answer.get_json()["errors"]] == [pointer]
