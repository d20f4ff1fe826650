"""`python -m app.gate` against the API over real HTTP: what a build sees."""

import json
import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from flask.testing import FlaskClient
from werkzeug.serving import make_server

from tests.judged import evaluate
from tests.servers import wait_until
from tests.support import API_KEY, Api, Drain, evaluation_body, make_triage

ROOT = Path(__file__).parents[2]


@pytest.fixture
def url(api: Api, flask_client: FlaskClient) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, flask_client.application, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def command(url: str) -> Callable[..., "subprocess.Popen[str]"]:
    def begin(*arguments: str, key: str = API_KEY) -> "subprocess.Popen[str]":
        environment = {**os.environ, "PROMPTMILL_URL": url, "PROMPTMILL_API_KEY": key}
        return subprocess.Popen(
            [sys.executable, "-m", "app.gate", *arguments],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return begin


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_a_build_passes_or_fails_by_the_exit_code(
    api: Api, drain: Drain, command: Callable[..., Any], tmp_path: Path
) -> None:
    make_triage(api, cases=10)
    done = evaluate(api, drain)["evaluation_id"]
    report = tmp_path / "gate.xml"

    passed = ended(command(done, "--min-score", "0.1", "--non-inferior-to", done, "--margin", "0.05"))
    failed = ended(command(done, "--min-score", "0.999", "--junit", str(report)))

    assert passed[0] == 0, passed
    assert [line.split()[:2] for line in passed[1].splitlines()] == [
        ["pass", "complete:"], ["pass", "min_score:"], ["pass", "non_inferior:"]
    ]  # fmt: skip
    assert failed[0] == 1, failed
    assert "FAIL  min_score: score" in failed[1]
    (suite,) = ElementTree.parse(report).getroot()
    assert suite.get("failures") == "1"


def test_it_starts_an_evaluation_and_waits_for_it(
    api: Api, drain: Drain, command: Callable[..., Any], tmp_path: Path
) -> None:
    make_triage(api, cases=10)
    body = tmp_path / "evaluation.json"
    body.write_text(json.dumps(evaluation_body()))

    process = command("--start", str(body), "--min-score", "0.1")
    wait_until(lambda: api.get("/v1/evaluations").get_json()["data"], "it is started")
    drain()

    code, out, err = ended(process)
    assert code == 0, err
    assert "pass  min_score" in out


def test_an_answer_that_is_no_http_is_no_verdict(command: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        process = command(str(uuid.uuid4()), "--min-score", "0.5", "--url", f"http://127.0.0.1:{port}")
        with server.accept()[0] as connection:
            connection.recv(65_536)
            connection.sendall(b"of another protocol\r\n\r\n")

        code, _, err = ended(process)

    assert code == 2, err
    assert "no verdict" in err


@pytest.mark.parametrize(
    ("arguments", "key", "said"),
    [
        (["00000000-0000-0000-0000-000000000000", "--min-score", "0.5"], API_KEY, "answered 404"),
        (["00000000-0000-0000-0000-000000000000", "--min-score", "0.5"], "pm_wrong", "answered 401"),
        ([], API_KEY, "give an evaluation's id, or --start"),
        (["--start", "forecast.json", "--min-score", "0.5"], API_KEY, "dry_run"),
    ],
)
def test_without_a_verdict_it_is_neither_passed_nor_failed(
    api: Api, command: Callable[..., Any], tmp_path: Path, arguments: list[str], key: str, said: str
) -> None:
    make_triage(api, cases=10)
    (tmp_path / "forecast.json").write_text(json.dumps(evaluation_body(dry_run=True)))
    arguments = [str(tmp_path / said) if said.endswith(".json") else said for said in arguments]

    code, _, err = ended(command(*arguments, key=key))

    assert code == 2
    assert said in err


def test_what_speaks_no_http_is_no_verdict(command: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = command("--url", f"http://127.0.0.1:{listener.getsockname()[1]}", "some-id", "--min-score", "0.5")
        accepted, _ = listener.accept()
        with accepted:
            accepted.recv(65_536)
            accepted.sendall(b"-ERR unknown command\r\n")

    code, _, err = ended(process)
    assert code == 2, err
    assert "no verdict" in err
