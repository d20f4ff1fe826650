"""/api/v1/analytics: figures of rows, exact, and null where nothing is known."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.domain.tenants import Caller
from shared.models import State
from tests.compat.store import STORE, data, refusal
from tests.executed import insert_executions, insert_feedback, make_versions
from tests.support import Api

DAY = datetime(2026, 6, 3, 12, tzinfo=UTC)


@pytest.fixture
def june(api: Api, admin: Caller) -> None:
    """Runs of a day, of 100 and 200 ms and one that failed, and one of 900 ms the day after."""
    first, second = make_versions(admin, 2)
    insert_executions(admin, [{"latency_ms": ms, "created_at": DAY} for ms in (100, 200)], version=first)
    failed = {"created_at": DAY, "state": State.FAILED, "error_type": "timeout"}
    insert_executions(admin, [failed, {"latency_ms": 900, "created_at": DAY + timedelta(days=1)}], version=second)


@pytest.fixture
def prompt(api: Api, admin: Caller) -> Any:
    """Version 1 was run an hour ago and 40 days ago, version 2 three times 40 days ago; somebody liked it a little."""
    first, second = make_versions(admin, 2)
    now = datetime.now(UTC)
    recent, old = {"created_at": now - timedelta(hours=1)}, {"created_at": now - timedelta(days=40)}
    ids = insert_executions(admin, [recent, old], version=first)
    insert_executions(admin, [old] * 3, version=second)
    insert_feedback(admin, {ids[0]: 0.5})
    (found,) = data(api, "GET", "/prompts")["items"]
    return found


JUNE = "start_date=2026-06-01&end_date=2026-06-04"


def test_usage_is_counted_day_by_day_from_rows(api: Api, june: None) -> None:
    usage = data(api, "GET", f"/analytics/usage?{JUNE}")

    days = {day["date"]: day["total_requests"] for day in usage["daily_usage"]}
    assert days == {"2026-06-01": 0, "2026-06-02": 0, "2026-06-03": 3, "2026-06-04": 1}
    assert {name: usage[name] for name in ("total_requests", "successful_requests", "failed_requests")} == {
        "total_requests": 4,
        "successful_requests": 3,
        "failed_requests": 1,
    }
    assert [(one["name"], one["total_requests"]) for one in usage["popular_prompts"]] == [("greeter", 4)]
    assert (usage["start_date"], usage["end_date"]) == ("2026-06-01T00:00:00+00:00", "2026-06-05T00:00:00+00:00")


def test_percentiles_are_those_of_the_rows(api: Api, june: None) -> None:
    """The original called 1.5 and 2 times the average p95 and p99, and the first value the median."""
    usage = data(api, "GET", f"/analytics/usage?{JUNE}")

    assert usage["average_response_time_ms"] == 400
    assert usage["median_response_time_ms"] == 200
    assert usage["p95_response_time_ms"] == pytest.approx(830)
    assert usage["p99_response_time_ms"] == pytest.approx(886)


def test_a_prompt_is_shown_whole_and_by_version(api: Api, prompt: Any) -> None:
    path = f"/analytics/prompts/{prompt['id']}?days_back=366"

    whole, second = data(api, "GET", path), data(api, "GET", f"{path}&version=2")

    assert (whole["prompt_id"], whole["total_requests"], whole["performance_score"]) == (prompt["id"], 5, 0.5)
    assert [(one["version"], one["total_requests"]) for one in whole["versions"]] == [(2, 3), (1, 2)]
    assert (second["version"], second["total_requests"], len(second["versions"])) == (2, 3, 1)


def test_the_summary_is_of_so_many_days(api: Api, prompt: Any) -> None:
    long, short = (data(api, "GET", f"/analytics/summary?days_back={days}") for days in (366, 1))

    assert long["summary"] == {"total_prompts": 1, "total_requests": 5, "active_prompts": 1}
    assert short["summary"]["total_requests"] == 1
    assert long["performance_metrics"]["top_performing_prompts"] == [
        {"prompt_id": prompt["id"], "name": "greeter", "performance_score": 0.5}
    ]
    assert sum(day["total_requests"] for day in long["usage_trends"]["daily_usage"]) == 5
    assert [one["total_requests"] for one in long["usage_trends"]["popular_prompts"]] == [5]


def test_where_nothing_was_run_nothing_is_made_up(api: Api) -> None:
    summary = data(api, "GET", "/analytics/summary")

    assert summary["time_range_days"] == 30
    assert summary["summary"] == {"total_prompts": 0, "total_requests": 0, "active_prompts": 0}
    figures = summary["performance_metrics"]
    assert figures.pop("top_performing_prompts") == []
    assert [name for name, value in figures.items() if value is None] == [
        "average_response_time_ms",
        "median_response_time_ms",
        "p95_response_time_ms",
        "p99_response_time_ms",
        "average_tokens_per_request",
    ]


@pytest.mark.parametrize(
    ("start", "end", "seen"),
    [
        ("2026-06-03", "2026-06-03", 3),
        ("2026-06-03T12:00:00Z", "2026-06-03T12:00:01", 3),
        ("2026-06-03T14:00:01%2B02:00", "2026-06-04", 1),
    ],
)
def test_a_day_is_whole_and_a_time_is_exact(api: Api, june: None, start: str, end: str, seen: int) -> None:
    assert data(api, "GET", f"/analytics/usage?start_date={start}&end_date={end}")["total_requests"] == seen


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("usage?start_date=yesterday", "?start_date"),
        ("usage?end_date=2026-13-01", "?end_date"),
        ("usage?start_date=2026-06-02&end_date=2026-06-01", "?start_date"),
        ("usage?start_date=2020-01-01", "?start_date"),
        ("usage?end_date=9999-12-31", "?end_date"),
        ("usage?time_range_days=367", "?time_range_days"),
        ("summary?days_back=0", "?days_back"),
    ],
)
def test_a_window_that_makes_no_sense_is_named(api: Api, path: str, pointer: str) -> None:
    assert refusal(api.get(f"{STORE}/analytics/{path}")) == (422, "VALIDATION_ERROR", [pointer])


def test_a_version_or_prompt_that_is_not_there_is_a_404(api: Api, prompt: Any) -> None:
    path = f"{STORE}/analytics/prompts"

    assert refusal(api.get(f"{path}/{prompt['id']}?version=9"))[:2] == (404, "NOT_FOUND")
    assert refusal(api.get(f"{path}/no-id"))[:2] == (404, "NOT_FOUND")
