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

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
PARAMETER = {
    "in": "header",
    "name": HEADER,
    "required": False,
    "schema": {"type": "string", "maxLength": 255},
    "description": "The same key, route and body give the same answer for 24 hours, and one entity.",
}


def create(caller: Caller, body: Any, status: int, make: Callable[[Session], Any]) -> flask.Response:
    """Run `make` in one transaction and answer what it returns, or replay the answer of an earlier request."""
    attempt = _attempt(caller, body)
    if attempt is None:
        with transaction() as session:
            payload = make(session)
        return _answer(payload, status)
    with reading() as session:
        record = idempotency.find(session, attempt)
    if record is None:
        try:
            with transaction(wait_seconds=idempotency.WAIT_SECONDS) as session:
                record = idempotency.begin(session, attempt)
                if record is None:
                    payload = make(session)
                    idempotency.complete(session, attempt, status=status, body=payload)
                    session.flush()
        except DatabaseBusy as error:
            raise IdempotencyInProgress("wait a second and repeat the request") from error
    if record is None:
        return _answer(payload, status)
    answer = _answer(record.body, record.status or status)
    answer.headers[REPLAYED] = "true"
    return answer


def run(
    caller: Caller, body: Any, plan: Callable[[], Any], submit: Callable[[Session, Any], uuid.UUID]
) -> tuple[uuid.UUID, bool]:
    """(execution id, replayed). `plan` reads and renders outside the transaction that `submit` writes in."""
    attempt = _attempt(caller, body)
    if attempt is None:
        planned = plan()
        with transaction() as session:
            return submit(session, planned), False
    with reading() as session:
        record = idempotency.find(session, attempt)
    if record is None:
        planned = plan()
        try:
            with transaction(wait_seconds=idempotency.WAIT_SECONDS) as session:
                record = idempotency.begin(session, attempt)
                if record is None:
                    execution_id = submit(session, planned)
                    idempotency.complete(session, attempt, status=202, entity_id=execution_id)
        except DatabaseBusy as error:
            raise IdempotencyInProgress("wait a second and repeat the request") from error
    if record is None:
        return execution_id, False
    assert record.entity_id is not None
    return record.entity_id, True


def _attempt(caller: Caller, body: Any) -> Attempt | None:
    key = flask.request.headers.get(HEADER)
    if key is None:
        return None
    route = f"{flask.request.method} {flask.request.path}"
    return idempotency.attempt(caller, route, key, [dict(flask.request.args), body])


def _answer(payload: Any, status: int) -> flask.Response:
    answer = flask.jsonify(payload)
    answer.status_code = status
    return answer
