"""Waiting for an execution, or a run: woken through Redis, with a poll beside it that needs no Redis.

Waiters and event streams take at most half of the request threads together; past that a run answers 202 at once.
"""

import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable

import redis
import structlog
from sqlalchemy.orm import Session

from shared import messages
from shared.config import settings
from shared.db import reading
from shared.domain import executions

POLL_SECONDS = 0.25
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


def wait_for(
    execution_id: uuid.UUID,
    seconds: float,
    is_waiting: Callable[[Session, uuid.UUID], bool] = executions.is_waiting,
) -> None:
    """Return when the execution has ended, when the time is up, or at once when too many wait.

    `is_waiting` says it of something else by its id; of that nobody wakes us, and the poll decides.
    """
    if seconds <= 0 or not take_place():
        return
    woken = threading.Event()
    try:
        _listen()
        with _lock:
            _waiting[str(execution_id)].add(woken)
        deadline = time.monotonic() + seconds
        while _asked(is_waiting, execution_id) and time.monotonic() < deadline:
            woken.wait(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))
            woken.clear()
    finally:
        with _lock:
            _waiting[str(execution_id)].discard(woken)
            if not _waiting[str(execution_id)]:
                del _waiting[str(execution_id)]
        leave_place()


def _asked(is_waiting: Callable[[Session, uuid.UUID], bool], subject_id: uuid.UUID) -> bool:
    with reading() as session:
        return is_waiting(session, subject_id)


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


def _wake(execution_ids: list[str]) -> None:
    with _lock:
        for execution_id in execution_ids:
            for event in _waiting.get(execution_id, ()):
                event.set()
