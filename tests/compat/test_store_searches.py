"""/api/v1/prompts/search: by words with every filter, and by category and name, filled."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.compat.store import STORE, data, make, refusal
from tests.rows import everything
from tests.support import Api


def names(found: Any) -> list[str]:
    return [item["name"] for item in found["items"]]


@pytest.fixture
def shelf(api: Api) -> Api:
    make(api, "letter", category="writing", content="Write a letter to a friend", tags=["warm", "long"])
    make(api, "review", category="code", content="Write a review of this patch", tags=["strict"])
    make(api, "poem", category="writing", content="Write verses", tags=["long"])
    return api


def test_words_and_category_and_tags_all_count(shelf: Api) -> None:
    assert names(data(shelf, "POST", "/prompts/search?query=write")) == ["poem", "review", "letter"]
    assert names(data(shelf, "POST", "/prompts/search?query=write&category=writing")) == ["poem", "letter"]
    assert names(data(shelf, "POST", "/prompts/search?query=write", ["warm"])) == ["letter"]
    assert names(data(shelf, "POST", "/prompts/search?query=write", ["warm", "strict", "none"])) == ["review", "letter"]
    assert names(data(shelf, "POST", "/prompts/search?query=patch", ["warm", "strict"])) == ["review"]
    assert names(data(shelf, "POST", "/prompts/search?query=nowhere")) == []


def test_the_query_may_stand_in_the_body(shelf: Api) -> None:
    body = {"query": "write", "category": "writing", "tags": ["long"], "limit": 1}

    found = data(shelf, "POST", "/prompts/search", body)

    assert (names(found), found["total"], found["has_more"], found["limit"]) == (["poem"], 2, True, 1)
    assert names(data(shelf, "POST", "/prompts/search?query=verses", {"tags": None, "category": None})) == ["poem"]


def test_a_prompt_of_another_project_is_not_found(shelf: Api) -> None:
    shelf.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    shelf.expect(200, "PUT", "/v1/prompts/there", {"template_source": "Write verses", "project": "atlas"})

    assert names(data(shelf, "POST", "/prompts/search?query=verses")) == ["poem"]


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("", None, "/query"),
        ("?query=a", {"query": "b"}, "/query"),
        ("?query=a&limit=0", None, "?limit"),
        ("?query=a", {"limit": "9"}, "/limit"),
        ("?query=a", {"tags": [1]}, "/tags/0"),
        ("?query=a", [1], "/tags/0"),
    ],
)
def test_what_is_wrong_is_named(api: Api, path: str, body: Any, pointer: str) -> None:
    assert refusal(api.post(f"{STORE}/prompts/search{path}", body)) == (422, "VALIDATION_ERROR", [pointer])


@pytest.mark.parametrize("given", ["body", "wrapped", "query"])
def test_a_template_is_filled_with_variables(api: Api, given: str) -> None:
    make(api, content="Dear {{ name }},\n{{ text }}", variables=["name", "text"], is_template=True)
    values = {"name": "Ada", "text": "{{ name }}"}
    body = {"body": values, "wrapped": {"variables": values}, "query": None}[given]
    query = f"?variables={quote(json.dumps(values))}" if given == "query" else ""
    before = everything()

    filled = data(api, "GET", f"/prompts/search/writing/blog_intro{query}", body)

    assert filled["filled_content"] == "Dear Ada,\n{{ name }}"  # what is filled in is no template
    assert filled["usage_count"] == 0
    assert everything() == before


def test_without_variables_it_is_only_read(api: Api) -> None:
    made = make(api)

    assert data(api, "GET", "/prompts/search/writing/blog_intro") == made


def test_a_variable_that_is_missing_is_named(api: Api) -> None:
    make(api, content="{{ a }} {{ b }}")

    answer = api.request("GET", f"{STORE}/prompts/search/writing/blog_intro", {"a": 1})

    assert refusal(answer) == (422, "VALIDATION_ERROR", ["/variables/b"])


@pytest.mark.parametrize("value", ["[1]", "{", "nonsense", '{"a": "\\u0000"}'])
def test_variables_that_are_none_are_refused(api: Api, value: str) -> None:
    make(api)

    answer = api.get(f"{STORE}/prompts/search/writing/blog_intro?variables={quote(value)}")

    assert refusal(answer)[:2] == (422, "VALIDATION_ERROR")


@pytest.mark.parametrize("path", ["writing/nobody", "code/blog_intro", "writing/%00"])
def test_another_category_or_name_is_a_404(api: Api, path: str) -> None:
    make(api)

    assert refusal(api.get(f"{STORE}/prompts/search/{path}"))[:2] == (404, "NOT_FOUND")
