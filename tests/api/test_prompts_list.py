"""GET /v1/prompts and /v1/prompts/{name}/versions: pages, and pages of one project."""

from typing import Any

import pytest

from tests.support import Api, pointers


def walk(api: Api, path: str, field: str) -> list[list[Any]]:
    """The field of every item, page by page."""
    found, query = [], ""
    while True:
        page = api.expect(200, "GET", path + query)
        found.append([item[field] for item in page["data"]])
        if page["next_cursor"] is None:
            return found
        query = f"&cursor={page['next_cursor']}"


@pytest.fixture
def five(api: Api) -> None:
    """Prompts a and b in the default project, c, d and e in atlas; c has five versions."""
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    for name, project in [("a", "default"), ("b", "default"), ("c", "atlas"), ("d", "atlas"), ("e", "atlas")]:
        api.expect(200, "PUT", f"/v1/prompts/{name}", {"template_source": "text 1", "project": project})
    for number in range(2, 6):
        api.expect(200, "PUT", "/v1/prompts/c", {"template_source": f"text {number}", "project": "atlas"})


def test_a_walk_meets_the_prompts_of_every_project_newest_first(api: Api, five: None) -> None:
    assert walk(api, "/v1/prompts?limit=2", "name") == [["e", "d"], ["c", "b"], ["a"]]


def test_a_walk_of_one_project_meets_its_prompts_only(api: Api, five: None) -> None:
    atlas = api.expect(200, "GET", "/v1/projects/atlas")["project_id"]

    assert walk(api, "/v1/prompts?project=atlas&limit=2", "name") == [["e", "d"], ["c"]]
    assert walk(api, f"/v1/prompts?project={atlas}&limit=100", "name") == [["e", "d", "c"]]
    assert walk(api, "/v1/prompts?project=default&limit=1", "name") == [["b"], ["a"]]


def test_a_walk_of_the_versions_meets_them_from_1_upwards(api: Api, five: None) -> None:
    path = "/v1/prompts/c/versions?project=atlas&limit=2"

    assert walk(api, path, "version_number") == [[1, 2], [3, 4], [5]]


@pytest.mark.parametrize("path", ["/v1/prompts", "/v1/prompts/a/versions"])
@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("limit=0", "?limit"),
        ("limit=101", "?limit"),
        ("cursor=WyJ4Il0", "?cursor"),
        ("cursor=WyI5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTkiXQ", "?cursor"),
        ("offset=2", "?offset"),
        ("project=%00", "?project"),
    ],
)
def test_a_query_parameter_that_is_wrong_or_unknown_is_named(
    api: Api, five: None, path: str, query: str, named: str
) -> None:
    answer = api.get(f"{path}?{query}")

    assert answer.status_code == 422
    assert pointers(answer) == [named]


def test_the_prompts_of_a_project_that_does_not_exist_are_a_404(api: Api, five: None) -> None:
    assert api.get("/v1/prompts?project=nowhere").status_code == 404
