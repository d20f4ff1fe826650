"""The lifecycle of prompts: what can follow what, what stands in the way, who did it, and what a state means."""

import itertools
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from shared.domain.lifecycle import TRANSITIONS, Lifecycle
from shared.models import Execution, LifecycleChange, Role
from tests.factories import fail
from tests.rows import count, event_data, everything
from tests.support import MODEL, Api, Drain, evaluation_body, make_prompt, make_triage, pointers, run_body

LIFECYCLE = "/v1/prompts/greeter/lifecycle"
# How to come to each state from draft.
WAY = {
    "draft": (),
    "published": ("published",),
    "deprecated": ("published", "deprecated"),
    "archived": ("archived",),
}


def change(api: Api, *states: str, name: str = "greeter") -> Any:
    """Through these states; the last answer."""
    answer = None
    for state in states:
        answer = api.expect(200, "PUT", f"/v1/prompts/{name}/lifecycle", {"state": state})
    return answer


def state_of(api: Api, name: str = "greeter") -> str:
    state: str = api.expect(200, "GET", f"/v1/prompts/{name}")["lifecycle"]
    return state


@pytest.mark.parametrize(("old", "new"), list(itertools.permutations(Lifecycle, 2)))
def test_only_the_allowed_changes_are_made(api: Api, old: Lifecycle, new: Lifecycle) -> None:
    make_prompt(api)
    change(api, *WAY[old])
    before = everything()

    answer = api.put(LIFECYCLE, {"state": new})

    if new in TRANSITIONS[old]:
        assert (answer.status_code, state_of(api)) == (200, new)
        assert (answer.get_json()["previous_state"], answer.get_json()["state"]) == (old, new)
    else:
        assert (answer.status_code, answer.get_json()["code"]) == (409, "conflict")
        assert everything() == before


def test_the_allowed_changes_are_those_of_the_reference() -> None:
    assert {(old, new) for old, nexts in TRANSITIONS.items() for new in nexts} == {
        ("draft", "published"),
        ("draft", "archived"),
        ("published", "deprecated"),
        ("published", "archived"),
        ("deprecated", "published"),
        ("deprecated", "archived"),
        ("archived", "draft"),
    }


def test_a_prompt_begins_as_a_draft_and_says_what_it_can_become(api: Api) -> None:
    make_prompt(api)

    answer = api.expect(200, "GET", LIFECYCLE)

    assert (answer["state"], answer["allowed"], answer["data"]) == ("draft", ["published", "archived"], [])


def test_each_change_is_kept_with_who_when_and_why_and_is_an_event(api: Api, as_user: Callable[..., Api]) -> None:
    make_prompt(api)
    change(api, "published")
    as_user(user="ada").expect(200, "PUT", LIFECYCLE, {"state": "deprecated", "reason": "see greeter2"})

    history = api.expect(200, "GET", LIFECYCLE)

    assert history["state"] == "deprecated"
    assert [(each["from_state"], each["to_state"], each["changed_by"], each["reason"]) for each in history["data"]] == [
        ("published", "deprecated", "ada", "see greeter2"),
        ("draft", "published", "admin", ""),
    ]
    assert history["data"][0]["changed_at"] > history["data"][1]["changed_at"]
    assert event_data("prompt.lifecycle_changed") == [
        {"from": "draft", "to": "published"},
        {"from": "published", "to": "deprecated", "reason": "see greeter2"},
    ]


def test_the_history_is_read_in_pages(api: Api) -> None:
    make_prompt(api)
    change(api, "published", "deprecated", "archived")

    first = api.expect(200, "GET", f"{LIFECYCLE}?limit=2")
    second = api.expect(200, "GET", f"{LIFECYCLE}?limit=2&cursor={first['next_cursor']}")

    assert [each["to_state"] for each in first["data"] + second["data"]] == ["archived", "deprecated", "published"]


def test_the_state_that_it_has_is_no_change(api: Api) -> None:
    make_prompt(api)
    change(api, "published")
    before = everything()

    answer = change(api, "published")

    assert (answer["state"], answer["previous_state"]) == ("published", "published")
    assert everything() == before


def test_publishing_takes_a_label_production(api: Api) -> None:
    api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": "one"})
    before = everything()

    answer = api.put(LIFECYCLE, {"state": "published"})

    assert (answer.status_code, answer.get_json()["code"]) == (409, "conflict")
    assert "production" in answer.get_json()["detail"]
    assert everything() == before


def test_publishing_is_refused_without_production_from_deprecated_too(api: Api) -> None:
    make_prompt(api)
    change(api, "published", "deprecated")
    api.expect(204, "DELETE", "/v1/prompts/greeter/labels/production")

    assert api.put(LIFECYCLE, {"state": "published"}).status_code == 409


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "/state"),
        ({"state": "retired"}, "/state"),
        ({"state": "Draft"}, "/state"),
        ({"state": None}, "/state"),
        ({"state": "archived", "reason": "x" * 501}, "/reason"),
        ({"state": "archived", "force": True}, "/force"),
    ],
)
def test_a_bad_change_is_named(api: Api, body: Any, named: str) -> None:
    make_prompt(api)
    before = everything()

    answer = api.put(LIFECYCLE, body)

    assert (answer.status_code, pointers(answer)) == (422, [named])
    assert everything() == before


def test_an_archived_prompt_is_not_run_and_can_be_read(api: Api) -> None:
    make_triage(api, cases=12)
    change(api, "archived", name="triage")
    before = everything()

    refused = {
        "run": api.post("/v1/executions:run", run_body("triage", variables={"ticket": "a"})),
        "submit": api.post("/v1/executions:submit", run_body("triage@v1", variables={"ticket": "a"})),
        "dataset": api.post("/v1/executions:batch", {"prompt_name": "triage", "dataset": "tickets"}),
        "evaluation": api.post("/v1/evaluations", evaluation_body()),
    }

    assert {name: answer.status_code for name, answer in refused.items()} == dict.fromkeys(refused, 409)
    assert everything() == before
    assert api.expect(200, "GET", "/v1/prompts/triage")["active_version"]["version_number"] == 1
    change(api, "draft", name="triage")
    api.expect(202, "POST", "/v1/executions:submit", run_body("triage", variables={"ticket": "a"}))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", LIFECYCLE, {"state": "archived"}),
        ("POST", "/v1/projects/default/archive", None),
        ("DELETE", "/v1/projects/atlas", None),
    ],
)
def test_what_died_is_not_requeued_while_it_could_not_be_run(api: Api, method: str, path: str, body: Any) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    project = "atlas" if "atlas" in path else "default"
    make_prompt(api, project=project)
    run = api.expect(202, "POST", "/v1/executions:submit", run_body(project=project))
    [job_id] = fail(run["execution_id"])
    api.request(method, path, body)
    before = everything()

    one = api.post(f"/v1/jobs/{job_id}/requeue")
    many = api.expect(200, "POST", "/v1/jobs/requeue", {"queue": "executions"})

    assert (one.status_code, many["requeued"]) == (409, 0)
    assert "archived or deleted" in one.get_json()["detail"]
    assert everything() == before


def test_dead_runs_that_cannot_be_run_keep_no_place_from_those_that_can(api: Api) -> None:
    runs = []
    for name in ("greeter", "farewell"):
        make_prompt(api, name)
        runs += [api.expect(202, "POST", "/v1/executions:submit", run_body(name))["execution_id"]]
    fail(*runs)
    change(api, "archived")

    many = api.expect(200, "POST", "/v1/jobs/requeue", {"queue": "executions", "limit": 1})

    assert many["requeued"] == 1


def test_an_item_of_a_batch_that_is_archived_stops_no_other(api: Api) -> None:
    make_prompt(api)
    make_prompt(api, "farewell", template="Say bye to {{ name }}.")
    change(api, "archived", name="farewell")

    answer = api.expect(202, "POST", "/v1/executions:batch", {"items": [run_body(), run_body("farewell")]})

    assert (answer["accepted"], answer["rejected"]) == (1, 1)
    assert answer["results"][1]["error"]["code"] == "conflict"
    assert count(Execution) == 1


def test_a_deprecated_prompt_runs_and_says_since_when(api: Api, drain: Drain) -> None:
    make_prompt(api, model=MODEL)
    change(api, "published")
    body = {"prompt_name": "greeter", "variables": {"name": "Ada"}}
    fine = api.post("/v1/executions:submit", body)
    change(api, "deprecated")

    answers = [api.post("/v1/executions:submit", body)]
    answers += [api.post("/v1/executions:run", body, headers={"Prefer": "wait=0"})]

    with_header = [answer.headers.get("Deprecation", "") for answer in answers]
    assert "Deprecation" not in fine.headers
    assert [answer.status_code for answer in answers] == [202, 202]
    assert with_header[0] == with_header[1]
    since = api.expect(200, "GET", LIFECYCLE)["data"][0]["changed_at"]
    assert with_header[0] == f"@{int(datetime.fromisoformat(since).timestamp())}"
    assert drain() == 3


def test_a_prompt_that_is_published_again_is_no_longer_deprecated(api: Api) -> None:
    make_prompt(api)
    change(api, "published", "deprecated", "published")

    answer = api.post("/v1/executions:submit", run_body())

    assert "Deprecation" not in answer.headers


def test_several_prompts_are_moved_on_each_as_far_as_it_can_be(api: Api) -> None:
    for name in ("one", "two"):
        make_prompt(api, name, template=f"this is {name}")
    api.expect(200, "PUT", "/v1/prompts/bare", {"template_source": "no label"})
    names = ["two", "bare", "nowhere", "one"]

    answer = api.expect(200, "POST", "/v1/lifecycle:batch", {"names": names, "state": "published", "reason": "go"})

    again = api.expect(200, "POST", "/v1/lifecycle:batch", {"names": names, "state": "published"})

    assert (answer["changed"], answer["failed"]) == (2, 2)
    assert (again["changed"], again["failed"]) == (0, 2)  # the state that they have is no change
    assert [item["name"] for item in answer["results"]] == names
    assert [item.get("state") for item in answer["results"]] == ["published", "draft", None, "published"]
    assert [item.get("error", {}).get("code") for item in answer["results"]] == [None, "conflict", "not_found", None]
    assert [state_of(api, name) for name in ("one", "two", "bare")] == ["published", "published", "draft"]
    assert count(LifecycleChange) == len(event_data("prompt.lifecycle_changed")) == 2


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"state": "archived"}, "/names"),
        ({"names": [], "state": "archived"}, "/names"),
        ({"names": ["a"] * 501, "state": "archived"}, "/names"),
        ({"names": [1], "state": "archived"}, "/names/0"),
        ({"names": ["a"]}, "/state"),
        ({"names": ["a"], "state": "archived", "project": "nowhere"}, "/project"),
    ],
)
def test_a_bad_batch_is_named(api: Api, body: Any, named: str) -> None:
    answer = api.post("/v1/lifecycle:batch", body)

    assert (answer.status_code, pointers(answer)) in [(422, [named]), (404, [named])]


def test_the_prompts_in_each_state_are_counted(api: Api, as_user: Callable[..., Api]) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    make_prompt(api, "elsewhere", project="atlas")
    for name, state in (("a", "draft"), ("b", "published"), ("c", "published"), ("d", "archived")):
        make_prompt(api, name)
        change(api, *WAY[state], name=name)

    def counted(query: str = "") -> dict[str, int]:
        counts: dict[str, int] = api.expect(200, "GET", f"/v1/lifecycle{query}")["counts"]
        return counts

    assert counted() == {"draft": 2, "published": 2, "deprecated": 0, "archived": 1}
    stranger = as_user(workspace="elsewhere", role=Role.ADMIN).expect(200, "GET", "/v1/lifecycle")
    assert set(stranger["counts"].values()) == {0}
    assert counted("?project=atlas") == {"draft": 1, "published": 0, "deprecated": 0, "archived": 0}
