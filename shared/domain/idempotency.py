"""Same key, caller, route and body: same answer, one entity, one job (I7).

The record is inserted first, in the entity's own transaction. So a second caller waits for the first
to commit or roll back, and nothing "in progress" is ever committed that could get stuck.
"""

import json
import uuid
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared import metrics
from shared.config import settings
from shared.db import after_commit, db_now, insert_if_absent
from shared.domain.tenants import Caller
from shared.errors import BadRequest, FieldError, IdempotencyMismatch
from shared.hashing import hash_of, sha256
from shared.models import IdempotencyRecord

WAIT_SECONDS = 2.0


@dataclass(frozen=True)
class Attempt:
    """One request that carries an Idempotency-Key."""

    caller: Caller
    route: str
    key_hash: str
    body_hash: str


def attempt(caller: Caller, route: str, key: str, body: Any) -> Attempt:
    """Check the key: 1 to 255 visible ASCII characters. The route is the method and the path."""
    if not 1 <= len(key) <= 255 or not all(33 <= ord(character) <= 126 for character in key):
        detail = "must be 1 to 255 visible ASCII characters"
        raise BadRequest(f"Idempotency-Key {detail}", errors=[FieldError("Idempotency-Key", detail)])
    return Attempt(caller, route if len(route) <= 200 else sha256(route), sha256(key), _hash_of(body))


def _hash_of(body: Any) -> str:
    """Of what was asked for; the ids and times in it are hashed as they are written."""
    return hash_of(json.loads(json.dumps(body, default=str)))


def find(session: Session, wanted: Attempt) -> IdempotencyRecord | None:
    """The record of an earlier request; `IdempotencyMismatch` when its body was another one."""
    record = session.scalars(
        sa.select(IdempotencyRecord).where(*_same(wanted), IdempotencyRecord.expires_at > db_now())
    ).one_or_none()
    if record is not None and record.body_hash != wanted.body_hash:
        raise IdempotencyMismatch("the key was used with another body; choose a new key for a new request")
    if record is not None:
        metrics.idempotency_hit()
    return record


def begin(session: Session, wanted: Attempt) -> IdempotencyRecord | None:
    """Take the key. None: it is ours, go on and `complete()`. A record: replay it.

    On PostgreSQL this waits for a concurrent first request; bound the wait with
    `transaction(wait_seconds=WAIT_SECONDS)`.
    """
    session.execute(sa.delete(IdempotencyRecord).where(*_same(wanted), IdempotencyRecord.expires_at <= db_now()))
    inserted = insert_if_absent(
        session,
        IdempotencyRecord,
        user_id=wanted.caller.user_id,
        route=wanted.route,
        key_hash=wanted.key_hash,
        workspace_id=wanted.caller.workspace_id,
        body_hash=wanted.body_hash,
        expires_at=db_now(settings().idempotency_hours * 3600),
    )
    if not inserted:
        return find(session, wanted)
    after_commit(session, metrics.idempotency_miss)
    return None


def complete(
    session: Session, done: Attempt, *, status: int, body: Any = None, entity_id: uuid.UUID | None = None
) -> None:
    """Keep what was answered. A run keeps the entity instead of the body: it is replayed as it stands."""
    session.execute(
        sa.update(IdempotencyRecord).where(*_same(done)).values(status=status, body=body, entity_id=entity_id)
    )


def prune(session: Session, *, batch: int = 500) -> int:
    """Delete expired records; how many."""
    now = session.scalars(sa.select(db_now())).one()  # a value: no index is searched with a volatile expression
    expired = sa.select(IdempotencyRecord.key_hash).where(IdempotencyRecord.expires_at <= now).limit(batch)
    deleted = session.execute(
        sa.delete(IdempotencyRecord).where(IdempotencyRecord.key_hash.in_(expired), IdempotencyRecord.expires_at <= now)
    )
    return int(deleted.rowcount)  # type: ignore[attr-defined]


def _same(wanted: Attempt) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        IdempotencyRecord.user_id == wanted.caller.user_id,
        IdempotencyRecord.route == wanted.route,
        IdempotencyRecord.key_hash == wanted.key_hash,
    )
