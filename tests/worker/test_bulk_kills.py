"""Worker processes that are killed, not stopped, while they do a bulk operation: nothing is lost or done twice."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from shared.domain.tenants import Caller
from shared.models import State
from tests.servers import wait_until
from tests.worker.test_bulk_deaths import operation_of, states, submit, what_was_done

ROOT = Path(__file__).parents[2]
ITEMS = 600
QUICK = {"PROMPTMILL_JOB_LEASE_SECONDS": "1", "PROMPTMILL_POLL_SECONDS": "0.1", "PROMPTMILL_SWEEP_SECONDS": "0.2"}
WORKER = """
import threading
from shared.models import Queue
from worker import maintenance
from worker.runner import Runner
from worker.tasks import STEPS

Runner(STEPS, queues=[Queue.MAINTENANCE], concurrency=2, sweep=maintenance.sweep_if_late).start()
threading.Event().wait()
"""


@contextlib.contextmanager
def worker() -> Iterator["subprocess.Popen[bytes]"]:
    """A process of its own, killed at the end as by the kernel."""
    process = subprocess.Popen([sys.executable, "-c", WORKER], cwd=ROOT, env={**os.environ, **QUICK})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_every_item_is_done_once_although_its_workers_are_killed(admin: Caller) -> None:
    operation_id = submit(admin, ITEMS)
    seen = []

    for _ in range(3):
        before = operation_of(operation_id).succeeded
        with worker():
            wait_until(lambda before=before: operation_of(operation_id).succeeded > before, "it goes on", seconds=60)
        seen.append(operation_of(operation_id).succeeded)
        assert len(what_was_done()) == seen[-1] < ITEMS, "killed too late to show anything"
    with worker():
        wait_until(lambda: operation_of(operation_id).state == State.SUCCEEDED, "it is through", seconds=120)

    assert what_was_done() == {f"p{number:04}": 1 for number in range(ITEMS)}
    assert states() == ["succeeded"] * ITEMS
    assert seen == sorted(set(seen))
