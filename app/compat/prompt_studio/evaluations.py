"""Evaluations of Prompt Studio: measured on the fleet, whatever a client would rather have measured."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay, waiting
from app.api import Digits
from app.api.content import Length, TrueOrFalse
from app.api.executions import PREFER, wait_seconds
from app.auth import caller
from app.compat.prompt_studio import (
    STATUSES,
    Identified,
    envelope_of,
    enveloped,
    paged,
    relocated,
    studio_blueprint,
)
from app.compat.prompt_studio.models import StudioModelConfig, chosen, params_of
from app.compat.prompt_studio.targets import MOVED, scorers_for, test_case_ids_field
from shared.db import reading
from shared.domain import case_choices, evaluations, jobs, pages, projects, providers, runs, versions
from shared.domain.evaluations import EvaluationRequest, Plan
from shared.errors import Conflict, NotFound, PromptmillError, field_error
from shared.models import Evaluation, JobKind, Role, TestCase

blp = studio_blueprint("evaluations", "Prompt Studio: evaluations.")


class StudioEvaluationIn(ma.Schema):
    project_id = ma.fields.UUID(required=True)
    prompt_id = ma.fields.UUID(required=True)
    name = ma.fields.String(allow_none=True, validate=Length(max=200))
    description = ma.fields.String(
        allow_none=True, validate=Length(max=1000), metadata={"description": "Not kept; a warning says so"}
    )
    test_case_ids = test_case_ids_field()
    config = ma.fields.Nested(StudioModelConfig, allow_none=True)
    model_configs = ma.fields.List(
        ma.fields.Nested(StudioModelConfig),
        allow_none=True,
        validate=Length(max=1),
        metadata={"description": "One; start an evaluation for each model"},
    )
    run_async = TrueOrFalse(metadata={"description": "false if left out: wait for the end, as long as `Prefer` says"})
    tags = ma.fields.List(
        ma.fields.String(),
        allow_none=True,
        validate=Length(max=20),
        metadata={"description": "Not kept; a warning says so"},
    )
    metrics = ma.fields.Raw(allow_none=True, metadata={"description": "null: they are measured, never given"})
    scorers = ma.fields.List(
        ma.fields.Dict(keys=ma.fields.String()),
        metadata={"description": "As in /v1/evaluations; by the kind of the expected outputs if left out"},
    )


class StudioEvaluationOut(Identified):
    project_id = ma.fields.UUID()
    prompt_id = ma.fields.UUID(attribute="version_id")
    name = ma.fields.String()
    status = ma.fields.Function(lambda evaluation: STATUSES[evaluation.state])
    metrics = ma.fields.Method("_metrics", metadata={"description": "null until there are any"})
    config = ma.fields.Method("_config")
    tags: ma.fields.Field[Any] = ma.fields.Constant([])
    scorers = ma.fields.Raw()
    dataset_id = ma.fields.UUID()
    dataset_revision = ma.fields.Integer()
    created_at = ma.fields.DateTime()
    started_at = ma.fields.DateTime(allow_none=True)
    completed_at = ma.fields.DateTime(allow_none=True)
    error_message = ma.fields.String(allow_none=True)
    total_tokens = ma.fields.Integer()
    total_cost = ma.fields.Float(allow_none=True, metadata={"description": "USD"})

    def _metrics(self, evaluation: Evaluation) -> Any:
        found = evaluation.aggregate
        if found is None:
            return None
        return {
            **found,
            "total_tests": found["cases"],
            "failed": found["scored"] - found["passed"],
            "average_score": found.get("score"),
        }

    def _config(self, evaluation: Evaluation) -> Any:
        params = dict(evaluation.model["params"])
        tokens = {"max_tokens": params.pop("max_new_tokens")} if "max_new_tokens" in params else {}
        return {
            "provider": evaluation.model["provider"],
            "model_name": evaluation.model["model_name"],
            **params,
            **tokens,
        }


class StudioEvaluationsQuery(ma.Schema):
    project_id = ma.fields.UUID(load_default=None)
    prompt_id = ma.fields.UUID(load_default=None)
    limit = Digits(load_default=100, validate=ma.validate.Range(1, 1000))
    offset = Digits(load_default=0, validate=ma.validate.Range(0, 100_000_000))


@blp.post("/evaluations")
@blp.fails(404)
@blp.doc(parameters=[replay.PARAMETER, PREFER])
@blp.arguments(StudioEvaluationIn)
@blp.response(200, envelope_of(StudioEvaluationOut))
@blp.alt_response(202, schema=envelope_of(StudioEvaluationOut), description="Not done yet; poll the Location")
def create_evaluation(body: dict[str, Any]) -> flask.Response:
    """Start an evaluation, and wait for its end unless `run_async`"""
    author, seconds = caller(Role.EDITOR), wait_seconds()
    _refuse(body)
    config, at = _config_of(body)
    params, warnings = params_of(config, at)
    warnings += [f"{name}: is not kept" for name in ("description", "tags") if body.get(name)]

    def plan() -> Plan:
        with reading() as session:
            return _planned(session, body, config, at, params)

    def make(session: Session, planned: Plan) -> Any:
        return enveloped(
            _evaluation(session, evaluations.create_evaluation(session, author, planned)), warnings=warnings
        )

    answer = replay.create(author, flask.g.body, 202, make, plan=plan)
    evaluation_id = uuid.UUID(answer.get_json()["data"]["id"])
    if not body.get("run_async"):
        waiting.wait_for(evaluation_id, seconds, JobKind.EVALUATION)
        with reading() as session:
            if not jobs.is_live(session, JobKind.EVALUATION, evaluation_id):
                found = evaluations.get_evaluation(session, author, evaluation_id)
                answer.set_data(flask.json.dumps(enveloped(_evaluation(session, found), warnings=warnings)))
                answer.status_code = 200
    answer.headers["Location"] = flask.request.path + f"/{evaluation_id}"
    return answer


@blp.get("/evaluations")
@blp.fails(404)
@blp.arguments(StudioEvaluationsQuery, location="query")
@blp.response(200, envelope_of(StudioEvaluationOut, many=True))
def list_evaluations(query: dict[str, Any]) -> flask.Response:
    """List evaluations, newest first; of every project and prompt unless one is named"""
    limit, offset = query["limit"], query["offset"]
    project = query["project_id"] and str(query["project_id"])
    with reading() as session:
        wanted = evaluations.matching(session, caller(), project=project, version_id=query["prompt_id"])
        found = pages.at_offset(session, wanted, Evaluation, limit=limit, offset=offset)
        rows = _evaluations(session, found.data)
    return paged(rows, page=offset // limit + 1, per_page=limit, total=found.total)


@blp.get("/evaluations/<uuid:evaluation_id>")
@blp.response(200, envelope_of(StudioEvaluationOut))
def get_evaluation(evaluation_id: uuid.UUID) -> flask.Response:
    """Read an evaluation"""
    with reading() as session:
        found = evaluations.get_evaluation(session, caller(), evaluation_id)
        return flask.jsonify(enveloped(_evaluation(session, found)))


@blp.delete("/evaluations/<uuid:evaluation_id>")
@blp.response(200, envelope_of(StudioEvaluationOut))
def delete_evaluation(evaluation_id: uuid.UUID) -> flask.Response:
    """Refused: an evaluation says what was paid for, and goes only with its project

    POST /v1/evaluations/{id}/cancel ends one that runs.
    """
    with reading() as session:
        evaluations.get_evaluation(session, caller(Role.EDITOR), evaluation_id)
    raise Conflict(
        "an evaluation says what was paid for and is not deleted; end one that runs with"
        f" POST /v1/evaluations/{evaluation_id}/cancel"
    )


def _refuse(body: Mapping[str, Any]) -> None:
    if body.get("metrics"):
        raise field_error("/metrics", "are measured here and cannot be given")
    if body.get("config") and body.get("model_configs"):
        raise field_error("/model_configs", "give config or model_configs")


def _config_of(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The model's settings, and where they stand in the body."""
    if body.get("model_configs"):
        return body["model_configs"][0], "/model_configs/0"
    return body.get("config") or {}, "/config"


def _planned(
    session: Session, body: Mapping[str, Any], config: Mapping[str, Any], at: str, params: Mapping[str, Any]
) -> Plan:
    author, project = caller(Role.EDITOR), str(body["project_id"])
    projects.get_project(session, author, project)
    prompt_id = body["prompt_id"]
    found = versions.get_relative(session, author, prompt_id)
    if found.prompt.project_id != body["project_id"]:
        raise NotFound(f"no prompt {prompt_id} in the project", fields=["prompt_id"])
    settings = found.version.content.get("model", {})
    model = chosen(session, config.get("model_name"), config.get("provider"), settings, field=f"{at}/model_name")
    picked = case_choices.choose(session, author, project, body.get("test_case_ids") or ())
    request = EvaluationRequest(
        prompt_name=found.prompt.name,
        project=project,
        version_number=found.version.number,
        dataset=picked.dataset.name,
        provider=model[0],
        model_name=model[1],
        params=params,
        scorers=_scorers(body, picked.cases),
        name=body.get("name") or "",
    )
    try:
        return evaluations.plan(session, author, request, request.scorers)
    except PromptmillError as error:
        raise relocated(error, {**MOVED, "/params/max_new_tokens": f"{at}/max_tokens", "/params": at}) from error


def _scorers(body: Mapping[str, Any], cases: Sequence[TestCase]) -> list[dict[str, Any]]:
    return scorers_for(body.get("scorers"), None, cases, "/metrics")


def _evaluation(session: Session, evaluation: Evaluation) -> Any:
    return _evaluations(session, [evaluation])[0]


def _evaluations(session: Session, found: Sequence[Evaluation]) -> list[Any]:
    spends = runs.spends_of(session, [evaluation.id for evaluation in found])
    return [
        {
            **StudioEvaluationOut().dump(evaluation),
            "total_tokens": spends[evaluation.id].tokens,
            "total_cost": providers.usd(spends[evaluation.id].nano),
        }
        for evaluation in found
    ]
