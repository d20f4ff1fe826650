"""A normal worker but for what its environment says: `celery -A tests.faults.odd_worker worker`.

FAULTS_DIES_ON: it dies after the provider has answered a message that holds this text, each time.
FAULTS_DIES_IN_FAN_OUT: a directory. It dies with calls and jobs inserted and not yet committed, once for each
file in it.
FAULTS_WITHOUT: one of `SAFEGUARDS`, which it lacks. The suite must go red on it, or it proves nothing.
"""

import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from shared.domain import jobs, leases, runs
from shared.domain.executions import NewExecution
from shared.models import OPEN_STATES
from worker.steps import executions
from worker.tasks import celery

__all__ = ["SAFEGUARDS", "celery"]


def die_on(marker: str) -> None:
    run = executions.run

    def run_and_die(lease: Any, loaded: Any) -> Any:
        outcome = run(lease, loaded)
        _, _, request = loaded
        if any(marker in message["content"] for message in request.messages):
            os._exit(1)
        return outcome

    executions.run = run_and_die


def die_in_fan_out(deaths: str) -> None:
    fan_out = runs.fan_out

    def fan_out_and_die(*args: Any, **options: Any) -> Any:
        unmade = fan_out(*args, **options)
        for file in Path(deaths).iterdir():
            file.unlink()
            os._exit(1)
        return unmade

    runs.fan_out = fan_out_and_die


def without_fence() -> None:
    """Whoever once had a lease may write, as long as the job is open."""

    def hold(session: Any, held: Any) -> Any:
        locked = jobs.lock(session, [lease.job_id for lease in held])
        return {job.id: job for job in locked if job.state in OPEN_STATES}

    leases.hold = hold


def without_pulling() -> None:
    """Only what a message names is claimed."""
    claim = leases.claim

    def claim_what_was_named(*args: Any, **options: Any) -> Any:
        if options.get("job_ids") is None:
            return leases.Claim([], more=False)
        return claim(*args, **options)

    leases.claim = claim_what_was_named


def without_ledger() -> None:
    """No call is ever known: each is a new one, whatever it asks."""
    decide = NewExecution.__post_init__

    def decide_and_forget(self: NewExecution) -> None:
        decide(self)
        object.__setattr__(self, "call_key", uuid.uuid4().hex)

    NewExecution.__post_init__ = decide_and_forget  # type: ignore[method-assign]


def without_sweep() -> None:
    """The jobs of dead workers stay theirs."""
    leases.sweep = lambda session, **options: leases.Swept()


SAFEGUARDS: Mapping[str, Callable[[], None]] = {
    "fence": without_fence,
    "pulling": without_pulling,
    "ledger": without_ledger,
    "sweep": without_sweep,
}

if safeguard := os.environ.get("FAULTS_WITHOUT"):
    SAFEGUARDS[safeguard]()
if marker := os.environ.get("FAULTS_DIES_ON"):
    die_on(marker)
if deaths := os.environ.get("FAULTS_DIES_IN_FAN_OUT"):
    die_in_fan_out(deaths)
