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


def test_a_body_over_its_limit_is_a_413_on_the_wire_and_nothing_of_it_is_stored(api: Api, port: int) -> None:
    """One server for all of it: starting one takes longer than asking it."""
    make_prompt(api)
    api.expect(201, "POST", "/v1/datasets", {"name": "big"})
    rows = b"input.text\n" + b"".join(b"%06d%s\n" % (n, b"x" * 150_000) for n in range(200))
    run = json.dumps(run_body(variables={"name": "x" * 5_000_000})).encode()
    row = b'{"inputs": {"text": "x"}}'

    for chunked in (True, False):
        assert post(port, "/v1/datasets/big/cases", rows, "text/csv", chunked=chunked) == (413, [""])
        for _ in range(5):
            assert post(port, "/v1/executions:submit", run, "application/json", chunked=chunked) == (413, [""])
        longer = row + b"\n" * (20_000_001 - len(row))
        assert post(port, "/v1/datasets/big/cases", longer, "application/x-ndjson", chunked=chunked)[0] == 413
        assert (count(TestCase), count(Execution)) == (0, 0)
    assert post(port, "/v1/datasets/big/cases", longer[:-1], "application/x-ndjson", chunked=True)[0] == 201
    assert count(TestCase) == 1
    assert status_line(port, "Content-Length: 5000000", "").startswith("HTTP/1.1 413 ")  # one that never comes
    for garbled in ("ZZ\r\n{}\r\n0\r\n\r\n", "2\r\n{}XX0\r\n\r\n", "2\r\n{}\r\n0\r\nno header\r\n\r\n"):
        assert status_line(port, "Transfer-Encoding: chunked", garbled).startswith("HTTP/1.1 400 ")


def status_line(port: int, header: str, body: str) -> str:
    head = f"POST /v1/projects HTTP/1.1\r\nHost: a\r\nX-API-Key: {API_KEY}\r\n{header}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall((head + body).encode())
        return connection.recv(100).decode()
