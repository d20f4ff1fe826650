"""POST /v1/batches/{id}/cancel: one cancel for all of it, and it ends even if the API dies halfway."""

import uuid
from typing import Any

import sqlalchemy as sa

from shared import db
from shared.domain import batches
from shared.domain.tenants import Caller
from shared.models import Batch, Execution, Job
from tests.factories import do_duties
from tests.rows import event_data
from tests.support import Api, Drain, batch_body, make_prompt
from worker.recording import record
from worker.steps import Canceled
from worker.tasks import STEPS

NONE = {"queued": 0, "running": 0, "succeeded": 0, "failed": 0, "canceled": 0}


def submit(api: Api, names: str) -> str:
    return str(api.expect(202, "POST", "/v1/executions:batch", batch_body(names))["batch_id"])


def cancel(api: Api, batch_id: str, status: int = 200) -> Any:
    return api.expect(status, "POST", f"/v1/batches/{batch_id}/cancel")


def read(api: Api, batch_id: str) -> Any:
    return api.expect(200, "GET", f"/v1/batches/{batch_id}")


def row(batch_id: str) -> Batch:
    with db.reading() as session:
        return session.get_one(Batch, uuid.UUID(batch_id))


def test_what_is_queued_is_canceled_at_once_and_what_is_paid_for_is_kept(api: Api, drain: Drain) -> None:
    make_prompt(api)
    batch_id = submit(api, "abcde")
    drain(most=2)

    canceled = cancel(api, batch_id)

    assert (canceled["status"], canceled["counts"]) == ("canceled", {**NONE, "succeeded": 2, "canceled": 3})
    assert canceled["cost_usd"] > 0
    assert drain() == 0
    assert row(batch_id).canceled_at is not None


def test_other_batches_go_on(api: Api, drain: Drain) -> None:
    make_prompt(api)
    batch_id, other = submit(api, "ab"), submit(api, "abc")

    cancel(api, batch_id)

    assert drain() == 3
    assert read(api, other)["status"] == "succeeded"


def test_what_runs_is_asked_to_stop_and_the_batch_is_canceled_when_it_has(api: Api, drain: Drain) -> None:
    make_prompt(api)
    batch_id = submit(api, "abc")
    (lease,) = drain.claim(limit=1)

    asked = cancel(api, batch_id, 202)
    record(STEPS, [(lease, Canceled(started=True))])

    assert (asked["status"], asked["counts"]) == ("running", {**NONE, "running": 1, "canceled": 2})
    assert asked["eta_at"] is None
    assert (read(api, batch_id)["status"], read(api, batch_id)["counts"]) == ("canceled", {**NONE, "canceled": 3})


def test_a_batch_of_which_a_cancel_caught_nothing_has_succeeded(api: Api, drain: Drain) -> None:
    make_prompt(api)
    batch_id = submit(api, "a")
    (lease,) = drain.claim()
    outcome = drain.outcome(lease)

    cancel(api, batch_id, 202)
    record(STEPS, [(lease, outcome)])

    assert (read(api, batch_id)["status"], read(api, batch_id)["counts"]) == ("succeeded", {**NONE, "succeeded": 1})


def test_a_batch_that_has_ended_stays_as_it_is(api: Api, drain: Drain) -> None:
    make_prompt(api)
    batch_id = submit(api, "ab")
    drain()

    problem = cancel(api, batch_id, 409)

    assert "succeeded" in problem["detail"]
    assert row(batch_id).cancel_requested_at is None
    assert event_data("batch.canceled") == []


def test_a_second_cancel_answers_like_the_first_and_writes_no_second_event(api: Api) -> None:
    make_prompt(api)
    batch_id = submit(api, "ab")

    first, second = cancel(api, batch_id), cancel(api, batch_id)

    assert first == second
    assert event_data("batch.canceled") == [{**NONE, "queued": 2}]


def test_more_than_one_page_is_canceled(api: Api) -> None:
    make_prompt(api)
    names = [f"number {n}" for n in range(1_100)]
    batch_id = api.expect(202, "POST", "/v1/executions:batch", batch_body(names))["batch_id"]

    canceled = cancel(api, batch_id)

    assert canceled["counts"] == {**NONE, "canceled": 1_100}


def test_a_cancel_that_died_between_two_pages_is_finished_by_the_sweep(api: Api, admin: Caller, drain: Drain) -> None:
    make_prompt(api)
    batch_id = submit(api, "abcde")
    with db.transaction() as session:
        batches.cancel_batch(session, admin, uuid.UUID(batch_id))
    with db.transaction() as session:
        assert batches.cancel_page(session, uuid.UUID(batch_id), limit=2) == 2
    halfway = read(api, batch_id)

    do_duties()
    do_duties()

    assert (halfway["status"], halfway["counts"]) == ("running", {**NONE, "queued": 3, "canceled": 2})
    assert read(api, batch_id)["status"] == "canceled"
    assert row(batch_id).canceled_at is not None
    assert drain() == 0


def test_the_sweep_leaves_alone_what_nobody_canceled_and_what_is_canceled_already(api: Api) -> None:
    make_prompt(api)
    open_id, done_id = submit(api, "ab"), submit(api, "ab")
    cancel(api, done_id)
    ended_at = row(done_id).canceled_at

    do_duties()

    assert read(api, open_id)["counts"] == {**NONE, "queued": 2}
    assert row(done_id).canceled_at == ended_at


def test_a_canceled_batch_leaves_no_open_job(api: Api, drain: Drain) -> None:
    make_prompt(api)
    batch_id = submit(api, "abc")
    drain.claim(limit=1)

    cancel(api, batch_id, 202)

    with db.reading() as session:
        rows = session.execute(
            sa.select(Job.state, Job.cancel_requested).join(Execution, Execution.id == Job.subject_id).order_by(Job.id)
        ).all()
    assert [tuple(found) for found in rows] == [("running", True), ("canceled", False), ("canceled", False)]
