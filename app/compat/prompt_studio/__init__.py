"""`/api/v1/prompt-studio`: the envelope, the errors and the page numbers of Prompt Studio's clients.

Every answer is `{success, data, error, error_code, metadata}` with a true status code; where the original answered a
bare object, so do we.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import flask
import marshmallow as ma

from app.api import ApiBlueprint, Digits
from app.compat import compat_blueprint
from app.problems import FieldProblem
from shared.errors import FieldError, PromptmillError
from shared.models import State

PREFIX = "/api/v1/prompt-studio"
# The original's words for the states of a run; one of ours that it did not know (`paused`) is said as it is.
STATUSES: Mapping[str, str] = {
    State.QUEUED: "pending",
    State.RUNNING: "running",
    State.SUCCEEDED: "completed",
    State.FAILED: "failed",
    State.CANCELED: "cancelled",
}


class StudioPageQuery(ma.Schema):
    page = Digits(load_default=1, validate=ma.validate.Range(1, 1_000_000))
    per_page = Digits(load_default=20, validate=ma.validate.Range(1, 100))


class Identified(ma.Schema):
    """The originals had a number and a uuid; ours have one id, which stands in both fields."""

    id = ma.fields.UUID()
    uuid = ma.fields.Function(lambda row: str(ma.utils.get_value(row, "id")))


class StudioPage(ma.Schema):
    page = ma.fields.Integer()
    per_page = ma.fields.Integer()
    total = ma.fields.Integer()
    total_pages = ma.fields.Integer()
    warnings = ma.fields.List(ma.fields.String())


class StudioErrorMetadata(ma.Schema):
    request_id = ma.fields.String()
    errors = ma.fields.List(ma.fields.Nested(FieldProblem), metadata={"description": "The wrong fields"})


class StudioError(ma.Schema):
    """What every error below `/api/v1/prompt-studio` looks like."""

    success = ma.fields.Boolean()
    data = ma.fields.Raw(allow_none=True)
    error = ma.fields.String()
    error_code = ma.fields.String(metadata={"description": "Stable; the `code` of /v1"})
    detail = ma.fields.String(metadata={"description": "As `error`"})
    metadata = ma.fields.Nested(StudioErrorMetadata)


class StudioBlueprint(ApiBlueprint):
    """Routes whose errors are described, and answered, in the envelope."""

    def _prepare_response_doc(self, doc: Any, doc_info: Any, **kwargs: Any) -> Any:
        doc = super()._prepare_response_doc(doc, doc_info, **kwargs)
        error = {"description": "Error", "content": {"application/json": {"schema": StudioError()}}}
        doc["responses"] |= {status: error for status in doc["responses"] if str(status) >= "400"} | {"default": error}
        return doc


def studio_blueprint(noun: str, description: str) -> ApiBlueprint:
    return compat_blueprint(f"prompt-studio {noun}", PREFIX, description, kind=StudioBlueprint)


@cache
def envelope_of(schema: type[ma.Schema], *, many: bool = False) -> type[ma.Schema]:
    """The schema of an answer whose `data` is one of these, or a page of them."""
    inner: Any = ma.fields.Nested(schema)
    return ma.Schema.from_dict(
        {
            "success": ma.fields.Boolean(),
            "data": ma.fields.List(inner) if many else inner,
            "error": ma.fields.String(allow_none=True),
            "error_code": ma.fields.String(allow_none=True),
            "metadata": ma.fields.Nested(StudioPage, allow_none=True),
        },
        name=schema.__name__.removesuffix("Out") + ("List" if many else "Envelope"),
    )


def enveloped(data: Any, *, warnings: Sequence[str] = (), **metadata: Any) -> dict[str, Any]:
    """`data` as the original answered it; `warnings` say what of the request has no effect here."""
    found = {**metadata, **({"warnings": list(warnings)} if warnings else {})}
    return {"success": True, "data": data, "error": None, "error_code": None, "metadata": found or None}


def paged(data: Sequence[Any], *, page: int, per_page: int, total: int) -> flask.Response:
    pages = math.ceil(total / per_page)
    return flask.jsonify(enveloped(list(data), page=page, per_page=per_page, total=total, total_pages=pages))


def relocated(error: PromptmillError, pointers: Mapping[str, str]) -> PromptmillError:
    """The same error, with the fields of /v1 that it names as the fields of this prefix: the longest prefix decides."""
    known = sorted(pointers, key=len, reverse=True)
    moved = []
    for item in error.errors:
        found = next((name for name in known if item.pointer == name or item.pointer.startswith(name + "/")), None)
        pointer = item.pointer if found is None else pointers[found] + item.pointer.removeprefix(found)
        moved.append(FieldError(pointer, item.detail))
    if moved:
        error.errors = tuple(moved)
        error.detail = "; ".join(map(str, moved[:5]))
    return error


def in_its_envelope(response: flask.Response) -> flask.Response:
    """Whatever went wrong below the prefix, unknown addresses too, in the envelope; the status stays what it is."""
    is_ours = flask.request.path.startswith(PREFIX + "/") or flask.request.path == PREFIX
    if not is_ours or response.mimetype != "application/problem+json":
        return response
    problem = response.get_json()
    metadata = {"request_id": problem["request_id"]}
    if "errors" in problem:
        metadata["errors"] = problem["errors"]
    body = {
        "success": False,
        "data": None,
        "error": problem["detail"],
        "error_code": problem["code"],
        "metadata": metadata,
        "detail": problem["detail"],  # what a client of a FastAPI service reads
    }
    response.set_data(flask.json.dumps(body))
    response.mimetype = "application/json"
    return response
