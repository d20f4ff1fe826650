"""/v1/analytics: figures of executions, counted from their rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app.api import Moment, blueprint, project_field
from app.auth import caller
from shared.db import reading
from shared.domain import analytics, executions, prompts, providers
from shared.domain.analytics import GROUPS, INTERVALS, PERCENTILES, Figures, Group, Rating
from shared.domain.executions import Filter
from shared.models import Prompt

blp = blueprint("analytics", "How much was run, how it went, how long it took and what it cost.")


def _described(text: str) -> dict[str, str]:
    return {"description": text}


class WindowQuery(ma.Schema):
    """A window of at most 366 days, and which executions of it."""

    created_from = Moment(
        data_key="from", load_default=None, metadata=_described("Submitted at or after this; 30 days before `to`")
    )
    created_before = Moment(data_key="to", load_default=None, metadata=_described("Submitted before this; now"))
    environment = ma.fields.String(load_default=None)
    provider = ma.fields.String(load_default=None)
    model_name = ma.fields.String(load_default=None)
    created_by = ma.fields.String(load_default=None)
    purpose = ma.fields.String(load_default=None, validate=ma.validate.OneOf(executions.PURPOSES))


class OfOnePromptQuery(WindowQuery):
    project = project_field(load_default=None, metadata=_described("Name or id; the default project if left out"))


class AnalyticsQuery(WindowQuery):
    project = project_field(load_default=None, metadata=_described("Name or id; every project if left out"))
    prompt_name = ma.fields.String(
        load_default=None,
        validate=ma.validate.Length(1),
        metadata=_described("Of the project that is named, else of the default project"),
    )


class UsageQuery(AnalyticsQuery):
    interval = ma.fields.String(load_default="day", validate=ma.validate.OneOf(list(INTERVALS)))
    group_by = ma.fields.String(load_default=None, validate=ma.validate.OneOf(list(GROUPS)))


class LatencyOut(ma.Schema):
    n = ma.fields.Integer(metadata=_described("Answers that the percentiles are of"))
    p50 = ma.fields.Float(allow_none=True)
    p95 = ma.fields.Float(allow_none=True)
    p99 = ma.fields.Float(allow_none=True)


class FiguresOut(ma.Schema):
    executions = ma.fields.Integer()
    succeeded = ma.fields.Integer()
    failed = ma.fields.Integer()
    canceled = ma.fields.Integer()
    success_rate = ma.fields.Float(
        allow_none=True, metadata=_described("100 · succeeded / (succeeded + failed), a percentage; null: none ended")
    )
    prompt_tokens = ma.fields.Integer()
    response_tokens = ma.fields.Integer()
    cost_usd = ma.fields.Float()
    without_cost = ma.fields.Integer(metadata=_described("Succeeded, and no price or no token count is known"))
    latency_ms = ma.fields.Nested(LatencyOut, metadata=_described("Exact percentiles"))


class BucketOut(FiguresOut):
    start = ma.fields.DateTime(metadata=_described("UTC"))


class GroupOut(ma.Schema):
    key = ma.fields.Raw(metadata=_described("What its executions have in common"))
    total = ma.fields.Nested(FiguresOut)


class SeriesOut(GroupOut):
    buckets = ma.fields.List(ma.fields.Nested(BucketOut), metadata=_described("Every one, those with nothing too"))


class WindowOut(ma.Schema):
    window = ma.fields.Raw(metadata=_described("{from, to}"))


class UsageOut(WindowOut):
    interval = ma.fields.String()
    series = ma.fields.List(ma.fields.Nested(SeriesOut), metadata=_described("The groups with the most executions"))
    left_out = ma.fields.Integer(metadata=_described("How many groups there are besides"))


class RatingOut(ma.Schema):
    n = ma.fields.Integer()
    mean = ma.fields.Float(allow_none=True)


class ErrorClassOut(ma.Schema):
    error_type = ma.fields.String()
    executions = ma.fields.Integer()
    prompts = ma.fields.Integer()
    first_at = ma.fields.DateTime()
    last_at = ma.fields.DateTime()


class ErrorsOut(WindowOut):
    executions = ma.fields.Integer(metadata=_described("In the window, with and without an error"))
    classes = ma.fields.List(ma.fields.Nested(ErrorClassOut))


class SummaryOut(WindowOut):
    total = ma.fields.Nested(FiguresOut)
    active_prompts = ma.fields.Integer()
    feedback = ma.fields.Nested(RatingOut)
    by_prompt = ma.fields.List(ma.fields.Nested(GroupOut), metadata=_described("The five with the most executions"))
    by_model = ma.fields.List(ma.fields.Nested(GroupOut), metadata=_described("The five with the most executions"))
    errors = ma.fields.List(ma.fields.Nested(ErrorClassOut))


class VersionFiguresOut(FiguresOut):
    version_id = ma.fields.UUID()
    version_number = ma.fields.Integer()
    labels = ma.fields.List(ma.fields.String(), metadata=_described("That point at it now"))
    feedback = ma.fields.Nested(RatingOut)
    errors = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.Integer())


class PromptFiguresOut(WindowOut):
    prompt_id = ma.fields.UUID()
    prompt_name = ma.fields.String()
    total = ma.fields.Nested(FiguresOut)
    feedback = ma.fields.Nested(RatingOut)
    versions = ma.fields.List(ma.fields.Nested(VersionFiguresOut), metadata=_described("Highest number first"))
    left_out = ma.fields.Integer(metadata=_described("How many versions were run besides"))


@blp.get("/analytics/summary")
@blp.arguments(AnalyticsQuery, location="query")
@blp.response(200, SummaryOut)
def get_summary(query: dict[str, Any]) -> flask.Response:
    """Everything that was run, in one answer"""
    with reading() as session:
        wanted = _wanted(session, query)
        answer = {
            **_window(wanted),
            "total": _figures(analytics.total(session, caller(), wanted)),
            "active_prompts": analytics.active_prompts(session, caller(), wanted),
            "feedback": _rating(analytics.rating(session, caller(), wanted)),
            "errors": ErrorClassOut().dump(analytics.error_classes(session, caller(), wanted), many=True),
        }
        for name in ("prompt", "model"):
            found, _ = analytics.groups(session, caller(), wanted, name, limit=5)
            answer[f"by_{name}"] = [_group(group) for group in found]
    return flask.jsonify(answer)


@blp.get("/analytics/usage")
@blp.arguments(UsageQuery, location="query")
@blp.response(200, UsageOut)
def get_usage(query: dict[str, Any]) -> flask.Response:
    """Figures over time, for all or for each prompt, version, model, environment, caller, status or purpose"""
    interval, group_by = query.pop("interval"), query.pop("group_by")
    with reading() as session:
        wanted = _wanted(session, query)
        found, left_out = analytics.usage(session, caller(), wanted, interval=interval, group_by=group_by)
    series = [{**_group(group), "buckets": _buckets(group)} for group in found]
    return flask.jsonify({**_window(wanted), "interval": interval, "series": series, "left_out": left_out})


@blp.get("/analytics/prompts/<name>")
@blp.arguments(OfOnePromptQuery, location="query")
@blp.response(200, PromptFiguresOut)
def get_prompt_figures(query: dict[str, Any], name: str) -> flask.Response:
    """A prompt by version: how often it was run, how it went, what people thought of it"""
    with reading() as session:
        prompt = prompts.get_prompt(session, caller(), name, project=query["project"])
        wanted = _wanted(session, query, prompt)
        versions, left_out = analytics.by_version(session, caller(), prompt, wanted)
        answer = {
            **_window(wanted),
            "prompt_id": str(prompt.id),
            "prompt_name": prompt.name,
            "total": _figures(analytics.total(session, caller(), wanted)),
            "feedback": _rating(analytics.rating(session, caller(), wanted)),
            "versions": [_version(version) for version in versions],
            "left_out": left_out,
        }
    return flask.jsonify(answer)


@blp.get("/analytics/errors")
@blp.arguments(AnalyticsQuery, location="query")
@blp.response(200, ErrorsOut)
def get_errors(query: dict[str, Any]) -> flask.Response:
    """What went wrong, by error type"""
    with reading() as session:
        wanted = _wanted(session, query)
        classes = analytics.error_classes(session, caller(), wanted)
        executed = analytics.total(session, caller(), wanted).executions
    return flask.jsonify(
        {**_window(wanted), "executions": executed, "classes": ErrorClassOut().dump(classes, many=True)}
    )


def _wanted(session: Session, query: Mapping[str, Any], prompt: Prompt | None = None) -> Filter:
    fields = {name: value for name, value in query.items() if name != "prompt_name"}
    if query.get("prompt_name"):
        prompt = prompts.get_prompt(session, caller(), query["prompt_name"], project=query["project"])
    return analytics.within(session, Filter(**fields, prompt_id=prompt.id if prompt else None))


def _window(wanted: Filter) -> dict[str, Any]:
    assert wanted.created_from is not None
    assert wanted.created_before is not None
    return {"window": {"from": wanted.created_from.isoformat(), "to": wanted.created_before.isoformat()}}


def _figures(figures: Figures) -> dict[str, Any]:
    """By hand: there may be twenty thousand, and a schema would take longer over them than the database."""
    percentiles = zip(PERCENTILES, figures.latency_ms, strict=True)
    return {
        "executions": figures.executions,
        "succeeded": figures.succeeded,
        "failed": figures.failed,
        "canceled": figures.canceled,
        "success_rate": figures.success_rate,
        "prompt_tokens": figures.prompt_tokens,
        "response_tokens": figures.response_tokens,
        "cost_usd": providers.usd(figures.cost_nano),
        "without_cost": figures.without_cost,
        "latency_ms": {"n": figures.latencies, **{f"p{percent}": value for percent, value in percentiles}},
    }


def _group(group: Group) -> dict[str, Any]:
    return {"key": group.key, "total": _figures(group.total)}


def _buckets(group: Group) -> Sequence[dict[str, Any]]:
    return [{"start": start.isoformat(), **_figures(figures)} for start, figures in group.buckets]


def _version(version: analytics.VersionFigures) -> dict[str, Any]:
    return {
        "version_id": str(version.version_id),
        "version_number": version.version_number,
        "labels": version.labels,
        **_figures(version.figures),
        "feedback": _rating(version.rating),
        "errors": version.errors,
    }


def _rating(rating: Rating) -> dict[str, Any]:
    return {"n": rating.n, "mean": rating.mean}
