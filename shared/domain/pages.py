"""Keyset pages with opaque cursors: newest first, and stable while rows are added."""

import base64
import binascii
import json
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.errors import FieldError, Unprocessable


@dataclass(frozen=True)
class Page:
    """`data` in order, and the cursor of the next page; None at the end."""

    data: Sequence[Any]
    next_cursor: str | None


@dataclass(frozen=True)
class Numbered:
    """`data` of one page by its number, and how many rows there are on all pages."""

    data: Sequence[Any]
    total: int


def numbered(
    session: Session, query: sa.Select[Any], entity: Any, *, page: int, per_page: int, by: Any = None
) -> Numbered:
    """One page by its number, for clients that count pages: newest first, unless `by` says otherwise.

    Rows that are added meanwhile move the pages. Costs a count of all rows, and a walk over those before the page.
    """
    return at_offset(session, query, entity, limit=per_page, offset=(page - 1) * per_page, by=by)


def at_offset(
    session: Session, query: sa.Select[Any], entity: Any, *, limit: int, offset: int, by: Any = None
) -> Numbered:
    """The same, by how many rows come before it."""
    order = (entity.created_at.desc(), entity.id.desc()) if by is None else (by,)
    total = session.scalar(sa.select(sa.func.count()).select_from(query.subquery())) or 0
    return Numbered(session.scalars(query.order_by(*order).limit(limit).offset(offset)).all(), total)


def newest_first(session: Session, query: sa.Select[Any], entity: Any, *, limit: int, cursor: str | None) -> Page:
    """One page of `query` ordered by (created_at, id) descending."""
    if cursor:
        values = _decode(cursor, 2)
        try:
            created_at, entity_id = datetime.fromisoformat(values[0]), uuid.UUID(values[1])
            if created_at.utcoffset() != timedelta():
                raise ValueError("not in UTC")
        except ValueError as error:
            raise _bad_cursor() from error
        # As one comparison of rows: of an OR no database makes the start of a walk along an index.
        place = sa.tuple_(sa.literal(created_at, entity.created_at.type), sa.literal(entity_id, entity.id.type))
        query = query.where(sa.tuple_(entity.created_at, entity.id) < place)
    query = query.order_by(entity.created_at.desc(), entity.id.desc()).limit(limit + 1)
    rows = session.scalars(query).all()
    page = rows[:limit]
    more = len(rows) > limit
    return Page(page, _encode(page[-1].created_at.isoformat(), str(page[-1].id)) if more else None)


def ascending(
    session: Session,
    query: Any,
    column: Any,
    *,
    limit: int,
    cursor: str | None,
    scalars: bool = True,
) -> Page:
    """One page of `query` ordered by a unique integer column; its name is the attribute that is read."""
    if cursor:
        query = query.where(column > _number(cursor, column))
    result = session.execute(query.order_by(column).limit(limit + 1))
    return _numbered(result.scalars().all() if scalars else result.all(), column, limit)


def descending(session: Session, query: sa.Select[Any], column: Any, *, limit: int, cursor: str | None) -> Page:
    """The same, highest first."""
    if cursor:
        query = query.where(column < _number(cursor, column))
    return _numbered(session.scalars(query.order_by(column.desc()).limit(limit + 1)).all(), column, limit)


def cursor_of(*numbers: int) -> str:
    """The cursor of an order that is not a column's: `numbers_of` reads it."""
    return _encode(*map(str, numbers))


def numbers_of(cursor: str, size: int) -> list[int]:
    values = _decode(cursor, size)
    if not all(re.fullmatch(r"[0-9]{1,18}", value) for value in values):
        raise _bad_cursor()
    return [int(value) for value in values]


def _numbered(rows: Sequence[Any], column: Any, limit: int) -> Page:
    page = rows[:limit]
    more = len(rows) > limit
    return Page(page, _encode(str(getattr(page[-1], column.key))) if more else None)


def _number(cursor: str, column: Any) -> int:
    last = _decode(cursor, 1)[0]
    if not re.fullmatch(r"[0-9]{1,18}", last) or int(last) > _largest(column):
        raise _bad_cursor()
    return int(last)


def _largest(column: Any) -> int:
    """The largest number that the column can hold, and so be compared with on both databases."""
    return 2**63 - 1 if isinstance(column.type, sa.BigInteger) else 2**31 - 1


def _encode(*values: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def _decode(cursor: str, size: int) -> list[str]:
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise _bad_cursor() from error
    if not isinstance(values, list) or len(values) != size or not all(isinstance(v, str) for v in values):
        raise _bad_cursor()
    return values


def _bad_cursor() -> Unprocessable:
    detail = "is not a cursor that this list gave out"
    return Unprocessable(f"cursor {detail}", errors=[FieldError("?cursor", detail)])
