"""/v1/bulk: one verb on thousands of prompts by one request, done by the fleet, with a result for each."""

import uuid
from collections.abc import Mapping
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay
from app.api import PageQuery, WholeNumber, blueprint, page_of, project_field, render_page, runs
from app.api.content import Length, TrueOrFalse
from app.api.prompts import PromptIn, VersionIn
from app.auth import caller
from app.bodies import parsed_body, refuse_unstorable
from app.problems import field_errors
from shared.db import reading
from shared.domain import bulk
from shared.domain.bulk import ITEM_STATES, MAX_ITEMS, BulkPlan, BulkRequest, Filter
from shared.domain.bulk_verbs import VERBS
from shared.domain.lifecycle import Lifecycle
from shared.domain.tenants import Caller
from shared.errors import Unprocessable, field_error
from shared.hashing import sha256
from shared.models import BulkOperation, JobKind, Role, State
from shared.strict_json import Repeating

blp = blueprint("bulk", "One verb on thousands of prompts by one request, with a result for each.")
MAX_BULK_BYTES = 32_000_000
OWN_FIELDS = ("operation", "items", "filter", "dry_run")


class TargetItem(ma.Schema):
    """Which prompt: its id, or its name and project."""

    prompt_id = ma.fields.UUID()
    name = ma.fields.String(validate=Length(1, 128))
    project = project_field()


class UpdateItem(VersionIn, TargetItem):
    """What is left out stays; content that no version has makes a new one."""


class TagItem(TargetItem):
    add = ma.fields.List(ma.fields.String(validate=Length(1, 64)), validate=Length(max=50))
    remove = ma.fields.List(ma.fields.String(validate=Length(1, 64)), validate=Length(max=50))


class LabelItem(TargetItem):
    label = ma.fields.String(required=True)
    version_number = WholeNumber(
        validate=ma.validate.Range(1, 999_999_999), metadata={"description": "The newest if left out"}
    )


class LifecycleItem(TargetItem):
    state = ma.fields.String(required=True, validate=ma.validate.OneOf([state.value for state in Lifecycle]))
    reason = ma.fields.String(validate=Length(max=500))


# What an item of each verb may say; `VERBS` decides which of these verbs there are.
SCHEMAS: Mapping[str, type[ma.Schema]] = {
    "create": PromptIn,
    "update": UpdateItem,
    "delete": TargetItem,
    "tag": TagItem,
    "label": LabelItem,
    "lifecycle": LifecycleItem,
}


class BulkItemIn(UpdateItem, TagItem):
    """The fields of all verbs. Each verb takes its own: docs/reference/bulk.md."""

    label = ma.fields.String()
    version_number = WholeNumber()
    state = ma.fields.String()
    reason = ma.fields.String()


class FilterIn(ma.Schema):
    """The prompts that are all of this."""

    project = project_field(metadata={"description": "Name or id; every project if left out"})
    category = ma.fields.String(validate=Length(max=64))
    tag = ma.fields.String(validate=Length(1, 64))
    owner_team = ma.fields.String(validate=Length(max=128))
    lifecycle = ma.fields.String(validate=Length(1, 16))
    mode = ma.fields.String(validate=ma.validate.OneOf(["full", "tracking"]))


class BulkIn(BulkItemIn):
    """`items`, or a `filter` that finds them. An item's fields given here hold for those that do not give their own."""

    operation = ma.fields.String(required=True, validate=ma.validate.OneOf(list(VERBS)))
    items = ma.fields.List(ma.fields.Nested(BulkItemIn), validate=Length(1, MAX_ITEMS))
    filter = ma.fields.Nested(FilterIn, metadata={"description": "Resolved at once; not for create"})
    dry_run = TrueOrFalse(load_default=False, metadata={"description": "Do each item and take it back"})


class ProgressOut(ma.Schema):
    total = ma.fields.Integer()
    done = ma.fields.Integer(metadata={"description": "succeeded + failed + skipped"})
    succeeded = ma.fields.Integer()
    failed = ma.fields.Integer()
    skipped = ma.fields.Integer(metadata={"description": "Were already as the item wants them"})
    canceled = ma.fields.Integer(metadata={"description": "Not done before the operation ended"})


class BulkOperationOut(ma.Schema):
    operation_id = ma.fields.UUID(attribute="id")
    operation = ma.fields.String()
    status = ma.fields.String(
        attribute="state", metadata={"description": "failed: every item failed, or it could not go on (error)"}
    )
    dry_run = ma.fields.Boolean()
    filter = ma.fields.Raw(attribute="criteria", allow_none=True)
    progress = ma.fields.Nested(ProgressOut)
    retry_of = ma.fields.UUID(allow_none=True)
    project_id = ma.fields.UUID(allow_none=True, metadata={"description": "null: of several projects, or unknown"})
    error = ma.fields.Raw(allow_none=True, metadata={"description": "{code, message}"})
    created_by = ma.fields.String()
    created_at = ma.fields.DateTime()
    started_at = ma.fields.DateTime(allow_none=True)
    completed_at = ma.fields.DateTime(allow_none=True)
    eta_at = ma.fields.DateTime(
        allow_none=True, metadata={"description": "When it ends if it goes on like this; null where nobody can say"}
    )


class BulkResultOut(ma.Schema):
    index = ma.fields.Integer()
    status = ma.fields.String(metadata={"description": ", ".join(ITEM_STATES)})
    name = ma.fields.String(allow_none=True)
    prompt_id = ma.fields.UUID(allow_none=True)
    version_number = ma.fields.Integer(allow_none=True)
    error = ma.fields.Raw(
        allow_none=True, metadata={"description": "{code, detail, errors}; the pointers are into the item"}
    )


class OperationsQuery(PageQuery):
    status = ma.fields.String(load_default=None, validate=ma.validate.OneOf([state.value for state in State]))
    operation = ma.fields.String(load_default=None, validate=ma.validate.OneOf(list(VERBS)))


class ResultsQuery(PageQuery):
    status = ma.fields.String(load_default=None, validate=ma.validate.OneOf([str(state) for state in ITEM_STATES]))


@blp.post("/bulk/prompts")
@blp.doc(
    parameters=[replay.PARAMETER],
    requestBody={"required": True, "content": {"application/json": {"schema": BulkIn}}},
)
@blp.response(202, BulkOperationOut)
def submit_operation() -> flask.Response:
    """Create, update, delete, tag or label up to 10,000 prompts, or change their lifecycle; poll the Location

    An item that makes no sense refuses the request, and nothing is stored. One that cannot be done fails alone, and
    its result says why.
    """
    author = caller(Role.EDITOR)
    flask.request.max_content_length = MAX_BULK_BYTES
    request = _request(parsed_body(flask.request))

    def plan() -> BulkPlan:
        with reading() as session:
            return bulk.plan_operation(session, author, request)

    def make(session: Session, planned: BulkPlan) -> Any:
        return _rendered(session, bulk.create_operation(session, author, planned))

    # By its bytes: sorting the keys of 10,000 items would take as long as storing them.
    return _accepted(author, sha256(flask.request.get_data().decode("utf-8", "replace")), plan, make)


@blp.get("/bulk/operations")
@blp.arguments(OperationsQuery, location="query")
@blp.response(200, page_of(BulkOperationOut))
def list_operations(query: dict[str, Any]) -> flask.Response:
    """List bulk operations, newest first"""
    with reading() as session:
        page = bulk.list_operations(session, caller(), state=query.pop("status"), **query)
        return flask.jsonify(render_page(BulkOperationOut(), page, _rows(session, page.data)))


@blp.get("/bulk/operations/<uuid:operation_id>")
@blp.response(200, BulkOperationOut)
def get_operation(operation_id: uuid.UUID) -> flask.Response:
    """Read a bulk operation: how far it is, and when it may end"""
    with reading() as session:
        return flask.jsonify(_rendered(session, bulk.get_operation(session, caller(), operation_id)))


@blp.get("/bulk/operations/<uuid:operation_id>/results")
@blp.arguments(ResultsQuery, location="query")
@blp.response(200, page_of(BulkResultOut))
def list_results(query: dict[str, Any], operation_id: uuid.UUID) -> flask.Response:
    """List what became of each item, in their order"""
    with reading() as session:
        operation = bulk.get_operation(session, caller(), operation_id)
        return flask.jsonify(render_page(BulkResultOut(), bulk.list_results(session, operation, **query)))


@blp.post("/bulk/operations/<uuid:operation_id>/cancel")
@blp.response(200, BulkOperationOut)
def cancel_operation(operation_id: uuid.UUID) -> flask.Response:
    """Cancel what is not done of a bulk operation; what is done stays"""

    def find(session: Session, author: Caller) -> BulkOperation:
        return bulk.get_operation(session, author, operation_id)

    return flask.jsonify(runs.cancel(JobKind.BULK, find, _rendered))


@blp.post("/bulk/operations/<uuid:operation_id>/retry")
@blp.doc(parameters=[replay.PARAMETER])
@blp.response(202, BulkOperationOut)
def retry_operation(operation_id: uuid.UUID) -> flask.Response:
    """Do the items that failed again, as a new operation; poll the Location"""
    author = caller(Role.EDITOR)

    def make(session: Session, _: Any) -> Any:
        return _rendered(session, bulk.retry_operation(session, author, operation_id))

    return _accepted(author, {}, lambda: None, make)


def _accepted(author: Caller, body: Any, plan: Any, make: Any) -> flask.Response:
    answer = replay.create(author, body, 202, make, plan=plan)
    answer.headers["Location"] = f"/v1/bulk/operations/{answer.get_json()['operation_id']}"
    return answer


def _request(body: Any) -> BulkRequest:
    if not isinstance(body, dict):
        raise field_error("", "must be an object with an operation, and items or a filter")
    refuse_unstorable(body)
    if isinstance(body, Repeating):
        raise field_error(f"/{body.key}", "is given twice")
    flask.g.body = {name: value for name, value in body.items() if name != "items"}
    own = {name: value for name, value in body.items() if name in OWN_FIELDS and name != "items"}
    fields = _loaded(BulkIn(only=("operation", "filter", "dry_run")), own)
    operation = fields["operation"]
    if ("items" in body) == ("filter" in body):
        raise field_error("/items", "give either items or a filter")
    beside = {name: value for name, value in body.items() if name not in OWN_FIELDS}
    shared = _loaded(SCHEMAS[operation](partial=True), beside)
    if "filter" in body:
        return _of_filter(operation, fields, shared)
    if not isinstance(body["items"], list):
        raise field_error("/items", "must be an array")
    return BulkRequest(operation, _items(operation, body["items"], beside), dry_run=fields["dry_run"])


def _of_filter(operation: str, fields: dict[str, Any], shared: dict[str, Any]) -> BulkRequest:
    if VERBS[operation].makes_prompts:
        raise field_error("/filter", f"{operation} has no prompts to find; give items")
    for name in TargetItem().fields:
        if name in shared:
            raise field_error(f"/{name}", "goes with an item; a filter finds the prompts by itself")
    _loaded(SCHEMAS[operation](), _plain(shared))  # with what is required
    if not fields["filter"]:  # `delete` would take every prompt of every project, for a filter that was forgotten
        raise field_error("/filter", f"give at least one of {', '.join(FilterIn().fields)}")
    criteria = Filter(**fields["filter"])
    return BulkRequest(operation, criteria=criteria, shared=_plain(shared), dry_run=fields["dry_run"])


def _items(operation: str, sent: list[Any], beside: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Each item with the fields that all share, or a 422 that names every field that is wrong."""
    merged = [{**beside, **item} if isinstance(item, dict) else item for item in sent]
    try:
        loaded = SCHEMAS[operation](many=True).load(merged)
    except ma.ValidationError as error:
        raise _invalid({"items": error.messages}) from error
    return [(f"/items/{index}", _plain(fields)) for index, fields in enumerate(loaded)]


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """As JSON holds it."""
    return {name: str(value) if isinstance(value, uuid.UUID) else value for name, value in fields.items()}


def _loaded(schema: ma.Schema, value: Any) -> dict[str, Any]:
    try:
        return dict(schema.load(value))
    except ma.ValidationError as error:
        raise _invalid(error.messages) from error


def _invalid(messages: Any) -> Unprocessable:
    errors = field_errors({"json": messages})
    return Unprocessable("; ".join(map(str, errors[:5])), errors=errors[: bulk.SHOWN_ERRORS])


def _rendered(session: Session, operation: BulkOperation) -> Any:
    return BulkOperationOut().dump(_rows(session, [operation])[0])


def _rows(session: Session, found: Any) -> list[dict[str, Any]]:
    progress = bulk.progress_of(session, found)
    return [_row(operation, progress[operation.id]) for operation in found]


def _row(operation: BulkOperation, progress: bulk.Progress) -> dict[str, Any]:
    asked = ("id", "operation", "state", "dry_run", "criteria", "retry_of", "project_id")
    lived = ("created_by", "created_at", "started_at", "completed_at")
    error = {"code": operation.error_type, "message": operation.error_message} if operation.error_type else None
    return {
        **{name: getattr(operation, name) for name in (*asked, *lived)},
        "progress": vars(progress),
        "error": error,
        "eta_at": progress.eta_at,
    }
