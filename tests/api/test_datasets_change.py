"""A dataset's row: renamed, described, deleted, restored, deleted for good; and what made each of its revisions."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from shared.models import Dataset, DatasetRevision, Role, TestCase
from tests.rows import count, event_data, everything
from tests.support import Api, Drain, evaluation_body, make_triage, pointers

CASES = "/v1/datasets/tickets/cases"


@pytest.fixture(autouse=True)
def dataset(api: Api) -> Any:
    """With one case."""
    made = api.expect(201, "POST", "/v1/datasets", {"name": "tickets", "description": "support"})
    api.expect(201, "POST", CASES, [{"inputs": {"n": 1}}])
    return made


def test_a_renamed_dataset_keeps_its_cases_and_frees_its_name(api: Api) -> None:
    changed = api.expect(200, "PATCH", "/v1/datasets/tickets", {"name": "mails", "description": "all"})

    assert (changed["name"], changed["description"], changed["revision"]) == ("mails", "all", 1)
    assert api.get("/v1/datasets/tickets").status_code == 404
    assert len(api.expect(200, "GET", "/v1/datasets/mails/cases")["data"]) == 1
    api.expect(201, "POST", "/v1/datasets", {"name": "tickets"})
    assert event_data("dataset.updated") == [{"name": "mails", "description": "all"}]


def test_what_is_so_already_is_no_change(api: Api) -> None:
    before = everything()

    api.expect(200, "PATCH", "/v1/datasets/tickets", {"name": "tickets", "description": "support"})

    assert everything() == before


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({}, 422, [""]),
        ({"name": "a b"}, 422, ["/name"]),
        ({"name": "import"}, 422, ["/name"]),
        ({"name": "other"}, 409, []),
        ({"revision": 3}, 422, ["/revision"]),
        ({"description": "x" * 2001}, 422, ["/description"]),
    ],
)
def test_a_bad_change_is_refused_and_changes_nothing(api: Api, body: Any, status: int, named: list[str]) -> None:
    api.expect(201, "POST", "/v1/datasets", {"name": "other"})
    before = everything()

    answer = api.request("PATCH", "/v1/datasets/tickets", body)

    assert (answer.status_code, pointers(answer)) == (status, named)
    assert everything() == before


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_dataset_that_changed_since_it_was_read_is_not_changed(api: Api, method: str) -> None:
    stale = api.get("/v1/datasets/tickets").headers["ETag"]
    api.expect(200, "PATCH", "/v1/datasets/tickets", {"description": "meanwhile"})
    before = everything()
    body = {"description": "late"} if method == "PATCH" else None

    answer = api.request(method, "/v1/datasets/tickets", body, headers={"If-Match": stale})

    assert answer.status_code == 412
    assert everything() == before


def test_a_deleted_dataset_is_in_no_list_and_its_name_is_free(api: Api, dataset: Any) -> None:
    api.expect(200, "DELETE", "/v1/datasets/tickets")

    assert api.get("/v1/datasets/tickets").status_code == 404
    assert api.get(CASES).status_code == 404
    assert api.expect(200, "GET", "/v1/datasets")["data"] == []
    [shown] = api.expect(200, "GET", "/v1/datasets?include_deleted=true")["data"]
    assert (shown["dataset_id"], shown["deleted_at"] is not None) == (dataset["dataset_id"], True)
    assert api.expect(200, "GET", "/v1/projects/default/stats")["cases"] == 0
    api.expect(201, "POST", "/v1/datasets", {"name": "tickets"})


def test_a_restored_dataset_has_its_cases_and_revisions(api: Api, dataset: Any) -> None:
    before = (api.expect(200, "GET", CASES), api.expect(200, "GET", "/v1/datasets/tickets/revisions"))
    api.expect(200, "DELETE", "/v1/datasets/tickets")

    api.expect(200, "POST", f"/v1/datasets/{dataset['dataset_id']}/restore", {})

    assert (api.expect(200, "GET", CASES), api.expect(200, "GET", "/v1/datasets/tickets/revisions")) == before
    assert event_data("dataset.restored") == [{"name": "tickets", "deleted_as": "tickets"}]


def test_a_dataset_whose_name_was_taken_is_restored_under_another(api: Api, dataset: Any) -> None:
    path = f"/v1/datasets/{dataset['dataset_id']}/restore"
    api.expect(200, "DELETE", "/v1/datasets/tickets")
    api.expect(201, "POST", "/v1/datasets", {"name": "tickets"})

    refused = api.post(path, {})
    restored = api.expect(200, "POST", path, {"name": "old-tickets"})

    assert (refused.status_code, refused.get_json()["code"]) == (409, "already_exists")
    assert (restored["name"], restored["case_count"]) == ("old-tickets", 1)


def test_a_dataset_that_is_deleted_for_good_leaves_no_row(api: Api, dataset: Any) -> None:
    api.expect(200, "DELETE", "/v1/datasets/tickets")

    api.expect(200, "DELETE", f"/v1/datasets/{dataset['dataset_id']}?permanent=true")

    assert (count(Dataset), count(TestCase), count(DatasetRevision)) == (0, 0, 0)
    assert [data["permanent"] for data in event_data("dataset.deleted")] == [False, True]


def test_only_an_administrator_deletes_for_good(api: Api, as_user: Callable[..., Api]) -> None:
    editor = as_user(role=Role.EDITOR)

    assert editor.request("DELETE", "/v1/datasets/tickets?permanent=true").status_code == 403
    assert count(Dataset) == 1
    editor.expect(200, "DELETE", "/v1/datasets/tickets")


def test_a_dataset_that_was_evaluated_is_not_deleted_for_good(api: Api, drain: Drain) -> None:
    api.expect(200, "PATCH", "/v1/datasets/tickets", {"name": "spare"})
    make_triage(api, cases=12)
    api.expect(202, "POST", "/v1/evaluations", evaluation_body())
    drain()

    answer = api.request("DELETE", "/v1/datasets/tickets?permanent=true")

    assert (answer.status_code, answer.get_json()["detail"][:13]) == (409, "1 evaluations")
    assert api.expect(200, "GET", "/v1/datasets/tickets")["case_count"] == 12


def test_a_dataset_that_does_not_exist_is_neither_restored_nor_deleted(api: Api) -> None:
    unknown = uuid.uuid4()

    assert api.post(f"/v1/datasets/{unknown}/restore", {}).status_code == 404
    assert api.request("DELETE", f"/v1/datasets/{unknown}?permanent=true").status_code == 404


def test_each_revision_says_what_made_it(api: Api) -> None:
    case_id = api.expect(200, "GET", CASES)["data"][0]["test_case_id"]
    api.expect(200, "PATCH", f"{CASES}/{case_id}", {"name": "one"})
    api.expect(200, "DELETE", f"{CASES}/{case_id}")
    api.expect(200, "POST", f"{CASES}/{case_id}/restore")
    api.expect(201, "POST", CASES, [{"inputs": {"n": n}} for n in (1, 2, 3)])

    first = api.expect(200, "GET", "/v1/datasets/tickets/revisions?limit=3")
    rest = api.expect(200, "GET", f"/v1/datasets/tickets/revisions?cursor={first['next_cursor']}")

    listed = first["data"] + rest["data"]
    assert [(row["revision"], row["action"], row["added"], row["removed"], row["case_count"]) for row in listed] == [
        (5, "imported", 2, 0, 3),
        (4, "restored", 1, 0, 1),
        (3, "removed", 0, 1, 0),
        (2, "changed", 1, 1, 1),
        (1, "imported", 1, 0, 1),
    ]
    assert {row["created_by"] for row in listed} == {"admin"}


def test_a_dataset_of_an_archived_project_is_not_deleted_for_good_by_its_id(api: Api) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    dataset = api.expect(201, "POST", "/v1/datasets", {"name": "tickets", "project": "atlas"})
    path = f"/v1/datasets/{dataset['dataset_id']}?permanent=true"
    api.expect(200, "POST", "/v1/projects/atlas/archive")

    refused = api.request("DELETE", path)

    assert refused.status_code == 409
    assert "/v1/projects/atlas/unarchive" in refused.get_json()["detail"]
    api.expect(200, "POST", "/v1/projects/atlas/unarchive")
    api.expect(200, "DELETE", path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", "/v1/datasets/tickets"),
        ("DELETE", "/v1/datasets/tickets"),
        ("PATCH", "/v1/datasets/tickets/cases/{case}"),
        ("DELETE", "/v1/datasets/tickets/cases/{case}"),
        ("POST", "/v1/datasets/tickets/cases/{case}/restore"),
    ],
)
def test_an_archived_project_keeps_its_datasets_as_they_are(api: Api, method: str, path: str) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    api.expect(201, "POST", "/v1/datasets", {"name": "tickets", "project": "atlas"})
    api.expect(201, "POST", f"{CASES}?project=atlas", [{"inputs": {"n": 1}}])
    case_id = api.expect(200, "GET", f"{CASES}?project=atlas")["data"][0]["test_case_id"]
    api.expect(200, "POST", "/v1/projects/atlas/archive")
    before = everything()
    body = {"description": "x"} if method == "PATCH" else None

    answer = api.request(method, path.format(case=case_id) + "?project=atlas", body)

    assert answer.status_code == 409
    assert everything() == before
