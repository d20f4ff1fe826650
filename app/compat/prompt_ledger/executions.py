"""/v1/executions/run, /submit and /: with a slash where its documents, and we, have a colon."""

from typing import Any

import flask
import marshmallow as ma

from app import replay
from app.api import Digits
from app.api.content import Length
from app.api.executions import PREFER, ExecutionOut, RunIn, SubmitIn, SubmitOut, run_later, run_now
from app.auth import caller
from app.compat import compat_blueprint
from shared.db import reading
from shared.domain import executions, prompts
from shared.domain.executions import Filter
from shared.models import Execution, State

blp = compat_blueprint("prompt-ledger executions", "/v1", "PromptLedger: its spelling of what executions are.")
KEY = {"description": "The same as the header Idempotency-Key, which comes first"}


class LedgerRunIn(RunIn):
    idempotency_key = ma.fields.String(allow_none=True, validate=Length(1, 255), metadata=KEY)


class LedgerSubmitIn(SubmitIn):
    idempotency_key = ma.fields.String(allow_none=True, validate=Length(1, 255), metadata=KEY)


class LedgerListQuery(ma.Schema):
    prompt_name = ma.fields.String(load_default=None, validate=Length(1))
    status = ma.fields.String(load_default=None, validate=ma.validate.OneOf([state.value for state in State]))
    limit = Digits(load_default=50, validate=ma.validate.Range(1, 100))
    offset = Digits(load_default=0, validate=ma.validate.Range(0))


class LedgerExecutionOut(ma.Schema):
    execution_id = ma.fields.UUID(attribute="id")
    prompt_name = ma.fields.String(allow_none=True)
    status = ma.fields.String(attribute="state")
    mode = ma.fields.String()
    created_at = ma.fields.DateTime()
    completed_at = ma.fields.DateTime(allow_none=True)


class LedgerListOut(ma.Schema):
    executions = ma.fields.List(ma.fields.Nested(LedgerExecutionOut))
    total = ma.fields.Integer(metadata={"description": "On all pages"})
    limit = ma.fields.Integer()
    offset = ma.fields.Integer()


@blp.post("/executions/run")
@blp.doc(parameters=[replay.PARAMETER, PREFER])
@blp.arguments(LedgerRunIn)
@blp.response(200, ExecutionOut)
@blp.alt_response(202, schema=ExecutionOut, description="Not done yet; poll the Location")
def ledger_run(body: dict[str, Any]) -> flask.Response:
    """Run a prompt and wait for the answer, as executions:run does"""
    key = body.pop("idempotency_key", None)
    return run_now(body, key=key)


@blp.post("/executions/submit")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(LedgerSubmitIn)
@blp.response(202, SubmitOut)
def ledger_submit(body: dict[str, Any]) -> flask.Response:
    """Submit a run and answer at once, as executions:submit does"""
    key = body.pop("idempotency_key", None)
    return run_later(body, key=key)


@blp.get("/executions/")
@blp.arguments(LedgerListQuery, location="query")
@blp.response(200, LedgerListOut)
def ledger_list(query: dict[str, Any]) -> flask.Response:
    """List executions by offset, newest first; a prompt is one of the project `default`"""
    name, paging = query["prompt_name"], {"limit": query["limit"], "offset": query["offset"]}
    with reading() as session:
        prompt = prompts.get_prompt(session, caller(), name) if name is not None else None
        wanted = Filter(state=query["status"], prompt_id=prompt.id if prompt else None)
        found = executions.list_from(session, caller(), wanted, **paging)
        names = executions.names_of(session, found.data)
        rows = [_row(execution, names[execution.id][0]) for execution in found.data]
    return flask.jsonify({"executions": rows, "total": found.total, **paging})


def _row(execution: Execution, prompt_name: str | None) -> Any:
    return {**LedgerExecutionOut().dump(execution), "prompt_name": prompt_name}
