"""Worker processes that are killed, not stopped, while judges are asked: no call is lost, none is paid twice."""

import contextlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from shared import db
from shared.config import settings
from shared.models import Execution, State, WorkItem
from shared.scoring.scores import text_of
from tests.judged import EMBEDDING, JUDGE, read, results
from tests.servers import ProviderServer, wait_until
from tests.support import Api, evaluation_body, make_triage

ROOT = Path(__file__).parents[2]
CASES, CONCURRENCY, KILLS = 20, 4, 3
QUICK = {"PROMPTMILL_JOB_LEASE_SECONDS": "2", "PROMPTMILL_POLL_SECONDS": "0.1", "PROMPTMILL_SWEEP_SECONDS": "0.2"}
WORKER = f"""
import threading
from shared.models import Queue
from worker import maintenance
from worker.runner import Runner
from worker.tasks import STEPS

queues = [Queue.OPTIMIZATIONS, Queue.EXECUTIONS]
Runner(STEPS, queues=queues, concurrency={CONCURRENCY}, sweep=maintenance.sweep_if_late).start()
threading.Event().wait()
"""


@contextlib.contextmanager
def worker(provider: ProviderServer) -> Iterator["subprocess.Popen[bytes]"]:
    """A process of its own, killed at the end as by the kernel."""
    environment = {**os.environ, **QUICK, "OPENAI_BASE_URL": provider.base_url}
    process = subprocess.Popen([sys.executable, "-c", WORKER], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def answered(*purposes: str) -> int:
    with db.reading() as session:
        return (
            session.scalar(
                sa.select(sa.func.count())
                .select_from(Execution)
                .where(Execution.purpose.in_(purposes), Execution.state == State.SUCCEEDED)
            )
            or 0
        )


def test_a_judged_evaluation_survives_the_death_of_its_workers_and_pays_nothing_twice(
    api: Api, provider: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.cache_clear()
    provider.set_latency(40)
    calls_before = Counter(entry["execution_id"] for entry in provider.log())
    make_triage(api, cases=CASES)
    openai = {"provider": "openai"}
    scorers = [
        {**JUDGE, "model": {**openai, "model_name": "gpt-4o-mini"}, "votes": 2},
        {**EMBEDDING, "model": {**openai, "model_name": "text-embedding-3-small"}},
    ]
    model = {**openai, "model_name": "gpt-4o-mini"}
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body(scorers=scorers, model=model, fresh=True))

    kills = 0
    for purposes in (("evaluation",), ("judge", "embedding"), ("judge", "embedding")):
        before = answered(*purposes)
        with worker(provider):
            wait_until(lambda b=before, p=purposes: answered(*p) > b, "some are answered", seconds=60)
        kills += 1
        assert read(api, started)["status"] in ("queued", "running"), "killed too late to show anything"
    with worker(provider):
        wait_until(lambda: read(api, started)["status"] == "succeeded", "it is through", seconds=120)

    done = read(api, started)
    with db.reading() as session:
        executions = {
            str(row.id): row for row in session.execute(sa.select(Execution.id, Execution.ambiguous_attempts))
        }
        units = session.scalar(sa.select(sa.func.count()).where(WorkItem.kind != "evaluate"))
    made = Counter(entry["execution_id"] for entry in provider.log()) - calls_before
    repeated = sum(times - 1 for times in made.values())
    assert done["aggregate"]["cases"] == CASES
    alike = sum(row["output"] == text_of(row["expected"]) for row in results(api, done))
    assert units == CASES * 4 - alike  # two votes and two embeddings, which are one where the two texts are
    assert set(made) == set(executions)  # each was called, and nothing else
    assert repeated <= CONCURRENCY * kills  # those in flight at a kill, and no other (I4)
    assert repeated <= sum(row.ambiguous_attempts for row in executions.values()) == done["spent"]["ambiguous_attempts"]
    assert done["aggregate"]["scored"] + done["aggregate"]["missing"] == CASES
    assert done["aggregate"]["scored"] > CASES / 2
