"""What the tables hold: for tests of what a request stored, or that it stored nothing."""

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from shared import db
from shared.models import Base, Event


def count(model: type[Base]) -> int:
    with db.reading() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(model)) or 0


def event_data(kind: str) -> list[Mapping[str, Any]]:
    """The data of every event of this type, oldest first."""
    with db.reading() as session:
        return list(session.scalars(sa.select(Event.data).where(Event.type == kind).order_by(Event.id)))


def everything() -> dict[str, list[Any]]:
    """Every row of every table, so that two moments can be compared."""
    with db.reading() as session:
        return {table.name: _sorted(session.execute(sa.select(table))) for table in Base.metadata.sorted_tables}


def rows_of(workspace_id: uuid.UUID) -> dict[str, list[Any]]:
    """Every row of a workspace."""
    with db.reading() as session:
        return {
            table.name: _sorted(session.execute(sa.select(table).where(table.c.workspace_id == workspace_id)))
            for table in Base.metadata.sorted_tables
            if "workspace_id" in table.c
        }


def _sorted(rows: Iterable[Any]) -> list[Any]:
    """As tuples: what a row of SQLAlchemy says of itself takes twice as long."""
    return sorted((tuple(row) for row in rows), key=repr)
