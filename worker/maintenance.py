"""The periodic duties of the fleet. Any process may do them; the schedule row lets one at a time."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared.config import settings
from shared.db import transaction
from shared.domain import budgets, idempotency, leases
from shared.errors import DatabaseBusy

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
    if not failed:
        with transaction() as session:
            leases.end_turn(session, "sweep")


def _done(name: str, duty: Callable[[Session], Any]) -> bool:
    try:
        with transaction() as session:
            result = duty(session)
    except (SQLAlchemyError, DatabaseBusy) as error:
        log.warning("duty_failed", duty=name, error=str(error).splitlines()[0])
        return False
    if result:
        log.warning(name, **(asdict(result) if isinstance(result, leases.Swept) else {"rows": result}))
    return True


def _prune(session: Session) -> None:
    idempotency.prune(session)
    leases.forget_dead_workers(session)


DUTIES: dict[str, Callable[[Session], Any]] = {
    "leases_swept": leases.sweep,
    "orphans_canceled": leases.cancel_orphans,
    "steps_restarted": leases.restart_stalled,
    "jobs_unblocked": budgets.unblock_stranded,
    "pruned": _prune,
}
