"""Reading the optimizations of Prompt Studio: rows, jobs, histories, and the iterations that were really made."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app.api import Digits, Strict, WholeNumber
from app.api.content import Length
from app.auth import caller
from app.compat.prompt_studio import (
    STATUSES,
    Identified,
    StudioPageQuery,
    envelope_of,
    enveloped,
    paged,
    studio_blueprint,
)
from app.compat.prompt_studio.configs import rounds_of
from shared import knobs
from shared.db import reading
from shared.domain import case_choices, jobs, optimizations, pages, providers, runs
from shared.domain.optimizations import CandidateSpend
from shared.domain.runs import Spend
from shared.errors import Conflict
from shared.models import Candidate, Job, Optimization, Role, State

blp = studio_blueprint("searches", "Prompt Studio: what optimizations did.")
PAUSED = "paused"
OURS: Mapping[str, str] = {theirs: ours for ours, theirs in STATUSES.items()} | {PAUSED: PAUSED}
JOB_STATUSES: Mapping[str, str] = {**STATUSES, State.QUEUED: "queued", State.RUNNING: "processing"}


class StudioOptimizationOut(Identified):
    project_id = ma.fields.UUID()
    name = ma.fields.String()
    initial_prompt_id = ma.fields.UUID(attribute="version_id")
    optimized_prompt_id = ma.fields.UUID(
        attribute="best_version_id", allow_none=True, metadata={"description": "The initial one, if none was better"}
    )
    optimizer_type = ma.fields.String(attribute="strategy")
    optimization_config = ma.fields.Raw()
    dataset_id = ma.fields.UUID()
    dataset_revision = ma.fields.Integer()
    initial_metrics = ma.fields.Raw(allow_none=True)
    final_metrics = ma.fields.Raw(allow_none=True, metadata={"description": "With the verdict of the holdout"})
    improvement_percentage = ma.fields.Float(
        allow_none=True, metadata={"description": "On the holdout, relative to the baseline; null: not measured"}
    )
    iterations_completed = ma.fields.Integer()
    max_iterations = ma.fields.Integer(allow_none=True)
    bootstrap_samples = ma.fields.Raw(allow_none=True)
    status = ma.fields.String()
    error_message = ma.fields.String(allow_none=True)
    total_tokens = ma.fields.Integer()
    total_cost = ma.fields.Float(allow_none=True, metadata={"description": "USD"})
    user_id = ma.fields.String(attribute="created_by")
    created_at = ma.fields.DateTime()
    started_at = ma.fields.DateTime(allow_none=True)
    completed_at = ma.fields.DateTime(allow_none=True)


class StudioOneOptimizationOut(StudioOptimizationOut):
    test_case_ids = ma.fields.List(ma.fields.UUID())


class StudioJobOut(ma.Schema):
    id = ma.fields.UUID()
    job_type = ma.fields.String()
    entity_id = ma.fields.UUID()
    project_id = ma.fields.UUID()
    status = ma.fields.String()
    result = ma.fields.Raw(allow_none=True)
    error_message = ma.fields.String(allow_none=True)
    created_at = ma.fields.DateTime()
    started_at = ma.fields.DateTime(allow_none=True)
    completed_at = ma.fields.DateTime(allow_none=True)


class StudioStrategyOut(ma.Schema):
    name = ma.fields.String()
    display_name = ma.fields.String()
    description = ma.fields.String()
    parameters = ma.fields.Raw(metadata={"description": "By knob: type, default, low, high, choices, note"})


class StudioHistoryOut(ma.Schema):
    optimization = ma.fields.Nested(StudioOptimizationOut)
    job = ma.fields.Nested(StudioJobOut)
    progress = ma.fields.Raw(metadata={"description": "iterations_completed, max_iterations, status"})
    timeline = ma.fields.Raw(metadata={"description": "The jobs of its steps; those that ended long ago are pruned"})


class StudioIterationOut(ma.Schema):
    id = ma.fields.UUID()
    optimization_id = ma.fields.UUID()
    iteration_number = ma.fields.Integer(metadata={"description": "1 is the initial prompt"})
    prompt_variant = ma.fields.Raw(metadata={"description": "The texts that were tried"})
    metrics = ma.fields.Raw(metadata={"description": "score, standard_error, cases, round, decision"})
    tokens_used = ma.fields.Integer()
    cost = ma.fields.Float(allow_none=True, metadata={"description": "USD"})
    note = ma.fields.String()
    created_at = ma.fields.DateTime()


class StudioIterationIn(ma.Schema):
    iteration_number = WholeNumber(required=True, validate=ma.validate.Range(1, 1_000_000))
    prompt_variant = ma.fields.Dict(keys=ma.fields.String())
    metrics = ma.fields.Dict(keys=ma.fields.String())
    tokens_used = WholeNumber(validate=ma.validate.Range(0, 10**12))
    cost = Strict(validate=ma.validate.Range(0, 1e9))
    note = ma.fields.String(allow_none=True, validate=Length(max=1000))


class StudioOptimizationsQuery(StudioPageQuery):
    status = ma.fields.String(load_default=None, validate=ma.validate.OneOf(list(OURS)))


class StudioIterationsQuery(StudioPageQuery):
    per_page = Digits(load_default=50, validate=ma.validate.Range(1, 200))


@blp.get("/optimizations/strategies")
@blp.response(200, envelope_of(StudioStrategyOut, many=True))
def list_strategies() -> flask.Response:
    """List the strategies that there are, with their knobs"""
    rows = [
        {
            "name": item["name"],
            "display_name": item["name"].replace("_", " ").capitalize(),
            "description": item["description"],
            "parameters": {knob.pop("name"): knob for knob in item["knobs"]},
        }
        for item in knobs.describe()
    ]
    return flask.jsonify(enveloped(rows))


@blp.get("/optimizations/list/<uuid:project_id>")
@blp.arguments(StudioOptimizationsQuery, location="query")
@blp.response(200, envelope_of(StudioOptimizationOut, many=True))
def list_optimizations(query: dict[str, Any], project_id: uuid.UUID) -> flask.Response:
    """List the optimizations of a project, newest first"""
    page, size, status = query["page"], query["per_page"], query["status"]
    with reading() as session:
        state = None if status is None else OURS[status]
        wanted = optimizations.matching(session, caller(), project=str(project_id), state=state)
        found = pages.numbered(session, wanted, Optimization, page=page, per_page=size)
        rows = rendered_all(session, found.data)
    return paged(rows, page=page, per_page=size, total=found.total)


@blp.get("/optimizations/get/<uuid:optimization_id>")
@blp.response(200, envelope_of(StudioOneOptimizationOut))
def get_optimization(optimization_id: uuid.UUID) -> flask.Response:
    """Read an optimization"""
    with reading() as session:
        found = optimizations.get_optimization(session, caller(), optimization_id)
        ids = case_choices.ids_of(session, found.dataset_id, found.dataset_revision)
        return flask.jsonify(enveloped({**rendered(session, found), "test_case_ids": list(map(str, ids))}))


@blp.get("/optimizations/<uuid:optimization_id>")
@blp.response(200, envelope_of(StudioJobOut))
def get_job(optimization_id: uuid.UUID) -> flask.Response:
    """Read an optimization as the job that it was started as"""
    with reading() as session:
        return flask.jsonify(enveloped(_job(optimizations.get_optimization(session, caller(), optimization_id))))


@blp.get("/optimizations/history/<uuid:optimization_id>")
@blp.response(200, envelope_of(StudioHistoryOut))
def get_history(optimization_id: uuid.UUID) -> flask.Response:
    """Read how far an optimization is, and which jobs did it"""
    with reading() as session:
        found = optimizations.get_optimization(session, caller(), optimization_id)
        row = rendered(session, found)
        progress = {name: row[name] for name in ("iterations_completed", "max_iterations", "status")}
        timeline = [_entry(job) for job in jobs.steps_of(session, found.id)]
    return flask.jsonify(
        enveloped({"optimization": row, "job": _job(found), "progress": progress, "timeline": timeline})
    )


@blp.get("/optimizations/iterations/<uuid:optimization_id>")
@blp.arguments(StudioIterationsQuery, location="query")
@blp.response(200, envelope_of(StudioIterationOut, many=True))
def list_iterations(query: dict[str, Any], optimization_id: uuid.UUID) -> flask.Response:
    """List what an optimization tried, in the order of the search: the initial prompt, then each candidate"""
    page, size = query["page"], query["per_page"]
    with reading() as session:
        run = optimizations.get_optimization(session, caller(), optimization_id)
        wanted = optimizations.candidates_of(run)
        found = pages.numbered(session, wanted, Candidate, page=page, per_page=size, by=Candidate.ordinal)
        spent = optimizations.spend_by_candidate(session, run, found.data)
        rows = [_iteration(item, spent.get(item.hash)) for item in found.data]
    return paged(rows, page=page, per_page=size, total=found.total)


@blp.post("/optimizations/iterations/<uuid:optimization_id>")
@blp.arguments(StudioIterationIn)
@blp.response(200, envelope_of(StudioIterationOut))
def add_iteration(body: dict[str, Any], optimization_id: uuid.UUID) -> flask.Response:
    """Refused: iterations are what the fleet tried and measured, and cannot be told from outside

    To have a prompt of your own measured, update the prompt with it and start an evaluation.
    """
    with reading() as session:
        optimizations.get_optimization(session, caller(Role.EDITOR), optimization_id)
    raise Conflict(
        "iterations are what the fleet tried and measured, and cannot be added; to have a prompt of your own"
        " measured, make it a version and start an evaluation"
    )


def status_of(optimization: Optimization) -> str:
    return STATUSES.get(optimization.state, optimization.state)


def rendered(session: Session, optimization: Optimization) -> Any:
    return rendered_all(session, [optimization])[0]


def rendered_all(session: Session, found: Sequence[Optimization]) -> list[Any]:
    spends = runs.spends_of(session, [run.id for run in found])
    return [_rendered(run, spends[run.id]) for run in found]


def _rendered(optimization: Optimization, spent: Spend) -> Any:
    result = optimization.result or {}
    holdout = result.get("holdout")
    measured = holdout and {"n": holdout["n"], "ci_low": holdout["ci_low"], "ci_high": holdout["ci_high"]}
    initial = {"score": result.get("baseline_dev"), "holdout_score": holdout and holdout["baseline"]}
    final = {
        "score": result.get("best_dev"),
        "holdout_score": holdout and holdout["candidate"],
        "holdout_difference": measured,
        "verdict": result.get("verdict"),
    }
    return {
        **StudioOptimizationOut().dump(optimization),
        "optimization_config": _config(optimization),
        "initial_metrics": initial if result else None,
        "final_metrics": final if result else None,
        "improvement_percentage": _percentage(holdout),
        "iterations_completed": optimization.progress.get("round", 0),
        "max_iterations": rounds_of(optimization.strategy, optimization.spec["knobs"]),
        "bootstrap_samples": None,
        "status": status_of(optimization),
        "total_tokens": spent.tokens,
        "total_cost": providers.usd(spent.nano),
    }


def _config(optimization: Optimization) -> dict[str, Any]:
    """The settings that decide the search, in the words of the original."""
    spec = optimization.spec
    return {
        "optimizer_type": optimization.strategy,
        "max_iterations": rounds_of(optimization.strategy, spec["knobs"]),
        "target_value": spec["early_stopping"]["target_score"],
        "early_stopping_patience": spec["early_stopping"]["patience"],
        "models_to_test": [spec["model"]["model_name"]],
        "budget_limit": providers.usd(spec["budget"]["max_cost_nano"]),
        "max_task_calls": spec["budget"]["max_task_calls"],
        "strategy_params": spec["knobs"],
        "scorers": spec["scorers"],
        "seed": spec["seed"],
    }


def _percentage(holdout: Mapping[str, Any] | None) -> float | None:
    return 100 * holdout["difference"] / holdout["baseline"] if holdout and holdout["baseline"] else None


def _job(optimization: Optimization) -> Any:
    fields = {
        "id": optimization.id,
        "job_type": "optimization",
        "entity_id": optimization.id,
        "project_id": optimization.project_id,
        "status": JOB_STATUSES.get(optimization.state, optimization.state),
        "result": optimization.result,
        "error_message": optimization.error_message,
        "created_at": optimization.created_at,
        "started_at": optimization.started_at,
        "completed_at": optimization.completed_at,
    }
    return StudioJobOut().dump(fields)


def _entry(job: Job) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "step": job.step_no,
        "status": JOB_STATUSES[job.state],
        "created_at": job.created_at.isoformat(),
        "started_at": None,  # a job's own start is in its lease, which ends with it
        "completed_at": job.finished_at and job.finished_at.isoformat(),
    }


def _iteration(candidate: Candidate, spent: CandidateSpend | None) -> Any:
    fields = {
        "id": candidate.id,
        "optimization_id": candidate.optimization_id,
        "iteration_number": candidate.ordinal + 1,
        "prompt_variant": candidate.components,
        "metrics": {
            "score": candidate.mean,
            "standard_error": candidate.standard_error,
            "cases": candidate.cases,
            "round": candidate.round,
            "decision": candidate.decision,
        },
        "tokens_used": spent.tokens if spent else 0,
        "cost": providers.usd(spent.nano) if spent else 0.0,
        "note": ": ".join(filter(None, [candidate.operator, candidate.reason])),
        "created_at": candidate.created_at,
    }
    return StudioIterationOut().dump(fields)
