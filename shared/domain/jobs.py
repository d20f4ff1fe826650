"""Jobs: what is enqueued, how it ends, and what its end sets off.

Every terminal transition, whoever makes it (finish, cancel, sweep, budget), goes through `close()`,
so that a barrier is counted down exactly once for each of its jobs. Locks are always taken in one
order: jobs by id, their subjects, budgets by id, barriers by id.
"""

import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased
from sqlalchemy.orm.attributes import set_committed_value

from shared import messages, metrics
from shared.bulk_rows import bulk_insert_numbered
from shared.db import UNREAD, after_commit, among, db_now
from shared.domain import events, pages
from shared.domain.events import Change
from shared.domain.pages import Page
from shared.domain.tenants import Caller
from shared.errors import NotFound
from shared.models import (
    LIVE_STATES,
    OPEN_STATES,
    Barrier,
    BulkOperation,
    Evaluation,
    Execution,
    Generation,
    Job,
    JobKind,
    JobLease,
    Optimization,
    Queue,
    State,
    table_of,
)

MAX_ATTEMPTS = 4  # one try, three retries
DEFAULT_PRIORITY = 5  # 0 is claimed first, 9 last
SUBJECTS: Mapping[JobKind, Any] = {
    JobKind.EXECUTION: Execution,
    JobKind.EVALUATION: Evaluation,
    JobKind.OPTIMIZATION: Optimization,
    JobKind.REPLAY: Optimization,
    JobKind.GENERATION: Generation,
    JobKind.BULK: BulkOperation,
}
ADDRESSES: Mapping[JobKind, str] = {
    JobKind.EXECUTION: "/v1/executions",
    JobKind.EVALUATION: "/v1/evaluations",
    JobKind.OPTIMIZATION: "/v1/optimizations",
    JobKind.REPLAY: "/v1/optimizations",
    JobKind.GENERATION: "/v1/generations",
    JobKind.BULK: "/v1/bulk/operations",
}
STEP_QUEUES: Mapping[JobKind, Queue] = {
    JobKind.EVALUATION: Queue.OPTIMIZATIONS,
    JobKind.OPTIMIZATION: Queue.OPTIMIZATIONS,
    JobKind.GENERATION: Queue.OPTIMIZATIONS,
    JobKind.BULK: Queue.MAINTENANCE,
}


# Built once: to build a statement anew costs more than to run it.
_JOBS = table_of(Job)
_LOCK = sa.select(Job).where(among(Job.id)).order_by(Job.id).execution_options(populate_existing=True)
_LOCKS = {False: _LOCK.with_for_update(), True: _LOCK.with_for_update(skip_locked=True)}  # by skip_locked
_CLOSE = (
    sa.update(_JOBS)
    .where(among(_JOBS.c.id))
    .values(
        state=sa.bindparam("new_state"),
        error=sa.bindparam("new_error"),
        attempts=_JOBS.c.attempts + sa.bindparam("tries"),
        blocked_by=None,
        finished_at=db_now(),
    )
    .execution_options(**UNREAD)
)
# Locked in id order first: the heartbeat of the same process updates the same rows.
_DROP_LEASES = (
    sa.delete(table_of(JobLease))
    .where(
        JobLease.job_id.in_(
            sa.select(JobLease.job_id).where(among(JobLease.job_id)).order_by(JobLease.job_id).with_for_update()
        )
    )
    .execution_options(**UNREAD)
)
_BARRIERS = table_of(Barrier)
_COUNT_DOWN = (
    sa.update(_BARRIERS)
    .where(_BARRIERS.c.id == sa.bindparam("of"))
    .values(total=_BARRIERS.c.total - sa.bindparam("in_vain"), remaining=_BARRIERS.c.remaining - sa.bindparam("ended"))
    .returning(
        _BARRIERS.c.remaining, _BARRIERS.c.workspace_id, _BARRIERS.c.kind, _BARRIERS.c.subject_id, _BARRIERS.c.step_no
    )
)


@dataclass(frozen=True)
class NewJob:
    workspace_id: uuid.UUID
    kind: JobKind
    queue: Queue
    subject_id: uuid.UUID
    priority: int = DEFAULT_PRIORITY
    step_no: int | None = None
    barrier_id: int | None = None
    budget_id: uuid.UUID | None = None
    retry_of: int | None = None  # the dead job that this one takes the place of


@dataclass(frozen=True)
class Unmade:
    """What a barrier has counted in vain until the step that says so: so many calls, and one for that step."""

    barrier_id: int
    calls: int


@dataclass(frozen=True)
class Ending:
    """How a job ends. `error` is the code and `message` the sentence that the subject shows. `tried`: by a try
    of its own, which is counted."""

    job: Job
    state: State
    error: str | None = None
    message: str | None = None
    tried: bool = False
    unmade: Unmade | None = None


def enqueue(session: Session, new_jobs: Sequence[NewJob]) -> Sequence[int]:
    """Insert queued jobs, and ring for them after the commit; their ids in order."""
    if not new_jobs:
        return []
    ids = bulk_insert_numbered(
        session,
        Job,
        [
            {
                "workspace_id": job.workspace_id,
                "kind": job.kind,
                "queue": job.queue,
                "subject_id": job.subject_id,
                "priority": job.priority,
                "step_no": job.step_no,
                "barrier_id": job.barrier_id,
                "budget_id": job.budget_id,
                "retry_of": job.retry_of,
                "max_attempts": MAX_ATTEMPTS,
            }
            for job in new_jobs
        ],
    )
    by_queue: dict[Queue, list[int]] = defaultdict(list)
    for job, job_id in zip(new_jobs, ids, strict=True):
        by_queue[job.queue].append(job_id)
    for queue, job_ids in by_queue.items():
        after_commit(session, lambda queue=queue, job_ids=job_ids: messages.ring(queue, job_ids))  # type: ignore[misc]
    return ids


def get_job(session: Session, caller: Caller, job_id: int) -> Job:
    found = session.scalars(sa.select(Job).where(Job.id == job_id, *visible(caller))).one_or_none()
    if found is None:
        raise NotFound(f"no job {job_id}")
    return found


def list_jobs(
    session: Session,
    caller: Caller,
    *,
    state: str | None = None,
    queue: str | None = None,
    kind: str | None = None,
    error: str | None = None,
    limit: int,
    cursor: str | None,
) -> Page:
    """Newest first."""
    query = sa.select(Job).where(*visible(caller))
    for column, value in ((Job.state, state), (Job.queue, queue), (Job.kind, kind), (Job.error, error)):
        if value is not None:
            query = query.where(column == value)
    return pages.descending(session, query, Job.id, limit=limit, cursor=cursor)


@dataclass
class QueueCount:
    """Jobs of one queue. `queued` counts those that wait for budget too; `oldest_due` is the first `run_at`."""

    queued: int = 0
    running: int = 0
    dead: int = 0
    oldest_due: datetime | None = None


def count_by_queue(session: Session, *where: sa.ColumnElement[bool]) -> dict[str, QueueCount]:
    """Every queue's jobs. Each part reads an index of what it counts, so that finished jobs cost nothing."""
    parts = {
        "queued": sa.select(Job.queue, sa.func.count(), sa.func.min(Job.run_at)).where(
            Job.state == State.QUEUED, Job.blocked_by.is_(None)
        ),
        "blocked": sa.select(Job.queue, sa.func.count(), sa.null()).where(Job.blocked_by.is_not(None)),
        # By id and not by a join, which SQLite would begin at the wrong end.
        "running": sa.select(Job.queue, sa.func.count(), sa.null()).where(Job.id.in_(sa.select(JobLease.job_id))),
        "dead": sa.select(Job.queue, sa.func.count(), sa.null()).where(Job.state == State.FAILED),
    }
    counts = {queue.value: QueueCount() for queue in Queue}
    for name, part in parts.items():
        for queue, number, oldest in session.execute(part.where(*where).group_by(Job.queue)):
            count = counts.setdefault(queue, QueueCount())  # a newer version may have others
            if name == "queued":
                count.queued, count.oldest_due = number, oldest
            elif name == "blocked":
                count.queued += number
            else:
                setattr(count, name, number)
    return counts


def subject_url(job: Job) -> str:
    """Where the API shows what this job works for."""
    return f"{ADDRESSES[JobKind(job.kind)]}/{job.subject_id}"


def requeued_as(session: Session, job: Job) -> int | None:
    """The newest job that was made to do this dead one's work."""
    return session.scalar(sa.select(sa.func.max(Job.id)).where(Job.retry_of == job.id))


def is_open(subject: Any) -> sa.ColumnElement[bool]:
    """Whether a job or what it works for is still to end, in the very words of the partial indexes: with the
    states as parameters SQLite could not use them, nor PostgreSQL in a plan that it keeps."""
    return subject.state.in_([sa.literal(state.value, literal_execute=True) for state in OPEN_STATES])


def visible(caller: Caller) -> tuple[sa.ColumnElement[bool], ...]:
    """Which jobs a caller may see: of its workspace, and of the subjects of its projects if it is limited."""
    mine = Job.workspace_id == caller.workspace_id
    if caller.project_ids is None:
        return (mine,)
    subjects = (  # aliased: the query around it may join the same table
        sa.exists().where(subject.id == Job.subject_id, subject.project_id.in_(caller.project_ids))
        for subject in map(aliased, SUBJECTS.values())
    )
    return mine, sa.or_(*subjects)


def lock(session: Session, job_ids: Iterable[int], *, skip_locked: bool = False) -> list[Job]:
    """The rows, locked in id order (the order that every transaction keeps)."""
    ids = sorted(set(job_ids))
    if not ids:
        return []
    return list(session.scalars(_LOCKS[skip_locked], {"ids": ids}))


def close(session: Session, endings: Sequence[Ending]) -> Mapping[Queue, Sequence[int]]:
    """End locked, open jobs: leases go, subjects follow a failure or a cancel, barriers count down.

    A success leaves the subject alone: the step that finished wrote its outcome itself. Returns the jobs of the steps
    that this has set off.
    """
    if not endings:
        return {}
    alike: dict[tuple[State, str | None, bool], list[int]] = defaultdict(list)
    for ending in endings:
        if ending.job.state not in OPEN_STATES:
            raise AssertionError(f"job {ending.job.id} is already {ending.job.state}")
        alike[ending.state, ending.error, ending.tried].append(ending.job.id)
    session.flush()  # what was changed on the rows before, and must not be written over
    for (state, error, tried), ids in alike.items():
        values = {"ids": ids, "new_state": state, "new_error": error, "tries": int(tried)}
        session.connection().execute(_CLOSE, values)
    for ending in endings:
        set_committed_value(ending.job, "state", ending.state)
    ended = Counter((str(ending.job.kind), str(ending.state)) for ending in endings)
    after_commit(session, lambda: metrics.jobs_completed(ended))
    drop_leases(session, [ending.job.id for ending in endings])
    _follow(session, [ending for ending in endings if ending.state != State.SUCCEEDED])
    ended_calls = Counter(ending.job.barrier_id for ending in endings if ending.job.barrier_id)
    return _count_down(session, ended_calls, [ending.unmade for ending in endings if ending.unmade is not None])


def requeue(
    session: Session, jobs: Sequence[Job], *, delay_seconds: float | None = None, error: str | None = None
) -> None:
    """Put locked jobs back into the queue; the fence stays, so a late holder can still be told apart.

    Without a delay a job gets back the place that it had: who lost his worker does not wait behind a backlog again.
    """
    if not jobs:
        return
    for job in jobs:
        job.state = State.QUEUED
        job.error = error
        if delay_seconds is not None:
            job.run_at = db_now(delay_seconds)
    session.flush()
    drop_leases(session, [job.id for job in jobs])
    executions = [job for job in jobs if job.kind == JobKind.EXECUTION]
    if executions:
        session.execute(
            sa.update(Execution)
            .where(Execution.id.in_([job.subject_id for job in executions]), Execution.state == State.RUNNING)
            .values(state=State.QUEUED)
        )
        events.record(
            session,
            [
                Change(
                    job.workspace_id,
                    "execution.queued",
                    job.subject_id,
                    {"error": error, "delay": delay_seconds or 0.0},
                )
                for job in executions
            ],
        )


def drop_leases(session: Session, job_ids: Sequence[int]) -> None:
    session.connection().execute(_DROP_LEASES, {"ids": list(job_ids)})


def cancel(session: Session, job: Job) -> State:
    """Cancel a locked job. Queued: at once. Running: its worker is asked and sees it within one heartbeat.

    Returns the state after the call; a job that has ended keeps its state (I5).
    """
    if job.state == State.QUEUED:
        close(session, [Ending(job, State.CANCELED)])
    elif job.state == State.RUNNING:
        job.cancel_requested = True
        session.flush()
    return State(job.state)


def cancel_scope(session: Session, subject_id: uuid.UUID, *, limit: int = 500) -> int:
    """Cancel open jobs of a run that has ended: its own step and the calls it waits for. How many, up to `limit`.

    In transactions of its own, after the one that ended the run: locks go from jobs to subjects, and
    once the run is terminal no step can add a job behind our back. The sweep repeats it if we die here.
    """
    barriers = sa.select(Barrier.id).where(Barrier.subject_id == subject_id)
    by_subject = sa.select(Job.id).where(Job.subject_id == subject_id)
    by_barrier = sa.select(Job.id).where(Job.barrier_id.in_(barriers))
    # Two searches of an index each: joined by OR they would be one of the whole table.
    return _cancel_open(session, [by_subject, by_barrier], limit)


def cancel_batch(session: Session, batch_id: uuid.UUID, *, limit: int = 500) -> int:
    """The same for the executions of a batch whose cancel was asked for. How many, up to `limit`."""
    # By the executions that are open, as their jobs then are: what has ended is not visited for every page.
    members = (
        sa.select(Job.id)
        .join(Execution, Execution.id == Job.subject_id)
        .where(Execution.batch_id == batch_id, Execution.state.in_(OPEN_STATES))
    )
    return _cancel_open(session, [members], limit)


def _cancel_open(session: Session, searches: Sequence[sa.Select[int]], limit: int) -> int:
    of_these = sa.union_all(*(search.where(is_open(Job), ~Job.cancel_requested) for search in searches))
    ids = session.scalars(of_these.limit(limit)).all()
    jobs = [job for job in lock(session, ids) if job.state in OPEN_STATES]
    running = [job.id for job in jobs if job.state == State.RUNNING]
    if running:
        session.execute(sa.update(Job).where(Job.id.in_(running)).values(cancel_requested=True))
    close(session, [Ending(job, State.CANCELED) for job in jobs if job.state == State.QUEUED])
    return len(ids)


def steps_of(session: Session, subject_id: uuid.UUID, *, limit: int = 1_000) -> Sequence[Job]:
    """The jobs of a run, first to last; those that ended long ago are pruned."""
    return session.scalars(sa.select(Job).where(Job.subject_id == subject_id).order_by(Job.id).limit(limit)).all()


def open_job_of(session: Session, subject_id: uuid.UUID) -> Job | None:
    """The open job whose subject this is, locked; None when there is none."""
    ids = session.scalars(sa.select(Job.id).where(Job.subject_id == subject_id, Job.state.in_(OPEN_STATES))).all()
    return next((job for job in lock(session, ids) if job.state in OPEN_STATES), None)


def enqueue_step(
    session: Session, workspace_id: uuid.UUID, kind: JobKind, subject_id: uuid.UUID, step_no: int
) -> Sequence[int]:
    """The job for one step of an evaluation, optimization or bulk operation; unique per (subject, step).

    That of an optimization costs nothing, and belongs to its budget, which is held while the run is paused.
    """
    exists = session.scalar(
        sa.select(Job.id).where(
            Job.subject_id == subject_id,
            Job.step_no == step_no,
            Job.state.not_in((State.FAILED, State.CANCELED)),
        )
    )
    if exists is not None:
        return []
    budget_id = None
    if kind == JobKind.OPTIMIZATION:
        budget_id = session.scalar(sa.select(Optimization.budget_id).where(Optimization.id == subject_id))
    job = NewJob(workspace_id, kind, STEP_QUEUES[kind], subject_id, priority=3, step_no=step_no, budget_id=budget_id)
    return enqueue(session, [job])


def _follow(session: Session, endings: Sequence[Ending]) -> None:
    """Move the subjects of failed and canceled jobs, and stop what a dead step was waiting for."""
    alike: dict[tuple[JobKind, State, str | None, str | None], list[Ending]] = defaultdict(list)
    for ending in endings:
        alike[JobKind(ending.job.kind), ending.state, ending.error, ending.message].append(ending)
    changes = []
    for (kind, state, error, message), group in alike.items():
        subject = SUBJECTS[kind]
        moved = set(
            session.scalars(
                sa.update(subject)
                .where(
                    subject.id.in_([ending.job.subject_id for ending in group]),
                    subject.state.in_(LIVE_STATES),
                )
                .values(state=state, error_type=error, error_message=message, completed_at=db_now())
                .returning(subject.id)
                .execution_options(synchronize_session=False)
            )
        )
        changes += [
            Change(job.workspace_id, f"{kind}.{state}", job.subject_id, {"error": error} if error else {})
            for job in (ending.job for ending in group)
            if job.subject_id in moved
        ]
    events.record(session, changes)


def _count_down(session: Session, ended: "Counter[int]", unmade: Sequence[Unmade]) -> Mapping[Queue, Sequence[int]]:
    steps: dict[Queue, list[int]] = defaultdict(list)
    in_vain = Counter({each.barrier_id: each.calls for each in unmade})
    ended = Counter(ended)
    ended.update(in_vain)
    ended.update(each.barrier_id for each in unmade)
    for barrier_id in sorted(ended):
        counts = {"of": barrier_id, "in_vain": in_vain[barrier_id], "ended": ended[barrier_id]}
        barrier = session.connection().execute(_COUNT_DOWN, counts).one()
        kind = JobKind(barrier.kind)
        # Also a paused run gets its next step, which then waits: so nothing is left to do when it goes on.
        if barrier.remaining == 0 and is_live(session, kind, barrier.subject_id):
            steps[STEP_QUEUES[kind]] += enqueue_step(
                session, barrier.workspace_id, kind, barrier.subject_id, barrier.step_no
            )
    return steps


def is_live(session: Session, kind: JobKind, subject_id: uuid.UUID) -> bool:
    """Whether its outcome is still to come: of a paused run too."""
    subject = SUBJECTS[kind]
    return session.scalar(sa.select(subject.state).where(subject.id == subject_id)) in LIVE_STATES
