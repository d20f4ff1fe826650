"""PUT /v1/prompts/{name} with placeholders, tools and schemas: kept, shown, checked before a run, sent with it."""

from typing import Any

import pytest

from shared.models import Execution, Version
from tests.rows import count, everything
from tests.support import MODEL, Api, Drain, evaluation_body, make_triage, pointers, run_body

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}
ANSWER = {"type": "object", "properties": {"category": {"type": "string"}}}
NAMES = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "minLength": 2}}}
CHAT = [
    {"role": "system", "content": "Be kind."},
    {"type": "placeholder", "name": "history", "optional": True},
    {"role": "user", "content": "Say hello to {{ name }}."},
]
FULL = {"messages": CHAT, "tools": [WEATHER], "response_schema": ANSWER, "variables_schema": NAMES}


@pytest.fixture
def greeter(api: Api) -> str:
    api.expect(200, "PUT", "/v1/prompts/greeter", {**FULL, "set_active": True})
    return "/v1/prompts/greeter"


def test_a_version_shows_all_that_it_says(api: Api, greeter: str) -> None:
    version = api.expect(200, "GET", f"{greeter}/versions/1")

    assert {name: version[name] for name in FULL} == FULL
    assert version["variables"] == ["history", "name"]


def test_a_version_without_tools_and_schemas_shows_that_it_has_none(api: Api) -> None:
    api.expect(200, "PUT", "/v1/prompts/plain", {"template_source": "Hello"})

    version = api.expect(200, "GET", "/v1/prompts/plain/versions/1")

    assert [version[name] for name in ("tools", "response_schema", "variables_schema")] == [None] * 3


def test_each_change_beside_the_text_makes_a_version_and_going_back_makes_none(api: Api, greeter: str) -> None:
    bodies = [
        {**FULL, "tools": [{**WEATHER, "function": {**WEATHER["function"], "description": "of a town"}}]},
        {**FULL, "response_schema": {**ANSWER, "title": "x"}},
        {**FULL, "variables_schema": {**NAMES, "title": "x"}},
        {**FULL, "messages": [CHAT[0], {"type": "placeholder", "name": "history"}, CHAT[2]]},
        FULL,
    ]

    answers = [api.expect(200, "PUT", greeter, body) for body in bodies]

    assert [answer["version"]["version_number"] for answer in answers] == [2, 3, 4, 5, 1]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"messages": [{"type": "text", "name": "a"}]}, ["/messages/0/type"]),
        ({"messages": [{"type": "placeholder"}]}, ["/messages/0/name"]),
        ({"messages": [{"type": "placeholder", "name": "a", "optional": "no"}]}, ["/messages/0/optional"]),
        ({"template_source": "a", "tools": ["a"]}, ["/tools/0"]),
        ({"template_source": "a", "tools": [{"type": "function"}]}, ["/tools/0/function"]),
        ({"template_source": "a", "response_schema": []}, ["/response_schema"]),
        ({"template_source": "a", "response_schema": {"type": "x"}}, ["/response_schema/type"]),
        (
            {"template_source": "a", "variables_schema": {"items": {"pattern": "a"}}},
            ["/variables_schema/items/pattern"],
        ),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_stands_and_leaves_no_row(
    api: Api, body: Any, named: list[str]
) -> None:
    before = everything()

    answer = api.put("/v1/prompts/greeter", body)

    assert (answer.status_code, pointers(answer)) == (422, named)
    assert everything() == before


@pytest.mark.parametrize("variables", [{"name": "A"}, {"name": 5}, {"name": None}, {}])
@pytest.mark.parametrize("path", ["/v1/executions:run", "/v1/executions:submit"])
def test_a_variable_that_does_not_fit_is_named_before_anything_is_queued(
    api: Api, greeter: str, path: str, variables: Any
) -> None:
    before = everything()

    answer = api.post(path, run_body(variables=variables))

    assert (answer.status_code, pointers(answer)) == (422, ["/variables/name"])
    assert answer.get_json()["code"] == "render_failed"
    assert everything() == before


def test_an_item_of_a_batch_that_does_not_fit_has_its_error_and_stops_no_other(api: Api, greeter: str) -> None:
    items = [{"variables": {"name": name}} for name in ("Ada", "B", "Carl")]

    answer = api.expect(202, "POST", "/v1/executions:batch", run_body(items=items))

    (error,) = [result["error"] for result in answer["results"] if "error" in result]
    assert [error["pointer"] for error in error["errors"]] == ["/items/1/variables/name"]
    assert (answer["accepted"], count(Execution)) == (2, 2)


def test_an_evaluation_of_cases_that_do_not_fit_is_refused_before_it_is_queued(api: Api) -> None:
    make_triage(api, cases=3)
    schema = {"properties": {"ticket": {"type": "integer"}}}
    body = {"template_source": "{{ ticket }}", "variables_schema": schema, "model": MODEL, "set_active": True}
    api.expect(200, "PUT", "/v1/prompts/triage", body)
    before = everything()

    answer = api.post("/v1/evaluations", evaluation_body())

    assert (answer.status_code, pointers(answer)) == (422, ["/dataset"])
    assert "/variables/ticket" in answer.get_json()["detail"]
    assert everything() == before


def test_an_execution_shows_the_history_the_tools_and_the_schema_that_were_sent(
    api: Api, drain: Drain, greeter: str
) -> None:
    history = [{"role": "user", "content": "Hi {{ there }}"}, {"role": "assistant", "content": "Hi."}]
    body = run_body(variables={"name": "Ada", "history": history})
    submitted = api.expect(202, "POST", "/v1/executions:submit", body)
    drain()

    execution = api.expect(200, "GET", f"/v1/executions/{submitted['execution_id']}")

    assert execution["status"] == "succeeded"
    assert execution["messages"] == [CHAT[0], *history, {"role": "user", "content": "Say hello to Ada."}]
    assert (execution["tools"], execution["response_schema"]) == ([WEATHER], ANSWER)


def test_a_message_that_was_stored_before_there_were_placeholders_is_the_same_version_still(api: Api) -> None:
    body = {"messages": [{"role": "user", "content": "Hello"}]}

    for version_change in (True, False):
        assert api.expect(200, "PUT", "/v1/prompts/greeter", body)["version_change"] == version_change
    assert count(Version) == 1
