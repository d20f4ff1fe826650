"""Reading the events of a workspace in the order in which they became visible: what one has read is never added to.

On PostgreSQL ids are handed out before the commit, so readers order by (transaction, id) and stop below the oldest
transaction that still runs: what such a one will add comes after all that was read. On SQLite writers are serial.
"""

import re
import uuid
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.db import is_postgres, oldest_transaction
from shared.domain.tenants import Caller, get_visible
from shared.errors import FieldError, Forbidden, NotFound, Unprocessable
from shared.models import (
    Batch,
    BulkOperation,
    Dataset,
    Evaluation,
    Event,
    Execution,
    Generation,
    LabelRequest,
    Optimization,
    OptimizationComparison,
    Prompt,
    State,
)

ENDED = (State.SUCCEEDED, State.FAILED, State.CANCELED)
_RUNS = (Execution, Evaluation, Optimization, Generation, BulkOperation)
_SUBJECTS = (*_RUNS, Prompt, Dataset, Batch, LabelRequest, OptimizationComparison)
_END = 2**62

Position = tuple[int, int]
BEGINNING: Position = (0, 0)


def now(session: Session) -> Position:
    """Behind everything that can be read, and before everything that is still to come."""
    if is_postgres(session):
        return session.scalars(sa.select(oldest_transaction())).one() - 1, _END
    return 0, session.scalar(sa.select(sa.func.max(Event.id))) or 0


def read(
    session: Session,
    caller: Caller,
    *,
    after: Position,
    subject_id: uuid.UUID | None = None,
    types: Sequence[str] = (),
    limit: int,
) -> tuple[Sequence[Event], Position]:
    """The next events, oldest first, and behind what to read on. `types` are whole types (`optimization.round`) or
    subjects (`optimization`).

    Only those before which none can come any more. What is behind them and was left out is not looked at again.
    """
    end = now(session)  # before they are read: what settles meanwhile may be missing among them
    found = _after(session, caller, after, subject_id, types, limit, settled=True)
    if len(found) < limit:
        return found, max(after, end, *map(position_after, found))
    return found, position_after(found[-1])


def position_after(event: Event) -> Position:
    return event.xid, event.id


def _after(
    session: Session,
    caller: Caller,
    after: Position,
    subject_id: uuid.UUID | None,
    types: Sequence[str],
    limit: int,
    *,
    settled: bool,
) -> Sequence[Event]:
    order = (Event.xid, Event.id) if is_postgres(session) else (Event.id,)
    query = sa.select(Event).where(Event.workspace_id == caller.workspace_id, _is_behind(session, after))
    if settled and is_postgres(session):
        query = query.where(Event.xid < oldest_transaction())
    if subject_id is not None:
        query = query.where(Event.subject_id == subject_id)
    if types:
        of_subject = [Event.type.startswith(f"{one}.", autoescape=True) for one in types if "." not in one]
        query = query.where(sa.or_(Event.type.in_([one for one in types if "." in one]), *of_subject))
    return session.scalars(query.order_by(*order).limit(limit)).all()


def check_subject(session: Session, caller: Caller, subject_id: uuid.UUID | None) -> None:
    """`NotFound` for what the caller may not see. A key that is limited to projects must name a subject."""
    if caller.project_ids is None:
        return
    if subject_id is None:
        raise Forbidden("this key is limited to projects: name the `subject` whose events are wanted")
    if subject_id in caller.project_ids or any(_sees(session, caller, entity, subject_id) for entity in _SUBJECTS):
        return
    raise NotFound(f"nothing has the id {subject_id}", fields=["subject"])


def is_over(
    session: Session, caller: Caller, *, after: Position, subject_id: uuid.UUID | None = None, types: Sequence[str] = ()
) -> bool:
    """Whether the subject is a run that has ended, and nothing of it is still to come."""
    if subject_id is None:
        return False
    states = (
        session.scalar(sa.select(run.state).where(run.id == subject_id, run.workspace_id == caller.workspace_id))
        for run in _RUNS
    )
    if all(state not in ENDED for state in states):
        return False
    return not _after(session, caller, after, subject_id, types, 1, settled=False)


def cursor_of(position: Position) -> str:
    return f"{position[0]}-{position[1]}"


def position_of(cursor: str, pointer: str = "?after") -> Position:
    match = re.fullmatch(r"([0-9]{1,19})-([0-9]{1,19})", cursor)
    if match is None or max(map(int, match.groups())) > _END:
        detail = "must be a cursor that this API gave, `begin` or `now`"
        raise Unprocessable(f"{pointer}: {detail}", errors=[FieldError(pointer, detail)])
    return int(match[1]), int(match[2])


def _is_behind(session: Session, position: Position) -> sa.ColumnElement[bool]:
    xid, event_id = position
    if is_postgres(session):
        return sa.tuple_(Event.xid, Event.id) > sa.tuple_(sa.literal(xid, sa.BigInteger), sa.literal(event_id))
    # There every xid is 0. SQLite would look up a comparison of rows by the xid alone, and so read all that there is.
    return Event.id > (_END if xid else event_id)


def _sees(session: Session, caller: Caller, entity: type, subject_id: uuid.UUID) -> bool:
    try:
        get_visible(session, caller, entity, subject_id)
    except NotFound:
        return False
    return True
