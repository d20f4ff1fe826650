"""Test cases made from what was run: the variables are the inputs, and what is expected is the answer or its label."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.domain import executions
from shared.domain.case_files import NewCase, problem_of
from shared.domain.tenants import Caller, visible
from shared.errors import NotFound
from shared.models import Execution, Feedback, State
from shared.strict_json import structured

MAX_EXECUTIONS = 500
RESPONSE, LABEL, NOTHING = EXPECTED = ("response", "label", "none")
_PAGE = 20  # an answer may be large, and so may its variables


@dataclass(frozen=True)
class Collection:
    """Which executions, and what their cases are given besides. By ids, or the newest `limit` that a filter finds."""

    ids: Sequence[uuid.UUID] = ()
    wanted: executions.Filter | None = None
    limit: int = MAX_EXECUTIONS
    expected: str = RESPONSE
    tags: tuple[str, ...] = ()
    group: str | None = None
    golden: bool = False


@dataclass(frozen=True)
class Skipped:
    """An execution that makes no test case, and why."""

    execution_id: uuid.UUID
    detail: str


def collect(session: Session, caller: Caller, collection: Collection) -> tuple[list[NewCase], list[Skipped]]:
    """A case for each execution that makes one, `line` being its place. Reads only.

    `NotFound` when the caller may not see one of the ids.
    """
    ids = _visible(session, caller, collection.ids) if collection.ids else _found(session, caller, collection)
    labels = _labels(session, ids) if collection.expected == LABEL else {}
    cases: list[NewCase] = []
    skipped = []
    for row in _rows(session, ids):
        made = _case(row, collection, labels.get(row.id), len(cases))
        if isinstance(made, NewCase):
            cases.append(made)
        else:
            skipped.append(Skipped(row.id, made))
    return cases, skipped


def _visible(session: Session, caller: Caller, ids: Sequence[uuid.UUID]) -> Sequence[uuid.UUID]:
    found = set(
        session.scalars(visible(caller, Execution).with_only_columns(Execution.id).where(Execution.id.in_(ids)))
    )
    missing = [str(one) for one in ids if one not in found]
    if missing:
        raise NotFound(f"no execution {', '.join(missing[:5])}", fields=["execution_ids"])
    return ids


def _found(session: Session, caller: Caller, collection: Collection) -> Sequence[uuid.UUID]:
    assert collection.wanted is not None
    query = executions.matching(session, caller, collection.wanted).with_only_columns(Execution.id)
    newest = query.order_by(Execution.created_at.desc(), Execution.id.desc()).limit(collection.limit)
    return session.scalars(newest).all()[::-1]


def _rows(session: Session, ids: Sequence[uuid.UUID]) -> Iterator[Any]:
    """In the order of the ids, a few at a time."""
    columns = (Execution.id, Execution.state, Execution.variables, Execution.response_text, Execution.truncated)
    for start in range(0, len(ids), _PAGE):
        page = ids[start : start + _PAGE]
        rows = {row.id: row for row in session.execute(sa.select(*columns).where(Execution.id.in_(page)))}
        yield from (rows[one] for one in page if one in rows)  # one may have been pruned since


def _labels(session: Session, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, str]:
    """The label of the newest feedback that has one."""
    query = sa.select(Feedback.execution_id, Feedback.label).where(
        Feedback.execution_id.in_(ids), Feedback.label.is_not(None)
    )
    return {row.execution_id: row.label for row in session.execute(query.order_by(Feedback.updated_at, Feedback.id))}


def _case(row: Any, collection: Collection, label: str | None, line: int) -> NewCase | str:
    """The case, or why there is none."""
    expected: Any = None
    if collection.expected == RESPONSE:
        if row.state != State.SUCCEEDED or row.response_text is None:
            return f"it is {row.state}: there is no answer that could be expected"
        if row.truncated:
            return "only the beginning of its answer was kept"
        expected = structured(row.response_text)
    elif collection.expected == LABEL:
        if label is None:
            return "nobody gave it a label"
        expected = label
    if problem := problem_of({"inputs": row.variables, "expected": expected}):
        return problem
    return NewCase(
        inputs=row.variables,
        expected=expected,
        tags=collection.tags,
        group=collection.group,
        golden=collection.golden,
        source_execution_id=row.id,
        line=line,
    )
