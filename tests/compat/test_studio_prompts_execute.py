"""POST /api/v1/prompt-studio/prompts/execute: through the queue, the budget and the ledger of /v1."""

import uuid
from collections.abc import Callable

import pytest

from shared.models import Execution, Role
from tests.compat.studio import NOBODY, Studio, triage
from tests.factories import execution, fail
from tests.rows import count, everything
from tests.support import MODEL, Api, Drain, Worker, make_prompt, pointers

NOW = {"headers": {"Prefer": "wait=0"}}


def greeter(studio: Studio) -> str:
    make_prompt(studio.api, model=MODEL)
    return str(studio.api.expect(200, "GET", "/v1/prompts/greeter/versions/1")["version_id"])


def test_the_answer_of_the_model_is_waited_for(studio: Studio, drain: Drain) -> None:
    prompt_id = greeter(studio)

    with Worker(drain):
        data = studio.data(200, "POST", "/prompts/execute", {"prompt_id": prompt_id, "inputs": {"name": "Ada"}})

    ours = studio.api.expect(200, "GET", f"/v1/executions/{data['execution_id']}")
    telemetry = ours["telemetry"]
    assert data["output"] == ours["response_text"] != ""
    assert data["tokens_used"] == telemetry["prompt_tokens"] + telemetry["response_tokens"] > 0
    assert data["execution_time"] == telemetry["latency_ms"] / 1000
    assert (data["status"], ours["version_id"]) == ("completed", prompt_id)
    assert ours["messages"] == [{"role": "user", "content": "Say hello to Ada."}]


def test_what_takes_longer_is_a_202_with_the_execution_to_poll(studio: Studio) -> None:
    body = {"prompt_id": greeter(studio), "inputs": {"name": "Ada"}}

    answer = studio.request("POST", "/prompts/execute", body, **NOW)

    data = answer.get_json()["data"]
    assert (answer.status_code, data["status"], data["output"]) == (202, "pending", None)
    assert answer.headers["Location"] == f"/v1/executions/{data['execution_id']}"


def test_a_call_that_failed_is_no_200(studio: Studio) -> None:
    body = {"prompt_id": greeter(studio), "inputs": {"name": "Ada"}}
    options = {"headers": {"Prefer": "wait=0", "Idempotency-Key": "one"}}
    made = studio.expect(202, "POST", "/prompts/execute", body, **options)
    fail(made["data"]["execution_id"])

    answer = studio.expect(502, "POST", "/prompts/execute", body, **options)

    assert (answer["error_code"], answer["data"]["status"]) == ("bad_request", "failed")
    assert answer["error"]


def test_the_same_idempotency_key_makes_one_call(studio: Studio) -> None:
    body = {"prompt_id": greeter(studio), "inputs": {"name": "Ada"}}
    options = {"headers": {"Prefer": "wait=0", "Idempotency-Key": "one"}}

    ids = {studio.expect(202, "POST", "/prompts/execute", body, **options)["data"]["execution_id"] for _ in range(2)}

    assert (len(ids), count(Execution)) == (1, 1)


@pytest.mark.parametrize(
    ("named", "model"),
    [
        ({}, ("simulated", "simulated-small")),
        ({"model": "gpt-4o-mini"}, ("openai", "gpt-4o-mini")),
        ({"provider": "openai", "model": "unheard-of"}, ("openai", "unheard-of")),
        ({"model": "unheard-of"}, ("openai", "unheard-of")),
        ({"provider": "openai"}, ("openai", "gpt-3.5-turbo")),
    ],
)
def test_the_model_is_the_named_one_else_the_versions(
    studio: Studio, named: dict[str, str], model: tuple[str, str]
) -> None:
    body = {"prompt_id": greeter(studio), "inputs": {"name": "Ada"}, **named}

    data = studio.data(202, "POST", "/prompts/execute", body, **NOW)

    found = execution(uuid.UUID(data["execution_id"]))
    assert (found.provider, found.model_name) == model


def test_without_any_model_it_is_the_originals_default(studio: Studio) -> None:
    prompt = studio.prompt(studio.project())

    data = studio.data(202, "POST", "/prompts/execute", {"prompt_id": prompt["id"], "inputs": {"name": "x"}}, **NOW)

    found = execution(uuid.UUID(data["execution_id"]))
    assert (found.provider, found.model_name) == ("openai", "gpt-3.5-turbo")


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"inputs": {}}, "/inputs/name"),
        ({"inputs": "x"}, "/inputs"),
        ({"provider": "nobody"}, "/provider"),
        ({"prompt_id": 1}, "/prompt_id"),
        ({"colour": 1}, "/colour"),
    ],
)
def test_a_bad_field_is_named_before_anything_is_queued(
    studio: Studio, fields: dict[str, object], pointer: str
) -> None:
    body = {"prompt_id": greeter(studio), "inputs": {"name": "Ada"}, **fields}
    before = everything()

    answer = studio.request("POST", "/prompts/execute", body)

    assert (answer.status_code, pointers(answer)) == (422, [pointer])
    assert everything() == before


def test_it_runs_no_prompt_that_the_caller_may_not_see(studio: Studio, as_user: Callable[..., Api]) -> None:
    _, prompt_id = triage(studio)
    body = {"prompt_id": prompt_id, "inputs": {"ticket": "x"}}
    studio.project("atlas")
    before = everything()

    strangers = [as_user(workspace="elsewhere", role=Role.ADMIN), as_user(projects=["atlas"], role=Role.ADMIN)]

    for stranger in strangers:
        answer = Studio(stranger).request("POST", "/prompts/execute", body)
        assert (answer.status_code, pointers(answer)) == (404, ["/prompt_id"])
    assert studio.request("POST", "/prompts/execute", {**body, "prompt_id": NOBODY}).status_code == 404
    assert everything()["executions"] == before["executions"]


def test_an_archived_project_runs_nothing(studio: Studio) -> None:
    project = studio.project()
    prompt = studio.prompt(project)
    studio.data(200, "POST", f"/projects/archive/{project['id']}")

    answer = studio.request("POST", "/prompts/execute", {"prompt_id": prompt["id"], "inputs": {"name": "x"}}, **NOW)

    assert answer.status_code == 409
