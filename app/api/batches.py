"""/v1/executions:batch and /v1/batches: thousands of executions by one request, followed and canceled as one thing."""

import uuid
from collections.abc import Sequence
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay
from app.api import ListQuery, blueprint, page_of, render_page
from app.api.evaluations import EvaluationBudget
from app.api.executions import RunIn, priority_field, run_request
from app.auth import caller
from app.bodies import parsed_body, raw_body, refuse_unstorable, unstorable
from app.problems import field_errors
from shared.db import reading, transaction
from shared.domain import batches, case_files, providers
from shared.domain.batches import MAX_ITEMS, BatchPlan, BatchRequest, Item, Result
from shared.domain.budgets import Limits
from shared.domain.jobs import DEFAULT_PRIORITY
from shared.domain.tenants import Caller
from shared.errors import FieldError, Unprocessable, field_error
from shared.hashing import sha256
from shared.models import Batch, Role, State
from shared.strict_json import Repeating, loads

blp = blueprint("batches", "Thousands of executions by one request, followed and canceled as one thing.")
MAX_BATCH_BYTES = 32_000_000
JSONL = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines")


class ItemIn(RunIn):
    """A run, without what the batch gives for all of its items."""

    prompt_name = ma.fields.String(metadata={"description": "Required unless the batch gives one for its items"})


class BatchIn(ItemIn):
    """`items` or `dataset`. The fields of a run given here hold for the items that do not give their own."""

    items = ma.fields.List(ma.fields.Nested(ItemIn), validate=ma.validate.Length(1, MAX_ITEMS))
    dataset = ma.fields.String(
        metadata={"description": "One execution for each test case: its inputs are the variables"}
    )
    budget = ma.fields.Nested(EvaluationBudget, metadata={"description": "One ceiling for all of it"})
    priority = priority_field()


class ItemError(ma.Schema):
    code = ma.fields.String()
    detail = ma.fields.String()
    errors = ma.fields.List(ma.fields.Raw(metadata={"description": "{pointer, detail}"}))


class ItemOut(ma.Schema):
    index = ma.fields.Integer()
    execution_id = ma.fields.UUID()
    status = ma.fields.String()
    error = ma.fields.Nested(ItemError, metadata={"description": "Instead of the execution, when there is none"})


class SubmittedBatchOut(ma.Schema):
    batch_id = ma.fields.UUID()
    status = ma.fields.String()
    total = ma.fields.Integer()
    accepted = ma.fields.Integer()
    rejected = ma.fields.Integer()
    results = ma.fields.List(ma.fields.Nested(ItemOut), metadata={"description": "One for each item, in their order"})


class BatchOut(ma.Schema):
    batch_id = ma.fields.UUID(attribute="id")
    status = ma.fields.String(
        metadata={"description": "succeeded when one execution has and all have ended; failed when none has"}
    )
    total = ma.fields.Integer(metadata={"description": "Items that were sent"})
    accepted = ma.fields.Integer()
    rejected = ma.fields.Integer()
    counts = ma.fields.Raw(metadata={"description": f"Executions by status: {', '.join(State)}"})
    tokens = ma.fields.Integer()
    cost_usd = ma.fields.Float()
    ambiguous_attempts = ma.fields.Integer(
        metadata={"description": "Attempts whose answer was never read; in tokens and cost_usd at their bound"}
    )
    priority = ma.fields.Integer()
    project_id = ma.fields.UUID(allow_none=True, metadata={"description": "null: its items are of several projects"})
    dataset_id = ma.fields.UUID(allow_none=True)
    dataset_revision = ma.fields.Integer(allow_none=True)
    cancel_requested_at = ma.fields.DateTime(allow_none=True)
    created_by = ma.fields.String()
    created_at = ma.fields.DateTime()
    completed_at = ma.fields.DateTime(allow_none=True)
    eta_at = ma.fields.DateTime(
        allow_none=True, metadata={"description": "When it ends if it goes on like this; null where nobody can say"}
    )


@blp.post("/executions:batch")
@blp.doc(
    parameters=[replay.PARAMETER],
    requestBody={
        "required": True,
        "content": {
            "application/json": {"schema": BatchIn},
            "application/x-ndjson": {"schema": {"type": "string"}},
        },
    },
)
@blp.response(202, SubmittedBatchOut)
def submit_batch() -> flask.Response:
    """Submit up to 10,000 runs at once; poll the Location

    JSON: `items` (or an array of them alone), or `dataset` for one run per test case. JSONL: one item per line. An item
    that cannot be run has an error in its place and stops no other; when there is no other, nothing is stored. Equal
    items are runs of their own.
    """
    author = caller(Role.EDITOR)
    flask.request.max_content_length = MAX_BATCH_BYTES
    is_jsonl = flask.request.mimetype in JSONL
    sent = _lines() if is_jsonl else parsed_body(flask.request)

    def plan() -> BatchPlan:
        with reading() as session:
            request = _of_items(sent) if is_jsonl else _of_json(session, author, sent)
            return batches.plan_batch(session, author, request)

    def write(session: Session, planned: BatchPlan) -> uuid.UUID:
        return batches.create_batch(session, author, planned)

    # By its bytes: sorting the keys of 10,000 items would take as long as storing them.
    body = [is_jsonl, sha256(flask.request.get_data().decode("utf-8", "replace"))]
    batch_id, replayed = replay.run(author, body, plan, write)
    answer = flask.jsonify(_submitted(author, batch_id))
    answer.status_code = 202
    answer.headers["Location"] = f"/v1/batches/{batch_id}"
    if replayed:
        answer.headers[replay.REPLAYED] = "true"
    return answer


@blp.get("/batches")
@blp.arguments(ListQuery, location="query")
@blp.response(200, page_of(BatchOut))
def list_batches(query: dict[str, Any]) -> flask.Response:
    """List batches, newest first"""
    with reading() as session:
        page = batches.list_batches(session, caller(), **query)
        return flask.jsonify(render_page(BatchOut(), page, _rows(session, page.data)))


@blp.get("/batches/<uuid:batch_id>")
@blp.response(200, BatchOut)
def get_batch(batch_id: uuid.UUID) -> flask.Response:
    """Read a batch: how far it is, what it has cost, and when it may end

    `GET /v1/executions?batch_id=` lists its executions.
    """
    with reading() as session:
        batch = batches.get_batch(session, caller(), batch_id)
        return flask.jsonify(BatchOut().dump(_rows(session, [batch])[0]))


@blp.post("/batches/<uuid:batch_id>/cancel")
@blp.response(200, BatchOut)
@blp.alt_response(202, schema=BatchOut, description="Some of it runs; its workers were asked to stop")
def cancel_batch(batch_id: uuid.UUID) -> flask.Response:
    """Cancel what has not ended of a batch; what was paid for is kept"""
    author = caller(Role.EDITOR)
    with transaction() as session:
        batches.cancel_batch(session, author, batch_id)
    left = True
    while left:
        with transaction() as session:
            left = batches.cancel_page(session, batch_id) > 0
    with reading() as session:
        row = _rows(session, [batches.get_batch(session, author, batch_id)])[0]
    answer = flask.jsonify(BatchOut().dump(row))
    answer.status_code = 202 if row["status"] == State.RUNNING else 200
    return answer


def _of_json(session: Session, author: Caller, body: Any) -> BatchRequest:
    if isinstance(body, list):
        return _of_items([(f"/{index}", item) for index, item in enumerate(body)])
    if not isinstance(body, dict):
        raise field_error("", "must be an object with items or a dataset, or an array of items")
    if isinstance(body, Repeating):
        raise field_error(f"/{body.key}", "is given twice")
    flask.g.body = body
    beside = {name: value for name, value in body.items() if name != "items"}
    refuse_unstorable(beside)
    fields = _loaded(BatchIn(exclude=("items",)), beside)
    budget, dataset = fields.pop("budget", None), fields.pop("dataset", None)
    options = {
        "limits": Limits(**budget) if budget else None,
        "priority": fields.pop("priority", DEFAULT_PRIORITY),
    }
    if ("items" in body) == (dataset is not None):
        raise field_error("/items", "give either items or a dataset")
    if dataset is None:
        if not isinstance(body["items"], list):
            raise field_error("/items", "must be an array")
        sent = [(f"/items/{index}", item) for index, item in enumerate(body["items"])]
        return _of_items(sent, fields, "/items", **options)
    for name in ("variables", "correlation_id"):
        if name in fields:
            raise field_error(f"/{name}", "is that of each test case")
    if "prompt_name" not in fields:
        raise field_error("/prompt_name", "required")
    items, dataset_id, revision = batches.items_of_dataset(session, author, run_request(fields), dataset)
    return BatchRequest(items, fields, dataset_id=dataset_id, dataset_revision=revision, **options)


def _of_items(
    sent: Sequence[tuple[str, Any]], shared: dict[str, Any] | None = None, where: str = "", **options: Any
) -> BatchRequest:
    """The items with the fields that they share, each checked by itself."""
    shared = shared or {}
    if not 1 <= len(sent) <= MAX_ITEMS:
        raise field_error(where, f"1 to {MAX_ITEMS:,} items; here are {len(sent):,}")
    problems = {place: found for place, (_, item) in enumerate(sent) if (found := _problems(item))}
    sound = [place for place in range(len(sent)) if place not in problems]
    schema = RunIn(many=True, partial=("prompt_name",) if "prompt_name" in shared else None)
    try:
        loaded = schema.load([sent[place][1] for place in sound])
    except ma.ValidationError as error:
        loaded = error.valid_data
        problems |= {sound[place]: field_errors({"json": wrong}) for place, wrong in _messages(error).items()}
    fields = dict(zip(sound, loaded, strict=True))
    items = []
    for place, (pointer, item) in enumerate(sent):
        wrong = problems.get(place)
        own = item if isinstance(item, dict) else ()
        asked = Unprocessable("", errors=wrong) if wrong else run_request({**shared, **fields[place]})
        items.append(Item(pointer, own, asked))
    return BatchRequest(items, shared, **options)


class _Broken(str):
    """A line of JSONL that is no JSON; the text says why."""


def _problems(item: Any) -> list[FieldError]:
    return [FieldError("", str(item))] if isinstance(item, _Broken) else unstorable(item)


def _lines() -> list[tuple[str, Any]]:
    """Each line with its number as its pointer, as an import of test cases names them."""

    def read(line: str) -> Any:
        try:
            return loads(line)
        except ValueError as error:
            return _Broken(f"not JSON: {error}")

    return [(f"/{number}", read(line)) for number, line in case_files.numbered_lines(raw_body(flask.request))]


def _loaded(schema: ma.Schema, value: Any) -> dict[str, Any]:
    try:
        return dict(schema.load(value))
    except ma.ValidationError as error:
        errors = field_errors({"json": _messages(error)})
        raise Unprocessable("; ".join(map(str, errors[:5])), errors=errors) from error


def _messages(error: ma.ValidationError) -> dict[Any, Any]:
    assert isinstance(error.messages, dict)
    return error.messages


def _submitted(author: Caller, batch_id: uuid.UUID) -> dict[str, Any]:
    with reading() as session:
        batch = batches.get_batch(session, author, batch_id)
        row = _rows(session, [batch])[0]
        results = batches.results_of(session, batch)
    answer = {"batch_id": str(batch_id), **{name: row[name] for name in ("status", "total", "accepted", "rejected")}}
    return {**answer, "results": [_result(result) for result in results]}


def _result(result: Result) -> dict[str, Any]:
    """By hand: a schema would take longer over ten thousand of these than all that stored them."""
    if result.error is not None:
        return {"index": result.index, "error": result.error}
    return {"index": result.index, "execution_id": str(result.execution_id), "status": result.state}


def _rows(session: Session, found: Sequence[Batch]) -> list[dict[str, Any]]:
    progress = batches.progress_of(session, found)
    return [_row(batch, progress[batch.id]) for batch in found]


def _row(batch: Batch, progress: batches.Progress) -> dict[str, Any]:
    of_the_batch = ("id", "total", "rejected", "priority", "project_id", "dataset_id", "dataset_revision")
    of_its_life = ("cancel_requested_at", "created_by", "created_at")
    return {
        **{name: getattr(batch, name) for name in (*of_the_batch, *of_its_life)},
        "accepted": batch.total - batch.rejected,
        "status": progress.status,
        "counts": progress.counts,
        "tokens": progress.tokens,
        "cost_usd": providers.usd(progress.nano),
        "ambiguous_attempts": progress.ambiguous_attempts,
        "completed_at": progress.completed_at,
        "eta_at": progress.eta_at,
    }
