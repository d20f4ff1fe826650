"""What the sweep does for runs: calls of a run that has ended are canceled, and one that stands still goes on."""

import uuid
from collections import Counter

import sqlalchemy as sa

from shared import db
from shared.domain import leases
from shared.domain.tenants import Caller
from shared.models import Barrier, Evaluation, Execution, Job, State
from tests.factories import claim, submit, waiting_run


def end(run_id: uuid.UUID, state: State = State.CANCELED) -> None:
    """As a cancel does that died before it could cancel the calls."""
    with db.transaction() as session:
        session.execute(sa.update(Evaluation).where(Evaluation.id == run_id).values(state=state))


def cancel_orphans() -> int:
    with db.transaction() as session:
        return leases.cancel_orphans(session)


def restart_stalled() -> int:
    with db.transaction() as session:
        return leases.restart_stalled(session)


def call_states(run_id: uuid.UUID) -> Counter[str]:
    with db.reading() as session:
        return Counter(session.scalars(sa.select(Execution.state).where(Execution.scope_id == run_id)))


def test_the_open_calls_of_runs_that_have_ended_are_canceled_and_no_others(admin: Caller) -> None:
    first, live, last = (waiting_run(admin, 3, name=name) for name in ("first", "live", "last"))
    submit(admin, 2)
    for run_id in (first, last):
        end(run_id)

    canceled = [cancel_orphans() for _ in range(3)]

    assert sorted(canceled) == [0, 3, 3]
    assert call_states(first) == call_states(last) == {State.CANCELED: 3}
    assert call_states(live) == {State.QUEUED: 3}


def test_a_running_call_of_a_run_that_has_ended_is_asked_to_stop_once(admin: Caller) -> None:
    run_id = waiting_run(admin, 2)
    claim(limit=1)
    end(run_id)

    canceled = [cancel_orphans(), cancel_orphans()]

    assert canceled == [2, 0]
    with db.reading() as session:
        assert session.scalars(sa.select(Job.cancel_requested).where(Job.state == State.RUNNING)).all() == [True]


def test_a_run_whose_calls_have_all_ended_and_that_has_no_job_gets_its_next_step(admin: Caller) -> None:
    stalled, waiting = waiting_run(admin, 1, name="stalled"), waiting_run(admin, 1, name="waiting")
    with db.transaction() as session:
        session.execute(sa.update(Barrier).where(Barrier.subject_id == stalled).values(remaining=0))
        session.execute(
            sa.update(Job)
            .where(Job.barrier_id.in_(sa.select(Barrier.id).where(Barrier.subject_id == stalled)))
            .values(state=State.SUCCEEDED, finished_at=db.db_now())
        )

    restarted = [restart_stalled(), restart_stalled()]

    assert restarted == [1, 0]
    with db.reading() as session:
        steps = session.execute(sa.select(Job.subject_id, Job.step_no).where(Job.step_no.is_not(None))).all()
    assert [tuple(step) for step in steps] == [(stalled, 2)]
    assert waiting not in {step.subject_id for step in steps}


def test_a_run_that_has_ended_gets_no_further_step(admin: Caller) -> None:
    run_id = waiting_run(admin, 1)
    with db.transaction() as session:
        session.execute(sa.update(Barrier).values(remaining=0))
    end(run_id, State.FAILED)

    assert restart_stalled() == 0
