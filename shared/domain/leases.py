"""The right to work on a job: claim, renew, hold for finishing, release, sweep.

The fence is raised at the claim, and only there. Whoever writes an outcome must hold the newest
fence of a job that is still open; owner and expiry are never asked. So a worker that was paused past
its lease can save its paid answer until somebody else has claimed the job, and not after (I2).
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from shared import metrics
from shared.db import UNREAD, after_commit, among, db_now, insert_if_absent, is_postgres
from shared.domain import budgets, events, jobs
from shared.domain.events import Change
from shared.domain.queues import closed, room_in
from shared.models import (
    LIVE_STATES,
    OPEN_STATES,
    Barrier,
    BulkOperation,
    Evaluation,
    Generation,
    Job,
    JobKind,
    JobLease,
    Optimization,
    Queue,
    Schedule,
    State,
    WorkerProcess,
    table_of,
)

QUARANTINE_AFTER_LOSSES = 2
LOSSES_IN_QUARANTINE = 3
PAGES_AT_ONCE = 20  # of jobs that their budget sets aside, before a claim lets others have the database
# Advisory locks share one number space with everything else in the database: "PM" in the high bits.
_LOCK_SPACE = 0x504D << 48
_JOBS = table_of(Job)


@dataclass(frozen=True)
class Lease:
    """A claimed job. Frozen: nothing here changes when the lease is renewed."""

    job_id: int
    fence: int
    kind: JobKind
    subject_id: uuid.UUID
    workspace_id: uuid.UUID
    step_no: int | None
    queue: Queue
    attempts: int
    losses: int


@dataclass(frozen=True)
class Claim:
    """`more`: there may be other due jobs that this claim had no room for."""

    leases: list[Lease]
    more: bool


def claim(
    session: Session,
    owner: str,
    *,
    queue: Queue,
    limit: int,
    lease_seconds: float,
    job_ids: Sequence[int] | None = None,
    quarantined: bool = False,
) -> Claim:
    """Take up to `limit` due jobs of a queue, by priority; of `job_ids` only, when they are given.

    Jobs that lost `QUARANTINE_AFTER_LOSSES` leases are taken only with `quarantined`, and then only
    they (I11). A job that its budget cannot afford now is set aside with `blocked_by` (I6), and the
    next ones are tried in its place. Nothing is taken from a paused queue, nor past the limit of one.
    """
    claimed: list[Lease] = []
    limit = room_in(session, queue, limit)
    for _ in range(PAGES_AT_ONCE if limit else 0):
        room = limit - len(claimed)
        wanted = _lock_due(session, queue, room, job_ids, quarantined)
        affordable = budgets.reserve(session, wanted)
        if affordable:
            claimed += _take(session, owner, affordable, lease_seconds)
        if len(wanted) < room:
            return Claim(claimed, more=False)
        if len(affordable) == room:
            break
    return Claim(claimed, more=limit > 0)


def claim_at_once(
    session: Session,
    owner: str,
    *,
    queue: Queue,
    limit: int,
    lease_seconds: float,
    job_ids: Sequence[int] | None = None,
) -> list[Lease]:
    """Take due jobs in a transaction that holds other locks already, where `claim` takes its own first; of `job_ids`
    only, when they are given.

    It waits for no lock, so that two such transactions never wait for each other, and it changes no job that it
    does not take: what a budget or a limit does not let through now is left to `claim`.
    """
    limit = room_in(session, queue, limit, waits=False)
    wanted = _lock_due(session, queue, limit, job_ids, False) if limit else []
    affordable = budgets.reserve_at_once(session, wanted)
    return _take(session, owner, affordable, lease_seconds) if affordable else []


@dataclass(frozen=True)
class Waiting:
    """Which queues have a due job, and whether one of them waits for a process of its own."""

    queues: frozenset[Queue]
    quarantined: bool


def waiting(session: Session, queues: Sequence[Queue]) -> Waiting:
    """One look at all of these queues, so that a claim is tried only where there is something to claim."""
    names, quarantined, *due = session.connection().execute(_look(tuple(queues))).one()
    shut = names.split(",") if names else ()
    return Waiting(
        frozenset(queue for queue, is_due in zip(queues, due, strict=True) if is_due and queue not in shut),
        bool(quarantined),
    )


@dataclass(frozen=True)
class Beat:
    """What a heartbeat found: (job id, fence) of the leases still held, and the jobs of those that should stop."""

    held: frozenset[tuple[int, int]]
    cancel_requested: frozenset[int]


def renew(session: Session, owner: str, leases: Sequence[Lease], *, lease_seconds: float) -> Beat:
    """Extend these leases in one statement. One that is not returned is lost. Never shortens a lease."""
    if not leases:
        return Beat(frozenset(), frozenset())
    wanted = {(lease.job_id, lease.fence) for lease in leases}
    ordered = (
        sa.select(JobLease.job_id)
        .where(JobLease.owner == owner, JobLease.job_id.in_({job_id for job_id, _ in wanted}))
        .order_by(JobLease.job_id)
        .with_for_update()
    )
    later = sa.func.greatest if is_postgres(session) else sa.func.max
    rows = session.execute(
        sa.update(JobLease)
        .where(JobLease.job_id.in_(ordered))
        .values(heartbeat_at=db_now(), expires_at=later(JobLease.expires_at, db_now(lease_seconds)))
        .returning(JobLease.job_id, JobLease.fence)
    ).all()
    held = frozenset((row.job_id, row.fence) for row in rows) & wanted
    after_commit(session, lambda: metrics.leases_renewed(len(held)))
    ids = [job_id for job_id, _ in held]
    stopping = session.scalars(sa.select(Job.id).where(Job.id.in_(ids), Job.cancel_requested)).all()
    return Beat(held, frozenset(stopping))


def hold(session: Session, leases: Sequence[Lease]) -> dict[int, Job]:
    """Lock the jobs of these leases and return, by id, those whose outcome may still be written.

    A job that somebody else has claimed since, or that has ended, is left out. One that the sweep has
    put back, and that nobody has claimed, is in: its paid answer is saved.
    """
    fences = {lease.job_id: lease.fence for lease in leases}
    return {
        job.id: job
        for job in jobs.lock(session, list(fences))
        if job.fence == fences[job.id] and job.state in OPEN_STATES
    }


def release(session: Session, leases: Sequence[Lease], *, started: Collection[int] = ()) -> None:
    """Give jobs back on a clean shutdown: no attempt, no loss, due at once.

    For those in `started` a call may have been sent, so it is counted as possibly paid.
    """
    held = [job for job in hold(session, leases).values() if job.state == State.RUNNING]
    budgets.lock(session, held)
    budgets.presume_paid(session, [job for job in held if job.id in started])
    budgets.give_back(session, [job for job in held if job.id not in started])
    jobs.close(session, [jobs.Ending(job, State.CANCELED) for job in held if job.cancel_requested])
    jobs.requeue(session, [job for job in held if not job.cancel_requested])


@dataclass(frozen=True)
class Swept:
    requeued: int = 0
    failed: int = 0
    canceled: int = 0


def sweep(session: Session, *, batch: int = 500) -> Swept:
    """Put the jobs of expired leases back, and end those that keep losing them.

    Two sweeps at once are harmless: each handles the leases that it deleted itself.
    """
    expired = session.scalars(
        sa.select(JobLease.job_id).where(JobLease.expires_at < db_now()).order_by(JobLease.job_id).limit(batch)
    ).all()
    # During a deploy there may be jobs of a kind that only the newer version knows; its own sweep ends those.
    known = tuple(JobKind)
    locked = [
        job for job in jobs.lock(session, expired, skip_locked=True) if job.state == State.RUNNING and job.kind in known
    ]
    # Locked in id order: a heartbeat of the same leases does the same.
    ordered = (
        sa.select(JobLease.job_id)
        .where(JobLease.job_id.in_([job.id for job in locked]), JobLease.expires_at < db_now())
        .order_by(JobLease.job_id)
        .with_for_update()
    )
    gone = set(session.scalars(sa.delete(JobLease).where(JobLease.job_id.in_(ordered)).returning(JobLease.job_id)))
    lost = [job for job in locked if job.id in gone]
    after_commit(session, lambda: metrics.leases_reclaimed(len(lost)))
    for job in lost:
        job.losses += 1
    budgets.presume_paid(session, lost)
    canceled = [job for job in lost if job.cancel_requested]
    dead = [job for job in lost if _is_dead(job) and job not in canceled]
    jobs.close(session, [jobs.Ending(job, State.CANCELED) for job in canceled])
    jobs.close(
        session,
        [jobs.Ending(job, State.FAILED, "lease_expired", f"its worker was lost {job.losses} times") for job in dead],
    )
    again = [job for job in lost if job not in canceled and job not in dead]
    jobs.requeue(session, again, error="lease_expired")
    return Swept(len(again), len(dead), len(canceled))


def cancel_orphans(session: Session) -> int:
    """Cancel open calls of a run that has ended: its cancel died between two transactions. How many, a page at most."""
    for subject in (Evaluation, Optimization, Generation):
        ended = session.scalar(
            sa.select(subject.id)
            .join(Barrier, Barrier.subject_id == subject.id)
            .where(
                Barrier.id.in_(_open_barriers()),
                subject.state.not_in(LIVE_STATES),
                sa.exists().where(
                    Job.barrier_id == Barrier.id,
                    jobs.is_open(Job),
                    ~Job.cancel_requested,
                ),
            )
            .limit(1)
        )
        if ended is not None:
            return jobs.cancel_scope(session, ended)
    return 0


def _open_barriers() -> sa.Select[int]:
    """The barriers that open jobs count for. Hops from one to the next in the index of those jobs, so that
    neither the calls that wait nor the runs that have ended are read one by one."""
    counted = sa.select(sa.func.min(Job.barrier_id).label("id")).where(jobs.is_open(Job), Job.barrier_id.is_not(None))
    hops = counted.cte("open_barriers", recursive=True)
    following = counted.where(Job.barrier_id > hops.c.id)
    hops = hops.union_all(sa.select(following.scalar_subquery()).where(hops.c.id.is_not(None)))
    return sa.select(hops.c.id).where(hops.c.id.is_not(None))


def restart_stalled(session: Session) -> int:
    """Insert the next step of a run whose barrier is at zero and that has no open job.

    Nothing in the code leaves a run like that; a restore from a backup or a repaired row might.
    """
    restarted = 0
    of_steps: Sequence[tuple[JobKind, Any]] = (
        (JobKind.EVALUATION, Evaluation),
        (JobKind.OPTIMIZATION, Optimization),
        (JobKind.GENERATION, Generation),
        (JobKind.BULK, BulkOperation),
    )
    for kind, subject in of_steps:
        open_job = sa.exists().where(Job.subject_id == subject.id, jobs.is_open(Job))
        waiting = sa.exists().where(
            Barrier.subject_id == subject.id, Barrier.step_no == subject.step_no + 1, Barrier.remaining > 0
        )
        stalled = session.execute(
            sa.select(subject.id, subject.workspace_id, subject.step_no).where(
                jobs.is_open(subject), ~open_job, ~waiting
            )
        ).all()
        for row in stalled:
            jobs.enqueue_step(session, row.workspace_id, kind, row.id, row.step_no + 1)
            restarted += 1
    return restarted


def take_turn(session: Session, name: str, *, every_seconds: float) -> bool:
    """True for the one caller per period that should do the duty `name` now."""
    moved = session.execute(
        sa.update(Schedule)
        .where(Schedule.name == name, Schedule.started_at <= db_now(-every_seconds))
        .values(started_at=db_now())
    )
    if moved.rowcount:  # type: ignore[attr-defined]
        return True
    return insert_if_absent(session, Schedule, name=name, started_at=db_now())


def end_turn(session: Session, name: str) -> None:
    session.execute(sa.update(Schedule).where(Schedule.name == name).values(finished_at=db_now()))


def check_in(session: Session, owner: str, queues: Sequence[Queue], concurrency: int) -> None:
    """Say that this worker process is alive and what it consumes."""
    seen = session.execute(sa.update(WorkerProcess).where(WorkerProcess.owner == owner).values(heartbeat_at=db_now()))
    if not seen.rowcount:  # type: ignore[attr-defined]
        listed = [str(queue) for queue in queues]
        values = {"owner": owner, "queues": listed, "concurrency": concurrency, "heartbeat_at": db_now()}
        insert_if_absent(session, WorkerProcess, **values)  # its other threads may do so at the same moment


def check_out(session: Session, owner: str) -> None:
    session.execute(sa.delete(WorkerProcess).where(WorkerProcess.owner == owner))


def forget_dead_workers(session: Session, *, after_seconds: float = 3600) -> None:
    session.execute(sa.delete(WorkerProcess).where(WorkerProcess.heartbeat_at < db_now(-after_seconds)))


@cache
def _look(queues: tuple[Queue, ...]) -> sa.Select[*tuple[Any, ...]]:
    shut = closed().subquery()
    return sa.select(
        # Once for all queues: in each of the searches it would cost as much as they do.
        sa.select(sa.func.aggregate_strings(shut.c.name, ",")).scalar_subquery(),
        sa.exists().where(Job.queue.in_(queues), Job.queue.not_in(closed()), *_due(quarantined=True)),
        *(sa.exists().where(Job.queue == queue, *_due(quarantined=False)) for queue in queues),
    )


def _due(*, quarantined: bool) -> list[sa.ColumnElement[bool]]:
    losses = Job.losses >= QUARANTINE_AFTER_LOSSES if quarantined else Job.losses < QUARANTINE_AFTER_LOSSES
    known = Job.kind.in_(list(JobKind))  # a newer version may have queued others; they are not for this process
    return [Job.state == State.QUEUED, Job.blocked_by.is_(None), Job.run_at <= db_now(), losses, known]


def _lock_due(
    session: Session, queue: Queue, limit: int, job_ids: Sequence[int] | None, quarantined: bool
) -> list[Job]:
    postgres = is_postgres(session)
    statement = _choose(postgres, job_ids is not None, quarantined)
    rows = session.execute(statement, {"queue": queue, "room": limit, "ids": list(job_ids or ())}).all()
    if not postgres:
        return [job for (job,) in rows]
    granted = [job for job, is_granted in rows if is_granted]
    metrics.advisory_locks(attempts=len(rows), acquired=len(granted))
    return granted


# Built once each, here and below: to build a statement anew costs more than to run it.
@cache
def _choose(postgres: bool, by_id: bool, quarantined: bool) -> sa.Select[Any]:
    due = (
        sa.select(Job.id)
        .where(Job.queue == sa.bindparam("queue"), *_due(quarantined=quarantined))
        .order_by(Job.priority, Job.run_at, Job.id)
        .limit(sa.bindparam("room"))
        .with_for_update(skip_locked=True)
    )
    if by_id:
        due = due.where(among(Job.id))
    if not postgres:
        # BEGIN IMMEDIATE is the lock: no other transaction can claim until this one has ended.
        return sa.select(Job).where(Job.id.in_(due)).order_by(Job.id)
    # The advisory lock is taken over the rows already chosen, never inside the LIMIT query, which would
    # lock rows that it does not return; its scope is the transaction, so no pooled connection keeps it.
    chosen = due.cte("chosen").prefix_with("MATERIALIZED")
    granted = sa.func.pg_try_advisory_xact_lock(sa.literal(_LOCK_SPACE, sa.BigInteger) + chosen.c.id)
    return sa.select(Job, granted).join(chosen, chosen.c.id == Job.id).order_by(Job.id)


def _take(session: Session, owner: str, affordable: Sequence[Job], lease_seconds: float) -> list[Lease]:
    connection = session.connection()
    rows = connection.execute(_RUN, {"ids": [job.id for job in affordable]}).all()
    fences: dict[int, int] = {row[0]: row[1] for row in rows}
    claimed = [job for job in affordable if job.id in fences]
    claimed.sort(key=lambda job: (job.priority, job.run_at, job.id))
    waited = [(rows[0][2] - job.run_at).total_seconds() for job in claimed]
    after_commit(session, lambda: metrics.jobs_claimed(affordable[0].queue, waited))
    connection.execute(_lease_for(lease_seconds), {"ids": list(fences), "owner": owner})
    for job in claimed:
        set_committed_value(job, "state", State.RUNNING)
        set_committed_value(job, "fence", fences[job.id])
    _start_subjects(session, claimed)
    return [_lease(job) for job in claimed]


_RUN = (
    sa.update(_JOBS)
    .where(among(_JOBS.c.id), _JOBS.c.state == State.QUEUED)
    .values(state=State.RUNNING, fence=_JOBS.c.fence + 1)
    .returning(_JOBS.c.id, _JOBS.c.fence, db_now())
)


@cache
def _lease_for(seconds: float) -> sa.Insert:
    now = db_now()
    taken = sa.select(_JOBS.c.id, sa.bindparam("owner"), _JOBS.c.fence, now, now, db_now(seconds)).where(
        among(_JOBS.c.id)
    )
    columns = ["job_id", "owner", "fence", "acquired_at", "heartbeat_at", "expires_at"]
    return sa.insert(table_of(JobLease)).from_select(columns, taken).execution_options(**UNREAD)


@cache
def _start(kind: JobKind) -> sa.Update:
    subjects = table_of(jobs.SUBJECTS[kind])
    return (
        sa.update(subjects)
        .where(among(subjects.c.id), subjects.c.state == State.QUEUED)
        .values(state=State.RUNNING, started_at=sa.func.coalesce(subjects.c.started_at, db_now()))
        .returning(subjects.c.id)
    )


def _start_subjects(session: Session, claimed: Sequence[Job]) -> None:
    changes = []
    for kind in jobs.SUBJECTS:
        ids = [job.subject_id for job in claimed if job.kind == kind]
        if not ids:
            continue
        started = set(session.connection().execute(_start(kind), {"ids": ids}).scalars())
        changes += [
            Change(job.workspace_id, f"{kind}.running", job.subject_id) for job in claimed if job.subject_id in started
        ]
    events.record(session, changes)


def _lease(job: Job) -> Lease:
    return Lease(
        job.id,
        job.fence,
        JobKind(job.kind),
        job.subject_id,
        job.workspace_id,
        job.step_no,
        Queue(job.queue),
        job.attempts,
        job.losses,
    )


def _is_dead(job: Job) -> bool:
    return job.losses >= QUARANTINE_AFTER_LOSSES + LOSSES_IN_QUARANTINE
