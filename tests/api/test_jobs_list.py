"""GET /v1/jobs and /v1/jobs/{id}: what waits, what runs and what died, to those whose it is."""

from collections.abc import Callable
from typing import Any

import pytest

from shared.domain.tenants import Caller
from shared.models import Queue, Role
from tests.factories import claim, expire_leases, fail, job_of, submit, sweep
from tests.support import Api, Drain, evaluation_body, make_prompt, make_triage, pointers, run_body


def ids(answer: Any) -> list[int]:
    return [row["job_id"] for row in answer["data"]]


def test_jobs_are_listed_newest_first_and_paged_without_loss(api: Api, admin: Caller) -> None:
    made = [job_of(execution_id).id for execution_id in submit(admin, 5)]

    seen: list[int] = []
    cursor = ""
    while cursor is not None:
        page = api.expect(200, "GET", f"/v1/jobs?limit=2{cursor}")
        seen += ids(page)
        cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"

    assert seen == made[::-1]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("state=failed", ["refused", "unpaid"]),
        ("state=queued", ["waits", "urgent"]),
        ("queue=interactive", ["urgent"]),
        ("kind=evaluation", []),
        ("error=insufficient_quota", ["unpaid"]),
        ("state=failed&error=bad_request&queue=executions&kind=execution", ["refused"]),
    ],
)
def test_a_filter_leaves_what_it_says(api: Api, admin: Caller, query: str, expected: list[str]) -> None:
    refused, unpaid, waits = submit(admin, 3)
    (urgent,) = submit(admin, queue=Queue.INTERACTIVE)
    fail(refused)
    fail(unpaid, code="insufficient_quota")
    names = {str(refused): "refused", str(unpaid): "unpaid", str(waits): "waits", str(urgent): "urgent"}

    found = api.expect(200, "GET", f"/v1/jobs?{query}")["data"]

    assert {names[row["subject_id"]] for row in found} == set(expected)


@pytest.mark.parametrize("query", ["state=dead", "queue=nope", "kind=nope", "error=", "limit=0", "cursor=nope"])
def test_a_filter_that_makes_no_sense_is_named(api: Api, query: str) -> None:
    answer = api.get(f"/v1/jobs?{query}")

    assert (answer.status_code, pointers(answer)) == (422, [f"?{query.partition('=')[0]}"])


def test_a_running_job_shows_who_works_on_it_and_until_when(api: Api, admin: Caller) -> None:
    (execution_id,) = submit(admin)
    (lease,) = claim("worker:7")

    shown = api.expect(200, "GET", f"/v1/jobs/{lease.job_id}")

    assert (shown["state"], shown["lease"]["owner"]) == ("running", "worker:7")
    assert shown["lease"]["expires_at"] > shown["lease"]["acquired_at"]
    assert shown["subject_url"] == f"/v1/executions/{execution_id}"


def test_a_dead_job_shows_its_counters_and_why_it_died(api: Api, admin: Caller) -> None:
    (execution_id,) = submit(admin)
    claim()
    expire_leases()
    sweep()
    (job_id,) = fail(execution_id)

    shown = api.expect(200, "GET", f"/v1/jobs/{job_id}")

    assert (shown["state"], shown["attempts"], shown["losses"], shown["deferrals"]) == ("failed", 1, 1, 0)
    assert (shown["error"], shown["error_message"]) == ("bad_request", "the provider said bad_request")
    assert shown["finished_at"] is not None
    assert (shown["lease"], shown["retry_of"], shown["requeued_as"]) == (None, None, None)


def test_a_step_of_a_run_leads_to_the_run(api: Api, drain: Drain) -> None:
    make_triage(api, cases=1)
    run = api.expect(202, "POST", "/v1/evaluations", evaluation_body())

    (row,) = api.expect(200, "GET", "/v1/jobs?kind=evaluation")["data"]

    assert (row["subject_url"], row["step_no"]) == (f"/v1/evaluations/{run['evaluation_id']}", 1)


def test_nobody_sees_a_job_of_another_workspace_or_project(api: Api, as_user: Callable[..., Api]) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    make_prompt(api)
    make_prompt(api, project="atlas")
    hidden = api.expect(202, "POST", "/v1/executions:submit", run_body())["execution_id"]
    of_atlas = api.expect(202, "POST", "/v1/executions:submit", run_body(project="atlas"))["execution_id"]
    stranger = as_user(workspace="elsewhere", role=Role.ADMIN)
    limited = as_user(projects=["atlas"])

    everything = api.expect(200, "GET", "/v1/jobs")["data"]
    hidden_id = next(row["job_id"] for row in everything if row["subject_id"] == hidden)

    assert len(everything) == 2
    assert ids(stranger.expect(200, "GET", "/v1/jobs")) == []
    assert [row["subject_id"] for row in limited.expect(200, "GET", "/v1/jobs")["data"]] == [of_atlas]
    for other in (stranger, limited):
        other.expect(404, "GET", f"/v1/jobs/{hidden_id}")
        other.expect(404, "POST", f"/v1/jobs/{hidden_id}/requeue")


@pytest.mark.parametrize("job_id", [0, 10**9, 2**63 - 1, 2**63, 10**40])
def test_a_job_that_does_not_exist_is_a_404(api: Api, job_id: int) -> None:
    api.expect(404, "GET", f"/v1/jobs/{job_id}")
    api.expect(404, "POST", f"/v1/jobs/{job_id}/requeue")
