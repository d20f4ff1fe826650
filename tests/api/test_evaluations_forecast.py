"""`dry_run`: what an evaluation would take, told before anything is written or paid."""

from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.domain import forecasts
from shared.models import Base, Queue
from tests.judged import EMBEDDING, JUDGE, evaluate
from tests.support import Api, Drain, evaluation_body, make_triage


def forecast(api: Api, **fields: Any) -> Any:
    return api.expect(200, "POST", "/v1/evaluations", evaluation_body(dry_run=True, **fields))


def check_in(concurrency: int) -> None:
    from shared.domain import leases

    with db.transaction() as session:
        leases.check_in(session, f"worker:{concurrency}", [Queue.EXECUTIONS], concurrency)


def row_counts() -> dict[str, int]:
    with db.reading() as session:
        return {
            table.name: session.scalar(sa.select(sa.func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
        }


def test_a_dry_run_writes_nothing(api: Api) -> None:
    make_triage(api, cases=10)
    before = row_counts()

    body = evaluation_body(dry_run=True, scorers=[JUDGE])
    answer = api.post("/v1/evaluations", body, headers={"Idempotency-Key": "dry"})

    assert answer.status_code == 200
    assert row_counts() == before


def test_without_a_call_to_go_by_the_range_is_from_nothing_to_the_bound(api: Api) -> None:
    make_triage(api, cases=10)

    found = forecast(api, repeats=2)

    assert (found["cells"], found["task_calls"], found["cached_calls"], found["judge_calls"]) == (20, 20, 0, 0)
    assert found["tokens"]["low"] == 0 < found["tokens"]["high"]
    assert found["cost_usd"]["low"] == 0 < found["cost_usd"]["high"] < 1
    assert (found["seconds"], found["slots"], found["measured_calls"]) == (None, 0, 0)


def test_the_range_of_a_forecast_holds_what_comes(api: Api, drain: Drain) -> None:
    make_triage(api, cases=30)
    evaluate(api, drain)
    check_in(4)
    scorers = [{"type": "json_fields"}, {**JUDGE, "votes": 2}, EMBEDDING]
    evaluate(api, drain, scorers=scorers, fresh=True)  # so that judges have been measured too

    found = forecast(api, scorers=scorers, fresh=True)
    done = evaluate(api, drain, scorers=scorers, fresh=True)

    spent = done["spent"]
    assert found["task_calls"] == spent["task_calls"] == 30
    assert found["judge_calls"] >= spent["judge_calls"] > 60
    assert found["tokens"]["low"] <= spent["tokens"] <= found["tokens"]["high"] < 5 * spent["tokens"]
    assert found["cost_usd"]["low"] <= spent["cost_usd"] <= found["cost_usd"]["high"] < 5 * spent["cost_usd"]
    assert found["measured_calls"] > 60


def test_what_others_had_answered_is_forecast_as_free(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    evaluate(api, drain)

    found = forecast(api)
    fresh = forecast(api, fresh=True)

    assert (found["task_calls"], found["cached_calls"], found["cost_usd"]["high"]) == (0, 10, 0)
    assert (fresh["task_calls"], fresh["cached_calls"]) == (10, 0)


def test_a_budget_needs_to_cover_only_what_is_not_answered_yet(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    evaluate(api, drain)

    assert forecast(api, repeats=2, budget={"max_task_calls": 10})["task_calls"] == 10
    for refused in ({"repeats": 2, "budget": {"max_task_calls": 9}}, {"fresh": True, "budget": {"max_task_calls": 9}}):
        answer = api.post("/v1/evaluations", evaluation_body(dry_run=True, **refused))
        assert (answer.status_code, answer.get_json()["code"]) == (422, "budget_too_small")
        assert "need 10 task calls" in answer.get_json()["detail"]
    done = evaluate(api, drain, repeats=2, budget={"max_task_calls": 10})
    assert (done["status"], done["aggregate"]["missing"], done["spent"]["task_calls"]) == ("succeeded", 0, 10)


def test_time_is_that_of_recent_calls_by_the_slots_of_the_fleet(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    evaluate(api, drain)
    with db.transaction() as session:
        session.execute(sa.text("UPDATE executions SET latency_ms = 2000"))

    check_in(4)
    four = forecast(api, fresh=True)
    check_in(6)
    ten = forecast(api, fresh=True)

    assert (four["slots"], four["seconds"]) == (4, {"low": 5.0, "high": 5.0})
    assert (ten["slots"], ten["seconds"]) == (10, {"low": 2.0, "high": 2.0})


def test_of_many_cells_some_are_looked_at_for_all(api: Api, drain: Drain, monkeypatch: pytest.MonkeyPatch) -> None:
    make_triage(api, cases=40)
    whole = forecast(api, scorers=[JUDGE])
    monkeypatch.setattr(forecasts, "MOST_CELLS", 10)
    monkeypatch.setattr(forecasts, "MOST_JUDGED", 10)

    part = forecast(api, scorers=[JUDGE])

    assert (part["task_calls"], part["judge_calls"]) == (40, 40) == (whole["task_calls"], whole["judge_calls"])
    assert part["tokens"]["high"] == pytest.approx(whole["tokens"]["high"], rel=0.2)


def test_the_cost_of_a_model_without_a_price_is_not_guessed(api: Api) -> None:
    make_triage(api, cases=10)

    found = forecast(api, model={"provider": "openai", "model_name": "who-knows"})

    assert found["cost_usd"] is None
    assert found["tokens"]["high"] > 0


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"dataset": "nothing"}, 404),
        ({"scorers": [{"type": "best"}]}, 422),
        ({"budget": {"max_task_calls": 3}}, 422),
        ({"dry_run": "yes"}, 422),
    ],
)
def test_what_could_not_be_started_is_not_forecast(api: Api, change: dict[str, Any], status: int) -> None:
    make_triage(api, cases=10)

    api.expect(status, "POST", "/v1/evaluations", {**evaluation_body(dry_run=True), **change})


def test_the_calls_to_go_by_are_the_newest_whatever_a_plan_would_find_first(api: Api, drain: Drain) -> None:
    """A LIMIT without an ORDER BY takes any rows."""
    make_triage(api, cases=10)
    evaluate(api, drain)
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        seen.append(" ".join(statement.split()))

    sa.event.listen(db.engine(), "before_cursor_execute", note)
    try:
        found = forecast(api, fresh=True)
    finally:
        sa.event.remove(db.engine(), "before_cursor_execute", note)

    assert found["measured_calls"] == 10
    [asked] = [statement for statement in seen if "estimate_nano" in statement and "AS anon_1" in statement]
    outer = asked.rpartition("AS anon_1")[2]
    assert "ORDER BY anon_1.created_at DESC, anon_1.id DESC LIMIT" in outer
