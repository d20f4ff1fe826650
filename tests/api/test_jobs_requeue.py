"""POST /v1/jobs/{id}/requeue and /v1/jobs/requeue: dead work is done again as a new execution, once."""

import threading
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from shared import db
from shared.domain.tenants import Caller
from shared.models import Call, Event, Execution, Job, Queue, Role, State
from tests.factories import claim, execution, fail, job_of, make_budget, submit, waiting_run
from tests.rows import count, everything
from tests.support import API_KEY, Api, Drain, evaluation_body, make_prompt, make_triage, pointers, run_body

KEY = {"Idempotency-Key": "again"}
TOOL = {"type": "function", "function": {"name": "look_up"}}


def requeue(api: Api, job_id: int, status: int = 202, **options: Any) -> Any:
    return api.expect(status, "POST", f"/v1/jobs/{job_id}/requeue", **options)


def requeue_all(api: Api, **which: Any) -> Any:
    return api.expect(200, "POST", "/v1/jobs/requeue", which)


def call_of(execution_id: Any) -> Call:
    with db.reading() as session:
        return session.scalars(sa.select(Call).where(Call.execution_id == uuid.UUID(str(execution_id)))).one()


def dead(api: Api, count: int = 1, **fields: Any) -> list[tuple[str, int]]:
    """(execution id, job id) of so many executions of a prompt that failed."""
    make_prompt(api, tools=[TOOL], response_schema={"type": "object"})
    ids = [api.expect(202, "POST", "/v1/executions:submit", run_body(**fields))["execution_id"] for _ in range(count)]
    return list(zip(ids, fail(*ids), strict=True))


def test_a_requeued_execution_is_a_new_one_with_everything_that_was_decided(api: Api, drain: Drain) -> None:
    ((old_id, job_id),) = dead(api, correlation_id="order-7", environment="prod", params={"temperature": 0.5})

    answer = api.post(f"/v1/jobs/{job_id}/requeue")
    drain()

    made = answer.get_json()
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/executions/{made['execution_id']}")
    old, new = (api.expect(200, "GET", f"/v1/executions/{id_}") for id_ in (old_id, made["execution_id"]))
    same = "prompt_id version_id project_id provider model_name params variables messages tools response_schema"
    decided = [*same.split(), "environment", "purpose"]
    assert {name: new[name] for name in decided} == {name: old[name] for name in decided}
    assert new["tools"] == [TOOL]
    assert (new["status"], new["correlation_id"], new["attempts"]) == ("succeeded", "order-7", 1)
    assert new["request_id"] == answer.headers["X-Request-Id"]
    assert new["cost_usd"] > 0


def test_budget_estimate_and_price_are_those_of_the_dead_one(api: Api, admin: Caller) -> None:
    budget_id = make_budget(admin, max_tokens=10_000)
    (old_id,) = submit(admin, budget_id=budget_id, sample=3)
    (job_id,) = fail(old_id)

    new_id = uuid.UUID(requeue(api, job_id)["execution_id"])

    old, new = execution(old_id), execution(new_id)
    for name in "budget_id estimate_tokens estimate_nano input_nano_per_mtok output_nano_per_mtok sample".split():
        assert getattr(new, name) == getattr(old, name), name
    assert new.estimate_nano > 0
    assert job_of(new_id).budget_id == budget_id


def test_the_dead_ones_stay_as_they_are(api: Api) -> None:
    """I5."""
    ((old_id, job_id),) = dead(api)
    before = (vars_of(execution(uuid.UUID(old_id))), vars_of(job_of(uuid.UUID(old_id))), vars_of(call_of(old_id)))

    requeue(api, job_id)

    assert (
        vars_of(execution(uuid.UUID(old_id))),
        vars_of(job_of(uuid.UUID(old_id))),
        vars_of(call_of(old_id)),
    ) == before


def vars_of(row: Any) -> dict[str, Any]:
    return {column.name: getattr(row, column.name) for column in row.__table__.columns}


def test_the_new_execution_is_the_next_generation_of_the_call_in_the_ledger(api: Api) -> None:
    """I3."""
    ((old_id, job_id),) = dead(api)

    first = requeue(api, job_id)
    (second_job,) = fail(first["execution_id"])
    second = requeue(api, second_job)

    calls = [call_of(id_) for id_ in (old_id, first["execution_id"], second["execution_id"])]
    assert [call.generation for call in calls] == [0, 1, 2]
    assert len({(call.scope_id, call.call_key) for call in calls}) == 1


def test_each_execution_and_job_names_the_one_before_and_the_one_after(api: Api) -> None:
    ((old_id, job_id),) = dead(api)

    made = requeue(api, job_id)

    old, new = (api.expect(200, "GET", f"/v1/executions/{id_}") for id_ in (old_id, made["execution_id"]))
    assert (old["retry_of"], old["retried_as"]) == (None, made["execution_id"])
    assert (new["retry_of"], new["retried_as"]) == (old_id, None)
    assert api.expect(200, "GET", f"/v1/jobs/{job_id}")["requeued_as"] == made["requeued_as"]
    assert api.expect(200, "GET", f"/v1/jobs/{made['requeued_as']}")["retry_of"] == job_id


def test_who_requeued_it_stands_in_the_event(api: Api, as_user: Callable[..., Api]) -> None:
    """I8."""
    ((old_id, job_id),) = dead(api)
    editor = as_user(user="eve", role=Role.EDITOR)

    made = requeue(editor, job_id)

    with db.reading() as session:
        event = session.scalars(sa.select(Event).where(Event.subject_id == uuid.UUID(made["execution_id"]))).one()
        assert (event.type, event.actor, event.data) == ("execution.queued", "eve", {"retry_of": old_id})
    assert api.expect(200, "GET", f"/v1/executions/{made['execution_id']}")["created_by"] == "eve"


def test_what_died_in_the_interactive_lane_comes_back_as_batch_work(api: Api) -> None:
    make_prompt(api)
    run = api.expect(202, "POST", "/v1/executions:run", run_body(), headers={"Prefer": "wait=0"})
    (job_id,) = fail(run["execution_id"])

    made = requeue(api, job_id)

    assert job_of(uuid.UUID(made["execution_id"])).queue == Queue.EXECUTIONS
    assert api.expect(200, "GET", f"/v1/executions/{made['execution_id']}")["mode"] == "async"


@pytest.mark.parametrize("end", ["queued", "running", "succeeded"])
def test_a_dead_job_is_not_requeued_while_its_successor_is_open_or_has_succeeded(
    api: Api, drain: Drain, end: str
) -> None:
    ((_, job_id),) = dead(api)
    made = requeue(api, job_id)
    if end == "running":
        claim()
    elif end == "succeeded":
        drain()
    before = everything()

    problem = requeue(api, job_id, 409)

    assert made["execution_id"] in problem["detail"]
    assert end in problem["detail"]
    assert everything() == before


@pytest.mark.parametrize("end", ["failed", "canceled"])
def test_it_is_requeued_again_once_its_successor_has_come_to_nothing(api: Api, drain: Drain, end: str) -> None:
    ((_, job_id),) = dead(api)
    first = requeue(api, job_id)
    if end == "failed":
        fail(first["execution_id"])
    else:
        api.expect(200, "POST", f"/v1/executions/{first['execution_id']}/cancel")

    second = requeue(api, job_id)

    assert call_of(second["execution_id"]).generation == 2
    assert api.expect(200, "GET", f"/v1/jobs/{job_id}")["requeued_as"] == second["requeued_as"]


def test_a_dead_successor_is_not_requeued_beside_another_that_is_open(api: Api) -> None:
    ((_, job_id),) = dead(api)
    (first_job,) = fail(requeue(api, job_id)["execution_id"])
    second = requeue(api, job_id)

    problem = requeue(api, first_job, 409)

    assert second["execution_id"] in problem["detail"]


@pytest.mark.parametrize("state", ["queued", "running", "succeeded", "canceled"])
def test_only_what_has_failed_is_requeued(api: Api, drain: Drain, state: str) -> None:
    make_prompt(api)
    execution_id = api.expect(202, "POST", "/v1/executions:submit", run_body())["execution_id"]
    if state == "running":
        claim()
    elif state == "succeeded":
        drain()
    elif state == "canceled":
        api.expect(200, "POST", f"/v1/executions/{execution_id}/cancel")
    before = everything()

    problem = requeue(api, job_of(uuid.UUID(execution_id)).id, 409)

    assert f"the job is {state}" in problem["detail"]
    assert everything() == before


def test_a_call_of_a_run_is_refused_for_the_run_went_on_without_it(api: Api, admin: Caller) -> None:
    """Its barrier has been counted down; a second end of the call would count it again."""
    run_id = waiting_run(admin, 2)
    with db.reading() as session:
        first = session.scalars(sa.select(Execution.id).where(Execution.scope_id == run_id).limit(1)).one()
    (job_id,) = fail(first)
    before = everything()

    problem = requeue(api, job_id, 409)

    assert f"/v1/evaluations/{run_id}" in problem["detail"]
    assert problem["detail"].endswith("retry that")
    assert everything() == before


def test_a_dead_step_is_refused_with_what_to_do_instead(api: Api, drain: Drain) -> None:
    make_triage(api, cases=1)
    run = api.expect(202, "POST", "/v1/evaluations", evaluation_body())
    (job_id,) = fail(run["evaluation_id"])

    problem = requeue(api, job_id, 409)

    assert problem["detail"].endswith("retry that")
    assert f"/v1/evaluations/{run['evaluation_id']}" in problem["detail"]


def test_twenty_who_requeue_the_same_job_at_once_make_one_execution(api: Api, flask_client: FlaskClient) -> None:
    ((_, job_id),) = dead(api)
    statuses: Counter[int] = Counter()
    start = threading.Barrier(20)

    def work() -> None:
        other = Api(flask_client.application.test_client(), API_KEY)
        start.wait()
        statuses[other.post(f"/v1/jobs/{job_id}/requeue").status_code] += 1

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses == {202: 1, 409: 19}
    assert count(Execution) == 2


def test_a_repeated_requeue_with_its_key_is_replayed(api: Api) -> None:
    """I7, and without the key the second is refused."""
    ((_, job_id),) = dead(api)
    first = api.post(f"/v1/jobs/{job_id}/requeue", headers=KEY)

    second = api.post(f"/v1/jobs/{job_id}/requeue", headers=KEY)

    assert second.get_json() == first.get_json()
    assert second.headers["Idempotent-Replayed"] == "true"
    assert second.headers["Location"] == first.headers["Location"]
    requeue(api, job_id, 409)
    assert count(Execution) == 2


def test_a_bulk_requeue_takes_the_oldest_up_to_its_limit_and_is_repeated_until_none_is_left(
    api: Api, drain: Drain
) -> None:
    jobs = [job_id for _, job_id in dead(api, 5)]

    answers = [requeue_all(api, limit=2) for _ in range(4)]

    assert [answer["requeued"] for answer in answers] == [2, 2, 1, 0]
    assert [row["job_id"] for answer in answers for row in answer["data"]] == jobs
    assert all(answer["refused"] == [] for answer in answers)
    assert drain() == 5


def test_a_bulk_requeue_takes_of_a_lineage_only_its_newest(api: Api) -> None:
    """Both are dead; requeueing both would do the work twice."""
    ((_, job_id),) = dead(api)
    made = requeue(api, job_id)
    (second_job,) = fail(made["execution_id"])

    answer = requeue_all(api)

    assert [row["job_id"] for row in answer["data"]] == [second_job]


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ({}, ["early", "late", "unpaid"]),
        ({"error": "insufficient_quota"}, ["unpaid"]),
        ({"queue": "interactive"}, []),
        ({"queue": "executions", "kind": "execution", "error": "bad_request"}, ["early", "late"]),
        ({"kind": "optimization"}, []),
        ({"failed_before": "MIDDLE"}, ["early"]),
    ],
)
def test_a_bulk_requeue_takes_only_what_its_filter_names(api: Api, which: dict[str, Any], expected: list[str]) -> None:
    ((early, _), (late, _), (unpaid, _)) = make_three(api)
    with db.reading() as session:
        middle = session.scalars(sa.select(Job.finished_at).where(Job.subject_id == uuid.UUID(late))).one()
    assert middle is not None
    names = {job_of(uuid.UUID(id_)).id: name for id_, name in ((early, "early"), (late, "late"), (unpaid, "unpaid"))}

    answer = requeue_all(
        api, **{name: middle.isoformat() if value == "MIDDLE" else value for name, value in which.items()}
    )

    assert [names[row["job_id"]] for row in answer["data"]] == expected


def make_three(api: Api) -> list[tuple[str, int]]:
    """Two that the provider refused, one after the other, and one that failed for another reason after them."""
    make_prompt(api)
    made = []
    for minute, code in enumerate(("bad_request", "bad_request", "insufficient_quota")):
        db.offset_clock(60 * minute)
        execution_id = api.expect(202, "POST", "/v1/executions:submit", run_body())["execution_id"]
        made.append((execution_id, fail(execution_id, code=code)[0]))
    return made


def test_what_a_bulk_requeue_refuses_is_named_with_the_reason_and_takes_no_place_of_the_others(
    api: Api, admin: Caller
) -> None:
    run_id = waiting_run(admin, 3)
    with db.reading() as session:
        calls = session.scalars(sa.select(Execution.id).where(Execution.scope_id == run_id)).all()
    of_run = fail(*calls)
    ((_, job_id),) = dead(api)

    answer = requeue_all(api, limit=1)

    assert [row["job_id"] for row in answer["data"]] == [job_id]
    assert sorted(row["job_id"] for row in answer["refused"]) == sorted(of_run)
    assert all(str(run_id) in row["reason"] for row in answer["refused"])


def test_a_bulk_requeue_with_its_key_is_done_once(api: Api) -> None:
    dead(api, 2)
    body = {"error": "bad_request", "failed_before": "2100-01-01T00:00:00+00:00"}

    first, second = (api.post("/v1/jobs/requeue", body, headers=KEY) for _ in range(2))

    assert second.get_json() == first.get_json()
    assert second.headers["Idempotent-Replayed"] == "true"
    assert count(Execution) == 4


def test_a_bulk_requeue_touches_no_other_workspace_and_no_other_project(api: Api, as_user: Callable[..., Api]) -> None:
    """I10."""
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    dead(api, 2)
    others = [as_user(workspace="elsewhere", role=Role.ADMIN), as_user(projects=["atlas"], role=Role.ADMIN)]
    before = everything()

    answers = [requeue_all(other) for other in others]

    assert [(answer["requeued"], answer["refused"]) for answer in answers] == [(0, []), (0, [])]
    assert everything() == before


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"limit": 0}, "/limit"),
        ({"limit": 1001}, "/limit"),
        ({"limit": "5"}, "/limit"),
        ({"queue": "nope"}, "/queue"),
        ({"kind": "nope"}, "/kind"),
        ({"error": ""}, "/error"),
        ({"failed_before": "yesterday"}, "/failed_before"),
        ({"failed_before": "2026-01-01T00:00:00"}, "/failed_before"),
        ({"failed_before": "0001-01-01T00:00:00+14:00"}, "/failed_before"),
        ({"state": "failed"}, "/state"),
    ],
)
def test_a_filter_that_makes_no_sense_is_named(api: Api, body: Any, pointer: str) -> None:
    dead(api)
    before = everything()

    answer = api.post("/v1/jobs/requeue", body)

    assert (answer.status_code, pointers(answer)) == (422, [pointer])
    assert everything() == before


@pytest.mark.parametrize("path", ["/v1/jobs/{}/requeue", "/v1/jobs/requeue"])
def test_nothing_is_requeued_into_a_draining_queue(api: Api, path: str) -> None:
    ((_, job_id),) = dead(api)
    api.expect(200, "POST", "/v1/queues/executions/drain")
    before = everything()

    answer = api.post(path.format(job_id), None if "{}" in path else {})

    assert (answer.status_code, answer.get_json()["code"]) == (503, "queue_draining")
    assert everything() == before


def test_the_state_of_the_new_execution_is_its_own(api: Api, drain: Drain) -> None:
    ((old_id, job_id),) = dead(api)

    made = requeue(api, job_id)

    new = execution(uuid.UUID(made["execution_id"]))
    assert (new.state, new.attempts, new.error_type, new.completed_at) == (State.QUEUED, 0, None, None)
    drain()
    assert execution(uuid.UUID(old_id)).state == State.FAILED
