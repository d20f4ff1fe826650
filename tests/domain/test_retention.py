"""What has ended is deleted when its time is up, in batches, and nothing that is left needs it."""

import threading
import uuid
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from shared import db
from shared.config import settings
from shared.domain import jobs, retention
from shared.domain.tenants import Caller
from shared.models import Call, Event, Execution, Job, State
from tests.factories import claim, execution, fail, job_of, lease_rows, make_budget, submit, waiting_run
from tests.rows import count
from tests.support import Api, Drain, batch_body, evaluation_body, make_prompt, make_triage, run_body

DAY = 86_400.0


def prune(table: Callable[..., int], *, batch: int = retention.BATCH) -> int:
    with db.transaction() as session:
        return table(session, batch=batch)


def after(days: float) -> None:
    db.offset_clock(days * DAY)


def cancel(execution_id: uuid.UUID) -> None:
    with db.transaction() as session:
        job = jobs.open_job_of(session, execution_id)
        assert job is not None
        jobs.cancel(session, job)


@pytest.fixture
def keep_executions(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    def keep(days: float) -> None:
        monkeypatch.setenv("PROMPTMILL_KEEP_EXECUTIONS_DAYS", str(days))
        settings.cache_clear()

    return keep


def states() -> set[str]:
    with db.reading() as session:
        return set(session.scalars(sa.select(Job.state)))


@pytest.mark.parametrize(
    ("days", "left"),
    [
        (6.9, {"queued", "running", "succeeded", "canceled", "failed"}),
        (7.1, {"queued", "running", "failed"}),
        (29.9, {"queued", "running", "failed"}),
        (30.1, {"queued", "running"}),
    ],
)
def test_each_kind_of_job_is_kept_as_long_as_its_setting_says(
    admin: Caller, drain: Drain, days: float, left: set[str]
) -> None:
    succeeded, canceled, failed, running, _ = submit(admin, 5)
    drain.run(claim(job_ids=[job_of(succeeded).id])[0])
    cancel(canceled)
    fail(failed)
    claim(job_ids=[job_of(running).id])
    after(days)

    prune(retention.prune_jobs)

    assert states() == left
    assert len(lease_rows()) == 1
    assert {execution(id_).state for id_ in (succeeded, canceled, failed)} == {"succeeded", "canceled", "failed"}


def test_a_job_is_kept_by_when_it_ended_and_not_by_when_it_was_made(admin: Caller, drain: Drain) -> None:
    submit(admin)
    after(6)
    drain()
    after(8)

    assert prune(retention.prune_jobs) == 0
    after(13.1)
    assert prune(retention.prune_jobs) == 1


def test_a_job_that_still_has_a_lease_is_left_alone(admin: Caller) -> None:
    """Nothing in the code leaves a row like that; a repaired one might, and deleting it would take the lease along."""
    submit(admin, 2)
    claim(limit=1)
    with db.transaction() as session:
        session.execute(sa.update(Job).values(state=State.SUCCEEDED, finished_at=db.db_now()))
    after(8)

    assert prune(retention.prune_jobs) == 1
    assert len(lease_rows()) == 1


def test_a_batch_takes_the_oldest_and_no_more_than_it_may(admin: Caller, drain: Drain) -> None:
    ids = submit(admin, 5)
    for minute, execution_id in enumerate(ids):
        db.offset_clock(60 * minute)
        drain.run(claim(job_ids=[job_of(execution_id).id])[0])
    after(10)

    pruned = [prune(retention.prune_jobs, batch=2) for _ in range(2)]

    assert pruned == [2, 2]
    with db.reading() as session:
        assert list(session.scalars(sa.select(Job.subject_id))) == [ids[-1]]


def test_a_batch_is_of_all_states_together(admin: Caller) -> None:
    first, second, third = submit(admin, 3)
    cancel(first)
    cancel(second)
    fail(third)
    after(31)

    assert [prune(retention.prune_jobs, batch=2) for _ in range(3)] == [2, 1, 0]


def test_two_who_prune_at_once_delete_each_row_once(admin: Caller, drain: Drain) -> None:
    submit(admin, 40)
    drain()
    after(8)
    start = threading.Barrier(4)
    pruned: list[int] = []

    def work() -> None:
        start.wait()
        pruned.append(sum(prune(retention.prune_jobs, batch=20) for _ in range(3)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(pruned) == 40
    assert count(Job) == 0


def test_an_execution_reads_the_same_without_its_job(api: Api, drain: Drain) -> None:
    make_prompt(api)
    execution_id = api.expect(202, "POST", "/v1/executions:submit", run_body())["execution_id"]
    drain()
    before = api.expect(200, "GET", f"/v1/executions/{execution_id}")
    after(8)

    prune(retention.prune_jobs)

    shown = api.expect(200, "GET", f"/v1/executions/{execution_id}")
    assert before["job"] is not None
    assert shown == before | {"job": None}
    api.expect(409, "POST", f"/v1/executions/{execution_id}/cancel")


def test_the_links_between_a_dead_execution_and_its_retry_outlive_their_jobs(api: Api, drain: Drain) -> None:
    make_prompt(api)
    old = api.expect(202, "POST", "/v1/executions:submit", run_body())["execution_id"]
    (job_id,) = fail(old)
    new = api.expect(202, "POST", f"/v1/jobs/{job_id}/requeue")["execution_id"]
    drain()
    after(31)

    prune(retention.prune_jobs)

    assert count(Job) == 0
    assert api.expect(200, "GET", f"/v1/executions/{old}")["retried_as"] == new
    assert api.expect(200, "GET", f"/v1/executions/{new}")["retry_of"] == old


def test_a_dead_job_is_not_done_again_after_the_job_that_did_it_is_pruned(api: Api, drain: Drain) -> None:
    make_prompt(api)
    (job_id,) = fail(api.expect(202, "POST", "/v1/executions:submit", run_body())["execution_id"])
    new = api.expect(202, "POST", f"/v1/jobs/{job_id}/requeue")["execution_id"]
    drain()
    after(8)
    prune(retention.prune_jobs)

    problem = api.expect(409, "POST", f"/v1/jobs/{job_id}/requeue")

    assert new in problem["detail"]
    assert api.expect(200, "POST", "/v1/jobs/requeue", {})["requeued"] == 0


def test_a_retry_is_kept_as_long_as_what_it_retries(
    api: Api, drain: Drain, keep_executions: Callable[[float], None]
) -> None:
    """Or the ledger would no longer say that the dead call was made again, and it could be paid for once more."""
    keep_executions(5)
    make_prompt(api)
    batch = api.expect(202, "POST", "/v1/executions:batch", batch_body(["Ada"]))
    (job_id,) = fail(batch["results"][0]["execution_id"])
    new = api.expect(202, "POST", f"/v1/jobs/{job_id}/requeue")["execution_id"]
    drain()
    after(6)

    assert prune(retention.prune_executions) == 0

    assert api.expect(200, "GET", f"/v1/executions/{new}")["status"] == "succeeded"
    assert api.expect(200, "POST", "/v1/jobs/requeue", {})["requeued"] == 0


def test_a_run_that_takes_longer_than_jobs_are_kept_goes_on_where_it_was(api: Api, drain: Drain) -> None:
    make_triage(api, cases=12)
    run = api.expect(202, "POST", "/v1/evaluations", evaluation_body())
    drain(most=7)
    after(8)
    pruned = prune(retention.prune_jobs)

    drain()

    stored = api.expect(200, "GET", f"/v1/evaluations/{run['evaluation_id']}")
    assert pruned == 7
    assert (stored["status"], stored["spent"]["task_calls"]) == ("succeeded", 12)


def test_events_are_kept_as_long_as_their_setting_says(admin: Caller) -> None:
    submit(admin, 3)
    old = count(Event)
    after(80)
    submit(admin)

    after(89.9)
    too_early = prune(retention.prune_events)
    after(90.1)
    pruned = [prune(retention.prune_events, batch=2) for _ in range(3)]

    assert old == 4  # with the key of the administrator
    assert (too_early, pruned) == (0, [2, 2, 0])
    assert count(Event) == 1


def test_executions_are_kept_for_ever_unless_a_setting_says_otherwise(admin: Caller, drain: Drain) -> None:
    submit(admin)
    drain()
    after(36_000)

    assert prune(retention.prune_executions) == 0


def test_executions_go_with_their_rows_of_the_ledger_when_their_time_is_up(
    admin: Caller, drain: Drain, keep_executions: Callable[[float], None]
) -> None:
    keep_executions(10)
    submit(admin, 3)
    drain()
    after(9.9)
    too_early = prune(retention.prune_executions)
    after(10.1)

    pruned = [prune(retention.prune_executions, batch=2) for _ in range(3)]

    assert (too_early, pruned) == (0, [2, 1, 0])
    assert (count(Execution), count(Call)) == (0, 0)


def test_no_open_execution_is_pruned_nor_one_that_ended_a_moment_ago(
    admin: Caller, drain: Drain, keep_executions: Callable[[float], None]
) -> None:
    keep_executions(1)
    waits, runs, ends_late = submit(admin, 3)
    claim(job_ids=[job_of(runs).id])
    after(5)
    drain.run(claim(job_ids=[job_of(ends_late).id])[0])

    assert prune(retention.prune_executions) == 0
    assert {execution(waits).state, execution(runs).state} == {State.QUEUED, State.RUNNING}


def test_the_calls_of_a_run_are_never_pruned(
    api: Api, admin: Caller, drain: Drain, keep_executions: Callable[[float], None]
) -> None:
    """I4: what can be resumed or replayed must not be paid again."""
    keep_executions(1)
    run_id = waiting_run(admin, 3)
    drain()
    after(36_000)

    assert prune(retention.prune_executions) == 0
    with db.reading() as session:
        assert session.query(Call).where(Call.scope_id == run_id).count() == 3


def test_the_executions_of_a_batch_are_never_pruned(
    api: Api, drain: Drain, keep_executions: Callable[[float], None]
) -> None:
    """It counts them, and would never be done without some."""
    keep_executions(1)
    make_prompt(api)
    batch_id = api.expect(202, "POST", "/v1/executions:batch", batch_body("abc"))["batch_id"]
    drain()
    before = api.expect(200, "GET", f"/v1/batches/{batch_id}")
    after(36_000)

    assert prune(retention.prune_executions) == 0
    assert api.expect(200, "GET", f"/v1/batches/{batch_id}") == before


def test_an_execution_is_kept_while_its_idempotency_key_is_remembered(
    api: Api, drain: Drain, keep_executions: Callable[[float], None]
) -> None:
    """24 hours; it would be replayed as an execution that does not exist."""
    keep_executions(0.25)
    make_prompt(api)
    key = {"Idempotency-Key": "once"}
    first = api.expect(202, "POST", "/v1/executions:submit", run_body(), headers=key)
    drain()
    after(0.9)

    pruned = prune(retention.prune_executions)

    again = api.expect(202, "POST", "/v1/executions:submit", run_body(), headers=key)
    assert (pruned, again["execution_id"]) == (0, first["execution_id"])
    after(1.1)
    assert prune(retention.prune_executions) == 1


def test_a_dead_job_whose_execution_is_gone_is_still_shown_and_says_why_it_cannot_be_requeued(
    api: Api, keep_executions: Callable[[float], None]
) -> None:
    keep_executions(10)
    make_prompt(api)
    (job_id,) = fail(api.expect(202, "POST", "/v1/executions:submit", run_body())["execution_id"])
    after(11)

    prune(retention.prune_executions)

    shown = api.expect(200, "GET", f"/v1/jobs/{job_id}")
    assert (shown["state"], shown["error"], shown["error_message"]) == ("failed", "bad_request", None)
    assert "pruned" in api.expect(409, "POST", f"/v1/jobs/{job_id}/requeue")["detail"]
    assert api.expect(200, "POST", "/v1/jobs/requeue", {})["requeued"] == 0


def test_what_a_budget_has_spent_stays_when_the_executions_are_gone(
    admin: Caller, drain: Drain, keep_executions: Callable[[float], None]
) -> None:
    keep_executions(1)
    budget_id = make_budget(admin, max_tokens=100_000)
    submit(admin, 2, budget_id=budget_id)
    drain()
    after(2)

    pruned = prune(retention.prune_executions)

    with db.reading() as session:
        spent = session.execute(sa.text("SELECT spent_tokens FROM budgets")).scalar_one()
    assert (pruned, spent > 0) == (2, True)
