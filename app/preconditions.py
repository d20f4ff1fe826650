"""ETag and If-Match: who writes says which state he has read, and hears when it is no longer the one that is there."""

import flask

from shared.errors import FieldError, PreconditionFailed

PARAMETER = {
    "in": "header",
    "name": "If-Match",
    "required": False,
    "schema": {"type": "string"},
    "description": "The ETag that was read: 412 when it has changed since. Left out, nothing is compared.",
}


def check(tag: str) -> None:
    """`PreconditionFailed` unless the request names this tag, or none. Call it with the row locked."""
    if "If-Match" in flask.request.headers and not flask.request.if_match.contains(tag):
        detail = "names another state than the one that is there; read it again"
        raise PreconditionFailed(f"If-Match {detail}", errors=[FieldError("If-Match", detail)])


def tagged(answer: flask.Response, tag: str) -> flask.Response:
    answer.set_etag(tag)
    return answer
