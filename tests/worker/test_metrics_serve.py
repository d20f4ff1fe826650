"""A worker process serves what it counts, on the port that it is given and nowhere else."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared.domain.tenants import Caller
from shared.models import State
from tests.factories import execution, submit
from tests.servers import RedisServer, free_port, wait_until

ROOT = Path(__file__).parents[2]
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(database: str, broker: RedisServer) -> Iterator[Start]:
    """Starts a worker as the image does, and ends it with the test."""
    started = []

    def start_worker(**settings: str) -> "subprocess.Popen[bytes]":
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges",
            "PROMPTMILL_DRAIN_SECONDS": "0",
            **settings,
        }
        started.append(
            subprocess.Popen(
                ["deploy/run", "worker"], cwd=ROOT, env=environment, stderr=subprocess.PIPE, start_new_session=True
            )
        )
        return started[-1]

    yield start_worker
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def scrape(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_a_worker_serves_the_counters_of_its_own_work(admin: Caller, start: Start) -> None:
    submit(admin, 3)
    port = free_port()

    start(PROMPTMILL_WORKER_METRICS_PORT=str(port))

    done = 'prompt_studio_jobs_completed_total{kind="execution",state="succeeded"} 3.0'
    wait_until(lambda: done in scrape(port), "the worker has counted three jobs", every=0.2)
    text = scrape(port)
    assert 'prompt_studio_job_duration_seconds_count{kind="execution"} 3.0' in text
    assert 'prompt_studio_queue_latency_seconds_count{queue="executions"} 3.0' in text
    assert "process_resident_memory_bytes" in text
    assert "prompt_studio_queue_length" not in text  # the API's: it would count twice


def test_a_worker_whose_port_is_taken_says_so_and_works(admin: Caller, start: Start) -> None:
    (execution_id,) = submit(admin)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        worker = start(PROMPTMILL_WORKER_METRICS_PORT=str(taken.getsockname()[1]), PROMPTMILL_LOG_LEVEL="ERROR")

        wait_until(lambda: execution(execution_id).state == State.SUCCEEDED, "the job is done", every=0.2)
        assert worker.stderr is not None
        line = worker.stderr.readline().decode()

    assert '"event": "metrics_not_served"' in line
    assert "Address already in use" in line
