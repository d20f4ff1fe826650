"""`make up`: one at a time, nothing left behind, what dies comes back."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from local.stack import Options, StackError, listen
from tests.journeys.stack import ROOT, LocalStack, environment, is_alive, running_stack
from tests.servers import RedisServer, free_port, temporary_directory, wait_until


def try_up(home: Path, **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "local", "up"],
        cwd=ROOT,
        env=environment(home, **settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_up_says_where_it_is_restarts_what_dies_refuses_a_second_and_leaves_no_orphan() -> None:
    with running_stack(WORKERS="1", PROMPTMILL_JOB_LEASE_SECONDS="6") as stack:
        up = stack.up
        assert set(up) >= {"url", "api_key", "database_url", "redis_url", "pids"}
        assert set(up["pids"]) == {"supervisor", "redis", "worker.1", "beat", "flower", "web"}
        assert stack.up_file.stat().st_mode & 0o077 == 0  # it holds the key
        assert all(is_alive(pid) for pid in up["pids"].values())

        second = try_up(stack.home)
        assert second.returncode == 1
        assert "already running" in second.stderr
        assert up["url"] in second.stderr

        assert (stack.home / "flower_password").read_text().strip() not in stack.log_text()
        assert_flower_wants_a_password_and_shows_the_worker(up["flower_url"])
        assert_metrics_want_a_key(stack)
        assert set(up["metrics_urls"]) == {"worker.1"}
        with urllib.request.urlopen(up["metrics_urls"]["worker.1"], timeout=10) as answer:
            assert "prompt_studio_leases_renewed_total" in answer.read().decode()

        for role in ("redis", "web", "beat"):
            os.kill(up["pids"][role], signal.SIGKILL)
        wait_until(
            lambda: all(
                stack.up["pids"].get(role) not in (None, up["pids"][role]) for role in ("redis", "web", "beat")
            ),
            "redis, web and beat were started again and up.json follows",
        )
        assert stack.call("GET", "/health")["status"] == "healthy"  # it waits until the new process answers
        wait_until(lambda: is_ready(stack), "all is well again")

        pids = list(stack.up["pids"].values())
        code = stack.stop(signal.SIGINT)

        assert code == 0
        assert not any(is_alive(pid) for pid in pids)
        assert not stack.up_file.exists()


def assert_flower_wants_a_password_and_shows_the_worker(url: str) -> None:
    scheme, rest = url.split("://")
    credentials, host = rest.split("@")
    basic = base64.b64encode(credentials.encode()).decode()
    request = urllib.request.Request(
        f"{scheme}://{host}/api/workers?refresh=1", headers={"Authorization": f"Basic {basic}"}
    )

    def workers() -> dict[str, object]:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return dict(json.load(answer))
        except (urllib.error.URLError, OSError):
            return {}

    wait_until(lambda: any(name.startswith("worker1@") for name in workers()), "Flower shows the worker")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{scheme}://{host}/api/workers", timeout=10)
    assert refused.value.code == 401
    refused.value.close()


def assert_metrics_want_a_key(stack: LocalStack) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(stack.up["url"] + "/metrics", timeout=10)
    assert refused.value.code == 401
    refused.value.close()
    request = urllib.request.Request(stack.up["url"] + "/metrics", headers={"X-API-Key": stack.up["api_key"]})
    with urllib.request.urlopen(request, timeout=10) as answer:
        text = answer.read().decode()
    assert "prompt_studio_consumers" in text
    assert "flask_http_request_duration_seconds_bucket" in text  # summed over the API processes


def is_ready(stack: LocalStack) -> bool:
    try:
        return bool(stack.call("GET", "/ready")["status"] == "ready")
    except (AssertionError, OSError):
        return False


def test_a_port_that_was_chosen_and_is_busy_is_a_clear_error() -> None:
    with temporary_directory() as home, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        refused = try_up(home, PORT=str(port))

    assert refused.returncode == 1
    assert f"port {port} is in use" in refused.stderr
    assert "PORT=" in refused.stderr


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PORT", "http", "PORT must be a whole number from 1 to 65535, not 'http'"),
        ("WORKERS", "0", "WORKERS must be a whole number from 1 to 64, not '0'"),
        ("CONCURRENCY", "many", "CONCURRENCY must be a whole number from 1 to 1000, not 'many'"),
        ("PROMPTMILL_CONCURRENCY", "x", "PROMPTMILL_CONCURRENCY must be a whole number from 1 to 1000, not 'x'"),
        ("DB", "oracle", "DB must be sqlite or postgres, not 'oracle'"),
        (
            "PROMPTMILL_DATABASE_URL",
            "mysql://ada:secret@host/name",
            "PROMPTMILL_DATABASE_URL must begin with sqlite:// or postgresql://",
        ),
        (
            "PROMPTMILL_DATABASE_URL",
            "postgresql://ada:secret@host:port/name",
            "PROMPTMILL_DATABASE_URL must be like sqlite:///path or postgresql://user:password@host/name",
        ),
        ("PROMPTMILL_JOB_LEASE_SECONDS", "0", "PROMPTMILL_JOB_LEASE_SECONDS must be greater than or equal to 1"),
        (  # of the lease of this stack, which is shorter than the service's
            "PROMPTMILL_HEARTBEAT_SECONDS",
            "14",
            "PROMPTMILL_HEARTBEAT_SECONDS must be at most half of PROMPTMILL_JOB_LEASE_SECONDS",
        ),
    ],
)
def test_a_setting_that_makes_no_sense_is_one_clear_line(name: str, value: str, said: str) -> None:
    with temporary_directory() as home:
        refused = try_up(home, **{name: value})

    assert refused.returncode == 2
    assert refused.stderr == f"error: {said}\n"


def test_the_next_free_port_is_taken_and_nobody_else_takes_it_before_the_api_is_up() -> None:
    port = free_port()
    options = Options(Path(), port, False, 1, 1, "sqlite", None, None)
    with listen(options, "127.0.0.1") as one, listen(options, "127.0.0.1") as other:
        assert one.getsockname()[1] == port
        assert other.getsockname()[1] > port
        with pytest.raises(StackError, match=f"port {port} is in use; choose another with PORT=…"):
            listen(replace(options, port_was_chosen=True), "127.0.0.1")


def test_work_goes_on_without_redis_and_nothing_needs_a_restart_when_it_is_back() -> None:
    """I1: a dead Redis only delays."""
    with temporary_directory() as directory:
        redis = RedisServer(directory / "redis")
        redis.start()
        port = free_port()  # the default port may be taken by the stack of another test
        with running_stack(PROMPTMILL_REDIS_URL=redis.url, PORT=str(port), WORKERS="1") as stack:
            body = {
                "prompt_name": "hello",
                "variables": {"name": "Ada"},
                "model": {"provider": "simulated", "model_name": "simulated-small"},
            }
            stack.call("PUT", "/v1/prompts/hello", {"template_source": "Say hello to {{ name }}.", "set_active": True})
            assert stack.call("POST", "/v1/executions:run", body)["status"] == "succeeded"
            pids = stack.up["pids"]

            redis.kill()
            submitted = timed(2.0, lambda: stack.call("POST", "/v1/executions:submit", body))
            assert submitted["status"] == "queued"
            timed(5.0, lambda: stack.await_end(f"/v1/executions/{submitted['execution_id']}"))
            assert stack.call("POST", "/v1/executions:run", body)["status"] == "succeeded"
            assert stack.call("GET", "/ready")["status"] == "degraded"

            redis.start()
            wait_until(lambda: stack.call("GET", "/ready")["status"] == "ready", "Redis is seen again")
            assert stack.call("POST", "/v1/executions:run", body)["status"] == "succeeded"
            assert stack.up["pids"] == pids
        redis.kill()


def timed(seconds: float, call: object) -> dict[str, str]:
    assert callable(call)
    started = time.monotonic()
    answer: dict[str, str] = call()
    assert time.monotonic() - started < seconds
    return answer
