"""Versions of many prompts in one transaction: what each `upsert` would make, in statements that do not grow."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.domain import projects, prompts, search
from shared.domain.content import check_content
from shared.domain.prompts import NamedContent
from shared.domain.tenants import Caller
from shared.errors import Conflict, NotFound
from shared.models import Prompt, Version
from tests.domain.test_plans import caught, is_postgres
from tests.rows import event_data


@pytest.fixture
def three(admin: Caller) -> list[str]:
    names = ["a", "b", "c"]
    for name in names:
        with db.transaction() as session:
            prompts.upsert(session, admin, name, check_content(template_source=f"the first of {name}"))
    return names


def named(name: str, source: str, **fields: Any) -> NamedContent:
    return NamedContent(name, check_content(template_source=source), fields.pop("author", "ada"), **fields)


def add(caller: Caller, *wanted: NamedContent, **fields: Any) -> list[tuple[str, int, bool] | None]:
    with db.transaction() as session:
        made = prompts.add_together(session, caller, wanted, **fields)
        return [each and (each[0].name, each[1].number, each[1].is_new) for each in made]


def versions() -> list[Mapping[str, Any]]:
    with db.reading() as session:
        return [dict(row) for row in session.execute(sa.select(Version.__table__)).mappings()]


def changed_at() -> dict[str, datetime]:
    with db.reading() as session:
        return dict(session.execute(sa.select(Prompt.name, Prompt.updated_at).order_by(Prompt.name)).all())


def test_each_content_becomes_the_next_version_of_its_prompt(admin: Caller, three: list[str]) -> None:
    made = add(admin, named("c", "2"), named("a", "2"), named("c", "3"), named("c", "2"), named("b", "the first of b"))

    assert made == [("c", 2, True), ("a", 2, True), ("c", 3, True), ("c", 2, False), ("b", 1, False)]
    with db.reading() as session:
        lasts = dict(session.execute(sa.select(Prompt.name, Prompt.last_version_number)).all())
    assert lasts == {"a": 2, "b": 1, "c": 3}


def test_what_is_written_is_what_an_upsert_writes(admin: Caller, three: list[str]) -> None:
    before = changed_at()
    add(admin, named("a", "Say {{ it }}", author="eve", message="why"))
    with db.transaction() as session:
        prompts.upsert(
            session,
            admin,
            "b",
            check_content(template_source="Say {{ it }}"),
            created_by="eve",
            message="why",
        )

    own = {"id", "prompt_id", "created_at"}
    one, other = [row for row in versions() if row["number"] == 2]
    assert {name for name in one if one[name] != other[name]} == own
    assert event_data("prompt.version_created")[-2] == event_data("prompt.version_created")[-1]
    with db.reading() as session:
        found = search.search(session, admin, "say it", limit=10)
    assert [name for name, at in changed_at().items() if at > before[name]] == ["a", "b"]
    assert {hit.prompt.name for hit in found.hits} == {"a", "b"}


def test_what_is_more_than_a_version_is_left_alone(admin: Caller, three: list[str]) -> None:
    with db.transaction() as session:
        session.execute(sa.update(Prompt).where(Prompt.name == "b").values(mode="tracking"))
        session.execute(sa.update(Prompt).where(Prompt.name == "c").values(deleted_at=db.db_now()))

    made = add(admin, named("new", "x"), named("a", "x"), named("b", "x"), named("c", "x"))

    assert made == [None, ("a", 2, True), None, None]
    assert [row["number"] for row in versions()].count(2) == 1


def test_a_prompt_that_another_transaction_has_is_not_waited_for(admin: Caller, three: list[str]) -> None:
    wanted = named("a", "2"), named("b", "2")
    if is_postgres():
        with db.transaction() as session:
            session.execute(sa.select(Prompt).where(Prompt.name == "a").with_for_update())
            assert add(admin, *wanted) == [None, ("b", 2, True)]
    # SQLite has one writer: nobody else has a row.
    assert add(admin, *wanted) == [("a", 2, True), ("b", 2, not is_postgres())]


def test_an_archived_and_an_unknown_project_are_refused_and_nothing_is_written(admin: Caller, three: list[str]) -> None:
    with db.transaction() as session:
        projects.set_archived(session, admin, "default", archived=True)

    with pytest.raises(Conflict):
        add(admin, named("a", "2"))
    with pytest.raises(NotFound):
        add(admin, named("a", "2"), project="nowhere")
    assert len(versions()) == 3


def test_the_statements_do_not_grow_with_the_versions(admin: Caller, three: list[str]) -> None:
    with caught() as one:
        add(admin, named("a", "2"))
    with caught() as many:
        add(admin, *(named(name, f"{name} {number}") for name in three for number in range(6)))

    assert len(many) == len(one)
