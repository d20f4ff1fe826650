"""Keyset pages: nothing lost, nothing twice, and no cursor that a caller makes up gets past the check."""

import base64
import json
import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.domain import executions, pages
from shared.domain.executions import Filter
from shared.domain.pages import Page
from shared.domain.tenants import Caller
from shared.errors import Unprocessable
from shared.models import Project, Prompt, Version, WorkItem, new_id
from tests.domain.test_plans import caught, is_postgres

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def add_projects(caller: Caller, *moments: datetime) -> list[str]:
    """One project per moment; their names in that order."""
    names = [f"at-{uuid.uuid4().hex[:12]}a" for _ in moments]
    with db.transaction() as session:
        session.execute(
            sa.insert(Project),
            [
                {"id": new_id(), "workspace_id": caller.workspace_id, "name": name, "created_at": moment}
                for name, moment in zip(names, moments, strict=True)
            ],
        )
    return names


def page_of_projects(*, limit: int = 2, cursor: str | None = None) -> Page:
    with db.reading() as session:
        query = sa.select(Project).where(Project.name.startswith("at-"))
        return pages.newest_first(session, query, Project, limit=limit, cursor=cursor)


def walk_projects(*, limit: int) -> list[list[str]]:
    found, cursor = [], None
    while True:
        page = page_of_projects(limit=limit, cursor=cursor)
        found.append([project.name for project in page.data])
        if page.next_cursor is None:
            return found
        cursor = page.next_cursor


def encode(values: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def test_a_walk_meets_every_row_once_newest_first(admin: Caller) -> None:
    names = add_projects(admin, *(NOW + timedelta(microseconds=n) for n in range(5)))

    walked = walk_projects(limit=2)

    assert walked == [[names[4], names[3]], [names[2], names[1]], [names[0]]]


def test_rows_of_the_same_moment_are_neither_lost_nor_doubled(admin: Caller) -> None:
    names = add_projects(admin, *[NOW] * 5)

    walked = walk_projects(limit=2)

    assert [len(page) for page in walked] == [2, 2, 1]
    assert sorted(name for page in walked for name in page) == sorted(names)


def test_the_last_full_page_has_no_cursor(admin: Caller) -> None:
    add_projects(admin, NOW, NOW + timedelta(seconds=1))

    assert page_of_projects(limit=2).next_cursor is None
    assert page_of_projects(limit=1).next_cursor is not None


def test_a_page_is_looked_up_by_its_cursor_however_deep_it_is(admin: Caller) -> None:
    cursor = encode([NOW.isoformat(), str(new_id())])
    with caught() as sent, db.reading() as session:
        executions.list_executions(session, admin, Filter(), limit=2, cursor=cursor)

    with db.engine().connect() as connection:
        if is_postgres():
            for way in ("seqscan", "bitmapscan", "sort"):  # of so few rows any way is cheap
                connection.exec_driver_sql(f"SET enable_{way} = off")
        prefix = "EXPLAIN " if is_postgres() else "EXPLAIN QUERY PLAN "
        plan = "\n".join(map(str, connection.exec_driver_sql(prefix + sent[0].statement, sent[0].parameters)))
    assert re.search(r"Index Cond: .*ROW\(created_at, id\) <|\(workspace_id=\? AND \(created_at,id\)<", plan), plan


def test_rows_that_arrive_during_a_walk_do_not_shift_its_pages(admin: Caller) -> None:
    names = add_projects(admin, *(NOW + timedelta(seconds=n) for n in range(4)))
    first = page_of_projects(limit=2)
    add_projects(admin, NOW + timedelta(seconds=9))

    second = page_of_projects(limit=2, cursor=first.next_cursor)

    assert [project.name for project in [*first.data, *second.data]] == names[::-1]


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "é",
        "!!!!",
        encode([]),
        encode({}),
        encode("text"),
        encode([NOW.isoformat()]),
        encode([NOW.isoformat(), 5]),
        encode([NOW.isoformat(), "no-id"]),
        encode(["no-date", str(uuid.UUID(int=7))]),
        encode(["2026-03-01T12:00:00", str(uuid.UUID(int=7))]),
        encode(["0001-01-01T00:00:00+23:59", str(uuid.UUID(int=7))]),
        encode(["5"]),
        base64.urlsafe_b64encode(b"[" * 9_000).decode(),
        base64.urlsafe_b64encode(b"\xff\xff").decode(),
    ],
)
def test_a_cursor_that_no_list_gave_out_is_refused(admin: Caller, cursor: str) -> None:
    add_projects(admin, NOW)

    with pytest.raises(Unprocessable) as refused:
        page_of_projects(cursor=cursor)

    assert [error.pointer for error in refused.value.errors] == ["?cursor"]


def add_versions(caller: Caller, count: int) -> uuid.UUID:
    with db.transaction() as session:
        project_id = session.scalars(sa.select(Project.id)).first()
        prompt = Prompt(workspace_id=caller.workspace_id, project_id=project_id, name="greeter")
        session.add(prompt)
        session.flush()
        session.add_all(
            Version(
                workspace_id=caller.workspace_id,
                prompt_id=prompt.id,
                number=number,
                content={},
                template_hash="",
                content_hash=str(number),
                variables=[],
            )
            for number in range(1, count + 1)
        )
        return prompt.id


def page_of_versions(prompt_id: uuid.UUID, *, cursor: str | None) -> Page:
    with db.reading() as session:
        query = sa.select(Version).where(Version.prompt_id == prompt_id)
        return pages.ascending(session, query, Version.number, limit=2, cursor=cursor)


def test_an_ascending_walk_meets_every_row_once_in_order(admin: Caller) -> None:
    prompt_id = add_versions(admin, 5)
    numbers, cursor = [], None

    for _ in range(3):
        page = page_of_versions(prompt_id, cursor=cursor)
        numbers.append([version.number for version in page.data])
        cursor = page.next_cursor

    assert numbers == [[1, 2], [3, 4], [5]]
    assert cursor is None


@pytest.mark.parametrize("last", ["", "x", "-1", "1.5", "nan", "٣", str(2**31), "9" * 18, "9" * 40, "9" * 5_000])
def test_an_ascending_cursor_must_hold_a_number_that_the_column_can_hold(admin: Caller, last: str) -> None:
    prompt_id = add_versions(admin, 1)

    with pytest.raises(Unprocessable) as refused:
        page_of_versions(prompt_id, cursor=encode([last]))

    assert [error.pointer for error in refused.value.errors] == ["?cursor"]


@pytest.mark.parametrize("last", [0, 2**31 - 1])
def test_any_number_that_the_column_can_hold_is_a_place_in_the_list(admin: Caller, last: int) -> None:
    prompt_id = add_versions(admin, 1)

    page = page_of_versions(prompt_id, cursor=encode([str(last)]))

    assert len(page.data) == (1 if last == 0 else 0)


def test_a_wide_column_takes_a_cursor_past_32_bits(admin: Caller) -> None:
    with db.reading() as session:
        query = sa.select(WorkItem.id)
        page = pages.ascending(session, query, WorkItem.id, limit=2, cursor=encode([str(2**40)]), scalars=False)

    assert list(page.data) == []
