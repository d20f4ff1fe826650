"""The periodic duties of the fleet. Any process may do them; the schedule row lets one at a time."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared.config import settings
from shared.db import transaction
from shared.domain import batches, budgets, idempotency, leases, retention
from shared.errors import DatabaseBusy

PRUNE_SECONDS = 1.0  # of a sweep; what is left then is pruned by the next ones
log = structlog.get_logger("maintenance")


def sweep() -> None:
    """What beat asks for every few seconds; a second request within half a period does nothing."""
    _sweep_unless_done_since(settings().sweep_seconds / 2)


def sweep_if_late() -> None:
    """What every worker does by itself when beat has been silent for two periods."""
    _sweep_unless_done_since(settings().sweep_seconds * 2)


def _sweep_unless_done_since(seconds: float) -> None:
    """Each duty in a transaction of its own, so that one which fails takes no other with it."""
    with transaction() as session:
        if not leases.take_turn(session, "sweep", every_seconds=seconds):
            return
    failed = [name for name, duty in DUTIES.items() if not _done(name, duty)]
    if prune() and not failed:
        with transaction() as session:
            leases.end_turn(session, "sweep")


def _done(name: str, duty: Callable[[Session], dict[str, int]]) -> bool:
    """Whether it went through. What it found is logged only when it found something."""
    try:
        with transaction() as session:
            result = duty(session)
    except (SQLAlchemyError, DatabaseBusy) as error:
        log.warning("duty_failed", duty=name, error=str(error).splitlines()[0])
        return False
    if any(result.values()):
        log.warning(name, **result)
    return True


def prune(*, seconds: float = PRUNE_SECONDS) -> bool:
    """Delete what is kept no longer: a batch of each table, and more while there is more and time is left.

    Each batch is a transaction of its own. Whether all went through.
    """
    deadline = time.monotonic() + seconds
    left, pruned, failed = dict(PRUNERS), Counter[str](), False
    while left:
        for name, delete_a_batch in list(left.items()):
            number = _pruned(name, delete_a_batch)
            failed = failed or number is None
            pruned[name] += number or 0
            if (number or 0) < retention.BATCH:
                del left[name]
        if time.monotonic() >= deadline:
            break
    if pruned.total():
        log.info("pruned", **pruned)
    return not failed


def _pruned(name: str, delete_a_batch: Callable[..., int]) -> int | None:
    try:
        with transaction() as session:
            return delete_a_batch(session, batch=retention.BATCH)
    except (SQLAlchemyError, DatabaseBusy) as error:
        log.warning("duty_failed", duty=f"prune {name}", error=str(error).splitlines()[0])
        return None


def _sweep(session: Session) -> dict[str, int]:
    return asdict(leases.sweep(session))


def _cancel_orphans(session: Session) -> dict[str, int]:
    return {"jobs": leases.cancel_orphans(session)}


def _cancel_batches(session: Session) -> dict[str, int]:
    return {"jobs": batches.cancel_left(session)}


def _restart_stalled(session: Session) -> dict[str, int]:
    return {"steps": leases.restart_stalled(session)}


def _unblock(session: Session) -> dict[str, int]:
    budgets.unblock_stranded(session)
    return {}


def _forget_workers(session: Session) -> dict[str, int]:
    leases.forget_dead_workers(session)
    return {}


DUTIES = {
    "leases_swept": _sweep,
    "orphans_canceled": _cancel_orphans,
    "batches_canceled": _cancel_batches,
    "steps_restarted": _restart_stalled,
    "jobs_unblocked": _unblock,
    "workers_forgotten": _forget_workers,
}
PRUNERS: dict[str, Callable[..., int]] = {
    "idempotency_records": idempotency.prune,
    "jobs": retention.prune_jobs,
    "events": retention.prune_events,
    "executions": retention.prune_executions,
}
