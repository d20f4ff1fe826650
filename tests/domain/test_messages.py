"""Doorbells: they leave after the commit, and no caller ever waits for Redis (I1)."""

import base64
import json
import os
import signal
import time

import pytest

from shared import db, messages
from shared.domain import jobs
from shared.domain.tenants import Caller
from shared.models import JobKind, Queue
from tests.factories import job_of, submit
from tests.servers import RedisServer, wait_until


def rung(queue: Queue) -> list[list[int]]:
    """The job ids of each message that waits in a Celery queue, oldest first."""
    raw = messages.client().lrange(queue.value, 0, -1)
    bodies = [json.loads(message)["body"] for message in reversed(raw)]  # type: ignore[arg-type]
    return [json.loads(base64.b64decode(body))[0][0] for body in bodies]


def test_submitting_rings_with_the_ids_of_the_new_jobs_in_their_queue(admin: Caller, broker: RedisServer) -> None:
    ids = submit(admin, 3)
    submit(admin, 1, queue=Queue.INTERACTIVE)

    wait_until(lambda: rung(Queue.EXECUTIONS) and rung(Queue.INTERACTIVE), "both messages are there")

    assert rung(Queue.EXECUTIONS) == [[job_of(execution_id).id for execution_id in ids]]
    assert len(rung(Queue.INTERACTIVE)) == 1


def test_a_message_names_at_most_32_jobs_and_a_bulk_submit_rings_for_its_first_thousand(
    admin: Caller, broker: RedisServer
) -> None:
    submit(admin, 1100)

    wait_until(lambda: len(rung(Queue.EXECUTIONS)) == 32, "all messages are there")

    sizes = [len(ids) for ids in rung(Queue.EXECUTIONS)]
    assert max(sizes) == 32
    assert sum(sizes) == 1024  # the message that holds the thousandth is sent whole


def test_a_transaction_that_rolls_back_rings_for_nothing(admin: Caller, broker: RedisServer) -> None:
    def enqueue_and_fail() -> None:
        with db.transaction() as session:
            jobs.enqueue(session, [jobs.NewJob(admin.workspace_id, JobKind.EXECUTION, Queue.DELIVERIES, admin.user_id)])
            raise RuntimeError("never mind")

    with pytest.raises(RuntimeError, match="never mind"):
        enqueue_and_fail()
    submit(admin, 1)

    wait_until(lambda: rung(Queue.EXECUTIONS), "a later message is there")
    assert rung(Queue.DELIVERIES) == []


def test_a_hung_redis_delays_no_caller_and_is_used_again_when_it_answers(admin: Caller, broker: RedisServer) -> None:
    assert broker._process is not None
    os.kill(broker._process.pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        submit(admin, 1)
        waited = time.monotonic() - started
    finally:
        os.kill(broker._process.pid, signal.SIGCONT)

    def rings_again() -> bool:
        messages.ring(Queue.MAINTENANCE, [7])
        return [7] in rung(Queue.MAINTENANCE)

    assert waited < 1.0
    wait_until(rings_again, "messages go out again", every=0.2)
