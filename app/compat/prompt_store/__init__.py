"""Prompt Store's addresses, `/api/v1/…`: its fields and its envelope over the domain functions of /v1.

Its prompts are those of one project: `home`. What is given in the query there is taken from the body too.
"""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app.api import ApiBlueprint, Digits
from app.auth import caller
from app.bodies import StrictParser, json_body
from app.compat import compat_blueprint
from shared.domain.pages import Numbered
from shared.domain.prompts import get_by_id
from shared.domain.tenants import DEFAULT_PROJECT, Caller
from shared.errors import NotFound, field_error
from shared.models import Prompt

PREFIX = "/api/v1"
Length = ma.validate.Length
# What `curl -d` says unless it is told otherwise; the documented examples do not tell it.
CURL = "application/x-www-form-urlencoded"
# Its word for each kind of error; any other is ours in capitals.
ERROR_CODES = {400: "VALIDATION_ERROR", 404: "NOT_FOUND", 422: "VALIDATION_ERROR", 500: "INTERNAL_ERROR"}


class StoreParser(StrictParser):
    """Takes JSON that does not say that it is, and a lone list as the field that the schema calls `alone`."""

    def load_json(self, req: flask.Request, schema: ma.Schema) -> Any:
        value = json_body(req, also=[CURL])
        alone = getattr(schema, "alone", None)
        return {alone: value} if isinstance(value, list) and alone else value


class StoreDetails(ma.Schema):
    code = ma.fields.String(metadata={"description": "The code that /v1 has for it"})
    errors = ma.fields.List(ma.fields.Raw(), metadata={"description": "{pointer, detail} of each wrong field"})


class StoreError(ma.Schema):
    """What every error looks like here; the status code says the same."""

    success = ma.fields.Boolean(metadata={"description": "false"})
    message = ma.fields.String()
    error_code = ma.fields.String(metadata={"description": "VALIDATION_ERROR, NOT_FOUND, CONFLICT…"})
    details = ma.fields.Nested(StoreDetails)
    timestamp = ma.fields.DateTime()
    request_id = ma.fields.String()


class StoreBlueprint(ApiBlueprint):
    """Routes whose bodies are read as its clients send them, and whose errors are described in its envelope."""

    ARGUMENTS_PARSER = StoreParser()

    def _prepare_response_doc(self, doc: Any, doc_info: Any, **kwargs: Any) -> Any:
        doc = super()._prepare_response_doc(doc, doc_info, **kwargs)
        error = {"description": "Error", "content": {"application/json": {"schema": StoreError()}}}
        doc["responses"] |= {status: error for status in doc["responses"] if str(status) >= "400"} | {"default": error}
        return doc


class SliceQuery(ma.Schema):
    limit = Digits(load_default=50, validate=ma.validate.Range(1, 100))
    offset = Digits(load_default=0, validate=ma.validate.Range(0))


class ActorQuery(ma.Schema):
    user_id = ma.fields.String(metadata={"description": "Read and not used: who calls is whom the API key belongs to"})


def blueprint(noun: str, description: str) -> ApiBlueprint:
    return compat_blueprint(f"prompt-store {noun}", PREFIX, f"Prompt Store: {description}", kind=StoreBlueprint)


@cache
def enveloped(schema: type[ma.Schema]) -> type[ma.Schema]:
    """The schema of an answer with this `data`."""
    fields: dict[str, Any] = {
        "success": ma.fields.Boolean(metadata={"description": "true"}),
        "message": ma.fields.String(),
        "data": ma.fields.Nested(schema),
        "timestamp": ma.fields.DateTime(),
        "request_id": ma.fields.String(),
    }
    return type(f"{schema.__name__}Envelope", (ma.Schema,), fields)


@cache
def slice_of(schema: type[ma.Schema]) -> type[ma.Schema]:
    fields: dict[str, Any] = {
        "items": ma.fields.List(ma.fields.Nested(schema)),
        **{name: ma.fields.Integer() for name in ("total", "limit", "offset")},
        "has_more": ma.fields.Boolean(),
    }
    return type(f"{schema.__name__}Slice", (ma.Schema,), fields)


def answer(data: Any, message: str, *, status: int = 200) -> flask.Response:
    made = flask.jsonify(
        {
            "success": True,
            "message": message,
            "data": data,
            "timestamp": datetime.now(UTC).isoformat(),
            "request_id": flask.g.get("request_id", ""),
        }
    )
    made.status_code = status
    return made


def wrapped(made: flask.Response, message: str) -> flask.Response:
    """The answer of `replay.create` in the envelope."""
    outer = answer(made.get_json(), message, status=made.status_code)
    outer.headers.extend([(name, value) for name, value in made.headers if name.startswith("Idempotent")])
    return outer


def sliced(items: list[Any], found: Numbered, query: Mapping[str, Any]) -> dict[str, Any]:
    limit, offset = query["limit"], query["offset"]
    more = offset + len(items) < found.total
    return {"items": items, "total": found.total, "has_more": more, "limit": limit, "offset": offset}


def either(query: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """What may stand in the query or in the body, together; a field that is given twice must be given alike."""
    for name, value in query.items():
        if name in body and body[name] != value:
            raise field_error(f"/{name}", f"the query says otherwise: ?{name}={value}")
    return {**query, **body}


def required(fields: dict[str, Any], *names: str) -> None:
    for name in names:
        if fields.get(name) is None:
            raise field_error(f"/{name}", f"required, here or as ?{name}=")


def home() -> str:
    """The project that these addresses see: the one that the key is limited to, else `default`."""
    limits = caller().project_ids
    return DEFAULT_PROJECT if limits is None or len(limits) != 1 else str(next(iter(limits)))


def find(session: Session, reader: Caller, prompt_id: str, *, writing: bool = False) -> Prompt:
    return get_by_id(session, reader, id_of(prompt_id, "prompt"), project=home(), writing=writing)


def id_of(text: str, noun: str) -> uuid.UUID:
    """Ids are text there; what is no UUID was never one of ours."""
    try:
        return uuid.UUID(text)
    except ValueError as error:
        raise NotFound(f"no {noun} {text!r}") from error


def as_its_clients_know_it(response: flask.Response) -> flask.Response:
    """A problem (RFC 9457) below the prefix in the older envelope, with its status and headers."""
    path = flask.request.path
    is_ours = path.startswith(f"{PREFIX}/") and not path.startswith(f"{PREFIX}/prompt-studio")
    if not is_ours or response.mimetype != "application/problem+json":
        return response
    problem = response.get_json()
    code = ERROR_CODES.get(response.status_code, problem["code"].upper())
    errors = [{name: _renamed(text) for name, text in error.items()} for error in problem.get("errors", [])]
    body = {
        "success": False,
        "message": _renamed(problem["detail"]),
        "error_code": code,
        "details": {"code": problem["code"], "errors": errors},
        "timestamp": datetime.now(UTC).isoformat(),
        "request_id": problem["request_id"],
    }
    response.set_data(flask.json.dumps(body))
    response.mimetype = "application/json"
    return response


def _renamed(text: str) -> str:
    return text.replace("template_source", "content")  # what our field is called there
