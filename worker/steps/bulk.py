"""One page of a bulk operation: its items are read and hashed here, and done where the runner holds the job."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from shared.domain import bulk
from shared.domain.bulk_verbs import Wanted
from shared.domain.leases import Lease
from shared.errors import PromptmillError
from shared.models import OPEN_STATES, BulkOperation, State
from worker.steps import Done, Failure, Verdict


@dataclass(frozen=True)
class _Loaded:
    operation: str
    payloads: Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True)
class _Prepared:
    """By ordinal."""

    wanted: Mapping[int, Wanted | PromptmillError]


def load(session: Session, leases: Sequence[Lease]) -> Mapping[int, Any]:
    loaded = {}
    for lease in leases:
        operation = session.get_one(BulkOperation, lease.subject_id)
        if operation.state in OPEN_STATES:  # else the job is closed as canceled
            page = bulk.next_page(session, operation)
            loaded[lease.job_id] = _Loaded(operation.operation, {item.ordinal: item.payload for item in page})
    return loaded


def run(lease: Lease, loaded: _Loaded) -> _Prepared:
    return _Prepared({ordinal: bulk.prepare(loaded.operation, item) for ordinal, item in loaded.payloads.items()})


def finish(session: Session, done: Sequence[Done]) -> Mapping[int, Verdict]:
    verdicts = {}
    for item in done:
        operation = session.get_one(BulkOperation, item.job.subject_id, with_for_update=True, populate_existing=True)
        verdicts[item.job.id] = _finish(session, operation, item.outcome)
    return verdicts


def _finish(session: Session, operation: BulkOperation, outcome: Any) -> Verdict:
    if operation.state not in OPEN_STATES or not isinstance(outcome, _Prepared | Failure):
        return Verdict(State.CANCELED)
    if bulk.is_withdrawn(session, operation):
        return Verdict(State.FAILED, "key_revoked", "the API key that submitted it was revoked; the rest is not done")
    if isinstance(outcome, _Prepared):
        bulk.do_page(session, operation, outcome.wanted)
    elif bulk.fail_page(session, operation):
        return Verdict(State.QUEUED, outcome.code, outcome.message, retry_in_seconds=0.0)
    return Verdict(State.SUCCEEDED)
