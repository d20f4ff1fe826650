"""If-Match, If-None-Match and ETag: the HTTP side of `shared.domain.preconditions`."""

from typing import Any

import flask

from shared.domain.preconditions import Precondition
from shared.errors import BadRequest, FieldError

IF_MATCH: dict[str, Any] = {
    "in": "header",
    "name": "If-Match",
    "required": False,
    "schema": {"type": "string"},
    "description": "The ETag that you read; when it is no longer the current one, 412 with the one that is.",
}
IF_NONE_MATCH: dict[str, Any] = {
    "in": "header",
    "name": "If-None-Match",
    "required": False,
    "schema": {"type": "string", "enum": ["*"]},
    "description": "`*`: only if it does not exist yet.",
}


def asked() -> Precondition:
    """What this request asks for. If-Match compares strongly (RFC 9110), so a weak ETag matches nothing."""
    headers = flask.request.headers
    match = None
    if "If-Match" in headers:
        given = flask.request.if_match
        match = frozenset("*") if given.star_tag else frozenset(given)
    if (none := headers.get("If-None-Match")) is not None and none.strip() != "*":
        detail = "only * is understood here"
        raise BadRequest(f"If-None-Match: {detail}", errors=[FieldError("If-None-Match", detail)])
    return Precondition(match, must_be_new=none is not None)


def tagged(answer: flask.Response, etag: str) -> flask.Response:
    answer.set_etag(etag)
    return answer
