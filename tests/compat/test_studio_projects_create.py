"""POST /api/v1/prompt-studio/projects/ and /projects."""

from collections.abc import Callable

import pytest

from shared.models import Project, Role
from tests.compat.studio import PREFIX, Studio
from tests.rows import count, everything
from tests.support import Api, pointers


def test_a_project_has_the_fields_and_defaults_of_the_original(studio: Studio) -> None:
    made = studio.project("atlas", description="maps", metadata={"team": "a"})

    assert made["id"] == made["uuid"]
    assert {name: made[name] for name in ("name", "description", "status", "metadata", "user_id", "version")} == {
        "name": "atlas",
        "description": "maps",
        "status": "draft",
        "metadata": {"team": "a"},
        "user_id": "admin",
        "version": 1,
    }
    assert made["created_at"] <= made["updated_at"] == made["last_modified"]
    assert (made["deleted"], made["deleted_at"]) == (False, None)
    assert studio.api.expect(200, "GET", "/v1/projects/atlas")["project_id"] == made["id"]


def test_without_the_slash_the_answer_is_the_bare_object(api: Api, studio: Studio) -> None:
    made = api.expect(201, "POST", f"{PREFIX}/projects", {"name": "atlas"})

    assert made == studio.data(200, "GET", f"/projects/get/{made['id']}")


def test_a_name_that_is_taken_is_a_409_and_not_the_project_that_has_it(studio: Studio) -> None:
    studio.project("atlas")
    before = everything()

    answer = studio.expect(409, "POST", "/projects/", {"name": "atlas"})

    assert (answer["data"], answer["error_code"]) == (None, "already_exists")
    assert everything() == before


def test_a_name_that_ours_cannot_be_is_kept_and_shown(studio: Studio) -> None:
    made = studio.project("Customer support, Q3!", metadata={"team": "a"})

    listed = studio.data(200, "GET", "/projects?search=support, q3")
    renamed = studio.data(200, "PUT", f"/projects/update/{made['id']}", {"metadata": {"team": "b"}})

    assert (made["name"], made["metadata"]) == ("Customer support, Q3!", {"team": "a"})
    assert [row["name"] for row in listed] == ["Customer support, Q3!"]
    assert (renamed["name"], renamed["metadata"]) == ("Customer support, Q3!", {"team": "b"})
    assert studio.api.expect(200, "GET", "/v1/projects/Customer-support-Q3")["project_id"] == made["id"]


@pytest.mark.parametrize("name", ["日本", "stats", "a" * 255, " x "])
def test_any_name_of_the_original_can_be_used(studio: Studio, name: str) -> None:
    made = studio.project(name)

    assert studio.data(200, "GET", f"/projects/{made['id']}")["name"] == name
    assert studio.request("POST", "/projects/", {"name": name}).status_code == 409


def test_a_project_that_was_renamed_elsewhere_has_the_new_name(studio: Studio) -> None:
    made = studio.project("Customer support")
    studio.api.expect(200, "PATCH", "/v1/projects/Customer-support", {"name": "care"})

    assert studio.data(200, "GET", f"/projects/{made['id']}")["name"] == "care"


@pytest.mark.parametrize("path", ["/projects/", "/projects"])
def test_the_same_idempotency_key_makes_one_project(studio: Studio, path: str) -> None:
    answers = [studio.request("POST", path, {"name": "atlas"}, headers={"Idempotency-Key": "one"}) for _ in range(2)]
    other = studio.request("POST", path, {"name": "other"}, headers={"Idempotency-Key": "one"})

    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].get_json() == answers[1].get_json()
    assert answers[1].headers["Idempotent-Replayed"] == "true"
    assert (other.status_code, other.get_json()["error_code"]) == (422, "idempotency_mismatch")
    assert count(Project) == 2  # with `default`


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/name"),
        ({"name": ""}, "/name"),
        ({"name": "a" * 256}, "/name"),
        ({"name": "a", "description": "a" * 2001}, "/description"),
        ({"name": "a", "status": "closed"}, "/status"),
        ({"name": "a", "metadata": []}, "/metadata"),
        ({"name": "a", "colour": "red"}, "/colour"),
    ],
)
def test_a_bad_field_is_named(studio: Studio, body: object, pointer: str) -> None:
    before = everything()

    answer = studio.request("POST", "/projects/", body)

    assert (answer.status_code, pointers(answer)) == (422, [pointer])
    assert everything() == before


def test_viewers_make_none(studio: Studio, as_user: Callable[..., Api]) -> None:
    viewer = Studio(as_user(role=Role.VIEWER))

    assert viewer.expect(403, "POST", "/projects/", {"name": "atlas"})["error_code"] == "forbidden"
