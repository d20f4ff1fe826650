"""POST /api/v1/prompt-studio/prompts/create and /prompts."""

from typing import Any

import pytest

from shared.models import Prompt
from tests.compat.studio import NOBODY, Studio
from tests.rows import count, everything
from tests.support import pointers

EXAMPLE = {"inputs": {"ticket": "it broke"}, "outputs": {"label": "bug"}, "explanation": "Something is broken."}


def test_a_prompt_has_the_fields_of_the_original(studio: Studio) -> None:
    project = studio.project()

    made = studio.prompt(
        project,
        "triage",
        system_prompt="Be brief.",
        user_prompt="Ticket: {{ ticket }}",
        few_shot_examples=[EXAMPLE],
        change_description="first",
    )

    assert made["id"] == made["uuid"]
    assert {name: made[name] for name in made if name not in ("id", "uuid", "created_at", "updated_at")} == {
        "project_id": project["id"],
        "signature_id": None,
        "version_number": 1,
        "name": "triage",
        "system_prompt": "Be brief.",
        "user_prompt": "Ticket: {{ ticket }}",
        "few_shot_examples": [EXAMPLE],
        "modules_config": [],
        "parent_version_id": None,
        "change_description": "first",
        "prompt_format": "legacy",
        "prompt_definition": None,
        "variables": ["ticket"],
        "user_id": "admin",
        "deleted": False,
    }
    assert studio.data(200, "GET", f"/prompts/get/{made['id']}") == made


def test_it_is_a_version_of_ours_at_production(studio: Studio) -> None:
    made = studio.prompt(studio.project(), user_prompt="Hi {name}", system_prompt="Be kind.")

    ours = studio.api.expect(200, "GET", "/v1/prompts/greeter?project=atlas")

    assert ours["active_version"]["version_id"] == made["id"]
    assert ours["active_version"]["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi {{ name }}"},
    ]


def test_the_alias_makes_the_same(studio: Studio) -> None:
    project = studio.project()
    body = {"project_id": project["id"], "name": "greeter", "user_prompt": "Hi"}

    made = studio.data(201, "POST", "/prompts", body)

    assert studio.data(200, "GET", f"/prompts/get/{made['id']}") == made


def test_newlines_and_spaces_of_a_text_stay(studio: Studio) -> None:
    text = "  First line\n\n\tsecond  line \n"

    assert studio.prompt(studio.project(), user_prompt=text)["user_prompt"] == text


def test_a_name_that_is_taken_in_the_project_is_a_409_and_free_in_another(studio: Studio) -> None:
    atlas, vault = studio.project("atlas"), studio.project("vault")
    studio.prompt(atlas)
    before = everything()

    body = {"project_id": atlas["id"], "name": "greeter", "user_prompt": "other"}
    assert studio.expect(409, "POST", "/prompts/create", body)["error_code"] == "already_exists"
    assert everything() == before
    studio.prompt(vault)


def test_a_name_that_ours_cannot_be_is_kept_and_shown(studio: Studio) -> None:
    made = studio.prompt(studio.project(), "Say hello!")

    assert made["name"] == "Say hello!"
    assert studio.api.expect(200, "GET", "/v1/prompts/Say-hello?project=atlas")["description"] == "Say hello!"


def test_what_the_original_filled_in_otherwise_is_said(studio: Studio) -> None:
    body = {"project_id": studio.project()["id"], "name": "greeter", "user_prompt": "Hi {name}, $title"}

    answer = studio.expect(201, "POST", "/prompts/create", body)

    assert answer["data"]["user_prompt"] == "Hi {{ name }}, $title"
    assert answer["metadata"] == {"warnings": ["user_prompt: $title is plain text here; write {{ title }}"]}


def test_a_prompt_made_from_a_version_of_another_is_its_fork(studio: Studio) -> None:
    project = studio.project()
    parent = studio.prompt(project)

    made = studio.prompt(project, "child", parent_version_id=parent["id"])

    assert made["parent_version_id"] == parent["id"]
    lineage = studio.api.expect(200, "GET", "/v1/prompts/child/lineage?project=atlas")
    assert [origin["prompt_name"] for origin in lineage["ancestors"]] == ["greeter"]


def test_the_same_idempotency_key_makes_one_prompt(studio: Studio) -> None:
    body = {"project_id": studio.project()["id"], "name": "greeter", "user_prompt": "Hi"}
    options: dict[str, Any] = {"headers": {"Idempotency-Key": "one"}}

    first = studio.expect(201, "POST", "/prompts/create", body, **options)
    again = studio.expect(201, "POST", "/prompts/create", body, **options)
    other = studio.request("POST", "/prompts/create", {**body, "user_prompt": "Ho"}, **options)

    assert first == again
    assert (other.status_code, other.get_json()["error_code"]) == (422, "idempotency_mismatch")
    assert count(Prompt) == 1


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"user_prompt": "a" * 50_001}, "/user_prompt"),
        ({"system_prompt": "a" * 50_001}, "/system_prompt"),
        ({"user_prompt": "{{ x"}, "/user_prompt"),
        ({"system_prompt": "{% import os %}"}, "/system_prompt"),
        ({"user_prompt": None}, "/user_prompt"),
        ({"few_shot_examples": [{"inputs": {}}]}, "/few_shot_examples/0/outputs"),
        ({"few_shot_examples": [{"inputs": "x", "outputs": {}}]}, "/few_shot_examples/0/inputs"),
        ({"modules_config": [{"type": "cot", "enabled": True, "config": {}}]}, "/modules_config"),
        ({"signature_id": 7}, "/signature_id"),
        ({"signature_id": 0}, "/signature_id"),
        ({"prompt_schema_version": 2}, "/prompt_schema_version"),
        ({"prompt_format": "structured"}, "/prompt_format"),
        ({"prompt_definition": {"blocks": []}}, "/prompt_definition"),
        ({"parent_version_id": "7"}, "/parent_version_id"),
        ({"change_description": "a" * 501}, "/change_description"),
        ({"project_id": 7}, "/project_id"),
        ({"colour": "red"}, "/colour"),
    ],
)
def test_a_field_that_cannot_be_is_named_and_never_dropped(
    studio: Studio, fields: dict[str, Any], pointer: str
) -> None:
    body = {"project_id": studio.project()["id"], "name": "greeter", "user_prompt": "Hi", **fields}
    before = everything()

    answer = studio.request("POST", "/prompts/create", body)

    assert (answer.status_code, pointers(answer)) == (422, [pointer])
    assert everything() == before


@pytest.mark.parametrize("field", ["project_id", "parent_version_id"])
def test_what_it_refers_to_must_be_there(studio: Studio, field: str) -> None:
    body = {"project_id": studio.project()["id"], "name": "greeter", "user_prompt": "Hi", field: NOBODY}
    before = everything()

    answer = studio.request("POST", "/prompts/create", body)

    assert (answer.status_code, pointers(answer)) == (404, [f"/{field}"])
    assert everything() == before
