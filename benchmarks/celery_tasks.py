"""The same call as plain Celery tasks on Redis: no result, no durability, no database.

Celery's own defaults where they are the faster choice (early acknowledgement, prefetching), and no events.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import openai
import redis
from celery import Celery

from benchmarks.work import MODEL, Clock, Measured, messages
from tests.servers import wait_until

GATED = "bench"  # nobody consumes it until the gate is opened

app = Celery("benchmarks", broker=os.environ["PROMPTMILL_REDIS_URL"])
app.conf.update(
    task_ignore_result=True, task_default_queue="warm", worker_send_task_events=False, worker_hijack_root_logger=False
)
_client = openai.OpenAI(max_retries=0)
_lock = threading.Lock()
_clock: Clock | None = None  # made when the first counted task begins
_ended = 0


@app.task(name="benchmarks.ask")
def ask(number: int, content: list[Any], count: int = 0) -> None:
    """One call. The last of `count` counted ones reports how long all of them took."""
    global _clock, _ended
    if count and _clock is None:
        with _lock:
            _clock = _clock or Clock()
    answer = _client.chat.completions.create(model=MODEL, messages=content)
    assert answer.choices[0].message.content is not None
    with _lock:
        _ended += 1
        if count and _ended == count and _clock is not None:
            _report().write_text(json.dumps(_clock.measured(count)))
        if not count:
            _ended = 0


def finish(*, jobs: int, concurrency: int) -> Measured:
    broker = redis.Redis.from_url(os.environ["PROMPTMILL_REDIS_URL"])
    broker.flushall()
    _report().unlink(missing_ok=True)
    worker = _start_worker(concurrency)
    try:
        for number in range(4 * concurrency):
            ask.delay(number, messages(number))
        wait_until(lambda: broker.llen("warm") == 0 and bool(app.control.ping(timeout=0.5)), "the worker is warm")
        for number in range(jobs):
            ask.apply_async((number, messages(number), jobs), queue=GATED)
        app.control.add_consumer(GATED, reply=True)
        wait_until(_report().exists, "all tasks have ended", seconds=600)
    finally:
        worker.terminate()
        worker.wait()
    wait_until(lambda: _report().read_text() != "", "the report is written")
    measured: Measured = json.loads(_report().read_text())
    return measured


def submit(*, jobs: int) -> Measured:
    """`.delay` in a loop; nobody consumes."""
    redis.Redis.from_url(os.environ["PROMPTMILL_REDIS_URL"]).flushall()
    ask.delay(0, messages(0))
    clock = Clock()
    for number in range(jobs):
        ask.delay(number, messages(number))
    return clock.measured(jobs)


def _report() -> Path:
    return Path(os.environ["PROMPTMILL_HOME"]) / "celery.json"


def _start_worker(concurrency: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "celery", "-q", "-A", "benchmarks.celery_tasks", "worker", "-P", "threads"]
    options = ["-c", str(concurrency), "-Q", "warm", "--without-gossip", "--without-mingle", "-l", "warning"]
    with Path(os.environ["PROMPTMILL_HOME"], "celery.log").open("wb") as log:
        return subprocess.Popen([*command, *options], stdout=log, stderr=log)
