"""Test cases of Prompt Studio, run: an evaluation of the chosen cases on the fleet."""

import uuid
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay, waiting
from app.api.content import Length
from app.api.executions import PREFER, wait_seconds
from app.auth import caller
from app.compat.prompt_studio import STATUSES, envelope_of, enveloped, relocated, studio_blueprint
from app.compat.prompt_studio.models import chosen
from app.compat.prompt_studio.targets import MOVED, scorers_for
from shared.db import reading, transaction
from shared.domain import case_choices, datasets, evaluations, versions
from shared.domain.evaluations import EvaluationRequest, Target
from shared.domain.tenants import Caller
from shared.errors import PromptmillError
from shared.models import Evaluation, Role

blp = studio_blueprint("test-case runs", "Prompt Studio: runs of test cases.")
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
@blp.doc(parameters=[replay.PARAMETER, PREFER])
@blp.arguments(StudioRunIn)
@blp.response(200, envelope_of(StudioRunOut))
@blp.alt_response(202, schema=envelope_of(StudioRunOut), description="Not done yet; poll the Location")
def run_cases(body: dict[str, Any]) -> flask.Response:
    """Run a prompt on test cases of its project and wait for the results; it is an evaluation"""
    author, seconds = caller(Role.EDITOR), wait_seconds()

    def plan() -> tuple[EvaluationRequest, Target]:
        return _planned(author, body)

    def make(session: Session, planned: tuple[EvaluationRequest, Target]) -> Any:
        request, target = planned
        made = evaluations.create_evaluation(session, author, request, request.scorers, target)
        return enveloped(_run(session, made))

    answer = replay.create(author, flask.g.body, 202, make, plan=plan)
    evaluation_id = uuid.UUID(answer.get_json()["data"]["evaluation_id"])
    waiting.wait_for(evaluation_id, seconds, evaluations.is_waiting)
    with reading() as session:
        if not evaluations.is_waiting(session, evaluation_id):
            found = evaluations.get_evaluation(session, author, evaluation_id)
            answer.set_data(flask.json.dumps(enveloped(_run(session, found))))
            answer.status_code = 200
    answer.headers["Location"] = flask.request.path.replace("test-cases/run", f"evaluations/{evaluation_id}")
    return answer


def _planned(author: Caller, body: dict[str, Any]) -> tuple[EvaluationRequest, Target]:
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
            return request, evaluations.plan_target(session, author, request, request.scorers)
        except PromptmillError as error:
            raise relocated(error, MOVED) from error


def _run(session: Session, evaluation: Evaluation) -> Any:
    results = []
    if not evaluations.is_waiting(session, evaluation.id):
        cases = datasets.cases_of(session, evaluation.dataset_id, evaluation.dataset_revision)
        of_place = {case.ordinal: case.case_id for case in cases}
        page = evaluations.list_results(session, evaluation, limit=MAX_CASES, cursor=None)
        results = [{**row._mapping, "test_case_id": of_place[row.ordinal]} for row in page.data]
    shown = {"evaluation_id": evaluation.id, "status": STATUSES[evaluation.state], "results": results}
    return StudioRunOut().dump(shown)
