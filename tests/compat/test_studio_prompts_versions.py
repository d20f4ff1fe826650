"""Listing, updating and reverting prompts of Prompt Studio, each of which is one version."""

from typing import Any

import pytest

from shared.models import Version
from tests.compat.studio import NOBODY, Studio
from tests.rows import count, everything
from tests.support import MODEL, Api, make_prompt, pointers


def update(studio: Studio, prompt: Any, **fields: Any) -> Any:
    body = {"change_description": "better", **fields}
    return studio.data(200, "PUT", f"/prompts/update/{prompt['id']}", body)


def production(api: Api) -> int:
    return int(api.expect(200, "GET", "/v1/prompts/greeter/labels/production?project=atlas")["version_number"])


def test_an_update_is_the_next_version_with_what_was_not_given_kept(studio: Studio) -> None:
    first = studio.prompt(studio.project(), system_prompt="Be kind.", user_prompt="Hi {name}")

    second = update(studio, first, user_prompt="Hello {name}")

    assert (second["version_number"], second["parent_version_id"], second["name"]) == (2, first["id"], "greeter")
    assert (second["system_prompt"], second["user_prompt"]) == ("Be kind.", "Hello {{ name }}")
    assert second["change_description"] == "better"
    assert studio.data(200, "GET", f"/prompts/get/{first['id']}") == first
    assert production(studio.api) == 2


def test_updates_of_an_old_version_take_the_highest_number_and_never_collide(studio: Studio) -> None:
    first = studio.prompt(studio.project())

    numbers = [update(studio, first, user_prompt=f"text {index}")["version_number"] for index in range(3)]

    assert numbers == [2, 3, 4]


def test_content_that_was_there_before_is_that_version_and_this_is_said(studio: Studio) -> None:
    first = studio.prompt(studio.project(), user_prompt="one")
    second = update(studio, first, user_prompt="two")

    answer = studio.expect(
        200, "PUT", f"/prompts/update/{second['id']}", {"user_prompt": "one", "change_description": "back"}
    )

    assert answer["data"]["id"] == first["id"]
    assert answer["metadata"]["warnings"] == ["this content is version 1 already; no other row was made"]
    assert (count(Version), production(studio.api)) == (2, 1)


def test_an_update_keeps_the_model_settings_of_the_version(studio: Studio) -> None:
    make_prompt(studio.api, model=MODEL)
    version = studio.api.expect(200, "GET", "/v1/prompts/greeter/versions/1")

    made = update(studio, {"id": version["version_id"]}, user_prompt="Hi {name}")

    ours = studio.api.expect(200, "GET", "/v1/prompts/greeter/versions/2")
    assert (ours["version_id"], ours["model"]["model_name"]) == (made["id"], MODEL["model_name"])


def test_a_new_name_renames_the_prompt_with_all_its_versions(studio: Studio) -> None:
    first = studio.prompt(studio.project())
    second = update(studio, first, name="Say hello!", user_prompt="Hello {name}")

    assert second["name"] == "Say hello!"
    assert studio.data(200, "GET", f"/prompts/get/{first['id']}")["name"] == "Say hello!"
    studio.prompt({"id": first["project_id"]}, "greeter")


def test_a_rename_by_an_old_version_moves_no_label(studio: Studio) -> None:
    first = studio.prompt(studio.project())
    update(studio, first, user_prompt="two")

    renamed = update(studio, first, name="hello")

    assert (renamed["id"], renamed["name"]) == (first["id"], "hello")
    label = studio.api.expect(200, "GET", "/v1/prompts/hello/labels/production?project=atlas")
    assert label["version_number"] == 2


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"user_prompt": "x"}, "/change_description"),
        ({"change_description": "nothing"}, ""),
        ({"user_prompt": "x", "change_description": ""}, "/change_description"),
        ({"user_prompt": "x", "change_description": "a" * 501}, "/change_description"),
        ({"user_prompt": "{{", "change_description": "a"}, "/user_prompt"),
        ({"user_prompt": "", "change_description": "a"}, "/user_prompt"),
        ({"modules_config": [1], "change_description": "a"}, "/modules_config"),
        ({"project_id": NOBODY, "change_description": "a"}, "/project_id"),
    ],
)
def test_a_bad_update_is_named_and_changes_nothing(studio: Studio, body: dict[str, Any], pointer: str) -> None:
    first = studio.prompt(studio.project())
    before = everything()

    answer = studio.request("PUT", f"/prompts/update/{first['id']}", body)

    assert (answer.status_code, pointers(answer)) == (422, [pointer])
    assert everything() == before


def test_a_prompt_of_v1_that_these_fields_cannot_say_is_shown_whole_and_not_overwritten(studio: Studio) -> None:
    messages = [{"type": "placeholder", "name": "history"}, {"role": "user", "content": "{{ question }}"}]
    studio.api.expect(200, "PUT", "/v1/prompts/chat", {"messages": messages})
    version = studio.api.expect(200, "GET", "/v1/prompts/chat/versions/1")
    path = f"/prompts/get/{version['version_id']}"

    shown = studio.data(200, "GET", path)
    refused = studio.request(
        "PUT", f"/prompts/update/{shown['id']}", {"user_prompt": "Hi", "change_description": "simpler"}
    )

    assert (shown["prompt_format"], shown["prompt_definition"]) == ("structured", {"messages": messages})
    assert (shown["system_prompt"], shown["user_prompt"], shown["few_shot_examples"]) == (None, None, None)
    assert refused.status_code == 409
    assert studio.data(200, "GET", path) == shown


def test_a_prompt_that_lives_in_code_is_not_changed_from_here(studio: Studio) -> None:
    body = {"prompts": [{"name": "in-code", "template_source": "Hello"}]}
    studio.api.expect(200, "POST", "/v1/prompts/register-code", body)
    row = studio.data(200, "GET", "/prompts")[0]

    changed = studio.request("PUT", f"/prompts/update/{row['id']}", {"user_prompt": "x", "change_description": "y"})
    reverted = studio.request("POST", f"/prompts/revert/{row['id']}/1")

    assert (changed.status_code, reverted.status_code) == (409, 409)


def test_the_list_holds_every_version_newest_first(studio: Studio) -> None:
    project, other = studio.project("atlas"), studio.project("vault")
    first = studio.prompt(project)
    second = update(studio, first, user_prompt="two")
    third = studio.prompt(project, "another")
    elsewhere = studio.prompt(other)

    page = studio.expect(200, "GET", f"/prompts/list/{project['id']}?per_page=2")
    rest = studio.data(200, "GET", f"/prompts/list/{project['id']}?per_page=2&page=2")

    assert [row["id"] for row in [*page["data"], *rest]] == [third["id"], second["id"], first["id"]]
    assert page["metadata"] == {"page": 1, "per_page": 2, "total": 3, "total_pages": 2}
    assert studio.data(200, "GET", "/prompts")[0] == elsewhere
    assert studio.data(200, "GET", f"/prompts?project_id={other['id']}") == [elsewhere]


def test_the_history_is_of_one_prompt_by_number(studio: Studio) -> None:
    project = studio.project()
    first = studio.prompt(project)
    second = update(studio, first, user_prompt="two")
    studio.prompt(project, "another")

    for row in (first, second):
        answer = studio.expect(200, "GET", f"/prompts/history/{row['id']}")
        assert [item["version_number"] for item in answer["data"]] == [2, 1]
        assert answer["metadata"]["total"] == 2
        assert answer["data"][0]["parent_version_id"] == first["id"]


def test_a_deleted_prompt_is_listed_only_if_asked_for(studio: Studio) -> None:
    made = studio.prompt(studio.project())
    studio.api.expect(200, "DELETE", "/v1/prompts/greeter?project=atlas")

    assert studio.data(200, "GET", "/prompts") == []
    assert [row["deleted"] for row in studio.data(200, "GET", "/prompts?include_deleted=true")] == [True]
    assert studio.request("GET", f"/prompts/get/{made['id']}").status_code == 404


def test_what_is_in_a_deleted_project_is_not_found(studio: Studio) -> None:
    project = studio.project()
    made = studio.prompt(project)
    studio.data(200, "DELETE", f"/projects/delete/{project['id']}")

    assert studio.data(200, "GET", "/prompts?include_deleted=true") == []
    assert studio.request("GET", f"/prompts/get/{made['id']}").status_code == 404
    assert studio.request("GET", f"/prompts/list/{project['id']}").status_code == 404


def test_a_revert_makes_the_old_version_the_current_one_without_a_copy(studio: Studio) -> None:
    first = studio.prompt(studio.project(), user_prompt="one")
    second = update(studio, first, user_prompt="two")

    reverted = studio.data(200, "POST", f"/prompts/revert/{second['id']}/1")

    assert reverted == first
    assert (count(Version), production(studio.api)) == (2, 1)


@pytest.mark.parametrize("number", [0, 3, 10**12])
def test_a_revert_to_what_is_not_there_is_a_404(studio: Studio, number: int) -> None:
    first = studio.prompt(studio.project())
    before = everything()

    assert studio.request("POST", f"/prompts/revert/{first['id']}/{number}").status_code == 404
    assert everything() == before


def test_a_revert_that_a_second_person_has_to_approve_says_so(studio: Studio) -> None:
    first = studio.prompt(studio.project(), user_prompt="one")
    second = update(studio, first, user_prompt="two")
    protection = "/v1/prompts/greeter/labels/production/protection?project=atlas"
    studio.api.expect(200, "PUT", protection, {"approvals": 1})

    answer = studio.expect(200, "POST", f"/prompts/revert/{second['id']}/1")

    (request,) = studio.api.expect(200, "GET", "/v1/label-requests")["data"]
    assert request["request_id"] in answer["metadata"]["warnings"][0]
    assert production(studio.api) == 2


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"/prompts/get/{NOBODY}", None),
        ("GET", f"/prompts/history/{NOBODY}", None),
        ("GET", f"/prompts/list/{NOBODY}", None),
        ("PUT", f"/prompts/update/{NOBODY}", {"user_prompt": "x", "change_description": "y"}),
        ("POST", f"/prompts/revert/{NOBODY}/1", None),
    ],
)
def test_what_is_not_there_is_a_404(studio: Studio, method: str, path: str, body: Any) -> None:
    assert studio.expect(404, method, path, body)["error_code"] == "not_found"
