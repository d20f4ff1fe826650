"""The engine under arbitrary schedules: several workers, a clock that jumps, crashes between any two
statements, messages twice, answers late. After each step the invariants I1 to I6, I8 and I11 must hold.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from shared import db
from shared.domain import budgets, jobs, leases
from shared.domain.budgets import Limits
from shared.domain.leases import Lease
from shared.domain.tenants import Caller
from shared.models import Budget, Event, Execution, Job, JobLease, State, new_id
from tests.factories import claim, do_duties, submit
from worker.providers import Answer
from worker.recording import record
from worker.steps import Canceled, Failure
from worker.tasks import STEPS

TERMINAL = {State.SUCCEEDED, State.FAILED, State.CANCELED}
WORKERS = ("worker:1", "worker:2", "worker:3")
CEILING = 100  # tokens: of the calls here two fit at once, and about twenty in all
LONG = os.environ.get("PROMPTMILL_LONG_TESTS") == "1"


class Crash(Exception):
    """The process died here."""


@contextlib.contextmanager
def dying_after(statements: int | None) -> Iterator[None]:
    """Let the process die before its next statement but so many; the transaction is lost with it."""
    left = statements

    def count(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        nonlocal left
        if left is not None and not statement.startswith("ROLLBACK"):  # else the session could not let go of all
            left -= 1
            if left < 0:
                raise Crash

    engine = db.engine()
    sa.event.listen(engine, "before_cursor_execute", count)
    try:
        with contextlib.suppress(Crash):
            yield
    finally:
        sa.event.remove(engine, "before_cursor_execute", count)


deaths = st.one_of(st.none(), st.none(), st.integers(0, 12))
workers = st.sampled_from(WORKERS)


class Engine(RuleBasedStateMachine):
    caller: Caller

    def __init__(self) -> None:
        super().__init__()
        db.offset_clock(0)
        self.ended: dict[Any, str] = {}  # execution id: its terminal state when first seen
        self.held: dict[str, list[Lease]] = {name: [] for name in WORKERS}  # what each worker believes
        self.newest: dict[int, Lease] = {}  # by job id, the lease that was handed out last, whatever its fence says
        self.answered = 0
        with db.transaction() as session:
            self.budget_id = budgets.create(session, self.caller.workspace_id, new_id(), Limits(max_tokens=CEILING))
        self.known: set[Any] = set()

    @initialize()
    def some_work_waits_and_somebody_has_begun(self) -> None:
        """Or a short schedule would spend its steps on getting there."""
        self.known.update(submit(self.caller, 3, budget_id=self.budget_id))
        self._take(WORKERS[0], claim(WORKERS[0], limit=2))

    @rule(count=st.integers(1, 4), paid=st.booleans(), death=deaths)
    def submit(self, count: int, paid: bool, death: int | None) -> None:
        with dying_after(death):
            self.known.update(submit(self.caller, count, budget_id=self.budget_id if paid else None))

    @rule(worker=workers, limit=st.integers(1, 4), quarantined=st.booleans(), death=deaths)
    def claim(self, worker: str, limit: int, quarantined: bool, death: int | None) -> None:
        with dying_after(death):
            self._take(worker, claim(worker, limit=limit, quarantined=quarantined))

    @rule(worker=workers, data=st.data())
    def hear_a_message_twice(self, worker: str, data: st.DataObject) -> None:
        ids = [job_id for (job_id,) in self._rows(sa.select(Job.id).order_by(Job.id))]
        if ids:
            named = data.draw(st.lists(st.sampled_from(ids), min_size=1, max_size=3))
            first, second = claim(worker, job_ids=named), claim(worker, job_ids=named)
            assert not {lease.job_id for lease in first} & {lease.job_id for lease in second}
            self._take(worker, first + second)

    @rule(worker=workers, kind=st.sampled_from(["answer", "answer", "retry", "hang", "refused"]), death=deaths)
    def finish(self, worker: str, kind: str, death: int | None) -> None:
        """Of the oldest lease that the worker believes in, however stale; the process may die and forget it."""
        if not self.held[worker]:
            return
        lease = self.held[worker].pop(0)
        newest = self.newest[lease.job_id] is lease
        self.answered += 1
        outcome = {
            "answer": Answer(f"{lease.fence}:{self.answered}", 3, 2, 1),
            "retry": Failure("server_error", "503", retryable=True),
            "hang": Failure("timeout", "", retryable=True, possibly_paid=True),
            "refused": Failure("bad_request", "", retryable=False),
        }[kind]
        before = self._job(lease)
        with dying_after(death):
            record(STEPS, [(lease, outcome)])
            record(STEPS, [(lease, outcome)])  # a commit that was acknowledged too late is repeated
        after = self._job(lease)
        assert after.attempts - before.attempts <= 1, "one outcome was written twice"
        if not newest or before.state in TERMINAL:
            assert (after.state, after.attempts) == (before.state, before.attempts), "a stale holder wrote"  # I2, I5
        elif death is None:
            assert after.attempts == before.attempts + 1

    @rule(worker=workers)
    def heartbeat(self, worker: str) -> None:
        with db.transaction() as session:
            beat = leases.renew(session, worker, self.held[worker], lease_seconds=60)
        rows = {(row.job_id, row.fence) for row in self._rows(sa.select(JobLease).where(JobLease.owner == worker))}
        assert beat.held == rows & {(lease.job_id, lease.fence) for lease in self.held[worker]}
        for lease in self.held[worker]:
            if lease.job_id in beat.cancel_requested:
                record(STEPS, [(lease, Canceled(started=True))])

    @rule(worker=workers)
    def die(self, worker: str) -> None:
        self.held[worker].clear()

    @rule(worker=workers, death=deaths)
    def stop_cleanly(self, worker: str, death: int | None) -> None:
        with dying_after(death), db.transaction() as session:
            leases.release(session, self.held[worker], started={lease.job_id for lease in self.held[worker][::2]})
        self.held[worker].clear()

    @rule(seconds=st.sampled_from([1, 30, 130]))
    def time_passes(self, seconds: int) -> None:
        db.offset_clock(db._clock_offset_seconds + seconds)

    @rule(death=deaths)
    def every_lease_runs_out_and_a_sweep_finds_it(self, death: int | None) -> None:
        before = dict(self._rows(sa.select(Job.id, Job.losses).where(Job.state == State.RUNNING)))
        db.offset_clock(db._clock_offset_seconds + 61)
        swept = 0
        with dying_after(death), db.transaction() as session:
            leases.sweep(session)
            swept = 1
        after = dict(self._rows(sa.select(Job.id, Job.losses).where(Job.id.in_(before))))
        assert after in ([{job_id: losses + 1 for job_id, losses in before.items()}] if swept else [before])

    @rule(worker=workers, quarantined=st.booleans())
    def another_takes_over_from_workers_that_slept(self, worker: str, quarantined: bool) -> None:
        """What makes zombies: the sleepers still believe in their leases."""
        db.offset_clock(db._clock_offset_seconds + 61)
        with db.transaction() as session:
            leases.sweep(session)
        self._take(worker, claim(worker, limit=4, quarantined=quarantined))

    @rule(data=st.data(), death=deaths)
    def cancel(self, data: st.DataObject, death: int | None) -> None:
        if self.known:
            wanted = data.draw(st.sampled_from(sorted(self.known)))
            with dying_after(death), db.transaction() as session:
                job = jobs.open_job_of(session, wanted)
                if job is not None:
                    jobs.cancel(session, job)

    @invariant()
    def what_was_submitted_is_there_and_what_has_ended_stays_ended(self) -> None:
        rows = {row.id: row for row in self._rows(sa.select(Execution))}
        assert self.known <= set(rows), "a submit that was answered is lost"
        for execution_id, state in self.ended.items():
            assert rows[execution_id].state == state, "a terminal state changed"  # I5
        self.ended |= {row.id: row.state for row in rows.values() if row.state in TERMINAL}
        assert all((row.response_text is not None) == (row.state == State.SUCCEEDED) for row in rows.values())

    @invariant()
    def job_lease_and_subject_agree(self) -> None:
        states = dict(self._rows(sa.select(Execution.id, Execution.state)))
        held = {row.job_id: row.fence for row in self._rows(sa.select(JobLease))}
        for job in self._rows(sa.select(Job)):
            assert (job.id in held) == (job.state == State.RUNNING), "a lease exists exactly while a job runs"
            assert held.get(job.id, job.fence) == job.fence
            assert states[job.subject_id] == job.state
            assert job.losses < 5 or job.state in TERMINAL  # I11
            assert job.attempts <= 4

    @invariant()
    def the_ceiling_holds_and_the_books_balance(self) -> None:
        (budget,) = self._rows(sa.select(Budget).where(Budget.id == self.budget_id))
        assert budget.spent_tokens + budget.reserved_tokens <= CEILING  # I6
        running = self._rows(
            sa.select(Execution.estimate_tokens, Execution.budget_id)
            .join(Job, Job.subject_id == Execution.id)
            .where(Job.state == State.RUNNING, Job.budget_id == self.budget_id)
        )
        assert budget.reserved_tokens == sum(row.estimate_tokens for row in running)
        assert budget.reserved_task_calls == len(running)
        assert budget.spent_tokens >= 0

    @invariant()
    def the_last_event_is_the_state(self) -> None:
        last: dict[Any, str] = {}
        for event in self._rows(sa.select(Event).order_by(Event.xid, Event.id)):
            last[event.subject_id] = event.type
        for row in self._rows(sa.select(Execution.id, Execution.state)):
            assert last[row.id] == f"execution.{row.state}"  # I8

    def teardown(self) -> None:
        """However it went: live workers bring everything to its end, and no money stays reserved."""
        rounds = 0
        while self._rows(sa.select(Job.id).where(Job.state.in_((State.QUEUED, State.RUNNING)))):
            rounds += 1
            assert rounds < 100, "it never ends"
            do_duties()
            db.offset_clock(db._clock_offset_seconds + 130)
            for quarantined in (False, True):
                for lease in claim("last", limit=100, quarantined=quarantined):
                    record(STEPS, [(lease, Answer("at last", 1, 1, 1))])
        states = [state for (state,) in self._rows(sa.select(Execution.state))]
        assert set(states) <= TERMINAL, "lost"
        (budget,) = self._rows(sa.select(Budget).where(Budget.id == self.budget_id))
        assert budget.reserved_tokens == 0
        with db.transaction() as session:
            for table in ("leases", "calls", "events", "jobs", "executions", "budgets", "schedules"):
                session.execute(sa.text(f"DELETE FROM {table}"))

    def _take(self, worker: str, claimed: list[Lease]) -> None:
        for lease in claimed:
            assert lease.job_id not in self.newest or lease.fence > self.newest[lease.job_id].fence
            self.newest[lease.job_id] = lease
        self.held[worker] += claimed

    def _job(self, lease: Lease) -> Job:
        (job,) = self._rows(sa.select(Job).where(Job.id == lease.job_id))
        assert isinstance(job, Job)
        return job

    @staticmethod
    def _rows(query: Any) -> list[Any]:
        with db.reading() as session:
            result = session.execute(query).all()
            return [row[0] if len(row) == 1 and isinstance(row[0], db_rows) else row for row in result]


db_rows = (Execution, Job, JobLease, Budget, Event)


def test_no_schedule_breaks_an_invariant(admin: Caller) -> None:
    Engine.caller = admin
    run_state_machine_as_test(
        Engine,
        settings=settings(
            max_examples=1000 if LONG else 15,
            stateful_step_count=60 if LONG else 30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
