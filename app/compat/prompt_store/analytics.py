"""/api/v1/analytics: figures of the executions of the project `default`, counted from their rows."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app.api import Digits, Moment
from app.auth import caller
from app.compat.prompt_store import answer, blueprint, enveloped, find, home
from shared.db import reading
from shared.domain import analytics, lifecycle, prompts, providers
from shared.domain.analytics import Figures, Group
from shared.domain.executions import Filter
from shared.domain.names import VersionChoice
from shared.domain.prompt_cards import cards_of
from shared.errors import FieldError, Unprocessable

blp = blueprint("analytics", "what was run, how it went, what it took.")
POPULAR, BEST = 10, 5
DAY = timedelta(days=1)


class Day(ma.fields.Field[datetime]):
    """A day (2026-11-01), or a time, with an offset or in UTC."""

    default_error_messages = {"invalid": "must be a day such as 2026-11-01, or a time"}  # noqa: RUF012

    def __init__(self, *, is_end: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.is_end = is_end

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        is_day = re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value) is not None
        text = f"{value}T00:00:00Z" if is_day else value if re.search(r"(Z|[+-]\d\d:?\d\d)$", value) else f"{value}Z"
        try:
            found: datetime = Moment().deserialize(text)
            return found + DAY if is_day and self.is_end else found
        except (ma.ValidationError, OverflowError) as error:
            raise self.make_error("invalid") from error


class StoreDaysQuery(ma.Schema):
    days_back = Digits(load_default=30, validate=ma.validate.Range(1, analytics.MAX_DAYS))


class StorePromptDaysQuery(StoreDaysQuery):
    version = Digits(load_default=None, validate=ma.validate.Range(1))


class StoreUsageQuery(ma.Schema):
    start_date = Day(load_default=None, metadata={"type": "string", "description": "30 days before the end"})
    end_date = Day(load_default=None, is_end=True, metadata={"type": "string", "description": "A day is whole; now"})
    time_range_days = Digits(load_default=30, validate=ma.validate.Range(1, analytics.MAX_DAYS))


class StoreFiguresOut(ma.Schema):
    total_requests = ma.fields.Integer()
    successful_requests = ma.fields.Integer()
    failed_requests = ma.fields.Integer()
    average_response_time_ms = ma.fields.Float(allow_none=True)
    median_response_time_ms = ma.fields.Float(allow_none=True, metadata={"description": "Exact, as p95 and p99"})
    p95_response_time_ms = ma.fields.Float(allow_none=True)
    p99_response_time_ms = ma.fields.Float(allow_none=True)
    total_tokens_used = ma.fields.Integer()
    average_tokens_per_request = ma.fields.Float(allow_none=True)
    cost_estimate_usd = ma.fields.Float(allow_none=True, metadata={"description": "null: no price is known"})


class StoreUsedPromptOut(StoreFiguresOut):
    prompt_id = ma.fields.String()
    name = ma.fields.String(allow_none=True)


class StoreBestPromptOut(ma.Schema):
    prompt_id = ma.fields.String()
    name = ma.fields.String()
    performance_score = ma.fields.Float()


class StoreDayOut(StoreFiguresOut):
    date = ma.fields.String()


class StoreSummaryPartOut(ma.Schema):
    total_prompts = ma.fields.Integer()
    total_requests = ma.fields.Integer()
    active_prompts = ma.fields.Integer(metadata={"description": "That were run"})


class StorePerformancePartOut(StoreFiguresOut):
    top_performing_prompts = ma.fields.List(
        ma.fields.Nested(StoreBestPromptOut), metadata={"description": "Of the ten that were run most"}
    )


class StoreTrendsPartOut(ma.Schema):
    daily_usage = ma.fields.List(ma.fields.Nested(StoreDayOut))
    popular_prompts = ma.fields.List(ma.fields.Nested(StoreUsedPromptOut))


class StoreSummaryOut(ma.Schema):
    time_range_days = ma.fields.Integer()
    summary = ma.fields.Nested(StoreSummaryPartOut)
    performance_metrics = ma.fields.Nested(StorePerformancePartOut)
    usage_trends = ma.fields.Nested(StoreTrendsPartOut)


class StoreUsageOut(StoreFiguresOut, StoreTrendsPartOut):
    start_date = ma.fields.DateTime()
    end_date = ma.fields.DateTime()


class StoreVersionFiguresOut(StoreFiguresOut):
    version = ma.fields.Integer()


class StorePromptFiguresOut(StoreFiguresOut):
    prompt_id = ma.fields.String()
    version = ma.fields.Integer(allow_none=True, metadata={"description": "null: all of them"})
    performance_score = ma.fields.Float(allow_none=True)
    versions = ma.fields.List(ma.fields.Nested(StoreVersionFiguresOut))


@blp.get("/analytics/summary")
@blp.arguments(StoreDaysQuery, location="query")
@blp.response(200, enveloped(StoreSummaryOut))
def store_summary(query: dict[str, Any]) -> flask.Response:
    """Everything that was run in so many days, in one answer"""
    with reading() as session:
        wanted = _window(session, days=query["days_back"])
        total = analytics.total(session, caller(), wanted)
        popular = analytics.groups(session, caller(), wanted, "prompt", limit=POPULAR)[0]
        counts = lifecycle.count_states(session, caller(), project=home())
        data = {
            "time_range_days": query["days_back"],
            "summary": {
                "total_prompts": sum(counts.values()),
                "total_requests": total.executions,
                "active_prompts": analytics.active_prompts(session, caller(), wanted),
            },
            "performance_metrics": {**_figures(total), "top_performing_prompts": _best(session, popular)},
            "usage_trends": _trends(session, wanted, popular),
        }
    return answer(data, "Analytics summary retrieved successfully")


@blp.get("/analytics/usage")
@blp.arguments(StoreUsageQuery, location="query")
@blp.response(200, enveloped(StoreUsageOut))
def store_usage(query: dict[str, Any]) -> flask.Response:
    """What was run day by day"""
    with reading() as session:
        wanted = _window(session, start=query["start_date"], end=query["end_date"], days=query["time_range_days"])
        assert wanted.created_from is not None
        assert wanted.created_before is not None
        popular = analytics.groups(session, caller(), wanted, "prompt", limit=POPULAR)[0]
        data = {
            "start_date": wanted.created_from.isoformat(),
            "end_date": wanted.created_before.isoformat(),
            **_figures(analytics.total(session, caller(), wanted)),
            **_trends(session, wanted, popular),
        }
    return answer(data, "Usage analytics retrieved successfully")


@blp.get("/analytics/prompts/<prompt_id>")
@blp.arguments(StorePromptDaysQuery, location="query")
@blp.response(200, enveloped(StorePromptFiguresOut))
def store_prompt_figures(query: dict[str, Any], prompt_id: str) -> flask.Response:
    """How often a prompt was run, how it went, and each of its versions"""
    with reading() as session:
        prompt = find(session, caller(), prompt_id)
        wanted = replace(_window(session, days=query["days_back"]), prompt_id=prompt.id)
        if query["version"] is not None:
            version = prompts.get_version(session, prompt, VersionChoice(number=query["version"]))
            wanted = replace(wanted, version_id=version.id)
        versions = analytics.by_version(session, caller(), prompt, wanted)[0]
        (card,) = cards_of(session, caller(), [prompt])
        data = {
            "prompt_id": str(prompt.id),
            "version": query["version"],
            "performance_score": card.score,
            **_figures(analytics.total(session, caller(), wanted)),
            "versions": [{"version": one.version_number, **_figures(one.figures)} for one in versions],
        }
    return answer(data, "Prompt analytics retrieved successfully")


def _window(session: Session, *, days: int, start: datetime | None = None, end: datetime | None = None) -> Filter:
    if start is not None and end is not None and start >= end:
        raise _refused("?start_date", "must be before end_date")
    try:
        wanted = Filter(project=home(), purpose="run", created_from=start, created_before=end)
        return analytics.within(session, wanted, default_days=days)
    except Unprocessable as error:
        raise _refused("?start_date", error.detail.partition(": ")[2]) from error


def _figures(figures: Figures) -> dict[str, Any]:
    median, p95, p99 = figures.latency_ms
    tokens = figures.prompt_tokens + figures.response_tokens
    return {
        "total_requests": figures.executions,
        "successful_requests": figures.succeeded,
        "failed_requests": figures.failed,
        "average_response_time_ms": figures.mean_latency_ms,
        "median_response_time_ms": median,
        "p95_response_time_ms": p95,
        "p99_response_time_ms": p99,
        "total_tokens_used": tokens,
        "average_tokens_per_request": tokens / figures.executions if figures.executions else None,
        "cost_estimate_usd": providers.usd(figures.known_cost_nano),
    }


def _trends(session: Session, wanted: Filter, popular: Sequence[Group]) -> dict[str, Any]:
    days = analytics.usage(session, caller(), wanted, interval="day", group_by=None)[0][0].buckets
    return {
        "daily_usage": [{"date": start.date().isoformat(), **_figures(figures)} for start, figures in days],
        "popular_prompts": [
            {"prompt_id": str(one.key["prompt_id"]), "name": one.key["prompt_name"], **_figures(one.total)}
            for one in popular
        ],
    }


def _best(session: Session, popular: Sequence[Group]) -> list[dict[str, Any]]:
    """The prompts with the highest scores among these; one that nobody scored is not among them."""
    rows = prompts.rows_of(session, [one.key["prompt_id"] for one in popular])
    scored = [
        (card.score, card.prompt) for card in cards_of(session, caller(), list(rows.values())) if card.score is not None
    ]
    scored.sort(key=lambda pair: (-pair[0], pair[1].name))
    return [
        {"prompt_id": str(prompt.id), "name": prompt.name, "performance_score": score}
        for score, prompt in scored[:BEST]
    ]


def _refused(pointer: str, detail: str) -> Unprocessable:
    error = FieldError(pointer, detail)
    return Unprocessable(str(error), errors=[error])
