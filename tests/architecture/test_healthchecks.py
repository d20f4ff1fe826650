"""deploy/healthcheck.py: red before a process does its work and when it has stopped to, green while it does."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import sqlalchemy as sa

from shared import db
from shared.domain import leases
from shared.models import Queue, WorkerProcess
from tests.architecture.deployment import ROOT
from tests.servers import RedisServer, free_port, wait_until

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one container: its own ports, the libraries of this Python, and a beat that sends often."""
    values = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges",
        "PORT": str(free_port()),
        "FLOWER_PORT": str(free_port()),
        "FLOWER_ADDRESS": "127.0.0.1",
        "PROMPTMILL_SWEEP_SECONDS": "0.2",
        "PROMPTMILL_DRAIN_SECONDS": "0",
        "GUNICORN_CMD_ARGS": "--no-control-socket",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def start(environment: None) -> Iterator[Start]:
    """Starts a role as the image does, and ends it with the test."""
    started = []

    def start_role(role: str) -> "subprocess.Popen[bytes]":
        started.append(
            subprocess.Popen(
                ["deploy/run", role],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # so that what it starts ends with it
            )
        )
        return started[-1]

    yield start_role
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def redis_of_beat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    """A Redis that nothing else on this machine is connected to."""
    server = RedisServer(tmp_path / "redis")
    server.start()
    with redis.Redis.from_url(server.url) as client:  # what waited for the server to answer may still be connected
        client.client_kill_filter(_type="normal", skipme=True)
    monkeypatch.setenv("PROMPTMILL_REDIS_URL", server.url)
    yield server
    server.kill()


@pytest.mark.parametrize("role", ["web", "flower"])
def test_what_answers_http_is_healthy_once_it_answers(role: str, start: Start, broker: RedisServer) -> None:
    assert "Connection refused" in complaint(role)

    start(role)

    wait_until(lambda: is_healthy(role), f"{role} is healthy", every=1.0)


def test_a_worker_is_healthy_once_it_has_checked_in_with_the_database(
    database: str, start: Start, broker: RedisServer
) -> None:
    assert "no worker of" in complaint("worker")

    start("worker")

    wait_until(lambda: is_healthy("worker"), "the worker is healthy", every=1.0)


def test_a_worker_needs_no_redis_to_be_healthy(database: str, environment: None, unreachable_redis: None) -> None:
    check_in(f"{socket.gethostname()}:1:abc")

    assert is_healthy("worker")


def test_a_worker_that_no_longer_checks_in_is_unhealthy(database: str, environment: None) -> None:
    check_in(f"{socket.gethostname()}:1:abc")

    with db.transaction() as session:
        session.execute(sa.update(WorkerProcess).values(heartbeat_at=db.db_now(-90)))

    assert "no worker of" in complaint("worker")


def test_a_worker_of_another_host_does_not_count(database: str, environment: None) -> None:
    check_in(f"{socket.gethostname()}2:1:abc")

    assert "no worker of" in complaint("worker")


def test_beat_is_healthy_while_it_sends_and_unhealthy_when_it_hangs(redis_of_beat: RedisServer, start: Start) -> None:
    assert "no connection to Redis" in complaint("beat")

    beat = start("beat")
    wait_until(lambda: is_healthy("beat"), "beat is healthy", every=1.0)

    beat.send_signal(signal.SIGSTOP)
    wait_until(lambda: "nothing sent for" in complaint("beat"), "the silence of beat is noticed", every=1.0)


def test_an_unknown_role_is_refused(environment: None) -> None:
    assert "usage: healthcheck.py web|worker|beat|flower" in complaint("wroker")


@pytest.fixture
def unreachable_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMPTMILL_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")


def check_in(owner: str) -> None:
    with db.transaction() as session:
        leases.check_in(session, owner, list(Queue), 1)


def is_healthy(role: str) -> bool:
    return complaint(role) == ""


def complaint(role: str) -> str:
    """What the check says when it fails; empty when it passes."""
    done = subprocess.run(
        [sys.executable, "deploy/healthcheck.py", role], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) == (done.stderr == ""), done.stderr
    return done.stderr
