"""Spend never passes a ceiling (I6): reserved at the claim, settled at the finish."""

import threading

import pytest
import sqlalchemy as sa

from shared import db
from shared.domain import budgets, jobs
from shared.domain.tenants import Caller
from shared.models import Job, State
from tests.factories import budget, claim, do_duties, execution, expire_leases, job_of, make_budget, submit, sweep
from worker.providers import Answer
from worker.recording import record
from worker.steps import Failure
from worker.tasks import STEPS

ANSWER = Answer("ok", 3, 2, 1)


def test_claiming_reserves_the_upper_bound_and_finishing_settles_the_real_cost(admin: Caller) -> None:
    budget_id = make_budget(admin, max_cost_usd=1.0, max_tokens=10_000)
    (execution_id,) = submit(admin, budget_id=budget_id)
    bound = execution(execution_id).estimate_nano

    (lease,) = claim()
    reserved = budget(budget_id)
    record(STEPS, [(lease, ANSWER)])
    settled = budget(budget_id)

    assert (reserved.reserved_nano, reserved.spent_nano, reserved.reserved_task_calls) == (bound, 0, 1)
    assert settled.reserved_nano == settled.reserved_tokens == settled.reserved_task_calls == 0
    assert settled.spent_nano == execution(execution_id).cost_nano == 3 * 150 + 2 * 600
    assert (settled.spent_tokens, settled.spent_task_calls) == (5, 1)


def test_a_job_that_does_not_fit_waits_and_goes_on_when_something_settles_for_less(admin: Caller) -> None:
    first = execution(submit(admin)[0])
    claim()
    bound = first.estimate_tokens
    budget_id = make_budget(admin, max_tokens=bound + bound // 2)
    one, two = submit(admin, 2, budget_id=budget_id)

    (lease,) = claim()
    waiting = job_of(two if lease.subject_id == one else one)
    record(STEPS, [(lease, ANSWER)])
    (second,) = claim()

    assert waiting.blocked_by == budget_id
    assert waiting.state == State.QUEUED
    assert second.job_id == waiting.id


def test_a_job_that_waits_for_its_budget_can_be_canceled(admin: Caller) -> None:
    bound = execution(submit(admin)[0]).estimate_tokens
    claim()
    budget_id = make_budget(admin, max_tokens=bound + bound // 2)
    submit(admin, 2, budget_id=budget_id)
    claim()
    with db.transaction() as session:
        waiting = session.scalars(sa.select(Job).where(Job.blocked_by == budget_id)).one()
        jobs.cancel(session, waiting)

    canceled = job_of(waiting.subject_id)
    assert (canceled.state, canceled.blocked_by) == (State.CANCELED, None)
    assert execution(waiting.subject_id).state == State.CANCELED


def test_jobs_without_money_do_not_stand_in_the_way_of_others(admin: Caller) -> None:
    poor = submit(admin, 30, budget_id=make_budget(admin, max_tokens=1))
    with db.transaction() as session:
        session.execute(sa.update(Job).where(Job.subject_id.in_(poor)).values(priority=0))
    rich = submit(admin, 2)

    assert [lease.subject_id for lease in claim(limit=2)] == rich


def test_every_job_that_waits_for_its_budget_is_tried_in_the_end(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets, "UNBLOCK_AT_ONCE", 2)
    bound = execution(submit(admin)[0]).estimate_tokens
    claim()
    budget_id = make_budget(admin, max_tokens=bound + bound // 2)
    ids = submit(admin, 12, budget_id=budget_id)
    (lease,) = claim(limit=12)

    record(STEPS, [(lease, Answer("ok", bound, 0, 1))])
    for _ in range(12):
        assert claim(limit=12) == []

    ended = [execution(execution_id).error_type for execution_id in ids if execution_id != lease.subject_id]
    assert ended == ["budget_exceeded"] * 11


def test_a_job_whose_budget_has_nothing_in_flight_any_more_is_tried_again_by_the_sweep(admin: Caller) -> None:
    budget_id = make_budget(admin, max_tokens=100_000)
    (execution_id,) = submit(admin, budget_id=budget_id)
    with db.transaction() as session:
        session.execute(sa.update(Job).values(blocked_by=budget_id))

    assert claim() == []
    do_duties()

    assert [lease.subject_id for lease in claim()] == [execution_id]


def test_a_job_that_can_never_fit_fails_in_words_and_not_silently(admin: Caller) -> None:
    budget_id = make_budget(admin, max_tokens=1)
    (execution_id,) = submit(admin, budget_id=budget_id)

    assert claim() == []

    row = execution(execution_id)
    assert (row.state, row.error_type) == (State.FAILED, "budget_exceeded")
    assert "budget" in (row.error_message or "")
    assert budget(budget_id).spent_tokens == 0


def test_many_workers_never_reserve_past_the_limit(admin: Caller) -> None:
    """Check, then spend, then count: the schedule that lets parallel calls through. Here it must not."""
    budget_id = make_budget(admin, max_task_calls=7)
    submit(admin, 40, budget_id=budget_id)
    start = threading.Barrier(6)
    claimed: list[int] = []
    guard = threading.Lock()

    def work(number: int) -> None:
        start.wait()
        for _ in range(4):
            got = claim(f"worker:{number}", limit=5)
            with guard:
                claimed.extend(lease.job_id for lease in got)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    row = budget(budget_id)
    assert len(set(claimed)) == len(claimed) == 7
    assert row.reserved_task_calls + row.spent_task_calls == 7


def test_an_unpaid_failure_gives_its_reservation_back(admin: Caller) -> None:
    budget_id = make_budget(admin, max_tokens=10_000)
    submit(admin, budget_id=budget_id)
    (lease,) = claim()

    record(STEPS, [(lease, Failure("rate_limited", "", retryable=True))])

    row = budget(budget_id)
    assert (row.reserved_tokens, row.spent_tokens, row.spent_task_calls) == (0, 0, 0)


def test_a_timeout_after_sending_stays_charged_at_its_bound(admin: Caller) -> None:
    budget_id = make_budget(admin, max_tokens=10_000)
    (execution_id,) = submit(admin, budget_id=budget_id)
    (lease,) = claim()

    record(STEPS, [(lease, Failure("timeout", "", retryable=True, possibly_paid=True))])

    row = budget(budget_id)
    assert row.reserved_tokens == 0
    assert row.spent_tokens == execution(execution_id).estimate_tokens
    assert row.spent_task_calls == 1
    assert execution(execution_id).ambiguous_attempts == 1


def test_a_lost_lease_is_presumed_paid_and_a_saved_answer_corrects_that(admin: Caller) -> None:
    budget_id = make_budget(admin, max_tokens=10_000)
    (execution_id,) = submit(admin, budget_id=budget_id)
    (lease,) = claim()
    expire_leases()
    sweep()
    presumed = budget(budget_id)

    record(STEPS, [(lease, ANSWER)])

    settled = budget(budget_id)
    assert presumed.spent_tokens == execution(execution_id).estimate_tokens
    assert presumed.reserved_tokens == 0
    assert (settled.spent_tokens, settled.spent_task_calls, settled.reserved_tokens) == (5, 1, 0)


def test_spent_and_reserved_never_pass_the_limit_while_attempts_are_lost(admin: Caller) -> None:
    bound = execution(submit(admin)[0]).estimate_tokens
    claim()
    limit = 3 * bound
    budget_id = make_budget(admin, max_tokens=limit)
    submit(admin, 6, budget_id=budget_id)

    for _ in range(6):
        claim()
        row = budget(budget_id)
        assert row.spent_tokens + row.reserved_tokens <= limit
        expire_leases()
        sweep()

    assert budget(budget_id).spent_tokens <= limit


def test_proposals_count_against_their_own_limit(admin: Caller) -> None:
    budget_id = make_budget(admin, max_proposer_calls=1)
    submit(admin, 1, budget_id=budget_id)
    submit(admin, 2, budget_id=budget_id, purpose="proposal")

    claimed = claim()

    row = budget(budget_id)
    assert len(claimed) == 2
    assert (row.reserved_task_calls, row.reserved_proposer_calls) == (1, 1)
