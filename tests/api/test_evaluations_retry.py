"""Answers that are paid for are not paid for again: cached cells, and retries of what failed."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.models import Budget, Call, Evaluation, Execution
from tests.judged import JUDGE, calls_by_purpose, evaluate, fail_some, read, results
from tests.rows import event_data
from tests.support import MODEL, Api, Drain, evaluation_body, make_prompt, make_triage, optimization_body, pointers


def retry(api: Api, evaluation: Any, **body: Any) -> Any:
    return api.expect(202, "POST", f"/v1/evaluations/{evaluation['evaluation_id']}/retry", body)


def ledger() -> list[int]:
    """The generations of all calls."""
    with db.reading() as session:
        return sorted(session.scalars(sa.select(Call.generation)))


def with_failures(api: Api, drain: Drain, *, failed: int = 3, **fields: Any) -> Any:
    """An evaluation of ten cases of which so many calls failed."""
    make_triage(api, cases=10)
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body(**fields))
    drain(most=1)
    fail_some(drain, failed)
    return read(api, started)


# ---- cached cells --------------------------------------------------------------------------------


def test_an_evaluation_that_was_made_before_costs_nothing(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    first = evaluate(api, drain, scorers=[{"type": "json_fields"}, JUDGE])
    before = calls_by_purpose()

    second = evaluate(api, drain, scorers=[{"type": "json_fields"}, JUDGE], budget={"max_task_calls": 10})

    assert calls_by_purpose() == before
    assert second["spent"] == {
        "task_calls": 0, "proposer_calls": 0, "judge_calls": 0, "tokens": 0, "cost_usd": 0, "ambiguous_attempts": 0
    }  # fmt: skip
    assert (first["aggregate"]["cached"], second["aggregate"]["cached"]) == (0, 10)
    assert second["aggregate"]["judge_calls_cached"] == 10
    assert second["aggregate"]["score"] == first["aggregate"]["score"]
    rows = results(api, second)
    assert all(row["cached"] and row["latency_ms"] is not None for row in rows)
    assert [row["execution_id"] for row in rows] == [row["execution_id"] for row in results(api, first)]
    with db.reading() as session:
        assert session.scalar(sa.select(sa.func.max(Budget.spent_task_calls))) == 0


def test_another_scorer_of_the_same_answers_costs_nothing(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    evaluate(api, drain)

    second = evaluate(api, drain, scorers=[{"type": "f1"}, {"type": "latency", "limit_ms": 10_000}])

    assert second["spent"]["task_calls"] == 0
    assert second["aggregate"]["scored"] == 10


def test_only_the_cells_that_are_new_are_called(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    evaluate(api, drain)
    api.expect(201, "POST", "/v1/datasets/tickets/cases", [{"inputs": {"ticket": "new"}, "expected": {"a": "b"}}])

    more_cases = evaluate(api, drain)
    more_repeats = evaluate(api, drain, repeats=2)

    assert (more_cases["spent"]["task_calls"], more_cases["aggregate"]["cached"]) == (1, 10)
    assert (more_repeats["spent"]["task_calls"], more_repeats["aggregate"]["cached"]) == (11, 11)


def test_a_fresh_evaluation_makes_every_call(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    evaluate(api, drain)

    fresh = evaluate(api, drain, fresh=True)

    assert (fresh["fresh"], fresh["spent"]["task_calls"], fresh["aggregate"]["cached"]) == (True, 10, 0)


def test_what_a_search_has_had_answered_is_free_to_evaluate(api: Api, drain: Drain) -> None:
    make_triage(api, cases=24)
    started = api.expect(202, "POST", "/v1/optimizations", optimization_body())
    drain()
    best = api.expect(200, "GET", f"/v1/optimizations/{started['optimization_id']}")

    # Under the same output limit: a ceiling sets one, and it is part of the call.
    done = evaluate(api, drain, version_number=best["best_version_number"])

    assert done["aggregate"]["cached"] > 0
    assert done["aggregate"]["cached"] + done["spent"]["task_calls"] == 24


def test_a_run_that_may_be_pruned_serves_no_evaluation(api: Api, drain: Drain) -> None:
    make_prompt(api, "plain", template="Say {{ x }}.", model=MODEL)
    api.expect(201, "POST", "/v1/datasets", {"name": "words"})
    api.expect(201, "POST", "/v1/datasets/words/cases", [{"inputs": {"x": "hello"}, "expected": "hello"}])
    run = {"prompt_name": "plain", "variables": {"x": "hello"}}
    api.expect(202, "POST", "/v1/executions:submit", run)
    drain()

    done = evaluate(api, drain, prompt_name="plain", dataset="words", scorers=[{"type": "contains"}])

    assert (done["spent"]["task_calls"], done["aggregate"]["cached"]) == (1, 0)


def test_an_answer_of_another_project_or_workspace_is_never_taken(
    api: Api, drain: Drain, as_user: Callable[..., Api]
) -> None:
    """Else the price of an evaluation would tell what others have asked (I10)."""
    make_triage(api, cases=10)
    evaluate(api, drain)
    other = as_user(workspace="elsewhere")
    make_triage(other, cases=10)

    theirs = evaluate(other, drain)
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    prompt = api.expect(200, "GET", "/v1/prompts/triage/versions/1")
    body = {"template_source": prompt["template_source"], "model": prompt["model"], "set_active": True}
    api.expect(200, "PUT", "/v1/prompts/triage?project=atlas", body)
    api.expect(201, "POST", "/v1/datasets", {"name": "tickets", "project": "atlas"})
    cases = api.expect(200, "GET", "/v1/datasets/tickets/cases?limit=100")["data"]
    rows = [{"inputs": case["inputs"], "expected": case["expected"]} for case in cases]
    api.expect(201, "POST", "/v1/datasets/tickets/cases?project=atlas", rows)
    ours = evaluate(api, drain, project="atlas")

    assert (theirs["spent"]["task_calls"], theirs["aggregate"]["cached"]) == (10, 0)
    assert (ours["spent"]["task_calls"], ours["aggregate"]["cached"]) == (10, 0)


# ---- retry ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fresh", [False, True])
def test_a_retry_makes_only_the_calls_that_failed_as_the_next_generation(api: Api, drain: Drain, fresh: bool) -> None:
    first = with_failures(api, drain, fresh=fresh)

    again = retry(api, first)
    drain()

    done = read(api, again)
    assert (first["aggregate"]["missing"], done["aggregate"]["missing"]) == (3, 0)
    assert done["retry_of"] == first["evaluation_id"]
    assert (done["spent"]["task_calls"], done["aggregate"]["cached"]) == (3, 7)
    assert ledger() == [0] * 10 + [1] * 3
    assert read(api, first)["aggregate"] == first["aggregate"]  # what has ended stays as it is (I5)
    assert event_data("evaluation.queued")[-1] == {"retry_of": first["evaluation_id"]}


def test_a_retry_of_a_retry_goes_on_counting(api: Api, drain: Drain) -> None:
    first = with_failures(api, drain, fresh=True)
    second = retry(api, first)
    drain(most=1)
    fail_some(drain, 3)
    assert read(api, second)["status"] == "succeeded"

    third = retry(api, second)
    drain()

    done = read(api, third)
    assert (done["spent"]["task_calls"], done["aggregate"]["cached"], done["aggregate"]["missing"]) == (3, 7, 0)
    assert ledger() == [0] * 10 + [1] * 3 + [2] * 3


def test_a_retry_spends_what_is_left_of_the_budget_unless_it_is_given_one(api: Api, drain: Drain) -> None:
    first = with_failures(api, drain, budget={"max_task_calls": 12, "max_cost_usd": 1})

    again = retry(api, first)
    drain()

    with db.reading() as session:
        spent = session.scalars(sa.select(Budget.spent_task_calls)).all()
        shared = session.scalars(sa.select(Evaluation.budget_id).distinct()).all()
    assert read(api, again)["aggregate"]["missing"] == 0
    assert (spent, len(shared)) == ([10], 1)  # three of them failed before they were billed


def test_a_retry_may_have_a_budget_of_its_own(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body(budget={"max_tokens": 1_500}))
    for _ in range(3):
        drain()
    first = read(api, started)

    again = retry(api, first, budget={"max_tokens": 100_000})
    drain()

    done = read(api, again)
    assert first["aggregate"]["missing"] == done["spent"]["task_calls"] > 0
    assert done["aggregate"]["missing"] == 0


def test_a_budget_that_would_make_other_calls_of_them_is_refused(api: Api, drain: Drain) -> None:
    """A ceiling needs an output limit, which is part of a call: all ten would have been paid for again."""
    make_triage(api, cases=10)
    make_prompt(api, "triage", template="Sort {{ ticket }}", model={**MODEL, "params": {"temperature": 0.0}})
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body())
    drain(most=1)
    fail_some(drain, 3)

    answer = api.post(f"/v1/evaluations/{started['evaluation_id']}/retry", {"budget": {"max_tokens": 100_000}})

    assert answer.status_code == 422
    assert pointers(answer) == ["/budget"]


def test_a_canceled_evaluation_goes_on_where_it_stopped(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body(fresh=True))
    drain(most=5)
    api.expect(200, "POST", f"/v1/evaluations/{started['evaluation_id']}/cancel")

    again = retry(api, started)
    drain()

    done = read(api, again)
    assert (done["spent"]["task_calls"], done["aggregate"]["cached"]) == (6, 4)


def test_what_is_open_or_whole_or_retried_already_is_not_retried(api: Api, drain: Drain) -> None:
    first = with_failures(api, drain)
    again = retry(api, first)
    path = "/v1/evaluations/{}/retry"

    twice = api.expect(409, "POST", path.format(first["evaluation_id"]), {})
    still_open = api.expect(409, "POST", path.format(again["evaluation_id"]), {})
    drain()
    whole = api.expect(409, "POST", path.format(again["evaluation_id"]), {})

    assert again["evaluation_id"] in twice["detail"]
    assert "retry it once it has ended" in still_open["detail"]
    assert "nothing of the evaluation is missing" in whole["detail"]


def test_a_retry_with_the_same_key_is_one_retry(api: Api, drain: Drain) -> None:
    first = with_failures(api, drain)
    path = f"/v1/evaluations/{first['evaluation_id']}/retry"

    answers = [api.post(path, {}, headers={"Idempotency-Key": "once"}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].get_json() == answers[1].get_json()
    assert answers[0].headers["Location"] == f"/v1/evaluations/{answers[0].get_json()['evaluation_id']}"


def test_nothing_is_retried_whose_prompt_takes_no_runs(api: Api, drain: Drain) -> None:
    first = with_failures(api, drain)
    api.expect(200, "PUT", "/v1/prompts/triage/lifecycle", {"state": "archived"})

    api.expect(409, "POST", f"/v1/evaluations/{first['evaluation_id']}/retry", {})

    with db.reading() as session:
        assert session.scalars(sa.select(Evaluation.id)).all() == [uuid.UUID(first["evaluation_id"])]


def test_a_retry_writes_no_score_into_the_first_one(api: Api, drain: Drain) -> None:
    first = with_failures(api, drain)
    before = results(api, first)
    retry(api, first)
    drain()

    assert results(api, first) == before
    with db.reading() as session:
        scopes = session.execute(sa.select(Execution.scope_id, sa.func.count()).group_by(Execution.scope_id)).all()
    assert sorted(row[1] for row in scopes) == [3, 10]


def test_drift_counts_an_answer_that_several_evaluations_had_once(api: Api, drain: Drain) -> None:
    make_triage(api, cases=24)
    evaluate(api, drain)
    evaluate(api, drain)  # the same answers
    body = {
        "template_source": "Sort {{ ticket }}",
        "model": {**MODEL, "params": {"temperature": 0.0, "max_new_tokens": 60}},
    }
    api.expect(200, "PUT", "/v1/prompts/triage", {**body, "set_active": True})
    evaluate(api, drain)

    found = api.expect(200, "GET", "/v1/prompts/triage/drift?baseline=v1&current=v2")

    (signal,) = [one for one in found["signals"] if one["signal"] == "evaluation_score"]
    assert (signal["n_baseline"], signal["n_current"]) == (24, 24)
