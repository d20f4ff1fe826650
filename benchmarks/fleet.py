"""An evaluation by Promptmill itself: the API and a fleet of workers as they are deployed."""

import contextlib
import http.client
import itertools
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from benchmarks import places, registries, stub
from benchmarks.places import KEY, ROOT
from benchmarks.work import INSTRUCTION, MODEL, Evaluated, ticket
from shared import db
from shared.models import Evaluation, Execution, Queue
from tests.servers import wait_until

_BATCHES = (Queue.EXECUTIONS, Queue.OPTIMIZATIONS, Queue.MAINTENANCE)  # of :run, which keeps slots free, there is none
_PROMPT = {
    "messages": [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": "{{ ticket }}"}],
    "model": {"provider": "openai", "model_name": MODEL},
    "set_active": True,
}


class Phases(Evaluated):
    """Milliseconds of each part of `seconds`, by the times in the rows."""

    phases_ms: dict[str, float]


@contextlib.contextmanager
def serving(
    environment: Mapping[str, str], work: Path, *, processes: int, in_flight: int
) -> Iterator[tuple[int, list[int]]]:
    """The port of the API, and the process ids of the workers, once all of them take work."""
    places.run([sys.executable, "-m", "app.admin", "release"], environment)
    with contextlib.ExitStack() as stack:
        _, port = stack.enter_context(registries.serving("app.wsgi:application", environment, work, "gunicorn"))
        workers = [
            stack.enter_context(_worker(environment, work / f"worker-{number}.log", number, in_flight // processes))
            for number in range(processes)
        ]
        api = _Api(port)
        wait_until(lambda: _consumers(api) == processes, "the workers are there", seconds=60)
        api.ask("PUT", "/v1/prompts/triage", _PROMPT)
        yield port, workers


@contextlib.contextmanager
def _worker(environment: Mapping[str, str], log: Path, number: int, slots: int) -> Iterator[int]:
    """As the Procfile starts it, for batch work alone."""
    command = [sys.executable, "-m", "celery", "-q", "-A", "worker.tasks", "worker", "-P", "threads"]
    options = ["-n", f"worker-{number}@%h", "-Q", ",".join(_BATCHES), "--without-gossip", "--without-mingle"]
    given = {**environment, "PROMPTMILL_CONCURRENCY": str(slots)}
    with log.open("wb") as written:
        process = subprocess.Popen([*command, *options], cwd=ROOT, env=given, stdout=written, stderr=written)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def evaluate(*, port: int, stub_port: int, workers: list[int], first: int, cases: int) -> Phases:
    """From the POST until somebody who waits for it hears that it has succeeded. The cases were imported before."""
    api = _Api(port)
    dataset = f"tickets-from-{first}"
    _import(api, dataset, first, cases)
    stub.tally(stub_port)
    used = _cpu_seconds(workers)
    started = time.monotonic()
    body = {"prompt_name": "triage", "dataset": dataset, "scorers": [{"type": "exact_match"}]}
    accepted = api.ask("POST", "/v1/evaluations", body)
    posted = time.monotonic()
    path = f"/v1/evaluations/{accepted['evaluation_id']}"
    seen = api.ask("GET", path, wait_seconds=60)
    seconds = time.monotonic() - started
    assert seen["status"] == "succeeded", seen
    aggregate = seen["aggregate"]
    return {
        "seconds": seconds,
        "right": aggregate["passed"] if aggregate["cached"] == aggregate["missing"] == 0 else 0,
        "cpu_seconds": _cpu_seconds(workers) - used,
        "tally": stub.tally(stub_port),
        "phases_ms": {"post": 1000 * (posted - started), **_phases(seen["evaluation_id"])},
    }


def _import(api: "_Api", dataset: str, first: int, cases: int) -> None:
    rows = [{"inputs": {"ticket": ticket(number)}, "expected": stub.ANSWER} for number in range(first, first + cases)]
    api.ask("POST", "/v1/datasets", {"name": dataset})
    imported = api.ask("POST", f"/v1/datasets/{dataset}/cases", rows)
    assert imported["added"] == cases, imported


def _phases(evaluation_id: str) -> dict[str, float]:
    """`claim`: from the row to the claim of the first call; `calls`: to the end of the last one; `score`: to the end of
    the evaluation."""
    with db.reading() as session:
        evaluation = session.get_one(Evaluation, uuid.UUID(evaluation_id))
        begun, ended = session.execute(
            sa.select(sa.func.min(Execution.started_at), sa.func.max(Execution.completed_at)).where(
                Execution.scope_id == evaluation.id
            )
        ).one()
        times: list[Any] = [evaluation.created_at, begun, ended, evaluation.completed_at]
    names = ("claim", "calls", "score")
    return {
        name: 1000 * (after - before).total_seconds()
        for name, (before, after) in zip(names, itertools.pairwise(times), strict=True)
    }


def _consumers(api: "_Api") -> int:
    return int(api.ask("GET", f"/v1/queues/{Queue.EXECUTIONS}")["consumers"])


def _cpu_seconds(pids: list[int]) -> float:
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


class _Api:
    """One connection that stays open."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def ask(self, method: str, path: str, body: Any = None, *, wait_seconds: int = 0) -> Any:
        headers = {"X-API-Key": os.environ.get("PROMPTMILL_API_KEY", KEY), "Content-Type": "application/json"}
        if wait_seconds:
            headers["Prefer"] = f"wait={wait_seconds}"
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._connection.getresponse()
        text = answer.read()
        assert answer.status < 300, text
        return json.loads(text)
