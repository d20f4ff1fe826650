"""/api/v1/bulk: our bulk operations under the older verbs, states and counts."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay
from app.api import runs
from app.api.bulk import MAX_BULK_BYTES
from app.auth import caller
from app.compat.prompt_store import (
    Length,
    SliceQuery,
    answer,
    blueprint,
    enveloped,
    home,
    id_of,
    slice_of,
    sliced,
    wrapped,
)
from app.compat.prompt_store.prompts import DESCRIBED, StorePromptIn, check_declared, tags_field, variables_field
from shared.db import reading
from shared.domain import bulk
from shared.domain.bulk import MAX_ITEMS, SHOWN_ERRORS, BulkPlan, BulkRequest, Progress, Result
from shared.domain.content import check_content
from shared.domain.tenants import Caller
from shared.errors import FieldError, Unprocessable
from shared.models import OPEN_STATES, BulkOperation, JobKind, Role, State

blp = blueprint("bulk", "one verb on many prompts, with a result for each.")
STATUSES = {
    State.QUEUED: "pending",
    State.RUNNING: "processing",
    State.SUCCEEDED: "completed",
    State.FAILED: "failed",
    State.CANCELED: "cancelled",
}
ITEM_STATUSES = {
    State.SUCCEEDED: "success",
    bulk.SKIPPED: "success",
    State.FAILED: "failed",
    State.QUEUED: "pending",
    State.CANCELED: "cancelled",
}
OURS = {theirs: ours for ours, theirs in STATUSES.items()}
TYPES = {"create": "create_prompts", "update": "update_prompts", "delete": "delete_prompts", "tag": "tag_prompts"}
VERBS = {theirs: ours for ours, theirs in TYPES.items()}


@blp.before_request
def _take_large_bodies() -> None:
    flask.request.max_content_length = MAX_BULK_BYTES


def ids_field(**kwargs: Any) -> ma.fields.List[uuid.UUID]:
    return ma.fields.List(ma.fields.UUID(), required=True, validate=Length(1, MAX_ITEMS), **kwargs)


class StoreBulkQuery(ma.Schema):
    created_by = ma.fields.String(
        validate=ma.validate.Length(1, 128),
        metadata={"description": "Read and not used: who calls is whom the API key belongs to"},
    )


class StoreBulkCreateIn(StoreBulkQuery):
    """An object, or as the originals the list alone."""

    alone = "prompts"
    prompts = ma.fields.List(ma.fields.Nested(StorePromptIn), required=True, validate=Length(1, MAX_ITEMS))


class StoreBulkChange(ma.Schema):
    prompt_id = ma.fields.UUID(required=True)
    category = ma.fields.String(validate=Length(1, 64))
    description = ma.fields.String(validate=Length(max=2_000))
    content = ma.fields.String()
    variables = variables_field()
    tags = tags_field()


class StoreBulkUpdateIn(StoreBulkQuery):
    """An object, or as the originals the list alone."""

    alone = "updates"
    updates = ma.fields.List(ma.fields.Nested(StoreBulkChange), required=True, validate=Length(1, MAX_ITEMS))


class StoreBulkDeleteIn(StoreBulkQuery):
    """An object, or as the originals the list alone."""

    alone = "prompt_ids"
    prompt_ids = ids_field()


class StoreBulkTagIn(StoreBulkQuery):
    prompt_ids = ids_field()
    tags_to_add = tags_field(load_default=list, allow_none=True)
    tags_to_remove = tags_field(load_default=list, allow_none=True)


class StoreOperationOut(ma.Schema):
    id = ma.fields.String()
    operation_id = ma.fields.String(metadata={"description": "The same"})
    operation_type = ma.fields.String(metadata={"description": ", ".join(VERBS)})
    status = ma.fields.String(metadata={"description": ", ".join(OURS)})
    total_items = ma.fields.Integer()
    processed_items = ma.fields.Integer()
    successful_items = ma.fields.Integer(metadata={"description": "With those that were already as wanted"})
    failed_items = ma.fields.Integer()
    metadata = ma.fields.Raw()
    created_by = ma.fields.String()
    created_at = ma.fields.DateTime()
    completed_at = ma.fields.DateTime(allow_none=True)


class StoreBulkItemOut(ma.Schema):
    index = ma.fields.Integer()
    status = ma.fields.String(metadata={"description": ", ".join(dict.fromkeys(ITEM_STATUSES.values()))})
    name = ma.fields.String(allow_none=True)
    prompt_id = ma.fields.String(allow_none=True)
    version = ma.fields.Integer(allow_none=True)
    error = ma.fields.String(allow_none=True)


class StoreOperationDetailOut(StoreOperationOut):
    errors = ma.fields.List(ma.fields.String(), metadata={"description": "One for each failed item, the first 100"})
    results = ma.fields.List(ma.fields.Nested(StoreBulkItemOut), metadata={"description": "One for each item"})


class StoreOperationStatusOut(ma.Schema):
    operation = ma.fields.Nested(StoreOperationDetailOut)
    progress_percentage = ma.fields.Float()
    time_estimate_seconds = ma.fields.Float(allow_none=True)
    is_complete = ma.fields.Boolean(metadata={"description": "It has ended"})
    has_errors = ma.fields.Boolean()


class StoreOperationsQuery(SliceQuery):
    status = ma.fields.String(load_default=None, validate=ma.validate.OneOf(list(OURS)))
    operation_type = ma.fields.String(load_default=None, validate=ma.validate.OneOf(list(VERBS)))


@blp.post("/bulk/prompts")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(StoreBulkCreateIn)
@blp.arguments(StoreBulkQuery, location="query")
@blp.response(202, enveloped(StoreOperationOut))
def store_bulk_create(body: dict[str, Any], query: dict[str, Any]) -> flask.Response:
    """Create up to 10,000 prompts; poll the Location

    An item that makes no sense refuses the request. One that cannot be done fails alone, and its result says why.
    """
    items = [_item(f"/prompts/{index}", fields, is_new=True) for index, fields in enumerate(body["prompts"])]
    return _submitted("create", items, "Bulk create operation initiated")


@blp.put("/bulk/prompts")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(StoreBulkUpdateIn)
@blp.arguments(StoreBulkQuery, location="query")
@blp.response(202, enveloped(StoreOperationOut))
def store_bulk_update(body: dict[str, Any], query: dict[str, Any]) -> flask.Response:
    """Change up to 10,000 prompts; poll the Location"""
    items = [_item(f"/updates/{index}", fields, is_new=False) for index, fields in enumerate(body["updates"])]
    return _submitted("update", items, "Bulk update operation initiated")


@blp.delete("/bulk/prompts")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(StoreBulkDeleteIn)
@blp.arguments(StoreBulkQuery, location="query")
@blp.response(202, enveloped(StoreOperationOut))
def store_bulk_delete(body: dict[str, Any], query: dict[str, Any]) -> flask.Response:
    """Delete up to 10,000 prompts, each of which can be restored; poll the Location"""
    items = [(f"/prompt_ids/{index}", {"prompt_id": str(one)}) for index, one in enumerate(body["prompt_ids"])]
    return _submitted("delete", items, "Bulk delete operation initiated")


@blp.put("/bulk/prompts/tags")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(StoreBulkTagIn)
@blp.arguments(StoreBulkQuery, location="query")
@blp.response(202, enveloped(StoreOperationOut))
def store_bulk_tag(body: dict[str, Any], query: dict[str, Any]) -> flask.Response:
    """Add and remove tags of up to 10,000 prompts; poll the Location"""
    added, removed = body["tags_to_add"] or [], body["tags_to_remove"] or []
    if not added and not removed:
        error = FieldError("/tags_to_add", "give tags to add or to remove")
        raise Unprocessable(str(error), errors=[error])
    tags = {"add": added, "remove": removed}
    ids = [str(prompt_id) for prompt_id in body["prompt_ids"]]
    items = [(f"/prompt_ids/{index}", {"prompt_id": one, **tags}) for index, one in enumerate(ids)]
    return _submitted("tag", items, "Bulk tag update operation initiated")


@blp.get("/bulk/operations")
@blp.arguments(StoreOperationsQuery, location="query")
@blp.response(200, enveloped(slice_of(StoreOperationOut)))
def store_list_operations(query: dict[str, Any]) -> flask.Response:
    """List bulk operations, newest first; one by one they show their results"""
    state, verb = query.pop("status"), query.pop("operation_type")
    wanted: dict[str, Any] = {"state": state and OURS[state], "operation": verb and VERBS[verb]}
    with reading() as session:
        found = bulk.list_from(session, caller(), **wanted, **query)
        progress = bulk.progress_of(session, found.data)
        items = [_operation(one, progress[one.id]) for one in found.data]
    return answer(sliced(items, found, query), "Bulk operations retrieved successfully")


@blp.get("/bulk/operations/<operation_id>")
@blp.response(200, enveloped(StoreOperationStatusOut))
def store_read_operation(operation_id: str) -> flask.Response:
    """Read a bulk operation with what became of each item"""
    with reading() as session:
        operation = bulk.get_operation(session, caller(), id_of(operation_id, "bulk operation"))
        progress = bulk.progress_of(session, [operation])[operation.id]
        results = bulk.list_results(session, operation, limit=MAX_ITEMS, cursor=None).data
    failures = [f"Item {one.index}: {one.error['detail']}" for one in results if one.error]
    detail = {"errors": failures[:SHOWN_ERRORS], "results": [_result(one) for one in results]}
    left = None if progress.eta_at is None else max(0.0, (progress.eta_at - datetime.now(UTC)).total_seconds())
    data = {
        "operation": {**_operation(operation, progress), **detail},
        "progress_percentage": 100 * progress.done / progress.total,
        "time_estimate_seconds": left,
        "is_complete": operation.state not in OPEN_STATES,
        "has_errors": bool(failures),
    }
    return answer(data, "Operation status retrieved successfully")


@blp.put("/bulk/operations/<operation_id>/cancel")
@blp.response(200, enveloped(StoreOperationOut))
def store_cancel_operation(operation_id: str) -> flask.Response:
    """Cancel what is not done of a bulk operation; what is done stays"""

    def operation(session: Session, author: Caller) -> BulkOperation:
        return bulk.get_operation(session, author, id_of(operation_id, "bulk operation"))

    return answer(runs.cancel(JobKind.BULK, operation, _rendered), "Bulk operation cancelled successfully")


@blp.post("/bulk/operations/<operation_id>/retry")
@blp.doc(parameters=[replay.PARAMETER])
@blp.response(202, enveloped(StoreOperationOut))
def store_retry_operation(operation_id: str) -> flask.Response:
    """Do the items that failed again, and no others, as a new operation; poll the Location"""
    author = caller(Role.EDITOR)

    def make(session: Session, _: Any) -> Any:
        return _rendered(session, bulk.retry_operation(session, author, id_of(operation_id, "bulk operation")))

    return _located(replay.create(author, {}, 202, make), "Bulk operation retry initiated")


def _item(pointer: str, body: Mapping[str, Any], *, is_new: bool) -> tuple[str, dict[str, Any]]:
    """An item under our names; its declared variables are checked here, for nobody else knows of them."""
    fields = {name: body[name] for name in DESCRIBED if name in body}
    if "created_by" in body:
        fields["created_by"] = body["created_by"]
    if "content" in body:
        fields |= {"template_source": body["content"], "set_active": True}
        try:
            variables = body.get("variables")
            declared = (variables or []) if body.get("is_template") else (variables or None)
            check_declared(check_content(template_source=body["content"]).variables, declared)
        except Unprocessable as error:
            errors = [FieldError(pointer + one.pointer, one.detail) for one in error.errors]
            raise Unprocessable("; ".join(map(str, errors)), errors=errors) from error
    return pointer, {**({"project": home()} if is_new else {"prompt_id": str(body["prompt_id"])}), **fields}


def _submitted(verb: str, items: Sequence[tuple[str, dict[str, Any]]], message: str) -> flask.Response:
    author = caller(Role.EDITOR)

    def plan() -> BulkPlan:
        with reading() as session:
            return bulk.plan_operation(session, author, BulkRequest(verb, items))

    def make(session: Session, planned: BulkPlan) -> Any:
        return _rendered(session, bulk.create_operation(session, author, planned))

    return _located(replay.create(author, [verb, items], 202, make, plan=plan), message)


def _located(made: flask.Response, message: str) -> flask.Response:
    outer = wrapped(made, message)
    outer.headers["Location"] = f"/api/v1/bulk/operations/{made.get_json()['id']}"
    return outer


def _rendered(session: Session, operation: BulkOperation) -> Any:
    return _operation(operation, bulk.progress_of(session, [operation])[operation.id])


def _operation(operation: BulkOperation, progress: Progress) -> Any:
    about: dict[str, Any] = {"dry_run": operation.dry_run, "skipped_items": progress.skipped}
    if operation.retry_of:
        about["retry_of"] = str(operation.retry_of)
    if operation.error_message:
        about["error"] = operation.error_message
    return StoreOperationOut().dump(
        {
            **{name: getattr(operation, name) for name in ("id", "created_by", "created_at", "completed_at")},
            "operation_id": operation.id,
            "operation_type": TYPES.get(operation.operation, f"{operation.operation}_prompts"),
            "status": STATUSES[State(operation.state)],
            "total_items": progress.total,
            "processed_items": progress.done,
            "successful_items": progress.succeeded + progress.skipped,
            "failed_items": progress.failed,
            "metadata": about,
        }
    )


def _result(result: Result) -> dict[str, Any]:
    return {
        "index": result.index,
        "status": ITEM_STATUSES[result.status],
        "name": result.name,
        "prompt_id": result.prompt_id and str(result.prompt_id),
        "version": result.version_number,
        "error": result.error["detail"] if result.error else None,
    }
