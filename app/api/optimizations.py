"""/v1/optimizations: a search for a better version, under a budget, on the fleet."""

import uuid
from collections.abc import Sequence
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay, waiting
from app.api import ListQuery, PageQuery, WholeNumber, blueprint, page_of, project_field, render_page, runs
from app.api.content import Length, Params
from app.api.evaluations import EvaluationBudget, scorers_field
from app.api.executions import ModelChoice
from app.auth import caller
from shared import knobs as catalogue
from shared.db import reading
from shared.domain import clocks, evaluations, optimizations, versions
from shared.domain.budgets import Limits
from shared.domain.evaluations import Target
from shared.domain.optimizations import OptimizationRequest
from shared.domain.tenants import Caller
from shared.models import JobKind, Optimization, Role

blp = blueprint("optimizations", "A search for a better version: strategy, candidates, evaluations, one budget.")


class OptimizationBudget(EvaluationBudget):
    max_proposer_calls = WholeNumber(validate=ma.validate.Range(1, 10_000_000))
    max_wall_seconds = WholeNumber(
        validate=ma.validate.Range(1, 10**8),
        metadata={"description": "Pauses do not count; the search stops early enough for the holdout"},
    )


class OptimizationIn(ma.Schema):
    name = ma.fields.String(validate=Length(max=255))
    prompt_name = ma.fields.String(required=True)
    project = project_field()
    version_number = WholeNumber(allow_none=True, validate=ma.validate.Range(1, 999_999_999))
    label = ma.fields.String(allow_none=True)
    dataset = ma.fields.String(required=True)
    strategy = ma.fields.String(
        load_default=catalogue.DEFAULT, metadata={"description": ", ".join(catalogue.STRATEGIES)}
    )
    knobs = ma.fields.Dict(keys=ma.fields.String(), metadata={"description": "See /v1/optimizations/strategies"})
    evaluation = ma.fields.Dict(keys=ma.fields.String(), metadata={"description": ", ".join(catalogue.EVALUATION)})
    split = ma.fields.Dict(keys=ma.fields.String(), metadata={"description": ", ".join(catalogue.SPLIT)})
    early_stopping = ma.fields.Dict(
        keys=ma.fields.String(), metadata={"description": ", ".join(catalogue.EARLY_STOPPING)}
    )
    scorers = scorers_field()
    model = ma.fields.Nested(ModelChoice)
    params = ma.fields.Nested(Params)
    proposer = ma.fields.Nested(ModelChoice, metadata={"description": "The task's model if left out"})
    budget = ma.fields.Nested(OptimizationBudget, required=True)
    seed = WholeNumber(validate=ma.validate.Range(0, 2**31 - 1))
    preflight = ma.fields.Boolean(
        truthy={True},
        falsy={False},
        metadata={"description": "Score the seed twice first: how much is noise, and is there room for gain?"},
    )


class OptimizationOut(ma.Schema):
    optimization_id = ma.fields.UUID(attribute="id")
    name = ma.fields.String()
    status = ma.fields.String(attribute="state")
    strategy = ma.fields.String()
    spec = ma.fields.Raw(metadata={"description": "Everything that decides the search, defaults filled in"})
    source_id = ma.fields.UUID(
        allow_none=True, metadata={"description": "The optimization, or comparison, that it was made from"}
    )
    relation = ma.fields.String(
        allow_none=True, metadata={"description": "To that one: clone, continuation or comparison"}
    )
    prompt_id = ma.fields.UUID()
    version_id = ma.fields.UUID(metadata={"description": "The seed"})
    dataset_id = ma.fields.UUID()
    dataset_revision = ma.fields.Integer()
    progress = ma.fields.Raw(metadata={"description": "phase, round, best score, curve, calls of the current step"})
    spent = ma.fields.Raw()
    elapsed_seconds = ma.fields.Float(
        metadata={"description": "How long it has been going on, without pauses, with what it continues"}
    )
    finish_reason = ma.fields.String(allow_none=True)
    result = ma.fields.Raw(
        allow_none=True, metadata={"description": "baseline and best on dev and holdout, and the verdict"}
    )
    best_version_id = ma.fields.UUID(allow_none=True)
    best_version_number = ma.fields.Integer(allow_none=True)
    error_type = ma.fields.String(allow_none=True)
    error_message = ma.fields.String(allow_none=True)
    created_by = ma.fields.String()
    created_at = ma.fields.DateTime()
    started_at = ma.fields.DateTime(allow_none=True)
    completed_at = ma.fields.DateTime(allow_none=True)


class CandidateOut(ma.Schema):
    ordinal = ma.fields.Integer()
    hash = ma.fields.String()
    components = ma.fields.Raw()
    demos = ma.fields.Raw(metadata={"description": "Answered train cases that it shows: [{case, output}]"})
    params = ma.fields.Raw(metadata={"description": "Model settings of its own; model_name too"})
    parents = ma.fields.Raw()
    operator = ma.fields.String()
    round = ma.fields.Integer()
    decision = ma.fields.String()
    reason = ma.fields.String()
    cases = ma.fields.Integer()
    mean = ma.fields.Float(allow_none=True)
    standard_error = ma.fields.Float(allow_none=True)
    lineage = ma.fields.Raw()


class KnobOut(ma.Schema):
    name = ma.fields.String()
    type = ma.fields.String()
    default = ma.fields.Raw(allow_none=True)
    low = ma.fields.Float(allow_none=True)
    high = ma.fields.Float(allow_none=True)
    choices = ma.fields.List(ma.fields.String())
    note = ma.fields.String()
    aliases = ma.fields.List(ma.fields.String(), metadata={"description": "Older names that are understood"})
    only_with = ma.fields.Dict(
        keys=ma.fields.String(),
        metadata={"description": "It may be set only where these knobs have one of these values"},
    )


class StrategyOut(ma.Schema):
    name = ma.fields.String()
    description = ma.fields.String()
    is_default = ma.fields.Boolean(metadata={"description": "Taken when none is named"})
    aliases = ma.fields.List(ma.fields.String(), metadata={"description": "Older names that are understood"})
    knobs = ma.fields.List(ma.fields.Nested(KnobOut))


@blp.post("/optimizations")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(OptimizationIn)
@blp.response(202, OptimizationOut)
def create_optimization(body: dict[str, Any]) -> flask.Response:
    """Start an optimization; poll the Location"""
    author = caller(Role.EDITOR)
    request = request_from(body)
    spec = optimizations.check_request(request)

    def plan() -> Target:
        with reading() as session:
            return evaluations.plan_target(session, author, request, spec["scorers"])

    def make(session: Session, target: Target) -> Any:
        return rendered(session, optimizations.create_optimization(session, author, request, spec, target))

    answer = replay.create(author, body, 202, make, plan=plan)
    answer.headers["Location"] = f"/v1/optimizations/{answer.get_json()['optimization_id']}"
    return answer


@blp.get("/optimizations/strategies")
@blp.response(200, page_of(StrategyOut))
def list_strategies() -> flask.Response:
    """List the strategies with their knobs, ranges and defaults"""
    return flask.jsonify({"data": catalogue.describe(), "next_cursor": None})


@blp.get("/optimizations")
@blp.arguments(ListQuery, location="query")
@blp.response(200, page_of(OptimizationOut))
def list_optimizations(query: dict[str, Any]) -> flask.Response:
    """List optimizations, newest first"""
    with reading() as session:
        page = optimizations.list_optimizations(session, caller(), **query)
        return flask.jsonify({"data": rendered_all(session, page.data), "next_cursor": page.next_cursor})


@blp.get("/optimizations/<uuid:optimization_id>")
@blp.doc(parameters=[waiting.PREFER])
@blp.response(200, OptimizationOut)
def get_optimization(optimization_id: uuid.UUID) -> flask.Response:
    """Read an optimization: live progress, spend, and the result when it is done"""
    author = caller()
    return waiting.read_when_ended(
        JobKind.OPTIMIZATION,
        optimization_id,
        lambda session: optimizations.get_optimization(session, author, optimization_id),
        lambda session, optimization: flask.jsonify(rendered(session, optimization)),
    )


@blp.get("/optimizations/<uuid:optimization_id>/candidates")
@blp.arguments(PageQuery, location="query")
@blp.response(200, page_of(CandidateOut))
def list_candidates(query: dict[str, Any], optimization_id: uuid.UUID) -> flask.Response:
    """List its candidates with lineage, scores and what became of each"""
    with reading() as session:
        optimization = optimizations.get_optimization(session, caller(), optimization_id)
        page = optimizations.list_candidates(session, optimization, **query)
        return flask.jsonify(render_page(CandidateOut(), page))


@blp.post("/optimizations/<uuid:optimization_id>/cancel")
@blp.response(200, OptimizationOut)
def cancel_optimization(optimization_id: uuid.UUID) -> flask.Response:
    """Cancel an optimization; what was paid for is kept"""

    def find(session: Session, author: Caller) -> Optimization:
        return optimizations.get_optimization(session, author, optimization_id)

    return flask.jsonify(runs.cancel(JobKind.OPTIMIZATION, find, rendered))


def request_from(body: dict[str, Any]) -> OptimizationRequest:
    """What a body asks for, without a check."""
    fields = dict(body)
    model = fields.pop("model", {})
    return OptimizationRequest(
        **{**fields, "budget": Limits(**fields["budget"])},
        provider=model.get("provider"),
        model_name=model.get("model_name"),
    )


def rendered(session: Session, optimization: Optimization) -> Any:
    """What is told of a run, wherever it is told."""
    return rendered_all(session, [optimization])[0]


def rendered_all(session: Session, found: Sequence[Optimization]) -> list[Any]:
    told = runs.told(session, found)
    elapsed = clocks.elapsed_of(session, found)
    numbers = versions.numbers_of(session, [run.best_version_id for run in found if run.best_version_id])
    return [
        {
            **OptimizationOut().dump(run),
            "progress": {**run.progress, "step": told[run.id]["progress"]},
            "spent": told[run.id]["spent"],
            "elapsed_seconds": round(elapsed[run.id], 3),
            "best_version_number": run.best_version_id and numbers.get(run.best_version_id),
        }
        for run in found
    ]
