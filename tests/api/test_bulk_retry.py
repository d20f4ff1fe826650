"""POST /v1/bulk/operations/{id}/retry: the items that failed, and no others, as an operation of its own."""

from collections.abc import Callable

from shared.domain import bulk
from shared.models import BulkOperation, Queue, Role, Version
from tests.bulk import OPERATIONS, creates, read, results, statuses, submit
from tests.factories import claim, expire_leases, sweep
from tests.rows import count
from tests.support import Api, Drain, make_prompt

KEY = {"Idempotency-Key": "again"}


def half_failed(api: Api, drain: Drain) -> str:
    """Two of three items have no prompt."""
    make_prompt(api, "b")
    operation = submit(api, "tag", [{"name": name} for name in "abc"], add=["x"])
    drain()
    return operation


def test_only_the_items_that_failed_are_done_again(api: Api, drain: Drain) -> None:
    first = half_failed(api, drain)
    make_prompt(api, "a")

    answer = api.post(f"{OPERATIONS}/{first}/retry")
    drain()

    again = answer.get_json()["operation_id"]
    assert (answer.status_code, answer.headers["Location"]) == (202, f"{OPERATIONS}/{again}")
    assert read(api, again)["retry_of"] == first
    assert [(row["index"], row["name"], row["status"]) for row in results(api, again)] == [
        (0, "a", "succeeded"),
        (1, "c", "failed"),
    ]
    assert statuses(api, first) == ["failed", "succeeded", "failed"]


def test_an_operation_that_is_open_or_has_nothing_that_failed_is_a_409(api: Api, drain: Drain) -> None:
    done = submit(api, "create", creates(1))
    drain()
    waits = submit(api, "create", creates(1, prefix="q"))

    assert [api.post(f"{OPERATIONS}/{id_}/retry").status_code for id_ in (done, waits)] == [409, 409]
    assert count(BulkOperation) == 2


def test_what_was_canceled_is_not_taken_up_again(api: Api, drain: Drain) -> None:
    operation = submit(api, "create", creates(2))
    api.expect(200, "POST", f"{OPERATIONS}/{operation}/cancel")

    assert api.post(f"{OPERATIONS}/{operation}/retry").status_code == 409


def test_the_same_key_makes_one_retry(api: Api, drain: Drain) -> None:
    first = half_failed(api, drain)

    once, twice = (api.post(f"{OPERATIONS}/{first}/retry", headers=KEY) for _ in range(2))

    assert once.get_json() == twice.get_json()
    assert count(BulkOperation) == 2


def test_a_retry_is_done_with_the_rights_of_who_retries(api: Api, as_user: Callable[..., Api], drain: Drain) -> None:
    first = half_failed(api, drain)
    viewer, ann = as_user(role=Role.VIEWER, user="viewer"), as_user(user="ann")

    refused = viewer.post(f"{OPERATIONS}/{first}/retry")
    taken = ann.expect(202, "POST", f"{OPERATIONS}/{first}/retry")

    assert refused.status_code == 403
    assert taken["created_by"] == "ann"


def test_after_its_job_died_what_was_done_is_kept_and_a_retry_does_the_rest(api: Api, drain: Drain) -> None:
    operation = submit(api, "create", creates(bulk.PAGE + 10))
    drain(most=1)
    for quarantined in (False, False, True, True, True):
        claim(queue=Queue.MAINTENANCE, quarantined=quarantined)
        expire_leases()
        sweep()

    dead = read(api, operation)
    again = api.expect(202, "POST", f"{OPERATIONS}/{operation}/retry")
    drain()

    assert (dead["status"], dead["error"]["code"]) == ("failed", "lease_expired")
    assert (dead["progress"]["succeeded"], dead["progress"]["canceled"]) == (bulk.PAGE, 10)
    done = read(api, again["operation_id"])
    assert (done["status"], done["progress"]["succeeded"], done["progress"]["total"]) == ("succeeded", 10, 10)
    assert count(Version) == bulk.PAGE + 10
    (job,) = api.expect(200, "GET", "/v1/jobs?state=failed")["data"]
    assert "retry" in api.post(f"/v1/jobs/{job['job_id']}/requeue").get_json()["detail"]
