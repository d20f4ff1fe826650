"""POST /v1/projects."""

from typing import Any

import pytest

from shared.models import Project
from tests.rows import count, event_data
from tests.support import Api, pointers


def test_a_created_project_can_be_read_at_once(api: Api) -> None:
    created = api.expect(201, "POST", "/v1/projects", {"name": "atlas", "description": "maps"})

    read = api.expect(200, "GET", "/v1/projects/atlas")

    assert read == created
    assert (read["name"], read["description"], read["created_by"]) == ("atlas", "maps", "admin")
    assert event_data("project.created") == [{"name": "atlas"}]


def test_a_taken_name_is_refused_and_the_first_project_stays_as_it_is(api: Api) -> None:
    first = api.expect(201, "POST", "/v1/projects", {"name": "atlas", "description": "maps"})
    projects, events = count(Project), event_data("project.created")

    answer = api.post("/v1/projects", {"name": "atlas", "description": "other"})

    assert (answer.status_code, answer.get_json()["code"]) == (409, "already_exists")
    assert api.expect(200, "GET", "/v1/projects/atlas") == first
    assert (count(Project), event_data("project.created")) == (projects, events)


def test_names_that_differ_in_case_are_two_projects(api: Api) -> None:
    lower = api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    upper = api.expect(201, "POST", "/v1/projects", {"name": "Atlas"})

    assert api.expect(200, "GET", "/v1/projects/atlas") == lower
    assert api.expect(200, "GET", "/v1/projects/Atlas") == upper


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "x" * 200,
        "123e4567-e89b-12d3-a456-426614174000",
        "versions",
        "Import",
        "with space",
        "a/b",
        "né",
        "line\n",
        None,
        5,
        True,
        ["a"],
    ],
)
def test_a_bad_name_is_refused_where_it_stands_and_nothing_is_stored(api: Api, name: Any) -> None:
    before = count(Project)

    answer = api.post("/v1/projects", {"name": name})

    assert answer.status_code == 422
    assert pointers(answer) == ["/name"]
    assert count(Project) == before


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, ["/name"]),
        ({"name": "atlas", "colour": "red"}, ["/colour"]),
        ({"name": "atlas", "a/b~c": 1}, ["/a~1b~0c"]),
        ({"name": "atlas", "description": None}, ["/description"]),
        ({"name": "atlas", "description": "x" * 2001}, ["/description"]),
        ([], [""]),
        ("atlas", [""]),
    ],
)
def test_a_field_that_is_missing_unknown_or_wrong_is_named(api: Api, body: Any, named: list[str]) -> None:
    before = count(Project)

    answer = api.post("/v1/projects", body)

    assert answer.status_code == 422
    assert pointers(answer) == named
    assert count(Project) == before
