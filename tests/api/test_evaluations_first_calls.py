"""The first calls of an evaluation are made with it; its first step makes the others while those are under way."""

import uuid
from collections import Counter
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.domain.evaluations import FAN_OUT, FIRST_CALLS, SCORE
from shared.domain.leases import Lease
from shared.models import Barrier, Call, Evaluation, Execution, Job, JobKind, State, WorkItem
from tests.factories import do_duties
from tests.support import Api, Drain, evaluation_body, make_prompt, make_triage
from worker.recording import record
from worker.steps import Failure
from worker.tasks import STEPS

MORE = 8  # cases beyond the first calls


def start(api: Api, *, cases: int = FIRST_CALLS + MORE, **fields: Any) -> str:
    make_triage(api, cases=cases)
    return str(api.expect(202, "POST", "/v1/evaluations", evaluation_body(**fields))["evaluation_id"])


def shown(api: Api, evaluation_id: str) -> Any:
    return api.expect(200, "GET", f"/v1/evaluations/{evaluation_id}")


def claimed(drain: Drain) -> tuple[list[Lease], list[Lease]]:
    """(steps, calls) that are due."""
    due = drain.claim(limit=200)
    return [lease for lease in due if lease.kind != JobKind.EXECUTION], [
        lease for lease in due if lease.kind == JobKind.EXECUTION
    ]


def calls_by_state() -> Counter[str]:
    with db.reading() as session:
        return Counter(session.scalars(sa.select(Execution.state)))


def barrier_of(evaluation_id: str) -> tuple[int, int]:
    with db.reading() as session:
        of_run = Barrier.subject_id == uuid.UUID(evaluation_id)
        total, remaining = session.execute(sa.select(Barrier.total, Barrier.remaining).where(of_run)).one()
    return total, remaining


def test_calls_are_queued_as_soon_as_the_evaluation_is_and_its_progress_counts_them_all(api: Api) -> None:
    evaluation_id = start(api)

    assert calls_by_state() == {State.QUEUED: FIRST_CALLS}
    assert shown(api, evaluation_id)["progress"] == {"done": 0, "total": FIRST_CALLS + MORE}


def test_every_case_has_one_call_and_one_result_in_its_place(api: Api, drain: Drain) -> None:
    evaluation_id = start(api)

    drain()

    with db.reading() as session:
        places = session.scalars(sa.select(WorkItem.ordinal).order_by(WorkItem.ordinal)).all()
    results = api.expect(200, "GET", f"/v1/evaluations/{evaluation_id}/results?limit=100")["data"]
    assert places == list(range(FIRST_CALLS + MORE))
    assert [row["ordinal"] for row in results] == list(range(1, FIRST_CALLS + MORE + 1))
    assert calls_by_state() == {State.SUCCEEDED: FIRST_CALLS + MORE}
    assert barrier_of(evaluation_id) == (FIRST_CALLS + MORE, 0)
    assert shown(api, evaluation_id)["progress"] == {"done": FIRST_CALLS + MORE, "total": FIRST_CALLS + MORE}


@pytest.mark.parametrize("cases", [FIRST_CALLS + MORE, FIRST_CALLS, 5])
def test_nothing_is_scored_before_the_step_has_made_the_other_calls(api: Api, drain: Drain, cases: int) -> None:
    evaluation_id = start(api, cases=cases)
    (step,), calls = claimed(drain)
    for lease in calls:
        drain.run(lease)
    waiting = claimed(drain)
    progress = shown(api, evaluation_id)["progress"]

    drain.run(step)
    drain()

    found = shown(api, evaluation_id)
    assert waiting == ([], [])
    assert progress["done"] == len(calls) - 1, "one is held back for the step"
    assert (found["status"], found["aggregate"]["scored"]) == ("succeeded", cases)


def test_a_step_and_the_last_of_the_first_calls_may_end_in_one_commit(api: Api, drain: Drain) -> None:
    evaluation_id = start(api, cases=5)

    record(STEPS, drain.outcomes(drain.claim(limit=200)))
    drain()

    assert shown(api, evaluation_id)["status"] == "succeeded"


def test_answers_that_others_have_paid_for_are_not_waited_for(api: Api, drain: Drain) -> None:
    start(api)
    drain()
    again = api.expect(202, "POST", "/v1/evaluations", evaluation_body())

    drain()

    found = shown(api, again["evaluation_id"])
    assert again["progress"] == {"done": 0, "total": MORE}, "those of the first calls are known at once"
    assert (found["status"], found["aggregate"]["cached"]) == ("succeeded", FIRST_CALLS + MORE)
    assert found["progress"] == {"done": 0, "total": 0}
    assert calls_by_state() == {State.SUCCEEDED: FIRST_CALLS + MORE}


def test_a_case_that_asks_what_one_of_the_first_asks_shares_its_call(api: Api, drain: Drain) -> None:
    make_triage(api)
    make_prompt(api, "constant", template="Say yes.", model={"provider": "simulated", "model_name": "simulated-small"})
    body = evaluation_body(prompt_name="constant")
    evaluation_id = str(api.expect(202, "POST", "/v1/evaluations", body)["evaluation_id"])

    drain()

    assert calls_by_state() == {State.SUCCEEDED: 1}
    assert barrier_of(evaluation_id) == (1, 0)
    assert shown(api, evaluation_id)["aggregate"]["scored"] == 40


def test_a_step_that_is_done_again_after_a_crash_makes_no_call_twice(api: Api, drain: Drain) -> None:
    evaluation_id = start(api)
    (step,), _ = claimed(drain)
    record(STEPS, [(step, Failure("internal_error", "", retryable=True))])
    with db.transaction() as session:
        session.execute(sa.update(Job).where(Job.step_no == FAN_OUT).values(run_at=db.db_now(-1)))

    (again,), _ = claimed(drain)
    drain.run(again)

    with db.reading() as session:
        ledger = session.scalar(sa.select(sa.func.count()).where(Call.scope_id == uuid.UUID(evaluation_id)))
    assert ledger == FIRST_CALLS + MORE
    assert barrier_of(evaluation_id) == (FIRST_CALLS + MORE, FIRST_CALLS + MORE)


def test_a_step_that_fails_for_good_ends_the_evaluation_and_the_calls_that_have_not_begun(
    api: Api, drain: Drain
) -> None:
    evaluation_id = start(api)
    (step,) = drain.claim(limit=1)

    record(STEPS, [(step, Failure("internal_error", "a bug", retryable=False))])
    do_duties()

    assert shown(api, evaluation_id)["status"] == "failed"
    assert calls_by_state() == {State.CANCELED: FIRST_CALLS}


def test_a_cancel_ends_the_first_calls_and_the_step_makes_no_others(api: Api, drain: Drain) -> None:
    evaluation_id = start(api)
    (step,) = drain.claim(limit=1)
    outcome = drain.outcome(step)

    api.expect(200, "POST", f"/v1/evaluations/{evaluation_id}/cancel")
    record(STEPS, [(step, outcome)])

    assert calls_by_state() == {State.CANCELED: FIRST_CALLS}
    assert claimed(drain) == ([], [])
    assert shown(api, evaluation_id)["status"] == "canceled"


def test_an_evaluation_whose_step_has_vanished_is_given_it_again_by_the_sweep(api: Api, drain: Drain) -> None:
    evaluation_id = start(api)
    (step,), calls = claimed(drain)
    for lease in calls:
        drain.run(lease)
    with db.transaction() as session:
        session.execute(sa.delete(Job).where(Job.id == step.job_id))
        session.execute(sa.update(Evaluation).values(state=State.RUNNING))

    do_duties()
    drain()

    with db.reading() as session:
        steps = session.scalars(sa.select(Job.step_no).where(Job.step_no.is_not(None)).order_by(Job.id)).all()
    assert steps == [FAN_OUT, SCORE]
    assert shown(api, evaluation_id)["aggregate"]["scored"] == FIRST_CALLS + MORE


def test_the_same_key_starts_one_evaluation_with_one_set_of_first_calls(api: Api) -> None:
    make_triage(api)
    headers = {"Idempotency-Key": "once"}

    first, second = (api.expect(202, "POST", "/v1/evaluations", evaluation_body(), headers=headers) for _ in range(2))

    assert first == second
    assert calls_by_state() == {State.QUEUED: FIRST_CALLS}


def test_the_first_calls_of_an_evaluation_spend_from_its_budget(api: Api, drain: Drain) -> None:
    evaluation_id = start(api, budget={"max_tokens": 3_000})

    drain()
    drain()

    found = shown(api, evaluation_id)
    assert 0 < found["aggregate"]["scored"] < FIRST_CALLS
    assert found["spent"]["tokens"] <= 3_000
    assert found["aggregate"]["missing_by_error"] == {
        "budget_exceeded": FIRST_CALLS + MORE - found["aggregate"]["scored"]
    }
