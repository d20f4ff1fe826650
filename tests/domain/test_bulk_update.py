"""Columns of many rows written by their keys: to the last bit what was given, and to no other row."""

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from shared import db
from shared.bulk_rows import bulk_insert_numbered, bulk_update
from shared.domain.tenants import Caller
from shared.models import Job, WorkItem, new_id
from tests.domain.test_plans import caught

GIVEN: list[tuple[float | None, bool | None, str | None, Any]] = [
    (0.1 + 0.2, True, "Grüße 🐘 \\ \" ' \n", {"parts": [{"score": 1 / 3, "feedback": None}]}),
    (5e-324, False, "", []),
    (None, None, None, None),
    (1.0, True, "null", "null"),
    (0.0, False, "NULL", 0),
]


def fill(admin: Caller, count: int) -> list[int]:
    scope_id = new_id()
    values = {"workspace_id": admin.workspace_id, "scope_id": scope_id, "step_no": 2, "kind": "evaluate"}
    with db.transaction() as session:
        rows = [{**values, "ordinal": n, "work_key": str(n), "candidate": "kept"} for n in range(count)]
        return bulk_insert_numbered(session, WorkItem, rows)


def stored() -> list[tuple[Any, ...]]:
    columns = (WorkItem.score, WorkItem.passed, WorkItem.feedback, WorkItem.details, WorkItem.candidate)
    with db.reading() as session:
        return [tuple(row) for row in session.execute(sa.select(*columns).order_by(WorkItem.id))]


def test_every_row_gets_its_own_values_and_other_columns_and_rows_stay(admin: Caller) -> None:
    ids = fill(admin, len(GIVEN) + 1)
    names = ("score", "passed", "feedback", "details")
    rows = [{"id": key, **dict(zip(names, given, strict=True))} for key, given in zip(ids, GIVEN, strict=False)]

    with db.transaction() as session:
        bulk_update(session, WorkItem, rows[::-1])

    untouched = (None, None, None, None, "kept")
    assert stored() == [*((*given, "kept") for given in GIVEN), untouched]


def test_no_rows_are_no_statement(admin: Caller) -> None:
    with caught() as sent, db.transaction() as session:
        bulk_update(session, WorkItem, [])

    assert sent == []


def test_the_time_is_written_where_it_is_asked_for_and_to_the_given_rows_alone(admin: Caller) -> None:
    with db.transaction() as session:
        rows = [{"workspace_id": admin.workspace_id, "kind": "bulk", "queue": "bulk", "subject_id": new_id()}] * 2
        given, other = bulk_insert_numbered(session, Job, rows)
        before = session.scalars(sa.select(db.db_now())).one()

        bulk_update(session, Job, [{"id": given, "attempts": 3}], stamped="finished_at")

    with db.reading() as session:
        found = {row.id: row for row in session.execute(sa.select(Job.id, Job.attempts, Job.finished_at))}
    assert (found[given].attempts, found[other].attempts, found[other].finished_at) == (3, 0, None)
    assert before <= found[given].finished_at <= before + timedelta(minutes=1)


def test_a_value_that_the_column_cannot_hold_is_refused_as_of_any_other_statement(admin: Caller) -> None:
    (key,) = fill(admin, 1)

    with pytest.raises(DBAPIError), db.transaction() as session:
        bulk_update(session, WorkItem, [{"id": key, "scope_id": None}])

    assert stored() == [(None, None, None, None, "kept")]
