"""Claiming in a transaction that holds locks already: it waits for nobody and changes nothing that it does not take."""

from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.domain import leases, queues
from shared.domain.leases import Lease
from shared.domain.tenants import Caller
from shared.models import Budget, Job, Queue, QueueControl, State
from tests.factories import budget, claim, execution, job_of, lease_rows, make_budget, submit


def claim_at_once(*, limit: int = 10) -> list[Lease]:
    with db.transaction() as session:
        return leases.claim_at_once(session, "worker:1", queue=Queue.EXECUTIONS, limit=limit, lease_seconds=60)


def test_it_takes_what_a_claim_takes(admin: Caller) -> None:
    one, two, _ = submit(admin, 3)

    claimed = claim_at_once(limit=2)

    assert [lease.subject_id for lease in claimed] == [one, two]
    assert execution(one).state == job_of(one).state == State.RUNNING
    assert {row.job_id for row in lease_rows()} == {lease.job_id for lease in claimed}


def test_it_reserves_what_fits_and_leaves_the_rest_as_it_is(admin: Caller) -> None:
    bound = execution(submit(admin)[0]).estimate_tokens
    claim()
    budget_id = make_budget(admin, max_tokens=bound + bound // 2)
    submit(admin, 2, budget_id=budget_id)
    poor = make_budget(admin, max_tokens=1)
    (hopeless,) = submit(admin, budget_id=poor)

    claimed = claim_at_once()

    assert len(claimed) == 1
    assert budget(budget_id).reserved_tokens == bound
    with db.reading() as session:
        left = session.scalars(sa.select(Job).where(Job.state == State.QUEUED)).all()
    assert len(left) == 2
    assert {job.blocked_by for job in left} == {None}
    assert job_of(hopeless).state == State.QUEUED  # a claim ends it


@pytest.mark.parametrize("locked", [Budget, QueueControl])
def test_it_waits_for_no_budget_and_no_limit_that_another_holds(admin: Caller, locked: type[Any]) -> None:
    """A claim locks both before all else; who comes to them with other locks in hand might wait in a circle."""
    submit(admin, budget_id=make_budget(admin, max_tokens=1_000_000))
    with db.transaction() as session:
        queues.limit(session, Queue.EXECUTIONS, 5, workspace_id=admin.workspace_id, actor="test")

    with db.engine().connect() as other:
        other.execute(sa.select(locked.__table__).with_for_update())
        has_rows_locked = other.dialect.name == "postgresql"  # SQLite has one lock for all who write, and none here
        beside = claim_at_once()
    afterwards = claim_at_once()

    assert [len(beside), len(afterwards)] == ([0, 1] if has_rows_locked else [1, 0])


def test_nothing_is_taken_from_a_paused_queue_nor_past_the_limit_of_one(admin: Caller) -> None:
    submit(admin, 3)
    with db.transaction() as session:
        queues.limit(session, Queue.EXECUTIONS, 2, workspace_id=admin.workspace_id, actor="test")

    within = claim_at_once()
    with db.transaction() as session:
        queues.act(session, Queue.EXECUTIONS, "pause", workspace_id=admin.workspace_id, actor="test")

    assert len(within) == 2
    assert claim_at_once() == []
