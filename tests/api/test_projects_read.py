"""GET /v1/projects/{project}: by name or by id."""

import pytest

from tests.support import Api


def test_a_project_is_read_by_name_and_by_id(api: Api) -> None:
    created = api.expect(201, "POST", "/v1/projects", {"name": "atlas"})

    by_name = api.expect(200, "GET", "/v1/projects/atlas")
    by_id = api.expect(200, "GET", f"/v1/projects/{created['project_id']}")

    assert by_name == by_id == created


def test_every_workspace_begins_with_a_default_project(api: Api) -> None:
    assert api.expect(200, "GET", "/v1/projects/default")["name"] == "default"


@pytest.mark.parametrize(
    "project",
    [
        "atlas",
        "Default",
        "00000000-0000-0000-0000-000000000000",
        "a%00b",
        "%FF",
        "%ED%A0%80",
        "a%20b",
        "x" * 300,
        "%27",
    ],
)
def test_a_project_that_does_not_exist_is_a_404(api: Api, project: str) -> None:
    answer = api.get(f"/v1/projects/{project}")

    assert (answer.status_code, answer.get_json()["code"]) == (404, "not_found")
