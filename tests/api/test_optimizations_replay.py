"""POST /v1/optimizations/{id}/replay: the search repeated from its records, without a call."""

from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.domain import jobs
from shared.models import Candidate, Execution, Job, JobKind, State, WorkItem
from tests.judged import JUDGE
from tests.rows import count, event_data
from tests.support import Api, Drain, make_triage, optimization_body


def optimize(api: Api, drain: Drain, *, most: int = 10_000, **fields: Any) -> str:
    make_triage(api, cases=40)
    started = api.expect(202, "POST", "/v1/optimizations", optimization_body(seed=7, **fields))
    drain(most=most)
    return f"/v1/optimizations/{started['optimization_id']}"


def replayed(api: Api, drain: Drain, path: str) -> Any:
    api.expect(202, "POST", f"{path}/replay")
    drain()
    done = api.expect(200, "GET", f"{path}/replay")
    assert done["status"] == "succeeded"
    return done


def calls() -> tuple[int, int]:
    """(executions, attempts of all of them)"""
    with db.reading() as session:
        return count(Execution), session.scalar(sa.select(sa.func.sum(Execution.attempts))) or 0


def test_it_comes_to_the_same_without_a_call(api: Api, drain: Drain) -> None:
    path = optimize(api, drain)
    run, before = api.expect(200, "GET", path), calls()

    asked = api.expect(202, "POST", f"{path}/replay")
    ran = drain()

    done = api.expect(200, "GET", f"{path}/replay")
    assert (asked["status"], ran) == ("queued", 1)
    assert (done["status"], done["identical"], done["difference"]) == ("succeeded", True, None)
    assert (done["candidates"], done["verdict"]) == (run["progress"]["candidates"], run["result"]["verdict"])
    assert done["steps"] > 5
    assert calls() == before
    assert api.expect(200, "GET", path) == run
    assert event_data("optimization.replayed") == [{"identical": True}]


def test_a_judged_search_is_repeated_too(api: Api, drain: Drain) -> None:
    path = optimize(api, drain, scorers=[JUDGE])

    assert replayed(api, drain, path)["identical"]


def test_a_search_that_was_canceled_is_repeated_as_far_as_it_went(api: Api, drain: Drain) -> None:
    path = optimize(api, drain, most=40)
    api.expect(200, "POST", f"{path}/cancel")

    done = replayed(api, drain, path)

    assert (done["identical"], done["verdict"]) == (True, None)


def test_a_search_whose_budget_was_raised_is_repeated_by_the_ceilings_of_each_step(api: Api, drain: Drain) -> None:
    path = optimize(api, drain, most=17, budget={"max_task_calls": 80})
    while api.expect(200, "GET", path)["progress"]["phase"] not in ("topup", "holdout"):
        drain(most=1)
    api.expect(200, "POST", f"{path}/budget", {"max_task_calls": 1_000})
    drain()

    assert api.expect(200, "GET", path)["finish_reason"] == "budget_task_calls"
    assert replayed(api, drain, path)["identical"]


def test_a_continuation_is_repeated_with_what_it_took_over(api: Api, drain: Drain) -> None:
    path = optimize(api, drain, budget={"max_task_calls": 80})
    second = api.expect(202, "POST", f"{path}/continue", {"budget": {"max_task_calls": 200}})
    drain()

    assert replayed(api, drain, f"/v1/optimizations/{second['optimization_id']}")["identical"]


def test_an_answer_that_was_changed_is_seen_in_the_first_thing_that_differs(api: Api, drain: Drain) -> None:
    path = optimize(api, drain)
    with db.transaction() as session:
        proposal = sa.select(WorkItem.execution_id).where(WorkItem.kind == "propose").order_by(WorkItem.id).limit(1)
        changed = session.get_one(Execution, session.scalars(proposal).one())
        changed.response_text = "<prompt>\nAnother {{ ticket }}\n</prompt>"

    done = replayed(api, drain, path)

    assert not done["identical"]
    assert done["difference"]["at"].startswith("/steps/")
    assert done["difference"]["recorded"] != done["difference"]["replayed"]


def test_a_row_that_was_changed_is_named(api: Api, drain: Drain) -> None:
    path = optimize(api, drain)
    with db.transaction() as session:
        session.scalars(sa.select(Candidate).where(Candidate.ordinal == 1)).one().decision = "best of all"

    done = replayed(api, drain, path)

    assert done["difference"]["at"] == "/candidates/1/decision"
    assert done["difference"]["recorded"] == "best of all"


def test_one_replay_is_open_at_a_time(api: Api, drain: Drain) -> None:
    path = optimize(api, drain)

    first, second = (api.expect(202, "POST", f"{path}/replay") for _ in range(2))

    assert first == second
    assert drain() == 1
    assert replayed(api, drain, path)["job_id"] > first["job_id"]


@pytest.mark.parametrize("most", [0, 10])
def test_a_search_that_goes_on_is_not_replayed(api: Api, drain: Drain, most: int) -> None:
    path = optimize(api, drain, most=most)

    answer = api.post(f"{path}/replay")

    assert answer.status_code == 409
    assert api.get(f"{path}/replay").status_code == 404


def test_a_replay_whose_job_died_has_failed(api: Api, drain: Drain) -> None:
    path = optimize(api, drain)
    api.expect(202, "POST", f"{path}/replay")
    with db.transaction() as session:
        (job_id,) = session.scalars(sa.select(Job.id).where(Job.kind == JobKind.REPLAY)).all()
        jobs.close(session, [jobs.Ending(job, State.FAILED, "internal_error") for job in jobs.lock(session, [job_id])])

    assert api.expect(200, "GET", f"{path}/replay")["status"] == "failed"
    assert api.expect(200, "GET", path)["status"] == "succeeded"
