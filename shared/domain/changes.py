"""What changed in the registry since one last looked: the events of prompts and projects, none missed, none late.

Every change writes its event in its own transaction (I8), so whoever follows these knows of every change that
could be read, from whichever process, and needs no message to arrive.
"""

import uuid
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.db import is_postgres, oldest_transaction
from shared.models import Event
from shared.models.events import OF_THE_REGISTRY

TOO_MANY = 100_000  # a process that nobody read from while so much was written forgets all
NEW_VERSION = "prompt.version_created"
_committed_here = 0


@dataclass
class Feed:
    """How far somebody has followed the events."""

    floor: int = 0  # PostgreSQL: transactions below it have ended, and what they wrote was seen
    seen: set[int] = field(default_factory=set)  # of the events at or above it
    last: int = 0  # SQLite: ids are handed out in the order of commits, since writers are serial


def follow(session: Session) -> Feed:
    """From now on."""
    if not is_postgres(session):
        return Feed(last=session.scalar(sa.select(sa.func.max(Event.id))) or 0)
    feed = Feed(floor=session.scalars(sa.select(oldest_transaction())).one())
    poll(session, feed)
    return feed


def newest_of(prompt_id: uuid.UUID) -> str:
    """The subject of which version of a prompt is the newest. A new version changes that, and nothing else: no label
    moves with it, and what the other versions say stays."""
    return f"{prompt_id.hex}:newest"


def poll(session: Session, feed: Feed) -> set[str] | None:
    """The subjects of what was committed since the last poll: ids in hexadecimal, and `newest_of` a prompt. None when
    it was so much that all may have changed.

    The session must be a fresh one: its snapshot decides what is seen.
    """
    if not is_postgres(session):
        rows = session.execute(_SQLITE, {"last": feed.last, "most": TOO_MANY}).all()
        if len(rows) >= TOO_MANY:
            feed.last = session.scalars(sa.select(sa.func.max(Event.id))).one()
            return None
        feed.last = rows[-1].id if rows else feed.last
        return {_subject(row.type, row.subject_id) for row in rows}
    # Transactions commit in another order than they begin. What was not to be seen at the last poll has an id at or
    # above the oldest that was running then, so all of these are read again, and those seen are left out.
    rows = session.execute(_POSTGRES, {"floor": feed.floor, "most": TOO_MANY}).all()
    new = {_subject(row.type, row.subject_id) for row in rows if row.id is not None and row.id not in feed.seen}
    feed.floor = rows[0].oldest
    feed.seen = {row.id for row in rows}
    return new if len(rows) < TOO_MANY else None


def _subject(kind: str, subject_id: uuid.UUID) -> str:
    return newest_of(subject_id) if kind == NEW_VERSION else subject_id.hex


def committed_here() -> int:
    """How many transactions of this process have changed the registry: when it differs, there is something to poll."""
    return _committed_here


def note_commit() -> None:
    global _committed_here
    _committed_here += 1  # a lost increment of two at once still differs from what was seen before


_SQLITE = (
    sa.select(Event.id, Event.subject_id, Event.type)
    .where(OF_THE_REGISTRY, Event.xid == 0, Event.id > sa.bindparam("last"))
    .order_by(Event.id)
    .limit(sa.bindparam("most", type_=sa.Integer))
)
_SNAPSHOT = sa.select(oldest_transaction().label("oldest")).subquery("snapshot")
_POSTGRES = (
    sa.select(_SNAPSHOT.c.oldest, Event.id, Event.subject_id, Event.type)
    .select_from(_SNAPSHOT)
    .outerjoin(Event, sa.and_(OF_THE_REGISTRY, Event.xid >= sa.bindparam("floor")))
    .limit(sa.bindparam("most", type_=sa.Integer))
)
