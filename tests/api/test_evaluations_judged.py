"""Evaluations whose scorers ask models: a second wave of calls, in the ledger and under the budget like the first."""

import json
import uuid
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.models import Budget, Call, Evaluation, Execution, State, WorkItem
from tests.judged import EMBEDDING, JUDGE, calls_by_purpose, evaluate, fail_some, read, results
from tests.support import Api, Drain, evaluation_body, make_triage, optimization_body, pointers
from worker.providers import Answer
from worker.recording import record
from worker.tasks import STEPS


def test_a_judge_is_asked_about_each_answer_and_its_reason_is_kept(api: Api, drain: Drain) -> None:
    make_triage(api, cases=12)

    done = evaluate(api, drain, scorers=[{**JUDGE, "votes": 3}], budget={"max_cost_usd": 1})

    rows = results(api, done)
    assert done["status"] == "succeeded"
    assert calls_by_purpose() == {"evaluation": 12, "judge": 36}
    assert (done["spent"]["task_calls"], done["spent"]["judge_calls"]) == (12, 36)
    assert [row["ordinal"] for row in rows] == list(range(1, 13))
    scored = [row for row in rows if row["score"] is not None]
    assert len(scored) == done["aggregate"]["scored"] >= 10
    assert {row["score"] for row in scored} <= {0, 1 / 3, 2 / 3, 1}
    for row in scored:
        (part,) = row["details"]["parts"]
        assert len(part["votes"]) == 3
        assert all(vote["reason"] for vote in part["votes"])
        assert row["score"] == pytest.approx(sum(vote["scores"]["right"] for vote in part["votes"]) / 3)


def test_what_judges_cost_is_in_what_was_spent_and_in_the_budget(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)

    done = evaluate(api, drain, scorers=[JUDGE, EMBEDDING], budget={"max_cost_usd": 1})

    with db.reading() as session:
        budget = session.scalars(sa.select(Budget)).one()
        cost = int(session.scalar(sa.select(sa.func.sum(Execution.cost_nano))) or 0)
        outside = session.scalar(
            sa.select(sa.func.count()).where(~sa.exists().where(Call.execution_id == Execution.id))
        )
    asked = calls_by_purpose()
    assert asked["judge"] == 10
    assert 10 < asked["embedding"] <= 20  # an expected text is embedded once, whoever has it
    assert done["spent"]["judge_calls"] == budget.spent_judge_calls == asked["judge"] + asked["embedding"]
    assert done["spent"]["cost_usd"] == budget.spent_nano / 1e9 == cost / 1e9
    assert (budget.reserved_judge_calls, budget.spent_task_calls, outside) == (0, 10, 0)


def test_embeddings_tell_a_like_answer_from_an_unlike_one(api: Api, drain: Drain) -> None:
    make_triage(api, cases=30)

    done = evaluate(api, drain, scorers=[EMBEDDING, {"type": "json_fields"}])

    rows = results(api, done)
    by_match: dict[bool, list[float]] = {True: [], False: []}
    for row in rows:
        embedding, fields = row["details"]["parts"]
        by_match[fields["score"] == 1].append(embedding["score"])
    assert min(by_match[True]) > sum(by_match[False]) / len(by_match[False])
    with db.reading() as session:
        vectors = session.scalars(sa.select(Execution).where(Execution.purpose == "embedding")).all()
    assert all(len(vector.response_text or "") < 1_500 for vector in vectors)
    assert {vector.response_tokens for vector in vectors} == {0}


def test_a_judge_call_that_failed_is_a_missing_score_and_no_zero(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body(scorers=[JUDGE]))
    drain(most=12)  # fan-out, ten answers, and the step that asks

    fail_some(drain, 3)

    done = read(api, started)
    missing = [row for row in results(api, done) if row["score"] is None]
    assert done["aggregate"]["missing_by_error"]["bad_request"] == 3
    assert done["aggregate"]["scored"] == 10 - done["aggregate"]["missing"]
    assert all(row["output"] and row["passed"] is None for row in missing)
    assert "no score: the judge call failed (bad_request)" in [row["feedback"] for row in missing]


def test_a_reply_that_cannot_be_read_is_missing_and_is_asked_again_by_a_retry(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body(scorers=[JUDGE]))
    drain(most=12)
    record(STEPS, [(lease, Answer("Rather not.", 5, 5, 1)) for lease in drain.claim(limit=2)])
    drain()
    first = read(api, started)
    before = calls_by_purpose()

    again = api.expect(202, "POST", f"/v1/evaluations/{started['evaluation_id']}/retry", {})
    drain()

    done, after = read(api, again), calls_by_purpose()
    unreadable = first["aggregate"]["missing_by_error"]["judge_unreadable"]
    assert unreadable >= 2
    assert after["judge"] - before["judge"] == unreadable
    assert after["evaluation"] == before["evaluation"]
    assert done["aggregate"]["missing"] <= unreadable - 2


def test_judges_stop_at_their_ceiling_and_what_they_did_not_judge_is_missing(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    body = evaluation_body(scorers=[JUDGE], budget={"max_judge_calls": 4})
    started = api.expect(202, "POST", "/v1/evaluations", body)

    for _ in range(4):  # each refused claim ends a drain
        drain()

    done = read(api, started)
    assert done["spent"]["judge_calls"] == 4
    assert done["aggregate"]["missing_by_error"]["budget_exceeded"] == 6


def test_pairwise_asks_twice_for_each_vote(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    pairwise = {**JUDGE, "mode": "pairwise", "votes": 2}

    done = evaluate(api, drain, scorers=[pairwise])

    alike = sum(row["output"] == json.dumps(row["expected"], sort_keys=True) for row in results(api, done))
    assert calls_by_purpose()["judge"] == 40 - 2 * alike  # one that is the reference asks the same in both orders
    assert 0 <= done["aggregate"]["score"] <= 1


def test_a_cancel_between_the_waves_makes_no_call_of_a_judge(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body(scorers=[JUDGE]))
    drain(most=12)

    api.expect(200, "POST", f"/v1/evaluations/{started['evaluation_id']}/cancel")

    assert drain() == 0
    with db.reading() as session:
        states = session.scalars(sa.select(Execution.state).where(Execution.purpose == "judge")).all()
    assert set(states) == {State.CANCELED}


def test_units_of_judges_are_no_results_and_are_removed_with_their_project(api: Api, drain: Drain) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    make_triage(api, cases=10)
    evaluate(api, drain, scorers=[JUDGE])

    with db.reading() as session:
        kinds = dict(session.execute(sa.select(WorkItem.kind, sa.func.count()).group_by(WorkItem.kind)).all())

    assert kinds == {"evaluate": 10, "judge": 10}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"scorers": [{**JUDGE, "model": {"provider": "nobody", "model_name": "x"}}]}, "/scorers/0/model/provider"),
        ({"scorers": [{"type": "composite", "parts": [{**JUDGE, "model": {"provider": "nobody", "model_name": "x"}}]}]},
         "/scorers/0/parts/0/model/provider"),
        ({"scorers": [{**JUDGE, "votes": 10}]}, "/scorers/0/votes"),
        ({"scorers": [{**JUDGE, "model": {"provider": "openai", "model_name": "who-knows"}}],
          "budget": {"max_cost_usd": 1}}, "/budget/max_cost_usd"),
        ({"scorers": [{"type": "cost", "limit_usd": 1}], "model": {"provider": "openai", "model_name": "who-knows"}},
         "/scorers"),
        ({"scorers": [{"type": "numeric"}]}, "/dataset"),
        ({"budget": {"max_judge_calls": 0}}, "/budget/max_judge_calls"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_refused_before_anything_is_paid(
    api: Api, change: dict[str, Any], pointer: str
) -> None:
    make_triage(api, cases=10)

    answer = api.post("/v1/evaluations", evaluation_body(**change))

    assert answer.status_code == 422, answer.get_data(as_text=True)
    assert pointers(answer) == [pointer]
    with db.reading() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Evaluation)) == 0


def test_more_questions_than_a_fleet_should_be_asked_are_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from shared.domain import evaluations

    monkeypatch.setattr(evaluations, "MAX_QUESTIONS", 89)
    make_triage(api, cases=10)

    answer = api.post("/v1/evaluations", evaluation_body(scorers=[{**JUDGE, "votes": 9}]))

    assert pointers(answer) == ["/scorers"]
    assert "asked 90 times" in answer.get_json()["detail"]


# ---- optimizations -------------------------------------------------------------------------------


def test_a_search_hears_of_no_answer_before_it_is_judged(api: Api, drain: Drain) -> None:
    make_triage(api, cases=24)

    started = api.expect(202, "POST", "/v1/optimizations", optimization_body(scorers=[JUDGE]))
    drain()

    done = api.expect(200, "GET", f"/v1/optimizations/{started['optimization_id']}")
    asked = calls_by_purpose()
    assert done["status"] == "succeeded", done["error_message"]
    assert done["result"]["verdict"]
    assert asked["judge"] > 24
    assert done["spent"]["judge_calls"] == asked["judge"]
    with db.reading() as session:
        answered = session.execute(
            sa.select(WorkItem.score, WorkItem.feedback)
            .join(Execution, Execution.id == WorkItem.execution_id)
            .where(WorkItem.kind == "evaluate", Execution.state == State.SUCCEEDED)
        ).all()
        own = session.scalar(
            sa.select(sa.func.count())
            .select_from(WorkItem)
            .where(WorkItem.scope_id == uuid.UUID(started["optimization_id"]), WorkItem.kind == "judge")
        )
    assert own
    assert all(row.score is not None or "no score" in row.feedback for row in answered)
    assert done["progress"]["baseline_score"] is not None


def test_the_same_search_with_a_judge_ends_the_same(api: Api, drain: Drain) -> None:
    make_triage(api, cases=20)
    body = optimization_body(scorers=[JUDGE, {"type": "json_fields"}])

    ends = []
    for _ in range(2):
        started = api.expect(202, "POST", "/v1/optimizations", body)
        drain(most=30)
        drain()
        done = api.expect(200, "GET", f"/v1/optimizations/{started['optimization_id']}")
        candidates = api.expect(200, "GET", f"/v1/optimizations/{started['optimization_id']}/candidates")["data"]
        ends.append((done["result"], [(item["hash"], item["mean"]) for item in candidates]))

    assert ends[0] == ends[1]
