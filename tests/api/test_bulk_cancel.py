"""POST /v1/bulk/operations/{id}/cancel: what is done stays, the rest is never done."""

from typing import Any

from shared.domain import bulk
from shared.models import Prompt
from tests.bulk import OPERATIONS, creates, read, results, submit
from tests.factories import lease_rows
from tests.rows import count, event_data
from tests.support import Api, Drain
from worker.recording import record
from worker.tasks import STEPS

COUNT = bulk.PAGE + 20


def cancel(api: Api, operation: str) -> Any:
    return api.expect(200, "POST", f"{OPERATIONS}/{operation}/cancel")


def test_an_operation_that_waits_is_canceled_whole(api: Api, drain: Drain) -> None:
    operation = submit(api, "create", creates(2))

    canceled = cancel(api, operation)

    assert (canceled["status"], canceled["progress"]["canceled"]) == ("canceled", 2)
    assert drain() == 0
    assert [row["status"] for row in results(api, operation)] == ["canceled", "canceled"]
    assert count(Prompt) == 0


def test_between_two_pages_what_is_done_stays_and_the_rest_is_canceled(api: Api, drain: Drain) -> None:
    operation = submit(api, "create", creates(COUNT))
    drain(most=1)

    canceled = cancel(api, operation)
    drain()

    assert (canceled["status"], canceled["progress"]["done"], canceled["progress"]["canceled"]) == (
        "canceled",
        bulk.PAGE,
        20,
    )
    assert count(Prompt) == bulk.PAGE
    assert len(results(api, operation, "status=canceled")) == 20
    assert results(api, operation, "status=queued") == []
    assert len(event_data("bulk.canceled")) == 1


def test_a_page_that_is_being_done_when_the_cancel_comes_writes_nothing(api: Api, drain: Drain) -> None:
    operation = submit(api, "create", creates(2))
    (lease,) = drain.claim()
    outcome = drain.outcome(lease)
    cancel(api, operation)

    record(STEPS, [(lease, outcome)])

    assert count(Prompt) == 0
    assert read(api, operation)["status"] == "canceled"
    assert lease_rows() == []


def test_a_cancel_twice_is_one_and_of_what_has_ended_a_409(api: Api, drain: Drain) -> None:
    canceled, ended = submit(api, "create", creates(1)), submit(api, "create", creates(1))
    cancel(api, canceled)
    drain()

    assert cancel(api, canceled)["status"] == "canceled"
    assert api.post(f"{OPERATIONS}/{ended}/cancel").status_code == 409
    assert read(api, ended)["status"] == "succeeded"
