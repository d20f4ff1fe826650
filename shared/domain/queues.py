"""What operators decide about a queue: paused, draining, how many may run. A queue without a row runs freely.

Whoever claims asks `room_in()` and `closed()`, whoever accepts new work asks `accept()`; nothing here does either.
"""

import uuid
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from shared.db import db_now, insert_if_absent
from shared.domain import events
from shared.errors import NotFound, QueueDraining
from shared.models import Job, JobLease, Queue, QueueControl

# What each action sets, and the event that tells of it.
ACTIONS: Mapping[str, tuple[str, Mapping[str, bool]]] = {
    "pause": ("queue.paused", {"paused": True}),
    "resume": ("queue.resumed", {"paused": False, "draining": False}),
    "drain": ("queue.draining", {"draining": True}),
}
_DEFAULTS: Mapping[str, Any] = {"paused": False, "draining": False, "max_running": None}
# Events name their subject by a UUID, and a queue has only its name.
_NAMES = uuid.UUID("6b0f6a43-5d0c-4c3e-9a39-0d8f6f0c7a51")


# Built once: each claim asks it.
_CONTROL = sa.select(QueueControl.paused, QueueControl.max_running).where(QueueControl.name == sa.bindparam("queue"))


def room_in(session: Session, queue: Queue, wanted: int, *, waits: bool = True) -> int:
    """How many of `wanted` jobs may be claimed now: none of a paused queue, and no more than its limit leaves.

    Only where there is a limit is a lock taken, and it is kept until the claim has committed: two claimers
    never pass a limit together. Who does not wait for it gets no room while another has it.
    """
    connection = session.connection()
    control = connection.execute(_CONTROL, {"queue": queue}).first()
    if control is not None and control.max_running is not None:
        control = connection.execute(_CONTROL.with_for_update(skip_locked=not waits), {"queue": queue}).first()
        if control is None:
            return 0
    if control is None:
        return wanted
    if control.paused:
        return 0
    if control.max_running is None:
        return wanted
    # In a statement of its own: it sees what those who had the lock before have committed.
    running = connection.execute(sa.select(_running_in(queue))).scalar_one()
    return max(0, min(wanted, control.max_running - running))


def closed() -> sa.Select[str]:
    """The names of the queues that nothing can be claimed from now: to be left out where work is looked for."""
    is_full = QueueControl.max_running <= _running_in(QueueControl.name)
    return sa.select(QueueControl.name).where(QueueControl.paused | is_full)


def accept(session: Session, *wanted: Queue) -> None:
    """`QueueDraining` when new work for one of these queues is refused. Not for follow-up work: a run would hang."""
    names = sa.select(QueueControl.name).where(QueueControl.name.in_(wanted), QueueControl.draining)
    draining = session.scalars(names.order_by(QueueControl.name)).first()
    if draining is not None:
        raise QueueDraining(f"the queue {draining} is being drained and takes nothing new; try again later")


def find_queue(name: str) -> Queue:
    try:
        return Queue(name)
    except ValueError as error:
        raise NotFound(f"no queue named {name!r}; there are: {', '.join(Queue)}") from error


def act(session: Session, queue: Queue, action: str, *, workspace_id: uuid.UUID, actor: str) -> None:
    """Pause, resume or drain. Doing it again changes nothing."""
    event, values = ACTIONS[action]
    _change(session, queue, event, values, workspace_id=workspace_id, actor=actor)


def limit(session: Session, queue: Queue, max_running: int | None, *, workspace_id: uuid.UUID, actor: str) -> None:
    """Let at most so many jobs of the queue run at once in the whole fleet; what runs already goes on."""
    _change(session, queue, "queue.limited", {"max_running": max_running}, workspace_id=workspace_id, actor=actor)


def _running_in(queue: Any) -> sa.ScalarSelect[int]:
    """How many jobs of a queue run: a lease exists exactly while a job does."""
    running = aliased(Job)
    leased = running.id.in_(sa.select(JobLease.job_id))
    count = sa.select(sa.func.count()).select_from(running).where(leased, running.queue == queue)
    return count.correlate(QueueControl).scalar_subquery()


def _change(
    session: Session, queue: Queue, event: str, values: Mapping[str, Any], *, workspace_id: uuid.UUID, actor: str
) -> None:
    control = _locked(session, queue)
    if control is None:
        if all(_DEFAULTS[name] == value for name, value in values.items()):
            return
        insert_if_absent(session, QueueControl, name=queue, updated_by=actor)
        control = _locked(session, queue)
        assert control is not None
    if all(getattr(control, name) == value for name, value in values.items()):
        return
    for name, value in values.items():
        setattr(control, name, value)
    control.updated_at, control.updated_by = db_now(), actor
    session.flush()
    data = {"queue": str(queue), **values}
    events.record(session, [events.Change(workspace_id, event, uuid.uuid5(_NAMES, queue), data, actor)])


def _locked(session: Session, queue: Queue) -> QueueControl | None:
    query = sa.select(QueueControl).where(QueueControl.name == queue).with_for_update()
    return session.scalars(query.execution_options(populate_existing=True)).one_or_none()
