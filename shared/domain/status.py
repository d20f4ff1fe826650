"""How the queues and the fleet are doing, computed from the rows at the moment of asking."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.config import settings
from shared.db import db_now
from shared.models import Job, JobLease, Queue, Schedule, State, WorkerProcess

OVERDUE_SECONDS = 10.0  # due work that nobody consumes is tolerated for as long as a deploy takes to start


def problems(session: Session) -> list[str]:
    """Why work would not get done; empty when it would (I12)."""
    consumed = consumers(session)
    found = [
        f"queue {queue} has due work and no worker consumes it"
        for queue in _overdue_queues(session)
        if not consumed[queue]
    ]
    late = _sweep_late_seconds(session)
    if late is not None:
        found.append(f"no sweep for {late:.0f} s; workers and beat are due to run one every few seconds")
    return found


def snapshot(session: Session, workspace_id: uuid.UUID, *, warn_seconds: float) -> Mapping[str, Any]:
    """Queue depth, leases and consumers. Counts are the workspace's; leases and workers are the fleet's."""
    now = session.scalars(sa.select(db_now())).one()
    rows = session.execute(
        sa.select(Job.queue, Job.state, sa.func.count(), sa.func.min(Job.run_at))
        .where(Job.workspace_id == workspace_id, Job.state.in_((State.QUEUED, State.RUNNING)))
        .group_by(Job.queue, Job.state)
    ).all()
    depth = {queue.value: 0 for queue in Queue}
    running = 0
    oldest: float | None = None
    for queue, state, count, first in rows:
        if state == State.QUEUED:
            depth[queue] += count
            due_for = (now - first).total_seconds()
            oldest = max(oldest or 0.0, due_for)
        else:
            running += count
    leases = session.execute(
        sa.select(
            sa.func.count(),
            sa.func.count().filter(JobLease.expires_at < db_now(warn_seconds), JobLease.expires_at >= db_now()),
            sa.func.count().filter(JobLease.expires_at < db_now()),
        ).select_from(JobLease)
    ).one()
    blocked = session.scalar(
        sa.select(sa.func.count()).where(Job.workspace_id == workspace_id, Job.blocked_by.is_not(None))
    )
    return {
        "queue_depth": depth,
        "running": running,
        "blocked_by_budget": blocked,
        "oldest_due_seconds": oldest,
        "leases": {"active": leases[0], "expiring_soon": leases[1], "stale": leases[2]},
        "consumers": consumers(session),
        "last_sweep_seconds_ago": sweep_age_seconds(session),
        "warnings": problems(session),
    }


@dataclass(frozen=True)
class FleetGauges:
    """Over all workspaces: queued jobs by queue, live consumers by queue, leases."""

    depth: Mapping[str, int]
    consumers: Mapping[str, int]
    leases_active: int
    leases_expired: int


def fleet_gauges(session: Session) -> FleetGauges:
    queued = dict(
        session.execute(
            sa.select(Job.queue, sa.func.count()).where(Job.state == State.QUEUED).group_by(Job.queue)
        ).all()
    )
    active, expired = session.execute(
        sa.select(
            sa.func.count().filter(JobLease.expires_at >= db_now()),
            sa.func.count().filter(JobLease.expires_at < db_now()),
        ).select_from(JobLease)
    ).one()
    depth = {queue.value: queued.get(queue.value, 0) for queue in Queue}
    return FleetGauges(depth, consumers(session), active, expired)


def consumers(session: Session) -> dict[str, int]:
    """Live worker processes by queue."""
    counts = {queue.value: 0 for queue in Queue}
    for queues in session.scalars(sa.select(WorkerProcess.queues).where(*_is_alive())):
        for queue in queues:
            counts[queue] += 1
    return counts


def sweep_age_seconds(session: Session) -> float | None:
    row = session.execute(
        sa.select(Schedule.finished_at, db_now()).where(Schedule.name == "sweep", Schedule.finished_at.is_not(None))
    ).first()
    return None if row is None or row[0] is None else (row[1] - row[0]).total_seconds()


def _sweep_late_seconds(session: Session) -> float | None:
    """How long no sweep has ended, when that is too long for a fleet that is up; None when all is well."""
    born = session.scalar(sa.select(sa.func.min(WorkerProcess.started_at)).where(*_is_alive()))
    if born is None:
        return None
    now = session.scalars(sa.select(db_now())).one()
    ended = session.scalar(sa.select(Schedule.finished_at).where(Schedule.name == "sweep"))
    age = (now - max(born, ended or born)).total_seconds()
    return age if age > 3 * settings().sweep_seconds + 5 else None


def _is_alive() -> tuple[sa.ColumnElement[bool], ...]:
    silent_for = max(3 * (settings().heartbeat_seconds or 20.0), 15.0)
    return (WorkerProcess.heartbeat_at >= db_now(-silent_for),)


def _overdue_queues(session: Session) -> list[str]:
    return list(
        session.scalars(
            sa.select(Job.queue)
            .where(Job.state == State.QUEUED, Job.blocked_by.is_(None), Job.run_at < db_now(-OVERDUE_SECONDS))
            .distinct()
        )
    )
