"""/metrics: what the API processes count, and gauges computed from the database at scrape time."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import flask
import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest, multiprocess
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_flask_exporter import PrometheusMetrics
from sqlalchemy.exc import SQLAlchemyError

from app.auth import authenticate
from app.fast_reads import FastReads
from shared import metrics
from shared.config import settings
from shared.db import reading
from shared.domain import status

log = structlog.get_logger("metrics")


class QueueCollector(Collector):
    """Queues, leases and consumers of the fleet. From the rows, so every API process reports the same."""

    def collect(self) -> Iterator[Metric]:
        gauges = _gauges()
        yield GaugeMetricFamily(
            "prompt_studio_database_up",
            "1 when the database answered this scrape; at 0 the gauges that it computes are missing",
            value=float(gauges is not None),
        )
        if gauges is None:
            return
        yield _by_queue(
            "prompt_studio_queue_length", "Queued jobs, those not yet due and those blocked included", gauges.depth
        )
        yield _by_queue(
            "prompt_studio_oldest_due_seconds",
            "How long the first due job has waited; 0 when none is due",
            gauges.oldest_due_seconds,
        )
        yield _by_queue("prompt_studio_consumers", "Live worker processes", gauges.consumers)
        yield _by_queue("prompt_studio_queue_paused", "1 while somebody has paused it, else 0", gauges.paused)
        for name, text, value in (
            ("prompt_studio_leases_active", "Leases that have not expired: jobs that run", gauges.leases_active),
            ("prompt_studio_leases_expired", "Expired leases that no sweep has taken yet", gauges.leases_expired),
            ("prompt_studio_leases_active_total", "The same as prompt_studio_leases_active", gauges.leases_active),
            ("prompt_studio_leases_expired_total", "The same as prompt_studio_leases_expired", gauges.leases_expired),
            ("prompt_studio_jobs_blocked", "Queued jobs that their budget cannot afford", gauges.blocked),
            ("prompt_studio_jobs_quarantined", "Queued jobs that lost two workers and run alone", gauges.quarantined),
            ("prompt_studio_jobs_dead", "Failed jobs that are still kept", gauges.dead),
        ):
            yield GaugeMetricFamily(name, text, value=value)
        if gauges.sweep_age_seconds is not None:
            yield GaugeMetricFamily(
                "prompt_studio_last_sweep_age_seconds",
                "Since the last sweep ended; missing until there was one",
                value=gauges.sweep_age_seconds,
            )


def install(app: flask.Flask) -> None:
    """Time every request by route, and serve /metrics (with an API key unless configured public)."""
    own = CollectorRegistry()
    PrometheusMetrics(app, path=None, group_by="url_rule", registry=own)
    collectors: Any = own._names_to_collectors  # the exporter gives its metrics to nobody
    seconds, total = collectors["flask_http_request_duration_seconds"], collectors["flask_http_request_total"]
    app.wsgi_app = FastReads(app.wsgi_app, seconds, total)  # type: ignore[method-assign]

    def serve() -> flask.Response:
        if not settings().metrics_public:
            authenticate()
        return flask.Response(_scrape(own), content_type=CONTENT_TYPE_LATEST)

    app.add_url_rule("/metrics", "metrics", serve)


def _scrape(own: CollectorRegistry) -> bytes:
    fleet = CollectorRegistry()
    fleet.register(QueueCollector())
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:  # set by deploy/gunicorn.conf.py: sum over processes
        multiprocess.MultiProcessCollector(fleet)  # type: ignore[no-untyped-call]
        return generate_latest(fleet)
    return generate_latest(own) + generate_latest(metrics.REGISTRY) + generate_latest(fleet)


def _gauges() -> status.FleetGauges | None:
    try:
        with reading() as session:
            return status.fleet_gauges(session)
    except SQLAlchemyError as error:
        # The counters are worth having when the database is away, and then more than ever.
        log.warning("gauges_missing", error=str(error).splitlines()[0])
        return None


def _by_queue(name: str, text: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=["queue"])
    for queue, value in values.items():
        family.add_metric([queue], value)
    return family
