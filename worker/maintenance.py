"""The periodic duties of the fleet. Any process may do them; the schedule row lets one at a time."""

import structlog

from shared.config import settings
from shared.db import transaction
from shared.domain import idempotency, leases

log = structlog.get_logger("maintenance")


def sweep() -> None:
    """What beat asks for every few seconds; a second request within half a period does nothing."""
    _sweep_unless_done_since(settings().sweep_seconds / 2)


def sweep_if_late() -> None:
    """What every worker does by itself when beat has been silent for two periods."""
    _sweep_unless_done_since(settings().sweep_seconds * 2)


def _sweep_unless_done_since(seconds: float) -> None:
    with transaction() as session:
        if not leases.take_turn(session, "sweep", every_seconds=seconds):
            return
        swept = leases.sweep(session)
        idempotency.prune(session)
        leases.forget_dead_workers(session)
        leases.end_turn(session, "sweep")
    if swept != leases.Swept():
        log.warning(
            "leases_swept",
            requeued=swept.requeued,
            failed=swept.failed,
            canceled=swept.canceled,
            steps_restarted=swept.steps_restarted,
        )
