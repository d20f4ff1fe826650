"""/api/v1/…/lifecycle: the four states, guarded before anything is written."""

from typing import Any

import pytest

from tests.compat.store import STORE, at, data, make, refusal
from tests.rows import everything
from tests.support import Api


@pytest.fixture
def prompt(api: Api) -> Any:
    return make(api)


def move(api: Api, prompt: Any, status: str, reason: str = "") -> Any:
    return data(api, "PUT", at(prompt, "/lifecycle?user_id=ada"), {"status": status, "reason": reason})


def test_a_prompt_is_moved_on_with_a_reason(api: Api, prompt: Any) -> None:
    moved = move(api, prompt, "published", "ready")

    assert moved.pop("transition_timestamp")
    assert moved == {
        "prompt_id": prompt["id"],
        "previous_status": "draft",
        "new_status": "published",
        "reason": "ready",
        "updated_by": "admin",
    }
    assert data(api, "GET", at(prompt))["lifecycle_status"] == "published"


def test_a_move_that_is_not_allowed_is_a_409_and_changes_nothing(api: Api, prompt: Any) -> None:
    move(api, prompt, "published")
    before = everything()

    answer = api.put(f"{STORE}{at(prompt, '/lifecycle')}", {"status": "draft"})

    assert refusal(answer)[:2] == (409, "CONFLICT")
    assert everything() == before


def test_what_cannot_be_published_is_refused_before_it_is_written(api: Api) -> None:
    """The original wrote the state, and then looked whether the prompt may have it."""
    made = api.expect(200, "PUT", "/v1/prompts/no-production", {"template_source": "a"})
    before = everything()

    answer = api.put(f"{STORE}/prompts/{made['prompt']['prompt_id']}/lifecycle", {"status": "published"})

    assert refusal(answer)[:2] == (409, "CONFLICT")
    assert everything() == before


def test_an_unknown_state_is_named(api: Api, prompt: Any) -> None:
    answer = api.put(f"{STORE}{at(prompt, '/lifecycle')}", {"status": "retired"})

    assert refusal(answer) == (422, "VALIDATION_ERROR", ["/status"])
    assert refusal(api.get(f"{STORE}/prompts/lifecycle/retired"))[:2] == (404, "NOT_FOUND")


def test_prompts_are_listed_by_state(api: Api, prompt: Any) -> None:
    for name in ("second", "third"):
        move(api, make(api, name), "archived")

    drafts = data(api, "GET", "/prompts/lifecycle/draft")
    archived = data(api, "GET", "/prompts/lifecycle/archived?limit=1&offset=1")

    assert ([item["id"] for item in drafts["prompts"]], drafts["count"]) == ([prompt["id"]], 1)
    assert [item["name"] for item in archived["prompts"]] == ["second"]
    assert {name: archived[name] for name in ("status", "count", "total", "limit", "offset")} == {
        "status": "archived",
        "count": 1,
        "total": 2,
        "limit": 1,
        "offset": 1,
    }


def test_the_history_says_who_changed_what_when_and_why(api: Api, prompt: Any) -> None:
    move(api, prompt, "published", "ready")
    move(api, prompt, "deprecated", "old")

    history = data(api, "GET", at(prompt, "/lifecycle/history"))

    steps = [
        {name: step[name] for name in ("from_status", "to_status", "reason", "updated_by")}
        for step in history["lifecycle_history"]
    ]
    assert steps == [
        {"from_status": "published", "to_status": "deprecated", "reason": "old", "updated_by": "admin"},
        {"from_status": "draft", "to_status": "published", "reason": "ready", "updated_by": "admin"},
    ]
    assert all(step["timestamp"] for step in history["lifecycle_history"])
    assert (history["current_status"], history["history_count"]) == ("deprecated", 2)


def test_counts_and_rules(api: Api, prompt: Any) -> None:
    move(api, make(api, "second"), "archived")

    counts = data(api, "GET", "/lifecycle/counts")
    rules = data(api, "GET", "/lifecycle/rules")

    assert counts == {
        "status_counts": {"draft": 1, "published": 0, "deprecated": 0, "archived": 1},
        "total_prompts": 2,
    }
    assert rules["valid_statuses"] == ["draft", "published", "deprecated", "archived"]
    assert rules["transition_rules"]["draft"] == ["published", "archived"]


@pytest.mark.parametrize("given", ["query", "body"])
def test_a_move_can_be_tried(api: Api, prompt: Any, given: str) -> None:
    def may(status: str) -> Any:
        query = f"?new_status={status}" if given == "query" else ""
        body = {"new_status": status} if given == "body" else None
        return data(api, "POST", at(prompt, f"/lifecycle/validate{query}"), body)

    before = everything()

    allowed, refused = may("published"), may("deprecated")

    assert everything() == before
    assert allowed == {"valid": True, "current_status": "draft", "requested_status": "published", "reason": None}
    assert (refused["valid"], "draft" in refused["reason"]) == (False, True)


def test_several_are_moved_each_as_far_as_it_can_be(api: Api, prompt: Any) -> None:
    published = make(api, "second")
    move(api, published, "published")
    nobody = "00000000-0000-0000-0000-000000000000"
    body = {"prompt_ids": [prompt["id"], nobody, "no-id", published["id"]], "status": "deprecated", "reason": "r"}

    done = data(api, "POST", "/lifecycle/bulk", body)

    assert {name: done[name] for name in ("total_requested", "successful", "failed", "new_status")} == {
        "total_requested": 4,
        "successful": 1,
        "failed": 3,
        "new_status": "deprecated",
    }
    assert [(item["prompt_id"], item["success"]) for item in done["results"]] == [
        (prompt["id"], False),
        (nobody, False),
        ("no-id", False),
        (published["id"], True),
    ]
    assert done["results"][3]["previous_status"] == "published"
    assert all(item["error"] for item in done["results"][:3])
    assert data(api, "GET", at(published))["lifecycle_status"] == "deprecated"
    assert data(api, "GET", at(prompt))["lifecycle_status"] == "draft"


def test_a_prompt_that_is_named_twice_is_answered_twice(api: Api, prompt: Any) -> None:
    body = {"prompt_ids": [prompt["id"], prompt["id"]], "status": "archived"}

    assert [item["success"] for item in data(api, "POST", "/lifecycle/bulk", body)["results"]] == [True, True]
