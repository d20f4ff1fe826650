"""/v1/evaluations: a version scored on a dataset."""

import dataclasses
import uuid
from collections.abc import Sequence
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay, waiting
from app.api import ListQuery, PageQuery, Strict, WholeNumber, blueprint, page_of, project_field, render_page, runs
from app.api.content import Length, Params
from app.api.executions import ModelChoice
from app.auth import caller
from shared.db import reading
from shared.domain import evaluations, forecasts
from shared.domain.budgets import Limits
from shared.domain.evaluations import EvaluationRequest, Plan
from shared.domain.tenants import Caller
from shared.models import Evaluation, JobKind, Role
from shared.scoring import check_scorers, describe, openapi

blp = blueprint("evaluations", "A version scored on a pinned dataset revision by scorers.")
Range = ma.validate.Range


class EvaluationBudget(ma.Schema):
    """Ceilings that hold before money is spent; what is left out is not limited."""

    max_task_calls = WholeNumber(validate=Range(1, 10_000_000))
    max_judge_calls = WholeNumber(
        validate=Range(1, 10_000_000), metadata={"description": "Calls of judges and embeddings, for scorers that ask"}
    )
    max_tokens = WholeNumber(validate=Range(1, 10**12))
    max_cost_usd = Strict(validate=Range(0, 1e6, min_inclusive=False))


def scorers_field() -> "ma.fields.List[Any]":
    return ma.fields.List(
        ma.fields.Dict(keys=ma.fields.String(), metadata=openapi()),
        required=True,
        metadata={"description": "See /v1/evaluations/scorers"},
    )


class EvaluationIn(ma.Schema):
    name = ma.fields.String(validate=Length(max=255))
    prompt_name = ma.fields.String(required=True)
    project = project_field()
    version_number = WholeNumber(allow_none=True, validate=Range(1, 999_999_999))
    label = ma.fields.String(allow_none=True)
    dataset = ma.fields.String(required=True)
    dataset_revision = WholeNumber(
        validate=Range(1, 999_999_999), metadata={"description": "An older one; the newest if left out"}
    )
    scorers = scorers_field()
    model = ma.fields.Nested(ModelChoice)
    params = ma.fields.Nested(Params)
    repeats = WholeNumber(validate=Range(1, 10))
    fresh = ma.fields.Boolean(
        truthy={True}, falsy={False}, metadata={"description": "Make every call, although others had it answered"}
    )
    dry_run = ma.fields.Boolean(
        load_default=False,
        truthy={True},
        falsy={False},
        metadata={"description": "Only say what it would take: 200 and a forecast; nothing is started or stored"},
    )
    budget = ma.fields.Nested(EvaluationBudget)


class RetryIn(ma.Schema):
    budget = ma.fields.Nested(
        EvaluationBudget, metadata={"description": "What is left of the first one's, if left out"}
    )


class EvaluationOut(ma.Schema):
    evaluation_id = ma.fields.UUID(attribute="id")
    name = ma.fields.String()
    status = ma.fields.String(attribute="state")
    prompt_id = ma.fields.UUID()
    version_id = ma.fields.UUID()
    dataset_id = ma.fields.UUID()
    dataset_revision = ma.fields.Integer()
    scorers = ma.fields.Raw()
    model = ma.fields.Raw()
    repeats = ma.fields.Integer()
    fresh = ma.fields.Boolean()
    retry_of = ma.fields.UUID(allow_none=True)
    progress = ma.fields.Raw(metadata={"description": "{done, total} provider calls of the current step"})
    spent = ma.fields.Raw()
    aggregate = ma.fields.Raw(
        allow_none=True,
        metadata={"description": "score, pass_rate, ci_low and ci_high (95 %), missing, cached; null until it is done"},
    )
    error_type = ma.fields.String(allow_none=True)
    error_message = ma.fields.String(allow_none=True)
    created_by = ma.fields.String()
    created_at = ma.fields.DateTime()
    started_at = ma.fields.DateTime(allow_none=True)
    completed_at = ma.fields.DateTime(allow_none=True)


class LowHigh(ma.Schema):
    low = ma.fields.Float()
    high = ma.fields.Float()


class ForecastOut(ma.Schema):
    cells = ma.fields.Integer(metadata={"description": "Answers that are scored: cases x repeats"})
    task_calls = ma.fields.Integer(metadata={"description": "Calls that would be made to have them"})
    cached_calls = ma.fields.Integer(metadata={"description": "Calls that others had answered, which are free"})
    judge_calls = ma.fields.Integer(metadata={"description": "At most, for scorers that ask a model"})
    tokens = ma.fields.Nested(LowHigh)
    cost_usd = ma.fields.Nested(LowHigh, allow_none=True, metadata={"description": "null where a price is not known"})
    seconds = ma.fields.Nested(
        LowHigh, allow_none=True, metadata={"description": "null without live workers or measured calls"}
    )
    measured_calls = ma.fields.Integer(metadata={"description": "Recent calls that the ranges rest on"})
    slots = ma.fields.Integer(metadata={"description": "Calls that the live workers can make at once"})


class ResultOut(ma.Schema):
    ordinal = ma.fields.Integer()
    name = ma.fields.String()
    inputs = ma.fields.Raw()
    expected = ma.fields.Raw(allow_none=True)
    tags = ma.fields.Raw()
    group = ma.fields.String(allow_none=True)
    repeat = ma.fields.Integer()
    output = ma.fields.String(attribute="response_text", allow_none=True)
    score = ma.fields.Float(allow_none=True)
    passed = ma.fields.Boolean(allow_none=True)
    feedback = ma.fields.String(allow_none=True)
    details = ma.fields.Raw(allow_none=True, metadata={"description": "The parts: one for each scorer"})
    execution_id = ma.fields.UUID(allow_none=True)
    cached = ma.fields.Boolean(metadata={"description": "The answer is that of another run"})
    latency_ms = ma.fields.Integer(allow_none=True)
    status = ma.fields.String(attribute="state", allow_none=True)
    error_type = ma.fields.String(allow_none=True)


class ScorerOut(ma.Schema):
    type = ma.fields.String()
    version = ma.fields.Integer()
    description = ma.fields.String()
    asks_a_model = ma.fields.Boolean()
    options = ma.fields.Raw(metadata={"description": "JSON Schema of each option"})
    required = ma.fields.List(ma.fields.String())


@blp.post("/evaluations")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(EvaluationIn)
@blp.response(202, EvaluationOut)
@blp.alt_response(200, schema=ForecastOut, description="The forecast of a `dry_run`")
def create_evaluation(body: dict[str, Any]) -> flask.Response:
    """Start an evaluation; poll the Location"""
    author = caller(Role.EDITOR)
    request = _request(body)
    scorers = check_scorers(request.scorers)

    def plan() -> Plan:
        with reading() as session:
            return evaluations.plan(session, author, request, scorers)

    def make(session: Session, planned: Plan) -> Any:
        return _evaluation(session, evaluations.create_evaluation(session, author, planned))

    if body["dry_run"]:
        with reading() as session:
            target = evaluations.plan_target(session, author, request, scorers)
            found = forecasts.forecast(session, author, request, scorers, target)
            return flask.jsonify(ForecastOut().dump(dataclasses.asdict(found)))
    return _accepted(replay.create(author, body, 202, make, plan=plan))


@blp.get("/evaluations")
@blp.arguments(ListQuery, location="query")
@blp.response(200, page_of(EvaluationOut))
def list_evaluations(query: dict[str, Any]) -> flask.Response:
    """List evaluations, newest first"""
    with reading() as session:
        page = evaluations.list_evaluations(session, caller(), **query)
        return flask.jsonify({"data": _evaluations(session, page.data), "next_cursor": page.next_cursor})


@blp.get("/evaluations/scorers")
@blp.response(200, page_of(ScorerOut))
def list_scorers() -> flask.Response:
    """List the scorers with their options, ranges and defaults"""
    return flask.jsonify({"data": describe(), "next_cursor": None})


@blp.get("/evaluations/<uuid:evaluation_id>")
@blp.doc(parameters=[waiting.PREFER])
@blp.response(200, EvaluationOut)
def get_evaluation(evaluation_id: uuid.UUID) -> flask.Response:
    """Read an evaluation: progress while it runs, the aggregate when it is done"""
    author = caller()
    return waiting.read_when_ended(
        JobKind.EVALUATION,
        evaluation_id,
        lambda session: evaluations.get_evaluation(session, author, evaluation_id),
        lambda session, evaluation: flask.jsonify(_evaluation(session, evaluation)),
    )


@blp.get("/evaluations/<uuid:evaluation_id>/results")
@blp.arguments(PageQuery, location="query")
@blp.response(200, page_of(ResultOut))
def list_results(query: dict[str, Any], evaluation_id: uuid.UUID) -> flask.Response:
    """List its cases with output, score and feedback"""
    with reading() as session:
        evaluation = evaluations.get_evaluation(session, caller(), evaluation_id)
        page = evaluations.list_results(session, evaluation, **query)
        return flask.jsonify(render_page(ResultOut(), page))


@blp.post("/evaluations/<uuid:evaluation_id>/cancel")
@blp.response(200, EvaluationOut)
def cancel_evaluation(evaluation_id: uuid.UUID) -> flask.Response:
    """Cancel an evaluation; what was paid for is kept"""

    def find(session: Session, author: Caller) -> Evaluation:
        return evaluations.get_evaluation(session, author, evaluation_id)

    return flask.jsonify(runs.cancel(JobKind.EVALUATION, find, _evaluation))


@blp.post("/evaluations/<uuid:evaluation_id>/retry")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(RetryIn)
@blp.response(202, EvaluationOut)
def retry_evaluation(body: dict[str, Any], evaluation_id: uuid.UUID) -> flask.Response:
    """Make the calls that failed again, as a new evaluation that takes over all answers; poll the Location"""
    author = caller(Role.EDITOR)
    limits = Limits(**body["budget"]) if body.get("budget") else None

    def make(session: Session, _: Any) -> Any:
        return _evaluation(session, evaluations.retry_evaluation(session, author, evaluation_id, limits))

    return _accepted(replay.create(author, body, 202, make))


def _accepted(answer: flask.Response) -> flask.Response:
    answer.headers["Location"] = f"/v1/evaluations/{answer.get_json()['evaluation_id']}"
    return answer


def _request(body: dict[str, Any]) -> EvaluationRequest:
    fields = {name: value for name, value in body.items() if name != "dry_run"}
    model = fields.pop("model", {})
    budget = fields.pop("budget", None)
    return EvaluationRequest(
        **fields,
        provider=model.get("provider"),
        model_name=model.get("model_name"),
        limits=Limits(**budget) if budget else None,
    )


def _evaluation(session: Session, evaluation: Evaluation) -> Any:
    return _evaluations(session, [evaluation])[0]


def _evaluations(session: Session, found: Sequence[Evaluation]) -> list[Any]:
    told = runs.told(session, found)
    rendered = EvaluationOut().dump(found, many=True)
    return [{**own, **told[evaluation.id]} for own, evaluation in zip(rendered, found, strict=True)]
