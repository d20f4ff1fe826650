"""/metrics: HTTP figures of the API processes, and gauges computed from the database at scrape time."""

import os
from collections.abc import Iterator

import flask
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest, multiprocess
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_flask_exporter import PrometheusMetrics

from app.auth import authenticate
from shared.config import settings
from shared.db import reading
from shared.domain import status


class QueueCollector(Collector):
    """Depth, leases and consumers of the fleet. From the rows, so every process reports the same."""

    def collect(self) -> Iterator[Metric]:
        with reading() as session:
            gauges = status.fleet_gauges(session)
        length = GaugeMetricFamily("prompt_studio_queue_length", "Queued jobs", labels=["queue"])
        for queue, count in gauges.depth.items():
            length.add_metric([queue], count)
        consumers = GaugeMetricFamily("prompt_studio_consumers", "Live worker processes", labels=["queue"])
        for queue, count in gauges.consumers.items():
            consumers.add_metric([queue], count)
        yield length
        yield consumers
        yield GaugeMetricFamily("prompt_studio_leases_active", "Unexpired leases", value=gauges.leases_active)
        yield GaugeMetricFamily("prompt_studio_leases_expired", "Expired leases", value=gauges.leases_expired)


def install(app: flask.Flask) -> None:
    """Time every request by route, and serve /metrics (with an API key unless configured public)."""
    own = CollectorRegistry()
    PrometheusMetrics(app, path=None, group_by="url_rule", registry=own)

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
    return generate_latest(own) + generate_latest(fleet)
