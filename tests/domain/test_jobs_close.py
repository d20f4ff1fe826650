"""What the end of a job sets off: barriers, next steps, and the subjects that follow."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa

from shared import db
from shared.domain import jobs, providers, runs
from shared.domain.executions import NewExecution
from shared.domain.runs import Unit
from shared.domain.tenants import Caller
from shared.models import Barrier, Evaluation, Execution, Job, JobKind, State
from tests.factories import claim, do_duties, execution, job_of, submit, waiting_run
from worker.providers import Answer
from worker.recording import record
from worker.steps import Failure
from worker.tasks import STEPS

ANSWER = Answer("ok", 1, 1, 1)


def steps_of(run_id: uuid.UUID) -> list[tuple[int | None, str]]:
    with db.reading() as session:
        rows = session.execute(sa.select(Job.step_no, Job.state).where(Job.subject_id == run_id).order_by(Job.id))
        return [(row.step_no, row.state) for row in rows]


def test_the_last_call_of_a_step_starts_the_next_step_and_no_other_does(admin: Caller) -> None:
    run_id = waiting_run(admin, 3)
    held = claim()

    for lease in held[:2]:
        record(STEPS, [(lease, ANSWER)])
    before = steps_of(run_id)
    record(STEPS, [(held[2], ANSWER)])

    assert before == []
    assert steps_of(run_id) == [(2, "queued")]


def test_failed_and_canceled_calls_count_down_too(admin: Caller) -> None:
    run_id = waiting_run(admin, 3)
    failed, canceled, answered = claim()

    record(STEPS, [(failed, Failure("bad_request", "", retryable=False))])
    with db.transaction() as session:
        (job,) = jobs.lock(session, [canceled.job_id])
        jobs.close(session, [jobs.Ending(job, State.CANCELED)])
    record(STEPS, [(answered, ANSWER)])

    assert steps_of(run_id) == [(2, "queued")]


def test_a_retry_does_not_count_down(admin: Caller) -> None:
    run_id = waiting_run(admin, 1)
    (lease,) = claim()

    record(STEPS, [(lease, Failure("server_error", "", retryable=True))])

    assert steps_of(run_id) == []


def test_calls_that_end_at_once_on_many_threads_start_the_step_exactly_once(admin: Caller) -> None:
    run_id = waiting_run(admin, 24)
    held = claim(limit=24)
    start = threading.Barrier(6)

    def work(part: int) -> None:
        start.wait()
        for lease in held[part::6]:
            record(STEPS, [(lease, ANSWER)])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))  # an error of any thread is raised here

    assert steps_of(run_id) == [(2, "queued")]


def test_a_finished_job_cannot_be_closed_again(admin: Caller) -> None:
    """I5: a second terminal transition is a bug, and it is loud."""
    submit(admin)
    (lease,) = claim()
    record(STEPS, [(lease, ANSWER)])

    with db.transaction() as session:
        (job,) = jobs.lock(session, [lease.job_id])
        try:
            jobs.close(session, [jobs.Ending(job, State.CANCELED)])
            refused = False
        except AssertionError:
            refused = True

    assert refused


def test_cancel_of_a_queued_job_is_immediate_and_of_a_running_one_a_request(admin: Caller) -> None:
    queued_id, running_id = submit(admin, 2)
    with db.reading() as session:
        running_job = session.scalars(sa.select(Job.id).where(Job.subject_id == running_id)).one()
    claim(job_ids=[running_job])

    with db.transaction() as session:
        for execution_id in (queued_id, running_id):
            job = jobs.open_job_of(session, execution_id)
            assert job is not None
            jobs.cancel(session, job)

    assert execution(queued_id).state == State.CANCELED
    assert execution(queued_id).completed_at is not None
    assert job_of(queued_id).finished_at is not None
    assert execution(running_id).state == State.RUNNING


def test_the_calls_of_a_run_that_was_canceled_are_canceled_even_if_the_caller_died_in_between(admin: Caller) -> None:
    run_id = waiting_run(admin, 4)
    claim(limit=1)
    with db.transaction() as session:
        session.execute(sa.update(Evaluation).where(Evaluation.id == run_id).values(state=State.CANCELED))

    do_duties()

    with db.reading() as session:
        rows = session.execute(sa.select(Job.state, Job.cancel_requested).order_by(Job.id)).all()
    assert sorted((row.state, row.cancel_requested) for row in rows) == [
        ("canceled", False),
        ("canceled", False),
        ("canceled", False),
        ("running", True),
    ]
    assert steps_of(run_id) == []


def test_a_call_of_an_earlier_step_is_not_made_again(admin: Caller) -> None:
    """The ledger of a run is its memory of what it has paid for (I4)."""
    run_id = waiting_run(admin, 1)
    record(STEPS, [(claim()[0], ANSWER)])
    with db.transaction() as session:
        (known,) = session.scalars(sa.select(Execution))
        model = providers.quote(session, "simulated", "simulated-small")
        calls = [
            NewExecution(
                workspace_id=admin.workspace_id,
                model=model,
                params={},
                messages=[{"role": "user", "content": content}],
                scope_id=run_id,
            )
            for content in (known.messages[0]["content"], "new")
        ]
        home = {"workspace_id": admin.workspace_id, "kind": JobKind.EVALUATION, "subject_id": run_id}
        units = [Unit(f"unit {number}", "evaluate", call) for number, call in enumerate(calls)]
        runs.fan_out(session, step_no=3, units=units, **home)
        runs.fan_out(session, step_no=4, units=[Unit("again", "evaluate", calls[0])], **home)

    assert (4, "queued") in steps_of(run_id), "a step whose calls have all been made waits for nothing"
    assert (3, "queued") not in steps_of(run_id)
    (new,) = (lease for lease in claim() if lease.kind == JobKind.EXECUTION)
    record(STEPS, [(new, ANSWER)])

    with db.reading() as session:
        collected = runs.collect(session, run_id, 3)
        made = session.scalar(sa.select(sa.func.count()).select_from(Execution))
    assert [unit.text for unit in collected] == ["ok", "ok"]
    assert made == 2


def test_a_run_without_an_open_job_is_started_again_by_the_sweep(admin: Caller) -> None:
    run_id = waiting_run(admin, 1)
    with db.transaction() as session:
        session.execute(sa.delete(Job))
        session.execute(sa.update(Barrier).values(remaining=0))

    do_duties()
    do_duties()

    assert steps_of(run_id) == [(2, "queued")]


def test_a_cancel_of_many_calls_takes_as_many_statements_as_of_few(admin: Caller) -> None:
    def statements(calls: int) -> int:
        run_id = waiting_run(admin, calls, name=f"of-{calls}")
        counted: list[str] = []

        def count(connection: object, cursor: object, statement: str, *rest: object) -> None:
            counted.append(statement)

        sa.event.listen(db.engine(), "before_cursor_execute", count)
        with db.transaction() as session:
            assert jobs.cancel_scope(session, run_id, limit=1000) == calls
        sa.event.remove(db.engine(), "before_cursor_execute", count)
        return len(counted)

    assert statements(60) == statements(3)


def test_a_cancel_goes_page_by_page(admin: Caller) -> None:
    run_id = waiting_run(admin, 5)
    claim(limit=1)
    canceled = []
    for _ in range(4):
        with db.transaction() as session:
            canceled.append(jobs.cancel_scope(session, run_id, limit=2))

    assert canceled == [2, 2, 1, 0]
