"""POST /v1/queues/{name}/pause, /drain and /resume, and what GET shows to whom."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from app.admin import main
from shared import db
from shared.domain import leases
from shared.models import Event, Queue, QueueControl, Role
from tests.api.test_status import check_in
from tests.factories import claim
from tests.rows import count, event_data, everything
from tests.support import Api, Drain, batch_body, evaluation_body, make_prompt, make_triage, optimization_body, run_body


def submit(api: Api, count: int = 1) -> list[str]:
    return [api.expect(202, "POST", "/v1/executions:submit", run_body())["execution_id"] for _ in range(count)]


def act(api: Api, action: str, queue: str = "executions") -> Any:
    return api.expect(200, "POST", f"/v1/queues/{queue}/{action}")


def waiting() -> leases.Waiting:
    with db.reading() as session:
        return leases.waiting(session, list(Queue))


def test_nothing_is_claimed_from_a_paused_queue_and_everything_after_it_is_resumed(api: Api, drain: Drain) -> None:
    make_prompt(api)
    submit(api, 2)
    act(api, "pause")

    claimed_while_paused, waiting_while_paused = claim(), waiting()
    act(api, "resume")

    assert claimed_while_paused == []
    assert waiting_while_paused.queues == frozenset()
    assert waiting().queues == {Queue.EXECUTIONS}
    assert drain() == 2


def test_a_paused_queue_accepts_submits_and_lets_other_queues_and_running_work_go_on(api: Api, drain: Drain) -> None:
    make_prompt(api)
    submit(api)
    (running,) = drain.claim()
    act(api, "pause")
    submit(api)
    api.expect(202, "POST", "/v1/executions:run", run_body(), headers={"Prefer": "wait=0"})

    others = drain()
    drain.run(running)

    states = [row["status"] for row in api.expect(200, "GET", "/v1/executions")["data"]]
    assert others == 1
    assert states == ["succeeded", "queued", "succeeded"]


def test_a_quarantined_job_of_a_paused_queue_holds_no_process_back(api: Api) -> None:
    make_prompt(api)
    submit(api)
    with db.transaction() as session:
        session.execute(sa.text("UPDATE jobs SET losses = 2"))
    before = waiting().quarantined

    act(api, "pause")

    assert (before, waiting().quarantined) == (True, False)


def test_a_draining_queue_takes_nothing_new_and_works_off_what_it_has(api: Api, drain: Drain) -> None:
    make_prompt(api)
    submit(api, 2)
    act(api, "drain")
    before = everything()

    answer = api.post("/v1/executions:submit", run_body())

    assert (answer.status_code, answer.get_json()["code"]) == (503, "queue_draining")
    assert int(answer.headers["Retry-After"]) > 0
    assert "executions" in answer.get_json()["detail"]
    assert everything() == before
    assert drain() == 2
    act(api, "resume")
    submit(api)


@pytest.mark.parametrize("queue", ["optimizations", "executions"])
def test_no_run_is_accepted_whose_steps_or_calls_would_enter_a_draining_queue(api: Api, queue: str) -> None:
    make_triage(api, cases=12)
    act(api, "drain", queue)
    before = everything()

    answers = [api.post("/v1/evaluations", evaluation_body()), api.post("/v1/optimizations", optimization_body())]

    assert [answer.get_json()["code"] for answer in answers] == ["queue_draining"] * 2
    assert everything() == before


def test_no_batch_is_accepted_into_a_draining_queue(api: Api) -> None:
    make_prompt(api)
    act(api, "drain")
    before = everything()

    answer = api.post("/v1/executions:batch", batch_body("abc"))

    assert (answer.status_code, answer.get_json()["code"]) == (503, "queue_draining")
    assert everything() == before


@pytest.mark.parametrize(
    ("path", "queue"), [("/v1/executions:run", "interactive"), ("/v1/executions:submit", "executions")]
)
def test_a_drain_closes_only_its_own_queue(api: Api, path: str, queue: str) -> None:
    make_prompt(api)
    for other in set(Queue) - {Queue(queue)}:
        act(api, "drain", other)

    api.expect(202, "POST", path, run_body(), headers={"Prefer": "wait=0"})


def test_runs_in_progress_end_while_their_queues_drain(api: Api, drain: Drain) -> None:
    make_triage(api, cases=12)
    run = api.expect(202, "POST", "/v1/evaluations", evaluation_body())
    for queue in ("executions", "optimizations"):
        act(api, "drain", queue)

    drain()

    stored = api.expect(200, "GET", f"/v1/evaluations/{run['evaluation_id']}")
    assert stored["status"] == "succeeded"
    assert stored["spent"]["task_calls"] == 12


def test_a_request_that_was_accepted_before_the_drain_is_replayed_during_it(api: Api) -> None:
    make_prompt(api)
    key = {"Idempotency-Key": "once"}
    first = api.expect(202, "POST", "/v1/executions:submit", run_body(), headers=key)
    act(api, "drain")

    again = api.expect(202, "POST", "/v1/executions:submit", run_body(), headers=key)

    assert again["execution_id"] == first["execution_id"]


def test_each_action_is_recorded_once_with_who_did_it(api: Api, as_user: Callable[..., Api]) -> None:
    operator = as_user(user="olga", role=Role.OPERATOR)

    for action in ("resume", "pause", "pause", "drain", "resume", "resume"):
        act(operator, action)

    with db.reading() as session:
        seen = session.execute(sa.select(Event.type, Event.actor).where(Event.type.like("queue.%")).order_by(Event.id))
        assert [tuple(row) for row in seen] == [
            ("queue.paused", "olga"),
            ("queue.draining", "olga"),
            ("queue.resumed", "olga"),
        ]
    assert event_data("queue.paused") == [{"queue": "executions", "paused": True}]
    shown = api.expect(200, "GET", "/v1/queues/executions")
    assert (shown["paused"], shown["draining"], shown["updated_by"]) == (False, False, "olga")


def test_a_resume_of_a_queue_that_nobody_touched_leaves_no_row(api: Api) -> None:
    act(api, "resume")

    assert count(QueueControl) == 0


@pytest.mark.parametrize("action", ["pause", "drain", "resume"])
def test_only_those_who_operate_the_fleet_may_steer_it(api: Api, as_user: Callable[..., Api], action: str) -> None:
    others = [as_user(role=Role.EDITOR), as_user(workspace="elsewhere", role=Role.ADMIN)]
    before = everything()

    answers = [other.post(f"/v1/queues/executions/{action}") for other in others]

    assert [answer.status_code for answer in answers] == [403, 403]
    assert "workspace that operates the fleet" in answers[1].get_json()["detail"]
    assert everything() == before


def test_a_queue_that_does_not_exist_is_a_404_that_names_those_that_do(api: Api) -> None:
    for method, path in (("GET", "/v1/queues/nope"), ("POST", "/v1/queues/nope/pause")):
        problem = api.expect(404, method, path)
        assert "interactive" in problem["detail"]
    api.expect(404, "PATCH", "/v1/queues/nope", {"max_running": 1})


def test_the_fleets_operators_see_all_counts_and_others_only_theirs(
    api: Api, as_user: Callable[..., Api], drain: Drain
) -> None:
    check_in()
    make_prompt(api)
    submit(api, 3)
    stranger = as_user(workspace="elsewhere", role=Role.ADMIN)
    make_prompt(stranger)
    submit(stranger)
    drain.claim(limit=1)
    act(api, "pause")
    db.offset_clock(5)

    def shown(to: Api) -> Any:
        return next(row for row in to.expect(200, "GET", "/v1/queues")["data"] if row["name"] == "executions")

    ours, theirs = shown(api), shown(stranger)
    assert (ours["queued"], ours["running"], ours["consumers"], ours["updated_by"]) == (3, 1, 1, "admin")
    assert (theirs["queued"], theirs["running"], theirs["consumers"], theirs["updated_by"]) == (1, 0, None, None)
    assert ours["paused"] is theirs["paused"] is True
    assert 5 <= ours["oldest_due_seconds"] < 60
    assert stranger.expect(200, "GET", "/v1/queues/executions") | {"oldest_due_seconds": 0} == theirs | {
        "oldest_due_seconds": 0
    }


def test_a_key_that_is_limited_to_projects_counts_their_jobs_only(api: Api, as_user: Callable[..., Api]) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    make_prompt(api)
    make_prompt(api, project="atlas")
    submit(api, 2)
    api.expect(202, "POST", "/v1/executions:submit", run_body(project="atlas"))
    limited = as_user(projects=["atlas"], role=Role.ADMIN)

    assert limited.expect(200, "GET", "/v1/queues/executions")["queued"] == 1


def test_the_counts_tell_blocked_and_dead_jobs(api: Api) -> None:
    make_prompt(api)
    submit(api, 3)
    with db.transaction() as session:
        session.execute(
            sa.text("UPDATE jobs SET state = 'failed', finished_at = created_at WHERE id = (SELECT min(id) FROM jobs)")
        )
        session.execute(sa.text("UPDATE jobs SET blocked_by = subject_id WHERE id = (SELECT max(id) FROM jobs)"))

    shown = api.expect(200, "GET", "/v1/queues/executions")

    assert (shown["queued"], shown["dead"]) == (2, 1)


def test_a_paused_queue_is_a_warning_and_does_not_make_ready_red(api: Api) -> None:
    check_in(Queue.INTERACTIVE)
    make_prompt(api)
    submit(api)
    act(api, "pause")
    act(api, "drain", "deliveries")
    db.offset_clock(12)
    check_in(Queue.INTERACTIVE)

    warnings = api.expect(200, "GET", "/v1/status")["warnings"]

    assert api._client.get("/ready").status_code == 200
    assert warnings == [
        "queue executions is paused: nothing is claimed from it",
        "queue deliveries is being drained: it takes nothing new",
    ]


def test_the_command_line_steers_the_queues_too(api: Api) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(main, ["queues", *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    run("pause", "executions")
    run("drain", "executions")
    run("limit", "executions", "7")
    changed = api.expect(200, "GET", "/v1/queues/executions")
    run("resume", "executions")
    run("limit", "executions")
    after = api.expect(200, "GET", "/v1/queues/executions")

    assert (changed["paused"], changed["draining"], changed["max_running"]) == (True, True, 7)
    assert changed["updated_by"].endswith("(app.admin)")
    assert (after["paused"], after["draining"], after["max_running"]) == (False, False, None)
    assert [line.split('"')[3] for line in run("list").splitlines()] == list(Queue)
    assert CliRunner().invoke(main, ["queues", "pause", "nope"]).exit_code == 2
