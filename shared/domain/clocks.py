"""The clock of a run with a ceiling on its time: it stands still in pauses, and a continuation goes on counting.

A search must stop early enough for its holdout; when, is decided by the worker, step by step, and kept as the
deadline of the budget: a call of the search that has not begun by then never does (`budgets.reserve`).
"""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.db import db_now
from shared.models import Budget, Optimization


def elapsed_seconds(session: Session, run: Optimization) -> float:
    """How long it has been going on, with the run that it continues."""
    return elapsed_of(session, [run])[run.id]


def elapsed_of(session: Session, found: Sequence[Optimization]) -> dict[uuid.UUID, float]:
    """The same of several, in one statement for all."""
    query = sa.select(Budget.id, Budget.idle_seconds, Budget.paused_at, db_now())
    rows = session.execute(query.where(Budget.id.in_([run.budget_id for run in found])))
    clocks: dict[uuid.UUID | None, Any] = {row[0]: row[1:] for row in rows}
    return {run.id: _elapsed(run, *clocks[run.budget_id]) for run in found}


def _elapsed(run: Optimization, idle_seconds: float, paused_at: datetime | None, now: datetime) -> float:
    if run.started_at is None:
        return max(0.0, -idle_seconds)
    until = paused_at or run.completed_at or now
    return max(0.0, (until - run.started_at).total_seconds() - idle_seconds)


def stop(session: Session, budget: Budget) -> None:
    """Of a locked budget, whose run is being paused."""
    budget.paused_at = now(session)


def go_on(session: Session, budget: Budget, started_at: datetime | None) -> None:
    """Of a locked budget, whose run is being resumed: what it stood still for does not count."""
    if budget.paused_at is None:
        return  # an older version paused it
    stood = now(session) - budget.paused_at
    if started_at is not None:
        budget.idle_seconds += stood.total_seconds()
    if budget.deadline_at is not None:
        budget.deadline_at += stood
    budget.paused_at = None


def set_deadline(session: Session, run: Optimization, seconds: float | None) -> None:
    """No call of this run begins so many seconds from now; None: any does. Locks the budget."""
    budget = session.get_one(Budget, run.budget_id, with_for_update=True, populate_existing=True)
    base = budget.paused_at or now(session)
    budget.deadline_at = None if seconds is None else base + timedelta(seconds=seconds)
    session.flush()


def now(session: Session) -> datetime:
    return session.scalars(sa.select(db_now())).one()
