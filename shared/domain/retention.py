"""How long what has ended is kept. Each function deletes one batch in the transaction it is given.

Never an open job, never a call of an evaluation, optimization or batch: those can be looked into for ever.
"""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from shared.config import settings
from shared.db import db_now
from shared.models import OPEN_STATES, Call, Event, Execution, Job, JobLease, State

BATCH = 1_000
DAY_SECONDS = 86_400.0


def prune_jobs(session: Session, *, batch: int = BATCH) -> int:
    """Delete the jobs that ended longest ago; how many. Their subjects stay, and say how it ended."""
    days = {
        State.SUCCEEDED: settings().keep_jobs_days,
        State.CANCELED: settings().keep_jobs_days,
        State.FAILED: settings().keep_dead_jobs_days,
    }
    pruned = 0
    for state, kept_days in days.items():
        old = (
            sa.select(Job.id)
            .where(
                Job.state == state,
                Job.finished_at < _ago(session, kept_days),
                ~sa.exists().where(JobLease.job_id == Job.id),
            )
            .order_by(Job.finished_at)
            .limit(batch - pruned)
            .with_for_update(skip_locked=True)
        )
        pruned += _delete(session, Job, old)
    return pruned


def prune_events(session: Session, *, batch: int = BATCH) -> int:
    """Delete the oldest events; how many. Ids follow time closely enough, so no index by time is needed."""
    oldest = sa.select(Event.id, Event.created_at).order_by(Event.id).limit(batch).subquery()
    old = sa.select(oldest.c.id).where(oldest.c.created_at < _ago(session, settings().keep_events_days))
    return _delete(session, Event, old)


def prune_executions(session: Session, *, batch: int = BATCH) -> int:
    """Delete the oldest runs of prompts, with their rows of the ledger, when a limit is set; how many."""
    kept_days = settings().keep_executions_days
    if kept_days is None:
        return 0
    # A retry goes after what it is a retry of: without it the ledger would no longer say that the call was made again.
    own, older = aliased(Call), aliased(Call)
    is_retry = (
        sa.exists()
        .where(own.execution_id == Execution.id, own.generation > 0)
        .where(older.scope_id == own.scope_id, older.call_key == own.call_key, older.generation < own.generation)
    )
    # While its Idempotency-Key is remembered, a run is replayed as it stands, so it must stand.
    before = _ago(session, max(kept_days, settings().idempotency_hours / 24))
    old = (
        sa.select(Execution.id)
        .where(
            Execution.purpose == "run",
            Execution.scope_id.is_(None),
            Execution.batch_id.is_(None),  # a batch counts its executions, and would never be done without some
            Execution.created_at < before,
            Execution.completed_at < before,
            Execution.state.not_in(OPEN_STATES),
            ~is_retry,
        )
        .order_by(Execution.created_at)
        .limit(batch)
        .with_for_update(skip_locked=True)
    )
    return _delete(session, Execution, old)


def _ago(session: Session, days: float) -> datetime:
    # A value, not an expression: PostgreSQL's clock_timestamp() is volatile, and no index is searched with that.
    return session.scalars(sa.select(db_now(-days * DAY_SECONDS))).one()


def _delete(session: Session, entity: type[Job] | type[Event] | type[Execution], old: sa.Select[Any]) -> int:
    # In two statements: a planner may run a LIMIT inside a DELETE more than once.
    ids = session.scalars(old).all()
    if ids:
        session.execute(sa.delete(entity).where(entity.id.in_(ids)).execution_options(synchronize_session=False))
    return len(ids)
