"""The benchmark of the engine still runs. What it finds is for docs/performance.md, not for a test."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import engine, profiles, stub

ROOT = Path(__file__).parents[2]


def test_a_small_run_measures_every_contender_that_is_installed() -> None:
    report = run("--smoke", "--database", "sqlite")

    (finish,) = report["finish"].values()
    assert report["stub_ceiling_per_s"] > 0
    assert set(finish["per_s"]) == {"sdk_loop", "promptmill", "celery"}
    assert set(report["submit"]["per_s"]) == {"promptmill_http", "promptmill_database", "celery_delay"}
    assert finish["ratio"]["promptmill / sdk_loop"]["median"] > 0


def test_it_measures_a_postgresql_that_is_durable() -> None:
    report = run("--smoke", "--part", "claim")

    durable = ("fsync", "synchronous_commit", "full_page_writes")
    assert [report["machine"][f"postgresql_{name}"] for name in durable] == ["on", "on", "on"]
    assert report["claim"]["large"]["p95_ms"]["median"] >= report["claim"]["large"]["p50_ms"]["median"] > 0


def test_every_part_stands_in_the_documentation() -> None:
    page = (ROOT / "docs/performance.md").read_text()

    assert [part for part in engine.PARTS if f"| `{part}` |" not in page] == []


def test_the_stub_answers_each_request_once_it_is_complete() -> None:
    connection, sent = stub.Connection(stub.Counting()), Sent()
    connection.connection_made(sent)
    request = b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nabcd"

    connection.data_received(request + request[:-1])
    before = sent.answers
    connection.data_received(request[-1:])

    assert (before, sent.answers) == (1, 2)


def test_a_profile_adds_up_the_lines_and_the_threads_of_a_kind() -> None:
    lines = [
        "thread (0x1): slot-3;run (worker/runner.py:10);dumps (json/__init__.py:5) 30",
        "thread (0x2): slot-4;run (worker/runner.py:12) 10",
        "thread (0x3): recorder;execute (sqlalchemy/engine.py:7) 60",
    ]

    found = profiles.summary(lines)

    assert found["by_thread_percent"] == {"recorder": 60.0, "slot": 40.0}
    assert found["self_percent"]["run (worker/runner.py)"] == 10.0
    assert found["cumulative_percent"]["run (worker/runner.py)"] == 40.0


class Sent(asyncio.Transport):
    """A transport that counts the answers written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = 0

    def write(self, data: Any) -> None:
        self.answers += bytes(data).count(b"HTTP/1.1 200 OK")


def run(*options: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.engine", *options], cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=200
    )
    return json.loads(done.stdout)
