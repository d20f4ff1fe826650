"""/api/v1/prompts/{id}/content, versions, rollback and fork: a history that is kept, and a lineage."""

from typing import Any

import pytest

from shared.models import Prompt, Version
from tests.compat.store import STORE, at, data, make, refusal
from tests.rows import count, everything
from tests.support import Api


@pytest.fixture
def prompt(api: Api) -> Any:
    return make(api, content="one")


def test_new_content_is_a_new_version_and_the_old_one_stays(api: Api, prompt: Any) -> None:
    changed = data(api, "PUT", at(prompt, "/content?content=two&change_summary=better&updated_by=Ada"), [])

    versions = data(api, "GET", at(prompt, "/versions"))
    assert (changed["content"], changed["version"]) == ("two", 2)
    shown = [
        {
            name: item[name]
            for name in ("version", "content", "change_summary", "change_type", "created_by", "is_current")
        }
        for item in versions["items"]
    ]
    assert shown == [
        {
            "version": 2,
            "content": "two",
            "change_summary": "better",
            "change_type": "update",
            "created_by": "Ada",
            "is_current": True,
        },
        {
            "version": 1,
            "content": "one",
            "change_summary": "",
            "change_type": "create",
            "created_by": "admin",
            "is_current": False,
        },
    ]
    assert all(item["id"] for item in versions["items"])
    assert {item["prompt_id"] for item in versions["items"]} == {prompt["id"]}


def test_content_is_taken_from_the_body_too_and_kept_as_it_is(api: Api, prompt: Any) -> None:
    text = "  two\n\n{{ a }}  "

    changed = data(api, "PUT", at(prompt, "/content"), {"content": text, "variables": ["a"]})

    assert (changed["content"], changed["variables"], changed["is_template"]) == (text, ["a"], True)


def test_content_that_a_version_has_is_that_version_again(api: Api, prompt: Any) -> None:
    data(api, "PUT", at(prompt, "/content?content=two"))

    again = data(api, "PUT", at(prompt, "/content?content=one"))

    assert (again["content"], again["version"], count(Version)) == ("one", 1, 2)


@pytest.mark.parametrize(
    ("query", "body", "pointer"),
    [
        ("", None, "/content"),
        ("", {"content": "{{ a"}, "/content"),
        ("?content=a", {"content": "b"}, "/content"),
        ("?content=%7B%7Ba%7D%7D", ["b"], "/variables"),
        ("?content=", None, "/content"),
    ],
)
def test_content_that_is_wrong_is_named_and_changes_nothing(
    api: Api, prompt: Any, query: str, body: Any, pointer: str
) -> None:
    before = everything()

    answer = api.put(f"{STORE}{at(prompt, '/content')}{query}", body)

    assert refusal(answer) == (422, "VALIDATION_ERROR", [pointer])
    assert everything() == before


def test_versions_come_in_slices_newest_first(api: Api, prompt: Any) -> None:
    for text in ("two", "three", "four"):
        data(api, "PUT", at(prompt, f"/content?content={text}"))

    page = data(api, "GET", at(prompt, "/versions?limit=2&offset=1"))
    last = data(api, "GET", at(prompt, "/versions?offset=3"))
    beyond = data(api, "GET", at(prompt, "/versions?offset=4000"))

    assert [item["version"] for item in page["items"]] == [3, 2]
    assert (page["total"], page["has_more"]) == (4, True)
    assert ([item["version"] for item in last["items"]], last["has_more"]) == ([1], False)
    assert (beyond["items"], beyond["total"], beyond["has_more"]) == ([], 4, False)


@pytest.mark.parametrize("given", ["query", "body"])
def test_a_rollback_makes_an_earlier_version_current_and_keeps_all(api: Api, prompt: Any, given: str) -> None:
    data(api, "PUT", at(prompt, "/content?content=two"))
    path = at(prompt, "/versions/1/rollback") + ("?reason=worse" if given == "query" else "")

    back = data(api, "POST", path, {"reason": "worse"} if given == "body" else None)

    assert (back["content"], back["version"], count(Version)) == ("one", 1, 2)
    assert data(api, "GET", at(prompt))["content"] == "one"
    moves = api.expect(200, "GET", "/v1/prompts/blog_intro/labels/production/history")["data"]
    assert (moves[0]["to_version"], moves[0]["reason"]) == (1, "worse")


@pytest.mark.parametrize("version", ["3", "0", "two", "-1", "99999999999"])
def test_a_rollback_to_what_is_not_there_is_a_404(api: Api, prompt: Any, version: str) -> None:
    before = everything()

    assert refusal(api.post(f"{STORE}{at(prompt)}/versions/{version}/rollback"))[:2] == (404, "NOT_FOUND")
    assert everything() == before


def test_where_production_takes_approval_the_content_stays_and_the_request_is_shown(api: Api, prompt: Any) -> None:
    data(api, "PUT", at(prompt, "/content?content=two"))
    api.expect(200, "PUT", "/v1/prompts/blog_intro/labels/production/protection", {"approvals": 1})

    asked = data(api, "PUT", at(prompt, "/content?content=three"))
    back = data(api, "POST", at(prompt, "/versions/1/rollback"))

    assert (asked["content"], asked["version"], back["content"]) == ("two", 2, "two")
    assert len({asked["label_request_id"], back["label_request_id"]}) == 2


def test_a_fork_remembers_its_parent_and_takes_what_is_not_changed(api: Api, prompt: Any) -> None:
    data(api, "PUT", at(prompt), {"tags": ["a"], "description": "d"})

    made = data(api, "POST", at(prompt, "/fork?new_name=copy&created_by=Ada"), {"description": "other"}, status=201)

    shown = {
        name: made[name] for name in ("name", "content", "description", "tags", "parent_id", "created_by", "version")
    }
    assert shown == {
        "name": "copy",
        "content": "one",
        "description": "other",
        "tags": ["a"],
        "parent_id": prompt["id"],
        "created_by": "Ada",
        "version": 1,
    }
    assert data(api, "GET", at(made))["parent_id"] == prompt["id"]
    assert data(api, "GET", at(made, "/versions"))["items"][0]["change_type"] == "fork"


def test_a_fork_is_of_the_current_version(api: Api, prompt: Any) -> None:
    data(api, "PUT", at(prompt, "/content?content=two"))
    data(api, "POST", at(prompt, "/versions/1/rollback"))

    assert data(api, "POST", at(prompt, "/fork"), {"new_name": "copy"}, status=201)["content"] == "one"


@pytest.mark.parametrize("body", [{"content": "new {{ a }}"}, {"changes": {"content": "new {{ a }}"}}])
def test_a_fork_with_other_content_has_it(api: Api, prompt: Any, body: Any) -> None:
    made = data(api, "POST", at(prompt, "/fork?new_name=copy"), body, status=201)

    assert (made["content"], made["variables"], made["version"]) == ("new {{ a }}", ["a"], 2)
    assert (made["parent_id"], data(api, "GET", at(prompt))["content"]) == (prompt["id"], "one")


@pytest.mark.parametrize(
    ("query", "body", "expected"),
    [
        ("", None, (422, "VALIDATION_ERROR", ["/new_name"])),
        ("?new_name=a%20b", None, (422, "VALIDATION_ERROR", ["/new_name"])),
        ("?new_name=a", {"new_name": "b"}, (422, "VALIDATION_ERROR", ["/new_name"])),
        ("?new_name=a", {"content": "{{"}, (422, "VALIDATION_ERROR", ["/content"])),
        ("?new_name=blog_intro", None, (409, "ALREADY_EXISTS", [])),
    ],
)
def test_a_fork_that_cannot_be_stores_nothing(api: Api, prompt: Any, query: str, body: Any, expected: Any) -> None:
    before = everything()

    assert refusal(api.post(f"{STORE}{at(prompt, '/fork')}{query}", body)) == expected
    assert (everything() == before, count(Prompt)) == (True, 1)
