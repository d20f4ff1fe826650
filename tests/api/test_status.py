"""/health, /ready, /metrics and /v1/status say what is true (I12)."""

from shared import db
from shared.config import settings
from shared.domain import leases
from shared.models import Queue
from tests.servers import RedisServer
from tests.support import API_KEY, Api, Drain, make_prompt, run_body


def check_in(*queues: Queue) -> None:
    with db.transaction() as session:
        leases.check_in(session, "worker:1", queues or list(Queue), 4)
        leases.take_turn(session, "sweep", every_seconds=0)
        leases.end_turn(session, "sweep")


def test_health_needs_no_key_and_no_database(api: Api) -> None:
    db.disconnect()

    answer = api._client.get("/health")

    assert (answer.status_code, answer.get_json()) == (200, {"status": "healthy"})


def test_ready_is_green_when_work_would_get_done(api: Api) -> None:
    check_in()

    answer = api._client.get("/ready")

    assert (answer.status_code, answer.get_json()) == (200, {"status": "ready", "reasons": []})


def test_ready_is_red_when_due_work_has_no_consumer(api: Api) -> None:
    check_in(Queue.INTERACTIVE)
    make_prompt(api)
    api.expect(202, "POST", "/v1/executions:submit", run_body())
    assert api._client.get("/ready").status_code == 200  # a deploy may take a moment
    db.offset_clock(12)
    check_in(Queue.INTERACTIVE)

    answer = api._client.get("/ready")

    assert answer.status_code == 503
    assert answer.get_json()["reasons"] == ["queue executions has due work and no worker consumes it"]


def test_a_worker_that_has_stopped_beating_is_not_a_consumer(api: Api) -> None:
    check_in()
    db.offset_clock(120)

    consumers = api.expect(200, "GET", "/v1/status")["consumers"]

    assert set(consumers.values()) == {0}


def test_ready_is_red_when_the_sweep_is_late(api: Api) -> None:
    check_in()
    db.offset_clock(40)
    with db.transaction() as session:
        leases.check_in(session, "worker:1", list(Queue), 4)

    answer = api._client.get("/ready")

    assert answer.status_code == 503
    assert "sweep" in answer.get_json()["reasons"][0]


def test_ready_says_degraded_and_why_when_only_redis_is_away(api: Api, broker: RedisServer) -> None:
    check_in()
    broker.kill()
    try:
        answer = api._client.get("/ready")
    finally:
        broker.start()

    assert answer.status_code == 200
    assert answer.get_json()["status"] == "degraded"
    assert "redis" in answer.get_json()["reasons"][0]


def test_ready_is_red_when_the_database_is_out_of_reach(api: Api, database: str) -> None:
    db.connect("postgresql+psycopg://nobody@127.0.0.1:1/nothing")

    answer = api._client.get("/ready")

    assert answer.status_code == 503
    assert answer.get_json()["code"] == "database_unavailable"
    db.connect(database)


def test_status_counts_what_waits_and_what_runs(api: Api, drain: Drain) -> None:
    make_prompt(api)
    for _ in range(3):
        api.expect(202, "POST", "/v1/executions:submit", run_body())
    drain.claim(limit=1)
    db.offset_clock(45)

    status = api.expect(200, "GET", "/v1/status?warn_seconds=30")

    assert status["queue_depth"]["executions"] == 2
    assert status["running"] == 1
    assert status["leases"] == {"active": 1, "expiring_soon": 1, "stale": 0}
    assert status["oldest_due_seconds"] >= 45


def test_metrics_count_queue_leases_and_requests_behind_a_key(api: Api, drain: Drain) -> None:
    make_prompt(api)
    api.expect(202, "POST", "/v1/executions:submit", run_body())
    api.expect(202, "POST", "/v1/executions:submit", run_body())
    drain.claim(limit=1)

    without_key = api._client.get("/metrics")
    text = api.get("/metrics").get_data(as_text=True)

    assert without_key.status_code == 401
    assert 'prompt_studio_queue_length{queue="executions"} 1.0' in text
    assert "prompt_studio_leases_active 1.0" in text
    assert "flask_http_request_duration_seconds" in text
    assert API_KEY not in text


def test_metrics_can_be_made_public(api: Api, monkeypatch: object) -> None:
    import os

    os.environ["PROMPTMILL_METRICS_PUBLIC"] = "true"
    settings.cache_clear()
    try:
        assert api._client.get("/metrics").status_code == 200
    finally:
        del os.environ["PROMPTMILL_METRICS_PUBLIC"]
        settings.cache_clear()
