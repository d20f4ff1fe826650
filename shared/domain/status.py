"""How the queues and the fleet are doing, computed from the rows at the moment of asking."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.config import settings
from shared.db import db_now
from shared.domain import jobs, tenants
from shared.domain.leases import QUARANTINE_AFTER_LOSSES
from shared.domain.tenants import Caller
from shared.models import Event, Execution, Job, JobKind, JobLease, Queue, QueueControl, Schedule, State, WorkerProcess

OVERDUE_SECONDS = 10.0  # due work that nobody consumes is tolerated for as long as a deploy takes to start
RECENT_SECONDS = 3600.0
RECENT_EVENTS = 5_000  # what is looked at for rates: at three events per execution, those of the last 1,600 or so
# Written as literals: a database that plans before it knows the parameters can use the partial indexes all the same.
_QUEUED = Job.state == sa.literal_column("'queued'")
_FREE = Job.blocked_by.is_(None)  # with _QUEUED: what ix_jobs_claim holds
_BLOCKED = Job.blocked_by.is_not(None)  # only queued jobs are, and ix_jobs_blocked_by holds them all
_ENDED = {f"execution.{state}": state for state in (State.SUCCEEDED, State.FAILED, State.CANCELED)}


def problems(session: Session) -> list[str]:
    """Why work would not get done, in the whole installation; empty when it would (I12)."""
    found = [_unserved(queue) for queue in _without_consumer(_overdue_queues(session), consumers(session))]
    late = _sweep_late_seconds(session)
    if late is not None:
        found.append(_sweep_is_late(late))
    return found


def snapshot(session: Session, caller: Caller, *, warn_seconds: float) -> Mapping[str, Any]:
    """How the jobs that a caller may see are doing, and whether the fleet works.

    Every figure about jobs is of its workspace and projects (I10). Who consumes which queue and when the sweep ran
    is the same for all. The cost grows with what is queued, never with what has ended.
    """
    waiting = _waiting(session, caller)
    running = _running_by_kind(session, caller)
    found = {
        "queue_depth": {queue.value: sum(row.jobs for row in waiting if row.queue == queue) for queue in Queue},
        "queue_depth_by_kind": {kind.value: sum(row.jobs for row in waiting if row.kind == kind) for kind in JobKind},
        "running": sum(running.values()),
        "running_by_kind": {kind.value: running.get(kind.value, 0) for kind in JobKind},
        "by_status": {"queued": sum(row.jobs for row in waiting), "running": sum(running.values())},
        "blocked_by_budget": sum(row.jobs for row in waiting if row.is_blocked),
        "oldest_due_seconds": max((row.due_seconds for row in waiting if row.due_seconds is not None), default=None),
        "oldest_queued_seconds": max((row.age_seconds for row in waiting), default=None),
        "leases": _leases(session, caller, warn_seconds),
        **_recent(session, caller),
        "consumers": consumers(session),
        "last_sweep_seconds_ago": sweep_age_seconds(session),
    }
    return found | {"warnings": _warnings(session, found, waiting, warn_seconds)}


@dataclass(frozen=True)
class QueueView:
    """A queue as one caller may see it: `consumers` and who changed it last are for those who operate the fleet."""

    name: Queue
    paused: bool
    draining: bool
    max_running: int | None
    queued: int
    running: int
    dead: int
    oldest_due_seconds: float | None
    consumers: int | None
    updated_at: datetime | None
    updated_by: str | None


def list_queues(session: Session, caller: Caller | None) -> list[QueueView]:
    """All queues, in the order of claiming: with the counts of the fleet for those who operate it (None is the
    command line), else with what the caller may see of them."""
    sees_all = caller is None or tenants.operates_fleet(session, caller)
    scope = () if caller is None or sees_all else jobs.visible(caller)
    controls = {control.name: control for control in session.scalars(sa.select(QueueControl))}
    counts = jobs.count_by_queue(session, *scope)
    now = session.scalars(sa.select(db_now())).one()
    consumed = consumers(session) if sees_all else {}
    views = []
    for queue in Queue:
        control, count = controls.get(queue), counts[queue]
        due = count.oldest_due
        views.append(
            QueueView(
                queue,
                control is not None and control.paused,
                control is not None and control.draining,
                control.max_running if control else None,
                count.queued,
                count.running,
                count.dead,
                None if due is None or due > now else (now - due).total_seconds(),
                consumed.get(queue),
                control.updated_at if control and sees_all else None,
                control.updated_by if control and sees_all else None,
            )
        )
    return views


def get_queue(session: Session, caller: Caller | None, queue: Queue) -> QueueView:
    return next(view for view in list_queues(session, caller) if view.name == queue)


@dataclass(frozen=True)
class FleetGauges:
    """Over all workspaces; the mappings are by queue."""

    depth: Mapping[str, int]
    oldest_due_seconds: Mapping[str, float]
    consumers: Mapping[str, int]
    paused: Mapping[str, int]
    leases_active: int
    leases_expired: int
    blocked: int
    quarantined: int
    dead: int
    sweep_age_seconds: float | None


def fleet_gauges(session: Session) -> FleetGauges:
    """One pass over the index of each thing that is counted; what has succeeded is never looked at."""
    now = session.scalars(sa.select(db_now())).one()
    free = session.execute(
        sa.select(Job.queue, sa.func.count().label("jobs"), sa.func.min(Job.run_at).label("first"))
        .where(_QUEUED, _FREE)
        .group_by(Job.queue)
    ).all()
    blocked = dict(session.execute(sa.select(Job.queue, sa.func.count()).where(_BLOCKED).group_by(Job.queue)).all())
    active, expired = session.execute(
        sa.select(
            sa.func.count().filter(JobLease.expires_at >= db_now()),
            sa.func.count().filter(JobLease.expires_at < db_now()),
        ).select_from(JobLease)
    ).one()
    depth = {row.queue: row.jobs for row in free}
    paused = _paused(session)
    due_for = {row.queue: max(0.0, (now - row.first).total_seconds()) for row in free}
    return FleetGauges(
        depth={queue.value: depth.get(queue.value, 0) + blocked.get(queue.value, 0) for queue in Queue},
        oldest_due_seconds={queue.value: due_for.get(queue.value, 0.0) for queue in Queue},
        consumers=consumers(session),
        paused={queue.value: int(queue in paused) for queue in Queue},
        leases_active=active,
        leases_expired=expired,
        blocked=sum(blocked.values()),
        quarantined=_count(session, _QUEUED, Job.losses >= sa.literal_column("2")),
        dead=_count(session, Job.state == sa.literal_column("'failed'")),
        sweep_age_seconds=sweep_age_seconds(session),
    )


def consumers(session: Session) -> dict[str, int]:
    """Live worker processes by queue."""
    counts = {queue.value: 0 for queue in Queue}
    for queues in session.scalars(sa.select(WorkerProcess.queues).where(*_is_alive())):
        for queue in queues:
            counts[queue] = counts.get(queue, 0) + 1  # a newer worker may know other queues
    return counts


def slots(session: Session, queue: Queue) -> int:
    """How many jobs of the queue the live workers can run at once."""
    rows = session.execute(sa.select(WorkerProcess.queues, WorkerProcess.concurrency).where(*_is_alive()))
    return sum(row.concurrency for row in rows if queue in row.queues)


def sweep_age_seconds(session: Session) -> float | None:
    row = session.execute(
        sa.select(Schedule.finished_at, db_now()).where(Schedule.name == "sweep", Schedule.finished_at.is_not(None))
    ).first()
    return None if row is None or row[0] is None else (row[1] - row[0]).total_seconds()


def _without_consumer(queues: Iterable[str], consumed: Mapping[str, int]) -> list[str]:
    """Of queues with overdue work, those where it waits in vain."""
    return [queue for queue in queues if not consumed.get(queue)]


def _unserved(queue: str) -> str:
    return f"queue {queue} has due work and no worker consumes it"


def _sweep_is_late(seconds: float) -> str:
    return f"no sweep for {seconds:.0f} s; workers and beat are due to run one every few seconds"


def _sweep_late_seconds(session: Session) -> float | None:
    """How long no sweep has ended, when that is too long; None when all is well or nobody was ever there to sweep."""
    alive, seen = (
        session.scalar(sa.select(sa.func.min(WorkerProcess.started_at)).where(*condition))
        for condition in (_is_alive(), ())
    )
    ended = session.scalar(sa.select(Schedule.finished_at).where(Schedule.name == "sweep"))
    # A fleet that has just started gets its time. One that is gone does not: who takes back what it held?
    since = max(alive, ended or alive) if alive else ended or seen
    if since is None:
        return None
    age = (session.scalars(sa.select(db_now())).one() - since).total_seconds()
    return age if age > 3 * settings().sweep_seconds + 5 else None


def _is_alive() -> tuple[sa.ColumnElement[bool], ...]:
    silent_for = max(3 * (settings().heartbeat_seconds or 20.0), 15.0)
    return (WorkerProcess.heartbeat_at >= db_now(-silent_for),)


def _overdue_queues(session: Session) -> list[str]:
    """A look into the index per queue: /ready is asked every few seconds, whatever the backlog.

    Those that somebody has paused wait because he wants them to.
    """
    paused = _paused(session)
    overdue = session.execute(
        sa.select(
            *(
                sa.exists().where(Job.queue == queue, _QUEUED, _FREE, Job.run_at < db_now(-OVERDUE_SECONDS))
                for queue in Queue
            )
        )
    ).one()
    return [queue.value for queue, is_overdue in zip(Queue, overdue, strict=True) if is_overdue and queue not in paused]


def _paused(session: Session) -> set[str]:
    return set(session.scalars(sa.select(QueueControl.name).where(QueueControl.paused)))


def _decided(session: Session) -> list[str]:
    """What operators have decided, and may have forgotten."""
    controls = session.scalars(sa.select(QueueControl).order_by(QueueControl.name)).all()
    return [
        *(f"queue {control.name} is paused: nothing is claimed from it" for control in controls if control.paused),
        *(f"queue {control.name} is being drained: it takes nothing new" for control in controls if control.draining),
    ]


@dataclass(frozen=True)
class _Waiting:
    """The queued jobs of one queue and kind."""

    queue: str
    kind: str
    is_blocked: bool
    jobs: int
    quarantined: int
    due_seconds: float | None  # of the one that has been due longest; None: none is due, or a budget blocks them
    age_seconds: float  # since the oldest was submitted


def _waiting(session: Session, caller: Caller) -> list[_Waiting]:
    now = session.scalars(sa.select(db_now())).one()
    found = []
    for is_blocked, conditions in ((False, (_QUEUED, _FREE)), (True, (_BLOCKED,))):
        rows = session.execute(
            sa.select(
                Job.queue,
                Job.kind,
                sa.func.count().label("jobs"),
                sa.func.count().filter(Job.losses >= QUARANTINE_AFTER_LOSSES).label("quarantined"),
                sa.func.min(Job.run_at).label("first_due"),
                sa.func.min(Job.created_at).label("first_created"),
            )
            .where(*jobs.visible(caller), *conditions)
            .group_by(Job.queue, Job.kind)
        ).all()
        for row in rows:
            due_for = (now - row.first_due).total_seconds()
            age = max(0.0, (now - row.first_created).total_seconds())
            due_seconds = None if is_blocked or due_for < 0 else due_for
            found.append(_Waiting(row.queue, row.kind, is_blocked, row.jobs, row.quarantined, due_seconds, age))
    return found


def _running_by_kind(session: Session, caller: Caller) -> dict[str, int]:
    """From the leases, of which there are as many as slots: a lease exists exactly while a job runs."""
    return dict(
        session.execute(
            sa.select(Job.kind, sa.func.count())
            # By id and not by a join, which SQLite would begin at the wrong end.
            .where(*jobs.visible(caller), Job.id.in_(sa.select(JobLease.job_id)))
            .group_by(Job.kind)
        ).all()
    )


def _leases(session: Session, caller: Caller, warn_seconds: float) -> dict[str, int]:
    row = session.execute(
        sa.select(
            sa.func.count(),
            sa.func.count().filter(JobLease.expires_at < db_now(warn_seconds), JobLease.expires_at >= db_now()),
            sa.func.count().filter(JobLease.expires_at < db_now()),
        )
        .select_from(JobLease)
        .where(sa.exists().where(Job.id == JobLease.job_id, *jobs.visible(caller)))
    ).one()
    return {"active": row[0], "expiring_soon": row[1], "stale": row[2]}


def _recent(session: Session, caller: Caller) -> dict[str, Any]:
    """What became of the executions that ended lately: of the newest events, those of the last hour."""
    newest = (
        sa.select(Event.type, Event.subject_id, Event.created_at)
        .where(Event.workspace_id == caller.workspace_id)
        .order_by(Event.id.desc())
        .limit(RECENT_EVENTS)
        .subquery()
    )
    visible = () if caller.project_ids is None else (Execution.project_id.in_(caller.project_ids),)
    rows = session.execute(
        sa.select(newest.c.type, Execution.started_at, Execution.completed_at)
        .join(Execution, Execution.id == newest.c.subject_id)
        .where(newest.c.type.in_(_ENDED), newest.c.created_at >= db_now(-RECENT_SECONDS), *visible)
    ).all()
    counts = {state.value: sum(_ENDED[row.type] == state for row in rows) for state in _ENDED.values()}
    seconds = [(row.completed_at - row.started_at).total_seconds() for row in rows if row.started_at]
    tried = counts[State.SUCCEEDED] + counts[State.FAILED]
    return {
        "recent": counts,
        "avg_processing_time_seconds": sum(seconds) / len(seconds) if seconds else None,
        "success_rate": 100 * counts[State.SUCCEEDED] / tried if tried else None,
    }


def _warnings(
    session: Session, found: Mapping[str, Any], waiting: Sequence[_Waiting], warn_seconds: float
) -> list[str]:
    """Sentences for people: what is wrong with the work of this workspace, and what to do."""
    oldest: dict[str, float] = {}
    paused = _paused(session)
    for row in waiting:
        if row.due_seconds is not None and row.queue not in paused:
            oldest[row.queue] = max(oldest.get(row.queue, 0.0), row.due_seconds)
    unserved = _without_consumer((queue for queue in oldest if oldest[queue] > OVERDUE_SECONDS), found["consumers"])
    said = [f"{_unserved(queue)}: start a worker whose QUEUES name it" for queue in unserved]
    said += [
        f"queue {queue} has work that has been due for {seconds:.0f} s: add workers or raise PROMPTMILL_CONCURRENCY"
        for queue, seconds in oldest.items()
        if seconds > warn_seconds and queue not in unserved
    ]
    late = _sweep_late_seconds(session)
    if late is not None:
        said.append(f"{_sweep_is_late(late)}: look for sweep_failed in the logs of the workers, and whether any lives")
    if found["leases"]["stale"]:
        said.append(
            f"leases that have expired: {found['leases']['stale']}; their workers are dead or cut off. The next sweep"
            " puts the jobs back: if the number stays, look for sweep_failed in the logs of the workers"
        )
    if found["blocked_by_budget"]:
        said.append(
            f"jobs that their budget cannot afford: {found['blocked_by_budget']}; cancel their runs or start them"
            " anew under a higher ceiling"
        )
    quarantined = sum(row.quarantined for row in waiting)
    if quarantined:
        said.append(
            f"jobs that lost their worker twice and now run alone: {quarantined}; look for"
            " quarantined_job_claimed in the logs of the workers"
        )
    return said + _decided(session)


def _count(session: Session, *conditions: sa.ColumnElement[bool]) -> int:
    return session.scalar(sa.select(sa.func.count()).select_from(Job).where(*conditions)) or 0
