"""The runner of one worker process, with real threads and a provider that answers when it is told to."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.config import settings
from shared.domain import jobs, leases, status
from shared.domain.tenants import Caller
from shared.models import Evaluation, Execution, Job, JobKind, Queue, Schedule, State, WorkerProcess
from tests.factories import claim, execution, expire_leases, job_of, lease_rows, submit, sweep, waiting_run
from tests.servers import wait_until
from worker import providers
from worker import runner as runner_module
from worker.providers import Answer, Request
from worker.runner import Runner, _Ended
from worker.steps import Canceled
from worker.tasks import STEPS


class GatedProvider:
    """Stands where a model would: counts the calls in flight, and holds them until the gate opens."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.calls: list[str] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self._lock = threading.Lock()

    def generate(self, request: Request) -> Answer:
        with self._lock:
            self.calls.append(request.execution_id)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            assert self.gate.wait(30)
        finally:
            with self._lock:
                self.in_flight -= 1
        return Answer("done", 1, 1, 1)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[GatedProvider]:
    gated = GatedProvider()
    monkeypatch.setitem(providers._adapters, "simulated", gated)
    yield gated
    gated.gate.set()


@contextmanager
def running(
    *, concurrency: int = 4, queues: tuple[Queue, ...] = tuple(Queue), grace_seconds: float = 5.0
) -> Iterator[Runner]:
    runner = Runner(STEPS, queues=queues, concurrency=concurrency, sweep=lambda: None)
    runner.start()
    try:
        yield runner
    finally:
        runner.stop(grace_seconds=grace_seconds)


def set_run_at(execution_id: object, seconds_from_now: float) -> None:
    with db.transaction() as session:
        session.execute(sa.update(Job).where(Job.subject_id == execution_id).values(run_at=db.db_now(seconds_from_now)))


def state_counts() -> dict[str, int]:
    with db.reading() as session:
        return dict(session.execute(sa.select(Execution.state, sa.func.count()).group_by(Execution.state)).all())


def test_due_work_is_pulled_without_any_message(admin: Caller, model: GatedProvider) -> None:
    submit(admin, 20)
    model.gate.set()

    with running():
        wait_until(lambda: state_counts() == {"succeeded": 20}, "all 20 are done")

    assert len(model.calls) == len(set(model.calls)) == 20
    assert lease_rows() == []


def test_calls_in_flight_reach_the_concurrency_and_never_pass_it(admin: Caller, model: GatedProvider) -> None:
    submit(admin, 12)

    with running(concurrency=4, queues=(Queue.EXECUTIONS,)):
        wait_until(lambda: model.in_flight == 4, "four calls are in flight")
        model.gate.set()
        wait_until(lambda: state_counts() == {"succeeded": 12}, "all are done")

    assert model.most_in_flight == 4


def test_batch_work_leaves_a_slot_to_the_interactive_lane(admin: Caller, model: GatedProvider) -> None:
    submit(admin, 30)
    with running(concurrency=8) as runner:
        wait_until(lambda: model.in_flight == 7, "batch work fills its seven slots")

        (interactive,) = submit(admin, 1, queue=Queue.INTERACTIVE)
        runner.wake([job_of(interactive).id])

        wait_until(lambda: str(interactive) in model.calls, "the interactive call is made at once")
        assert model.in_flight == 8
        model.gate.set()


def test_a_process_of_one_queue_takes_nothing_else(admin: Caller, model: GatedProvider) -> None:
    submit(admin, 2)
    (interactive,) = submit(admin, 1, queue=Queue.INTERACTIVE)
    model.gate.set()

    with running(queues=(Queue.INTERACTIVE,)):
        wait_until(lambda: execution(interactive).state == State.SUCCEEDED, "the interactive one is done")

    assert state_counts() == {"queued": 2, "succeeded": 1}


def test_outcomes_that_end_together_are_committed_together(
    admin: Caller, model: GatedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    original = runner_module.record

    def record(steps: Any, group: Any, **options: Any) -> None:
        sizes.append(len(group))
        original(steps, group, **options)

    monkeypatch.setattr(runner_module, "record", record)
    submit(admin, 16)

    with running(concurrency=16, queues=(Queue.EXECUTIONS,)):
        wait_until(lambda: model.in_flight == 16, "all are in flight")
        model.gate.set()
        wait_until(lambda: state_counts() == {"succeeded": 16}, "all are done")

    assert sum(sizes) == 16
    assert len(sizes) < 16


def test_a_cancel_ends_a_running_execution_although_its_call_hangs(
    admin: Caller, model: GatedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    (execution_id,) = submit(admin)
    with running() as runner:
        wait_until(lambda: model.in_flight == 1, "the call is in flight")
        with db.transaction() as session:
            job = jobs.open_job_of(session, execution_id)
            assert job is not None
            jobs.cancel(session, job)

        runner._beat()

        wait_until(lambda: execution(execution_id).state == State.CANCELED, "it is canceled")
        assert model.in_flight == 1
        model.gate.set()
        wait_until(lambda: model.in_flight == 0, "the call has come back")

    assert execution(execution_id).state == State.CANCELED
    assert execution(execution_id).response_text is None


def test_a_call_that_trickles_on_past_its_time_is_given_up_and_tried_again(
    admin: Caller, model: GatedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "HUNG_AFTER_SECONDS", -settings().provider_timeout_seconds)
    (execution_id,) = submit(admin)
    with running(concurrency=1, queues=(Queue.EXECUTIONS,)) as runner:
        wait_until(lambda: model.in_flight == 1, "the call is in flight")
        runner._beat()
        wait_until(lambda: job_of(execution_id).error == "timeout", "it is to be tried again")
        assert job_of(execution_id).state == State.QUEUED
        assert runner._in_flight() == 1
        model.gate.set()
        wait_until(lambda: runner._in_flight() == 0, "the slot is free again")

    assert execution(execution_id).ambiguous_attempts == 1


def test_stop_lets_running_work_finish_within_the_grace_period(admin: Caller, model: GatedProvider) -> None:
    submit(admin, 2)
    with running(concurrency=2, queues=(Queue.EXECUTIONS,), grace_seconds=10):
        wait_until(lambda: model.in_flight == 2, "both are in flight")
        threading.Timer(0.3, model.gate.set).start()

    assert state_counts() == {"succeeded": 2}


def test_stop_gives_back_what_does_not_finish_without_a_loss(admin: Caller, model: GatedProvider) -> None:
    (execution_id,) = submit(admin)
    with running(queues=(Queue.EXECUTIONS,), grace_seconds=0):
        wait_until(lambda: model.in_flight == 1, "it is in flight")

    job = job_of(execution_id)
    assert (job.state, job.losses, job.attempts) == (State.QUEUED, 0, 0)
    assert execution(execution_id).ambiguous_attempts == 1
    assert lease_rows() == []
    assert len(claim("worker:2")) == 1


def test_a_draining_process_claims_nothing_new(admin: Caller, model: GatedProvider) -> None:
    model.gate.set()
    with running() as runner:
        runner.drain()
        for thread in runner._threads[:1]:
            thread.join(5)
        submit(admin, 3)
        runner.wake()

    assert state_counts() == {"queued": 3}


def test_a_job_that_killed_its_workers_runs_with_nothing_beside_it(admin: Caller, model: GatedProvider) -> None:
    """I11: what is beside it would be taken along."""
    poison, *innocent = submit(admin, 4)
    for _ in range(2):
        claim(job_ids=[job_of(poison).id])
        expire_leases()
        sweep()

    with running(concurrency=4, queues=(Queue.EXECUTIONS,)):
        wait_until(lambda: model.in_flight == 1, "one call is in flight")
        assert model.calls == [str(poison)]
        assert execution(innocent[0]).state == State.QUEUED
        model.gate.set()
        wait_until(lambda: state_counts() == {"succeeded": 4}, "the others follow")

    assert model.calls[0] == str(poison)


def test_what_already_runs_ends_before_such_a_job_begins(admin: Caller, model: GatedProvider) -> None:
    first, poison = submit(admin, 2)
    for _ in range(2):
        claim(job_ids=[job_of(poison).id])
        expire_leases()
        sweep()
    set_run_at(poison, 60)

    with running(concurrency=4, queues=(Queue.EXECUTIONS,)) as runner:
        wait_until(lambda: model.in_flight == 1, "the innocent call is in flight")
        set_run_at(poison, -1)
        runner._pull()
        assert model.calls == [str(first)]
        model.gate.set()
        wait_until(lambda: state_counts() == {"succeeded": 2}, "the other follows")

    assert model.most_in_flight == 1


def test_hundreds_of_calls_are_in_flight_at_once_in_one_process(admin: Caller, model: GatedProvider) -> None:
    submit(admin, 400)

    with running(concurrency=300, queues=(Queue.EXECUTIONS,)):
        wait_until(lambda: model.in_flight == 300, "every slot is taken")
        model.gate.set()
        wait_until(lambda: state_counts() == {"succeeded": 400}, "all are done")

    assert model.most_in_flight == 300


def test_outcomes_that_end_close_are_committed_together_and_an_awaited_one_waits_for_nobody(admin: Caller) -> None:
    runner = Runner(STEPS, queues=(Queue.INTERACTIVE, Queue.EXECUTIONS), concurrency=8, sweep=lambda: None)
    submit(admin, 3)
    submit(admin, 1, queue=Queue.INTERACTIVE)
    runner._pull()
    ended = [_Ended(running.lease, Canceled(started=False)) for running in runner._running.values()]
    (awaited,) = (one for one in ended if one.lease.queue == Queue.INTERACTIVE)
    first, second, third = (one for one in ended if one is not awaited)
    for outcome in (second, awaited, third):
        runner._outcomes.put(outcome)

    together = runner._group_of(first)

    assert together == [first, second, awaited, third]
    assert runner._group_of(awaited) == [awaited]


def test_an_outcome_that_waited_for_the_commit_before_it_waits_for_no_others(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "LINGER_SECONDS", 20.0)
    monkeypatch.setattr(runner_module, "GAP_SECONDS", 20.0)
    runner = Runner(STEPS, queues=(Queue.EXECUTIONS,), concurrency=8, sweep=lambda: None)
    submit(admin, 3)
    runner._pull()
    leases_held = [running.lease for running in runner._running.values()]
    began = time.monotonic()
    first, second = (_Ended(lease, Canceled(started=False), at=began - 20.0) for lease in leases_held[:2])
    runner._outcomes.put(second)

    together = runner._group_of(first)

    assert together == [first, second]
    assert time.monotonic() - began < 10


def test_a_message_that_comes_while_every_slot_is_taken_is_heard_when_one_is_free(admin: Caller) -> None:
    runner = Runner(STEPS, queues=(Queue.INTERACTIVE, Queue.EXECUTIONS), concurrency=2, sweep=lambda: None)
    submit(admin, 9)
    (waited_for,) = submit(admin, 1, queue=Queue.INTERACTIVE)
    runner._pull()
    (late,) = submit(admin, 1, queue=Queue.INTERACTIVE)
    runner.wake([job_of(late).id])
    runner._pull()

    runner._forget([one.lease for one in list(runner._running.values()) if one.lease.subject_id == waited_for])
    runner._pull()

    assert late in {running.lease.subject_id for running in runner._running.values()}


def test_a_backlog_does_not_keep_such_a_job_waiting(admin: Caller) -> None:
    poison, *_ = submit(admin, 9)
    for _ in range(2):
        claim(job_ids=[job_of(poison).id])
        expire_leases()
        sweep()
    set_run_at(poison, 60)
    runner = Runner(STEPS, queues=(Queue.EXECUTIONS,), concurrency=4, sweep=lambda: None)
    runner._pull()  # four of eight: there is a backlog
    set_run_at(poison, -1)

    runner._forget([running.lease for running in list(runner._running.values())[:2]])
    runner._looked_at = 0.0
    for _ in range(3):
        runner._pull()

    assert runner._in_flight() == 2, "it gets empty and takes nothing from the backlog meanwhile"


def test_a_step_of_a_run_that_has_ended_does_nothing(admin: Caller, model: GatedProvider) -> None:
    run_id = waiting_run(admin, 0)
    with db.transaction() as session:
        jobs.enqueue_step(session, admin.workspace_id, JobKind.EVALUATION, run_id, 2)
        session.execute(sa.update(Evaluation).where(Evaluation.id == run_id).values(state=State.CANCELED))

    with running(queues=(Queue.OPTIMIZATIONS,)):
        wait_until(lambda: job_of(run_id).state == State.CANCELED, "its job is canceled")

    assert job_of(run_id).finished_at is not None
    assert job_of(run_id).error is None


def test_one_process_empties_itself_for_such_a_job_and_the_others_go_on(admin: Caller, model: GatedProvider) -> None:
    first, poison, second = submit(admin, 3)
    for _ in range(2):
        claim(job_ids=[job_of(poison).id])
        expire_leases()
        sweep()
    for later in (poison, second):
        set_run_at(later, 60)

    with running(concurrency=4, queues=(Queue.EXECUTIONS,)) as runner:
        wait_until(lambda: model.in_flight == 1, "it has work in flight")
        with db.transaction() as session:
            assert leases.take_turn(session, "quarantine", every_seconds=60), "it is the turn of another process"
        for later in (poison, second):
            set_run_at(later, -1)
        runner.wake()
        wait_until(lambda: model.in_flight == 2, "it takes more work")
        assert sorted(model.calls) == sorted([str(first), str(second)])
        model.gate.set()


def test_while_one_process_runs_such_a_job_another_does_the_rest(admin: Caller, model: GatedProvider) -> None:
    poison, worse, *innocent = submit(admin, 5)
    for _ in range(2):
        claim(job_ids=[job_of(poison).id, job_of(worse).id])
        expire_leases()
        sweep()

    with running(queues=(Queue.EXECUTIONS,)), running(queues=(Queue.EXECUTIONS,)):
        wait_until(lambda: model.in_flight == 4, "one runs alone, three together")
        assert set(map(str, innocent)) < set(model.calls)
        model.gate.set()
        wait_until(lambda: state_counts() == {"succeeded": 5}, "all are done")


def start_turn_before(seconds: float) -> None:
    with db.transaction() as session:
        session.execute(sa.update(Schedule).values(started_at=db.db_now(-seconds)))


def test_after_its_turn_with_such_jobs_a_process_does_other_work_for_as_long(admin: Caller) -> None:
    seconds = settings().job_lease_seconds
    runner = Runner(STEPS, queues=(Queue.EXECUTIONS,), concurrency=1, sweep=lambda: None)

    assert runner._makes_room(others_are_due=True)
    runner._turn_ends -= seconds
    start_turn_before(seconds)
    assert not runner._makes_room(others_are_due=True)
    assert runner._makes_room(others_are_due=False), "nothing else is due"
    runner._turn_ends -= seconds
    assert runner._makes_room(others_are_due=True)


def test_a_process_that_empties_keeps_its_turn_until_no_call_can_last_so_long(
    admin: Caller, model: GatedProvider
) -> None:
    seconds = settings().job_lease_seconds
    submit(admin)
    with running(queues=(Queue.EXECUTIONS,)) as runner:
        wait_until(lambda: model.in_flight == 1, "it has work in flight")
        assert runner._makes_room(others_are_due=True)
        runner._turn_ends -= 0.6 * seconds
        start_turn_before(0.6 * seconds)

        assert runner._makes_room(others_are_due=True)
        with db.transaction() as session:
            assert not leases.take_turn(session, "quarantine", every_seconds=0.5 * seconds), "it has said so"
        runner._turn_ends -= 0.6 * seconds
        runner._empty_by -= settings().provider_timeout_seconds + runner_module.HUNG_AFTER_SECONDS
        start_turn_before(0.6 * seconds)

        assert runner._makes_room(others_are_due=True)
        with db.transaction() as session:
            assert leases.take_turn(session, "quarantine", every_seconds=0.5 * seconds), "others may try"
        model.gate.set()


def test_a_job_that_runs_alone_starts_only_when_its_claim_has_been_committed(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    (poison,) = submit(admin)
    for _ in range(2):
        claim()
        expire_leases()
        sweep()
    runner = Runner(STEPS, queues=(Queue.EXECUTIONS,), concurrency=1, sweep=lambda: None)

    @contextmanager
    def refused() -> Iterator[Any]:
        with db.transaction() as session:
            yield session
            raise sa.exc.OperationalError("COMMIT", {}, Exception("server closed the connection"))

    monkeypatch.setattr(runner_module, "transaction", refused)
    with pytest.raises(sa.exc.OperationalError):
        runner._pull()

    assert job_of(poison).state == State.QUEUED
    assert runner._in_flight() == 0
    assert runner._work.empty()


def test_a_lease_that_is_lost_and_claimed_again_by_the_same_process_is_kept(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TwoGates:
        def __init__(self) -> None:
            self.gates = [threading.Event(), threading.Event()]
            self.calls = 0

        def generate(self, request: Request) -> Answer:
            self.calls += 1
            assert self.gates[self.calls - 1].wait(30)
            return Answer("done", 1, 1, 1)

    model = TwoGates()
    monkeypatch.setitem(providers._adapters, "simulated", model)
    submit(admin)
    with running(concurrency=2, queues=(Queue.EXECUTIONS,)) as runner:
        wait_until(lambda: model.calls == 1, "the first call is in flight")
        expire_leases()
        sweep()
        runner.wake()
        wait_until(lambda: model.calls == 2, "the same process has claimed it again")
        both = runner._in_flight()
        model.gates[0].set()
        wait_until(lambda: runner._in_flight() == 1, "the first call has ended")
        runner._beat()
        (lease,) = lease_rows()
        (still,) = runner._running.values()
        model.gates[1].set()
        wait_until(lambda: state_counts() == {"succeeded": 1}, "the second is recorded")

    assert both == 2
    assert (still.lease.fence, still.lost) == (lease.fence, False)


def test_a_row_that_cannot_be_read_fails_alone(
    admin: Caller, model: GatedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison, *innocent = submit(admin, 5)
    load = STEPS[JobKind.EXECUTION].load

    def load_or_stumble(session: Any, group: Any) -> Any:
        if any(lease.subject_id == poison for lease in group):
            raise KeyError("a row that a bug wrote")
        return load(session, group)

    monkeypatch.setattr(STEPS[JobKind.EXECUTION], "load", load_or_stumble)
    model.gate.set()
    with running(queues=(Queue.EXECUTIONS,)):
        wait_until(lambda: state_counts().get("succeeded") == 4, "the others are done")

    assert {execution(execution_id).attempts for execution_id in innocent} == {1}


def test_what_a_provider_adds_to_an_answer_does_not_cost_the_answer(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Chatty:
        def generate(self, request: Request) -> Answer:
            return Answer("done", 1, 1, 1, finish_reason="stop\x00" * 50, provider_request_id="r" * 500)

    monkeypatch.setitem(providers._adapters, "simulated", Chatty())
    (execution_id,) = submit(admin)
    with running(queues=(Queue.EXECUTIONS,)):
        wait_until(lambda: execution(execution_id).state == State.SUCCEEDED, "it is recorded")

    assert execution(execution_id).attempts == 1
    assert len(execution(execution_id).provider_request_id or "") == 128


def test_a_lost_lease_starts_nothing_new_and_its_successor_is_not_disturbed(
    admin: Caller, model: GatedProvider
) -> None:
    (execution_id,) = submit(admin)
    with running(concurrency=1, queues=(Queue.EXECUTIONS,)) as runner:
        wait_until(lambda: model.in_flight == 1, "it is in flight")
        expire_leases()
        sweep()
        (successor,) = claim("worker:2")
        runner._beat()
        model.gate.set()
        wait_until(lambda: runner._in_flight() == 0, "the slot is free again")

    assert execution(execution_id).state == State.RUNNING
    assert [row.fence for row in lease_rows()] == [successor.fence]


@pytest.mark.parametrize("error", [sa.exc.OperationalError, sa.exc.InternalError, sa.exc.ProgrammingError])
def test_an_answer_survives_a_database_that_is_away_or_refuses_for_a_moment(
    admin: Caller, model: GatedProvider, monkeypatch: pytest.MonkeyPatch, error: type[sa.exc.DBAPIError]
) -> None:
    """The answer is paid for, so it is kept until it can be written."""
    (execution_id,) = submit(admin)
    original = runner_module.record
    refused: list[int] = []

    def away_twice(*args: Any, **options: Any) -> None:
        if len(refused) < 2:
            refused.append(1)
            raise error("COMMIT", {}, Exception("server closed the connection"))
        original(*args, **options)

    monkeypatch.setattr(runner_module, "record", away_twice)
    model.gate.set()
    with running(queues=(Queue.EXECUTIONS,)):
        wait_until(lambda: execution(execution_id).state == State.SUCCEEDED, "it is recorded in the end")

    assert len(refused) == 2
    assert len(model.calls) == 1


def test_a_process_checks_in_with_its_queues_and_out_when_it_stops(admin: Caller, model: GatedProvider) -> None:
    def processes() -> list[WorkerProcess]:
        with db.reading() as session:
            return list(session.scalars(sa.select(WorkerProcess)))

    with running(concurrency=3, queues=(Queue.EXECUTIONS, Queue.INTERACTIVE)):
        wait_until(lambda: len(processes()) == 1, "it has checked in")
        (row,) = processes()
        assert (row.queues, row.concurrency) == (["interactive", "executions"], 3)

    assert processes() == []


@pytest.mark.parametrize("text", ["a\x00b", "half \ud800 a pair"])
def test_an_answer_that_no_database_can_hold_is_an_error_that_may_have_been_paid(
    admin: Caller, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    class Garbled:
        def generate(self, request: Request) -> Answer:
            return Answer(text, 1, 1, 1)

    monkeypatch.setitem(providers._adapters, "simulated", Garbled())
    (execution_id,) = submit(admin)

    with running(queues=(Queue.EXECUTIONS,)):
        wait_until(lambda: job_of(execution_id).error == "malformed_response", "it is to be tried again")

    assert job_of(execution_id).state == State.QUEUED
    row = execution(execution_id)
    assert row.ambiguous_attempts == row.attempts >= 1  # the second may have come at once: full jitter


@pytest.mark.parametrize(("silent_for", "consumers"), [(0.0, 1), (runner_module.STUCK_SECONDS, 0)])
def test_a_process_whose_puller_is_stuck_is_no_consumer_although_its_heart_beats(
    admin: Caller, silent_for: float, consumers: int
) -> None:
    runner = Runner(STEPS, queues=(Queue.EXECUTIONS,), concurrency=1, sweep=lambda: None)
    runner._pulled_at -= silent_for

    runner._beat()

    with db.reading() as session:
        assert status.consumers(session)["executions"] == consumers


def test_a_crash_in_a_step_is_retried_and_then_fails_in_the_open(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def generate(self, request: Request) -> Answer:
            raise RuntimeError("a bug")

    monkeypatch.setitem(providers._adapters, "simulated", Broken())
    (execution_id,) = submit(admin)

    with running(queues=(Queue.EXECUTIONS,)) as runner:
        for attempt in range(1, 5):
            runner.wake()
            wait_until(lambda attempt=attempt: execution(execution_id).attempts >= attempt, f"attempt {attempt}")  # type: ignore[misc]
            with db.transaction() as session:
                session.execute(sa.update(Job).values(run_at=db.db_now(-1)))

    row = execution(execution_id)
    assert (row.state, row.error_type) == (State.FAILED, "internal_error")
    assert "a bug" in (row.error_message or "")


def test_what_a_message_names_is_looked_for_in_its_own_lane_alone() -> None:
    runner = Runner(STEPS, queues=(Queue.OPTIMIZATIONS, Queue.EXECUTIONS), concurrency=1, sweep=lambda: None)

    runner.wake([1], lane="executions")
    runner.wake([2])

    assert runner._hints == {Queue.OPTIMIZATIONS: {2}, Queue.EXECUTIONS: {1, 2}}


def test_what_a_message_names_is_claimed_before_what_other_lanes_have(admin: Caller) -> None:
    (named,) = submit(admin)
    run_id = waiting_run(admin, 0)
    with db.transaction() as session:
        jobs.enqueue_step(session, admin.workspace_id, JobKind.EVALUATION, run_id, 2)
    runner = Runner(STEPS, queues=(Queue.OPTIMIZATIONS, Queue.EXECUTIONS), concurrency=1, sweep=lambda: None)

    runner.wake([job_of(named).id], lane="executions")
    runner._pull()

    assert [running.lease.subject_id for running in runner._running.values()] == [named]


def test_hints_of_a_message_do_not_outrank_priority_for_ever(admin: Caller, model: GatedProvider) -> None:
    """A message names jobs; it may bring them forward, but a wrong or stale one does no harm."""
    ids = submit(admin, 3)
    model.gate.set()

    with running(queues=(Queue.EXECUTIONS,)) as runner:
        runner.wake([10**12, job_of(ids[2]).id])
        wait_until(lambda: state_counts() == {"succeeded": 3}, "all are done")

    assert len(model.calls) == 3
    with db.reading() as session:
        assert not leases.waiting(session, list(Queue)).quarantined


def ended(runner: Runner, count: int) -> list[_Ended]:
    held = [running.lease for running in runner._running.values()][:count]
    return [_Ended(lease, Answer("done", 1, 1, 1)) for lease in held]


def test_the_commit_of_outcomes_claims_what_their_slots_do_next(admin: Caller) -> None:
    submit(admin, 9)
    runner = Runner(STEPS, queues=(Queue.EXECUTIONS,), concurrency=4, sweep=lambda: None)
    runner._pull()

    runner._record(ended(runner, 3))

    assert state_counts() == {"succeeded": 3, "running": 4, "queued": 2}
    assert len(runner._running) == 4
    assert {row.job_id for row in lease_rows()} == {running.lease.job_id for running in runner._running.values()}


def test_outcomes_and_the_claim_beside_them_are_committed_together_or_not_at_all(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(admin, 4)
    runner = Runner(STEPS, queues=(Queue.EXECUTIONS,), concurrency=2, sweep=lambda: None)
    runner._pull()
    before = set(runner._running)
    outcomes = ended(runner, 2)
    monkeypatch.setattr(jobs, "close", lambda *args: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        runner._commit(outcomes, claiming=True)

    assert set(runner._running) == before
    assert state_counts() == {"running": 2, "queued": 2}


def test_the_commit_that_ends_the_last_call_of_a_step_claims_the_next_step(admin: Caller) -> None:
    run_id = waiting_run(admin, 2)
    runner = Runner(STEPS, queues=(Queue.OPTIMIZATIONS, Queue.EXECUTIONS), concurrency=2, sweep=lambda: None)
    runner._pull()

    runner._record(ended(runner, 2))

    (running,) = runner._running.values()
    assert (running.lease.subject_id, running.lease.step_no) == (run_id, 2)
    assert [row.job_id for row in lease_rows()] == [running.lease.job_id]


@pytest.mark.parametrize("queues", [(Queue.EXECUTIONS,), (Queue.OPTIMIZATIONS, Queue.EXECUTIONS)])
def test_a_step_is_left_to_others_where_this_process_does_not_serve_it_or_has_no_slot_left(
    admin: Caller, queues: tuple[Queue, ...]
) -> None:
    waiting_run(admin, 1)
    runner = Runner(STEPS, queues=queues, concurrency=1, sweep=lambda: None)
    runner._pull()
    if len(queues) > 1:
        submit(admin)  # which takes the slot

    runner._record(ended(runner, 1))

    with db.reading() as session:
        assert session.scalars(sa.select(Job.state).where(Job.step_no.is_not(None))).one() == State.QUEUED


def test_a_late_answer_is_not_claimed_again_by_its_own_commit(admin: Caller) -> None:
    """The sweep had put the job back: it is due, and locked by the very transaction that would claim it."""
    (execution_id,) = submit(admin)
    runner = Runner(STEPS, queues=(Queue.EXECUTIONS,), concurrency=2, sweep=lambda: None)
    runner._pull()
    outcomes = ended(runner, 1)
    expire_leases()
    sweep()

    runner._record(outcomes)

    assert execution(execution_id).state == State.SUCCEEDED
    assert runner._running == {}
    assert lease_rows() == []


def test_a_commit_that_somebody_waits_for_claims_nothing(admin: Caller) -> None:
    submit(admin, 1, queue=Queue.INTERACTIVE)
    runner = Runner(STEPS, queues=(Queue.INTERACTIVE, Queue.EXECUTIONS), concurrency=2, sweep=lambda: None)
    runner._pull()
    submit(admin, 2)

    runner._record(ended(runner, 1))

    assert state_counts() == {"succeeded": 1, "queued": 2}
    assert runner._running == {}


def test_a_commit_claims_for_the_interactive_lane_first(admin: Caller) -> None:
    submit(admin, 6)
    runner = Runner(STEPS, queues=(Queue.INTERACTIVE, Queue.EXECUTIONS), concurrency=2, sweep=lambda: None)
    runner._pull()
    (awaited,) = submit(admin, 1, queue=Queue.INTERACTIVE)
    runner.wake([job_of(awaited).id])

    runner._record(ended(runner, 1))

    assert awaited in {running.lease.subject_id for running in runner._running.values()}


def test_a_commit_claims_nothing_beside_a_job_that_runs_alone_nor_once_the_process_is_draining(admin: Caller) -> None:
    submit(admin, 6)
    runner = Runner(STEPS, queues=(Queue.EXECUTIONS,), concurrency=4, sweep=lambda: None)
    runner._pull()
    first, second, third, _ = list(runner._running.values())
    first.alone = True

    runner._record([_Ended(second.lease, Answer("done", 1, 1, 1))])
    first.alone = False
    runner.drain()
    runner._record([_Ended(third.lease, Answer("done", 1, 1, 1))])

    assert len(runner._running) == 2
    assert state_counts() == {"succeeded": 2, "running": 2, "queued": 2}


def test_half_of_the_slots_do_not_wait_for_the_other_half(admin: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "LINGER_SECONDS", 20.0)
    monkeypatch.setattr(runner_module, "GAP_SECONDS", 20.0)
    submit(admin, 4)
    runner = Runner(STEPS, queues=(Queue.EXECUTIONS,), concurrency=4, sweep=lambda: None)
    runner._pull()
    first, second, *_ = ended(runner, 4)
    runner._outcomes.put(second)
    began = time.monotonic()

    together = runner._group_of(first)

    assert together == [first, second]
    assert time.monotonic() - began < 10
