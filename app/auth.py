"""Who may call: the API key of a request as a `Caller`."""

import time
from threading import Lock

import flask
from sqlalchemy.engine import Engine

from shared import db
from shared.domain import tenants
from shared.domain.tenants import Caller
from shared.errors import Unauthorized
from shared.hashing import sha256
from shared.models import Role

KNOWN_SECONDS = 0.5  # for so long a key that was good is good, also after it was revoked
_KNOWN_KEYS = 10_000


def authenticate() -> None:
    """Set `flask.g.caller` from `X-API-Key` or `Authorization: Bearer`, or answer 401."""
    key = key_of_request()
    if not key:
        raise Unauthorized("send the key as X-API-Key or as Authorization: Bearer")
    flask.g.caller = _callers.of(key)


def key_of_request() -> str:
    """The key as it was sent; empty when there is none."""
    key = flask.request.headers.get("X-API-Key", "")
    authorization = flask.request.headers.get("Authorization", "")
    if not key and authorization.lower().startswith("bearer "):
        key = authorization[7:].strip()
    return key


def is_good(key: str) -> bool:
    """Whether a key that was good is good still: for what outlives its request."""
    try:
        _callers.of(key)
    except Unauthorized:
        return False
    return True


def caller(role: Role = Role.VIEWER) -> Caller:
    """The caller of this request, who must have at least this role."""
    current: Caller = flask.g.caller
    current.require(role)
    return current


class _Callers:
    """The callers of a moment ago, by the hash of their key."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Caller, float]] = {}
        self._engine: Engine | None = None
        self._lock = Lock()

    def of(self, key: str) -> Caller:
        digest, engine = sha256(key), db.engine()
        found = self._known.get(digest)
        if found is not None and found[1] > time.monotonic() and self._engine is engine:
            return found[0]
        until = time.monotonic() + KNOWN_SECONDS
        with db.reading() as session:
            current = tenants.authenticate(session, key)
        with self._lock:
            if self._engine is not engine or len(self._known) >= _KNOWN_KEYS:
                self._known, self._engine = {}, engine
            self._known[digest] = current, until
        return current


_callers = _Callers()
