"""/v1/status says what is true of a workspace's work and of the fleet (I10, I12)."""

import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.domain import leases, status
from shared.domain.tenants import Caller
from shared.models import Job, Queue
from tests.factories import claim, expire_leases, make_budget, submit, waiting_run
from tests.support import Api, Drain, make_prompt, run_body

NOTHING = {
    "queue_depth": dict.fromkeys(["interactive", "maintenance", "optimizations", "deliveries", "executions"], 0),
    "queue_depth_by_kind": {
        "execution": 0,
        "evaluation": 0,
        "optimization": 0,
        "replay": 0,
        "generation": 0,
        "bulk": 0,
    },
    "running": 0,
    "running_by_kind": {"execution": 0, "evaluation": 0, "optimization": 0, "replay": 0, "generation": 0, "bulk": 0},
    "by_status": {"queued": 0, "running": 0},
    "blocked_by_budget": 0,
    "oldest_due_seconds": None,
    "oldest_queued_seconds": None,
    "leases": {"active": 0, "expiring_soon": 0, "stale": 0},
    "recent": {"succeeded": 0, "failed": 0, "canceled": 0},
    "avg_processing_time_seconds": None,
    "success_rate": None,
    "warnings": [],
}


def check_in(*queues: Queue) -> None:
    with db.transaction() as session:
        leases.check_in(session, "worker:1", queues or list(Queue), 4)
        leases.take_turn(session, "sweep", every_seconds=0)
        leases.end_turn(session, "sweep")


def status_of(api: Api, *, warn_seconds: float = 30) -> Any:
    return api.expect(200, "GET", f"/v1/status?warn_seconds={warn_seconds}")


def set_jobs(execution_id: uuid.UUID, **values: Any) -> None:
    with db.transaction() as session:
        session.execute(sa.update(Job).where(Job.subject_id == execution_id).values(**values))


def test_a_worker_that_has_stopped_beating_is_not_a_consumer(api: Api) -> None:
    check_in()
    db.offset_clock(120)

    consumers = api.expect(200, "GET", "/v1/status")["consumers"]

    assert set(consumers.values()) == {0}


def test_status_counts_what_waits_and_what_runs(api: Api, drain: Drain) -> None:
    make_prompt(api)
    for _ in range(3):
        api.expect(202, "POST", "/v1/executions:submit", run_body())
    drain.claim(limit=1)
    db.offset_clock(45)

    status = api.expect(200, "GET", "/v1/status?warn_seconds=30")

    assert status["queue_depth"]["executions"] == 2
    assert status["running"] == 1
    assert status["leases"] == {"active": 1, "expiring_soon": 1, "stale": 0}
    assert status["oldest_due_seconds"] >= 45


def test_status_of_an_installation_without_work_is_all_zeros_and_no_invented_rate(api: Api) -> None:
    check_in()

    found = status_of(api)

    assert {name: found[name] for name in NOTHING} == NOTHING
    assert found["consumers"]["executions"] == 1


def test_status_counts_jobs_by_kind_and_by_state(api: Api, admin: Caller) -> None:
    waiting_run(admin, 3)
    with db.transaction() as session:
        session.execute(
            sa.update(Job)
            .where(Job.id == sa.select(sa.func.min(Job.id)).scalar_subquery())
            .values(kind="evaluation", queue="optimizations")
        )
    claim(limit=1)

    found = status_of(api)

    assert found["queue_depth"]["executions"] == found["queue_depth"]["optimizations"] == 1
    assert found["queue_depth_by_kind"] == {
        "execution": 1,
        "evaluation": 1,
        "optimization": 0,
        "replay": 0,
        "generation": 0,
        "bulk": 0,
    }
    assert found["running_by_kind"] == {
        "execution": 1,
        "evaluation": 0,
        "optimization": 0,
        "replay": 0,
        "generation": 0,
        "bulk": 0,
    }
    assert found["by_status"] == {"queued": 2, "running": 1}


def test_a_key_that_is_limited_to_projects_is_told_of_their_jobs_only(
    api: Api, drain: Drain, as_user: Callable[..., Api]
) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    make_prompt(api)
    make_prompt(api, project="atlas")
    for _ in range(4):
        api.expect(202, "POST", "/v1/executions:submit", run_body())
    drain(most=1)
    drain.claim(limit=2)
    limited = as_user(projects=["atlas"])

    before = status_of(limited)
    api.expect(202, "POST", "/v1/executions:submit", run_body(project="atlas"))
    queued = status_of(limited)
    drain.claim(limit=2)
    running = status_of(limited)

    assert {name: before[name] for name in NOTHING if name != "warnings"} == {
        name: value for name, value in NOTHING.items() if name != "warnings"
    }
    assert (queued["queue_depth"]["executions"], queued["running"]) == (1, 0)
    assert (running["queue_depth"]["executions"], running["running"], running["leases"]["active"]) == (0, 1, 1)
    assert status_of(api)["leases"]["active"] == 4  # two, and the two that the last claim took


def test_a_job_that_is_not_due_counts_and_has_an_age_but_is_not_late(api: Api, admin: Caller) -> None:
    (execution_id,) = submit(admin)
    set_jobs(execution_id, run_at=db.db_now(500), created_at=db.db_now(-70))

    found = status_of(api)

    assert found["queue_depth"]["executions"] == 1
    assert found["oldest_due_seconds"] is None
    assert 70 <= found["oldest_queued_seconds"] < 130
    assert found["warnings"] == []


def test_rates_are_of_the_executions_that_ended_within_the_last_hour(api: Api, drain: Drain) -> None:
    make_prompt(api)
    api.expect(202, "POST", "/v1/executions:submit", run_body())
    drain()
    db.offset_clock(status.RECENT_SECONDS + 60)
    unknown = run_body(model={"provider": "openai", "model_name": "gpt-4o-mini"})  # fails: there is no key
    for body in (run_body(), run_body(variables={"name": "Bo"}), run_body(variables={"name": "Cy"}), unknown):
        api.expect(202, "POST", "/v1/executions:submit", body)
    canceled = api.expect(202, "POST", "/v1/executions:submit", run_body(variables={"name": "Di"}))
    api.expect(200, "POST", f"/v1/executions/{canceled['execution_id']}/cancel")
    drain()

    found = status_of(api)

    assert found["recent"] == {"succeeded": 3, "failed": 1, "canceled": 1}
    assert found["success_rate"] == 75.0


def test_the_average_processing_time_runs_from_the_first_claim_to_the_end(api: Api, drain: Drain) -> None:
    make_prompt(api)
    for name, seconds in (("Ada", 10), ("Bo", 30)):
        api.expect(202, "POST", "/v1/executions:submit", run_body(variables={"name": name}))
        (lease,) = drain.claim()
        db.offset_clock(db._clock_offset_seconds + seconds)
        drain.run(lease)

    found = status_of(api)

    assert 20 <= found["avg_processing_time_seconds"] < 22


def test_rates_look_at_no_more_than_the_newest_events(api: Api, drain: Drain, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ten million finished executions the answer costs the same."""
    make_prompt(api)
    for name in "abcd":
        api.expect(202, "POST", "/v1/executions:submit", run_body(variables={"name": name}))
        drain()
    monkeypatch.setattr(status, "RECENT_EVENTS", 4)  # queued, running and succeeded of one, and the end of another

    found = status_of(api)

    assert found["recent"]["succeeded"] == 2


def test_no_figure_tells_of_the_work_of_another_workspace(
    api: Api, admin: Caller, as_user: Callable[..., Api], drain: Drain
) -> None:
    """I10. Whether consumers exist and the sweep runs is the installation's, and the same for all."""
    stranger = as_user(workspace="elsewhere")
    submit(admin)
    drain()
    submit(admin, 3, queue=Queue.DELIVERIES)
    *_, quarantined = submit(admin, 5)
    claim(limit=2)
    expire_leases()
    submit(admin, 2, budget_id=make_budget(admin, max_task_calls=1))
    set_jobs(quarantined, losses=2)
    claim()
    check_in(Queue.INTERACTIVE)
    mine = status_of(api)
    warned = " ".join(mine["warnings"])
    assert mine["recent"]["succeeded"] == 1
    assert all(word in warned for word in ("no worker consumes", "leases that have expired", "budget", "run alone"))

    found = status_of(stranger)

    assert {name: found[name] for name in NOTHING} == NOTHING
    assert found["consumers"] == mine["consumers"]


def test_it_warns_of_due_work_that_nobody_consumes_and_says_what_to_do(api: Api, admin: Caller) -> None:
    submit(admin)
    db.offset_clock(12)
    check_in(Queue.INTERACTIVE)

    (warning,) = status_of(api)["warnings"]

    assert warning == "queue executions has due work and no worker consumes it: start a worker whose QUEUES name it"


def test_it_warns_of_work_that_has_been_due_for_longer_than_asked(api: Api, admin: Caller) -> None:
    submit(admin)
    db.offset_clock(45)
    check_in()

    patient, impatient = status_of(api, warn_seconds=60), status_of(api, warn_seconds=30)

    assert patient["warnings"] == []
    (warning,) = impatient["warnings"]
    assert "queue executions has work that has been due for 45 s: add workers" in warning


def test_it_warns_of_a_late_sweep_and_of_leases_that_it_has_left(api: Api, admin: Caller) -> None:
    check_in()
    submit(admin)
    claim()
    expire_leases()
    with db.transaction() as session:
        leases.check_in(session, "worker:1", list(Queue), 4)

    found = status_of(api)

    assert found["leases"] == {"active": 1, "expiring_soon": 0, "stale": 1}
    late, stale = found["warnings"]
    assert re.match(r"no sweep for (6[1-9]|[7-9]\d) s", late)  # 61 on an idle machine
    assert "look for sweep_failed" in late
    assert stale.startswith("leases that have expired: 1;")


def test_it_warns_of_jobs_that_their_budget_blocks(api: Api, admin: Caller) -> None:
    check_in()
    submit(admin, 3, budget_id=make_budget(admin, max_task_calls=1))
    claim()

    found = status_of(api)

    assert found["blocked_by_budget"] == found["queue_depth"]["executions"] == 2
    assert found["oldest_due_seconds"] is None
    (warning,) = found["warnings"]
    assert warning.startswith("jobs that their budget cannot afford: 2; cancel")


def test_it_warns_of_jobs_that_run_alone_because_they_lost_their_workers(api: Api, admin: Caller) -> None:
    check_in()
    (execution_id,) = submit(admin)
    set_jobs(execution_id, losses=leases.QUARANTINE_AFTER_LOSSES)

    (warning,) = status_of(api)["warnings"]

    assert warning.startswith("jobs that lost their worker twice and now run alone: 1;")


def test_a_queue_that_only_a_newer_worker_knows_is_shown_and_breaks_nothing(api: Api, admin: Caller) -> None:
    (execution_id,) = submit(admin)
    set_jobs(execution_id, queue="novel", run_at=db.db_now(-60))

    (unserved, *_) = status_of(api)["warnings"]

    assert unserved.startswith("queue novel has due work")
