"""PUT /v1/prompts/{name}: create, add a version, or find that there is nothing to do."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from shared import db
from shared.errors import DatabaseBusy
from shared.models import Event, Label, Prompt, Version
from tests.rows import count, event_data
from tests.servers import wait_until
from tests.support import API_KEY, MODEL, Api, make_prompt, pointers, waits_for_a_lock

SYSTEM = {"role": "system", "content": "Be {{ tone }}."}
USER = {"role": "user", "content": "Hello {{ name }}."}
BAD_TEMPLATES = [
    "{{ range(10) }}",
    "{{ name.upper() }}",
    "{% include 'secrets' %}",
    "{{ 9**9**9 }}",
    "{{ name|shout }}",
    "{% if name %}never closed",
    "{{ name",
    "",
    " \n\t",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ _name }}",
    "{% for a in b %}" * 4 + "{% endfor %}" * 4,
    "{% if a %}" * 200 + "{% endif %}" * 200,
    "{{ " + "9" * 5_000 + " }}",
    "{{ " + "(" * 3_000 + "a" + ")" * 3_000 + " }}",
    "{{ '\\x00' }}",
    "{{ '\\ud800' }}",
    "x" * 200_001,
]


def put(
    api: Api, source: str | None = "Hello {{ name }}.", *, name: str = "greeter", **fields: Any
) -> tuple[int, bool]:
    """(version number, whether it was made)"""
    content = {} if source is None else {"template_source": source}
    answer = api.expect(200, "PUT", f"/v1/prompts/{name}", {**content, **fields})
    return answer["version"]["version_number"], answer["version_change"]


def active(api: Api) -> int | None:
    version = api.expect(200, "GET", "/v1/prompts/greeter")["active_version"]
    return version and version["version_number"]


def assert_nothing_is_stored() -> None:
    assert (count(Prompt), count(Version), count(Label)) == (0, 0, 0)
    with db.reading() as session:
        assert session.scalars(sa.select(Event.type).where(Event.type.startswith("prompt."))).all() == []


def test_the_first_put_creates_the_prompt_with_version_1(api: Api) -> None:
    answer = api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": "Hello {{ name }}."})

    read = api.expect(200, "GET", "/v1/prompts/greeter")
    assert answer["version_change"] is True
    assert answer["version"]["version_number"] == 1
    assert answer["prompt"] == {"prompt_id": read["prompt_id"], "name": "greeter"}
    assert read["latest_version_number"] == 1


def test_the_same_content_again_changes_nothing(api: Api) -> None:
    first = api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": "Hello {{ name }}."})

    second = api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": "Hello {{ name }}."})

    assert second == {**first, "version_change": False}
    assert count(Version) == 1


def test_content_from_anywhere_in_the_history_returns_its_old_number(api: Api) -> None:
    made = [put(api, source) for source in ("one", "two", "three")]

    again = [put(api, source) for source in ("one", "two", "one", "three")]

    assert made == [(1, True), (2, True), (3, True)]
    assert again == [(1, False), (2, False), (1, False), (3, False)]
    assert put(api, "four") == (4, True)
    assert count(Version) == 4


@pytest.mark.parametrize("other", ["hello.", "Hello. ", " Hello.", "Hello.\n", "Hello.\t", "Hello\u00a0."])
def test_whitespace_and_case_count(api: Api, other: str) -> None:
    put(api, "Hello.")

    assert put(api, other) == (2, True)
    assert api.expect(200, "GET", "/v1/prompts/greeter/versions/2")["template_source"] == other


def test_chat_messages_are_content_and_their_order_and_roles_count(api: Api) -> None:
    contents: list[Any] = [[SYSTEM, USER], [USER, SYSTEM], [SYSTEM, {**USER, "role": "assistant"}], [SYSTEM, USER]]

    numbers = [put(api, None, messages=messages) for messages in contents]

    version = api.expect(200, "GET", "/v1/prompts/greeter/versions/1")
    assert numbers == [(1, True), (2, True), (3, True), (1, False)]
    assert version["messages"] == [SYSTEM, USER]
    assert version["template_source"] is None
    assert version["variables"] == ["name", "tone"]


def test_model_settings_are_part_of_the_content(api: Api) -> None:
    warm = {**MODEL, "params": {"temperature": 1, "max_new_tokens": 10}}

    numbers = [
        put(api),
        put(api, model=MODEL),
        put(api, model=warm),
        put(api, model={**warm, "model_name": "simulated-large"}),
        put(api, model={**MODEL, "params": {"max_new_tokens": 10, "temperature": 1.0}}),
        put(api, model={**MODEL, "params": {}}),
        put(api),
    ]

    versions = api.expect(200, "GET", "/v1/prompts/greeter/versions")["data"]
    assert numbers == [(1, True), (2, True), (3, True), (4, True), (3, False), (2, False), (1, False)]
    assert len({version["template_hash"] for version in versions}) == 1
    assert len({version["content_hash"] for version in versions}) == 4
    assert versions[2]["model"] == {**MODEL, "params": {"temperature": 1.0, "max_new_tokens": 10}}


def test_set_active_moves_production_and_a_put_without_it_leaves_it(api: Api) -> None:
    put(api, "one")
    never = active(api)
    put(api, "one", set_active=True)
    first = active(api)
    put(api, "two", set_active=False)
    unmoved = active(api)
    put(api, "two", set_active=True)

    assert (never, first, unmoved, active(api)) == (None, 1, 1, 2)


def test_a_put_of_old_content_with_set_active_moves_production_back(api: Api) -> None:
    put(api, "one", set_active=True)
    put(api, "two", set_active=True)

    assert put(api, "one", set_active=True) == (1, False)

    read = api.expect(200, "GET", "/v1/prompts/greeter")
    assert read["active_version"]["template_source"] == "one"
    assert read["latest_version_number"] == 2


def test_description_and_owner_are_stored_without_a_new_version(api: Api) -> None:
    put(api, description="old", owner_team="core", category="chat", tags=["a", "b"])

    number = put(api, description="new", owner_team="growth", tags=[])

    read = api.expect(200, "GET", "/v1/prompts/greeter")
    assert number == (1, False)
    assert (read["description"], read["owner_team"], read["category"], read["tags"]) == ("new", "growth", "chat", [])
    assert event_data("prompt.updated") == [{"description": "new", "owner_team": "growth", "tags": []}]


def test_who_made_a_version_and_why_is_recorded(api: Api) -> None:
    put(api, created_by="ada", message="first try")

    version = api.expect(200, "GET", "/v1/prompts/greeter/versions/1")
    assert (version["created_by"], version["message"]) == ("ada", "first try")


@pytest.mark.parametrize("source", BAD_TEMPLATES, ids=range(len(BAD_TEMPLATES)))
def test_a_bad_template_is_refused_where_it_stands_and_leaves_no_row(api: Api, source: str) -> None:
    answer = api.put("/v1/prompts/greeter", {"template_source": source, "set_active": True})

    assert answer.status_code == 422
    assert pointers(answer) == ["/template_source"]
    assert_nothing_is_stored()


def test_a_bad_template_in_a_message_is_refused_where_it_stands(api: Api) -> None:
    answer = api.put("/v1/prompts/greeter", {"messages": [SYSTEM, {"role": "user", "content": "{{ range(3) }}"}]})

    assert answer.status_code == 422
    assert answer.get_json()["code"] == "invalid_template"
    assert pointers(answer) == ["/messages/1/content"]
    assert_nothing_is_stored()


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, ["/template_source"]),
        ({"template_source": "a", "messages": [USER]}, ["/template_source"]),
        ({"template_source": None}, ["/template_source"]),
        ({"messages": []}, ["/messages"]),
        ({"messages": [{"role": "tool", "content": "a"}]}, ["/messages/0/role"]),
        ({"messages": [{"role": "user"}]}, ["/messages/0/content"]),
        ({"messages": [{**USER, "name": "a"}]}, ["/messages/0/name"]),
        ({"template_source": "a", "name": "greeter"}, ["/name"]),
        ({"template_source": "a", "set_active": "true"}, ["/set_active"]),
        ({"template_source": "a", "set_active": 1}, ["/set_active"]),
        ({"template_source": "a", "set_active": []}, ["/set_active"]),
        ({"template_source": "a", "tags": ["ok", 5]}, ["/tags/1"]),
        ({"template_source": "a", "model": {"provider": "acme", "model_name": "m"}}, ["/model/provider"]),
        ({"template_source": "a", "model": {"provider": "simulated"}}, ["/model/model_name"]),
    ],
)
def test_a_body_that_makes_no_sense_is_refused_where_it_does_not(api: Api, body: Any, named: list[str]) -> None:
    answer = api.put("/v1/prompts/greeter", body)

    assert answer.status_code == 422
    assert pointers(answer) == named
    assert_nothing_is_stored()


@pytest.mark.parametrize(
    ("model", "params", "refused"),
    [
        (MODEL, {"temperature": 0.5, "top_k": 5, "repetition_penalty": 1.5}, ["top_k", "repetition_penalty"]),
        (MODEL, {"top_p": 0.5}, ["top_p"]),
        ({"provider": "openai", "model_name": "gpt-5"}, {"temperature": 0.5, "seed": 1}, ["temperature"]),
        ({"provider": "openai", "model_name": "a-new-one"}, {"top_k": 5}, ["top_k"]),
    ],
)
def test_a_setting_that_the_model_does_not_take_is_refused_by_name(
    api: Api, model: Any, params: Any, refused: list[str]
) -> None:
    answer = api.put("/v1/prompts/greeter", {"template_source": "a", "model": {**model, "params": params}})

    assert answer.status_code == 422
    assert pointers(answer) == [f"/model/params/{name}" for name in refused]
    assert all(name in answer.get_json()["detail"] for name in refused)
    assert_nothing_is_stored()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 2.1),
        ("temperature", "0.5"),
        ("temperature", True),
        ("max_new_tokens", 0),
        ("max_new_tokens", 5.0),
        ("max_new_tokens", "5"),
        ("max_new_tokens", True),
        ("seed", 2**31),
        ("stop", []),
        ("stop", "a"),
        ("temprature", 1),
    ],
)
def test_a_setting_out_of_range_or_of_another_type_is_refused_by_name(api: Api, name: str, value: Any) -> None:
    answer = api.put("/v1/prompts/greeter", {"template_source": "a", "model": {**MODEL, "params": {name: value}}})

    assert answer.status_code == 422
    assert pointers(answer) == [f"/model/params/{name}"]


@pytest.mark.parametrize("name", ["versions", "123e4567-e89b-12d3-a456-426614174000", "a%20b", "x" * 129])
def test_a_bad_name_is_refused_with_an_idempotency_key_and_without(api: Api, name: str) -> None:
    for headers in ({}, {"Idempotency-Key": "a-key"}):
        answer = api.put(f"/v1/prompts/{name}", {"template_source": "a"}, headers=headers)

        assert answer.status_code == 422
        assert pointers(answer) == ["/name"]
    assert_nothing_is_stored()


def put_at_once(client: FlaskClient, bodies: list[Any]) -> list[Any]:
    """Every body put at the same moment, each by a client of its own; the answers in that order."""
    start = threading.Barrier(len(bodies))

    def one(body: Any) -> Any:
        api = Api(client.application.test_client(), API_KEY)
        start.wait(timeout=30)
        return api.expect(200, "PUT", "/v1/prompts/greeter", body)

    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(one, bodies))


def test_32_different_puts_at_once_make_versions_1_to_32(api: Api, flask_client: FlaskClient) -> None:
    sources = [f"text {number}" for number in range(32)]

    answers = put_at_once(flask_client, [{"template_source": source, "set_active": True} for source in sources])

    stored = api.expect(200, "GET", "/v1/prompts/greeter/versions")["data"]
    by_number = {answer["version"]["version_number"]: source for answer, source in zip(answers, sources, strict=True)}
    assert [version["version_number"] for version in stored] == list(range(1, 33))
    assert {version["version_number"]: version["template_source"] for version in stored} == by_number
    assert all(answer["version_change"] for answer in answers)
    assert (count(Prompt), len(event_data("prompt.created"))) == (1, 1)
    moves = event_data("prompt.label_moved")
    assert [move["from"] for move in moves] == [None, *(move["to"] for move in moves[:-1])]
    assert active(api) == moves[-1]["to"]


def test_32_equal_puts_at_once_make_one_version(api: Api, flask_client: FlaskClient) -> None:
    answers = put_at_once(flask_client, [{"template_source": "Hello", "set_active": True}] * 32)

    assert sorted(answer["version_change"] for answer in answers) == [False] * 31 + [True]
    assert {answer["version"]["version_number"] for answer in answers} == {1}
    assert (count(Version), len(event_data("prompt.label_moved"))) == (1, 1)


def test_a_put_holds_nothing_while_it_waits_for_the_name_of_a_new_row(api: Api) -> None:
    """Else it waits for who inserts that name, who waits for another name, whose owner waits for what it holds."""
    make_prompt(api)
    deleting, held = threading.Event(), []

    def look(connection: sa.Connection, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.startswith("INSERT INTO prompts ") and connection.dialect.name == "postgresql":
            held.append(cursor.connection.execute("SELECT pg_current_xact_id_if_assigned()").fetchone()[0])

    def delete() -> None:
        with db.transaction() as session:
            session.execute(sa.update(Prompt).values(deleted_at=db.db_now()))
            deleting.set()
            wait_until(waits_for_a_lock, "the PUT waits")

    with ThreadPoolExecutor(1) as pool:
        deleted = pool.submit(delete)
        assert deleting.wait(timeout=30)
        sa.event.listen(db.engine(), "before_cursor_execute", look)
        first = api.request("PUT", "/v1/prompts/greeter", {"template_source": "again"}).status_code
        second = api.request("PUT", "/v1/prompts/greeter", {"template_source": "again"}).status_code
        sa.event.remove(db.engine(), "before_cursor_execute", look)
        deleted.result()

    assert first in (200, 409)  # SQLite's only writer waited before it looked, and PostgreSQL's after it had
    assert second == 200
    assert held in ([], [None])


def test_transactions_that_wait_for_each_other_are_busy_and_not_out_of_reach(api: Api) -> None:
    for name in ("first", "second"):
        make_prompt(api, name)
    both = threading.Barrier(2)

    def change(*names: str) -> str:
        try:
            with db.transaction() as session:
                for name in names:
                    session.execute(sa.update(Prompt).where(Prompt.name == name).values(description=names[0]))
                    if name == names[0] and db.is_postgres(session):  # on SQLite the second has not begun
                        both.wait(timeout=30)
        except DatabaseBusy:
            return "busy"
        return "done"

    with ThreadPoolExecutor(2) as pool:
        outcomes = sorted(pool.map(lambda names: change(*names), [("first", "second"), ("second", "first")]))

    with db.reading() as session:
        assert outcomes == (["busy", "done"] if db.is_postgres(session) else ["done", "done"])


def test_an_editor_of_another_workspace_puts_a_prompt_of_his_own(api: Api, as_user: Callable[..., Api]) -> None:
    put(api, "mine", set_active=True)
    stranger = as_user(workspace="elsewhere")

    assert put(stranger, "his") == (1, True)

    assert api.expect(200, "GET", "/v1/prompts/greeter")["active_version"]["template_source"] == "mine"
    assert active(stranger) is None
