"""PATCH /v1/queues/{name}: so many jobs of a queue at once, over the whole fleet, whoever claims."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.domain import leases
from shared.domain.tenants import Caller
from shared.models import Queue, Role
from tests.factories import claim, expire_leases, lease_rows, submit, sweep
from tests.rows import event_data, everything
from tests.servers import wait_until
from tests.support import Api, Drain, pointers, waits_for_a_lock


def limit(api: Api, max_running: int | None, queue: str = "executions") -> Any:
    return api.expect(200, "PATCH", f"/v1/queues/{queue}", {"max_running": max_running})


def test_workers_together_run_no_more_jobs_of_a_queue_than_its_limit(api: Api, admin: Caller, drain: Drain) -> None:
    submit(admin, 10)
    submit(admin, 2, queue=Queue.INTERACTIVE)
    limit(api, 3)

    first, second, third = claim("worker:1", limit=2), claim("worker:2", limit=5), claim("worker:3")
    other_queue = claim("worker:3", queue=Queue.INTERACTIVE)
    drain.run(first[0])
    after_one_has_ended = claim("worker:3")

    assert [len(first), len(second), len(third), len(other_queue)] == [2, 1, 0, 2]
    assert len(after_one_has_ended) == 1


def test_claimers_that_race_for_the_last_places_never_pass_the_limit_together(api: Api, admin: Caller) -> None:
    submit(admin, 40)
    limit(api, 5)
    start = threading.Barrier(8)
    claimed: list[leases.Lease] = []

    def work(number: int) -> None:
        start.wait()
        claimed.extend(claim(f"worker:{number}", limit=4))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(claimed) == len(lease_rows()) == 5


def test_a_claim_waits_for_the_one_that_is_under_way_and_counts_what_it_took(api: Api, admin: Caller) -> None:
    """Deterministic: the second claim begins while the first has not committed."""
    submit(admin, 4)
    limit(api, 2)
    claimed: list[leases.Lease] = []
    second = threading.Thread(target=lambda: claimed.extend(claim("worker:2", limit=2)))

    with db.transaction() as session:
        first = leases.claim(session, "worker:1", queue=Queue.EXECUTIONS, limit=2, lease_seconds=60).leases
        second.start()
        wait_until(lambda: waits_for_a_lock() or not second.is_alive(), "the second claim waits or ends")
    second.join()

    assert (len(first), claimed) == (2, [])


def test_a_queue_that_is_full_is_not_offered_and_asks_for_no_second_look(api: Api, admin: Caller) -> None:
    """Else a worker would spin on it, or hold other work back for a job that it cannot have."""
    submit(admin, 3)
    limit(api, 1)
    with db.transaction() as session:
        taken = leases.claim(session, "worker:1", queue=Queue.EXECUTIONS, limit=5, lease_seconds=60)
        again = leases.claim(session, "worker:1", queue=Queue.EXECUTIONS, limit=5, lease_seconds=60)
        waiting = leases.waiting(session, list(Queue))

    assert (len(taken.leases), again.leases, again.more) == (1, [], False)
    assert waiting.queues == frozenset()


def test_a_limit_below_what_runs_stops_nothing_and_lets_nothing_start(api: Api, admin: Caller) -> None:
    submit(admin, 4)
    running = claim(limit=3)

    shown = limit(api, 1)

    assert (shown["running"], shown["queued"], shown["max_running"]) == (3, 1, 1)
    assert claim("worker:2") == []
    assert len(lease_rows()) == len(running)


def test_a_place_is_free_again_once_the_sweep_has_taken_a_dead_workers_lease(api: Api, admin: Caller) -> None:
    submit(admin, 2)
    limit(api, 1)
    claim("worker:1")
    expire_leases()
    before = claim("worker:2")

    sweep()

    assert before == []
    assert len(claim("worker:2")) == 1


def test_without_the_limit_all_slots_may_be_used_again(api: Api, admin: Caller) -> None:
    submit(admin, 5)
    limit(api, 1)
    claim()

    limit(api, None)

    assert len(claim()) == 4
    assert event_data("queue.limited") == [
        {"queue": "executions", "max_running": 1},
        {"queue": "executions", "max_running": None},
    ]


def test_a_claim_takes_no_lock_of_a_queue_without_a_limit(api: Api, admin: Caller) -> None:
    """The row is there, for the queue was paused once; claims must not queue up behind it."""
    submit(admin, 2)
    for action in ("pause", "resume"):
        api.expect(200, "POST", f"/v1/queues/executions/{action}")
    statements: list[str] = []
    engine = db.engine()

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        claim()
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)

    of_queues = [statement for statement in statements if "FROM queues" in statement]
    assert len(of_queues) == 1
    assert "FOR UPDATE" not in of_queues[0]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/max_running"),
        ({"max_running": 0}, "/max_running"),
        ({"max_running": -1}, "/max_running"),
        ({"max_running": 1_000_001}, "/max_running"),
        ({"max_running": "5"}, "/max_running"),
        ({"max_running": True}, "/max_running"),
        ({"max_running": 5, "paused": True}, "/paused"),
    ],
)
def test_a_limit_is_a_whole_number_of_jobs_or_null(api: Api, body: Any, pointer: str) -> None:
    before = everything()

    answer = api.request("PATCH", "/v1/queues/executions", body)

    assert (answer.status_code, pointers(answer)) == (422, [pointer])
    assert everything() == before


def test_only_those_who_operate_the_fleet_may_limit_a_queue(api: Api, as_user: Callable[..., Api]) -> None:
    others = [as_user(role=Role.EDITOR), as_user(workspace="elsewhere", role=Role.ADMIN)]
    before = everything()

    statuses = [other.request("PATCH", "/v1/queues/executions", {"max_running": 1}).status_code for other in others]

    assert statuses == [403, 403]
    assert everything() == before
