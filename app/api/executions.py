"""/v1/executions: run a prompt now, or submit it and poll."""

import uuid
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay, waiting
from app.api import Digits, Flag, ListQuery, Moment, WholeNumber, blueprint, page_of, project_field
from app.api.content import Length, Params
from app.auth import caller
from shared.config import settings
from shared.db import reading, transaction
from shared.domain import executions, lifecycle, prompts, providers
from shared.domain.executions import Filter, NewExecution, RunRequest
from shared.domain.names import VersionChoice
from shared.errors import FieldError, Unprocessable
from shared.models import Execution, JobKind, Prompt, Role, State, Version

blp = blueprint("executions", "One execution is one logical provider call, with all that went out and came back.")


PREFER = {
    "in": "header",
    "name": "Prefer",
    "schema": {"type": "string"},
    "description": "`wait=N`: how many seconds to wait for the answer (30 by default)",
}


def priority_field() -> WholeNumber:
    description = "0 is claimed first, 9 last; 5 if left out"
    return WholeNumber(validate=ma.validate.Range(0, 9), metadata={"description": description})


class ModelChoice(ma.Schema):
    provider = ma.fields.String(required=True, validate=ma.validate.OneOf(list(providers.PROVIDERS)))
    model_name = ma.fields.String(required=True, validate=Length(1, 128))


class RunIn(ma.Schema):
    prompt_name = ma.fields.String(
        required=True, metadata={"description": "`name`, `name@label`, `name@v12` or `name@sha256:…`"}
    )
    project = project_field()
    version_number = WholeNumber(allow_none=True, validate=ma.validate.Range(1, 999_999_999))
    label = ma.fields.String(allow_none=True, metadata={"description": "`production` when neither is given"})
    environment = ma.fields.String(
        validate=Length(1, 64), metadata={"description": "Recorded; never chooses a version"}
    )
    variables = ma.fields.Dict(keys=ma.fields.String())
    model = ma.fields.Nested(ModelChoice)
    params = ma.fields.Nested(Params)
    correlation_id = ma.fields.String(validate=Length(1, 128))


class SubmitIn(RunIn):
    priority = priority_field()


class Telemetry(ma.Schema):
    prompt_tokens = ma.fields.Integer(allow_none=True)
    response_tokens = ma.fields.Integer(allow_none=True)
    latency_ms = ma.fields.Integer(allow_none=True)


class ExecutionSummary(ma.Schema):
    execution_id = ma.fields.UUID(attribute="id")
    status = ma.fields.String(attribute="state")
    mode = ma.fields.String()
    purpose = ma.fields.String()
    environment = ma.fields.String()
    project_id = ma.fields.UUID(allow_none=True)
    prompt_id = ma.fields.UUID(allow_none=True)
    version_id = ma.fields.UUID(allow_none=True)
    provider = ma.fields.String()
    model_name = ma.fields.String()
    correlation_id = ma.fields.String(allow_none=True)
    batch_id = ma.fields.UUID(allow_none=True)
    batch_index = ma.fields.Integer(allow_none=True, metadata={"description": "Which item of the batch, from 0"})
    error_type = ma.fields.String(allow_none=True)
    cost_usd = ma.fields.Function(lambda execution: providers.usd(execution.cost_nano))
    telemetry = ma.fields.Method("_telemetry")
    created_by = ma.fields.String()
    created_at = ma.fields.DateTime()
    started_at = ma.fields.DateTime(allow_none=True)
    completed_at = ma.fields.DateTime(allow_none=True)

    def _telemetry(self, execution: Execution) -> Any:
        return Telemetry().dump(execution)


class Texts(ma.Schema):
    response_text = ma.fields.String(allow_none=True)
    error_message = ma.fields.String(allow_none=True)
    variables = ma.fields.Raw()
    params = ma.fields.Raw()
    messages = ma.fields.Raw(metadata={"description": "What was sent, rendered"})
    tools = ma.fields.Raw(metadata={"description": "What was sent with it; null: none"})
    response_schema = ma.fields.Raw(metadata={"description": "What was sent with it; null: none"})


class ListedExecutionOut(ExecutionSummary):
    """`texts` only where they were asked for."""

    prompt_name = ma.fields.String(allow_none=True)
    version_number = ma.fields.Integer(allow_none=True)
    texts = ma.fields.Nested(Texts)


class ExecutionOut(ExecutionSummary, Texts):
    prompt_name = ma.fields.String(allow_none=True)
    version_number = ma.fields.Integer(allow_none=True)
    finish_reason = ma.fields.String(allow_none=True)
    truncated = ma.fields.Boolean(metadata={"description": "The response is the first 500,000 bytes of the answer"})
    response_bytes = ma.fields.Integer(allow_none=True, metadata={"description": "Of the whole answer"})
    provider_request_id = ma.fields.String(allow_none=True)
    request_id = ma.fields.String(allow_none=True)
    attempts = ma.fields.Integer()
    ambiguous_attempts = ma.fields.Integer(
        metadata={"description": "Attempts whose answer was never read: possibly paid"}
    )
    job = ma.fields.Raw(
        metadata={"description": "Why it waits: losses, next attempt, blocking budget; null once the job is pruned"}
    )
    retry_of = ma.fields.UUID(
        allow_none=True, metadata={"description": "The dead execution that was requeued as this one"}
    )
    retried_as = ma.fields.UUID(allow_none=True, metadata={"description": "What this dead one was requeued as"})


class SubmitOut(ma.Schema):
    execution_id = ma.fields.UUID()
    status = ma.fields.String()
    mode = ma.fields.String()


class ExecutionsQuery(ListQuery):
    prompt_name = ma.fields.String(
        load_default=None,
        validate=Length(1),
        metadata={"description": "Of the project that is named, else of the default project"},
    )
    status = ma.fields.String(load_default=None, validate=ma.validate.OneOf([state.value for state in State]))
    environment = ma.fields.String(load_default=None)
    purpose = ma.fields.String(load_default=None, validate=ma.validate.OneOf(executions.PURPOSES))
    correlation_id = ma.fields.String(load_default=None)
    batch_id = ma.fields.UUID(load_default=None)
    version_number = Digits(
        load_default=None, validate=ma.validate.Range(1), metadata={"description": "Of the prompt that is named"}
    )
    provider = ma.fields.String(load_default=None)
    model_name = ma.fields.String(load_default=None)
    created_by = ma.fields.String(load_default=None)
    error_type = ma.fields.String(load_default=None)
    created_from = Moment(data_key="from", load_default=None, metadata={"description": "Submitted at or after this"})
    created_before = Moment(data_key="to", load_default=None, metadata={"description": "Submitted before this"})
    min_latency_ms = Digits(load_default=None, validate=ma.validate.Range(0))
    has_feedback = Flag(load_default=None)
    include = ma.fields.String(
        load_default=None,
        validate=ma.validate.OneOf(["texts"]),
        metadata={"description": "`texts`: the messages, variables and response too"},
    )


@blp.post("/executions:run")
@blp.doc(parameters=[replay.PARAMETER, PREFER])
@blp.arguments(RunIn)
@blp.response(200, ExecutionOut)
@blp.alt_response(202, schema=ExecutionOut, description="Not done yet; poll the Location")
def run(body: dict[str, Any]) -> flask.Response:
    """Run a prompt and wait for the answer

    The execution goes through the same queue as a submitted one, in the interactive lane. When the wait is
    over before the answer is there, or too many requests wait already, 202 and the execution to poll.
    """
    return run_now(body)


def run_now(body: dict[str, Any], *, key: str | None = None) -> flask.Response:
    """`key`: an Idempotency-Key that came in another way than its header."""
    seconds = wait_seconds()
    execution_id, replayed = _submit(body, interactive=True, key=key)
    waiting.wait_for(execution_id, seconds)
    with reading() as session:
        execution = executions.get_execution(session, caller(), execution_id)
        answer = flask.jsonify(_execution(session, execution))
        _warn(session, answer, execution)
    if execution.state in (State.QUEUED, State.RUNNING):
        answer.status_code = 202
    locate(answer, execution_id, replayed)
    return answer


@blp.post("/executions:submit")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(SubmitIn)
@blp.response(202, SubmitOut)
def submit(body: dict[str, Any]) -> flask.Response:
    """Submit a run and answer at once; poll the Location"""
    return run_later(body)


def run_later(body: dict[str, Any], *, key: str | None = None) -> flask.Response:
    execution_id, replayed = _submit(body, interactive=False, key=key)
    with reading() as session:
        execution = executions.get_execution(session, caller(), execution_id)
        answer = flask.jsonify({"execution_id": str(execution_id), "status": execution.state, "mode": execution.mode})
        _warn(session, answer, execution)
    answer.status_code = 202
    locate(answer, execution_id, replayed)
    return answer


@blp.get("/executions/<uuid:execution_id>")
@blp.doc(parameters=[waiting.PREFER])
@blp.response(200, ExecutionOut)
def get_execution(execution_id: uuid.UUID) -> flask.Response:
    """Read an execution with everything that was recorded"""
    author = caller()
    return waiting.read_when_ended(
        JobKind.EXECUTION,
        execution_id,
        lambda session: executions.get_execution(session, author, execution_id),
        lambda session, execution: flask.jsonify(_execution(session, execution)),
    )


@blp.get("/executions")
@blp.arguments(ExecutionsQuery, location="query")
@blp.response(200, page_of(ListedExecutionOut))
def list_executions(query: dict[str, Any]) -> flask.Response:
    """List executions, newest first

    Without `include=texts` a row holds no text of a prompt or an answer, and none is read.
    """
    paging = {"limit": query.pop("limit"), "cursor": query.pop("cursor")}
    texts = query.pop("include") is not None
    with reading() as session:
        page = executions.list_executions(session, caller(), _filter(session, query), texts=texts, **paging)
        names = executions.names_of(session, page.data)
        rows = [_listed(execution, names[execution.id], texts) for execution in page.data]
        return flask.jsonify({"data": rows, "next_cursor": page.next_cursor})


@blp.post("/executions/<uuid:execution_id>/cancel")
@blp.response(200, ExecutionOut)
@blp.alt_response(202, schema=ExecutionOut, description="It runs; its worker was asked to stop")
def cancel_execution(execution_id: uuid.UUID) -> flask.Response:
    """Cancel an execution: at once when queued, within a heartbeat when running"""
    author = caller(Role.EDITOR)
    with transaction() as session:
        execution = executions.cancel_execution(session, author, execution_id)
        answer = flask.jsonify(_execution(session, execution))
    answer.status_code = 200 if execution.state == State.CANCELED else 202
    return answer


def run_request(fields: dict[str, Any], **others: Any) -> RunRequest:
    """What the fields of a RunIn ask for."""
    model = fields.get("model", {})
    return RunRequest(
        **{key: value for key, value in fields.items() if key != "model"},
        provider=model.get("provider"),
        model_name=model.get("model_name"),
        request_id=flask.g.request_id,
        **others,
    )


def _submit(body: dict[str, Any], *, interactive: bool, key: str | None) -> tuple[uuid.UUID, bool]:
    author = caller(Role.EDITOR)

    def plan() -> NewExecution:
        with reading() as session:
            return executions.plan(session, author, run_request(body))

    def write(session: Session, planned: NewExecution) -> uuid.UUID:
        return executions.submit(session, planned, interactive=interactive)

    return replay.run(author, body, plan, write, key=key)


def wait_seconds() -> float:
    """How long a run waits for its answer."""
    return waiting.wait_seconds(settings().run_wait_seconds)


def _filter(session: Session, query: dict[str, Any]) -> Filter:
    name, number, state = query.pop("prompt_name"), query.pop("version_number"), query.pop("status")
    if name is None:
        if number is not None:
            error = FieldError("?version_number", "needs a prompt_name")
            raise Unprocessable(str(error), errors=[error])
        return Filter(**query, state=state)
    prompt = prompts.get_prompt(session, caller(), name, project=query["project"])
    version = None if number is None else prompts.get_version(session, prompt, VersionChoice(number=number))
    return Filter(**query, state=state, prompt_id=prompt.id, version_id=version.id if version else None)


def _listed(execution: Execution, names: tuple[str | None, int | None], texts: bool) -> Any:
    row = ExecutionSummary().dump(execution)
    row["prompt_name"], row["version_number"] = names
    if texts:
        row["texts"] = Texts().dump(execution)
    return row


def _execution(session: Session, execution: Execution) -> Any:
    job = executions.job_of(session, execution.id)
    prompt = session.get(Prompt, execution.prompt_id) if execution.prompt_id else None
    version = session.get(Version, execution.version_id) if execution.version_id else None
    rendered = ExecutionOut().dump(execution)
    rendered["prompt_name"] = prompt and prompt.name
    rendered["version_number"] = version and version.number
    retry_of, retried_as = executions.retries_of(session, execution.id)
    rendered["retry_of"] = retry_of and str(retry_of)
    rendered["retried_as"] = retried_as and str(retried_as)
    rendered["job"] = job and {
        "job_id": job.id,
        "losses": job.losses,
        "run_at": job.run_at.isoformat(),
        "blocked_by": job.blocked_by and str(job.blocked_by),
        "cancel_requested": job.cancel_requested,
        "last_error": job.error,
    }
    return rendered


def _warn(session: Session, answer: flask.Response, execution: Execution) -> None:
    """RFC 9745: since when the prompt has been deprecated, as seconds of the epoch."""
    prompt = session.get(Prompt, execution.prompt_id) if execution.prompt_id else None
    since = lifecycle.deprecated_at(session, prompt) if prompt else None
    if since is not None:
        answer.headers["Deprecation"] = f"@{int(since.timestamp())}"


def locate(answer: flask.Response, execution_id: uuid.UUID, replayed: bool) -> None:
    answer.headers["Location"] = f"/v1/executions/{execution_id}"
    if replayed:
        answer.headers[replay.REPLAYED] = "true"
