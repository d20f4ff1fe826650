"""The sweep: dead workers' jobs come back, and a job that kills its workers stops (I11)."""

import threading

import sqlalchemy as sa

from shared import db
from shared.domain import jobs, leases
from shared.domain.tenants import Caller
from shared.models import Event, Job, State
from tests.factories import claim, execution, expire_leases, job_of, lease_rows, submit, sweep


def test_an_expired_lease_is_requeued_at_once_and_counted_as_a_loss_not_an_attempt(admin: Caller) -> None:
    (execution_id,) = submit(admin)
    claim()
    expire_leases()

    swept = sweep()

    job = job_of(execution_id)
    assert swept.requeued == 1
    assert (job.state, job.losses, job.attempts) == (State.QUEUED, 1, 0)
    assert execution(execution_id).state == State.QUEUED
    assert execution(execution_id).ambiguous_attempts == 1
    assert lease_rows() == []
    assert len(claim("worker:2")) == 1


def test_a_job_that_lost_its_worker_keeps_its_place_before_those_that_came_later(admin: Caller) -> None:
    first, *_ = submit(admin, 3)
    claim(limit=1)
    expire_leases()
    sweep()

    (again,) = claim("worker:2", limit=1)

    assert again.subject_id == first


def test_a_live_lease_is_left_alone(admin: Caller) -> None:
    submit(admin)
    claim()

    assert sweep() == leases.Swept()
    assert len(lease_rows()) == 1


def test_after_two_losses_a_job_is_only_claimed_alone(admin: Caller) -> None:
    poison, innocent = submit(admin, 2)
    for _ in range(2):
        claim(job_ids=[job_of(poison).id])
        expire_leases()
        sweep()

    with db.reading() as session:
        waiting = leases.waiting(session, list(leases.Queue))
    normal = claim("worker:2")
    alone = claim("worker:3", quarantined=True)

    assert [lease.subject_id for lease in normal] == [innocent]
    assert waiting.quarantined
    assert waiting.queues == {job_queue(poison)}
    assert [lease.subject_id for lease in alone] == [poison]


def job_queue(execution_id: object) -> leases.Queue:
    return leases.Queue(job_of(execution_id).queue)  # type: ignore[arg-type]


def test_three_losses_in_quarantine_fail_the_job_and_only_it(admin: Caller) -> None:
    poison, innocent = submit(admin, 2)
    for loss in range(5):
        claim(job_ids=[job_of(poison).id], quarantined=loss >= 2)
        expire_leases()
        sweep()

    failed = execution(poison)
    assert (failed.state, failed.error_type) == (State.FAILED, "lease_expired")
    assert job_of(poison).losses == 5
    assert job_of(innocent).state == State.QUEUED


def test_a_cancel_that_its_dead_worker_never_heard_is_carried_out(admin: Caller) -> None:
    (execution_id,) = submit(admin)
    claim()
    with db.transaction() as session:
        job = jobs.open_job_of(session, execution_id)
        assert job is not None
        jobs.cancel(session, job)
    expire_leases()

    assert sweep().canceled == 1
    assert execution(execution_id).state == State.CANCELED


def test_two_sweeps_at_once_count_each_loss_once(admin: Caller) -> None:
    ids = submit(admin, 30)
    claim(limit=30)
    expire_leases()
    start = threading.Barrier(4)
    requeued: list[int] = []

    def work() -> None:
        start.wait()
        requeued.append(sweep().requeued)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(requeued) == 30
    assert {job_of(execution_id).losses for execution_id in ids} == {1}


def test_during_a_deploy_jobs_of_a_kind_that_is_not_known_yet_are_left_to_who_knows_them(admin: Caller) -> None:
    newer, ours = submit(admin, 2)
    for _ in range(4):  # one loss more would end it
        claim(quarantined=job_of(newer).losses >= 2, limit=1, job_ids=[job_of(newer).id])
        expire_leases()
        sweep()
    claim(quarantined=True, job_ids=[job_of(newer).id])
    claim(job_ids=[job_of(ours).id])
    with db.transaction() as session:
        session.execute(sa.update(Job).where(Job.subject_id == newer).values(kind="newer"))
    expire_leases()

    swept = sweep()

    assert swept == leases.Swept(requeued=1)
    assert (job_of(newer).state, job_of(newer).losses) == (State.RUNNING, 4)
    assert job_of(ours).state == State.QUEUED


def test_a_sweep_beside_an_outcome_that_is_being_written_leaves_its_lease_to_it(admin: Caller) -> None:
    """Two who hold the same job would wait for each other; the sweep comes again in a moment."""
    first, _ = submit(admin, 2)
    held, _ = claim()
    expire_leases()
    swept: list[leases.Swept] = []
    sweeper = threading.Thread(target=lambda: swept.append(sweep()))

    with db.transaction() as session:
        held_jobs = leases.hold(session, [held])
        sweeper.start()
        if leases.is_postgres(session):  # on SQLite the sweep begins when this has ended
            sweeper.join()
        jobs.close(session, [jobs.Ending(job, State.SUCCEEDED) for job in held_jobs.values()])
    sweeper.join()

    assert swept == [leases.Swept(requeued=1)]
    assert (job_of(first).state, job_of(first).losses) == (State.SUCCEEDED, 0)


def test_one_caller_per_period_gets_the_turn(database: str) -> None:
    def turn(every: float = 10) -> bool:
        with db.transaction() as session:
            return leases.take_turn(session, "sweep", every_seconds=every)

    first, second = turn(), turn()
    db.offset_clock(11)
    third, fourth = turn(), turn()

    assert [first, second, third, fourth] == [True, False, True, False]


def test_every_state_change_has_its_event_in_order(admin: Caller) -> None:
    """I8, over a life with a loss in it."""
    (execution_id,) = submit(admin)
    claim()
    expire_leases()
    sweep()
    claim("worker:2")

    with db.reading() as session:
        types = session.scalars(
            sa.select(Event.type).where(Event.subject_id == execution_id).order_by(Event.xid, Event.id)
        ).all()
    assert types == ["execution.queued", "execution.running", "execution.queued", "execution.running"]
