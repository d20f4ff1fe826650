"""POST and GET of /v1/datasets: empty datasets, by name and in pages."""

from typing import Any

import pytest

from shared.models import Dataset
from tests.rows import count, event_data, everything
from tests.support import Api, pointers


def test_a_created_dataset_is_empty_and_can_be_read_at_once(api: Api) -> None:
    created = api.expect(201, "POST", "/v1/datasets", {"name": "tickets", "description": "support"})

    read = api.expect(200, "GET", "/v1/datasets/tickets")

    assert read == created
    assert (read["revision"], read["case_count"], read["description"]) == (0, 0, "support")
    assert api.expect(200, "GET", "/v1/datasets/tickets/cases") == {"data": [], "next_cursor": None}
    assert event_data("dataset.created") == [{"name": "tickets"}]


def test_a_taken_name_is_refused_and_nothing_changes(api: Api) -> None:
    api.expect(201, "POST", "/v1/datasets", {"name": "tickets"})
    before = everything()

    answer = api.post("/v1/datasets", {"name": "tickets", "description": "other"})

    assert (answer.status_code, answer.get_json()["code"]) == (409, "already_exists")
    assert everything() == before


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "/name"),
        ({"name": "import"}, "/name"),
        ({"name": "a b"}, "/name"),
        ({"name": "tickets", "rows": []}, "/rows"),
        ({"name": "tickets", "description": "x" * 2001}, "/description"),
    ],
)
def test_a_bad_body_is_refused_where_it_is_bad(api: Api, body: Any, named: str) -> None:
    answer = api.post("/v1/datasets", body)

    assert (answer.status_code, pointers(answer)) == (422, [named])
    assert count(Dataset) == 0


@pytest.mark.parametrize("name", ["nothing", "Tickets", "a%00b", "%FF"])
def test_a_dataset_that_does_not_exist_is_a_404(api: Api, name: str) -> None:
    api.expect(201, "POST", "/v1/datasets", {"name": "tickets"})

    assert api.get(f"/v1/datasets/{name}").status_code == 404
    assert api.get(f"/v1/datasets/{name}/cases").status_code == 404


def test_datasets_are_listed_newest_first_by_page_and_by_project(api: Api) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    for name, project in [("a", "default"), ("b", "atlas"), ("c", "default")]:
        api.expect(201, "POST", "/v1/datasets", {"name": name, "project": project})

    first = api.expect(200, "GET", "/v1/datasets?limit=2")
    second = api.expect(200, "GET", f"/v1/datasets?limit=2&cursor={first['next_cursor']}")
    atlas = api.expect(200, "GET", "/v1/datasets?project=atlas&limit=2")

    assert [dataset["name"] for dataset in first["data"] + second["data"]] == ["c", "b", "a"]
    assert second["next_cursor"] is None
    assert [dataset["name"] for dataset in atlas["data"]] == ["b"]


@pytest.mark.parametrize("parameter", ["limit=0", "limit=101", "cursor=x", "offset=1"])
def test_a_query_parameter_that_is_wrong_or_unknown_is_named(api: Api, parameter: str) -> None:
    api.expect(201, "POST", "/v1/datasets", {"name": "tickets"})

    for path in ("/v1/datasets", "/v1/datasets/tickets/cases"):
        answer = api.get(f"{path}?{parameter}")
        assert (answer.status_code, pointers(answer)) == (422, ["?" + parameter.partition("=")[0]])


def test_one_name_in_two_projects_is_two_datasets(api: Api) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    api.expect(201, "POST", "/v1/datasets", {"name": "tickets"})
    api.expect(201, "POST", "/v1/datasets", {"name": "tickets", "project": "atlas"})

    api.expect(201, "POST", "/v1/datasets/tickets/cases?project=atlas", [{"inputs": {"a": 1}}])

    assert api.expect(200, "GET", "/v1/datasets/tickets")["case_count"] == 0
    assert api.expect(200, "GET", "/v1/datasets/tickets?project=atlas")["case_count"] == 1
    assert len(api.expect(200, "GET", "/v1/datasets/tickets/cases?project=atlas")["data"]) == 1
