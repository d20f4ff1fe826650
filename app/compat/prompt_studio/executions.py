"""Running a prompt of Prompt Studio, through the one execution path of /v1."""

import uuid
from collections.abc import Mapping
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay, waiting
from app.api.content import Length
from app.api.executions import PREFER, locate, wait_seconds
from app.auth import caller
from app.compat.prompt_studio import STATUSES, envelope_of, enveloped, relocated, studio_blueprint
from app.compat.prompt_studio.models import chosen
from shared.db import reading
from shared.domain import executions, versions
from shared.domain.executions import NewExecution, RunRequest
from shared.errors import PromptmillError
from shared.models import Execution, Role, State

blp = studio_blueprint("executions", "Prompt Studio: runs of prompts.")
DEFAULT_MODEL = ("openai", "gpt-3.5-turbo")  # the original's, when neither the request nor the version names one

STATUS_CODES: Mapping[str, int] = {State.SUCCEEDED: 200, State.FAILED: 502, State.CANCELED: 409}


class StudioExecuteIn(ma.Schema):
    prompt_id = ma.fields.UUID(required=True)
    inputs = ma.fields.Dict(keys=ma.fields.String(), load_default=dict)
    provider = ma.fields.String(validate=Length(1, 64))
    model = ma.fields.String(validate=Length(1, 128))


class StudioOutputOut(ma.Schema):
    output = ma.fields.String(allow_none=True)
    tokens_used = ma.fields.Integer(allow_none=True)
    execution_time = ma.fields.Float(allow_none=True, metadata={"description": "Seconds of the provider's answer"})
    execution_id = ma.fields.UUID()
    status = ma.fields.String()


@blp.post("/prompts/execute")
@blp.fails(404)
@blp.doc(parameters=[replay.PARAMETER, PREFER])
@blp.arguments(StudioExecuteIn)
@blp.response(200, envelope_of(StudioOutputOut))
@blp.alt_response(202, schema=envelope_of(StudioOutputOut), description="Not done yet; poll the Location")
@blp.alt_response(502, schema=envelope_of(StudioOutputOut), description="The provider's call failed")
def execute(body: dict[str, Any]) -> flask.Response:
    """Run a prompt and wait for the answer"""
    author, seconds = caller(Role.EDITOR), wait_seconds()

    def plan() -> NewExecution:
        with reading() as session:
            return _planned(session, body)

    def submit(session: Session, planned: NewExecution) -> uuid.UUID:
        return executions.submit(session, planned, interactive=True)

    execution_id, replayed = replay.run(author, flask.g.body, plan, submit)
    waiting.wait_for(execution_id, seconds)
    with reading() as session:
        answer = _answer(executions.get_execution(session, author, execution_id))
    locate(answer, execution_id, replayed)
    return answer


def _planned(session: Session, body: dict[str, Any]) -> NewExecution:
    author = caller(Role.EDITOR)
    found = versions.get_relative(session, author, body["prompt_id"], writing=True)
    settings = found.version.content.get("model", {})
    model = chosen(session, body.get("model"), body.get("provider"), settings, default=DEFAULT_MODEL, field="/model")
    request = RunRequest(
        prompt_name=found.prompt.name,
        project=str(found.prompt.project_id),
        version_number=found.version.number,
        variables=body["inputs"],
        provider=model[0],
        model_name=model[1],
        request_id=flask.g.request_id,
    )
    try:
        return executions.plan(session, author, request)
    except PromptmillError as error:
        raise relocated(error, {"/variables": "/inputs", "/model/provider": "/provider"}) from error


def _answer(execution: Execution) -> flask.Response:
    asked, answered = execution.prompt_tokens, execution.response_tokens
    data = {
        "output": execution.response_text,
        "tokens_used": None if asked is None or answered is None else asked + answered,
        "execution_time": None if execution.latency_ms is None else execution.latency_ms / 1000,
        "execution_id": execution.id,
        "status": STATUSES[execution.state],
    }
    body = enveloped(StudioOutputOut().dump(data))
    if execution.state in (State.FAILED, State.CANCELED):
        body |= {"success": False, "error": execution.error_message or execution.state}
        body["error_code"] = execution.error_type or execution.state
    answer = flask.jsonify(body)
    answer.status_code = STATUS_CODES.get(execution.state, 202)
    return answer
