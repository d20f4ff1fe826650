"""The fence is the right to write (I2): stale holders, late answers, terminal states."""

import uuid

import pytest
import sqlalchemy as sa

from shared import db
from shared.domain import jobs, leases
from shared.domain.leases import Lease
from shared.domain.tenants import Caller
from shared.models import JobKind, State
from tests.factories import budget, claim, execution, expire_leases, job_of, lease_rows, make_budget, submit, sweep
from tests.support import Drain
from worker.providers import Answer
from worker.recording import record
from worker.steps import Canceled, Failure
from worker.steps.executions import retry_delay
from worker.tasks import STEPS

ANSWER = Answer("the late answer", 10, 5, 1)


def finish(lease: Lease, answer: object = ANSWER) -> None:
    record(STEPS, [(lease, answer)])


def test_a_worker_whose_job_was_claimed_by_another_writes_nothing_at_all(admin: Caller) -> None:
    (execution_id,) = submit(admin)
    (zombie,) = claim("worker:1")
    expire_leases()
    sweep()
    (successor,) = claim("worker:2")

    finish(zombie)

    row = execution(execution_id)
    assert row.state == State.RUNNING
    assert row.response_text is None
    assert row.attempts == 0
    assert [lease.owner for lease in lease_rows()] == ["worker:2"]
    finish(successor, Answer("the right answer", 10, 5, 1))
    assert execution(execution_id).response_text == "the right answer"


def test_a_late_answer_is_saved_while_nobody_has_claimed_the_job_again(admin: Caller) -> None:
    (execution_id,) = submit(admin)
    (late,) = claim("worker:1")
    expire_leases()
    sweep()
    assert execution(execution_id).ambiguous_attempts == 1

    finish(late)

    row = execution(execution_id)
    assert row.state == State.SUCCEEDED
    assert row.response_text == "the late answer"
    assert row.ambiguous_attempts == 0  # the attempt that was given up has come back
    assert claim("worker:2") == []


def test_a_lease_that_has_expired_but_was_not_swept_may_still_finish(admin: Caller) -> None:
    (execution_id,) = submit(admin)
    (lease,) = claim()
    expire_leases()

    finish(lease)

    assert execution(execution_id).state == State.SUCCEEDED
    assert lease_rows() == []


def test_a_second_finish_of_the_same_lease_changes_nothing(admin: Caller) -> None:
    (execution_id,) = submit(admin)
    (lease,) = claim()
    finish(lease)

    finish(lease, Answer("another answer", 1, 1, 1))

    assert execution(execution_id).response_text == "the late answer"
    assert execution(execution_id).attempts == 1


def test_a_stale_member_of_a_group_is_dropped_and_the_rest_commits(admin: Caller) -> None:
    first_id, second_id = submit(admin, 2)
    first, second = claim("worker:1")
    expire_leases()
    sweep()
    (taken,) = claim("worker:2", limit=1)
    lost, kept = (first, second) if taken.job_id == first.job_id else (second, first)

    record(STEPS, [(lost, ANSWER), (kept, ANSWER)])

    assert execution(kept.subject_id).state == State.SUCCEEDED
    assert execution(lost.subject_id).state == State.RUNNING
    assert {first_id, second_id} == {kept.subject_id, lost.subject_id}


def test_a_canceled_job_is_not_overwritten_by_its_answer(admin: Caller) -> None:
    """Cancel and completion race; the first to commit wins, and terminal states never change (I5)."""
    (execution_id,) = submit(admin)
    (lease,) = claim()
    with db.transaction() as session:
        held = leases.hold(session, [lease])
        jobs.close(session, [jobs.Ending(held[lease.job_id], State.CANCELED)])

    finish(lease)

    assert execution(execution_id).state == State.CANCELED
    assert execution(execution_id).response_text is None


def test_a_failed_attempt_goes_back_with_a_delay_and_three_retries_later_it_fails(admin: Caller) -> None:
    (execution_id,) = submit(admin)
    failure = Failure("server_error", "503", retryable=True)
    delays = []

    for _ in range(4):
        (lease,) = claim()
        finish(lease, failure)
        job = job_of(execution_id)
        if job.state == State.QUEUED:
            with db.reading() as session:
                delays.append((job.run_at - session.scalars(sa.select(db.db_now())).one()).total_seconds())
            db.offset_clock(db._clock_offset_seconds + 121)

    row = execution(execution_id)
    assert row.state == State.FAILED
    assert row.error_type == "server_error"
    assert row.attempts == 4
    assert len(delays) == 3
    assert all(-1 <= delay <= base for delay, base in zip(delays, (5, 30, 120), strict=True))


@pytest.mark.parametrize(("failures", "base"), [(1, 5), (2, 30), (3, 120), (4, 120)])
def test_a_delay_is_anywhere_between_zero_and_its_base(failures: int, base: int) -> None:
    """Full jitter: what failed together does not come back together."""
    delays = [retry_delay(failures, None) for _ in range(400)]

    assert 0 < min(delays) < base / 10
    assert base * 9 / 10 < max(delays) <= base


def test_no_delay_is_longer_than_an_hour_whatever_the_provider_says() -> None:
    assert retry_delay(1, 1_790_000_000_000) == 3600


def test_a_retry_is_written_once_even_if_its_worker_writes_it_again(admin: Caller) -> None:
    """A commit that was acknowledged too late is repeated."""
    budget_id = make_budget(admin, max_tokens=10_000)
    submit(admin, budget_id=budget_id)
    (lease,) = claim()
    failure = Failure("timeout", "", retryable=True, possibly_paid=True)

    finish(lease, failure)
    once = (job_of(lease.subject_id).attempts, budget(budget_id).spent_tokens, execution(lease.subject_id).attempts)
    finish(lease, failure)
    finish(lease, Failure("server_error", "", retryable=True))
    twice = (job_of(lease.subject_id).attempts, budget(budget_id).spent_tokens, execution(lease.subject_id).attempts)

    assert once == twice
    assert once[1] == execution(lease.subject_id).estimate_tokens


def test_a_job_that_is_to_be_canceled_is_not_tried_again(admin: Caller) -> None:
    failed_id, released_id = submit(admin, 2)
    failed, released = claim()
    with db.transaction() as session:
        for execution_id in (failed_id, released_id):
            job = jobs.open_job_of(session, execution_id)
            assert job is not None
            jobs.cancel(session, job)

    finish(failed, Failure("server_error", "503", retryable=True))
    with db.transaction() as session:
        leases.release(session, [released])

    assert execution(failed_id).state == State.CANCELED
    assert execution(released_id).state == State.CANCELED


@pytest.mark.parametrize("order", [1, -1])
def test_an_answer_that_came_is_kept_although_a_cancel_came_with_it(admin: Caller, order: int) -> None:
    (execution_id,) = submit(admin)
    (lease,) = claim()

    record(STEPS, [(lease, ANSWER), (lease, Canceled(started=True))][::order])

    assert execution(execution_id).state == State.SUCCEEDED


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_leases_in_one_process_only_the_newer_writes(admin: Caller, order: int) -> None:
    """The same process lost the job and claimed it again, and both calls end in one group."""
    (execution_id,) = submit(admin)
    (older,) = claim()
    expire_leases()
    sweep()
    (newer,) = claim()

    record(STEPS, [(older, Answer("old", 1, 1, 1)), (newer, Answer("new", 1, 1, 1))][::order])

    assert execution(execution_id).response_text == "new"


def test_an_older_answer_is_not_written_under_a_newer_lease_that_is_canceled(admin: Caller) -> None:
    (execution_id,) = submit(admin)
    (older,) = claim()
    expire_leases()
    sweep()
    (newer,) = claim()

    record(STEPS, [(older, ANSWER), (newer, Canceled(started=True))])

    assert (execution(execution_id).state, execution(execution_id).response_text) == (State.CANCELED, None)


@pytest.mark.parametrize(("started", "ambiguous"), [(True, 1), (False, 0)])
def test_a_cancel_counts_as_possibly_paid_only_what_had_begun(admin: Caller, started: bool, ambiguous: int) -> None:
    budget_id = make_budget(admin, max_tokens=10_000)
    (execution_id,) = submit(admin, budget_id=budget_id)
    (lease,) = claim()

    finish(lease, Canceled(started=started))

    row = execution(execution_id)
    assert (row.state, row.ambiguous_attempts) == (State.CANCELED, ambiguous)
    assert budget(budget_id).spent_tokens == ambiguous * row.estimate_tokens
    assert budget(budget_id).reserved_tokens == 0


def test_a_permanent_error_fails_at_the_first_attempt(admin: Caller) -> None:
    (execution_id,) = submit(admin)
    (lease,) = claim()

    finish(lease, Failure("bad_request", "no such model", retryable=False))

    row = execution(execution_id)
    assert (row.state, row.error_type, row.error_message, row.attempts) == (
        State.FAILED,
        "bad_request",
        "no such model",
        1,
    )


def test_retry_after_is_honoured(admin: Caller) -> None:
    (execution_id,) = submit(admin)
    (lease,) = claim()

    finish(lease, Failure("rate_limited", "slow down", retryable=True, retry_after_seconds=600))

    db.offset_clock(599)
    assert claim() == []
    db.offset_clock(601)
    assert [again.subject_id for again in claim()] == [execution_id]


def test_release_gives_an_unstarted_job_back_without_penalty(admin: Caller) -> None:
    (execution_id,) = submit(admin)
    (lease,) = claim()

    with db.transaction() as session:
        leases.release(session, [lease])

    job = job_of(execution_id)
    assert (job.state, job.attempts, job.losses) == (State.QUEUED, 0, 0)
    assert execution(execution_id).ambiguous_attempts == 0
    assert len(claim("worker:2")) == 1


def test_release_of_a_started_call_counts_it_as_possibly_paid(admin: Caller) -> None:
    (execution_id,) = submit(admin)
    (lease,) = claim()

    with db.transaction() as session:
        leases.release(session, [lease], started={lease.job_id})

    assert execution(execution_id).ambiguous_attempts == 1
    assert job_of(execution_id).losses == 0


def test_one_unstorable_answer_fails_alone(admin: Caller, drain: Drain) -> None:
    good_id, bad_id = submit(admin, 2)
    good, bad = sorted(claim(), key=lambda lease: lease.subject_id != good_id)

    # What a provider sends is checked before; this is the net below: an answer that no row can hold.
    impossible = Answer("x" * 10, 2**80, 5, 1)
    runner_record(good, bad, impossible)

    assert execution(good_id).state == State.SUCCEEDED
    assert execution(bad_id).state == State.FAILED
    assert execution(bad_id).error_type == "unstorable_outcome"


def runner_record(good: Lease, bad: Lease, impossible: Answer) -> None:
    from shared.models import Queue
    from worker.runner import Runner, _Ended

    runner = Runner(STEPS, queues=[Queue.EXECUTIONS], concurrency=1, sweep=lambda: None)
    runner._record([_Ended(good, ANSWER), _Ended(bad, impossible)])


def test_the_kind_of_a_lease_is_that_of_its_job(admin: Caller) -> None:
    submit(admin)

    (lease,) = claim()

    assert lease.kind is JobKind.EXECUTION
    assert isinstance(lease.subject_id, uuid.UUID)
