"""Idempotency-Key on creates and runs (I7): the HTTP side of `shared.domain.idempotency`."""

import uuid
from collections.abc import Callable
from typing import Any

import flask
from sqlalchemy.orm import Session

from shared.db import reading, transaction
from shared.domain import idempotency
from shared.domain.idempotency import Attempt
from shared.domain.tenants import Caller
from shared.errors import DatabaseBusy, IdempotencyInProgress
from shared.models import IdempotencyRecord

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
PARAMETER = {
    "in": "header",
    "name": HEADER,
    "required": False,
    "schema": {"type": "string", "maxLength": 255},
    "description": "The same key, route and body give the same answer for 24 hours, and one entity.",
}


def create(
    caller: Caller,
    body: Any,
    status: int | Callable[[Any], int],
    make: Callable[[Session, Any], Any],
    *,
    plan: Callable[[], Any] = lambda: None,
) -> flask.Response:
    """Run `make` in one transaction and answer what it returns, or replay the answer of an earlier request.

    `plan` does the reading, rendering and hashing before the transaction begins; `make` is given its result.
    `status` may be told by what `make` returned.
    """

    def write(session: Session, planned: Any) -> tuple[Any, dict[str, Any]]:
        payload = make(session, planned)
        return payload, {"status": told(payload), "body": payload}

    def told(payload: Any) -> int:
        return status(payload) if callable(status) else status

    payload, record = _once(caller, body, plan, write)
    if record is not None:
        payload = record.body
    answer = flask.jsonify(payload)
    answer.status_code = record.status if record and record.status else told(payload)
    if record:
        answer.headers[REPLAYED] = "true"
    return answer


def is_asked() -> bool:
    """Whether the request carries a key."""
    return HEADER in flask.request.headers


def run(
    caller: Caller,
    body: Any,
    plan: Callable[[], Any],
    submit: Callable[[Session, Any], uuid.UUID],
    *,
    key: str | None = None,
) -> tuple[uuid.UUID, bool]:
    """(execution id, replayed): a run is replayed as the execution that it is now. `key`: one beside the header's."""

    def write(session: Session, planned: Any) -> tuple[Any, dict[str, Any]]:
        execution_id = submit(session, planned)
        return execution_id, {"status": 202, "entity_id": execution_id}

    execution_id, record = _once(caller, body, plan, write, key)
    if record is None:
        return execution_id, False
    assert record.entity_id is not None
    return record.entity_id, True


def _once(
    caller: Caller,
    body: Any,
    plan: Callable[[], Any],
    write: Callable[[Session, Any], tuple[Any, dict[str, Any]]],
    key: str | None = None,
) -> tuple[Any, IdempotencyRecord | None]:
    """(what `write` returned, None), or (None, the record of the request that was first)."""
    attempt = _attempt(caller, body, key)
    if attempt is None:
        planned = plan()
        with transaction() as session:
            return write(session, planned)[0], None
    with reading() as session:
        record = idempotency.find(session, attempt)
    if record is not None:
        return None, record
    planned = plan()
    try:
        with transaction(wait_seconds=idempotency.WAIT_SECONDS) as session:
            record = idempotency.begin(session, attempt)
            if record is not None:
                return None, record
            made, kept = write(session, planned)
            idempotency.complete(session, attempt, **kept)
            return made, None
    except DatabaseBusy as error:
        raise IdempotencyInProgress("wait a second and repeat the request") from error


def _attempt(caller: Caller, body: Any, key: str | None) -> Attempt | None:
    key = flask.request.headers.get(HEADER, key)
    if key is None:
        return None
    route = f"{flask.request.method} {flask.request.path}"
    return idempotency.attempt(caller, route, key, [dict(flask.request.args), body])
