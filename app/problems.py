"""Every error as RFC 9457 problem+json: one shape, true status codes, the field named."""

import sqlite3
from http import HTTPStatus
from typing import Any

import flask
import marshmallow as ma
import structlog
from flask_smorest import Api
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from werkzeug.exceptions import HTTPException

from shared.db import is_busy, violated_constraint
from shared.errors import (
    AlreadyExists,
    BodyTooLarge,
    Conflict,
    DatabaseBusy,
    FieldError,
    NotFound,
    PreconditionFailed,
    PromptmillError,
)

log = structlog.get_logger("api")
PROBLEM_JSON = "application/problem+json"
BASE_TYPE = "urn:promptmill:problem:"  # docs/reference/errors.md
# Werkzeug's own words are for a person in front of a browser.
PLAIN = {
    400: "the request cannot be read",
    404: "nothing is at this address",
    405: "this address does not take this method; Allow says which it takes",
}


class FieldProblem(ma.Schema):
    pointer = ma.fields.String(
        metadata={"description": "JSON pointer into the body, `?name` of a query parameter, or a header"}
    )
    detail = ma.fields.String()


class Problem(ma.Schema):
    """What every error looks like (RFC 9457)."""

    type = ma.fields.String()
    title = ma.fields.String()
    status = ma.fields.Integer()
    detail = ma.fields.String()
    code = ma.fields.String(metadata={"description": "Stable; program against this"})
    request_id = ma.fields.String()
    errors = ma.fields.List(ma.fields.Nested(FieldProblem))


class ProblemApi(Api):  # type: ignore[misc]
    """flask-smorest with our error shape, in the answers and in the OpenAPI document."""

    ERROR_SCHEMA = Problem

    def _register_responses(self) -> None:
        """Each error once, in the media type that it is sent in."""
        content = {PROBLEM_JSON: {"schema": Problem}}
        for status in HTTPStatus:
            if status >= HTTPStatus.BAD_REQUEST:
                answer = {"description": status.phrase, "content": content}
                self.spec.components.response(status.name, answer, lazy=True)
        fallback = {"description": "Any other error", "content": content}
        self.spec.components.response(self.DEFAULT_ERROR_RESPONSE_NAME, fallback, lazy=True)

    def handle_http_exception(self, error: HTTPException) -> flask.Response:
        """An error of the framework: no route, wrong method, invalid fields, body too large…"""
        status = error.code or 500
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            detail = f"the body is larger than {flask.request.max_content_length:,} bytes"
            return respond(BodyTooLarge(detail, errors=[FieldError("", detail)]))
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            return _internal_error(error)
        data = getattr(error, "data", None) or {}
        errors = field_errors(data.get("messages", {}))
        name = HTTPStatus(status).phrase
        answer = build(
            status,
            "invalid_fields" if errors else name.lower().replace(" ", "_"),
            "The request has invalid fields" if errors else name,
            "; ".join(map(str, errors[:5])) or PLAIN.get(status) or (error.description or name),
            errors,
        )
        for header, value in error.get_headers():
            if header.lower() == "allow":
                answer.headers[header] = value
        return answer


def register(app: flask.Flask) -> None:
    app.register_error_handler(PromptmillError, respond)
    app.register_error_handler(DBAPIError, _database_error)
    app.register_error_handler(Exception, _internal_error)


def respond(error: PromptmillError) -> flask.Response:
    errors = _located(error) if isinstance(error, NotFound) else error.errors
    answer = build(error.status, error.code, error.title(), error.detail or error.title(), errors)
    if error.retry_after_seconds is not None:
        answer.headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, PreconditionFailed) and error.etag is not None:
        answer.set_etag(error.etag)
    if error.status == HTTPStatus.UNAUTHORIZED:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


def _located(error: NotFound) -> list[FieldError]:
    """Where this request named what is not there: in its query, in its body, or (nothing to say) in its path."""
    body = flask.g.get("body")
    for field in error.fields:
        if field in flask.request.args:
            return [FieldError(f"?{field}", error.detail)]
        if isinstance(body, dict) and body.get(field) is not None:
            return [FieldError(f"/{field}", error.detail)]
    return []


def build(status: int, code: str, title: str, detail: str, errors: Any = ()) -> flask.Response:
    body: dict[str, Any] = {
        "type": BASE_TYPE + code,
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": flask.g.get("request_id", ""),
    }
    if errors:
        body["errors"] = [{"pointer": error.pointer, "detail": error.detail} for error in errors]
    answer = flask.jsonify(body)
    answer.status_code = status
    answer.mimetype = PROBLEM_JSON
    return answer


def field_errors(messages: Any) -> list[FieldError]:
    """Marshmallow's nested messages as one list with a pointer each."""
    found: list[FieldError] = []
    for location, content in (messages or {}).items():
        _collect(content, "" if location == "json" else "?", found)
    return found


def _collect(content: Any, pointer: str, found: list[FieldError]) -> None:
    if isinstance(content, dict):
        for key, inner in content.items():
            if key == "_schema":
                _collect(inner, pointer, found)
            elif pointer == "?":
                _collect(inner, f"?{key}", found)
            else:
                escaped = str(key).replace("~", "~0").replace("/", "~1")
                _collect(inner, f"{pointer}/{escaped}", found)
    elif isinstance(content, list):
        for inner in content:
            _collect(inner, pointer, found)
    else:
        found.append(FieldError(pointer, str(content)))


def _database_error(error: DBAPIError) -> flask.Response:
    """A violated constraint, a busy or an absent database, as what the caller should hear of it."""
    if isinstance(error, IntegrityError):
        constraint = violated_constraint(error)
        if constraint.startswith(("uq_", "pk_")):
            return respond(AlreadyExists(f"that would violate {constraint}"))
        if constraint.startswith("fk_") or "FOREIGN KEY" in str(error.orig):
            return respond(Conflict("something that this refers to was deleted at the same moment; read it again"))
    if is_busy(error):
        return respond(DatabaseBusy())
    is_away = isinstance(error, OperationalError | InterfaceError) or isinstance(error.orig, sqlite3.OperationalError)
    if is_away or error.connection_invalidated:  # such as that of a process that was paused in its transaction
        log.error("database_unavailable", exc_info=error)
        answer = build(503, "database_unavailable", "The database is out of reach", "try again in a moment")
        answer.headers["Retry-After"] = "2"
        return answer
    return _internal_error(error)


def _internal_error(error: Exception) -> flask.Response:
    """The one place that answers for a bug. The exception's text stays in the log."""
    original = getattr(error, "original_exception", None) or error
    log.error("internal_error", exc_info=original)
    return build(
        500,
        "internal_error",
        "Something went wrong here",
        "The error was logged under the request id; it is not your request's fault.",
    )
