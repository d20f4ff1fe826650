"""0027: what datasets and their cases keep when it is taken back, and what older ones become."""

from typing import Any

import pytest

import migrations
from shared import db
from shared.domain import providers, tenants
from shared.models import Role
from tests.migrations.test_migrations import rows
from tests.servers import RedisServer
from tests.support import API_KEY, Api, client

CASES = "/v1/datasets/tickets/cases"


@pytest.fixture
def api(empty_database: str, broker: RedisServer) -> Api:
    """With a dataset of three cases, made in two imports."""
    migrations.upgrade()
    with db.transaction() as session:
        providers.seed_catalogue(session)
        tenants.create_key(session, workspace="default", user="admin", role=Role.ADMIN, key=API_KEY)
    owner = Api(client(), API_KEY)
    owner.expect(201, "POST", "/v1/datasets", {"name": "tickets"})
    owner.expect(201, "POST", CASES, [{"inputs": {"n": 1}}, {"inputs": {"n": 2}, "tags": ["a"]}])
    owner.expect(201, "POST", CASES, [{"inputs": {"n": 3}}])
    return owner


def take_back() -> None:
    migrations.downgrade("0027")
    migrations.downgrade("-1")


def test_older_cases_keep_their_ids_and_their_imports_become_revisions(api: Api) -> None:
    before = api.expect(200, "GET", CASES)["data"]
    revisions = api.expect(200, "GET", "/v1/datasets/tickets/revisions")["data"]

    take_back()
    migrations.upgrade()

    assert api.expect(200, "GET", CASES)["data"] == before
    shown = [(row["revision"], row["action"], row["added"], row["case_count"]) for row in revisions]
    again = api.expect(200, "GET", "/v1/datasets/tickets/revisions")["data"]
    assert [(row["revision"], row["action"], row["added"], row["case_count"]) for row in again] == shown
    assert [row["created_by"] for row in again] == ["", ""]  # was not kept with the cases


def test_each_revision_has_the_same_cases_where_changes_are_not_known(api: Api) -> None:
    first, second, _ = api.expect(200, "GET", CASES)["data"]
    api.expect(200, "PATCH", f"{CASES}/{first['test_case_id']}", {"expected": "x"})
    api.expect(200, "PATCH", f"{CASES}/{first['test_case_id']}", {"expected": "y"})
    api.expect(200, "DELETE", f"{CASES}/{second['test_case_id']}")
    api.expect(200, "POST", f"{CASES}/{second['test_case_id']}/restore")

    def by_revision() -> list[list[Any]]:
        return [
            sorted(str(case["expected"]) + str(case["inputs"]) for case in listed(number)) for number in range(1, 7)
        ]

    def listed(number: int) -> Any:
        return api.expect(200, "GET", f"{CASES}?revision={number}")["data"]

    before, ids = by_revision(), {row["id"] for row in rows()["test_cases"]}
    take_back()
    below = rows()["test_cases"]
    migrations.upgrade()

    assert len({row["ordinal"] for row in below}) == len(below) == 6
    assert {row["id"] for row in below} == ids
    assert by_revision() == before


def test_deleted_datasets_are_kept_under_names_of_their_own_when_it_is_taken_back(api: Api) -> None:
    for _ in range(2):
        api.expect(200, "DELETE", "/v1/datasets/tickets")
        api.expect(201, "POST", "/v1/datasets", {"name": "tickets"})

    take_back()
    names = sorted(row["name"] for row in rows()["datasets"])
    migrations.upgrade()

    assert names[0] == "tickets"
    assert [name[:16] for name in names[1:]] == ["tickets.deleted-"] * 2
    assert len(rows()["test_cases"]) == 3
