"""Prompts that live in code: registered, executed, looked back on; and the way between the two modes."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import preconditions, replay, waiting
from app.api import PageQuery, ProjectQuery, WholeNumber, blueprint, project_field
from app.api.content import CONTENT_FIELDS, ContentIn, Length, Params
from app.api.executions import PREFER, Telemetry, locate, wait_seconds
from app.api.prompt_rows import render
from app.api.prompts import PromptSummary
from app.auth import caller
from shared.db import reading, transaction
from shared.domain import executions, modes, prompt_rows, prompts, providers
from shared.domain.content import Content, check_content
from shared.domain.executions import NewExecution, RunRequest
from shared.domain.modes import MAX_REGISTERED, MODES, NOT_DESCRIBED, CodePrompt
from shared.domain.names import check_name
from shared.errors import Conflict, FieldError, Unprocessable, field_error
from shared.models import OPEN_STATES, Prompt, Role, Version

blp = blueprint("modes", "Prompts that live in their user's code, and the way between the two modes.")
SHOWN_ERRORS = 100


class CodePromptIn(ContentIn):
    """One prompt as the code has it: `template_source` or `messages`."""

    name = ma.fields.String(required=True)
    template_hash = ma.fields.String(
        metadata={"description": "SHA-256 of template_source in hex; refused unless it is that"}
    )
    message = ma.fields.String(validate=Length(max=500), metadata={"description": "Commit message"})
    description = ma.fields.String(validate=Length(max=2000))
    category = ma.fields.String(validate=Length(max=64))
    tags = ma.fields.List(ma.fields.String(validate=Length(1, 64)), validate=Length(max=50))
    owner_team = ma.fields.String(validate=Length(max=128))


class RegisterIn(ma.Schema):
    prompts = ma.fields.List(ma.fields.Nested(CodePromptIn), required=True, validate=Length(1, MAX_REGISTERED))
    project = project_field()
    created_by = ma.fields.String(validate=Length(1, 128))


class RegisteredOut(ma.Schema):
    name = ma.fields.String()
    mode = ma.fields.String()
    version = ma.fields.Integer()
    version_id = ma.fields.UUID()
    change_detected = ma.fields.Boolean(metadata={"description": "Another version is current than before"})
    previous_version = ma.fields.Integer(
        allow_none=True, metadata={"description": "What was current until now; null if nothing was or nothing changed"}
    )


class RegisterOut(ma.Schema):
    registered = ma.fields.List(ma.fields.Nested(RegisteredOut))


class ExecuteIn(ma.Schema):
    variables = ma.fields.Dict(keys=ma.fields.String())
    version = WholeNumber(
        allow_none=True,
        validate=ma.validate.Range(1, 999_999_999),
        metadata={"description": "The current one if left out"},
    )
    model_name = ma.fields.String(validate=Length(1, 128))
    provider = ma.fields.String(
        validate=ma.validate.OneOf(list(providers.PROVIDERS)),
        metadata={"description": "Looked up by the model's name if left out"},
    )
    params = ma.fields.Nested(Params)
    mode = ma.fields.String(
        load_default="sync",
        validate=ma.validate.OneOf(("sync", "async")),
        metadata={"description": "`sync` waits for the answer, `async` does not"},
    )
    environment = ma.fields.String(validate=Length(1, 64))
    correlation_id = ma.fields.String(validate=Length(1, 128))


class ExecuteOut(ma.Schema):
    execution_id = ma.fields.UUID(attribute="id")
    prompt_name = ma.fields.String()
    prompt_mode = ma.fields.String()
    version_used = ma.fields.Integer()
    mode = ma.fields.String()
    status = ma.fields.String(attribute="state")
    response_text = ma.fields.String(allow_none=True)
    error_type = ma.fields.String(allow_none=True)
    error_message = ma.fields.String(allow_none=True)
    telemetry = ma.fields.Nested(Telemetry)


class HistoryQuery(PageQuery, ProjectQuery):
    mode = ma.fields.String(
        load_default=None,
        validate=ma.validate.OneOf(MODES),
        metadata={"description": "The mode that the prompt is expected in; 409 when it is in the other"},
    )


class HistoryVersion(ma.Schema):
    version = ma.fields.Integer(attribute="number")
    version_id = ma.fields.UUID(attribute="id")
    template_hash = ma.fields.String()
    template_source = ma.fields.Function(lambda version: version.content.get("template_source"))
    messages = ma.fields.Function(lambda version: version.content.get("messages"))
    created_at = ma.fields.DateTime()
    created_by = ma.fields.String()
    message = ma.fields.String()
    execution_count = ma.fields.Integer(metadata={"description": "Runs; not calls of evaluations or optimizations"})


class HistoryOut(ma.Schema):
    prompt_name = ma.fields.String()
    mode = ma.fields.String()
    current_version = ma.fields.Integer(allow_none=True, metadata={"description": "The version at `production`"})
    versions = ma.fields.List(ma.fields.Nested(HistoryVersion), metadata={"description": "Newest first"})
    next_cursor = ma.fields.String(allow_none=True)


class ModeIn(ma.Schema):
    mode = ma.fields.String(required=True, validate=ma.validate.OneOf(MODES))
    reason = ma.fields.String(load_default="", validate=Length(max=500))


@blp.post("/prompts/register-code")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(RegisterIn)
@blp.response(200, RegisterOut)
def register_code(body: dict[str, Any]) -> flask.Response:
    """Register the prompts that a program carries: all of them, or none

    What changed becomes a version, content of an earlier version is that version again, and each is then current
    (the label `production`). Prompts that are managed here are refused.
    """
    author = caller(Role.EDITOR)
    wanted = _code_prompts(body.pop("prompts"))

    def make(session: Session, _: Any) -> Any:
        return RegisterOut().dump({"registered": modes.register_code(session, author, wanted, **body)})

    return replay.create(author, flask.g.body, 200, make)


@blp.post("/prompts/<name>/execute")
@blp.doc(parameters=[replay.PARAMETER, PREFER])
@blp.arguments(ExecuteIn)
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, ExecuteOut)
@blp.alt_response(202, schema=ExecuteOut, description="Not done yet; poll the Location")
def execute(body: dict[str, Any], scope: dict[str, Any], name: str) -> flask.Response:
    """Execute a prompt that lives in code, and wait for the answer unless `mode` is `async`

    It goes the way of `executions:run` or `executions:submit`. Without a version the current one is run.
    """
    author = caller(Role.EDITOR)
    is_sync = body["mode"] == "sync"
    seconds = wait_seconds() if is_sync else 0.0
    fields = {key: value for key, value in body.items() if key not in ("mode", "version")}
    request = RunRequest(name, **scope, **fields, version_number=body.get("version"), request_id=flask.g.request_id)

    def plan() -> NewExecution:
        with reading() as session:
            return modes.plan_execution(session, author, request)

    def write(session: Session, planned: NewExecution) -> uuid.UUID:
        return executions.submit(session, planned, interactive=is_sync)

    execution_id, replayed = replay.run(author, body, plan, write)
    if is_sync:
        waiting.wait_for(execution_id, seconds)
    with reading() as session:
        answer = _executed(session, execution_id)
    locate(answer, execution_id, replayed)
    return answer


@blp.get("/prompts/<name>/history")
@blp.fails(409)
@blp.arguments(HistoryQuery, location="query")
@blp.response(200, HistoryOut)
def get_history(query: dict[str, Any], name: str) -> flask.Response:
    """List what a prompt said over time, newest first, and how often each version was run"""
    with reading() as session:
        prompt = prompts.get_prompt(session, caller(), name, project=query["project"])
        if query["mode"] not in (None, prompt.mode):
            raise Conflict(f"{name} is in {prompt.mode} mode, not in {query['mode']} mode; leave out `mode` to read it")
        page = modes.list_history(session, prompt, limit=query["limit"], cursor=query["cursor"])
        runs = modes.count_runs(session, [version.id for version in page.data])
        current = modes.current_version(session, prompt)
    history = {
        "prompt_name": prompt.name,
        "mode": prompt.mode,
        "current_version": current,
        "versions": page.data,
        "next_cursor": page.next_cursor,
    }
    rendered = HistoryOut().dump(history)
    for version, shown in zip(page.data, rendered["versions"], strict=True):
        shown["execution_count"] = runs.get(version.id, 0)
    return flask.jsonify(rendered)


@blp.post("/prompts/<name>/mode")
@blp.doc(parameters=[preconditions.IF_MATCH])
@blp.arguments(ModeIn)
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, PromptSummary)
def change_mode(body: dict[str, Any], scope: dict[str, Any], name: str) -> flask.Response:
    """Move a prompt between code (`tracking`) and this API (`full`); versions, labels and executions stay"""
    author = caller(Role.EDITOR)
    with transaction() as session:
        prompt = prompt_rows.lock_prompt(session, author, name, **scope)
        preconditions.asked().check(prompt_rows.etag_of(prompt), f"the prompt {prompt.name}")
        modes.change_mode(session, author, prompt, body["mode"], reason=body["reason"])
        return render(prompt)


def _code_prompts(given: Sequence[dict[str, Any]]) -> list[CodePrompt]:
    """What was sent, checked; else one 422 that names every field that is wrong."""
    errors: list[FieldError] = _problems_of_names([item["name"] for item in given])
    checked: list[CodePrompt] = []
    for index, item in enumerate(given):
        try:
            content = _content(item)
        except Unprocessable as error:
            errors += [FieldError(f"/prompts/{index}{problem.pointer}", problem.detail) for problem in error.errors]
            continue
        described = {name: item[name] for name in NOT_DESCRIBED if name in item}
        checked.append(CodePrompt(item["name"], content, item.get("message", ""), described))
    errors += _problems_of_models(given)
    if errors:
        raise Unprocessable("; ".join(map(str, errors[:5])), errors=errors[:SHOWN_ERRORS])
    return checked


def _content(item: Mapping[str, Any]) -> Content:
    content = check_content(**{name: item[name] for name in CONTENT_FIELDS if name in item})
    claimed = item.get("template_hash")
    if claimed is not None and claimed != content.template_hash:
        raise field_error(
            "/template_hash",
            f"is not the SHA-256 of what is sent, which is {content.template_hash}",
        )
    return content


def _problems_of_names(names: Sequence[str]) -> list[FieldError]:
    errors: list[FieldError] = []
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        pointer = f"/prompts/{index}/name"
        try:
            check_name(name, pointer)
        except Unprocessable as error:
            errors += error.errors
        if first.setdefault(name, index) != index:
            errors.append(FieldError(pointer, f"{name} is given twice; /prompts/{first[name]} has it too"))
    return errors


def _problems_of_models(given: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    """Settings that a model does not take. Each model is looked up once, however many prompts use it."""
    errors: list[FieldError] = []
    wanted = {index: item["model"] for index, item in enumerate(given) if "model" in item}
    names = {(model["provider"], model["model_name"]) for model in wanted.values()}
    with reading() as session:
        quotes = {name: providers.quote(session, *name) for name in names}
    for index, model in wanted.items():
        try:
            quote = quotes[model["provider"], model["model_name"]]
            providers.check_params(quote, model["params"], f"/prompts/{index}/model/params")
        except Unprocessable as error:
            errors += error.errors
    return errors


def _executed(session: Session, execution_id: uuid.UUID) -> flask.Response:
    execution = executions.get_execution(session, caller(), execution_id)
    prompt, version = session.get_one(Prompt, execution.prompt_id), session.get_one(Version, execution.version_id)
    shown = ExecuteOut().dump(execution)
    shown |= {"prompt_name": prompt.name, "prompt_mode": prompt.mode, "version_used": version.number}
    shown["telemetry"] = Telemetry().dump(execution)
    answer = flask.jsonify(shown)
    if execution.state in OPEN_STATES or execution.mode == "async":
        answer.status_code = 202
    return answer
