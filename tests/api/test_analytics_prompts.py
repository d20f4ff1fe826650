"""GET /v1/analytics/prompts: counted from the rows, by the mode of the prompt."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.domain.tenants import Caller
from shared.models import Execution, Prompt, Role
from tests.support import MODEL, Api, Drain, evaluation_body, make_prompt, make_triage, pointers, run_body

PATH = "/v1/analytics/prompts"
NOTHING: dict[str, Any] = {
    "execution_count": 0,
    "succeeded": 0,
    "failed": 0,
    "canceled": 0,
    "avg_latency_ms": None,
    "p50_latency_ms": None,
    "p95_latency_ms": None,
    "p99_latency_ms": None,
    "total_prompt_tokens": 0,
    "total_response_tokens": 0,
    "total_cost_usd": 0.0,
    "unpriced_executions": 0,
}


def usage(api: Api, query: str = "") -> Any:
    return api.expect(200, "GET", PATH + query)


def register(api: Api, name: str = "WELCOME", **fields: Any) -> None:
    prompt = {"name": name, "template_source": "Hello {{ name }}!", "model": MODEL}
    api.expect(200, "POST", "/v1/prompts/register-code", {"prompts": [prompt], **fields})


def ran(admin: Caller, name: str, count: int = 1, **fields: Any) -> None:
    """Executions of a prompt that have ended, as a worker would have left them."""
    with db.transaction() as session:
        prompt = session.scalars(sa.select(Prompt).where(Prompt.name == name)).one()
        for _ in range(count):
            row: dict[str, Any] = {"state": "succeeded", "provider": "simulated", "model_name": "m", "messages": []}
            row |= {"workspace_id": admin.workspace_id, "project_id": prompt.project_id, "prompt_id": prompt.id}
            session.add(Execution(**row | fields))


@pytest.fixture
def both(api: Api) -> None:
    """A prompt in each mode."""
    make_prompt(api, model=MODEL)
    register(api)


def test_without_any_row_there_are_zeros_and_nulls(api: Api) -> None:
    assert usage(api) == {
        "mode": "all",
        "summary": {
            "total_executions": 0,
            "full_mode_prompts": 0,
            "tracking_mode_prompts": 0,
            "succeeded": 0,
            "failed": 0,
            "canceled": 0,
            "total_prompt_tokens": 0,
            "total_response_tokens": 0,
            "total_cost_usd": 0.0,
            "unpriced_executions": 0,
        },
        "by_mode": {mode: {"prompt_count": 0, **NOTHING} for mode in ("full", "tracking")},
    }


def test_every_figure_of_a_real_run_is_that_of_its_row(api: Api, both: None, drain: Drain) -> None:
    run = api.expect(202, "POST", "/v1/prompts/WELCOME/execute", {"variables": {"name": "Ada"}, "mode": "async"})
    drain()

    shown = usage(api)

    row = api.expect(200, "GET", f"/v1/executions/{run['execution_id']}")
    telemetry = row["telemetry"]
    assert shown["by_mode"]["full"] == {"prompt_count": 1, **NOTHING}
    assert shown["by_mode"]["tracking"] == {
        **NOTHING,
        "prompt_count": 1,
        "execution_count": 1,
        "succeeded": 1,
        "avg_latency_ms": telemetry["latency_ms"],
        **{f"p{percent}_latency_ms": telemetry["latency_ms"] for percent in (50, 95, 99)},
        "total_prompt_tokens": telemetry["prompt_tokens"],
        "total_response_tokens": telemetry["response_tokens"],
        "total_cost_usd": row["cost_usd"],
    }
    assert shown["summary"]["total_cost_usd"] == row["cost_usd"] > 0


def test_counts_and_percentiles_are_those_of_each_mode(api: Api, both: None, admin: Caller) -> None:
    for latency in range(1, 101):
        ran(admin, "greeter", latency_ms=latency, prompt_tokens=2, response_tokens=3, cost_nano=1_000_000)
    for latency in (30, 10, 20):
        ran(admin, "WELCOME", latency_ms=latency, cost_nano=0)
    ran(admin, "WELCOME", 2, state="failed")
    ran(admin, "WELCOME", state="canceled")
    ran(admin, "WELCOME", state="queued")

    shown = usage(api)

    full, tracking = shown["by_mode"]["full"], shown["by_mode"]["tracking"]
    assert (full["execution_count"], full["succeeded"], full["avg_latency_ms"]) == (100, 100, 50.5)
    assert [full[f"p{percent}_latency_ms"] for percent in (50, 95, 99)] == [50.5, 95.05, 99.01]
    assert (full["total_prompt_tokens"], full["total_response_tokens"], full["total_cost_usd"]) == (200, 300, 0.1)
    assert [tracking[name] for name in ("execution_count", "succeeded", "failed", "canceled")] == [7, 3, 2, 1]
    assert (tracking["avg_latency_ms"], tracking["p50_latency_ms"], tracking["p99_latency_ms"]) == (20, 20, 29.8)
    summary = shown["summary"]
    assert [summary[name] for name in ("total_executions", "succeeded", "failed", "canceled")] == [107, 103, 2, 1]
    assert (summary["full_mode_prompts"], summary["tracking_mode_prompts"]) == (1, 1)


def test_an_answer_without_a_price_is_counted_and_its_cost_is_not_made_up(api: Api, both: None, admin: Caller) -> None:
    ran(admin, "greeter", 2, cost_nano=None)

    unknown = usage(api)
    ran(admin, "greeter", cost_nano=500_000_000)
    partly = usage(api)

    assert (unknown["summary"]["total_cost_usd"], unknown["summary"]["unpriced_executions"]) == (None, 2)
    assert (unknown["by_mode"]["full"]["total_cost_usd"], unknown["by_mode"]["tracking"]["total_cost_usd"]) == (None, 0)
    assert (partly["summary"]["total_cost_usd"], partly["summary"]["unpriced_executions"]) == (0.5, 2)


@pytest.mark.parametrize(("mode", "runs"), [("full", 2), ("tracking", 3)])
def test_one_mode_alone_shows_its_own_runs(api: Api, both: None, admin: Caller, mode: str, runs: int) -> None:
    ran(admin, "greeter", 2)
    ran(admin, "WELCOME", 3)

    shown = usage(api, f"?mode={mode}")

    assert (shown["mode"], list(shown["by_mode"])) == (mode, [mode])
    assert shown["summary"]["total_executions"] == shown["by_mode"][mode]["execution_count"] == runs
    assert (shown["summary"]["full_mode_prompts"], shown["summary"]["tracking_mode_prompts"]) == (1, 1)


def test_runs_count_under_the_mode_that_the_prompt_has_now(api: Api, both: None, admin: Caller) -> None:
    ran(admin, "WELCOME", 3)
    api.expect(200, "POST", "/v1/prompts/WELCOME/mode", {"mode": "full"})

    shown = usage(api)

    assert shown["by_mode"]["full"]["execution_count"] == 3
    assert shown["by_mode"]["tracking"] == {"prompt_count": 0, **NOTHING}


def test_runs_of_a_deleted_prompt_still_count_and_the_prompt_does_not(api: Api, both: None, admin: Caller) -> None:
    ran(admin, "greeter", 2)
    api.expect(200, "DELETE", "/v1/prompts/greeter")

    shown = usage(api)["by_mode"]["full"]

    assert (shown["prompt_count"], shown["execution_count"]) == (0, 2)


def test_the_window_holds_its_start_and_not_its_end(api: Api, both: None, admin: Caller) -> None:
    for hour in (9, 10, 11, 12):
        ran(admin, "greeter", created_at=datetime(2026, 3, 1, hour, tzinfo=UTC))

    counts = {
        query: usage(api, query)["summary"]["total_executions"]
        for query in (
            "?from=2026-03-01T10:00:00Z&to=2026-03-01T12:00:00Z",
            "?from=2026-03-01T12:00:00%2B01:00",
            "?to=2026-03-01T10:00:00Z",
            "?from=2030-01-01T00:00:00Z",
        )
    }

    assert list(counts.values()) == [2, 2, 1, 0]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("?mode=code", "?mode"),
        ("?from=yesterday", "?from"),
        ("?from=2026-03-01T10:00:00", "?from"),
        ("?to=", "?to"),
        ("?from=2026-03-01T10:00:00Z&to=2026-03-01T10:00:00Z", "?to"),
        ("?start=2026-03-01T10:00:00Z", "?start"),
    ],
)
def test_a_parameter_that_cannot_be_meant_is_named(api: Api, query: str, named: str) -> None:
    answer = api.get(PATH + query)

    assert (answer.status_code, pointers(answer)) == (422, [named])


def test_the_calls_of_an_evaluation_are_not_runs(api: Api, drain: Drain) -> None:
    make_triage(api, cases=12)
    api.expect(202, "POST", "/v1/evaluations", evaluation_body())
    api.expect(202, "POST", "/v1/executions:submit", run_body("triage", variables={"ticket": "it broke"}))
    drain()

    assert usage(api)["summary"]["total_executions"] == 1


def test_a_project_shows_its_own_and_nobody_elses(
    api: Api, as_user: Callable[..., Api], admin: Caller, both: None
) -> None:
    atlas = api.expect(201, "POST", "/v1/projects", {"name": "atlas"})["project_id"]
    register(api, "ATLAS", project="atlas")
    ran(admin, "WELCOME", 2)
    ran(admin, "ATLAS", 5)
    limited, stranger = as_user(projects=["atlas"], role=Role.VIEWER), as_user(workspace="elsewhere", user="stranger")

    shown = [usage(api), usage(api, "?project=atlas"), usage(api, f"?project={atlas}"), usage(limited), usage(stranger)]

    assert [item["summary"]["total_executions"] for item in shown] == [7, 5, 5, 5, 0]
    assert [item["summary"]["tracking_mode_prompts"] for item in shown] == [2, 1, 1, 1, 0]
    assert stranger.get(f"{PATH}?project={atlas}").status_code == 404
    assert limited.get(f"{PATH}?project=default").status_code == 404
    assert pointers(api.get(f"{PATH}?project={uuid.uuid4()}")) == ["?project"]
