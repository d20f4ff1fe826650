"""Heartbeats: what is renewed, what is lost, and what is heard of on the way."""

from shared import db
from shared.domain import jobs, leases
from shared.domain.leases import Beat, Lease
from shared.domain.tenants import Caller
from tests.factories import claim, execution, expire_leases, job_of, lease_rows, submit, sweep


def renew(owner: str, held: list[Lease], lease_seconds: float = 60.0) -> Beat:
    with db.transaction() as session:
        return leases.renew(session, owner, held, lease_seconds=lease_seconds)


def test_a_renewed_lease_is_not_swept(admin: Caller) -> None:
    (execution_id,) = submit(admin)
    held = claim("worker:1")
    db.offset_clock(50)

    beat = renew("worker:1", held)
    db.offset_clock(100)
    swept = sweep()

    assert beat.held == {(held[0].job_id, held[0].fence)}
    assert swept.requeued == 0
    assert job_of(execution_id).losses == 0


def test_a_renewal_never_shortens_a_lease(admin: Caller) -> None:
    submit(admin)
    held = claim("worker:1")
    before = lease_rows()[0].expires_at

    renew("worker:1", held, lease_seconds=1)

    assert lease_rows()[0].expires_at == before


def test_renewals_set_the_end_from_now_and_do_not_add_up(admin: Caller) -> None:
    submit(admin)
    held = claim("worker:1")

    for _ in range(5):
        renew("worker:1", held)

    (row,) = lease_rows()
    assert (row.expires_at - row.heartbeat_at).total_seconds() < 61


def test_a_lease_that_was_swept_is_reported_as_lost(admin: Caller) -> None:
    submit(admin)
    held = claim("worker:1")
    expire_leases()
    sweep()

    beat = renew("worker:1", held)

    assert beat.held == frozenset()


def test_renewal_is_refused_for_another_owner_and_for_an_older_fence(admin: Caller) -> None:
    submit(admin)
    old = claim("worker:1")
    expire_leases()
    sweep()
    new = claim("worker:1")
    before = lease_rows()[0].heartbeat_at

    assert renew("worker:2", new).held == frozenset()
    assert lease_rows()[0].heartbeat_at == before
    assert renew("worker:1", old).held == frozenset()
    assert renew("worker:1", new).held == {(new[0].job_id, new[0].fence)}


def test_the_heartbeat_hears_of_a_cancel(admin: Caller) -> None:
    first, _ = submit(admin, 2)
    held = claim("worker:1")
    with db.transaction() as session:
        job = jobs.open_job_of(session, first)
        assert job is not None
        jobs.cancel(session, job)

    beat = renew("worker:1", held)

    assert beat.held == {(lease.job_id, lease.fence) for lease in held}
    assert beat.cancel_requested == {job_of(first).id}
    assert execution(first).state == "running"
