"""Changing, archiving and deleting projects of Prompt Studio."""

from collections.abc import Callable

import pytest

from shared.models import Role
from tests.compat.studio import NOBODY, Studio
from tests.rows import everything
from tests.support import Api, pointers


def test_only_what_is_given_is_changed(studio: Studio) -> None:
    made = studio.project(description="maps", metadata={"team": "a"})

    changed = studio.data(200, "PUT", f"/projects/update/{made['id']}", {"name": "globe", "status": "active"})

    assert {**made, "name": "globe", "status": "active", "version": 2} == {
        **changed,
        "updated_at": made["updated_at"],
        "last_modified": made["last_modified"],
    }


def test_a_change_of_nothing_is_refused(studio: Studio) -> None:
    made = studio.project()

    assert studio.expect(422, "PUT", f"/projects/update/{made['id']}", {})["error_code"] == "invalid_fields"


def test_a_name_of_another_project_is_a_409(studio: Studio) -> None:
    studio.project("Big maps")
    made = studio.project("atlas")

    answer = studio.request("PUT", f"/projects/update/{made['id']}", {"name": "Big-maps"})

    assert (answer.status_code, answer.get_json()["error_code"]) == (409, "already_exists")


def test_an_archived_project_takes_no_prompt_until_it_is_opened(studio: Studio) -> None:
    made = studio.project()
    body = {"project_id": made["id"], "name": "greeter", "user_prompt": "Hi"}

    assert studio.data(200, "POST", f"/projects/archive/{made['id']}")["status"] == "archived"
    assert studio.request("POST", "/prompts/create", body).status_code == 409
    assert studio.data(200, "POST", f"/projects/unarchive/{made['id']}")["status"] == "active"
    assert studio.request("POST", "/prompts/create", body).status_code == 201


def test_a_deleted_name_is_free_as_often_as_it_is_deleted(studio: Studio) -> None:
    for _ in range(3):
        made = studio.project("atlas")
        gone = studio.data(200, "DELETE", f"/projects/delete/{made['id']}")
        assert gone == {"id": made["id"], "uuid": made["id"], "deleted": True, "permanent": False, "rows": None}

    assert studio.request("DELETE", f"/projects/delete/{made['id']}").status_code == 404


def test_deleting_for_good_takes_an_administrator_and_says_what_went(
    studio: Studio, as_user: Callable[..., Api]
) -> None:
    made = studio.project()
    studio.prompt(made)
    path = f"/projects/delete/{made['id']}?permanent=true"

    refused = Studio(as_user(role=Role.EDITOR)).request("DELETE", path)
    gone = studio.data(200, "DELETE", path)

    assert refused.status_code == 403
    assert (gone["permanent"], gone["rows"]["prompts"], gone["rows"]["versions"]) == (True, 1, 1)
    assert [row["name"] for row in studio.data(200, "GET", "/projects?include_deleted=true")] == ["default"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/projects/update/", {"name": "a"}),
        ("POST", "/projects/archive/", None),
        ("POST", "/projects/unarchive/", None),
        ("DELETE", "/projects/delete/", None),
    ],
)
def test_what_is_not_there_is_a_404_and_never_deleted_successfully(
    studio: Studio, method: str, path: str, body: object
) -> None:
    before = everything()

    assert studio.expect(404, method, path + NOBODY, body)["error_code"] == "not_found"
    assert everything() == before


def test_a_status_that_is_none_is_named(studio: Studio) -> None:
    made = studio.project()

    answer = studio.request("PUT", f"/projects/update/{made['id']}", {"status": "gone"})

    assert (answer.status_code, pointers(answer)) == (422, ["/status"])
