"""Claiming: who gets a job, in which order, and that nobody else gets it."""

import threading
import uuid

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from shared import db
from shared.domain import jobs, leases
from shared.domain.tenants import Caller
from shared.models import Job, Queue, State, WorkerProcess
from tests.factories import claim, execution, expire_leases, job_of, lease_rows, submit, sweep
from tests.rows import count
from tests.servers import wait_until
from tests.support import waits_for_a_lock


def test_claim_moves_job_and_execution_to_running_and_inserts_a_lease(admin: Caller) -> None:
    (execution_id,) = submit(admin)

    (lease,) = claim("worker:1")

    assert lease.subject_id == execution_id
    assert job_of(execution_id).state == State.RUNNING
    assert execution(execution_id).state == State.RUNNING
    assert execution(execution_id).started_at is not None
    (row,) = lease_rows()
    assert (row.job_id, row.owner, row.fence) == (lease.job_id, "worker:1", lease.fence)
    assert round((row.expires_at - row.acquired_at).total_seconds(), 2) == 60


def test_claim_skips_a_job_leased_by_another_worker(admin: Caller) -> None:
    submit(admin, 2)
    first = claim("worker:1", limit=1)

    second = claim("worker:2")

    assert len(first) == len(second) == 1
    assert first[0].job_id != second[0].job_id
    assert claim("worker:3") == []


def test_claim_takes_urgent_jobs_first_then_the_oldest(admin: Caller) -> None:
    late, early, urgent = submit(admin, 3)
    with db.transaction() as session:
        session.execute(sa.update(Job).where(Job.subject_id == late).values(run_at=db.db_now(-5)))
        session.execute(sa.update(Job).where(Job.subject_id == early).values(run_at=db.db_now(-50)))
        session.execute(sa.update(Job).where(Job.subject_id == urgent).values(priority=0))

    order = [lease.subject_id for _ in range(3) for lease in claim(limit=1)]

    assert order == [urgent, early, late]


def test_claim_leaves_a_job_that_is_not_due(admin: Caller) -> None:
    (execution_id,) = submit(admin)
    with db.transaction() as session:
        session.execute(sa.update(Job).values(run_at=db.db_now(30)))

    before = claim()
    db.offset_clock(31)
    after = claim()

    assert before == []
    assert [lease.subject_id for lease in after] == [execution_id]


def test_claim_takes_only_the_queue_and_the_ids_that_are_asked_for(admin: Caller) -> None:
    wanted, _ = submit(admin, 2)
    submit(admin, 1, queue=Queue.INTERACTIVE)

    by_id = claim(job_ids=[job_of(wanted).id])
    by_queue = claim(queue=Queue.INTERACTIVE)

    assert [lease.subject_id for lease in by_id] == [wanted]
    assert [lease.queue for lease in by_queue] == [Queue.INTERACTIVE]


def test_the_fence_rises_with_each_claim_and_only_there(admin: Caller) -> None:
    (execution_id,) = submit(admin)
    (first,) = claim("worker:1")
    expire_leases()

    sweep()
    after_sweep = job_of(execution_id).fence
    (second,) = claim("worker:2")

    assert after_sweep == first.fence
    assert second.fence == first.fence + 1


def test_parallel_claims_never_hand_out_a_job_twice(admin: Caller) -> None:
    submit(admin, 60)
    taken: list[int] = []
    guard = threading.Lock()
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        while got := claim(f"worker:{number}", limit=3):
            with guard:
                taken.extend(lease.job_id for lease in got)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(taken) == 60
    assert len(set(taken)) == 60


def test_a_claim_that_is_still_uncommitted_hides_its_jobs_from_others(admin: Caller, database: str) -> None:
    """The schedule under which an earlier system handed one job to two workers."""
    submit(admin, 1)
    second: list[leases.Lease] = []

    with db.transaction() as session:
        first = leases.claim(session, "worker:1", queue=Queue.EXECUTIONS, limit=1, lease_seconds=60).leases
        other = threading.Thread(target=lambda: second.extend(claim("worker:2")))
        other.start()
        if db.is_postgres(session):
            other.join(timeout=10)  # it must return at once, and empty, while we hold the row
            assert not other.is_alive()
    other.join(timeout=10)

    assert len(first) == 1
    assert second == []


def test_no_advisory_lock_outlives_its_claim(admin: Caller) -> None:
    submit(admin, 5)

    claim()

    with db.reading() as session:
        if db.is_postgres(session):
            held = session.scalar(sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"))
        else:
            held = 0  # SQLite has none: its one write lock ends with the transaction
    assert held == 0


def test_a_canceled_job_cannot_be_claimed(admin: Caller) -> None:
    (execution_id,) = submit(admin)
    with db.transaction() as session:
        job = jobs.open_job_of(session, execution_id)
        assert job is not None
        jobs.cancel(session, job)

    assert claim() == []
    assert execution(execution_id).state == State.CANCELED


def test_an_unknown_or_finished_id_in_a_late_message_claims_nothing(admin: Caller) -> None:
    (execution_id,) = submit(admin)
    (lease,) = claim()

    again = claim("worker:2", job_ids=[lease.job_id, 10**9])

    assert again == []
    assert job_of(execution_id).fence == lease.fence
    assert isinstance(execution_id, uuid.UUID)


def test_a_process_that_checks_in_twice_at_the_same_moment_is_one(admin: Caller) -> None:
    failed: list[IntegrityError] = []
    begun = threading.Event()

    def again() -> None:
        try:
            begun.set()
            with db.transaction() as session:
                leases.check_in(session, "worker:1", [Queue.INTERACTIVE], 4)
        except IntegrityError as error:
            failed.append(error)

    rival = threading.Thread(target=again)
    with db.transaction() as session:
        leases.check_in(session, "worker:1", [Queue.INTERACTIVE], 4)
        rival.start()
        begun.wait()
        wait_until(lambda: not rival.is_alive() or waits_for_a_lock(), "the other waits or ends")
    rival.join()

    assert failed == []
    assert count(WorkerProcess) == 1
