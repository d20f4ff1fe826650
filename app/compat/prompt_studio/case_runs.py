"""Test cases of Prompt Studio, run (an evaluation of the chosen cases) and written by a model (a generation)."""

import uuid
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay, waiting
from app.api import WholeNumber
from app.api.content import Length
from app.api.executions import PREFER, wait_seconds
from app.auth import caller
from app.compat.prompt_studio import STATUSES, envelope_of, enveloped, relocated, studio_blueprint
from app.compat.prompt_studio.models import chosen
from app.compat.prompt_studio.targets import MOVED, scorers_for
from app.compat.prompt_studio.test_cases import StudioCaseOut, refuse_signature, signature_field
from shared.db import reading, transaction
from shared.domain import case_choices, datasets, evaluations, generations, jobs, test_cases, versions
from shared.domain.case_requests import DIVERSE, STRATEGIES
from shared.domain.evaluations import EvaluationRequest, Plan
from shared.domain.generations import MAX_COUNT, GenerationRequest
from shared.domain.tenants import Caller
from shared.errors import NotFound, PromptmillError, field_error
from shared.models import Evaluation, Generation, JobKind, Role

blp = studio_blueprint("test-case runs", "Prompt Studio: test cases run, and written by a model.")
MAX_CASES = 1_000


class StudioRunIn(ma.Schema):
    prompt_id = ma.fields.UUID(required=True)
    test_case_ids = ma.fields.List(ma.fields.UUID(), required=True, validate=Length(1, MAX_CASES))
    model = ma.fields.String(allow_none=True, validate=Length(1, 128))
    scorers = ma.fields.List(
        ma.fields.Dict(keys=ma.fields.String()),
        metadata={"description": "As in /v1/evaluations; by the kind of the expected outputs if left out"},
    )


class StudioResultOut(ma.Schema):
    test_case_id = ma.fields.UUID()
    inputs = ma.fields.Raw()
    expected_outputs = ma.fields.Raw(attribute="expected", allow_none=True)
    actual_outputs = ma.fields.String(attribute="response_text", allow_none=True)
    score = ma.fields.Float(allow_none=True)
    passed = ma.fields.Boolean(allow_none=True)
    feedback = ma.fields.String(allow_none=True)
    execution_id = ma.fields.UUID(allow_none=True)
    error_message = ma.fields.String(attribute="error_type", allow_none=True)


class StudioRunOut(ma.Schema):
    evaluation_id = ma.fields.UUID()
    status = ma.fields.String()
    results = ma.fields.List(ma.fields.Nested(StudioResultOut), metadata={"description": "[] until it has ended"})


@blp.post("/test-cases/run")
@blp.fails(404)
@blp.doc(parameters=[replay.PARAMETER, PREFER])
@blp.arguments(StudioRunIn)
@blp.response(200, envelope_of(StudioRunOut))
@blp.alt_response(202, schema=envelope_of(StudioRunOut), description="Not done yet; poll the Location")
def run_cases(body: dict[str, Any]) -> flask.Response:
    """Run a prompt on test cases of its project and wait for the results; it is an evaluation"""
    author, seconds = caller(Role.EDITOR), wait_seconds()

    def plan() -> Plan:
        return _planned(author, body)

    def make(session: Session, planned: Plan) -> Any:
        return enveloped(_run(session, evaluations.create_evaluation(session, author, planned)))

    answer = replay.create(author, flask.g.body, 202, make, plan=plan)
    evaluation_id = uuid.UUID(answer.get_json()["data"]["evaluation_id"])
    waiting.wait_for(evaluation_id, seconds, JobKind.EVALUATION)
    with reading() as session:
        if not jobs.is_live(session, JobKind.EVALUATION, evaluation_id):
            found = evaluations.get_evaluation(session, author, evaluation_id)
            answer.set_data(flask.json.dumps(enveloped(_run(session, found))))
            answer.status_code = 200
    answer.headers["Location"] = flask.request.path.replace("test-cases/run", f"evaluations/{evaluation_id}")
    return answer


def _planned(author: Caller, body: dict[str, Any]) -> Plan:
    with transaction() as session:  # which cases are meant is fixed first, in a revision that holds them and no others
        found = versions.get_relative(session, author, body["prompt_id"], writing=True)
        settings = found.version.content.get("model", {})
        model = chosen(session, body.get("model"), None, settings, field="/model")
        name, revision = case_choices.pin(session, author, found.prompt.project_id, body["test_case_ids"])
    with reading() as session:
        project = str(found.prompt.project_id)
        dataset = datasets.get_dataset(session, author, name, project=project)
        cases = datasets.cases_of(session, dataset.id, revision)
        request = EvaluationRequest(
            prompt_name=found.prompt.name,
            project=project,
            version_number=found.version.number,
            dataset=name,
            dataset_revision=revision,
            provider=model[0],
            model_name=model[1],
            scorers=scorers_for(body.get("scorers"), None, cases, "/scorers"),
        )
        try:
            return evaluations.plan(session, author, request, request.scorers)
        except PromptmillError as error:
            raise relocated(error, MOVED) from error


def _run(session: Session, evaluation: Evaluation) -> Any:
    results = []
    if not jobs.is_live(session, JobKind.EVALUATION, evaluation.id):
        cases = datasets.cases_of(session, evaluation.dataset_id, evaluation.dataset_revision)
        of_place = {case.ordinal: case.case_id for case in cases}
        page = evaluations.list_results(session, evaluation, limit=MAX_CASES, cursor=None)
        results = [{**row._mapping, "test_case_id": of_place[row.ordinal]} for row in page.data]
    shown = {"evaluation_id": evaluation.id, "status": STATUSES[evaluation.state], "results": results}
    return StudioRunOut().dump(shown)


class StudioGenerateIn(ma.Schema):
    project_id = ma.fields.UUID(required=True)
    prompt_id = ma.fields.UUID(allow_none=True, metadata={"description": "Required: its variables are what is filled"})
    signature_id = signature_field()
    num_cases = WholeNumber(load_default=5, validate=ma.validate.Range(1, MAX_COUNT))
    generation_strategy = ma.fields.String(load_default=DIVERSE, validate=ma.validate.OneOf(STRATEGIES))
    base_on_description = ma.fields.String(allow_none=True, validate=Length(max=2000))


class StudioGeneratedOut(ma.Schema):
    generation_id = ma.fields.UUID()
    status = ma.fields.String()
    test_cases = ma.fields.List(ma.fields.Nested(StudioCaseOut), metadata={"description": "[] until it has ended"})
    error_message = ma.fields.String(allow_none=True)


@blp.post("/test-cases/generate")
@blp.fails(404)
@blp.doc(parameters=[replay.PARAMETER, PREFER])
@blp.arguments(StudioGenerateIn)
@blp.response(200, envelope_of(StudioGeneratedOut))
@blp.alt_response(202, schema=envelope_of(StudioGeneratedOut), description="Not done yet; poll the Location")
def generate_cases(body: dict[str, Any]) -> flask.Response:
    """Have the prompt's model write test cases into the project, and wait for them"""
    author, seconds = caller(Role.EDITOR), wait_seconds()
    refuse_signature(body)
    if body.get("prompt_id") is None:
        raise field_error("/prompt_id", "required: its variables are what a test case fills")

    def make(session: Session, _: Any) -> Any:
        found = versions.get_relative(session, author, body["prompt_id"], writing=True)
        if found.prompt.project_id != body["project_id"]:
            raise NotFound(f"no prompt {body['prompt_id']} in the project", fields=["prompt_id"])
        dataset = case_choices.studio_dataset(session, author, body["project_id"])
        request = GenerationRequest(
            prompt_name=f"{found.prompt.name}@v{found.version.number}",
            count=body["num_cases"],
            strategy=body["generation_strategy"],
            description=body.get("base_on_description") or "",
        )
        project = str(body["project_id"])
        try:
            target = generations.plan_generation(session, author, request, dataset.name, project=project)
        except PromptmillError as error:
            places = {"/prompt_name": "/prompt_id", "/model": "/prompt_id", "/count": "/num_cases"}
            raise relocated(error, places) from error
        return enveloped(_generated(session, generations.create_generation(session, author, request, target)))

    answer = replay.create(author, flask.g.body, 202, make)
    generation_id = uuid.UUID(answer.get_json()["data"]["generation_id"])
    waiting.wait_for(generation_id, seconds, JobKind.GENERATION)
    with reading() as session:
        if not jobs.is_live(session, JobKind.GENERATION, generation_id):
            found = generations.get_generation(session, author, generation_id)
            answer.set_data(flask.json.dumps(enveloped(_generated(session, found))))
            answer.status_code = 200
    answer.headers["Location"] = f"/v1/generations/{generation_id}"
    return answer


def _generated(session: Session, generation: Generation) -> Any:
    cases = test_cases.made_in(session, generation.dataset_id, generation.revision) if generation.revision else []
    project_id = str(generation.project_id)
    return {
        "generation_id": str(generation.id),
        "status": STATUSES[generation.state],
        "test_cases": [{**case, "project_id": project_id} for case in StudioCaseOut().dump(cases, many=True)],
        "error_message": generation.error_message,
    }
