"""The one way to move a label: the pointer, the history and the event, in one place for whatever asked for the move."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.bulk_rows import bulk_insert
from shared.db import among, db_now
from shared.domain import events, search_index
from shared.domain.events import Change
from shared.domain.names import PRODUCTION
from shared.errors import Conflict
from shared.models import Label, LabelMove, LabelRequest, Prompt, RequestState, Version, table_of


@dataclass(frozen=True)
class Move:
    """A label of a prompt from one version to another. Whether that is allowed was decided before."""

    prompt: Prompt
    version_id: uuid.UUID | None  # None: the label goes
    before: int | None
    after: int | None
    moved_by: str
    reason: str = ""
    undoes: int | None = None
    approved_by: str | None = None

    def told(self, label: str) -> dict[str, Any]:
        data = {"label": label, "from": self.before, "to": self.after}
        given = {"reason": self.reason, "undo": self.undoes is not None, "approved_by": self.approved_by}
        return data | {key: value for key, value in given.items() if value}


def lock_prompt(session: Session, prompt: Prompt) -> None:
    """Before anything about a label of the prompt is read that decides on a change: this puts all of them in order."""
    # Not FOR UPDATE: an execution of the prompt that is inserted meanwhile need not wait.
    session.refresh(prompt, with_for_update={"key_share": True})


def check_deletable(prompt: Prompt, label: str) -> None:
    if label == PRODUCTION and prompt.lifecycle == "published":
        raise Conflict(f"{prompt.name} is published, which takes a label {PRODUCTION}; deprecate or archive it first")


def write(session: Session, label: str, moves: Sequence[Move], *, actor: str) -> None:
    """The pointers, the history, the events; and what was asked for before is no longer what it was.

    The prompts are locked, so nobody makes, moves or deletes the label of one of them meanwhile.
    """
    if not moves:
        return
    now = session.scalars(_NOW).one()
    bulk_insert(session, LabelMove, [_history(label, move, now) for move in moves])
    new = [move for move in moves if move.before is None]
    bulk_insert(session, Label, [{**_pointer(move, now), **_key(label, move)} for move in new])
    moved = [move for move in moves if move.before is not None and move.version_id is not None]
    if moved:
        pointers = [{"of": move.prompt.id, "label": label, **_pointer(move, now)} for move in moved]
        session.connection().execute(_POINT, pointers)
    gone = [move.prompt.id for move in moves if move.version_id is None]
    if gone:
        session.execute(sa.delete(Label).where(Label.prompt_id.in_(gone), Label.name == label))
    superseded = {"ids": [move.prompt.id for move in moves], "of_label": label, "at": now}
    overtaken = session.connection().execute(_SUPERSEDE, superseded).all()
    changes = [
        Change(move.prompt.workspace_id, "prompt.label_moved", move.prompt.id, move.told(label), actor)
        for move in moves
    ]
    changes += [Change(row.workspace_id, "label_request.superseded", row.id, {}, actor) for row in overtaken]
    events.record(session, changes)
    if label == PRODUCTION:  # what is found of a prompt is what that points at
        search_index.index_prompts(session, [move.prompt for move in moves])


# Built once: to build them for each move costs more than to run them.
_NOW = sa.select(db_now())
_LABELS = table_of(Label)
_POINT = (
    sa.update(_LABELS)
    .where(_LABELS.c.prompt_id == sa.bindparam("of"), _LABELS.c.name == sa.bindparam("label"))
    .values({name: sa.bindparam(name) for name in ("version_id", "moved_by", "moved_at")})
)
_REQUESTS = table_of(LabelRequest)
_SUPERSEDE = (
    sa.update(_REQUESTS)
    .where(
        among(_REQUESTS.c.prompt_id),
        _REQUESTS.c.label == sa.bindparam("of_label"),
        _REQUESTS.c.state == RequestState.PENDING,
    )
    .values(state=RequestState.SUPERSEDED, decided_at=sa.bindparam("at"))
    .returning(_REQUESTS.c.workspace_id, _REQUESTS.c.id)
)


def _history(label: str, move: Move, now: datetime) -> dict[str, Any]:
    return {
        "workspace_id": move.prompt.workspace_id,
        "prompt_id": move.prompt.id,
        "label": label,
        "from_version": move.before,
        "to_version": move.after,
        "undoes": move.undoes,
        "reason": move.reason,
        "moved_by": move.moved_by,
        "approved_by": move.approved_by,
        "moved_at": now,
    }


def _key(label: str, move: Move) -> dict[str, Any]:
    return {"prompt_id": move.prompt.id, "name": label, "workspace_id": move.prompt.workspace_id}


def _pointer(move: Move, now: datetime) -> dict[str, Any]:
    return {"version_id": move.version_id, "moved_by": move.moved_by, "moved_at": now}


def version_of(session: Session, prompt_id: uuid.UUID, number: int) -> Version:
    return session.scalars(sa.select(Version).where(Version.prompt_id == prompt_id, Version.number == number)).one()
