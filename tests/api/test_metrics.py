"""/metrics: what it shows, to whom, and that no label gives anybody away."""

import re
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from shared import db
from shared.config import settings
from shared.domain import leases
from shared.domain.tenants import Caller
from shared.metrics import REGISTRY
from shared.models import Job, Queue, State
from tests.factories import claim, expire_leases, make_budget, submit
from tests.servers import free_port
from tests.support import API_KEY, Api, Drain, make_prompt, run_body

KEY = {"Idempotency-Key": "order-42"}
# Of the engine; and what prometheus-flask-exporter adds, whose routes are those of the application.
LABELS = {"queue", "kind", "state", "provider", "model_name", "outcome", "direction", "le"}
OF_REQUESTS = {"le", "method", "status", "url_rule", "version"}
Sample = tuple[str, frozenset[tuple[str, str]]]


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PROMPTMILL_METRICS_PUBLIC", "true")
    settings.cache_clear()
    yield
    monkeypatch.delenv("PROMPTMILL_METRICS_PUBLIC")
    settings.cache_clear()


def scrape(api: Api) -> dict[Sample, float]:
    text = api.get("/metrics").get_data(as_text=True)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: dict[Sample, float], name: str, **labels: str) -> float | None:
    return samples.get((f"prompt_studio_{name}", frozenset(labels.items())))


def test_metrics_want_a_key(api: Api) -> None:
    without_key = api._client.get("/metrics")
    text = api.get("/metrics").get_data(as_text=True)

    assert without_key.status_code == 401
    assert "flask_http_request_duration_seconds" in text
    assert API_KEY not in text


def test_metrics_can_be_made_public(api: Api, public: None) -> None:
    assert api._client.get("/metrics").status_code == 200


def test_gauges_say_what_the_rows_say(api: Api, admin: Caller) -> None:
    blocked_and_running = submit(admin, 3, budget_id=make_budget(admin, max_task_calls=1))
    claim()  # one; the budget blocks two
    *_, quarantined, failed, delayed = submit(admin, 6)
    with db.transaction() as session:
        for execution_id, values in (
            (quarantined, {"losses": leases.QUARANTINE_AFTER_LOSSES}),
            (failed, {"state": State.FAILED}),
            (delayed, {"run_at": db.db_now(500)}),
        ):
            session.execute(sa.update(Job).where(Job.subject_id == execution_id).values(**values))
        leases.check_in(session, "worker:1", [Queue.EXECUTIONS, Queue.INTERACTIVE], 4)
        leases.take_turn(session, "sweep", every_seconds=0)
        leases.end_turn(session, "sweep")
    expire_leases()
    claim("worker:2", limit=2)
    with db.transaction() as session:
        leases.check_in(session, "worker:1", [Queue.EXECUTIONS, Queue.INTERACTIVE], 4)

    samples = scrape(api)

    assert len(blocked_and_running) == 3
    assert value(samples, "database_up") == 1
    # 9 submitted: 1 lost its lease and 2 run, 1 has failed.
    assert value(samples, "queue_length", queue="executions") == 5
    assert value(samples, "queue_length", queue="deliveries") == 0
    assert 61 <= (value(samples, "oldest_due_seconds", queue="executions") or 0) < 120
    assert value(samples, "oldest_due_seconds", queue="interactive") == 0
    assert value(samples, "consumers", queue="executions") == 1
    assert value(samples, "consumers", queue="deliveries") == 0
    assert value(samples, "leases_active") == value(samples, "leases_active_total") == 2
    assert value(samples, "leases_expired") == value(samples, "leases_expired_total") == 1
    assert value(samples, "jobs_blocked") == 2
    assert value(samples, "jobs_quarantined") == 1
    assert value(samples, "jobs_dead") == 1
    assert 61 <= (value(samples, "last_sweep_age_seconds") or 0) < 120


def test_a_queue_whose_only_work_is_not_due_has_no_late_work(api: Api, admin: Caller) -> None:
    submit(admin)
    with db.transaction() as session:
        session.execute(sa.update(Job).values(run_at=db.db_now(500)))

    samples = scrape(api)

    assert value(samples, "queue_length", queue="executions") == 1
    assert value(samples, "oldest_due_seconds", queue="executions") == 0


def test_a_paused_queue_is_told_apart_from_one_that_nobody_serves(api: Api) -> None:
    api.expect(200, "POST", "/v1/queues/executions/pause")

    samples = scrape(api)

    assert value(samples, "queue_paused", queue="executions") == 1
    assert value(samples, "queue_paused", queue="interactive") == 0


def test_counters_are_served_while_the_database_is_away(api: Api, database: str, public: None) -> None:
    db.connect(f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/nothing")
    try:
        samples = scrape(api)
    finally:
        db.connect(database)

    assert value(samples, "database_up") == 0
    assert value(samples, "queue_length", queue="executions") is None
    assert value(samples, "idempotency_hit_total") is not None


def test_the_first_request_with_a_key_is_a_miss_and_the_second_a_hit(api: Api) -> None:
    before = scrape(api)
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"}, headers=KEY)
    between = scrape(api)
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"}, headers=KEY)

    after = scrape(api)

    assert grown(before, between, "idempotency_miss_total") == 1
    assert grown(before, between, "idempotency_hit_total") == 0
    assert grown(between, after, "idempotency_miss_total") == 0
    assert grown(between, after, "idempotency_hit_total") == 1


def test_a_request_without_a_key_one_that_fails_and_one_with_another_body_count_as_neither(api: Api) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"}, headers=KEY)
    before = scrape(api)

    api.expect(201, "POST", "/v1/projects", {"name": "zeus"})
    api.expect(409, "POST", "/v1/projects", {"name": "atlas"}, headers={"Idempotency-Key": "another"})
    api.expect(422, "POST", "/v1/projects", {"name": "hera"}, headers=KEY)

    after = scrape(api)
    assert grown(before, after, "idempotency_miss_total") == grown(before, after, "idempotency_hit_total") == 0


def test_no_label_names_a_workspace_a_prompt_or_a_user(api: Api, drain: Drain, as_user: Callable[..., Api]) -> None:
    stranger = as_user(workspace="secretworkspace", user="secretuser")
    make_prompt(stranger, "secretprompt")
    model = {"provider": "simulated", "model_name": "secretmodel"}
    for key, body in (("secret1", run_body("secretprompt")), ("secret2", run_body("secretprompt", model=model))):
        stranger.expect(202, "POST", "/v1/executions:submit", body, headers={"Idempotency-Key": key})
    drain()

    text = api.get("/metrics").get_data(as_text=True)

    assert "secret" not in text
    of_engine = re.findall(r"^prompt_studio_\w+\{(.*)\}", text, re.MULTILINE)
    of_requests = re.findall(r"^flask_\w+\{(.*)\}", text, re.MULTILINE)
    assert {name for labels in of_engine for name in re.findall(r"(\w+)=", labels)} <= LABELS
    assert {name for labels in of_requests for name in re.findall(r"(\w+)=", labels)} <= OF_REQUESTS


def test_the_labels_of_the_registry_are_the_bounded_ones() -> None:
    labels = {name for collector in REGISTRY._collector_to_names for name in getattr(collector, "_labelnames", ())}

    assert labels == LABELS - {"le"}


def grown(before: dict[Sample, float], after: dict[Sample, float], name: str, **labels: str) -> float:
    return (value(after, name, **labels) or 0) - (value(before, name, **labels) or 0)
