"""Waiting for an execution or a run to end: woken through Redis, with a poll beside it that needs no Redis.

Waiters and event streams take at most half of the request threads together; past that a run answers 202 at once.
"""

import re
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar

import flask
import redis
import structlog
from sqlalchemy.orm import Session

from shared import messages
from shared.config import settings
from shared.db import reading
from shared.domain import jobs
from shared.errors import BadRequest, FieldError
from shared.models import JobKind

POLL_SECONDS = 0.25
PREFER = {
    "in": "header",
    "name": "Prefer",
    "schema": {"type": "string"},
    "description": "`wait=N`: answer once it has ended, or after N seconds (0 by default, at most 300)",
}
T = TypeVar("T")
log = structlog.get_logger("api")

_slots = threading.BoundedSemaphore(settings().web_threads // 2)
_waiting: dict[str, set[threading.Event]] = defaultdict(set)
_lock = threading.Lock()
_listener: threading.Thread | None = None


def take_place() -> bool:
    """A place among those who wait, whoever they are and for what; give it back with `leave_place`."""
    return _slots.acquire(blocking=False)


def leave_place() -> None:
    _slots.release()


def wait_seconds(otherwise: float) -> float:
    """What the request prefers: `Prefer: wait=N` (RFC 7240)."""
    preference = flask.request.headers.get("Prefer", "")
    match = re.search(r"\bwait=([^,;\s]+)", preference)
    if match is None:
        return otherwise
    if not re.fullmatch(r"[0-9]{1,3}", match.group(1)) or int(match.group(1)) > 300:
        detail = "wait=N takes whole seconds from 0 to 300"
        raise BadRequest(f"Prefer: {detail}", errors=[FieldError("Prefer", detail)])
    return float(match.group(1))


def read_when_ended(
    kind: JobKind,
    subject_id: uuid.UUID,
    find: Callable[[Session], T],
    show: Callable[[Session, T], flask.Response],
) -> flask.Response:
    """What `show` makes of the subject: at once, or once it has ended if the request prefers to wait for it."""
    seconds = wait_seconds(0.0)
    if seconds:
        with reading() as session:
            find(session)  # who may not see it does not wait for it either
        wait_for(subject_id, seconds, kind)
    with reading() as session:
        return show(session, find(session))


def wait_for(subject_id: uuid.UUID, seconds: float, kind: JobKind = JobKind.EXECUTION) -> None:
    """Return when the subject of such jobs has ended, when the time is up, or at once when too many wait."""
    if seconds <= 0 or not take_place():
        return
    woken = threading.Event()
    try:
        _listen()
        with _lock:
            _waiting[str(subject_id)].add(woken)
        deadline = time.monotonic() + seconds
        while _is_live(kind, subject_id) and time.monotonic() < deadline:
            woken.wait(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))
            woken.clear()
    finally:
        with _lock:
            _waiting[str(subject_id)].discard(woken)
            if not _waiting[str(subject_id)]:
                del _waiting[str(subject_id)]
        leave_place()


def _is_live(kind: JobKind, subject_id: uuid.UUID) -> bool:
    with reading() as session:
        return jobs.is_live(session, kind, subject_id)


def _listen() -> None:
    global _listener
    with _lock:
        if _listener is None or not _listener.is_alive():
            _listener = threading.Thread(target=_hear_for_ever, name="wake-ups", daemon=True)
            _listener.start()


def _hear_for_ever() -> None:
    # Its own connection: a subscriber blocks on reads, which the publishing client must not.
    url = settings().redis_url.get_secret_value()
    while True:
        try:
            subscription = redis.Redis.from_url(url, socket_connect_timeout=2, retry=None).pubsub()  # type: ignore[no-untyped-call]
            subscription.subscribe(messages.WAKE_CHANNEL)
            for message in subscription.listen():
                if message["type"] == "message":
                    _wake(message["data"].decode().split(","))
        except (redis.RedisError, OSError) as error:
            log.warning("no_wake_ups", error=str(error))
            time.sleep(2)  # polling goes on; this is only how soon we hear of Redis again


def _wake(subject_ids: list[str]) -> None:
    with _lock:
        for subject_id in subject_ids:
            for event in _waiting.get(subject_id, ()):
                event.set()
