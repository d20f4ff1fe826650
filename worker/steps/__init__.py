"""One file per kind of job. A step reads in one transaction, works in none, and writes in another.

`finish` runs inside the transaction in which the runner holds the jobs (I2): everything that a step
writes, it writes there, so a worker that has lost its lease writes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy.orm import Session

from shared.domain.jobs import Unmade
from shared.domain.leases import Lease
from shared.models import Job, State


@dataclass(frozen=True)
class Failure:
    """A step that ended in an error. `retryable` sends the job back while it has attempts left."""

    code: str
    message: str
    retryable: bool
    possibly_paid: bool = False
    retry_after_seconds: float | None = None


@dataclass(frozen=True)
class Canceled:
    """Somebody asked for a stop. `started`: the step had begun, so a call may have been paid for."""

    started: bool


@dataclass(frozen=True)
class Done:
    """One held job with what its step returned, a `Failure` or `Canceled`."""

    job: Job
    outcome: Any


@dataclass(frozen=True)
class Verdict:
    """What becomes of the job: ended in `state`, or back into the queue after `retry_in_seconds`. `unmade`: what a
    barrier had counted for it."""

    state: State
    error: str | None = None
    message: str | None = None
    retry_in_seconds: float | None = None
    unmade: Unmade | None = None


def storable(text: str, limit: int) -> str:
    """The text as both databases can hold it: no NUL, no half of a pair, at most so many characters."""
    return text.replace("\x00", "\ufffd").encode(errors="replace").decode()[:limit]


class Step(Protocol):
    """The module of a kind of job."""

    def load(self, session: Session, leases: Sequence[Lease]) -> Mapping[int, Any]:
        """What `run` needs, by job id. Reads only; a job that is left out is closed as canceled."""

    def run(self, lease: Lease, loaded: Any) -> Any:
        """The work, without a transaction. Returns what `finish` records, or a `Failure`."""

    def finish(self, session: Session, done: Sequence[Done]) -> Mapping[int, Verdict]:
        """Record the outcomes of held jobs; a verdict by job id. Log lines wait for `after_commit`."""
