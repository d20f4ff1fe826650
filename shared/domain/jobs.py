"""Jobs: what is enqueued, how it ends, and what its end sets off.

Every terminal transition, whoever makes it (finish, cancel, sweep, budget), goes through `close()`,
so that a barrier is counted down exactly once for each of its jobs. Locks are always taken in one
order: jobs by id, their subjects, budgets by id, barriers by id.
"""

import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from shared import messages, metrics
from shared.db import IDS, after_commit, bulk_insert_numbered, db_now
from shared.domain import events
from shared.domain.events import Change
from shared.models import (
    OPEN_STATES,
    Barrier,
    Evaluation,
    Execution,
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
}


# Built once: to build a statement anew costs more than to run it.
_JOBS = table_of(Job)
_LOCK = sa.select(Job).where(Job.id.in_(IDS)).order_by(Job.id).execution_options(populate_existing=True)
_LOCKS = {False: _LOCK.with_for_update(), True: _LOCK.with_for_update(skip_locked=True)}  # by skip_locked
_CLOSE = (
    sa.update(_JOBS)
    .where(_JOBS.c.id.in_(IDS))
    .values(
        state=sa.bindparam("new_state"),
        error=sa.bindparam("new_error"),
        attempts=_JOBS.c.attempts + sa.bindparam("tries"),
        blocked_by=None,
        finished_at=db_now(),
    )
)
# Locked in id order first: the heartbeat of the same process updates the same rows.
_DROP_LEASES = sa.delete(table_of(JobLease)).where(
    JobLease.job_id.in_(
        sa.select(JobLease.job_id).where(JobLease.job_id.in_(IDS)).order_by(JobLease.job_id).with_for_update()
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


@dataclass(frozen=True)
class Ending:
    """How a job ends. `error` is the code and `message` the sentence that the subject shows. `tried`: by a try
    of its own, which is counted."""

    job: Job
    state: State
    error: str | None = None
    message: str | None = None
    tried: bool = False


def enqueue(session: Session, new_jobs: Sequence[NewJob]) -> None:
    """Insert queued jobs with their events, and ring for them after the commit."""
    if not new_jobs:
        return
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


def lock(session: Session, job_ids: Iterable[int], *, skip_locked: bool = False) -> list[Job]:
    """The rows, locked in id order (the order that every transaction keeps)."""
    ids = sorted(set(job_ids))
    if not ids:
        return []
    return list(session.scalars(_LOCKS[skip_locked], {"ids": ids}))


def close(session: Session, endings: Sequence[Ending]) -> None:
    """End locked, open jobs: leases go, subjects follow a failure or a cancel, barriers count down.

    A success leaves the subject alone: the step that finished wrote its outcome itself.
    """
    if not endings:
        return
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
    _count_down(session, Counter(ending.job.barrier_id for ending in endings if ending.job.barrier_id))


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
    session.connection().execute(_DROP_LEASES, {"ids": job_ids})


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
    of_the_run = sa.select(Job.id).where(sa.or_(Job.subject_id == subject_id, Job.barrier_id.in_(barriers)))
    return _cancel_open(session, of_the_run, limit)


def cancel_batch(session: Session, batch_id: uuid.UUID, *, limit: int = 500) -> int:
    """The same for the executions of a batch whose cancel was asked for. How many, up to `limit`."""
    # By the executions that are open, as their jobs then are: what has ended is not visited for every page.
    members = (
        sa.select(Job.id)
        .join(Execution, Execution.id == Job.subject_id)
        .where(Execution.batch_id == batch_id, Execution.state.in_(OPEN_STATES))
    )
    return _cancel_open(session, members, limit)


def _cancel_open(session: Session, of_these: sa.Select[int], limit: int) -> int:
    ids = session.scalars(of_these.where(Job.state.in_(OPEN_STATES), ~Job.cancel_requested).limit(limit)).all()
    jobs = [job for job in lock(session, ids) if job.state in OPEN_STATES]
    running = [job.id for job in jobs if job.state == State.RUNNING]
    if running:
        session.execute(sa.update(Job).where(Job.id.in_(running)).values(cancel_requested=True))
    close(session, [Ending(job, State.CANCELED) for job in jobs if job.state == State.QUEUED])
    return len(ids)


def open_job_of(session: Session, subject_id: uuid.UUID) -> Job | None:
    """The open job whose subject this is, locked; None when there is none."""
    ids = session.scalars(sa.select(Job.id).where(Job.subject_id == subject_id, Job.state.in_(OPEN_STATES))).all()
    return next((job for job in lock(session, ids) if job.state in OPEN_STATES), None)


def enqueue_step(session: Session, workspace_id: uuid.UUID, kind: JobKind, subject_id: uuid.UUID, step_no: int) -> None:
    """The job for one step of an evaluation or optimization; unique per (subject, step)."""
    exists = session.scalar(
        sa.select(Job.id).where(
            Job.subject_id == subject_id,
            Job.step_no == step_no,
            Job.state.not_in((State.FAILED, State.CANCELED)),
        )
    )
    if exists is None:
        enqueue(
            session,
            [NewJob(workspace_id, kind, Queue.OPTIMIZATIONS, subject_id, priority=3, step_no=step_no)],
        )


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
                    subject.state.in_((*OPEN_STATES, "paused")),
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


def _count_down(session: Session, ended: "Counter[int]") -> None:
    for barrier_id in sorted(ended):
        barrier = session.execute(
            sa.update(Barrier)
            .where(Barrier.id == barrier_id)
            .values(remaining=Barrier.remaining - ended[barrier_id])
            .returning(Barrier.remaining, Barrier.workspace_id, Barrier.kind, Barrier.subject_id, Barrier.step_no)
        ).one()
        if barrier.remaining == 0 and _is_open(session, JobKind(barrier.kind), barrier.subject_id):
            enqueue_step(session, barrier.workspace_id, JobKind(barrier.kind), barrier.subject_id, barrier.step_no)


def _is_open(session: Session, kind: JobKind, subject_id: uuid.UUID) -> bool:
    subject = SUBJECTS[kind]
    return session.scalar(sa.select(subject.state).where(subject.id == subject_id)) in OPEN_STATES
