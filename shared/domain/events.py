"""Recording what changed, in the transaction that changed it (I8)."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from shared.db import after_commit, bulk_insert
from shared.domain import changes as registry
from shared.models import Event


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
