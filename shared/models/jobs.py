"""The queue: jobs, the leases on them, the barriers that count them, and who works.

The job row is narrow and is the queue; payloads and answers live with the subject. Only
waiting rows are indexed for the claim, and nothing that a heartbeat changes is indexed.
"""

import uuid
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import db_now
from shared.models.base import Base, BigId, Json, State, state_check


class Queue(StrEnum):
    """One Celery queue per kind of work, so that a fleet scales each with -Q. In the order of claiming."""

    INTERACTIVE = "interactive"
    MAINTENANCE = "maintenance"
    OPTIMIZATIONS = "optimizations"
    DELIVERIES = "deliveries"
    EXECUTIONS = "executions"


class JobKind(StrEnum):
    EXECUTION = "execution"  # one provider call; subject: an execution
    EVALUATION = "evaluation"  # one step of an evaluation; subject: the evaluation
    OPTIMIZATION = "optimization"  # one step of a search; subject: the optimization
    REPLAY = "replay"  # a search repeated from its records; subject: the optimization, which has ended
    GENERATION = "generation"  # one step of a generation of test cases; subject: the generation
    BULK = "bulk"  # one page of a bulk operation; subject: the operation


class Job(Base):
    __tablename__ = "jobs"
    __table_args__ = (
        state_check(),
        sa.Index(
            "ix_jobs_claim",
            "queue",
            "priority",
            "run_at",
            "id",
            postgresql_where=sa.text("state = 'queued' AND blocked_by IS NULL"),
            sqlite_where=sa.text("state = 'queued' AND blocked_by IS NULL"),
        ),
        sa.Index(
            "ix_jobs_blocked_by",
            "blocked_by",
            postgresql_where=sa.text("blocked_by IS NOT NULL"),
            sqlite_where=sa.text("blocked_by IS NOT NULL"),
        ),
        sa.Index(
            "ix_jobs_quarantine",
            "queue",
            "run_at",
            postgresql_where=sa.text("state = 'queued' AND losses >= 2"),
            sqlite_where=sa.text("state = 'queued' AND losses >= 2"),
        ),
        sa.Index(
            "ix_jobs_barrier",
            "barrier_id",
            postgresql_where=sa.text("state IN ('queued', 'running') AND barrier_id IS NOT NULL"),
            sqlite_where=sa.text("state IN ('queued', 'running') AND barrier_id IS NOT NULL"),
        ),
        # A step of an evaluation or a search runs once. A dead one may be requeued beside its corpse.
        sa.Index(
            "uq_jobs_subject_id_step_no",
            "subject_id",
            "step_no",
            unique=True,
            postgresql_where=sa.text("step_no IS NOT NULL AND state NOT IN ('failed', 'canceled')"),
            sqlite_where=sa.text("step_no IS NOT NULL AND state NOT IN ('failed', 'canceled')"),
        ),
        sa.Index("ix_jobs_subject_id", "subject_id"),
        sa.Index(
            "ix_jobs_finished",
            "state",
            "finished_at",
            postgresql_where=sa.text("finished_at IS NOT NULL"),
            sqlite_where=sa.text("finished_at IS NOT NULL"),
        ),
        sa.Index(
            "ix_jobs_dead",
            "workspace_id",
            "id",
            postgresql_where=sa.text("state = 'failed'"),
            sqlite_where=sa.text("state = 'failed'"),
        ),
        sa.Index(
            "ix_jobs_retry_of",
            "retry_of",
            postgresql_where=sa.text("retry_of IS NOT NULL"),
            sqlite_where=sa.text("retry_of IS NOT NULL"),
        ),
        {"sqlite_autoincrement": True},  # an id in a late message must never mean a newer job
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    workspace_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("workspaces.id"))
    kind: Mapped[str] = mapped_column(sa.String(16))
    queue: Mapped[str] = mapped_column(sa.String(16))
    subject_id: Mapped[uuid.UUID]
    step_no: Mapped[int | None]
    barrier_id: Mapped[int | None] = mapped_column(BigId)
    budget_id: Mapped[uuid.UUID | None]
    priority: Mapped[int] = mapped_column(sa.SmallInteger, default=5)  # 0 is claimed first, 9 last
    state: Mapped[str] = mapped_column(sa.String(16), default=State.QUEUED)
    run_at: Mapped[datetime] = mapped_column(insert_default=db_now())
    attempts: Mapped[int] = mapped_column(default=0)  # tries that ended, by answer or by error
    losses: Mapped[int] = mapped_column(default=0)  # leases that expired
    deferrals: Mapped[int] = mapped_column(default=0)  # sent back by the rate governor
    max_attempts: Mapped[int] = mapped_column(default=4)
    fence: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    blocked_by: Mapped[uuid.UUID | None]  # the budget that cannot afford it
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    deadline_at: Mapped[datetime | None]
    retry_of: Mapped[int | None] = mapped_column(BigId)
    error: Mapped[str | None] = mapped_column(sa.String(64))
    created_at: Mapped[datetime] = mapped_column(insert_default=db_now())
    finished_at: Mapped[datetime | None]


class QueueControl(Base):
    """What an operator has decided about a queue. A queue without a row runs freely."""

    __tablename__ = "queues"
    __table_args__ = (sa.CheckConstraint("max_running > 0", name="max_running"),)

    name: Mapped[str] = mapped_column(sa.String(16), primary_key=True)
    paused: Mapped[bool] = mapped_column(default=False)  # nothing is claimed from it
    draining: Mapped[bool] = mapped_column(default=False)  # nothing new is accepted into it
    max_running: Mapped[int | None]  # over the whole fleet; null: as many as there are slots
    updated_at: Mapped[datetime] = mapped_column(insert_default=db_now())
    updated_by: Mapped[str] = mapped_column(sa.String(128), default="")


class JobLease(Base):
    """Exists exactly while a job runs, so this narrow table takes the frequent writes."""

    __tablename__ = "leases"

    job_id: Mapped[int] = mapped_column(
        BigId, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    owner: Mapped[str] = mapped_column(sa.String(128))
    fence: Mapped[int] = mapped_column(sa.BigInteger)
    acquired_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class Barrier(Base):
    """Counts the open calls of one step; the call that brings it to zero starts the next step.

    While a step has yet to make some of them, those are counted too, and one more for that step."""

    __tablename__ = "barriers"
    __table_args__ = (sa.UniqueConstraint("subject_id", "step_no"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    workspace_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("workspaces.id"))
    kind: Mapped[str] = mapped_column(sa.String(16))
    subject_id: Mapped[uuid.UUID]
    step_no: Mapped[int]  # the step that starts at zero
    total: Mapped[int]
    remaining: Mapped[int]


class WorkerProcess(Base):
    """A process of the fleet, beating every few seconds: this is how a queue nobody consumes is seen."""

    __tablename__ = "workers"

    owner: Mapped[str] = mapped_column(sa.String(128), primary_key=True)
    queues: Mapped[Json]
    concurrency: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(insert_default=db_now())
    heartbeat_at: Mapped[datetime]


class Schedule(Base):
    """When a periodic duty last began and ended. The compare-and-set on it lets one process do it."""

    __tablename__ = "schedules"

    name: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
