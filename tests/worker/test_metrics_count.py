"""What the engine counts: once for each thing that was committed, and nothing that was rolled back."""

import contextlib

import pytest
import sqlalchemy as sa

from shared import db
from shared.domain import jobs, leases
from shared.domain.tenants import Caller
from shared.metrics import REGISTRY
from shared.models import Barrier, Execution, Job, Queue
from tests.factories import LEASE_SECONDS, claim, execution, expire_leases, job_of, submit, sweep, waiting_run
from tests.servers import wait_until
from worker.providers import Answer
from worker.recording import record
from worker.runner import Runner
from worker.steps import Canceled, Failure
from worker.tasks import STEPS

ANSWER = Answer(text="done", prompt_tokens=3, response_tokens=2, latency_ms=1)
RATE_LIMITED = Failure("rate_limited", "slow down", retryable=True)
MODEL = {"provider": "simulated", "model_name": "simulated-small"}


class Counted:
    """By how much the metrics of this process have grown since this was made."""

    def __init__(self) -> None:
        self._before = self._samples()

    def __call__(self, name: str, **labels: str) -> float:
        sample = (f"prompt_studio_{name}", frozenset(labels.items()))
        return self._samples().get(sample, 0.0) - self._before.get(sample, 0.0)

    @staticmethod
    def _samples() -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in REGISTRY.collect()
            for sample in family.samples
        }


def test_a_claim_counts_how_long_each_job_was_due(admin: Caller) -> None:
    submit(admin, 2)
    db.offset_clock(20)
    counted = Counted()

    claim()

    assert counted("queue_latency_seconds_count", queue="executions") == 2
    assert 40 <= counted("queue_latency_seconds_sum", queue="executions") < 44
    assert counted("queue_latency_seconds_bucket", queue="executions", le="10.0") == 0
    assert counted("queue_latency_seconds_bucket", queue="executions", le="30.0") == 2
    assert counted("queue_latency_seconds_count", queue="interactive") == 0


def test_a_claim_that_is_rolled_back_counts_only_its_attempts_at_locks(admin: Caller, database: str) -> None:
    submit(admin, 2)
    counted = Counted()

    with contextlib.suppress(RuntimeError), db.transaction() as session:
        claimed = leases.claim(session, "worker:1", queue=Queue.EXECUTIONS, limit=2, lease_seconds=LEASE_SECONDS)
        raise RuntimeError("the process fails before its commit")

    assert len(claimed.leases) == 2
    assert counted("queue_latency_seconds_count", queue="executions") == 0
    assert counted("pg_advisory_lock_attempts_total") == (2 if database.startswith("postgresql") else 0)


def test_advisory_locks_are_counted_on_postgresql_and_stay_0_on_sqlite(admin: Caller, database: str) -> None:
    submit(admin, 3)
    counted = Counted()

    claim()

    locks = 3 if database.startswith("postgresql") else 0
    assert counted("pg_advisory_lock_attempts_total") == counted("pg_advisory_locks_acquired_total") == locks


def test_a_job_whose_advisory_lock_is_held_elsewhere_is_attempted_not_acquired_and_not_claimed(
    admin: Caller, database: str
) -> None:
    held, free = submit(admin, 2)
    counted = Counted()

    with db.engine().connect() as other:
        if database.startswith("postgresql"):
            other.execute(sa.select(sa.func.pg_advisory_xact_lock(leases._LOCK_SPACE + job_of(held).id)))
        claimed = {lease.subject_id for lease in claim()}

    if database.startswith("postgresql"):
        assert claimed == {free}
        assert counted("pg_advisory_lock_attempts_total") == 2
        assert counted("pg_advisory_locks_acquired_total") == 1
    else:
        assert claimed == {held, free}


def test_heartbeats_count_the_leases_that_they_extend(admin: Caller) -> None:
    submit(admin, 3)
    held = claim()
    with db.transaction() as session:
        jobs.close(session, [jobs.Ending(job, jobs.State.CANCELED) for job in jobs.lock(session, [held[0].job_id])])
    counted = Counted()

    with db.transaction() as session:
        leases.renew(session, "worker:1", held, lease_seconds=LEASE_SECONDS)

    assert counted("leases_renewed_total") == 2


def test_a_sweep_counts_the_leases_that_it_takes_away_once(admin: Caller) -> None:
    submit(admin, 2)
    claim()
    expire_leases()
    counted = Counted()

    sweep()
    sweep()

    assert counted("leases_reclaimed_total") == 2


def test_an_answer_counts_the_job_the_call_its_tokens_and_its_cost(admin: Caller) -> None:
    (execution_id,) = submit(admin)
    (lease,) = claim()
    counted = Counted()

    record(STEPS, [(lease, ANSWER)])

    assert counted("jobs_completed_total", kind="execution", state="succeeded") == 1
    assert counted("provider_calls_total", outcome="succeeded", **MODEL) == 1
    assert counted("tokens_used_total", direction="prompt", **MODEL) == 3
    assert counted("tokens_used_total", direction="response", **MODEL) == 2
    cost_nano = execution(execution_id).cost_nano
    assert cost_nano
    assert counted("cost_usd_total", **MODEL) == pytest.approx(cost_nano / 1e9)


def test_a_group_that_is_rolled_back_counts_nothing(admin: Caller) -> None:
    waiting_run(admin, 2)
    with db.transaction() as session:
        session.execute(sa.delete(Barrier))  # the last thing that the transaction looks for
    one, two = claim()
    counted = Counted()

    with pytest.raises(sa.exc.NoResultFound):
        record(STEPS, [(one, ANSWER), (two, RATE_LIMITED)])

    assert counted("jobs_completed_total", kind="execution", state="succeeded") == 0
    assert counted("jobs_retried_total", kind="execution") == 0
    assert counted("provider_calls_total", outcome="succeeded", **MODEL) == 0


def test_a_retry_counts_as_a_retry_and_as_a_call_of_its_error_class_and_not_as_an_end(admin: Caller) -> None:
    submit(admin)
    (lease,) = claim()
    counted = Counted()

    record(STEPS, [(lease, RATE_LIMITED)])

    assert counted("jobs_retried_total", kind="execution") == 1
    assert counted("provider_calls_total", outcome="rate_limited", **MODEL) == 1
    assert counted("jobs_completed_total", kind="execution", state="failed") == 0


def test_an_http_status_without_a_name_shares_one_class(admin: Caller) -> None:
    submit(admin, 2)
    teapot, legal = claim()
    counted = Counted()

    record(STEPS, [(teapot, Failure("http_418", "", retryable=False)), (legal, Failure("http_451", "", False))])

    assert counted("provider_calls_total", outcome="http_other", **MODEL) == 2


def test_a_model_outside_the_catalogue_is_counted_as_other(admin: Caller) -> None:
    submit(admin)
    with db.transaction() as session:
        session.execute(sa.update(Execution).values(model_name="my-own-finetune"))
    (lease,) = claim()
    counted = Counted()

    record(STEPS, [(lease, ANSWER)])

    assert counted("provider_calls_total", provider="simulated", model_name="other", outcome="succeeded") == 1
    assert counted("tokens_used_total", provider="simulated", model_name="other", direction="prompt") == 3


def test_a_late_answer_is_salvaged_before_the_next_claim_and_dropped_after_it(admin: Caller) -> None:
    submit(admin, 2)
    early, late = claim()
    expire_leases()
    sweep()
    counted = Counted()

    record(STEPS, [(early, ANSWER)])
    claim("worker:2")
    record(STEPS, [(late, ANSWER)])

    assert counted("outcomes_salvaged_total") == 1
    assert counted("stale_outcomes_dropped_total") == 1
    assert counted("jobs_completed_total", kind="execution", state="succeeded") == 1


def test_a_cancel_counts_the_job_and_no_call(admin: Caller) -> None:
    running, queued = submit(admin, 2)
    (lease,) = claim(limit=1)
    counted = Counted()

    with db.transaction() as session:
        jobs.cancel(session, jobs.lock(session, [job_of(queued).id])[0])
    record(STEPS, [(lease, Canceled(started=True))])

    assert lease.subject_id == running
    assert counted("jobs_completed_total", kind="execution", state="canceled") == 2
    assert {counted("provider_calls_total", outcome=outcome, **MODEL) for outcome in ("succeeded", "canceled")} == {0}
    assert counted("outcomes_salvaged_total") == 0


def test_each_try_of_a_running_process_is_timed_once(admin: Caller) -> None:
    submit(admin, 5)
    counted = Counted()
    runner = Runner(STEPS, queues=list(Queue), concurrency=2, sweep=lambda: None)

    runner.start()
    try:
        wait_until(lambda: counted("job_duration_seconds_count", kind="execution") == 5, "all five are timed")
    finally:
        runner.stop(grace_seconds=5)

    assert counted("job_duration_seconds_sum", kind="execution") > 0
    with db.reading() as session:
        assert session.scalar(sa.select(sa.func.count()).where(Job.finished_at.is_not(None))) == 5
