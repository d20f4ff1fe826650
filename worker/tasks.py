"""The Celery side of a worker process: messages wake the runner, signals start and stop it.

    celery -A worker.tasks worker -P threads -Q interactive,executions,…

Celery's own threads only hear doorbells; provider calls run in the runner's slots (`PROMPTMILL_CONCURRENCY`).
"""

from typing import Any

import structlog
from celery import signals

from shared import logs, metrics
from shared.config import settings
from shared.messages import celery
from shared.models import JobKind, Queue
from worker import maintenance
from worker.runner import Runner
from worker.steps import Step, bulk, evaluations, executions, generations, optimizations, replays

STEPS: dict[JobKind, Step] = {
    JobKind.EXECUTION: executions,
    JobKind.EVALUATION: evaluations,
    JobKind.OPTIMIZATION: optimizations,
    JobKind.REPLAY: replays,
    JobKind.GENERATION: generations,
    JobKind.BULK: bulk,
}

log = structlog.get_logger("worker")
_runner: Runner | None = None


@celery.task(name="promptmill.claim", bind=True)
def claim(self: Any, job_ids: list[int]) -> None:
    """Jobs are due: claim those still queued."""
    if _runner is not None:
        _runner.wake(job_ids, lane=self.request.delivery_info.get("routing_key"))


@celery.task(name="promptmill.sweep")
def sweep() -> None:
    """Put the jobs of dead workers back."""
    maintenance.sweep()


@signals.setup_logging.connect
def _log_our_way(**kwargs: Any) -> None:
    logs.configure("worker")


@signals.worker_init.connect
def _start(sender: Any, **kwargs: Any) -> None:
    """Begin to pull before the broker is reached: a dead Redis must not keep a worker from its work."""
    global _runner
    logs.configure("worker")
    consumed = [Queue(name) for name in sender.app.amqp.queues.consume_from]
    _runner = Runner(STEPS, queues=consumed, concurrency=settings().concurrency, sweep=maintenance.sweep_if_late)
    _runner.start()
    _serve_metrics()


def _serve_metrics() -> None:
    port, address = settings().worker_metrics_port, settings().worker_metrics_address
    if not port:
        return
    try:
        metrics.serve(address, port)
    except OSError as error:  # a port that is taken must not keep a worker from its work
        log.error("metrics_not_served", address=address, port=port, error=str(error))


@signals.worker_shutting_down.connect
def _drain(**kwargs: Any) -> None:
    if _runner is not None:
        _runner.drain()


@signals.worker_shutdown.connect
def _stop(**kwargs: Any) -> None:
    global _runner
    runner, _runner = _runner, None
    if runner is not None:
        runner.stop(grace_seconds=settings().drain_seconds)
