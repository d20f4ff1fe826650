"""Feedback on an execution: one for each author, replaced as a whole, with its history in events."""

import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.config import settings
from shared.domain import retention
from shared.domain.tenants import Caller
from shared.models import Event, Feedback, Role
from tests.executed import insert_executions
from tests.rows import count, event_data, everything
from tests.support import Api, pointers


@pytest.fixture
def path(admin: Caller) -> str:
    """The address of the feedback on an execution that succeeded."""
    (execution_id,) = insert_executions(admin, [{}])
    return f"/v1/executions/{execution_id}/feedback"


@pytest.fixture
def prunable(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every execution is so old that it may be pruned."""
    monkeypatch.setenv("PROMPTMILL_KEEP_EXECUTIONS_DAYS", "1")
    settings.cache_clear()
    with db.transaction() as session:
        session.execute(sa.text("UPDATE executions SET completed_at = created_at"))


def test_feedback_is_stored_and_listed_with_its_author(api: Api, path: str) -> None:
    body = {"score": 0.25, "comment": "too long", "label": "style"}

    given = api.expect(200, "POST", path, body)

    assert api.expect(200, "GET", path) == {"data": [given], "next_cursor": None}
    assert {name: given[name] for name in body} == body
    assert (given["created_by"], given["thumb"], given["user"]) == ("admin", None, None)


@pytest.mark.parametrize(("thumb", "score", "stored"), [("up", None, 1.0), ("down", None, 0.0), ("down", 0.4, 0.4)])
def test_a_thumb_is_a_score_unless_one_is_given(api: Api, path: str, thumb: str, score: Any, stored: float) -> None:
    given = api.expect(200, "POST", path, {"thumb": thumb, "score": score})

    assert (given["thumb"], given["score"]) == (thumb, stored)


def test_what_the_same_author_says_later_replaces_it_as_a_whole_and_the_events_keep_both(api: Api, path: str) -> None:
    first = api.expect(200, "POST", path, {"score": 0, "comment": "no"})

    second = api.expect(200, "POST", path, {"thumb": "up"})

    assert count(Feedback) == 1
    assert (second["feedback_id"], second["comment"], second["score"]) == (first["feedback_id"], None, 1.0)
    assert (second["created_at"], second["updated_at"] > first["updated_at"]) == (first["created_at"], True)
    (made,), (changed,) = event_data("execution.feedback_given"), event_data("execution.feedback_changed")
    assert made["to"]["comment"] == "no"
    assert (changed["from"], changed["to"]["thumb"]) == (made["to"], "up")


def test_the_same_words_again_change_nothing(api: Api, path: str) -> None:
    api.expect(200, "POST", path, {"score": 0.5})
    before = everything()

    api.expect(200, "POST", path, {"score": 0.5})

    assert everything() == before


def test_authors_and_those_they_speak_for_have_feedback_of_their_own(
    api: Api, path: str, as_user: Callable[..., Api]
) -> None:
    as_user(user="bob").expect(200, "POST", path, {"score": 0})
    for user in ("u1", "u2", "u1"):
        api.expect(200, "POST", path, {"score": 1, "user": user})
    api.expect(200, "POST", path, {"score": 0.5})

    listed = api.expect(200, "GET", path)["data"]

    assert sorted((row["created_by"], row["user"] or "") for row in listed) == [
        ("admin", ""),
        ("admin", "u1"),
        ("admin", "u2"),
        ("bob", ""),
    ]


def test_a_page_of_feedback_ends_where_the_next_begins(api: Api, path: str) -> None:
    for user in ("u1", "u2", "u3"):
        api.expect(200, "POST", path, {"score": 1, "user": user})

    first = api.expect(200, "GET", f"{path}?limit=2")
    second = api.expect(200, "GET", f"{path}?limit=2&cursor={first['next_cursor']}")

    assert [row["user"] for row in first["data"] + second["data"]] == ["u3", "u2", "u1"]
    assert second["next_cursor"] is None


def test_only_ones_own_feedback_is_taken_back(api: Api, path: str, as_user: Callable[..., Api]) -> None:
    bob = as_user(user="bob")
    bob.expect(200, "POST", path, {"score": 0})
    api.expect(200, "POST", path, {"score": 1})
    api.expect(200, "POST", path, {"score": 1, "user": "u1"})

    answers = [
        bob.expect(200, "DELETE", path),
        bob.expect(200, "DELETE", path),
        api.expect(200, "DELETE", f"{path}?user=u1"),
    ]

    assert [answer["deleted"] for answer in answers] == [True, False, True]
    (left,) = api.expect(200, "GET", path)["data"]
    assert (left["created_by"], left["user"]) == ("admin", None)
    assert [data["end_user"] for data in event_data("execution.feedback_withdrawn")] == ["", "u1"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, ""),
        ({"score": None, "comment": None}, ""),
        ({"score": 1.01}, "/score"),
        ({"score": -0.01}, "/score"),
        ({"score": "1"}, "/score"),
        ({"score": True}, "/score"),
        ({"thumb": "sideways"}, "/thumb"),
        ({"label": ""}, "/label"),
        ({"label": "x" * 65}, "/label"),
        ({"comment": "x" * 4_001}, "/comment"),
        ({"score": 1, "user": ""}, "/user"),
        ({"score": 1, "end_user": "a"}, "/end_user"),
    ],
)
def test_feedback_that_says_nothing_or_too_much_is_a_422_and_leaves_no_row(
    api: Api, path: str, body: Any, pointer: str
) -> None:
    before = everything()

    answer = api.post(path, body)

    assert (answer.status_code, pointers(answer)) == (422, [pointer])
    assert everything() == before


@pytest.mark.parametrize("state", ["queued", "running"])
def test_there_is_nothing_to_say_before_there_is_an_answer(api: Api, admin: Caller, state: str) -> None:
    (execution_id,) = insert_executions(admin, [{"state": state}])
    before = everything()

    answer = api.post(f"/v1/executions/{execution_id}/feedback", {"score": 1})

    assert (answer.status_code, answer.get_json()["code"]) == (409, "conflict")
    assert everything() == before


def test_the_same_idempotency_key_gives_the_same_feedback_and_another_body_a_422(api: Api, path: str) -> None:
    key = {"Idempotency-Key": "once"}
    first = api.post(path, {"score": 1}, headers=key)
    api.expect(200, "POST", path, {"score": 0})

    again = api.post(path, {"score": 1}, headers=key)
    other = api.post(path, {"score": 0.5}, headers=key)

    assert (again.get_json(), again.headers["Idempotent-Replayed"]) == (first.get_json(), "true")
    assert (other.status_code, other.get_json()["code"]) == (422, "idempotency_mismatch")
    assert [row["score"] for row in api.expect(200, "GET", path)["data"]] == [0]


def test_a_stranger_and_a_viewer_leave_nothing(api: Api, path: str, as_user: Callable[..., Api]) -> None:
    stranger, viewer = as_user(workspace="elsewhere", role=Role.ADMIN), as_user(role=Role.VIEWER)

    statuses = [
        stranger.post(path, {"score": 1}).status_code,
        stranger.request("DELETE", path).status_code,
        stranger.get(path).status_code,
        api.post(f"/v1/executions/{uuid.uuid4()}/feedback", {"score": 1}).status_code,
        viewer.post(path, {"score": 1}).status_code,
    ]

    assert statuses == [404, 404, 404, 404, 403]
    assert count(Feedback) == 0
    assert event_data("execution.feedback_given") == []


def test_many_who_speak_for_the_same_author_at_once_leave_one_row(api: Api, path: str) -> None:
    statuses: list[int] = []

    def say(score: float) -> None:
        statuses.append(api.post(path, {"score": score}).status_code)

    threads = [threading.Thread(target=say, args=(number / 8,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses == [200] * 8
    assert count(Feedback) == 1
    with db.reading() as session:
        told = session.scalars(sa.select(Event).where(Event.type.like("execution.feedback%")).order_by(Event.id)).all()
    assert [event.type for event in told] == ["execution.feedback_given"] + ["execution.feedback_changed"] * 7
    assert [event.data["from"] for event in told[1:]] == [event.data["to"] for event in told[:-1]]


def test_an_execution_is_not_pruned_from_under_the_feedback_that_is_being_given(
    api: Api, path: str, prunable: None
) -> None:
    """It was a 500: the row was gone between the look at the execution and the insert."""
    pruned: list[int] = []

    def prune_now(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if "INSERT INTO feedback" in statement and not pruned and connection.dialect.name == "postgresql":
            with db.transaction() as session:  # on SQLite nobody else could write now
                pruned.append(retention.prune_executions(session))

    sa.event.listen(db.engine(), "before_cursor_execute", prune_now)
    try:
        answer = api.post(path, {"score": 1})
    finally:
        sa.event.remove(db.engine(), "before_cursor_execute", prune_now)

    assert answer.status_code == 200
    assert pruned in ([], [0])
    assert bool(pruned) == (db.engine().dialect.name == "postgresql")


def test_feedback_goes_with_the_execution_that_is_pruned(api: Api, path: str, prunable: None) -> None:
    api.expect(200, "POST", path, {"score": 1})

    with db.transaction() as session:
        pruned = retention.prune_executions(session)

    assert (pruned, count(Feedback)) == (1, 0)
