"""/ready is red, soon, whenever submitted work would not get done, and says why (I12)."""

import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.api import health
from shared import db
from shared.domain import leases
from shared.domain.tenants import Caller
from shared.models import Queue, Schedule
from tests.factories import claim, make_budget, submit
from tests.servers import PostgresServer, RedisServer, free_port, temporary_directory
from tests.support import Api, make_prompt, run_body


@pytest.fixture(autouse=True)
def probes(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads of this test alone: what it leaves hanging has ended before its database goes."""
    with ThreadPoolExecutor(max_workers=4) as own:
        monkeypatch.setattr(health, "_probes", own)
        yield


def check_in(*queues: Queue) -> None:
    with db.transaction() as session:
        leases.check_in(session, "worker:1", queues or list(Queue), 4)
        leases.take_turn(session, "sweep", every_seconds=0)
        leases.end_turn(session, "sweep")


@contextlib.contextmanager
def connected_to(url: str, back_to: str) -> Iterator[None]:
    db.connect(url)
    try:
        yield
    finally:
        db.connect(back_to)


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


def test_ready_is_red_with_the_reason_when_nothing_listens_where_the_database_was(api: Api, database: str) -> None:
    with connected_to(f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/nothing", database):
        answer = api._client.get("/ready")

    assert answer.status_code == 503
    assert answer.get_json() == {"status": "not_ready", "reasons": ["the database is out of reach"]}


def test_ready_answers_although_the_database_never_does(api: Api, database: str) -> None:
    """A host that accepts connections and then says nothing: every time-out of the driver is longer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with connected_to(f"postgresql+psycopg://nobody@127.0.0.1:{port}/nothing", database):
            answer = api._client.get("/ready")

    assert answer.status_code == 503
    assert answer.get_json()["reasons"] == ["the database has not answered within 2 s"]


def test_ready_answers_although_no_connection_is_free_and_is_green_again_once_one_is(api: Api) -> None:
    check_in()
    with contextlib.ExitStack() as held:
        for _ in range(32):
            held.enter_context(db.engine().connect())

        full = api._client.get("/ready")

    assert full.status_code == 503
    assert full.get_json()["reasons"] == ["the database has not answered within 2 s"]
    assert api._client.get("/ready").status_code == 200


def test_ready_is_red_once_a_real_postgres_has_been_stopped(api: Api, database: str) -> None:
    with temporary_directory() as directory:
        server = PostgresServer(directory)
        with connected_to(server.url.replace("postgresql://", "postgresql+psycopg://"), database):
            with db.transaction() as session:
                session.execute(sa.select(1))  # a connection that the pool keeps
            server.stop()

            answer = api._client.get("/ready")

    assert answer.status_code == 503
    assert answer.get_json()["reasons"] == ["the database is out of reach"]


def test_ready_is_red_when_the_database_has_no_schema(api: Api, database: str, tmp_path: Path) -> None:
    with connected_to(f"sqlite:///{tmp_path}/empty.db", database):
        answer = api._client.get("/ready")

    assert answer.status_code == 503
    assert answer.get_json()["status"] == "not_ready"


def test_ready_names_both_when_the_database_and_redis_are_away(api: Api, database: str, broker: RedisServer) -> None:
    broker.kill()
    try:
        with connected_to(f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/nothing", database):
            answer = api._client.get("/ready")
    finally:
        broker.start()

    assert answer.status_code == 503
    assert answer.get_json()["reasons"] == [
        "the database is out of reach",
        "redis is out of reach; workers poll instead",
    ]


def test_ready_is_red_when_every_worker_has_gone_and_nobody_sweeps(api: Api, admin: Caller) -> None:
    """Nothing is queued: what the dead workers held runs for ever in the books."""
    check_in()
    submit(admin)
    claim()
    db.offset_clock(120)

    answer = api._client.get("/ready")

    assert answer.status_code == 503
    assert answer.get_json()["reasons"][0].startswith("no sweep for 120 s")


def test_ready_is_red_when_workers_died_before_the_first_sweep(api: Api) -> None:
    check_in()
    with db.transaction() as session:
        session.execute(sa.delete(Schedule))
    db.offset_clock(120)

    answer = api._client.get("/ready")

    assert answer.status_code == 503
    assert answer.get_json()["reasons"][0].startswith("no sweep for 120 s")


def test_ready_is_green_before_anything_ever_ran(api: Api) -> None:
    assert api._client.get("/ready").status_code == 200


def test_a_fleet_that_has_just_started_again_gets_its_time_to_sweep(api: Api) -> None:
    check_in()
    with db.transaction() as session:
        leases.check_out(session, "worker:1")
    db.offset_clock(3600)
    assert api._client.get("/ready").status_code == 503

    with db.transaction() as session:
        leases.check_in(session, "worker:2", list(Queue), 4)

    assert api._client.get("/ready").status_code == 200


def test_work_that_waits_for_its_budget_needs_no_consumer(api: Api, admin: Caller) -> None:
    submit(admin, 2, budget_id=make_budget(admin, max_task_calls=1))
    claim()
    db.offset_clock(12)
    check_in(Queue.INTERACTIVE)

    answer = api._client.get("/ready")

    assert (answer.status_code, answer.get_json()["reasons"]) == (200, [])
