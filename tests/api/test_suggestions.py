"""GET /v1/prompts/{name}/suggestions and POST /v1/suggestions."""

from collections.abc import Callable
from typing import Any

import pytest

from shared.models import Role
from tests.rows import everything
from tests.support import MODEL, Api, make_prompt, pointers


def rules_of(answer: Any) -> list[str]:
    return [one["rule"] for one in answer["suggestions"]]


def test_the_newest_version_is_looked_at_unless_another_is_named(api: Api) -> None:
    make_prompt(api, template="TODO: reply with one word")
    make_prompt(api, template="Reply with one word.", set_active=False)

    newest = api.expect(200, "GET", "/v1/prompts/greeter/suggestions")
    first = api.expect(200, "GET", "/v1/prompts/greeter/suggestions?version=1")
    active = api.expect(200, "GET", "/v1/prompts/greeter/suggestions?version=production")

    assert (newest["version_number"], newest["suggestions"]) == (2, [])
    assert (first["version_number"], rules_of(first)) == (1, ["placeholder_leftover"])
    assert first == active
    assert first["suggestions"][0]["where"] == {"pointer": "/template_source", "line": 1}
    assert first["counts"] == {"error": 1, "warning": 0, "info": 0}


def test_a_version_that_is_not_there_is_a_404_and_one_that_could_not_be_a_422(api: Api) -> None:
    make_prompt(api)

    assert api.get("/v1/prompts/greeter/suggestions?version=9").status_code == 404
    assert api.get("/v1/prompts/greeter/suggestions?version=nope").status_code == 404
    assert pointers(api.get("/v1/prompts/greeter/suggestions?version=v0")) == ["?version"]
    assert pointers(api.get("/v1/prompts/greeter/suggestions?version=No%20Label")) == ["?version"]


def test_a_draft_is_looked_at_and_not_stored(api: Api) -> None:
    before = everything()
    body = {"template_source": "Reply with JSON about\n{{ topic }}", "variables": ["other"]}

    answer = api.expect(200, "POST", "/v1/suggestions", body)

    assert rules_of(answer) == ["undeclared_variable", "unused_variable", "json_without_schema"]
    assert everything() == before
    with_schema = api.expect(200, "POST", "/v1/suggestions", {**body, "response_schema": {"type": "object"}})
    assert "json_without_schema" not in rules_of(with_schema)


def test_a_draft_is_measured_against_its_model(api: Api) -> None:
    text = "Reply with one word. " + "word " * 30_000

    def of(model_name: str) -> Any:
        body = {"template_source": text, "model": {"provider": "openai", "model_name": model_name}}
        return api.expect(200, "POST", "/v1/suggestions", body)

    assert [one["severity"] for one in of("gpt-3.5-turbo")["suggestions"]] == ["error"]
    assert of("gpt-4.1")["suggestions"] == []


def test_a_chat_message_is_named_by_its_pointer(api: Api) -> None:
    messages = [{"role": "system", "content": "Reply with one word."}, {"role": "user", "content": "TODO"}]

    answer = api.expect(200, "POST", "/v1/suggestions", {"messages": messages, "model": MODEL})

    assert [one["where"]["pointer"] for one in answer["suggestions"]] == ["/messages/1/content"]


def test_a_viewer_may_have_a_draft_looked_at(as_user: Callable[..., Api]) -> None:
    viewer = as_user(role=Role.VIEWER)

    answer = viewer.expect(200, "POST", "/v1/suggestions", {"template_source": "TODO"})

    assert "placeholder_leftover" in [one["rule"] for one in answer["suggestions"]]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/template_source"),
        ({"template_source": "a", "messages": [{"role": "user", "content": "a"}]}, "/template_source"),
        ({"template_source": "{{ a"}, "/template_source"),
        ({"template_source": "a", "variables": [1]}, "/variables/0"),
        ({"template_source": "a", "nonsense": 1}, "/nonsense"),
    ],
)
def test_a_draft_that_could_not_be_stored_is_a_422_that_names_the_field(api: Api, body: Any, pointer: str) -> None:
    answer = api.post("/v1/suggestions", body)

    assert (answer.status_code, pointers(answer)) == (422, [pointer])
