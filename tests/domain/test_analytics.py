"""Figures of executions: what is counted, into which bucket it goes, and that the percentiles are exact."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from shared import db
from shared.domain import analytics
from shared.domain.analytics import Figures, Rating
from shared.domain.executions import Filter
from shared.domain.tenants import Caller
from shared.errors import Unprocessable
from shared.models import Prompt
from tests.executed import MONDAY, insert_executions, insert_feedback, insert_stranger, make_versions

WEEK = Filter(created_from=MONDAY, created_before=MONDAY + timedelta(days=7))


def asked(function: Any, *args: Any, **options: Any) -> Any:
    with db.reading() as session:
        return function(session, *args, **options)


def latencies(values: list[int]) -> list[dict[str, Any]]:
    return [{"latency_ms": value} for value in values]


@pytest.mark.parametrize("size", [1, 2, 3, 20, 100, 101, 997])
def test_percentiles_are_those_of_numpy_on_random_latencies(admin: Caller, size: int) -> None:
    values = np.random.default_rng(size).lognormal(6, 1, size).astype(int).tolist()
    insert_executions(admin, latencies(values))

    found = asked(analytics.total, admin, WEEK)

    assert found.latencies == size
    assert found.latency_ms == pytest.approx(np.percentile(values, [50, 95, 99]), rel=1e-12)


def test_percentiles_of_each_group_are_of_that_group_alone(admin: Caller) -> None:
    generator = np.random.default_rng(1)
    values = {name: generator.integers(1, 5_000, size).tolist() for name, size in (("dev", 40), ("prod", 61))}
    for name, chosen in values.items():
        insert_executions(admin, [{**row, "environment": name} for row in latencies(chosen)])

    found, left_out = asked(analytics.groups, admin, WEEK, "environment")

    assert ([group.key["environment"] for group in found], left_out) == (["prod", "dev"], 0)
    for group in found:
        expected = np.percentile(values[group.key["environment"]], [50, 95, 99])
        assert group.total.latency_ms == pytest.approx(expected, rel=1e-12)


def test_what_has_no_latency_counts_and_moves_no_percentile(admin: Caller) -> None:
    insert_executions(admin, [*latencies([100, 300]), {"state": "failed"}, {"state": "queued"}])

    found = asked(analytics.total, admin, WEEK)

    assert (found.executions, found.latencies, found.latency_ms[0]) == (4, 2, 200)


def test_figures_count_states_tokens_and_cost(admin: Caller) -> None:
    paid = {"prompt_tokens": 10, "response_tokens": 5, "cost_nano": 2_000_000_000}
    insert_executions(
        admin,
        [paid, paid, {"state": "failed"}, {"state": "canceled"}, {"state": "running"}, {"prompt_tokens": 1}],
    )

    found = asked(analytics.total, admin, WEEK)

    assert found == Figures(
        executions=6,
        succeeded=3,
        failed=1,
        canceled=1,
        prompt_tokens=21,
        response_tokens=10,
        cost_nano=4_000_000_000,
        without_cost=1,
    )
    assert found.success_rate == 75


def test_of_nothing_the_figures_are_zero_and_no_rate_is_claimed(admin: Caller) -> None:
    found = asked(analytics.total, admin, WEEK)

    assert (found, found.success_rate) == (Figures(), None)
    assert asked(analytics.rating, admin, WEEK) == Rating(0, None)
    assert asked(analytics.error_classes, admin, WEEK) == []


@pytest.mark.parametrize(
    ("interval", "at", "start"),
    [
        (
            "hour",
            MONDAY + timedelta(hours=3, minutes=59, seconds=59, microseconds=999_999),
            MONDAY + timedelta(hours=3),
        ),
        ("hour", MONDAY + timedelta(hours=4), MONDAY + timedelta(hours=4)),
        ("day", MONDAY + timedelta(days=1, microseconds=-1), MONDAY),
        ("day", MONDAY + timedelta(days=1), MONDAY + timedelta(days=1)),
        ("week", MONDAY + timedelta(days=7, microseconds=-1), MONDAY),
        ("week", MONDAY, MONDAY),
        ("week", MONDAY - timedelta(microseconds=1), MONDAY - timedelta(days=7)),
    ],
)
def test_an_execution_stands_in_the_bucket_of_its_time(
    admin: Caller, interval: str, at: datetime, start: datetime
) -> None:
    insert_executions(admin, [{"created_at": at}])
    wanted = Filter(created_from=MONDAY - timedelta(days=10), created_before=MONDAY + timedelta(days=10))

    (series,), _ = asked(analytics.usage, admin, wanted, interval=interval, group_by=None)

    assert [bucket for bucket, figures in series.buckets if figures.executions] == [start]


def test_usage_has_every_bucket_of_the_window_and_nothing_from_outside(admin: Caller) -> None:
    times = [-1, 0, 0, 49, 7 * 24 - 1, 7 * 24]
    insert_executions(admin, [{"created_at": MONDAY + timedelta(hours=hours)} for hours in times])

    (series,), left_out = asked(analytics.usage, admin, WEEK, interval="day", group_by=None)

    assert [start for start, _ in series.buckets] == [MONDAY + timedelta(days=day) for day in range(7)]
    assert [figures.executions for _, figures in series.buckets] == [2, 0, 1, 0, 0, 0, 1]
    assert (series.total.executions, left_out) == (4, 0)


def test_usage_by_group_adds_up_to_usage_in_all(admin: Caller) -> None:
    generator = np.random.default_rng(2)
    first, second = make_versions(admin, 2)
    for version in (first, second):
        rows = [
            {
                "created_at": MONDAY + timedelta(minutes=int(generator.integers(0, 7 * 24 * 60))),
                "state": str(generator.choice(["succeeded", "failed"])),
                "cost_nano": int(generator.integers(0, 1_000)),
                "environment": str(generator.choice(["dev", "prod"])),
            }
            for _ in range(50)
        ]
        insert_executions(admin, rows, version=version)
    (whole,), _ = asked(analytics.usage, admin, WEEK, interval="day", group_by=None)

    for group_by in analytics.GROUPS:
        found, left_out = asked(analytics.usage, admin, WEEK, interval="day", group_by=group_by)

        assert left_out == 0
        for place, (start, figures) in enumerate(whole.buckets):
            parts = [series.buckets[place] for series in found]
            assert {at for at, _ in parts} == {start}
            for name in ("executions", "succeeded", "failed", "cost_nano"):
                assert sum(getattr(part, name) for _, part in parts) == getattr(figures, name), (group_by, name)


def test_groups_are_named_as_the_api_names_them(admin: Caller) -> None:
    (version,) = make_versions(admin)
    insert_executions(admin, [{}], version=version)
    insert_executions(admin, [{}, {}])

    named, _ = asked(analytics.groups, admin, WEEK, "version")
    models, _ = asked(analytics.groups, admin, WEEK, "model")
    states, _ = asked(analytics.groups, admin, WEEK, "status")

    assert [group.key.get("version_number") for group in named] == [None, 1]
    assert [group.key["prompt_name"] for group in named] == [None, "greeter"]
    assert models[0].key == {"provider": "simulated", "model_name": "simulated-small"}
    assert states[0].key == {"status": "succeeded"}


def test_more_groups_than_are_shown_are_counted(admin: Caller) -> None:
    rows = [{"environment": f"e{number}"} for number in range(analytics.MAX_GROUPS + 3) for _ in range(number + 1)]
    insert_executions(admin, rows)

    found, left_out = asked(analytics.usage, admin, WEEK, interval="week", group_by="environment")

    assert (len(found), left_out) == (analytics.MAX_GROUPS, 3)
    assert found[0].key == {"environment": "e22"}
    assert "e2" not in {group.key["environment"] for group in found}


def test_a_prompt_by_version_has_its_figures_feedback_errors_and_labels(admin: Caller) -> None:
    first, second = make_versions(admin, 2)
    rated = insert_executions(admin, [{"latency_ms": 10}, {"latency_ms": 20}], version=first)
    failed = {"state": "failed", "error_type": "rate_limited"}
    insert_executions(admin, [failed, failed, {"error_type": "truncated"}], version=second)
    insert_executions(admin, [{}])  # of no prompt
    insert_feedback(admin, {rated[0]: 1.0, rated[1]: 0.5})
    with db.reading() as session:
        prompt = session.get_one(Prompt, first.prompt_id)

    (newer, older), left_out = asked(analytics.by_version, admin, prompt, WEEK)

    assert (newer.version_number, older.version_number, left_out) == (2, 1, 0)
    assert (older.figures.executions, older.figures.latency_ms[0], older.errors) == (2, 15, {})
    assert older.rating == Rating(2, 0.75)
    assert (newer.figures.success_rate, newer.rating) == (pytest.approx(100 / 3), Rating())
    assert newer.errors == {"rate_limited": 2, "truncated": 1}


def test_feedback_without_a_score_is_in_no_mean(admin: Caller) -> None:
    one, other = insert_executions(admin, [{}, {}])
    insert_feedback(admin, {one: 0.25, other: None})

    assert asked(analytics.rating, admin, WEEK) == Rating(1, 0.25)


def test_errors_are_counted_by_type_with_the_prompts_they_hit(admin: Caller) -> None:
    (version,) = make_versions(admin)
    later = MONDAY + timedelta(hours=5)
    failed = {"state": "failed", "error_type": "timeout"}
    insert_executions(admin, [failed, {**failed, "created_at": later}], version=version)
    insert_executions(admin, [{"state": "failed", "error_type": "bad_request"}, {}])

    timeouts, refused = asked(analytics.error_classes, admin, WEEK)

    assert (timeouts.error_type, timeouts.executions, timeouts.prompts) == ("timeout", 2, 1)
    assert (timeouts.first_at, timeouts.last_at) == (MONDAY, later)
    assert (refused.error_type, refused.executions) == ("bad_request", 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("environment", "prod"),
        ("provider", "openai"),
        ("model_name", "gpt-4o"),
        ("created_by", "eve"),
        ("purpose", "judge"),
    ],
)
def test_each_filter_leaves_what_does_not_match_out(admin: Caller, field: str, value: str) -> None:
    insert_executions(admin, [{}, {field: value}])

    assert asked(analytics.total, admin, replace(WEEK, **{field: value})).executions == 1  # type: ignore[arg-type]


def test_nothing_of_another_workspace_or_project_is_counted(admin: Caller) -> None:
    stranger = insert_stranger()
    (version,) = make_versions(admin)
    failed = {"state": "failed", "error_type": "timeout"}
    insert_feedback(admin, dict.fromkeys(insert_executions(admin, [{}, failed], version=version), 1.0))
    assert version.workspace_id == admin.workspace_id
    limited = replace(admin, project_ids=frozenset({stranger.workspace_id}))

    for caller in (stranger, limited):
        assert asked(analytics.total, caller, WEEK) == Figures()
        assert asked(analytics.active_prompts, caller, WEEK) == 0
        assert asked(analytics.rating, caller, WEEK) == Rating()
        assert asked(analytics.error_classes, caller, WEEK) == []
        assert asked(analytics.groups, caller, WEEK, "created_by") == ([], 0)
        assert asked(analytics.usage, caller, WEEK, interval="day", group_by="prompt") == ([], 0)
    assert asked(analytics.active_prompts, admin, WEEK) == 1


def test_a_window_is_the_last_thirty_days_unless_it_says_otherwise(admin: Caller) -> None:
    found = asked(analytics.within, Filter())

    assert found.created_before - found.created_from == timedelta(days=30)
    assert abs(found.created_before - datetime.now(UTC)) < timedelta(minutes=5)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (MONDAY, MONDAY),
        (MONDAY, MONDAY - timedelta(days=1)),
        (MONDAY, MONDAY + timedelta(days=366, microseconds=1)),
        (None, datetime(1, 1, 2, tzinfo=UTC)),
    ],
)
def test_a_window_that_is_empty_or_too_long_is_refused(admin: Caller, start: Any, end: datetime) -> None:
    with pytest.raises(Unprocessable):
        asked(analytics.within, Filter(created_from=start, created_before=end))


def test_more_buckets_than_a_chart_can_show_are_refused(admin: Caller) -> None:
    wanted = Filter(created_from=MONDAY, created_before=MONDAY + timedelta(hours=1_000))
    too_long = replace(wanted, created_before=MONDAY + timedelta(hours=1_000, microseconds=1))
    (series,), _ = asked(analytics.usage, admin, wanted, interval="hour", group_by=None)

    with pytest.raises(Unprocessable, match=r"1,001 buckets"):
        asked(analytics.usage, admin, too_long, interval="hour", group_by=None)

    assert len(series.buckets) == 1_000
