"""POST /v1/prompts/{name}/render and /v1/render: what would be sent, and nothing stored or executed."""

from collections.abc import Callable
from typing import Any

import pytest

from shared.hashing import hash_of
from shared.models import Role
from tests.rows import everything
from tests.support import MODEL, Api, make_prompt, pointers

TOOL = {"type": "function", "function": {"name": "look_up"}}


@pytest.fixture
def greeter(api: Api) -> str:
    """Two versions; production is at 1."""
    make_prompt(api, template="one {{ name }}", tools=[TOOL], response_schema={"type": "object"}, model=MODEL)
    api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": "two {{ name }}"})
    return "/v1/prompts/greeter"


def test_it_shows_what_a_run_would_send_and_stores_nothing(api: Api, greeter: str) -> None:
    version = api.expect(200, "GET", f"{greeter}/versions/1")
    before = everything()

    rendered = api.expect(200, "POST", f"{greeter}/render", {"variables": {"name": "Ada"}})

    messages = [{"role": "user", "content": "one Ada"}]
    assert rendered == {
        "prompt_id": api.expect(200, "GET", greeter)["prompt_id"],
        "prompt_name": "greeter",
        **{name: version[name] for name in ("version_id", "version_number", "template_hash", "content_hash", "model")},
        "variables": ["name"],
        "messages": messages,
        "tools": [TOOL],
        "response_schema": {"type": "object"},
        "rendered_hash": hash_of(messages),
    }
    assert everything() == before


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({}, "one Ada"),
        ({"version_number": 2}, "two Ada"),
        ({"label": "production"}, "one Ada"),
        ({"label": "latest"}, "two Ada"),
        ({"version_number": None, "label": None}, "one Ada"),
    ],
)
def test_the_version_is_chosen_as_for_a_run(api: Api, greeter: str, choice: Any, text: str) -> None:
    rendered = api.expect(200, "POST", f"{greeter}/render", {**choice, "variables": {"name": "Ada"}})

    assert rendered["messages"][0]["content"] == text


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({}, 422, ["/variables/name"]),
        ({"variables": {"name": "Ada"}, "version_number": 1, "label": "latest"}, 422, ["/version_number"]),
        ({"version_number": 3}, 404, ["/version_number"]),
        ({"label": "nobody"}, 404, ["/label"]),
        ({"variables": []}, 422, ["/variables"]),
        ({"template_source": "a"}, 422, ["/template_source"]),
    ],
)
def test_what_cannot_be_rendered_is_refused_where_it_stands(
    api: Api, greeter: str, body: Any, status: int, named: list[str]
) -> None:
    answer = api.post(f"{greeter}/render", body)

    assert (answer.status_code, pointers(answer)) == (status, named)


def test_a_viewer_may_render_and_nobody_of_another_workspace_may(
    api: Api, as_user: Callable[..., Api], greeter: str
) -> None:
    body = {"variables": {"name": "Ada"}}

    as_user(role=Role.VIEWER).expect(200, "POST", f"{greeter}/render", body)
    answer = as_user(workspace="elsewhere", role=Role.ADMIN).post(f"{greeter}/render", body)

    assert answer.status_code == 404


def test_a_draft_is_rendered_without_being_stored(api: Api, as_user: Callable[..., Api]) -> None:
    viewer = as_user(role=Role.VIEWER)
    draft = {
        "messages": [{"type": "placeholder", "name": "history"}, {"role": "user", "content": "Hello {{ name }}"}],
        "tools": [TOOL],
        "model": MODEL,
    }
    before = everything()

    rendered = viewer.expect(200, "POST", "/v1/render", {**draft, "variables": {"name": "Ada", "history": []}})

    stored = api.expect(200, "PUT", "/v1/prompts/greeter", draft)["version"]["version_number"]
    version = api.expect(200, "GET", f"/v1/prompts/greeter/versions/{stored}")
    assert rendered["messages"] == [{"role": "user", "content": "Hello Ada"}]
    assert (rendered["tools"], rendered["response_schema"]) == ([TOOL], None)
    assert {name: rendered[name] for name in ("template_hash", "content_hash", "variables", "model")} == {
        name: version[name] for name in ("template_hash", "content_hash", "variables", "model")
    }
    assert not before["prompts"]
    assert len(everything()["prompts"]) == 1


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, ["/template_source"]),
        ({"template_source": "{{ range(3) }}"}, ["/template_source"]),
        ({"template_source": "{{ name }}"}, ["/variables/name"]),
        ({"template_source": "a", "model": {**MODEL, "params": {"top_k": 5}}}, ["/model/params/top_k"]),
        (
            {"template_source": "a", "variables_schema": {"required": ["x"]}, "variables": {"y": 1}},
            ["/variables/x"],
        ),
        ({"template_source": "a", "set_active": True}, ["/set_active"]),
    ],
)
def test_a_draft_is_checked_like_what_is_stored(api: Api, body: Any, named: list[str]) -> None:
    answer = api.post("/v1/render", body)

    assert (answer.status_code, pointers(answer)) == (422, named)
