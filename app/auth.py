"""Who may call: the API key of a request as a `Caller`."""

import flask

from shared.db import reading
from shared.domain import tenants
from shared.domain.tenants import Caller
from shared.errors import Unauthorized
from shared.models import Role


def authenticate() -> None:
    """Set `flask.g.caller` from `X-API-Key` or `Authorization: Bearer`, or answer 401."""
    key = flask.request.headers.get("X-API-Key", "")
    authorization = flask.request.headers.get("Authorization", "")
    if not key and authorization.lower().startswith("bearer "):
        key = authorization[7:].strip()
    if not key:
        raise Unauthorized("send the key as X-API-Key or as Authorization: Bearer")
    with reading() as session:
        flask.g.caller = tenants.authenticate(session, key)


def caller(role: Role = Role.VIEWER) -> Caller:
    """The caller of this request, who must have at least this role."""
    current: Caller = flask.g.caller
    current.require(role)
    return current
