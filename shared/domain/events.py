"""Recording what changed, in the transaction that changed it (I8)."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from shared import messages
from shared.bulk_rows import bulk_insert
from shared.db import after_commit
from shared.domain import changes as registry
from shared.models import Event, JobKind, State

# After a run: of those there are few. Those who wait for a call are woken by the worker that made it.
_ENDS_A_RUN = {
    f"{kind}.{state}"
    for kind in (JobKind.EVALUATION, JobKind.OPTIMIZATION, JobKind.GENERATION)
    for state in (State.SUCCEEDED, State.FAILED, State.CANCELED)
}


@dataclass(frozen=True)
class Change:
    """One state change: `type` is "<subject>.<what happened>", such as `execution.succeeded`."""

    workspace_id: uuid.UUID
    type: str
    subject_id: uuid.UUID
    data: Mapping[str, Any] = field(default_factory=dict)
    actor: str = ""


def record(session: Session, changes: Iterable[Change]) -> None:
    rows = [
        {
            "workspace_id": change.workspace_id,
            "type": change.type,
            "subject_id": change.subject_id,
            "data": change.data,
            "actor": change.actor,
        }
        for change in changes
    ]
    bulk_insert(session, Event, rows)
    if any(str(row["type"]).startswith("pro") for row in rows):
        after_commit(session, registry.note_commit)
    ended = [str(row["subject_id"]) for row in rows if row["type"] in _ENDS_A_RUN]
    if ended:
        after_commit(session, lambda: messages.announce_ended(ended))
