"""Which errors an operation can answer with, for the OpenAPI document: read off its own decorators.

What cannot be read there stands at the view: `@blp.fails(409)`. What no view decides (405, a bug's 500) is `default`.
"""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

import marshmallow as ma

# Behind every key: no key, a parameter that nobody reads, too many requests, a database that is busy or out of reach.
ALWAYS = (
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
READS = {"get", "head", "options"}
# Of whoever may only read; and of a project that is archived, a name that is taken, an end that came first.
WRITE_ERRORS = (HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT)
# Fields that name something which may not be there; of a body or a query, as a path does.
NAMES = {"project", "prompt_name", "dataset", "target", "to_project"}
BODY_ERRORS = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
PRECONDITIONS = {"If-Match", "If-None-Match"}


def error_statuses(rule: str, method: str, described: Mapping[str, Any]) -> list[int]:
    """In order. `described` is what flask-smorest's decorators and `fails` have kept of the view."""
    declared = described.get("fails", {})
    return sorted((set(_derived(rule, method, described)) | declared.get("also", set())) - declared.get("never", set()))


def _derived(rule: str, method: str, described: Mapping[str, Any]) -> Iterator[int]:
    yield from ALWAYS
    if method not in READS:
        yield from WRITE_ERRORS
    arguments = described.get("arguments", {}).get("parameters", [])
    manual = described.get("manual_doc", {})
    body = manual.get("requestBody", {})
    schemas = [argument["schema"] for argument in arguments]
    schemas += [media["schema"] for media in body.get("content", {}).values()]
    if "<" in rule or NAMES & {name for schema in schemas for name in _fields(schema)}:
        yield HTTPStatus.NOT_FOUND
    if body or any(argument["in"] == "json" for argument in arguments):
        yield from BODY_ERRORS
    headers = {parameter["name"] for parameter in manual.get("parameters", []) if parameter["in"] == "header"}
    if method in READS:
        return  # its If-None-Match asks for a 304, and what cannot be read of it matches nothing
    if headers:
        yield HTTPStatus.BAD_REQUEST
    if headers & PRECONDITIONS:
        yield HTTPStatus.PRECONDITION_FAILED


def _fields(schema: Any) -> set[str]:
    if isinstance(schema, dict):  # of JSONL and the like, which has no fields
        return set()
    instance: ma.Schema = schema() if isinstance(schema, type) else schema
    return set(instance.fields)
