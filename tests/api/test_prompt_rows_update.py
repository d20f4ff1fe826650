"""PATCH /v1/prompts/{name}: what describes a prompt, and its name."""

from collections.abc import Callable
from typing import Any

import pytest

from shared.models import Role, Version
from tests.rows import count, event_data, everything
from tests.support import Api, make_prompt, pointers, run_body

GREETER = "/v1/prompts/greeter"
DESCRIBED = {"description": "greets", "category": "chat", "tags": ["a", "b"], "owner_team": "core"}


@pytest.fixture(autouse=True)
def greeter(api: Api) -> None:
    make_prompt(api, **DESCRIBED)


def patch(api: Api, body: Any, **options: Any) -> Any:
    return api.request("PATCH", GREETER, body, **options)


@pytest.mark.parametrize(
    "change",
    [
        {"description": "new"},
        {"category": ""},
        {"tags": []},
        {"owner_team": "growth"},
        {"tags": ["z"], "category": "x"},
    ],
)
def test_what_is_given_changes_and_the_rest_stays(api: Api, change: dict[str, Any]) -> None:
    answer = patch(api, change)

    read = api.expect(200, "GET", GREETER)
    assert answer.status_code == 200
    assert {name: read[name] for name in DESCRIBED} == {**DESCRIBED, **change}
    assert {name: answer.get_json()[name] for name in DESCRIBED} == {**DESCRIBED, **change}
    assert event_data("prompt.updated") == [change]
    assert count(Version) == 1


def test_a_change_that_changes_nothing_writes_nothing(api: Api) -> None:
    before = everything()

    answers = [patch(api, DESCRIBED), patch(api, {}), patch(api, {"name": "greeter"})]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert everything() == before


def test_a_renamed_prompt_keeps_its_versions_labels_and_executions(api: Api) -> None:
    run = api.expect(202, "POST", "/v1/executions:submit", run_body())
    before = api.expect(200, "GET", GREETER)

    patch(api, {"name": "welcome", "description": "new"})

    after = api.expect(200, "GET", "/v1/prompts/welcome")
    assert (after["prompt_id"], after["labels"]) == (before["prompt_id"], before["labels"])
    assert after["active_version"] == before["active_version"]
    assert api.expect(200, "GET", f"/v1/executions/{run['execution_id']}")["prompt_name"] == "welcome"
    assert api.get(GREETER).status_code == 404
    assert event_data("prompt.renamed") == [{"from": "greeter", "to": "welcome"}]
    assert event_data("prompt.updated") == [{"description": "new"}]


def test_a_name_that_was_given_up_is_free_at_once(api: Api) -> None:
    patch(api, {"name": "welcome"})

    made = api.expect(201, "POST", "/v1/prompts", {"name": "greeter", "template_source": "another"})

    assert made["version"]["version_number"] == 1


def test_a_name_that_is_taken_is_a_409_and_changes_nothing(api: Api) -> None:
    make_prompt(api, "welcome")
    before = everything()

    answer = patch(api, {"name": "welcome", "description": "new"})

    assert (answer.status_code, answer.get_json()["code"]) == (409, "already_exists")
    assert everything() == before


def test_a_name_is_taken_in_its_project_only(api: Api) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    make_prompt(api, "welcome", project="atlas")

    assert patch(api, {"name": "welcome"}).status_code == 200


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"name": "versions"}, "/name"),
        ({"name": "a b"}, "/name"),
        ({"name": "123e4567-e89b-12d3-a456-426614174000"}, "/name"),
        ({"name": None}, "/name"),
        ({"description": None}, "/description"),
        ({"description": "x" * 2001}, "/description"),
        ({"category": "x" * 65}, "/category"),
        ({"tags": "a"}, "/tags"),
        ({"tags": [""]}, "/tags/0"),
        ({"owner_team": 7}, "/owner_team"),
        ({"mode": "tracking"}, "/mode"),
        ({"lifecycle": "published"}, "/lifecycle"),
        ({"template_source": "x"}, "/template_source"),
    ],
)
def test_a_wrong_field_is_named_and_changes_nothing(api: Api, body: Any, named: str) -> None:
    before = everything()

    answer = patch(api, body)

    assert (answer.status_code, pointers(answer)) == (422, [named])
    assert everything() == before


def test_the_tag_that_was_read_is_good_until_the_row_changes(api: Api) -> None:
    tag = api.get(GREETER).headers["ETag"]
    first = patch(api, {"description": "first"}, headers={"If-Match": tag})
    before = everything()

    late = patch(api, {"description": "late"}, headers={"If-Match": tag})
    next_one = patch(api, {"description": "next"}, headers={"If-Match": first.headers["ETag"]})

    assert (late.status_code, late.get_json()["code"], pointers(late)) == (412, "precondition_failed", ["If-Match"])
    assert before["events"] == everything()["events"][: len(before["events"])]
    assert (first.status_code, next_one.status_code) == (200, 200)
    assert event_data("prompt.updated") == [{"description": "first"}, {"description": "next"}]


def test_a_new_version_or_a_moved_label_does_not_spoil_the_tag(api: Api) -> None:
    tag = api.get(GREETER).headers["ETag"]
    make_prompt(api, template="changed")

    assert api.get(GREETER).headers["ETag"] == tag
    assert patch(api, {"description": "new"}, headers={"If-Match": tag}).status_code == 200


@pytest.mark.parametrize(
    ("given", "status"), [("*", 200), ('"nonsense"', 412), ('W/"{tag}"', 412), ('"nonsense", "{tag}"', 200)]
)
def test_if_match_is_read_as_http_has_it(api: Api, given: str, status: int) -> None:
    tag = api.get(GREETER).headers["ETag"].strip('"')

    assert patch(api, {"description": "new"}, headers={"If-Match": given.format(tag=tag)}).status_code == status


def test_a_viewer_changes_nothing_and_a_stranger_finds_nothing(api: Api, as_user: Callable[..., Api]) -> None:
    viewer, stranger = as_user(role=Role.VIEWER), as_user(workspace="elsewhere", user="stranger")

    statuses = [patch(someone, {"description": "his"}).status_code for someone in (viewer, stranger)]

    assert statuses == [403, 404]
    assert api.expect(200, "GET", GREETER)["description"] == "greets"
