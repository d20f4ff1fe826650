"""Promptmill itself: the API, the domain and the worker as they are deployed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import sqlalchemy as sa

from benchmarks.work import MODEL, Measured, messages
from shared import db
from shared.domain import executions, providers
from shared.domain.executions import NewExecution
from shared.domain.tenants import Caller, authenticate
from shared.models import OPEN_STATES, Execution, Job, Queue, WorkerProcess
from tests.servers import wait_until

WARM = "warm-up"  # the correlation id of what is not counted


def finish(*, jobs: int, concurrency: int) -> Measured:
    """From the first start to the last end, by the rows' own times: one worker, everything queued before."""
    worker = start_worker(concurrency)
    try:
        wait_until(_has_checked_in, "the worker is there")
        enqueue(planned(4 * concurrency, correlation_id=WARM))
        wait_until(_is_idle, "the worker is warm", every=0.1)
        cpu_started = _cpu_seconds(worker.pid)
        enqueue(planned(jobs))
        wait_until(_is_idle, "every job has ended", seconds=600, every=0.1)
        cpu_seconds = _cpu_seconds(worker.pid) - cpu_started
    finally:
        worker.terminate()
        worker.wait()
    return {"count": jobs, "seconds": _span_seconds(jobs), "cpu_seconds": cpu_seconds}


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
    started, cpu_started = time.monotonic(), time.process_time()
    enqueue(new)
    return {
        "count": jobs,
        "seconds": time.monotonic() - started,
        "cpu_seconds": time.process_time() - cpu_started,
    }


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
    assert ended == jobs, f"{ended} of {jobs} succeeded"
    return float((last - first).total_seconds())


def _cpu_seconds(pid: int) -> float:
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)
