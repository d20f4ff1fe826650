"""deploy/prometheus.yml, deploy/alerts.yml and the page about metrics speak of what exists.

`promtool` is not among our libraries; deploy/runbook.md says when to run it.
"""

import re
from typing import Any

import pytest
import yaml
from prometheus_client import Metric

from app.metrics import QueueCollector
from shared.config import Settings
from shared.domain import status
from shared.metrics import REGISTRY
from tests.architecture.deployment import read, services

GAUGES = status.FleetGauges(
    {"executions": 1}, {"executions": 1.0}, {"executions": 1}, {"executions": 0}, 1, 1, 1, 1, 1, 1.0
)


def families(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, str, set[str]]]:
    """Every metric of ours by the name that is documented: (type, help, labels)."""
    monkeypatch.setattr("app.metrics._gauges", lambda: GAUGES)
    found = {}
    for family in QueueCollector().collect():
        found[family.name] = (family.type, family.documentation, labels_of(family))
    for collector, (name, *_) in REGISTRY._collector_to_names.items():
        kind: str = collector._type  # type: ignore[attr-defined]
        documented = f"{name}_total" if kind == "counter" else name
        found[documented] = (kind, collector._documentation, set(collector._labelnames))  # type: ignore[attr-defined]
    return found


def labels_of(family: Metric) -> set[str]:
    return {name for sample in family.samples for name in sample.labels}


def test_the_reference_lists_every_metric_with_type_labels_and_meaning_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = re.findall(r"^\| `(prompt_studio_\w+)` \| (\w+) \|(.*?)\| (.*) \|$", read("docs/reference/metrics.md"), re.M)

    listed = {name: (kind, text, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels, text in rows}

    assert listed == families(monkeypatch)
    assert len(rows) == len(listed)


def test_every_name_of_the_requirement_documents_leads_to_a_metric_that_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    table = read("docs/reference/metrics.md").split("## Names of the requirement documents")[1]
    rows = re.findall(r"^\| (`.*`) \| (`.*) \|$", table, re.M)

    theirs = " ".join(left for left, _ in rows)
    ours = {name for _, right in rows for name in re.findall(r"`(\w+)`", right)}

    assert ours <= set(families(monkeypatch))
    # Section 9 of the product requirements, in its own words.
    for name in ("queue.length", "leases.active_total", "leases.expired_total", "pg_advisory.lock_attempts_total"):
        assert f"`prompt_studio.{name}`" in theirs
    for name in ("pg_advisory.locks_acquired_total", "idempotency.hit_total", "idempotency.miss_total"):
        assert f"`prompt_studio.{name}`" in theirs


def test_every_alert_asks_for_metrics_and_labels_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    known = families(monkeypatch)

    for alert in alerts():
        for name, selector in re.findall(r"(prompt_studio_\w+)(?:\{(.*?)\})?", alert["expr"]):
            assert name in known, alert["alert"]
            assert set(re.findall(r"(\w+)[=!]", selector)) <= known[name][2], alert["alert"]


def test_there_is_an_alert_for_everything_that_stops_work() -> None:
    asked = " ".join(alert["expr"] for alert in alerts())

    for name in ("consumers", "last_sweep_age_seconds", "oldest_due_seconds", "jobs_dead", "leases_reclaimed_total"):
        assert f"prompt_studio_{name}" in asked
    assert 'jobs_completed_total{state="failed"}' in asked


def test_every_alert_says_how_urgent_it_is_what_is_wrong_and_where_the_help_stands() -> None:
    headings = set(re.findall(r"^## (.+)$", read("deploy/runbook.md"), re.M))

    for alert in alerts():
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert alert["annotations"]["summary"].endswith(".")
        assert alert["annotations"]["runbook"] in headings


def test_prometheus_loads_the_alerts_and_scrapes_the_services_of_compose_where_they_listen() -> None:
    loaded = prometheus()
    targets = {
        (name, found["port"])
        for job in loaded["scrape_configs"]
        for found in job["dns_sd_configs"]
        for name in found["names"]
    }

    assert loaded["rule_files"] == ["alerts.yml"]
    worker = services()["worker"]["environment"]
    assert targets == {
        ("api", int(services()["api"]["environment"]["PORT"])),
        ("worker", int(worker["PROMPTMILL_WORKER_METRICS_PORT"])),
    }
    assert worker["PROMPTMILL_WORKER_METRICS_ADDRESS"] == "0.0.0.0"


def test_a_worker_serves_nothing_unless_told_to_and_then_only_to_its_own_machine() -> None:
    fields = Settings.model_fields

    assert fields["worker_metrics_port"].default == 0
    assert fields["worker_metrics_address"].default == "127.0.0.1"


def test_the_key_of_the_scrape_stands_in_a_file_that_is_never_committed() -> None:
    (api,) = (job for job in prometheus()["scrape_configs"] if job["job_name"] == "promptmill-api")

    assert api["authorization"] == {"credentials_file": "api_key"}
    assert "deploy/api_key" in read(".gitignore").splitlines()


def prometheus() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(read("deploy/prometheus.yml"))
    return loaded


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(read("deploy/alerts.yml"))["groups"]
    return list(group["rules"])
