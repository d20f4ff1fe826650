"""One label of many prompts at once: what a move of one does, in a number of statements that does not grow."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.domain import label_protections, labels, prompts
from shared.domain.content import check_content
from shared.domain.labels import Target
from shared.domain.names import VersionChoice
from shared.domain.tenants import Caller
from shared.errors import Forbidden
from shared.models import LabelMove, Role
from tests.rows import count, event_data, everything


@pytest.fixture
def three(admin: Caller) -> list[str]:
    """Prompts with versions 1 and 2; `production` of the first two points at 1."""
    names = ["a", "b", "c"]
    for name in names:
        for source in ("one", "two"):
            content = check_content(template_source=source)
            with db.transaction() as session:
                prompts.upsert(session, admin, name, content, set_active=source == "one" and name != "c")
    return names


def protect(admin: Caller, name: str, **how: Any) -> None:
    with db.transaction() as session:
        label_protections.protect_label(session, admin, prompts.get_prompt(session, admin, name), "production", **how)


def move(caller: Caller, wanted: dict[str, int]) -> list[str]:
    """Who was asked instead: the names of the prompts."""
    with db.transaction() as session:
        targets = []
        for name, number in wanted.items():
            prompt = prompts.get_prompt(session, caller, name)
            version = prompts.get_version(session, prompt, VersionChoice(number=number))
            targets.append(Target(prompt, version.id, number))
        asked = labels.move_labels(session, caller, "production", targets, reason="together").asked
        return [target.prompt.name for target in targets if target.prompt.id in asked]


def pointed(admin: Caller, names: list[str]) -> list[int | None]:
    with db.reading() as session:
        found = [labels.list_labels(session, prompts.get_prompt(session, admin, name)) for name in names]
    return [placed[0].version_number if placed else None for placed in found]


def test_each_label_is_made_moved_or_left_as_one_move_would(admin: Caller, three: list[str]) -> None:
    before = len(event_data("prompt.label_moved"))

    asked = move(admin, {"a": 2, "b": 1, "c": 2})

    assert asked == []
    assert pointed(admin, three) == [2, 1, 2]
    assert event_data("prompt.label_moved")[before:] == [
        {"label": "production", "from": 1, "to": 2, "reason": "together"},
        {"label": "production", "from": None, "to": 2, "reason": "together"},
    ]
    assert count(LabelMove) == 4


def test_one_that_is_protected_by_a_role_stops_all(admin: Caller, three: list[str]) -> None:
    protect(admin, "b", role=Role.ADMIN)
    before = everything()

    with pytest.raises(Forbidden, match="role admin"):
        move(replace(admin, role=Role.EDITOR), {"a": 2, "b": 2, "c": 2})

    assert everything() == before


def test_those_that_take_a_second_person_are_asked_for_and_the_rest_moves(admin: Caller, three: list[str]) -> None:
    protect(admin, "b", approvals=1)

    asked = move(admin, {"a": 2, "b": 2, "c": 2})

    assert asked == ["b"]
    assert pointed(admin, three) == [2, 1, 2]
    assert event_data("label_request.created") == [{"label": "production", "from": 1, "to": 2}]


def test_the_statements_do_not_grow_with_the_prompts(admin: Caller, three: list[str]) -> None:
    def statements(wanted: dict[str, int]) -> int:
        with db.transaction() as session:
            found = [prompts.get_prompt(session, admin, name) for name in wanted]
            versions = [prompts.get_version(session, prompt, VersionChoice(number=2)) for prompt in found]
            targets = [Target(prompt, version.id, 2) for prompt, version in zip(found, versions, strict=True)]
            with counted() as sent:
                labels.move_labels(session, admin, "production", targets)
            session.rollback()
        return len(sent)

    assert statements({"a": 2, "b": 2}) == statements({"a": 2})


@contextlib.contextmanager
def counted() -> Iterator[list[str]]:
    sent: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        sent.append(statement)

    sa.event.listen(db.engine(), "before_cursor_execute", note)
    yield sent
    sa.event.remove(db.engine(), "before_cursor_execute", note)


def test_two_who_move_the_same_many_in_other_orders_do_not_wait_in_a_circle(admin: Caller, three: list[str]) -> None:
    orders = [three, three[::-1]] * 3
    start = threading.Barrier(len(orders))

    def one(turn: int) -> None:
        start.wait(timeout=30)
        for number in (2, 1, 2):
            move(admin, dict.fromkeys(orders[turn], number))

    with ThreadPoolExecutor(len(orders)) as pool:
        list(pool.map(one, range(len(orders))))

    with db.reading() as session:
        for name in three:
            prompt = prompts.get_prompt(session, admin, name)
            moves = labels.list_moves(session, prompt, "production", limit=100, cursor=None).data[::-1]
            assert [each.from_version for each in moves] == [None, *(each.to_version for each in moves[:-1])]
