"""PATCH, archive and unarchive of /v1/projects/{project}, and the filters of the list."""

from typing import Any

import pytest

from shared.models import Project
from tests.rows import count, event_data, everything
from tests.support import Api, Drain, evaluation_body, make_prompt, make_triage, optimization_body, pointers, run_body

ATLAS = "/v1/projects/atlas"


@pytest.fixture(autouse=True)
def atlas(api: Api) -> Any:
    return api.expect(201, "POST", "/v1/projects", {"name": "atlas", "description": "maps"})


def names(api: Api, query: str) -> list[str]:
    return [project["name"] for project in api.expect(200, "GET", f"/v1/projects{query}")["data"]]


def test_a_new_project_is_active_and_may_be_a_draft(api: Api, atlas: Any) -> None:
    draft = api.expect(201, "POST", "/v1/projects", {"name": "sketch", "status": "draft", "metadata": {"team": "a"}})

    assert (atlas["status"], atlas["metadata"], atlas["deleted_at"]) == ("active", {}, None)
    assert (draft["status"], draft["metadata"]) == ("draft", {"team": "a"})


def test_what_is_given_is_changed_and_the_rest_stays(api: Api, atlas: Any) -> None:
    metadata = {"team": "maps", "nested": {"a": [1, None]}}

    changed = api.expect(200, "PATCH", ATLAS, {"name": "globe", "metadata": metadata})

    expected = {**atlas, "name": "globe", "metadata": metadata, "revision": 2, "updated_at": changed["updated_at"]}
    assert changed == expected
    assert changed["updated_at"] > atlas["updated_at"]
    assert api.expect(200, "GET", "/v1/projects/globe") == changed
    assert api.get(ATLAS).status_code == 404
    assert event_data("project.updated") == [{"name": "globe", "metadata": metadata}]


def test_what_is_so_already_is_no_change(api: Api) -> None:
    before = everything()

    api.expect(200, "PATCH", ATLAS, {"description": "maps", "metadata": {}, "status": "active", "name": "atlas"})

    assert everything() == before


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, ""),
        ({"name": "a b"}, "/name"),
        ({"name": ""}, "/name"),
        ({"name": None}, "/name"),
        ({"description": "x" * 2001}, "/description"),
        ({"status": "deleted"}, "/status"),
        ({"metadata": []}, "/metadata"),
        ({"metadata": {"a": "x" * 16_000}}, "/metadata"),
        ({"revision": 7}, "/revision"),
    ],
)
def test_a_bad_change_is_named(api: Api, body: Any, named: str) -> None:
    before = everything()

    answer = api.request("PATCH", ATLAS, body)

    assert (answer.status_code, pointers(answer)) == (422, [named])
    assert everything() == before


def test_a_taken_name_is_refused(api: Api) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "globe"})
    before = everything()

    answer = api.request("PATCH", ATLAS, {"name": "globe"})

    assert (answer.status_code, answer.get_json()["code"]) == (409, "already_exists")
    assert everything() == before


def test_the_default_project_keeps_its_name(api: Api) -> None:
    answer = api.request("PATCH", "/v1/projects/default", {"name": "other"})

    assert (answer.status_code, pointers(answer)) == (422, ["/name"])
    api.expect(200, "PATCH", "/v1/projects/default", {"description": "what nobody named"})


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", ATLAS, {"description": "new"}),
        ("POST", f"{ATLAS}/archive", None),
        ("DELETE", ATLAS, None),
        ("DELETE", f"{ATLAS}?permanent=true", None),
    ],
)
def test_a_change_holds_to_the_etag_that_was_read(api: Api, method: str, path: str, body: Any) -> None:
    old = api.get(ATLAS).headers["ETag"]
    api.expect(200, "PATCH", ATLAS, {"description": "changed by another"})
    before = everything()

    late = api.request(method, path, body, headers={"If-Match": old})
    unchanged = everything() == before
    current = api.request(method, path, body, headers={"If-Match": late.headers["ETag"]})

    assert (late.status_code, unchanged) == (412, True)
    assert current.status_code in (200, 204)


def test_archive_and_unarchive_change_the_status_once(api: Api) -> None:
    for action, status in (("archive", "archived"), ("unarchive", "active")):
        for _ in range(2):
            assert api.expect(200, "POST", f"{ATLAS}/{action}")["status"] == status

    assert (event_data("project.archived"), event_data("project.unarchived")) == ([{}], [{}])


def test_an_archived_project_takes_no_change_and_no_run_and_says_how_to_open_it(api: Api) -> None:
    make_triage(api, cases=12)
    api.expect(200, "PUT", "/v1/prompts/triage/labels/eu/protection", {"approvals": 1})
    request = api.expect(202, "PUT", "/v1/prompts/triage/labels/eu", {"version_number": 1})["request_id"]
    api.expect(200, "POST", "/v1/projects/default/archive")
    before = everything()

    ticket = run_body("triage", variables={"ticket": "it broke"})
    refused = [
        ("PUT", "/v1/prompts/triage", {"template_source": "new"}),
        ("POST", "/v1/prompts", {"name": "another", "template_source": "new"}),
        ("PUT", "/v1/prompts/triage/labels/staging", {"version_number": 1}),
        ("DELETE", "/v1/prompts/triage/labels/production", None),
        ("POST", "/v1/prompts/triage/labels/production/undo", None),
        ("PUT", "/v1/prompts/triage/labels/production/protection", {"role": "admin"}),
        ("POST", f"/v1/label-requests/{request}/approve", {}),
        ("PUT", "/v1/prompts/triage/lifecycle", {"state": "published"}),
        ("POST", "/v1/lifecycle:batch", {"names": ["triage"], "state": "published"}),
        ("POST", "/v1/datasets", {"name": "another"}),
        ("POST", "/v1/datasets/tickets/cases", [{"inputs": {"ticket": "another"}}]),
        ("POST", "/v1/executions:run", ticket),
        ("POST", "/v1/executions:submit", ticket),
        ("POST", "/v1/executions:batch", {"prompt_name": "triage", "dataset": "tickets"}),
        ("POST", "/v1/evaluations", evaluation_body()),
        ("POST", "/v1/optimizations", optimization_body()),
    ]
    answers = {(method, path): api.request(method, path, body) for method, path, body in refused}

    assert {route: answer.status_code for route, answer in answers.items() if answer.status_code != 409} == {}
    assert all("/v1/projects/default/unarchive" in answer.get_json()["detail"] for answer in answers.values())
    assert everything() == before


def test_an_archived_project_is_read_as_before_and_what_runs_in_it_ends(api: Api, drain: Drain) -> None:
    make_prompt(api)
    waiting = api.expect(202, "POST", "/v1/executions:submit", run_body())
    api.expect(200, "POST", "/v1/projects/default/archive")

    drain()

    assert api.expect(200, "GET", "/v1/prompts/greeter")["active_version"]["version_number"] == 1
    assert [prompt["name"] for prompt in api.expect(200, "GET", "/v1/prompts")["data"]] == ["greeter"]
    assert api.expect(200, "GET", f"/v1/executions/{waiting['execution_id']}")["status"] == "succeeded"


def test_an_unarchived_project_takes_changes_again(api: Api) -> None:
    for action in ("archive", "unarchive"):
        api.expect(200, "POST", f"{ATLAS}/{action}")

    make_prompt(api, project="atlas")


def test_an_archived_project_can_itself_be_changed(api: Api) -> None:
    api.expect(200, "POST", f"{ATLAS}/archive")

    assert api.expect(200, "PATCH", ATLAS, {"description": "old maps"})["status"] == "archived"


def test_projects_are_listed_by_status_and_by_a_part_of_the_name(api: Api) -> None:
    for name in ("Atlas-2", "at_las", "at.las", "other"):
        api.expect(201, "POST", "/v1/projects", {"name": name})
    api.expect(200, "POST", f"{ATLAS}/archive")

    assert names(api, "?status=archived") == ["atlas"]
    assert names(api, "?search=TLA") == ["Atlas-2", "atlas"]
    assert names(api, "?search=at_l") == ["at_las"]
    assert names(api, "?search=atlas&status=active") == ["Atlas-2"]
    assert names(api, "?search=nothing") == []


@pytest.mark.parametrize(
    ("query", "named"),
    [("status=deleted", "?status"), ("include_deleted=yes", "?include_deleted"), ("search=", "?search")],
)
def test_a_bad_filter_is_named(api: Api, query: str, named: str) -> None:
    answer = api.get(f"/v1/projects?{query}")

    assert (answer.status_code, pointers(answer)) == (422, [named])
    assert count(Project) == 2
