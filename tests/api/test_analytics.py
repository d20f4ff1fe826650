"""/v1/analytics: what the endpoints say, and what they refuse. How it is counted: tests/domain/test_analytics.py."""

from datetime import timedelta
from typing import Any

import pytest

from shared.domain.tenants import Caller
from tests.executed import MONDAY, insert_executions, insert_feedback, make_versions
from tests.support import Api, Drain, make_prompt, pointers, run_body

WEEK = "from=2026-06-01T00:00:00Z&to=2026-06-08T00:00:00Z"
FIGURES = {
    *("executions", "succeeded", "failed", "canceled", "success_rate", "prompt_tokens", "response_tokens"),
    *("cost_usd", "without_cost", "latency_ms"),
}


def test_the_summary_of_real_runs_agrees_with_what_the_executions_say(api: Api, drain: Drain) -> None:
    make_prompt(api)
    for name in ("Ada", "Bea", "Cleo"):
        api.expect(202, "POST", "/v1/executions:submit", run_body(variables={"name": name}))
    drain()
    rows = api.expect(200, "GET", "/v1/executions")["data"]

    summary = api.expect(200, "GET", "/v1/analytics/summary")

    total = summary["total"]
    assert set(total) == FIGURES
    assert (total["executions"], total["succeeded"], total["success_rate"]) == (3, 3, 100)
    assert total["cost_usd"] == pytest.approx(sum(row["cost_usd"] for row in rows))
    assert total["prompt_tokens"] == sum(row["telemetry"]["prompt_tokens"] for row in rows)
    assert total["latency_ms"]["n"] == 3
    assert summary["active_prompts"] == 1
    assert [group["key"]["prompt_name"] for group in summary["by_prompt"]] == ["greeter"]
    assert [group["key"]["model_name"] for group in summary["by_model"]] == ["simulated-small"]
    assert (summary["errors"], summary["feedback"]) == ([], {"n": 0, "mean": None})


def test_usage_is_a_series_with_every_bucket_in_utc(api: Api, admin: Caller) -> None:
    insert_executions(admin, [{"created_at": MONDAY + timedelta(days=2), "latency_ms": 7}])

    usage = api.expect(200, "GET", f"/v1/analytics/usage?{WEEK}")

    (series,) = usage["series"]
    assert (usage["interval"], usage["left_out"], series["key"]) == ("day", 0, {})
    assert usage["window"] == {"from": "2026-06-01T00:00:00+00:00", "to": "2026-06-08T00:00:00+00:00"}
    assert [bucket["start"] for bucket in series["buckets"]][::6] == [
        "2026-06-01T00:00:00+00:00",
        "2026-06-07T00:00:00+00:00",
    ]
    assert [bucket["executions"] for bucket in series["buckets"]] == [0, 0, 1, 0, 0, 0, 0]
    assert series["buckets"][2]["latency_ms"] == {"n": 1, "p50": 7, "p95": 7, "p99": 7}
    assert series["buckets"][0]["latency_ms"] == {"n": 0, "p50": None, "p95": None, "p99": None}


def test_usage_by_prompt_names_the_prompts(api: Api, admin: Caller) -> None:
    for name, runs in (("often", 3), ("seldom", 1)):
        insert_executions(admin, [{}] * runs, version=make_versions(admin, name=name)[0])

    usage = api.expect(200, "GET", f"/v1/analytics/usage?{WEEK}&group_by=prompt&interval=week")

    assert [(one["key"]["prompt_name"], one["total"]["executions"]) for one in usage["series"]] == [
        ("often", 3),
        ("seldom", 1),
    ]


def test_a_prompt_is_shown_by_version(api: Api, admin: Caller) -> None:
    first, second = make_versions(admin, 2)
    api.expect(200, "PUT", "/v1/prompts/greeter/labels/production", {"version_number": 1})
    (rated,) = insert_executions(admin, [{"cost_nano": 1_500_000_000}], version=first)
    insert_executions(admin, [{"state": "failed", "error_type": "timeout"}], version=second)
    insert_feedback(admin, {rated: 0.75})

    shown = api.expect(200, "GET", f"/v1/analytics/prompts/greeter?{WEEK}")

    newer, older = shown["versions"]
    assert (newer["version_number"], newer["success_rate"], newer["errors"]) == (2, 0, {"timeout": 1})
    assert (older["version_number"], older["labels"], older["cost_usd"]) == (1, ["production"], 1.5)
    assert older["feedback"] == shown["feedback"] == {"n": 1, "mean": 0.75}
    assert (shown["prompt_name"], shown["total"]["executions"], shown["left_out"]) == ("greeter", 2, 0)


def test_errors_are_shown_by_type(api: Api, admin: Caller) -> None:
    insert_executions(admin, [{"state": "failed", "error_type": "timeout"}, {}])

    errors = api.expect(200, "GET", f"/v1/analytics/errors?{WEEK}")

    (timeout,) = errors["classes"]
    assert (errors["executions"], timeout["error_type"], timeout["executions"]) == (2, "timeout", 1)
    assert timeout["first_at"] == timeout["last_at"] == "2026-06-01T00:00:00+00:00"


@pytest.mark.parametrize("path", ["summary", "usage", "errors"])
def test_a_prompt_or_a_project_that_is_named_limits_what_is_counted(api: Api, admin: Caller, path: str) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    for project, runs in (("default", 1), ("atlas", 2)):
        insert_executions(admin, [{}] * runs, version=make_versions(admin, project=project)[0])
    insert_executions(admin, [{}] * 4, version=make_versions(admin, name="other")[0])

    def counted(query: str) -> Any:
        answer = api.expect(200, "GET", f"/v1/analytics/{path}?{WEEK}{query}")
        return find(answer)["executions"]

    find = {"summary": lambda a: a["total"], "usage": lambda a: a["series"][0]["total"], "errors": lambda a: a}[path]
    queries = ["", "&project=default", "&project=atlas", "&prompt_name=greeter", "&prompt_name=greeter&project=atlas"]
    assert [counted(query) for query in queries] == [7, 5, 2, 1, 2]


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("summary?from=2026-06-01", "?from"),
        ("summary?from=2026-06-02T00:00:00Z&to=2026-06-01T00:00:00Z", "?from"),
        ("summary?from=2025-06-01T00:00:00Z&to=2026-06-03T00:00:00Z", "?from"),
        ("summary?prompt_name=nope", "?prompt_name"),
        ("summary?project=nope", "?project"),
        ("summary?group_by=prompt", "?group_by"),
        ("usage?group_by=label", "?group_by"),
        ("usage?interval=minute", "?interval"),
        (f"usage?interval=hour&{WEEK.replace('06-08', '09-08')}", "?interval"),
        ("errors?purpose=fun", "?purpose"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused_by_name(api: Api, path: str, pointer: str) -> None:
    answer = api.get(f"/v1/analytics/{path}")

    assert answer.status_code in (404, 422)
    assert pointers(answer) == [pointer]


def test_a_prompt_that_is_not_there_is_a_404(api: Api) -> None:
    assert api.get("/v1/analytics/prompts/nope").status_code == 404


def test_the_answer_has_the_fields_of_its_description_and_no_others(api: Api, admin: Caller, flask_client: Any) -> None:
    (version,) = make_versions(admin)
    insert_executions(admin, [{"state": "failed", "error_type": "timeout"}], version=version)
    document = flask_client.get("/openapi.json").get_json()

    for path in ("summary", "usage", "errors", "prompts/{name}"):
        operation = document["paths"][f"/v1/analytics/{path}"]["get"]
        reference = operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
        answer = api.expect(200, "GET", f"/v1/analytics/{path.replace('{name}', 'greeter')}?{WEEK}")

        check(answer, {"$ref": reference}, document)


def check(value: Any, schema: Any, document: Any) -> None:
    """The fields of this value, and of all that is in it, are those of the schema."""
    while "$ref" in schema or "allOf" in schema:
        reference = schema.get("$ref") or schema["allOf"][0]["$ref"]
        schema = document["components"]["schemas"][reference.rpartition("/")[2]]
    if isinstance(value, list):
        for item in value:
            check(item, schema["items"], document)
    elif isinstance(value, dict) and "properties" in schema:
        assert set(value) == set(schema["properties"])
        for name, inner in value.items():
            check(inner, schema["properties"][name], document)
