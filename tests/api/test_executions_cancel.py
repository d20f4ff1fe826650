"""POST /v1/executions/{id}/cancel, and GET of a list."""

from shared import db
from shared.domain import leases
from tests.support import LEASE_SECONDS, OWNER, Api, Drain, make_prompt, run_body
from worker.recording import record
from worker.steps import Canceled
from worker.tasks import STEPS


def test_a_queued_execution_is_canceled_at_once_and_never_runs(api: Api, drain: Drain) -> None:
    make_prompt(api)
    execution_id = api.expect(202, "POST", "/v1/executions:submit", run_body())["execution_id"]

    canceled = api.expect(200, "POST", f"/v1/executions/{execution_id}/cancel")

    assert canceled["status"] == "canceled"
    assert drain() == 0


def test_a_running_execution_is_asked_to_stop_and_stops_at_the_heartbeat(api: Api, drain: Drain) -> None:
    make_prompt(api)
    execution_id = api.expect(202, "POST", "/v1/executions:submit", run_body())["execution_id"]
    (lease,) = drain.claim()

    asked = api.expect(202, "POST", f"/v1/executions/{execution_id}/cancel")
    with db.transaction() as session:
        beat = leases.renew(session, OWNER, [lease], lease_seconds=LEASE_SECONDS)
    record(STEPS, [(lease, Canceled(started=True))])

    assert asked["status"] == "running"
    assert asked["job"]["cancel_requested"] is True
    assert beat.cancel_requested == {lease.job_id}
    stored = api.expect(200, "GET", f"/v1/executions/{execution_id}")
    assert stored["status"] == "canceled"
    assert stored["ambiguous_attempts"] == 1  # its call may have been answered, and billed


def test_an_execution_that_has_ended_stays_as_it_is(api: Api, drain: Drain) -> None:
    make_prompt(api)
    execution_id = api.expect(202, "POST", "/v1/executions:submit", run_body())["execution_id"]
    drain()

    problem = api.expect(409, "POST", f"/v1/executions/{execution_id}/cancel")

    assert "succeeded" in problem["detail"]
    assert api.expect(200, "GET", f"/v1/executions/{execution_id}")["status"] == "succeeded"


def test_a_second_cancel_answers_like_the_first(api: Api) -> None:
    make_prompt(api)
    execution_id = api.expect(202, "POST", "/v1/executions:submit", run_body())["execution_id"]

    first = api.expect(200, "POST", f"/v1/executions/{execution_id}/cancel")
    second = api.expect(200, "POST", f"/v1/executions/{execution_id}/cancel")

    assert first["status"] == second["status"] == "canceled"


def test_the_list_is_newest_first_filtered_and_paged_without_loss(api: Api, drain: Drain) -> None:
    make_prompt(api)
    make_prompt(api, "other")
    ids = [
        api.expect(202, "POST", "/v1/executions:submit", run_body(environment=env))["execution_id"]
        for env in ("dev", "prod", "dev", "dev", "prod")
    ]
    api.expect(202, "POST", "/v1/executions:submit", run_body("other"))
    drain(most=1)

    seen: list[str] = []
    cursor = ""
    while True:
        page = api.expect(200, "GET", f"/v1/executions?prompt_name=greeter&limit=2{cursor}")
        seen += [item["execution_id"] for item in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    prod = api.expect(200, "GET", "/v1/executions?environment=prod")["data"]
    queued = api.expect(200, "GET", "/v1/executions?status=queued")["data"]

    assert seen == ids[::-1]
    assert [item["execution_id"] for item in prod] == [ids[4], ids[1]]
    assert all(item["status"] == "queued" for item in queued)
