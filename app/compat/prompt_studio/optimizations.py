"""Starting and ending the optimizations of Prompt Studio: real searches under a real budget."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay
from app.api import runs
from app.api.content import Length
from app.auth import caller
from app.compat.prompt_studio import envelope_of, enveloped, relocated, studio_blueprint
from app.compat.prompt_studio.configs import Config, StudioOptimizationConfig, calls_for, check, strategy_of
from app.compat.prompt_studio.models import StudioModelConfig, chosen, params_of
from app.compat.prompt_studio.searches import StudioOptimizationOut, rendered, status_of
from app.compat.prompt_studio.targets import scorers_for, test_case_ids_field
from shared import knobs
from shared.db import reading
from shared.domain import case_choices, evaluations, optimizations, versions
from shared.domain.budgets import Limits
from shared.domain.evaluations import Target
from shared.domain.optimizations import OptimizationRequest
from shared.domain.tenants import Caller
from shared.errors import NotFound, PromptmillError, field_error
from shared.models import JobKind, Optimization, Role

blp = studio_blueprint("optimizations", "Prompt Studio: optimizations.")
COMPARED_ITERATIONS = 10  # of each strategy, as in the original


class StudioOptimizationIn(ma.Schema):
    project_id = ma.fields.UUID(required=True)
    initial_prompt_id = ma.fields.UUID(required=True)
    optimization_config = ma.fields.Nested(StudioOptimizationConfig, required=True)
    bootstrap_config = ma.fields.Raw(allow_none=True, metadata={"description": "null: use strategy_params"})
    test_case_ids = test_case_ids_field()
    name = ma.fields.String(allow_none=True, validate=Length(max=255))
    description = ma.fields.String(
        allow_none=True, validate=Length(max=1000), metadata={"description": "Not kept; a warning says so"}
    )
    scorers = ma.fields.List(ma.fields.Dict(keys=ma.fields.String()))


class StudioSimpleOptimizationIn(ma.Schema):
    prompt_id = ma.fields.UUID(metadata={"description": "Or initial_prompt_id"})
    initial_prompt_id = ma.fields.UUID()
    project_id = ma.fields.UUID(allow_none=True, metadata={"description": "The prompt's own if left out"})
    config = ma.fields.Nested(StudioOptimizationConfig, load_default=dict)
    strategy = ma.fields.String(validate=Length(1, 64))
    test_case_ids = test_case_ids_field()


class StudioComparisonIn(ma.Schema):
    prompt_id = ma.fields.UUID(required=True)
    test_case_ids = test_case_ids_field()
    strategies = ma.fields.List(ma.fields.String(validate=Length(1, 64)), required=True, validate=Length(1, 10))
    model_configuration = ma.fields.Nested(StudioModelConfig, allow_none=True)
    config = ma.fields.Nested(StudioModelConfig, metadata={"description": "Another word for model_configuration"})


class StudioCancelIn(ma.Schema):
    reason = ma.fields.String(allow_none=True, validate=Length(max=1000), metadata={"description": "Kept in the event"})


class StudioCreatedOut(ma.Schema):
    optimization = ma.fields.Nested(StudioOptimizationOut)
    job_id = ma.fields.UUID(metadata={"description": "The optimization's own id: one run, however many jobs do it"})


class StudioStartedOut(ma.Schema):
    id = ma.fields.UUID()
    status = ma.fields.String()


class StudioComparisonOut(ma.Schema):
    optimization_ids = ma.fields.List(ma.fields.UUID())
    job_ids = ma.fields.List(ma.fields.UUID())
    strategies = ma.fields.List(ma.fields.String())
    message = ma.fields.String()


@dataclass(frozen=True)
class Planned:
    request: OptimizationRequest
    spec: Mapping[str, Any]
    target: Target
    moved: Mapping[str, str]  # where the fields of /v1 stand in the body


@blp.post("/optimizations/create")
@blp.fails(404)
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(StudioOptimizationIn)
@blp.response(201, envelope_of(StudioCreatedOut))
def create_optimization(body: dict[str, Any]) -> flask.Response:
    """Start an optimization; without a budget_limit its iterations decide how many calls it may make"""
    author = caller(Role.EDITOR)
    if body.get("bootstrap_config"):
        raise field_error("/bootstrap_config", "is not read; the strategy's knobs stand in strategy_params")
    config = check(body["optimization_config"], "/optimization_config")
    warnings = [*config.warnings, *(["description: is not kept"] if body.get("description") else [])]

    def plan() -> Planned:
        with reading() as session:
            return _planned(session, author, config, body, body["initial_prompt_id"], "/initial_prompt_id")

    def make(session: Session, planned: Planned) -> Any:
        made = _create(session, author, planned)
        return enveloped({"optimization": rendered(session, made), "job_id": str(made.id)}, warnings=warnings)

    return replay.create(author, flask.g.body, 201, make, plan=plan)


@blp.post("/optimizations")
@blp.fails(404)
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(StudioSimpleOptimizationIn)
@blp.response(201, StudioStartedOut)
def start_optimization(body: dict[str, Any]) -> flask.Response:
    """Start an optimization; the answer has no envelope, and its id is the job's and the optimization's"""
    author = caller(Role.EDITOR)
    given = [name for name in ("prompt_id", "initial_prompt_id") if name in body]
    if len(given) != 1:
        raise field_error("/prompt_id", "give either prompt_id or initial_prompt_id")
    config = check(body["config"], "/config", strategy=body.get("strategy"))

    def plan() -> Planned:
        with reading() as session:
            return _planned(session, author, config, body, body[given[0]], f"/{given[0]}")

    def make(session: Session, planned: Planned) -> Any:
        made = _create(session, author, planned)
        return {"id": str(made.id), "status": status_of(made)}

    return replay.create(author, flask.g.body, 201, make, plan=plan)


@blp.post("/optimizations/compare")
@blp.post("/optimizations/compare-strategies")
@blp.fails(404)
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(StudioComparisonIn)
@blp.response(201, envelope_of(StudioComparisonOut))
def compare_strategies(body: dict[str, Any]) -> flask.Response:
    """Start an optimization for each strategy, all under the same budget; all of them or none

    The same number of iterations on the same cases makes the same ceiling.
    """
    author = caller(Role.EDITOR)
    if body.get("config") and body.get("model_configuration"):
        raise field_error("/config", "is another word for model_configuration; give one of them")
    at = "/config" if body.get("config") else "/model_configuration"
    model = body.get(at[1:]) or {}
    params, warnings = params_of(model, at)
    names = [strategy_of(name, f"/strategies/{index}") for index, name in enumerate(body["strategies"])]
    if len({str(knobs.canonical(name, {})) for name in body["strategies"]}) < len(names):
        raise field_error("/strategies", "names a strategy twice")
    configs = [check({}, at, strategy=name, usual=COMPARED_ITERATIONS) for name in body["strategies"]]

    def planned(session: Session, calls: int = 0) -> list[Planned]:
        where = (body, body["prompt_id"], "/prompt_id")
        return [
            _planned(session, author, config, *where, model=model, params=params, calls=calls) for config in configs
        ]

    def plan() -> list[Planned]:
        with reading() as session:
            # Where a strategy needs more than the others, all get as much.
            return planned(session, max(item.request.budget.max_task_calls or 0 for item in planned(session)))

    def make(session: Session, plans: list[Planned]) -> Any:
        made = [str(_create(session, author, item).id) for item in plans]
        calls = plans[0].request.budget.max_task_calls
        message = f"{len(made)} optimizations started, each with at most {calls} task calls"
        data = {"optimization_ids": made, "job_ids": made, "strategies": names, "message": message}
        return enveloped(data, warnings=warnings)

    return replay.create(author, flask.g.body, 201, make, plan=plan)


@blp.post("/optimizations/cancel/<uuid:optimization_id>")
@blp.arguments(StudioCancelIn)
@blp.response(200, envelope_of(StudioOptimizationOut))
def cancel_optimization(body: dict[str, Any], optimization_id: uuid.UUID) -> flask.Response:
    """Cancel an optimization, with every call of it that waits; 409 if it has ended otherwise"""

    def find(session: Session, author: Caller) -> Optimization:
        return optimizations.get_optimization(session, author, optimization_id)

    found = runs.cancel(JobKind.OPTIMIZATION, find, rendered, reason=body.get("reason") or "")
    return flask.jsonify(enveloped(found))


def _planned(
    session: Session,
    author: Caller,
    config: Config,
    body: Mapping[str, Any],
    prompt_id: uuid.UUID,
    field: str,
    *,
    model: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    calls: int = 0,
) -> Planned:
    """The request of /v1 with its ceiling (of at least so many calls), checked. Reads only."""
    found = versions.get_relative(session, author, prompt_id)
    home = body.get("project_id") or found.prompt.project_id
    if found.prompt.project_id != home:
        raise NotFound(f"no prompt {prompt_id} in the project", fields=[field[1:]])
    picked = case_choices.choose(session, author, str(home), body.get("test_case_ids") or ())
    settings = found.version.content.get("model", {})
    wanted = model or {}
    provider, model_name = chosen(
        session,
        wanted.get("model_name", config.model_name),
        wanted.get("provider"),
        settings,
        field=f"{config.at}/{'models_to_test' if model is None else 'model_name'}",
    )
    request = OptimizationRequest(
        prompt_name=found.prompt.name,
        project=str(home),
        version_number=found.version.number,
        dataset=picked.dataset.name,
        provider=provider,
        model_name=model_name,
        params=params or {},
        strategy=config.strategy,
        knobs=config.knobs,
        early_stopping=config.early_stopping,
        scorers=scorers_for(body.get("scorers"), config.metric, picked.cases, f"{config.at}/target_metric"),
        budget=Limits(max_task_calls=1, max_cost_usd=config.max_cost_usd),
        name=body.get("name") or "",
    )
    try:
        spec = optimizations.check_request(request)
        request = replace(
            request, budget=_ceiling(config, max(calls, calls_for(spec, config.iterations, picked.cases)))
        )
        spec = optimizations.check_request(request)
        target = evaluations.plan_target(session, author, request, spec["scorers"])
        return Planned(request, spec, target, config.moved())
    except PromptmillError as error:
        raise relocated(error, config.moved()) from error


def _ceiling(config: Config, calls: int) -> Limits:
    """In USD if one was named, else the calls that the iterations need: no search of ours runs without any."""
    if config.max_cost_usd is not None:
        return Limits(max_cost_usd=config.max_cost_usd)
    return Limits(max_task_calls=calls)


def _create(session: Session, author: Caller, planned: Planned) -> Optimization:
    try:
        return optimizations.create_optimization(session, author, planned.request, planned.spec, planned.target)
    except PromptmillError as error:
        raise relocated(error, planned.moved) from error
