"""Who may do what at Prompt Store's addresses, which had no authentication at all; and what every error looks like."""

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.models import Prompt, Relationship, Role
from tests.compat.store import STORE, at, data, make, refusal
from tests.rows import count, event_data
from tests.support import API_KEY, Api, Drain


def test_without_a_key_it_is_a_401_in_the_envelope(api: Api, flask_client: FlaskClient) -> None:
    answer = flask_client.get(f"{STORE}/prompts")

    assert refusal(answer) == (401, "UNAUTHORIZED", [])
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert flask_client.get(f"{STORE}/prompts", headers={"Authorization": f"Bearer {API_KEY}"}).status_code == 200


def test_an_error_has_the_envelope_and_the_request_id_whatever_it_is(api: Api) -> None:
    given = {"X-Request-Id": "mine"}

    nowhere = api.get(f"{STORE}/nowhere", headers=given)
    method = api.request("PATCH", f"{STORE}/prompts", {}, headers=given)
    broken = api.request("POST", f"{STORE}/prompts", headers=given, data="{", content_type="application/json")
    kind = api.request("POST", f"{STORE}/prompts", headers=given, data="a", content_type="text/plain")

    expected = [
        (404, "NOT_FOUND"),
        (405, "METHOD_NOT_ALLOWED"),
        (400, "VALIDATION_ERROR"),
        (415, "UNSUPPORTED_MEDIA_TYPE"),
    ]
    assert [refusal(answer)[:2] for answer in (nowhere, method, broken, kind)] == expected
    assert {answer.get_json()["request_id"] for answer in (nowhere, method, broken, kind)} == {"mine"}
    assert "POST" in method.headers["Allow"]


def test_the_envelope_is_that_of_its_own_prefix_only(api: Api) -> None:
    assert api.get("/v1/prompts/nobody").mimetype == "application/problem+json"
    assert "metadata" in api.get("/api/v1/prompt-studio/nowhere").get_json()


def test_the_actor_is_whom_the_key_belongs_to_whatever_the_query_says(api: Api, as_user: Callable[..., Api]) -> None:
    made = make(api)
    other = as_user(user="mallory")

    data(other, "PUT", at(made, "/lifecycle?user_id=admin"), {"status": "archived"})

    assert data(api, "GET", at(made, "/lifecycle/history"))["lifecycle_history"][0]["updated_by"] == "mallory"
    assert event_data("prompt.lifecycle_changed")[0]["to"] == "archived"


@pytest.fixture
def limited(api: Api, as_user: Callable[..., Api]) -> Api:
    """A key that is limited to the project atlas."""
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    return as_user(user="ada", projects=["atlas"])


def test_a_key_of_one_project_works_in_that_project(api: Api, limited: Api, drain: Drain) -> None:
    make(api, "shared-name", content="of default")

    made = make(limited, "shared-name", content="of atlas")
    data(limited, "POST", "/bulk/prompts", [{"name": "b", "category": "c", "content": "x"}], status=202)
    drain()

    assert {item["name"] for item in data(limited, "GET", "/prompts")["items"]} == {"shared-name", "b"}
    assert [item["content"] for item in data(api, "GET", "/prompts")["items"]] == ["of default"]
    assert api.expect(200, "GET", "/v1/prompts/shared-name?project=atlas")["prompt_id"] == made["id"]
    assert data(limited, "PUT", at(made, "/content?content=new"))["content"] == "new"
    assert data(limited, "POST", at(made, "/fork?new_name=copy"), status=201)["parent_id"] == made["id"]
    assert data(limited, "GET", "/prompts/search/writing/shared-name")["content"] == "new"
    assert data(limited, "POST", "/prompts/search?query=new")["total"] == 2
    assert data(limited, "GET", "/lifecycle/counts")["total_prompts"] == 3
    assert data(limited, "GET", "/analytics/summary")["summary"]["total_prompts"] == 3


def test_it_reaches_nothing_outside_of_it(api: Api, limited: Api, drain: Drain) -> None:
    one, two = make(api, "one"), make(api, "two")
    body: dict[str, Any] = {"target_prompt_id": two["id"], "relationship_type": "similar"}
    edge = data(api, "POST", at(one, "/relationships"), body, status=201)
    own = make(limited, "own")

    paths = [at(one, rest) for rest in ("", "/drift", "/suggestions", "/versions", "/relationships", "/related")]
    answers = [limited.get(STORE + path) for path in paths]
    answers.append(limited.put(f"{STORE}/relationships/{edge['id']}/strength?strength=0"))
    answers.append(limited.request("DELETE", f"{STORE}/relationships/{edge['id']}"))
    answers.append(limited.post(f"{STORE}{at(own, '/relationships')}", body))
    bulk = data(limited, "DELETE", "/bulk/prompts", [one["id"]], status=202)
    moved = data(limited, "POST", "/lifecycle/bulk", {"prompt_ids": [one["id"]], "status": "archived"})
    drain()

    assert [refusal(answer)[:2] for answer in answers] == [(404, "NOT_FOUND")] * len(answers)
    assert data(limited, "GET", f"/bulk/operations/{bulk['id']}")["operation"]["failed_items"] == 1
    assert (moved["failed"], data(api, "GET", at(one))["lifecycle_status"]) == (1, "draft")
    assert count(Relationship) == 1
    assert data(limited, "GET", "/relationships/stats")["total_relationships"] == 0


def test_a_key_of_several_projects_without_the_default_one_is_told_so(api: Api, as_user: Callable[..., Api]) -> None:
    for project in ("atlas", "vault"):
        api.expect(201, "POST", "/v1/projects", {"name": project})
    other = as_user(projects=["atlas", "vault"])

    assert refusal(other.get(f"{STORE}/prompts"))[:2] == (404, "NOT_FOUND")


def test_a_viewer_reads_and_changes_nothing(api: Api, as_user: Callable[..., Api]) -> None:
    make(api)
    viewer = as_user(role=Role.VIEWER)

    assert data(viewer, "GET", "/prompts")["total"] == 1
    answer = viewer.post(f"{STORE}/prompts", {"name": "a", "category": "c", "content": "x"})
    assert refusal(answer) == (403, "FORBIDDEN", [])
    assert count(Prompt) == 1


def test_an_archived_project_takes_no_changes(api: Api) -> None:
    made = make(api)
    api.expect(200, "POST", "/v1/projects/default/archive")

    answers = [
        api.post(f"{STORE}/prompts", {"name": "a", "category": "c", "content": "x"}),
        api.put(STORE + at(made), {"description": "x"}),
        api.put(f"{STORE}{at(made, '/content')}?content=x"),
        api.request("DELETE", STORE + at(made)),
    ]

    assert [refusal(answer)[:2] for answer in answers] == [(409, "CONFLICT")] * 4
    assert data(api, "GET", at(made))["content"] == made["content"]


def test_a_field_that_is_given_twice_is_refused(api: Api) -> None:
    make(api)

    twice = api.get(f"{STORE}/prompts?limit=1&limit=2")
    body = api.request(
        "POST",
        f"{STORE}/prompts",
        data='{"name":"a","name":"b","category":"c","content":"x"}',
        content_type="application/json",
    )

    assert refusal(twice) == (422, "VALIDATION_ERROR", ["?limit"])
    assert refusal(body) == (422, "VALIDATION_ERROR", ["/name"])
