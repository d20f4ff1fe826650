"""A bulk operation whose workers die, sleep or stumble anywhere: each item is done exactly once, or fails alone."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared import db
from shared.domain import bulk, leases
from shared.domain.bulk import BulkRequest
from shared.domain.bulk_verbs import VERBS, Applied, Verb, Wanted
from shared.domain.leases import Lease
from shared.domain.tenants import Caller
from shared.errors import Conflict
from shared.models import BulkItem, BulkOperation, Event, Job, Prompt, Queue, State, Version
from tests.domain.test_leases_machine import dying_after
from tests.factories import claim, do_duties, expire_leases, lease_rows, sweep
from tests.rows import count, event_data
from tests.servers import wait_until
from tests.support import Drain
from worker.recording import record
from worker.runner import Runner
from worker.tasks import STEPS


def submit(caller: Caller, count: int, operation: str = "create", **fields: Any) -> Any:
    items = [
        (f"/items/{number}", {"name": f"p{number:04}", "template_source": f"Text {number}", **fields})
        for number in range(count)
    ]
    with db.transaction() as session:
        plan = bulk.plan_operation(session, caller, BulkRequest(operation, items))
        return bulk.create_operation(session, caller, plan).id


def operation_of(operation_id: Any) -> BulkOperation:
    with db.reading() as session:
        return session.get_one(BulkOperation, operation_id)


def take() -> list[Lease]:
    return claim(queue=Queue.MAINTENANCE)


def what_was_done() -> dict[str, int]:
    """By prompt, how many versions its events tell of; and its rows must agree."""
    with db.reading() as session:
        versions = dict(
            session.execute(
                sa.select(Prompt.name, sa.func.count(Version.id))
                .join(Version, Version.prompt_id == Prompt.id)
                .group_by(Prompt.name)
            ).all()
        )
        told = dict(
            session.execute(
                sa.select(Prompt.name, sa.func.count(Event.id))
                .join(Event, Event.subject_id == Prompt.id)
                .where(Event.type == "prompt.version_created")
                .group_by(Prompt.name)
            ).all()
        )
    assert told == versions
    return versions


def states() -> list[str]:
    with db.reading() as session:
        return list(session.scalars(sa.select(BulkItem.state).order_by(BulkItem.ordinal)))


def test_a_death_before_any_statement_of_a_page_repeats_nothing_and_loses_nothing(
    admin: Caller, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "PAGE", 2)
    operation_id = submit(admin, 4)
    deaths, done = 0, 0

    for statements in range(200):  # one more each time, until the page goes through
        (lease,) = take()
        outcome = drain.outcome(lease)
        with dying_after(statements):
            record(STEPS, [(lease, outcome)])
        done = operation_of(operation_id).succeeded
        assert len(what_was_done()) == done in (0, 2)
        if done:
            break
        deaths += 1
        db.offset_clock(db._clock_offset_seconds + 61)
        with db.transaction() as session:  # a loss a time would end the job; here only the page is watched
            sweep_and_forgive(session)

    drain()
    assert deaths > 20
    assert what_was_done() == {f"p{number:04}": 1 for number in range(4)}
    assert (operation_of(operation_id).state, states()) == (State.SUCCEEDED, ["succeeded"] * 4)
    assert len(event_data("bulk.succeeded")) == 1


def sweep_and_forgive(session: Session) -> None:
    leases.sweep(session)
    session.execute(sa.update(Job).values(losses=0))


def test_a_worker_that_dies_between_two_pages_is_followed_by_another(admin: Caller, drain: Drain) -> None:
    operation_id = submit(admin, 3 * bulk.PAGE)
    drain(most=1)
    (lost,) = take()
    expire_leases()
    sweep()

    assert lost.step_no == 2
    assert operation_of(operation_id).succeeded == bulk.PAGE
    drain()

    assert operation_of(operation_id).state == State.SUCCEEDED
    assert what_was_done() == {f"p{number:04}": 1 for number in range(3 * bulk.PAGE)}


def test_a_worker_that_slept_writes_nothing_once_another_has_done_its_page(admin: Caller, drain: Drain) -> None:
    operation_id = submit(admin, bulk.PAGE + 1, "create")
    (asleep,) = take()
    late = drain.outcome(asleep)
    expire_leases()
    sweep()
    drain()

    record(STEPS, [(asleep, late)])

    assert what_was_done() == {f"p{number:04}": 1 for number in range(bulk.PAGE + 1)}
    assert operation_of(operation_id).succeeded == bulk.PAGE + 1
    assert lease_rows() == []


def test_a_page_whose_commit_was_heard_too_late_is_not_done_again(admin: Caller, drain: Drain) -> None:
    operation_id = submit(admin, 2)
    (lease,) = take()
    outcome = drain.outcome(lease)
    record(STEPS, [(lease, outcome)])

    record(STEPS, [(lease, outcome)])

    assert what_was_done() == {"p0000": 1, "p0001": 1}
    assert operation_of(operation_id).succeeded == 2


def test_an_operation_without_an_open_job_is_started_again_by_the_sweep(admin: Caller, drain: Drain) -> None:
    """Nothing in the code leaves one like that; a restore from a backup might."""
    operation_id = submit(admin, bulk.PAGE + 1)
    drain(most=1)
    with db.transaction() as session:
        session.execute(sa.delete(Job).where(Job.state == State.QUEUED))

    do_duties()
    do_duties()
    assert count(Job) == 2
    drain()

    assert operation_of(operation_id).state == State.SUCCEEDED
    assert len(what_was_done()) == bulk.PAGE + 1


def test_nothing_stays_of_an_item_that_is_refused_after_it_has_written(
    admin: Caller, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    creating = VERBS["create"]

    def write_and_refuse(session: Session, caller: Caller, wanted: Wanted) -> Applied:
        made = creating.apply(session, caller, wanted)
        if made.prompt.name == "p0001":
            raise Conflict("too late")
        return made

    monkeypatch.setitem(cast("dict[str, Verb]", VERBS), "create", replace(creating, apply=write_and_refuse))
    submit(admin, 3)

    drain()

    assert states() == ["succeeded", "failed", "succeeded"]
    assert what_was_done() == {"p0000": 1, "p0002": 1}
    assert len(event_data("prompt.created")) == 2


@contextlib.contextmanager
def running() -> Iterator[Runner]:
    runner = Runner(STEPS, queues=(Queue.MAINTENANCE,), concurrency=2, sweep=lambda: None)
    runner.start()
    try:
        yield runner
    finally:
        runner.stop(grace_seconds=5)


@pytest.mark.parametrize("damage", [{"template_source": 5}, {"project": [1]}], ids=["when read", "when done"])
def test_an_error_that_no_item_gives_fails_one_item_and_not_its_page(admin: Caller, damage: dict[str, Any]) -> None:
    """A row that was damaged, or a bug: the page is tried again item by item."""
    operation_id = submit(admin, 6)
    with db.transaction() as session:
        item = session.get_one(BulkItem, (operation_id, 3))
        item.payload = {**item.payload, **damage}

    with running():
        wait_until(lambda: operation_of(operation_id).state == State.SUCCEEDED, "all items are through")

    with db.reading() as session:
        failed = session.get_one(BulkItem, (operation_id, 3))
    assert states() == ["succeeded"] * 3 + ["failed"] + ["succeeded"] * 2
    assert failed.error["code"] == "internal_error"
    assert "has no attribute" not in str(failed.error)
    assert what_was_done() == {f"p{number:04}": 1 for number in (0, 1, 2, 4, 5)}


def test_a_fleet_of_two_does_two_operations_on_the_same_prompts(admin: Caller) -> None:
    """Their pages lock the same rows in opposite orders; whoever is in the way is tried again."""
    submit(admin, 40)
    with running():
        wait_until(lambda: count(Prompt) == 40, "the prompts are there")
        forward = [(f"/items/{n}", {"name": f"p{n:04}", "add": ["forward"]}) for n in range(40)]
        with db.transaction() as session:
            ids = [
                bulk.create_operation(session, admin, bulk.plan_operation(session, admin, BulkRequest("tag", items))).id
                for items in (forward, [(where, {**fields, "add": ["back"]}) for where, fields in forward[::-1]])
            ]
        with running():
            wait_until(lambda: all(operation_of(id_).succeeded == 40 for id_ in ids), "both are through", seconds=60)

    with db.reading() as session:
        assert all(sorted(tags) == ["back", "forward"] for tags in session.scalars(sa.select(Prompt.tags)))
