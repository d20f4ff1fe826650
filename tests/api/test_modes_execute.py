"""POST /v1/prompts/{name}/execute: prompts that live in code, over the same path as every other run."""

from collections.abc import Callable
from typing import Any

import pytest

from shared.models import Execution, Job, Role
from tests.api.test_executions_run import Worker
from tests.rows import count
from tests.support import MODEL, Api, Drain, make_prompt, pointers

PATH = "/v1/prompts/WELCOME/execute"
VARIABLES = {"name": "Ada"}


def register(api: Api, source: str = "Hello {{ name }}!", **fields: Any) -> int:
    prompt = {"name": "WELCOME", "template_source": source, **fields}
    return int(api.expect(200, "POST", "/v1/prompts/register-code", {"prompts": [prompt]})["registered"][0]["version"])


def execution(api: Api, answer: Any) -> Any:
    return api.expect(200, "GET", f"/v1/executions/{answer['execution_id']}")


def test_a_sync_execution_answers_with_the_response_and_what_was_used(api: Api, drain: Drain) -> None:
    register(api, model=MODEL)

    with Worker(drain):
        done = api.expect(200, "POST", PATH, {"variables": VARIABLES})

    recorded = execution(api, done)
    assert (done["prompt_name"], done["prompt_mode"], done["version_used"]) == ("WELCOME", "tracking", 1)
    assert (done["status"], done["mode"]) == ("succeeded", "sync")
    assert done["response_text"] == recorded["response_text"] != ""
    assert done["telemetry"] == recorded["telemetry"]
    assert done["telemetry"]["prompt_tokens"] > 0
    assert recorded["messages"] == [{"role": "user", "content": "Hello Ada!"}]


def test_an_async_execution_is_a_202_with_a_location_and_runs_in_the_batch_lane(api: Api, drain: Drain) -> None:
    register(api, model=MODEL)
    body = {"variables": VARIABLES, "mode": "async", "environment": "prod", "correlation_id": "order-42"}

    answer = api.post(PATH, body)
    depth = api.expect(200, "GET", "/v1/status")["queue_depth"]
    drain()

    done = api.get(answer.headers["Location"]).get_json()
    assert (answer.status_code, answer.get_json()["status"], answer.get_json()["mode"]) == (202, "queued", "async")
    assert (depth["executions"], depth["interactive"]) == (1, 0)
    assert (done["status"], done["environment"], done["correlation_id"]) == ("succeeded", "prod", "order-42")


def test_a_sync_execution_whose_wait_is_over_is_a_202(api: Api) -> None:
    register(api, model=MODEL)

    answer = api.post(PATH, {"variables": VARIABLES}, headers={"Prefer": "wait=0"})

    assert (answer.status_code, answer.get_json()["response_text"]) == (202, None)
    assert answer.headers["Location"].endswith(answer.get_json()["execution_id"])


def test_without_a_version_the_current_one_is_run_and_a_pinned_one_stays(api: Api) -> None:
    for source in ("one", "two", "one"):
        register(api, source, model=MODEL)

    used = [api.expect(202, "POST", PATH, {"mode": "async", **pin})["version_used"] for pin in ({}, {"version": 2}, {})]
    register(api, "two", model=MODEL)

    assert used == [1, 2, 1]
    assert api.expect(202, "POST", PATH, {"mode": "async"})["version_used"] == 2


def test_a_failed_execution_is_a_200_that_says_why(api: Api, drain: Drain) -> None:
    """The origin rolled the row of a failed call back with the request."""
    register(api)

    with Worker(drain):
        done = api.expect(200, "POST", PATH, {"variables": VARIABLES, "model_name": "gpt-4o-mini"})

    assert (done["status"], done["error_type"], done["response_text"]) == ("failed", "no_credentials", None)
    assert "OPENAI_API_KEY" in done["error_message"]


@pytest.mark.parametrize(
    ("own", "asked", "used"),
    [
        (MODEL, {}, ("simulated", "simulated-small")),
        (MODEL, {"model_name": "simulated-large"}, ("simulated", "simulated-large")),
        (MODEL, {"model_name": "gpt-4o-mini"}, ("openai", "gpt-4o-mini")),
        (MODEL, {"model_name": "of-my-own"}, ("simulated", "of-my-own")),
        (MODEL, {"model_name": "of-my-own", "provider": "openai"}, ("openai", "of-my-own")),
        (None, {"model_name": "gpt-4o"}, ("openai", "gpt-4o")),
        (None, {"model_name": "simulated-small", "provider": "simulated"}, ("simulated", "simulated-small")),
    ],
)
def test_the_model_is_that_of_the_request_else_of_the_version(
    api: Api, own: Any, asked: dict[str, Any], used: tuple[str, str]
) -> None:
    register(api, **({"model": own} if own else {}))

    answer = api.expect(202, "POST", PATH, {"variables": VARIABLES, "mode": "async", **asked})

    recorded = execution(api, answer)
    assert (recorded["provider"], recorded["model_name"]) == used


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"variables": VARIABLES}, "/model_name"),
        ({"variables": VARIABLES, "provider": "simulated"}, "/model_name"),
        ({"variables": VARIABLES, "model_name": "of-my-own"}, "/provider"),
        ({"variables": VARIABLES, "model_name": "gpt-4o", "provider": "acme"}, "/provider"),
        ({"variables": {}, "model_name": "gpt-4o"}, "/variables/name"),
        ({"variables": VARIABLES, "model_name": "gpt-4o", "params": {"top_k": 3}}, "/params/top_k"),
        ({"variables": VARIABLES, "model_name": "gpt-4o", "mode": "later"}, "/mode"),
        ({"variables": VARIABLES, "model_name": "gpt-4o", "version": 0}, "/version"),
        ({"variables": VARIABLES, "model_name": "gpt-4o", "label": "staging"}, "/label"),
    ],
)
def test_what_cannot_be_run_is_refused_by_field_and_leaves_no_row(api: Api, body: Any, named: str) -> None:
    """In the origin each of these was a 500."""
    register(api)

    answer = api.post(PATH, body)

    assert (answer.status_code, pointers(answer)) == (422, [named])
    assert (count(Execution), count(Job)) == (0, 0)


def test_a_version_that_does_not_exist_is_a_404_that_names_it(api: Api) -> None:
    register(api, model=MODEL)

    answer = api.post(PATH, {"variables": VARIABLES, "version": 2})

    assert (answer.status_code, pointers(answer)) == (404, ["/version"])


def test_a_prompt_that_is_not_there_is_a_404(api: Api) -> None:
    assert api.post(PATH, {"variables": VARIABLES, "model_name": "gpt-4o"}).status_code == 404


def test_a_prompt_in_full_mode_is_a_409_that_names_the_other_way(api: Api) -> None:
    make_prompt(api, "greeter", model=MODEL)

    answer = api.post("/v1/prompts/greeter/execute", {"variables": VARIABLES})

    assert (answer.status_code, answer.get_json()["code"]) == (409, "conflict")
    assert "POST /v1/executions:run" in answer.get_json()["detail"]
    assert count(Execution) == 0


def test_a_repeated_execution_with_a_key_is_the_same_one_as_it_stands(api: Api, drain: Drain) -> None:
    register(api, model=MODEL)
    key, body = {"Idempotency-Key": "order-42"}, {"variables": VARIABLES, "mode": "async"}
    first = api.post(PATH, body, headers=key)
    drain()
    api.expect(200, "POST", "/v1/prompts/WELCOME/mode", {"mode": "full"})

    second = api.post(PATH, body, headers=key)
    other = api.post(PATH, {**body, "variables": {"name": "Bob"}}, headers=key)

    assert second.headers["Idempotent-Replayed"] == "true"
    assert second.get_json()["execution_id"] == first.get_json()["execution_id"]
    assert (first.get_json()["status"], second.get_json()["status"]) == ("queued", "succeeded")
    assert (other.status_code, other.get_json()["code"]) == (422, "idempotency_mismatch")
    assert count(Execution) == 1


def test_a_viewer_and_a_stranger_execute_nothing(api: Api, as_user: Callable[..., Api]) -> None:
    register(api, model=MODEL)
    viewer = as_user(role=Role.VIEWER)
    stranger = as_user(workspace="elsewhere", user="stranger")

    statuses = [someone.post(PATH, {"variables": VARIABLES}).status_code for someone in (viewer, stranger)]

    assert statuses == [403, 404]
    assert count(Execution) == 0
