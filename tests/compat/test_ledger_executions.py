"""PromptLedger's spelling of executions; and what went wrong there that no other test tries."""

from typing import Any

import pytest
from click.testing import CliRunner

from app import admin as commands
from shared.domain.tenants import Caller
from shared.models import Execution
from tests.executed import insert_executions, make_versions
from tests.rows import count
from tests.servers import RedisServer
from tests.support import Api, Drain, make_prompt, pointers, run_body

NOW = {"Prefer": "wait=0"}


@pytest.mark.parametrize(("word", "mode"), [("run", "sync"), ("submit", "async")])
def test_the_slash_does_what_the_colon_does(api: Api, drain: Drain, word: str, mode: str) -> None:
    make_prompt(api)
    body = run_body(version_number=None, environment="dev", params={"max_new_tokens": 800, "temperature": 0.2})

    slash = api.post(f"/v1/executions/{word}", body, headers=NOW)
    colon = api.post(f"/v1/executions:{word}", body, headers=NOW)

    assert slash.status_code == colon.status_code == 202
    assert set(slash.get_json()) == set(colon.get_json())
    assert (slash.get_json()["status"], slash.get_json()["mode"]) == ("queued", mode)
    drain()
    done = api.get(slash.headers["Location"]).get_json()
    assert (done["status"], done["params"]) == ("succeeded", {"max_new_tokens": 800, "temperature": 0.2})
    assert set(done["telemetry"]) == {"prompt_tokens", "response_tokens", "latency_ms"}


@pytest.mark.parametrize("word", ["run", "submit"])
def test_a_key_in_the_body_makes_one_execution_and_replays_it(api: Api, word: str) -> None:
    make_prompt(api)
    body = run_body(idempotency_key="k")

    first, second = (api.post(f"/v1/executions/{word}", body, headers=NOW) for _ in range(2))
    other = api.post(f"/v1/executions/{word}", {**body, "environment": "prod"}, headers=NOW)

    assert first.get_json()["execution_id"] == second.get_json()["execution_id"]
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert (other.status_code, other.get_json()["code"]) == (422, "idempotency_mismatch")
    assert count(Execution) == 1


def test_the_header_comes_before_the_key_in_the_body(api: Api) -> None:
    make_prompt(api)
    header = {**NOW, "Idempotency-Key": "k"}

    for key in ("a", "b"):
        api.post("/v1/executions/submit", run_body(idempotency_key=key), headers=header)
    api.post("/v1/executions/submit", run_body(idempotency_key=None))

    assert count(Execution) == 2


@pytest.mark.parametrize("word", ["run", "submit"])
@pytest.mark.parametrize(
    ("fields", "status", "pointer"),
    [
        ({"prompt_name": "nobody"}, 404, "/prompt_name"),
        ({"version_number": 9}, 404, "/version_number"),
        ({"variables": {}}, 422, "/variables/name"),
        ({"model": {"provider": "simulated"}}, 422, "/model/model_name"),
        ({"idempotency_key": ""}, 422, "/idempotency_key"),
    ],
)
def test_what_is_wrong_is_named_and_leaves_no_row(api: Api, word: str, fields: Any, status: int, pointer: str) -> None:
    make_prompt(api)

    answer = api.post(f"/v1/executions/{word}", run_body(**fields))

    assert (answer.status_code, pointers(answer)) == (status, [pointer])
    assert count(Execution) == 0


def test_executions_are_listed_by_offset_with_the_true_total(api: Api, admin: Caller) -> None:
    (version,) = make_versions(admin)
    (other,) = make_versions(admin, name="other")
    insert_executions(admin, [{}] * 3, version=version)
    insert_executions(admin, [{"state": "failed"}, {}], version=other)

    page = api.expect(200, "GET", "/v1/executions/?prompt_name=greeter&limit=2&offset=1")
    failed = api.expect(200, "GET", "/v1/executions/?status=failed")
    everything = api.expect(200, "GET", "/v1/executions/")

    assert {name: page[name] for name in ("total", "limit", "offset")} == {"total": 3, "limit": 2, "offset": 1}
    assert [set(row) for row in page["executions"]] == [
        {"execution_id", "prompt_name", "status", "mode", "created_at", "completed_at"}
    ] * 2
    assert [(row["prompt_name"], row["status"]) for row in failed["executions"]] == [("other", "failed")]
    assert (everything["total"], len({row["execution_id"] for row in everything["executions"]})) == (5, 5)


@pytest.mark.parametrize(
    ("query", "status", "pointer"),
    [("prompt_name=nobody", 404, "?prompt_name"), ("status=done", 422, "?status"), ("offset=-1", 422, "?offset")],
)
def test_a_list_that_cannot_be_is_refused(api: Api, query: str, status: int, pointer: str) -> None:
    answer = api.get(f"/v1/executions/?{query}")

    assert (answer.status_code, pointers(answer)) == (status, [pointer])


def test_only_the_version_at_production_is_active(api: Api) -> None:
    """There, setting another one active left the one before active too."""
    for source in ("one", "two", "three"):
        api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": source, "set_active": source != "three"})

    versions = api.expect(200, "GET", "/v1/prompts/greeter/versions")["data"]

    assert [one["status"] for one in versions] == ["deprecated", "active", "draft"]
    assert all(one["checksum_hash"] == one["template_hash"] for one in versions)
    active = api.expect(200, "GET", "/v1/prompts/greeter")["active_version"]
    assert (active["version_number"], active["status"]) == (2, "active")


def test_health_says_healthy_and_nothing_else(api: Api) -> None:
    assert api.expect(200, "GET", "/health") == {"status": "healthy"}


def test_a_submit_while_redis_is_away_is_accepted_and_done(api: Api, broker: RedisServer, drain: Drain) -> None:
    """There it was committed, answered 500, and never run."""
    make_prompt(api)
    broker.kill()
    try:
        answer = api.post("/v1/executions/submit", run_body())
    finally:
        broker.start()

    assert answer.status_code == 202
    drain()
    assert api.get(answer.headers["Location"]).get_json()["status"] == "succeeded"


@pytest.mark.parametrize("path", ["/v1/prompts", "/api/v1/prompts", "/health"])
def test_no_other_origin_is_let_in_by_a_browser(api: Api, path: str) -> None:
    """There every origin was, with credentials."""
    origin = {"Origin": "https://elsewhere.example"}
    asked = {**origin, "Access-Control-Request-Method": "GET"}

    answers = [api.get(path, headers=origin), api.request("OPTIONS", path, headers=asked)]

    assert [name for answer in answers for name, _ in answer.headers if name.startswith("Access-Control")] == []


def test_models_are_seeded_by_a_command_that_is_there(database: str) -> None:
    """There the documented one was in no package."""
    first, second = (CliRunner().invoke(commands.main, ["seed-models"]) for _ in range(2))

    assert [done.exit_code for done in (first, second)] == [0, 0]
    assert second.output == "0 models added\n"
