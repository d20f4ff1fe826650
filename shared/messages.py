"""The Celery application and the two messages that are sent: a doorbell for jobs, a wake-up for a waiter.

The job row is the queue (I1). A message only makes it fast and visible, so sending one never raises, and
never waits: a thread of its own does it. A Redis that failed a moment ago is left alone for a while; what
was to be said meanwhile is dropped, and found by pulling.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

import redis
import structlog
from celery import Celery
from kombu import Exchange
from kombu import Queue as KombuQueue
from kombu.exceptions import OperationalError

from shared.config import settings
from shared.models.jobs import Queue

IDS_PER_MESSAGE = 32
RUNG_AT_MOST = 1000  # of a bulk submit; the rest is pulled
WAKE_CHANNEL = "promptmill.executions"
_QUIET_SECONDS = 2.0

log = structlog.get_logger(__name__)
celery = Celery("promptmill")
# Why each setting is what it is: docs/why/messages.md.
celery.conf.update(
    broker_url=settings().redis_url.get_secret_value(),
    task_serializer="json",
    accept_content=["json"],
    result_serializer="json",
    enable_utc=True,
    timezone="UTC",
    task_acks_late=False,
    task_reject_on_worker_lost=False,
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    task_track_started=False,
    worker_disable_prefetch=True,
    worker_prefetch_multiplier=1,
    worker_concurrency=2,
    task_queues=[KombuQueue(queue.value, Exchange(queue.value), routing_key=queue.value) for queue in Queue],
    task_default_queue=Queue.EXECUTIONS.value,
    task_create_missing_queues=False,
    task_publish_retry=True,
    task_publish_retry_policy={
        "max_retries": 1,
        "interval_start": 0,
        "interval_step": 0.1,
        "interval_max": 0.2,
    },
    broker_connection_timeout=2,
    broker_pool_limit=10,
    broker_pool_acquire_timeout=2,
    broker_connection_retry=True,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_transport_options={
        "socket_timeout": 5,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 5,
        "visibility_timeout": 3600,
        "max_connections": 20,
    },
    worker_send_task_events=True,
    task_send_sent_event=True,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    beat_schedule={
        "sweep": {
            "task": "promptmill.sweep",
            "schedule": settings().sweep_seconds,
            "options": {"queue": Queue.MAINTENANCE.value, "expires": settings().sweep_seconds},
        }
    },
    beat_max_loop_interval=5,
)

_outbox: "queue.Queue[Callable[[], object]]" = queue.Queue(maxsize=1_000)
_sender: threading.Thread | None = None
_sender_lock = threading.Lock()


def ring(lane: Queue | str, job_ids: Sequence[int]) -> None:
    """Tell the fleet that these jobs are due. Call it after their commit."""
    for start in range(0, min(len(job_ids), RUNG_AT_MOST), IDS_PER_MESSAGE):
        _send_soon(partial(_publish, str(lane), list(job_ids[start : start + IDS_PER_MESSAGE])))


def announce_ended(subject_ids: Sequence[str]) -> None:
    """Wake whoever waits for these executions, or runs."""
    if subject_ids:
        _send_soon(lambda: client().publish(WAKE_CHANNEL, ",".join(subject_ids)))


_client: redis.Redis | None = None


def client() -> redis.Redis:
    """A Redis client whose calls all end within about two seconds."""
    global _client
    if _client is None:
        _client = open_client(timeout_seconds=2.0)
    return _client


def open_client(*, timeout_seconds: float) -> redis.Redis:
    """Another client, for those who would rather do without Redis than wait for it so long."""
    return redis.Redis.from_url(
        settings().redis_url.get_secret_value(),
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        health_check_interval=5,
        retry=None,
    )


def is_reachable() -> bool:
    try:
        return bool(client().ping())
    except (redis.RedisError, OSError):
        return False


def _publish(lane: str, job_ids: list[int]) -> None:
    celery.send_task("promptmill.claim", args=[job_ids], queue=lane)


def _send_soon(send: Callable[[], object]) -> None:
    global _sender
    with contextlib.suppress(queue.Full):
        _outbox.put_nowait(send)
    with _sender_lock:
        # Started on first use, so that each process has its own: threads do not survive a fork.
        if _sender is None or not _sender.is_alive():
            _sender = threading.Thread(target=_send_for_ever, name="messages", daemon=True)
            _sender.start()


def _send_for_ever() -> None:
    quiet_until = 0.0
    while True:
        send = _outbox.get()
        if time.monotonic() < quiet_until:
            continue
        try:
            send()
        except (OperationalError, redis.RedisError, OSError) as error:
            quiet_until = time.monotonic() + _QUIET_SECONDS
            log.warning("message_not_sent", error=str(error))
