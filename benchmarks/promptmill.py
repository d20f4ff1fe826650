"""Promptmill itself: the API, the domain and the worker as they are deployed."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks import profiles
from benchmarks.work import MODEL, Clock, Measured, messages
from shared import db
from shared.domain import executions, providers
from shared.domain.executions import NewExecution
from shared.domain.tenants import Caller, authenticate
from shared.models import OPEN_STATES, Execution, Job, Queue, WorkerProcess
from tests.servers import free_port, wait_until

PROMPT = {
    "messages": [{"role": "system", "content": messages(0)[0]["content"]}, {"role": "user", "content": "{{ ticket }}"}],
    "model": {"provider": "openai", "model_name": MODEL},
    "set_active": True,
}
CLIENTS = 2  # each with one batch: a process of the API for each
WARM = "warm-up"  # the correlation id of what is not counted


def finish(*, jobs: int, concurrency: int) -> Measured:
    """From the first start to the last end, by the rows' own times: one worker, everything queued before."""
    with _warm_worker(concurrency) as worker:
        enqueue(planned(jobs))
        clock = Clock(worker)
        _await_idle()
        return clock.measured(jobs, seconds=_span_seconds(jobs))


def profile(*, jobs: int, concurrency: int) -> dict[str, Any]:
    """Where the worker's time goes meanwhile."""
    with _warm_worker(concurrency) as worker:
        output = Path(os.environ["PROMPTMILL_HOME"], "worker.profile")
        enqueue(planned(jobs))
        return profiles.sampled(worker, _await_idle, output)


@contextlib.contextmanager
def _warm_worker(concurrency: int) -> Iterator[int]:
    """The process id of a worker that has its threads and connections."""
    worker = start_worker(concurrency)
    try:
        wait_until(_has_checked_in, "the worker is there")
        enqueue(planned(4 * concurrency, correlation_id=WARM))
        wait_until(_is_idle, "the worker is warm", every=0.1)
        yield worker.pid
    finally:
        worker.terminate()
        worker.wait()


def _await_idle() -> None:
    wait_until(_is_idle, "every job has ended", seconds=600, every=0.1)


def start_worker(concurrency: int) -> "subprocess.Popen[bytes]":
    """As the Procfile does, for one queue. Its log goes to a file, with a line for each execution."""
    command = [sys.executable, "-m", "celery", "-q", "-A", "worker.tasks", "worker", "-P", "threads"]
    options = ["-Q", str(Queue.EXECUTIONS), "--without-gossip", "--without-mingle"]
    environment = {**os.environ, "PROMPTMILL_CONCURRENCY": str(concurrency)}
    with Path(os.environ["PROMPTMILL_HOME"], "worker.log").open("wb") as log:
        return subprocess.Popen([*command, *options], stdout=log, stderr=log, env=environment)


def planned(jobs: int, *, correlation_id: str | None = None) -> list[NewExecution]:
    """Executions as the API plans them: resolved, rendered, hashed."""
    with db.reading() as session:
        who = caller()
        quote = providers.quote(session, "openai", MODEL)
    return [
        NewExecution(
            workspace_id=who.workspace_id,
            model=quote,
            params={},
            messages=messages(number),
            variables={"number": number},
            correlation_id=correlation_id,
            created_by=who.user_name,
        )
        for number in range(jobs)
    ]


def caller() -> Caller:
    with db.transaction() as session:
        return authenticate(session, os.environ["PROMPTMILL_API_KEY"])


def enqueue(new: list[NewExecution]) -> None:
    with db.transaction() as session:
        executions.submit_many(session, new, queue=Queue.EXECUTIONS)


def submit(*, jobs: int) -> Measured:
    """The database part of a bulk submit: one transaction, commit included."""
    enqueue(planned(100))
    new = planned(jobs)
    clock = Clock()
    enqueue(new)
    return clock.measured(jobs)


def submit_over_http(*, jobs: int) -> Measured:
    """The same through the API, with its two processes; nobody consumes."""
    port = free_port()
    server = _start_api(port)
    try:
        wait_until(lambda: _is_up(port), "the API answers")
        _ask(port, "PUT", "/v1/prompts/triage", PROMPT)
        submit_share = partial(_submit_batch, port)
        submit_share(range(100))
        with ThreadPoolExecutor(CLIENTS) as pool:
            clock = Clock(server.pid)
            list(pool.map(submit_share, [range(first, jobs, CLIENTS) for first in range(CLIENTS)]))
            return clock.measured(jobs)
    finally:
        server.terminate()
        server.wait()


def _submit_batch(port: int, numbers: Sequence[int]) -> None:
    items = [{"variables": {"ticket": messages(number)[1]["content"]}} for number in numbers]
    _ask(port, "POST", "/v1/executions:batch", {"prompt_name": "triage", "items": items})


def _ask(port: int, method: str, path: str, body: Any) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    headers = {"X-API-Key": os.environ["PROMPTMILL_API_KEY"], "Content-Type": "application/json"}
    connection.request(method, path, json.dumps(body), headers)
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status < 300, text


def _start_api(port: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "gunicorn", "-c", "deploy/gunicorn.conf.py", "app.wsgi:application"]
    with Path(os.environ["PROMPTMILL_HOME"], "api.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PORT": str(port)})


def _is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _has_checked_in() -> bool:
    with db.reading() as session:
        return session.scalar(sa.select(WorkerProcess.owner)) is not None


def _is_idle() -> bool:
    with db.reading() as session:
        return not session.scalar(sa.select(sa.exists().where(Job.state.in_(OPEN_STATES))))


def _span_seconds(jobs: int) -> float:
    with db.reading() as session:
        first, last, ended = session.execute(
            sa.select(sa.func.min(Execution.started_at), sa.func.max(Execution.completed_at), sa.func.count()).where(
                Execution.correlation_id.is_(None), Execution.state == "succeeded"
            )
        ).one()
    if first is None or last is None or ended != jobs:
        raise AssertionError(f"{ended} of {jobs} succeeded")
    return float((last - first).total_seconds())
