"""POST /v1/prompts/register-code: the prompts that a program carries, all of them or none."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from shared import db
from shared.hashing import sha256
from shared.models import Label, Prompt, Role, Version
from tests.rows import count, event_data, everything
from tests.support import API_KEY, MODEL, Api, make_prompt, pointers

PATH = "/v1/prompts/register-code"


def code(name: str = "WELCOME", source: str = "Hello {{ name }}!", **fields: Any) -> dict[str, Any]:
    return {"name": name, "template_source": source, **fields}


def register(api: Api, *prompts: dict[str, Any], **fields: Any) -> list[Any]:
    return list(api.expect(200, "POST", PATH, {"prompts": list(prompts), **fields})["registered"])


def outcome(registered: Any) -> tuple[int, bool, int | None]:
    return registered["version"], registered["change_detected"], registered["previous_version"]


def register_source(api: Api, source: str) -> tuple[int, bool, int | None]:
    return outcome(register(api, code(source=source))[0])


def current(api: Api, name: str = "WELCOME") -> Any:
    return api.expect(200, "GET", f"/v1/prompts/{name}")["active_version"]


@contextmanager
def counted() -> Iterator[list[str]]:
    sent: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool) -> None:
        sent.append(statement)

    engine = db.engine()
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


def test_a_first_registration_is_a_change_and_is_current_at_once(api: Api) -> None:
    """The origin said that nothing had changed, and moved no pointer."""
    (registered,) = register(api, code(template_hash=sha256("Hello {{ name }}!")))

    version = current(api)
    assert registered == {
        "name": "WELCOME",
        "mode": "tracking",
        "version": 1,
        "version_id": version["version_id"],
        "change_detected": True,
        "previous_version": None,
    }
    assert (version["template_source"], version["variables"]) == ("Hello {{ name }}!", ["name"])
    assert api.expect(200, "GET", "/v1/prompts/WELCOME")["mode"] == "tracking"


def test_the_same_code_again_writes_nothing(api: Api) -> None:
    register(api, code(description="greets", tags=["a"]), code("BYE", "Bye"))
    before = everything()

    again = register(api, code("BYE", "Bye"), code(description="greets", tags=["a"]))

    assert [outcome(item) for item in again] == [(1, False, None), (1, False, None)]
    assert [item["name"] for item in again] == ["BYE", "WELCOME"]
    assert everything() == before


@pytest.mark.parametrize("changed", ["Hello {{ name }}! ", "hello {{ name }}!", "Hello {{ user }}!"])
def test_whitespace_case_and_variable_names_make_a_version(api: Api, changed: str) -> None:
    register(api, code())

    (registered,) = register(api, code(source=changed))

    assert outcome(registered) == (2, True, 1)
    assert current(api)["template_source"] == changed


def test_older_code_registered_again_is_current_again(api: Api) -> None:
    """The origin answered with the old version and left the newer one active."""
    outcomes = [register_source(api, source) for source in ("one", "two", "one")]

    assert outcomes == [(1, True, None), (2, True, 1), (1, True, 2)]
    assert current(api)["version_number"] == 1
    assert count(Version) == 2
    assert event_data("prompt.label_moved") == [
        {"label": "production", "from": None, "to": 1},
        {"label": "production", "from": 1, "to": 2},
        {"label": "production", "from": 2, "to": 1},
    ]


def test_a_label_that_was_moved_by_hand_goes_back_to_what_the_code_says(api: Api) -> None:
    for source in ("one", "two"):
        register(api, code(source=source))
    api.expect(200, "PUT", "/v1/prompts/WELCOME/labels/production", {"version_number": 1})

    (registered,) = register(api, code(source="two"))

    assert outcome(registered) == (2, True, 1)
    assert current(api)["version_number"] == 2


def test_only_production_moves_and_only_of_the_prompts_that_changed(api: Api) -> None:
    register(api, code(), code("BYE", "Bye"), code("THANKS", "Thanks"))
    api.expect(200, "PUT", "/v1/prompts/WELCOME/labels/staging", {"version_number": 1})

    register(api, code(source="Hi"), code("BYE", "Bye bye"), code("THANKS", "Thanks"))

    labels = api.expect(200, "GET", "/v1/prompts/WELCOME/labels")["data"]
    assert {label["label"]: label["version_number"] for label in labels} == {"production": 2, "staging": 1}
    assert [current(api, name)["template_source"] for name in ("WELCOME", "BYE", "THANKS")] == [
        "Hi",
        "Bye bye",
        "Thanks",
    ]


def test_each_change_is_one_event_of_its_kind(api: Api) -> None:
    register(api, code(description="old"), code("BYE", "Bye"))

    register(api, code(source="Hi", description="new"), code("BYE", "Bye"))

    assert [event["name"] for event in event_data("prompt.created")] == ["BYE", "WELCOME"]
    assert [event["version_number"] for event in event_data("prompt.version_created")] == [1, 1, 2]
    assert event_data("prompt.updated") == [{"description": "new"}]
    assert len(event_data("prompt.label_moved")) == 3


def test_chat_messages_model_settings_and_what_describes_them_are_kept(api: Api) -> None:
    messages = [{"role": "system", "content": "Be {{ tone }}."}, {"role": "user", "content": "Hello"}]
    fields = {"description": "greets", "category": "chat", "tags": ["a", "b"], "owner_team": "core"}
    sent = {"name": "WELCOME", "messages": messages, "model": MODEL, "message": "release 7", **fields}

    register(api, sent, created_by="deploy-bot")

    prompt = api.expect(200, "GET", "/v1/prompts/WELCOME")
    version = prompt["active_version"]
    assert {name: prompt[name] for name in fields} == fields
    assert (version["messages"], version["model"]) == (messages, {**MODEL, "params": {}})
    assert (version["message"], version["created_by"]) == ("release 7", "deploy-bot")


def test_what_is_not_sent_again_stays_as_it_was(api: Api) -> None:
    register(api, code(description="greets", tags=["a"], owner_team="core"))

    register(api, code(source="Hi", tags=["b"]))

    prompt = api.expect(200, "GET", "/v1/prompts/WELCOME")
    assert (prompt["description"], prompt["tags"], prompt["owner_team"]) == ("greets", ["b"], "core")


def test_a_wrong_hash_is_named_and_nothing_of_the_batch_is_stored(api: Api) -> None:
    """The origin never looked at the hash, and stored the prompts before the one that failed."""
    before = everything()
    batch = [code(f"P{number}", f"text {number}", template_hash=sha256(f"text {number}")) for number in range(5)]
    batch[3]["template_hash"] = sha256("text 3 ")

    answer = api.post(PATH, {"prompts": batch})

    assert (answer.status_code, pointers(answer)) == (422, ["/prompts/3/template_hash"])
    assert sha256("text 3") in answer.get_json()["detail"]
    assert everything() == before


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"name": "versions"}, "/prompts/1/name"),
        ({"name": "a b"}, "/prompts/1/name"),
        ({"name": "WELCOME"}, "/prompts/1/name"),
        ({"template_source": "{{ range(3) }}"}, "/prompts/1/template_source"),
        ({"template_source": " "}, "/prompts/1/template_source"),
        ({"messages": [{"role": "user", "content": "Hi"}]}, "/prompts/1/template_source"),
        ({"template_source": None}, "/prompts/1/template_source"),
        ({"template_hash": ""}, "/prompts/1/template_hash"),
        ({"tags": ["x" * 65]}, "/prompts/1/tags/0"),
        ({"model": {**MODEL, "params": {"top_k": 3}}}, "/prompts/1/model/params/top_k"),
        ({"set_active": True}, "/prompts/1/set_active"),
    ],
)
def test_a_wrong_field_is_named_where_it_stands_and_nothing_is_stored(
    api: Api, wrong: dict[str, Any], named: str
) -> None:
    before = everything()

    answer = api.post(PATH, {"prompts": [code(), {**code("BYE", "Bye"), **wrong}]})

    assert (answer.status_code, pointers(answer)) == (422, [named])
    assert everything() == before


def test_every_wrong_prompt_of_a_batch_is_named_at_once(api: Api) -> None:
    batch = [code("versions"), code("B", "{{ x("), code("C", template_hash="0" * 64), code("D"), code("D", "other")]

    answer = api.post(PATH, {"prompts": batch})

    assert answer.status_code == 422
    assert sorted(pointers(answer)) == [
        "/prompts/0/name",
        "/prompts/1/template_source",
        "/prompts/2/template_hash",
        "/prompts/4/name",
    ]


@pytest.mark.parametrize("prompts", [[], [code(f"P{number}") for number in range(501)], None, "x"])
def test_a_batch_has_1_to_500_prompts(api: Api, prompts: Any) -> None:
    answer = api.post(PATH, {"prompts": prompts})

    assert (answer.status_code, pointers(answer)) == (422, ["/prompts"])
    assert count(Prompt) == 0


def test_a_prompt_in_full_mode_is_refused_with_the_way_out_and_nothing_is_stored(api: Api) -> None:
    """The origin added versions to it."""
    make_prompt(api, "greeter")
    before = everything()

    answer = api.post(PATH, {"prompts": [code(), code("greeter", "from code")]})

    assert (answer.status_code, answer.get_json()["code"]) == (409, "conflict")
    assert pointers(answer) == ["/prompts/1/name"]
    assert "PUT /v1/prompts/greeter" in answer.get_json()["detail"]
    assert "POST /v1/prompts/greeter/mode" in answer.get_json()["detail"]
    assert everything() == before


def test_a_protected_production_is_not_moved_and_nothing_is_stored(api: Api) -> None:
    register(api, code(), code("BYE", "Bye"))
    for name in ("WELCOME", "BYE"):
        api.expect(200, "PUT", f"/v1/prompts/{name}/labels/production/protection", {"approvals": 1})
    before = everything()

    answer = api.post(PATH, {"prompts": [code("FRESH"), code(source="changed")]})

    assert (answer.status_code, pointers(answer)) == (409, ["/prompts/1/name"])
    assert everything() == before
    assert [outcome(item) for item in register(api, code(), code("BYE", "Bye"))] == [(1, False, None)] * 2


def test_a_repeated_request_with_a_key_answers_as_the_first_did(api: Api) -> None:
    key = {"Idempotency-Key": "deploy-7"}
    first = api.post(PATH, {"prompts": [code()]}, headers=key)
    register(api, code(source="changed"))

    second = api.post(PATH, {"prompts": [code()]}, headers=key)

    assert second.headers["Idempotent-Replayed"] == "true"
    assert second.get_json() == first.get_json()
    assert current(api)["template_source"] == "changed"


def test_code_is_registered_in_the_project_that_the_body_names(api: Api) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    register(api, code(source="of default"))

    (registered,) = register(api, code(source="of atlas"), project="atlas")

    assert outcome(registered) == (1, True, None)
    assert current(api, "WELCOME?project=atlas")["template_source"] == "of atlas"
    assert current(api)["template_source"] == "of default"
    assert pointers(api.post(PATH, {"prompts": [code()], "project": "nowhere"})) == ["/project"]


def test_another_workspace_registers_the_same_names_for_itself(api: Api, as_user: Callable[..., Api]) -> None:
    register(api, code(source="mine"))
    stranger = as_user(workspace="elsewhere")

    (registered,) = register(stranger, code(source="his"))

    assert outcome(registered) == (1, True, None)
    assert current(api)["template_source"] == "mine"


def test_a_viewer_registers_nothing(api: Api, as_user: Callable[..., Api]) -> None:
    before = everything()

    viewer = as_user(role=Role.VIEWER)

    assert viewer.post(PATH, {"prompts": [code("versions")]}).status_code == 403
    assert everything().keys() == before.keys()
    assert count(Prompt) == 0


@pytest.mark.parametrize("change", ["", " changed", "first"])
def test_the_number_of_statements_does_not_depend_on_the_number_of_prompts(api: Api, change: str) -> None:
    """Unchanged, all changed, and all new."""
    sent = []
    for size, prefix in ((2, "a"), (100, "b")):
        batch = [code(f"{prefix}{number}", f"text {number}", description="old") for number in range(size)]
        if change != "first":
            register(api, *batch)
            batch = [{**item, "template_source": item["template_source"] + change} for item in batch]
        with counted() as statements:
            register(api, *batch)
        # COPY goes past the listener, and what it asks first is two statements a table.
        sent.append([line for line in statements if "nextval" not in line])

    few, many = map(len, sent)
    assert many <= few + 4, sent[1]
    assert many < 35
    assert count(Prompt) == 102


def test_two_that_register_the_same_code_at_once_in_other_orders_make_one_version_each(
    api: Api, flask_client: FlaskClient
) -> None:
    names = [f"P{number:02}" for number in range(40)]
    orders = [names, names[::-1], names[20:] + names[:20], names[1::2] + names[::2]]
    for generation in range(3):
        start = threading.Barrier(len(orders))
        batches = [[code(name, f"{name} {generation}") for name in order] for order in orders]

        def one(batch: list[Any], start: threading.Barrier = start) -> list[Any]:
            client = Api(flask_client.application.test_client(), API_KEY)
            start.wait(timeout=30)
            return register(client, *batch)

        with ThreadPoolExecutor(len(orders)) as pool:
            answers = list(pool.map(one, batches))

        for answer, order in zip(answers, orders, strict=True):
            assert [item["name"] for item in answer] == order
            assert {item["version"] for item in answer} == {generation + 1}
        changed = [{item["name"] for item in answer if item["change_detected"]} for answer in answers]
        assert sorted(map(len, changed)) == [0, 0, 0, 40]
    assert (count(Prompt), count(Version), count(Label)) == (40, 120, 40)
    assert len(event_data("prompt.label_moved")) == 120


def test_registering_and_running_and_labelling_at_once_never_wait_in_a_circle(
    api: Api, flask_client: FlaskClient
) -> None:
    """A label that is made refers to its prompt, whose row the registration has locked."""
    register(api, *[code(f"P{number}", "text", model=MODEL) for number in range(8)])
    with db.transaction() as session:
        session.execute(sa.delete(Label))
    start = threading.Barrier(9)

    def label(number: int) -> int:
        client = Api(flask_client.application.test_client(), API_KEY)
        start.wait(timeout=30)
        return client.put(f"/v1/prompts/P{number}/labels/production", {"version_number": 1}).status_code

    def again() -> int:
        client = Api(flask_client.application.test_client(), API_KEY)
        start.wait(timeout=30)
        batch = [code(f"P{number}", "changed", model=MODEL) for number in range(8)]
        return client.post(PATH, {"prompts": batch}).status_code

    with ThreadPoolExecutor(9) as pool:
        registration = pool.submit(again)
        labels = list(pool.map(label, range(8)))

    # Whoever came first, a registration that is refused has stored nothing and may be sent again.
    assert set(labels) == {200}
    assert registration.result() in (200, 409)
    assert count(Version) == (16 if registration.result() == 200 else 8)
