"""`max_wall_seconds`: a search ends in time for its holdout, keeps what it has paid for, and is repeated the same."""

from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.models import Execution, Job, State
from tests.support import Api, Drain, make_triage, optimization_body

SECONDS = 600


@pytest.fixture(autouse=True)
def triage(api: Api) -> None:
    make_triage(api, cases=40)


class Clock:
    """The clock of the database, moved by hand: what a test spends itself is little beside it."""

    def __init__(self) -> None:
        self._passed = 0.0

    def pass_(self, seconds: float) -> None:
        self._passed += seconds
        db.offset_clock(self._passed)


def start(api: Api, **fields: Any) -> str:
    body = optimization_body(seed=7, **fields)
    started = api.expect(202, "POST", "/v1/optimizations", body)
    return f"/v1/optimizations/{started['optimization_id']}"


def timed(api: Api, seconds: int = SECONDS, **fields: Any) -> str:
    return start(api, budget={"max_task_calls": 1_000, "max_wall_seconds": seconds}, **fields)


def read(api: Api, path: str) -> Any:
    return api.expect(200, "GET", path)


def drain_at(drain: Drain, clock: Clock, seconds_per_job: float) -> None:
    """One job after another, each of which takes so long."""
    while is_open():
        if drain(most=1):
            clock.pass_(seconds_per_job)


def to_the_end(drain: Drain) -> None:
    """A claim that only drops overdue calls returns none, and may begin a step: so until nothing is open."""
    while is_open():
        drain()


def is_open() -> bool:
    with db.reading() as session:
        return bool(session.scalars(sa.select(sa.func.count()).where(Job.state.in_(("queued", "running")))).one())


def out_of_time() -> int:
    with db.reading() as session:
        failed = sa.select(sa.func.count()).where(Execution.error_type == "out_of_time", Execution.attempts == 0)
        return session.scalars(failed).one()


def test_time_that_is_not_up_changes_nothing(api: Api, drain: Drain) -> None:
    paths = [timed(api), start(api, budget={"max_task_calls": 1_000})]
    to_the_end(drain)

    with_clock, without = (read(api, path) for path in paths)
    assert (with_clock["result"], with_clock["spent"]) == (without["result"], without["spent"])
    assert 0 < with_clock["elapsed_seconds"] < SECONDS


def test_a_search_stops_early_enough_for_its_holdout(api: Api, drain: Drain) -> None:
    """At 100 seconds for each call the holdout of two texts takes 2,400 of them."""
    path, clock = timed(api, 7_000), Clock()
    drain_at(drain, clock, 100.0)

    done = read(api, path)
    assert done["finish_reason"] == "budget_time"
    assert done["result"]["holdout"]["n"] == 12
    assert 4_000 < done["elapsed_seconds"] <= 7_500
    assert done["progress"]["candidates"] > 1, "the search had begun"


def test_calls_in_flight_when_time_runs_out_are_kept_and_those_that_wait_are_not_begun(api: Api, drain: Drain) -> None:
    path, clock = timed(api), Clock()
    drain(most=18)  # the baseline is scored, and the first step of the search decided
    held = drain.claim(limit=2)
    clock.pass_(SECONDS + 1)

    for lease in held:
        drain.run(lease)
    to_the_end(drain)

    done = read(api, path)
    assert (done["status"], done["finish_reason"]) == ("succeeded", "budget_time")
    assert done["result"]["holdout"]["n"] == 12
    with db.reading() as session:
        paid = session.scalars(sa.select(Execution.id).where(Execution.state == State.SUCCEEDED)).all()
        assert {lease.subject_id for lease in held} <= set(paid)
    assert out_of_time() > 0
    spent = done["spent"]
    assert spent["task_calls"] + spent["proposer_calls"] == len(paid)


def test_a_run_whose_time_was_up_is_repeated_the_same_however_long_the_replay_takes(api: Api, drain: Drain) -> None:
    path, clock = timed(api, 7_000), Clock()
    drain_at(drain, clock, 100.0)
    clock.pass_(1_000_000)

    api.expect(202, "POST", f"{path}/replay")
    drain_at(drain, clock, 100.0)

    assert read(api, path)["finish_reason"] == "budget_time"
    report = api.expect(200, "GET", f"{path}/replay")
    assert (report["identical"], report["difference"]) == (True, None)


def test_a_baseline_that_time_cut_short_claims_nothing(api: Api, drain: Drain) -> None:
    path, clock = timed(api), Clock()
    drain(most=5)
    clock.pass_(SECONDS + 1)
    to_the_end(drain)

    done = read(api, path)
    assert (done["finish_reason"], done["result"]["verdict"]) == ("budget_time", "not_measured")
    assert (done["result"]["holdout"], done["spent"]["task_calls"]) == (None, 4)


@pytest.mark.parametrize("before", [0, 10, 30])
def test_a_pause_does_not_count(api: Api, drain: Drain, before: int) -> None:
    path, clock = timed(api), Clock()
    drain(most=before)
    api.expect(200, "POST", f"{path}/pause")
    clock.pass_(10 * SECONDS)
    waiting = read(api, path)
    api.expect(200, "POST", f"{path}/resume")
    to_the_end(drain)

    done = read(api, path)
    assert done["finish_reason"] != "budget_time"
    assert waiting["elapsed_seconds"] <= done["elapsed_seconds"] < SECONDS


def test_a_step_that_ends_during_a_pause_has_its_time_when_the_run_goes_on(api: Api, drain: Drain) -> None:
    path, clock = timed(api), Clock()
    (step,) = drain.claim()
    outcome = drain.outcome(step)
    api.expect(200, "POST", f"{path}/pause")
    clock.pass_(SECONDS)

    from worker.recording import record
    from worker.tasks import STEPS

    record(STEPS, [(step, outcome)])
    clock.pass_(SECONDS)
    api.expect(200, "POST", f"{path}/resume")
    to_the_end(drain)

    assert read(api, path)["finish_reason"] != "budget_time"


def test_a_ceiling_that_is_raised_in_time_is_the_one_that_counts(api: Api, drain: Drain) -> None:
    path, clock = timed(api), Clock()
    drain(most=20)
    raised = api.expect(200, "POST", f"{path}/budget", {"max_wall_seconds": 10 * SECONDS})
    clock.pass_(2 * SECONDS)
    to_the_end(drain)

    assert raised["spec"]["budget"]["max_wall_seconds"] == 10 * SECONDS
    assert read(api, path)["finish_reason"] != "budget_time"


def test_a_continuation_counts_on_and_repeats_the_first_run_at_no_time(api: Api, drain: Drain) -> None:
    path, clock = timed(api, 7_000), Clock()
    drain_at(drain, clock, 100.0)
    first = read(api, path)
    more = {"budget": {"max_wall_seconds": 500_000}}

    same = api.post(f"{path}/continue", {"budget": {"max_wall_seconds": 7_000}})
    started = api.expect(202, "POST", f"{path}/continue", more)
    again = f"/v1/optimizations/{started['optimization_id']}"
    drain_at(drain, clock, 100.0)

    done = read(api, again)
    whole = start(api, budget={"max_task_calls": 1_000})
    to_the_end(drain)
    assert [error["pointer"] for error in same.get_json()["errors"]] == ["/budget"]
    assert started["elapsed_seconds"] == pytest.approx(first["elapsed_seconds"], abs=0.01)
    assert done["elapsed_seconds"] > first["elapsed_seconds"]
    assert done["result"] == read(api, whole)["result"]


def test_a_canceled_run_that_has_used_its_time_wants_more_to_go_on(api: Api, drain: Drain) -> None:
    path, clock = timed(api), Clock()
    drain(most=30)
    clock.pass_(SECONDS + 1)
    api.expect(200, "POST", f"{path}/cancel")

    answer = api.post(f"{path}/continue", {})
    other = api.expect(202, "POST", f"{path}/continue", {"budget": {"max_wall_seconds": 10 * SECONDS}})
    to_the_end(drain)

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.get_json()["errors"]] == ["/budget/max_wall_seconds"]
    assert read(api, f"/v1/optimizations/{other['optimization_id']}")["finish_reason"] != "budget_time"


@pytest.mark.parametrize("seconds", [0, -1, 1.5, True, "60", 10**9])
def test_a_time_that_is_none_is_refused(api: Api, seconds: Any) -> None:
    body = optimization_body(budget={"max_task_calls": 1_000, "max_wall_seconds": seconds})

    answer = api.post("/v1/optimizations", body)

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.get_json()["errors"]] == ["/budget/max_wall_seconds"]


def test_time_alone_is_no_budget(api: Api) -> None:
    answer = api.post("/v1/optimizations", optimization_body(budget={"max_wall_seconds": 60}))

    assert (answer.status_code, [one["pointer"] for one in answer.get_json()["errors"]]) == (422, ["/budget"])


def test_a_clone_has_the_time_of_its_source(api: Api, drain: Drain) -> None:
    path = timed(api)
    to_the_end(drain)

    clone = api.expect(202, "POST", f"{path}/clone", {"seed": 8})

    assert clone["spec"]["budget"] == read(api, path)["spec"]["budget"]
