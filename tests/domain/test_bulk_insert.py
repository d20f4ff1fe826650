"""Many rows at once are the same rows as one by one: every type, every default, every refusal."""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import cycle
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DataError, IntegrityError, StatementError
from sqlalchemy.orm import Session

from shared import db
from shared.bulk_rows import HANDED_OVER_FROM, NUMBERED_FROM, bulk_insert, bulk_insert_numbered
from shared.domain import datasets
from shared.domain.tenants import Caller
from shared.models import (
    Barrier,
    Base,
    Event,
    Execution,
    Job,
    JobKind,
    Project,
    Queue,
    State,
    TestCase,
    Workspace,
    new_id,
)
from tests.domain.test_plans import caught
from tests.rows import count

MANY = max(HANDED_OVER_FROM.values())  # are handed over to the driver by both databases
SOME = HANDED_OVER_FROM["sqlite"]  # by SQLite, and are one statement to PostgreSQL
TEXTS = ["plain", "", "tab\tnew\nline\rreturn", "back\\slash \\N \\. \\t", "quote \" ' , ;", "Grüße 🐘", "NULL"]
VALUES = [
    None,
    True,
    0,
    -1.5,
    10**15,
    "",
    "NULL",
    "\t\n\\N",
    [],
    {},
    [None, {"ä": ["🐘", {"x": 1e-9}]}],
    {"a\tb": "c\\n"},
]
TIMES = [
    datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2026, 3, 1, 1, 2, 3, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    datetime(1999, 12, 31, tzinfo=UTC),
]
Insert = Callable[[Session, type[Base], Sequence[Mapping[str, Any]]], object]


def odd_rows(model: type[Any], fixed: Mapping[str, Any], number_of_rows: int) -> list[dict[str, Any]]:
    """Rows with every value that is odd for the type of its column; keys and references are `fixed`."""
    columns = [column for column in model.__table__.columns if column.name not in fixed and not column.primary_key]
    values = {column.name: _odd(column) for column in columns}
    made = []
    for number in range(number_of_rows):
        row = {name: next(source) for name, source in values.items()}
        row |= {name: value(number) if callable(value) else value for name, value in fixed.items()}
        made.append(row)
    return made


def _odd(column: Any) -> Iterator[Any]:
    choices: list[Any]
    if isinstance(column.type, db.UtcDateTime):
        choices = list(TIMES)
    elif isinstance(column.type, sa.JSON):
        choices = [value for value in VALUES if column.nullable or value is not None]
    elif isinstance(column.type, sa.Boolean):
        choices = [True, False]
    elif isinstance(column.type, sa.Float):
        choices = [0.0, -0.1, 1e300, 5e-324, 1 / 3]
    elif isinstance(column.type, sa.BigInteger):
        choices = [0, -1, 2**63 - 1, -(2**63)]
    elif isinstance(column.type, sa.SmallInteger):
        choices = [0, 9]
    elif isinstance(column.type, sa.Integer):
        choices = [0, -1, 2**31 - 1]
    elif isinstance(column.type, sa.Uuid):
        choices = [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)]
    else:
        length = column.type.length or 1_000
        choices = [text for text in TEXTS if len(text) <= length]
    return cycle([*choices, None] if column.nullable and None not in choices else choices)


def stored(model: type[Any], key: Any) -> list[dict[str, Any]]:
    with db.reading() as session:
        found = session.scalars(sa.select(model).order_by(key)).all()
        return [{column.name: getattr(row, column.name) for column in model.__table__.columns} for row in found]


def inserted(insert: Insert, model: type[Any], rows: Sequence[Mapping[str, Any]], key: Any) -> list[dict[str, Any]]:
    """What is read back after these rows were inserted into an empty table; it is empty again afterwards."""
    with db.transaction() as session:
        insert(session, model, rows)
    found = stored(model, key)
    with db.transaction() as session:
        session.execute(sa.delete(model))
    return found


def one_by_one(session: Session, model: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        session.execute(sa.insert(model).values(**row))


def events(count: int, workspace_id: uuid.UUID, **fields: Any) -> list[dict[str, Any]]:
    return [
        {"workspace_id": workspace_id, "type": "a.b", "subject_id": uuid.UUID(int=n), **fields} for n in range(count)
    ]


@pytest.mark.parametrize("number", [SOME, MANY])
def test_every_value_of_every_type_reads_back_as_from_single_inserts(admin: Caller, number: int) -> None:
    with db.transaction() as session:
        project_id = session.scalars(sa.select(Project.id)).one()
        dataset_id = datasets.create_dataset(session, admin, name="odd").id
        session.execute(sa.delete(Event))
    ids = [new_id() for _ in range(number)]
    alone = {"workspace_id": admin.workspace_id}
    nothing = {"prompt_id": None, "version_id": None, "budget_id": None}
    subjects: list[tuple[type[Any], dict[str, Any], Any]] = [
        (
            Execution,
            {**alone, **nothing, "id": ids.__getitem__, "project_id": project_id, "state": State.FAILED},
            Execution.id,
        ),
        (
            TestCase,
            {
                **alone,
                "id": ids.__getitem__,
                "dataset_id": dataset_id,
                "ordinal": lambda number: number,
                "case_id": ids.__getitem__,
                "content_hash": str,
            },
            TestCase.ordinal,
        ),
        (
            Job,
            {
                **alone,
                "id": lambda number: number + 1,
                "subject_id": ids.__getitem__,
                "kind": JobKind.EXECUTION,
                "queue": Queue.EXECUTIONS,
                "state": State.QUEUED,
                "step_no": None,
            },
            Job.id,
        ),
        (Event, {**alone, "id": lambda number: number + 1, "subject_id": ids.__getitem__}, Event.id),
        (
            Barrier,
            {**alone, "id": lambda number: number + 1, "subject_id": ids.__getitem__, "kind": "evaluation"},
            Barrier.id,
        ),
    ]

    for model, fixed, key in subjects:
        rows = odd_rows(model, fixed, number)

        singly = inserted(one_by_one, model, rows, key)
        at_once = inserted(bulk_insert, model, rows, key)

        assert len(at_once) == number
        assert at_once == singly, model
        given = rows[0].keys()
        assert [{name: row[name] for name in given} for row in at_once] == [dict(row) for row in rows], model


@pytest.mark.parametrize("number", [1, SOME - 1, SOME, MANY - 1, MANY])
def test_what_the_rows_leave_out_takes_the_defaults_of_the_model(admin: Caller, number: int) -> None:
    db.offset_clock(3600)
    with db.transaction() as session:
        session.execute(sa.delete(Event))
        bulk_insert(session, Event, events(number, admin.workspace_id))
        now, xid = session.execute(sa.select(db.db_now(), db.transaction_id())).one()

    rows = stored(Event, Event.id)

    assert len(rows) == number
    assert {(row["actor"], str(row["data"]), row["xid"]) for row in rows} == {("", "{}", xid)}
    assert all(timedelta() <= now - row["created_at"] < timedelta(minutes=1) for row in rows)
    assert [row["subject_id"].int for row in rows] == list(range(number))  # the keys follow the order of the rows


@pytest.mark.parametrize("number", [SOME, MANY])
def test_a_default_that_is_made_per_row_differs_from_row_to_row(admin: Caller, number: int) -> None:
    with db.transaction() as session:
        bulk_insert(session, Project, [{"workspace_id": admin.workspace_id, "name": f"p{n}"} for n in range(number)])

    assert len({row["id"] for row in stored(Project, Project.id)}) == number + 1  # and the default project


@pytest.mark.parametrize("number", [0, 1, NUMBERED_FROM - 1, NUMBERED_FROM, MANY])
def test_numbered_rows_answer_with_their_keys_in_order(admin: Caller, number: int) -> None:
    rows = [
        {
            "workspace_id": admin.workspace_id,
            "kind": JobKind.EXECUTION,
            "queue": Queue.EXECUTIONS,
            "subject_id": uuid.UUID(int=n),
        }
        for n in range(number)
    ]

    with db.transaction() as session:
        first = bulk_insert_numbered(session, Job, rows)
        second = bulk_insert_numbered(session, Job, rows)

    found = {row["id"]: row["subject_id"].int for row in stored(Job, Job.id)}
    assert [found[key] for key in first] == [found[key] for key in second] == list(range(number))
    assert [*first, *second] == sorted({*first, *second})


def test_no_rows_are_no_statement(admin: Caller) -> None:
    before = count(Event)

    with db.transaction() as session:
        bulk_insert(session, Event, [])

    assert count(Event) == before


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_postgresql_is_sent_one_statement_whose_text_is_the_same_for_any_number_of_rows(admin: Caller) -> None:
    with caught() as sent, db.transaction() as session:
        for number in (2, SOME, MANY - 1):
            bulk_insert(session, Event, events(number, admin.workspace_id))

    assert [set(each.parameters) & {"rows"} for each in sent] == [{"rows"}] * 3
    assert len({each.statement for each in sent}) == 1


@pytest.mark.parametrize("number", [2, MANY])
def test_rows_that_give_different_columns_are_refused(admin: Caller, number: int) -> None:
    before = count(Event)
    rows = events(number, admin.workspace_id)
    rows[-1]["actor"] = "lost"

    with pytest.raises(ValueError, match="same columns"), db.transaction() as session:
        bulk_insert(session, Event, rows)

    assert count(Event) == before


@pytest.mark.parametrize("number", [2, MANY])
def test_a_violated_constraint_has_its_name_and_nothing_is_stored(admin: Caller, number: int) -> None:
    rows = [{"workspace_id": admin.workspace_id, "name": f"p{n}"} for n in range(number)]
    rows[-1]["name"] = "p0"

    with pytest.raises(IntegrityError) as caught, db.transaction() as session:
        bulk_insert(session, Project, rows)

    assert db.violated_constraint(caught.value) == "uq_projects_workspace_id_name"
    assert count(Project) == 1


@pytest.mark.parametrize("number", [2, MANY])
def test_a_reference_to_nothing_is_refused(admin: Caller, number: int) -> None:
    before = count(Event)

    with pytest.raises(IntegrityError), db.transaction() as session:
        bulk_insert(session, Event, events(number, uuid.UUID(int=1)))

    assert count(Event) == before


@pytest.mark.parametrize("number", [2, MANY])
def test_a_value_that_cannot_be_stored_is_refused_as_by_single_inserts(admin: Caller, number: int) -> None:
    before = count(Event)
    rows = events(number, admin.workspace_id, created_at=datetime(2026, 1, 1))  # noqa: DTZ001  # naive

    with pytest.raises((StatementError, ValueError), match="naive"), db.transaction() as session:
        bulk_insert(session, Event, rows)

    assert count(Event) == before


@pytest.mark.parametrize("number", [2, MANY])
def test_rows_may_refer_to_what_the_session_has_not_sent_yet(admin: Caller, number: int) -> None:
    workspace = Workspace(id=new_id(), name="fresh")

    with db.transaction() as session:
        session.add(workspace)
        bulk_insert(session, Event, events(number, workspace.id))

    assert {row["workspace_id"] for row in stored(Event, Event.id)[-number:]} == {workspace.id}


@pytest.mark.parametrize("number", [2, MANY])
def test_a_rolled_back_transaction_takes_its_rows_along(admin: Caller, number: int) -> None:
    before = count(Event)

    with db.transaction() as session:
        bulk_insert(session, Event, events(number, admin.workspace_id))
        session.rollback()

    assert count(Event) == before


def test_the_transaction_goes_on_after_a_savepoint_that_failed(admin: Caller) -> None:
    before = count(Event)

    with db.transaction() as session:
        with pytest.raises(IntegrityError), session.begin_nested():
            bulk_insert(session, Event, events(MANY, uuid.UUID(int=1)))
        bulk_insert(session, Event, events(MANY, admin.workspace_id))

    assert count(Event) == before + MANY


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("number", [1, SOME, MANY])
def test_text_that_postgresql_cannot_hold_is_its_data_error(admin: Caller, number: int) -> None:
    with pytest.raises(DataError), db.transaction() as session:
        bulk_insert(session, Event, events(number, admin.workspace_id, actor="\x00"))
