"""GET /v1/projects: pages by cursor."""

from typing import Any

import pytest

from tests.support import Api, pointers


def names(page: Any) -> list[str]:
    return [project["name"] for project in page["data"]]


@pytest.fixture
def five(api: Api) -> list[str]:
    """The five projects that there are, newest first."""
    for name in ("one", "two", "three", "four"):
        api.expect(201, "POST", "/v1/projects", {"name": name})
    return ["four", "three", "two", "one", "default"]


def test_a_walk_by_cursor_loses_and_doubles_nothing(api: Api, five: list[str]) -> None:
    found, path = [], "/v1/projects?limit=2"
    while path:
        page = api.expect(200, "GET", path)
        found.append(names(page))
        path = page["next_cursor"] and f"/v1/projects?limit=2&cursor={page['next_cursor']}"

    assert found == [five[:2], five[2:4], five[4:]]


def test_a_project_that_is_added_during_a_walk_shifts_nothing(api: Api, five: list[str]) -> None:
    first = api.expect(200, "GET", "/v1/projects?limit=3")
    api.expect(201, "POST", "/v1/projects", {"name": "six"})

    second = api.expect(200, "GET", f"/v1/projects?limit=3&cursor={first['next_cursor']}")

    assert names(first) + names(second) == five
    assert second["next_cursor"] is None


@pytest.mark.parametrize("limit", [1, 100])
def test_the_limit_may_be_1_to_100(api: Api, five: list[str], limit: int) -> None:
    page = api.expect(200, "GET", f"/v1/projects?limit={limit}")

    assert names(page) == five[:limit]
    assert (page["next_cursor"] is None) == (limit >= 5)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("limit=0", "?limit"),
        ("limit=101", "?limit"),
        ("limit=-1", "?limit"),
        ("limit=٣", "?limit"),
        ("limit=1_0", "?limit"),
        ("limit=+5", "?limit"),
        ("limit=1&limit=2", "?limit"),
        ("limit=two", "?limit"),
        ("limit=1.5", "?limit"),
        ("limit=", "?limit"),
        ("cursor=x", "?cursor"),
        ("cursor=%FF", "?cursor"),
        ("cursor=%00", "?cursor"),
        ("cursor=WyJhIiwiYiJd", "?cursor"),
        ("cursor=WyIyMDI2LTAxLTAxIiwiMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAiXQ", "?cursor"),
        ("offset=2", "?offset"),
        ("Limit=2", "?Limit"),
    ],
)
def test_a_query_parameter_that_is_wrong_or_unknown_is_named(api: Api, query: str, named: str) -> None:
    answer = api.get(f"/v1/projects?{query}")

    assert answer.status_code == 422
    assert pointers(answer) == [named]
