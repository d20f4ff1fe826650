"""A body over the limit is a 413 over a real connection: announced or chunked, and whatever the client."""

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.domain.tenants import Caller
from shared.models import Execution, TestCase
from tests.rows import count
from tests.servers import free_port, wait_until
from tests.support import API_KEY, Api, make_prompt, run_body

ROOT = Path(__file__).resolve().parents[2]
KEY = {"X-API-Key": API_KEY}


@pytest.fixture
def port(admin: Caller, database: str, tmp_path: Path) -> Iterator[int]:
    """Where the API answers, started as a deployment starts it."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-c", "deploy/gunicorn.conf.py", "app.wsgi:application"],
        cwd=ROOT,
        env={
            **os.environ,
            "PORT": str(port),
            "PROMPTMILL_WEB_PROCESSES": "1",
            "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
        },
    )
    wait_until(lambda: process.poll() is not None or _listens(port), "the API listens")
    yield port
    process.terminate()
    process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def post(port: int, path: str, body: bytes, kind: str, *, chunked: bool) -> tuple[int, list[str]]:
    """(status, pointers) that Python's own client gets, which reads no answer before it has sent everything."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    pieces = (body[start : start + 65_536] for start in range(0, len(body), 65_536))
    connection.request("POST", path, pieces if chunked else body, {**KEY, "Content-Type": kind}, encode_chunked=chunked)
    answer = connection.getresponse()
    problem = json.loads(answer.read())
    connection.close()
    return answer.status, [error["pointer"] for error in problem.get("errors", [])]


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_over_the_limit_is_a_413_and_nothing_of_it_is_stored(api: Api, port: int, chunked: bool) -> None:
    make_prompt(api)
    api.expect(201, "POST", "/v1/datasets", {"name": "big"})
    rows = b"input.text\n" + b"".join(b"%06d%s\n" % (n, b"x" * 150_000) for n in range(200))
    run = json.dumps(run_body(variables={"name": "x" * 5_000_000})).encode()

    csv = post(port, "/v1/datasets/big/cases", rows, "text/csv", chunked=chunked)
    runs = [post(port, "/v1/executions:submit", run, "application/json", chunked=chunked) for _ in range(5)]

    assert [csv, *runs] == [(413, [""])] * 6
    assert (count(TestCase), count(Execution)) == (0, 0)


@pytest.mark.parametrize(("more", "status"), [(0, 201), (1, 413)])
def test_the_limit_of_a_chunked_body_is_exact(api: Api, port: int, more: int, status: int) -> None:
    api.expect(201, "POST", "/v1/datasets", {"name": "big"})
    row = b'{"inputs": {"text": "x"}}'

    answer = post(
        port,
        "/v1/datasets/big/cases",
        row + b"\n" * (20_000_000 - len(row) + more),
        "application/x-ndjson",
        chunked=True,
    )

    assert answer[0] == status
    assert count(TestCase) == 1 - more


def test_an_answer_does_not_wait_long_for_a_body_that_never_comes(port: int) -> None:
    head = f"POST /v1/prompts HTTP/1.1\r\nHost: a\r\nX-API-Key: {API_KEY}\r\nContent-Length: 5000000\r\n\r\n"

    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head.encode())
        answer = connection.recv(100)

    assert answer.startswith(b"HTTP/1.1 413 ")
