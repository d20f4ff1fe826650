"""/v1/evaluations: from POST to the aggregate, and what is refused."""

import itertools
import uuid
from statistics import fmean
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db, stats
from shared.domain import evaluations, runs
from shared.models import Budget, Evaluation, Execution, Job
from tests.support import Api, Drain, evaluation_body, make_prompt, make_triage, pointers
from worker.providers import Answer
from worker.recording import record
from worker.steps import Failure
from worker.tasks import STEPS


def test_an_evaluation_runs_every_case_once_and_aggregates_with_an_interval(api: Api, drain: Drain) -> None:
    make_triage(api, cases=30)

    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body())
    drain()
    done = api.expect(200, "GET", f"/v1/evaluations/{started['evaluation_id']}")

    found = done["aggregate"]
    assert (started["status"], done["status"]) == ("queued", "succeeded")
    assert (found["cases"], found["scored"], found["missing"]) == (30, 30, 0)
    assert found["ci_low"] <= found["score"] <= found["ci_high"]
    assert done["progress"] == {"done": 30, "total": 30}
    assert done["spent"]["task_calls"] == 30
    assert done["spent"]["cost_usd"] > 0


def test_results_show_output_score_and_feedback_per_case_in_order(api: Api, drain: Drain) -> None:
    make_triage(api, cases=12)
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body())
    drain()

    results = api.expect(200, "GET", f"/v1/evaluations/{started['evaluation_id']}/results?limit=100")["data"]
    aggregate = api.expect(200, "GET", f"/v1/evaluations/{started['evaluation_id']}")["aggregate"]

    assert [row["ordinal"] for row in results] == list(range(1, 13))
    assert sum(row["score"] for row in results) / 12 == pytest.approx(aggregate["score"])
    assert all(row["output"] for row in results)
    wrong = [row for row in results if row["score"] < 1]
    assert wrong
    assert all(row["feedback"] for row in wrong)
    assert all(not row["passed"] for row in wrong)


def test_repeats_are_different_calls_and_identical_inputs_share_one(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)

    api.expect(202, "POST", "/v1/evaluations", evaluation_body(repeats=3))
    drain()

    with db.reading() as session:
        samples = session.execute(sa.select(Execution.sample, sa.func.count()).group_by(Execution.sample)).all()
    assert sorted(tuple(row) for row in samples) == [(0, 10), (1, 10), (2, 10)]


def test_a_failed_call_is_missing_and_not_a_zero(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body())
    drain(most=1)
    failed, *others = drain.claim(limit=10)
    record(STEPS, [(failed, Failure("bad_request", "", retryable=False))])
    for lease in others:
        drain.run(lease)
    drain()

    found = api.expect(200, "GET", f"/v1/evaluations/{started['evaluation_id']}")["aggregate"]
    results = api.expect(200, "GET", f"/v1/evaluations/{started['evaluation_id']}/results")["data"]
    assert (found["scored"], found["missing"]) == (9, 1)
    assert [row["error_type"] for row in results if row["score"] is None] == ["bad_request"]
    assert found["score"] == pytest.approx(sum(row["score"] for row in results if row["score"] is not None) / 9)


def test_the_interval_and_the_standard_error_are_of_the_weighted_score(api: Api, drain: Drain) -> None:
    """One heavy case that failed once gave a score of 0.04 with an interval from 0.9 to 1."""
    make_triage(api, cases=39)
    heavy = {"inputs": {"ticket": "something else"}, "expected": {"category": "none", "priority": "none"}}
    api.expect(201, "POST", "/v1/datasets/tickets/cases", [{**heavy, "weight": 1000}])
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body())

    drain()

    found = api.expect(200, "GET", f"/v1/evaluations/{started['evaluation_id']}")["aggregate"]
    results = api.expect(200, "GET", f"/v1/evaluations/{started['evaluation_id']}/results?limit=100")["data"]
    scores, weights = [row["score"] for row in results], [1.0] * 39 + [1000.0]
    assert results[-1]["score"] == 0
    assert found["score"] < 0.04
    assert found["ci_low"] <= found["score"] <= found["ci_high"]
    assert found["standard_error"] == pytest.approx(stats.standard_error(scores, weights))


def test_repeats_of_a_case_are_no_independent_cases(api: Api, drain: Drain) -> None:
    make_triage(api, cases=12)
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body(repeats=3))

    drain()

    found = api.expect(200, "GET", f"/v1/evaluations/{started['evaluation_id']}")["aggregate"]
    results = api.expect(200, "GET", f"/v1/evaluations/{started['evaluation_id']}/results?limit=100")["data"]
    means = [fmean(row["score"] for row in results if row["ordinal"] == ordinal) for ordinal in range(1, 13)]
    assert (found["cases"], found["scored"]) == (36, 36)
    assert found["score"] == pytest.approx(fmean(means))
    assert found["standard_error"] == pytest.approx(stats.standard_error(means))
    assert (found["ci_low"], found["ci_high"]) == pytest.approx(stats.mean_interval(means, seed=0))


def test_cases_that_the_budget_did_not_cover_are_told_by_number_and_reason(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body(budget={"max_tokens": 3_000}))

    drain()
    drain()  # the first one ends where a claim refuses all that is left

    done = api.expect(200, "GET", f"/v1/evaluations/{started['evaluation_id']}")
    found = done["aggregate"]
    assert done["status"] == "succeeded"
    assert 0 < found["scored"] < 40
    assert (
        found["missing_by_error"] == {"budget_exceeded": 40 - found["scored"]} == {"budget_exceeded": found["missing"]}
    )
    assert done["spent"]["task_calls"] == found["scored"]


def test_a_budget_that_covers_no_call_is_the_reason_of_the_failure(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body(budget={"max_tokens": 1}))

    drain()
    drain()  # the first one ends where a claim gives nothing to run: each call was refused at its claim

    done = api.expect(200, "GET", f"/v1/evaluations/{started['evaluation_id']}")
    assert (done["status"], done["error_type"]) == ("failed", "budget_exceeded")
    assert done["aggregate"]["missing_by_error"] == {"budget_exceeded": 10}
    assert done["spent"]["task_calls"] == 0


def test_an_evaluation_whose_calls_all_failed_says_by_what(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body())
    drain(most=1)
    record(STEPS, [(lease, Failure("bad_request", "", retryable=False)) for lease in drain.claim()])

    drain()

    done = api.expect(200, "GET", f"/v1/evaluations/{started['evaluation_id']}")
    assert (done["status"], done["error_type"]) == ("failed", "scoring_failed")
    assert done["error_message"] == "no call succeeded: 10 bad_request"


def test_what_is_said_to_be_spent_is_what_the_budget_has_charged(api: Api, drain: Drain) -> None:
    """An answer without usage and an attempt that may have been paid were once told as free of charge."""
    make_triage(api, cases=10)
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body(budget={"max_cost_usd": 1}))
    drain(most=1)
    leases = drain.claim(limit=5)
    outcomes = [
        Answer("reported", 70, 3, 1),
        Answer("usage unknown", None, None, 1),
        Failure("provider_timeout", "", retryable=False, possibly_paid=True),
        Failure("provider_timeout", "", retryable=True, possibly_paid=True),
        Failure("bad_request", "", retryable=False),
    ]

    record(STEPS, list(zip(leases, outcomes, strict=True)))

    spent = api.expect(200, "GET", f"/v1/evaluations/{started['evaluation_id']}")["spent"]
    with db.reading() as session:
        budget = session.scalars(sa.select(Budget)).one()
        bounds = session.execute(sa.select(Execution.id, Execution.estimate_tokens, Execution.estimate_nano)).all()
        logical = runs.logical_spend_of(session, uuid.UUID(started["evaluation_id"]))
    tokens = {row.id: row.estimate_tokens for row in bounds}
    assert spent["tokens"] == budget.spent_tokens == 73 + sum(tokens[lease.subject_id] for lease in leases[1:4])
    assert spent["cost_usd"] == budget.spent_nano / 1e9
    assert (spent["task_calls"], spent["ambiguous_attempts"]) == (5, 2)
    # What a search decides by leaves out what a crash may add.
    assert logical.tokens == 73 + tokens[leases[1].subject_id]


def test_an_evaluation_pins_the_revision_that_it_started_on(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body())
    api.expect(201, "POST", "/v1/datasets/tickets/cases", [{"inputs": {"ticket": "later"}, "expected": {"a": "b"}}])

    drain()

    done = api.expect(200, "GET", f"/v1/evaluations/{started['evaluation_id']}")
    assert done["dataset_revision"] == 1
    assert done["aggregate"]["cases"] == 10


def test_cancel_stops_the_calls_that_wait_and_keeps_what_was_paid(api: Api, drain: Drain) -> None:
    make_triage(api, cases=20)
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body())
    drain(most=1)
    for lease in drain.claim(limit=5):
        drain.run(lease)

    canceled = api.expect(200, "POST", f"/v1/evaluations/{started['evaluation_id']}/cancel")

    assert canceled["status"] == "canceled"
    assert drain() == 0
    stored = api.expect(200, "GET", f"/v1/evaluations/{started['evaluation_id']}")
    assert stored["status"] == "canceled"
    assert stored["spent"]["task_calls"] == 5
    with db.reading() as session:
        states = dict(session.execute(sa.select(Execution.state, sa.func.count()).group_by(Execution.state)).all())
    assert states == {"succeeded": 5, "canceled": 15}
    assert api.post(f"/v1/evaluations/{started['evaluation_id']}/cancel").status_code == 200


def test_an_evaluation_that_has_ended_cannot_be_canceled(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body())
    drain()

    problem = api.expect(409, "POST", f"/v1/evaluations/{started['evaluation_id']}/cancel")

    assert "succeeded" in problem["detail"]


@pytest.mark.parametrize(
    ("change", "status", "pointer"),
    [
        ({"prompt_name": "nobody"}, 404, None),
        ({"dataset": "nothing"}, 404, None),
        ({"scorers": []}, 422, "/scorers"),
        ({"scorers": [{"type": "best"}]}, 422, "/scorers/0/type"),
        ({"scorers": [{"type": "exact_match", "weight": 0}]}, 422, "/scorers/0/weight"),
        ({"scorers": [{"type": "exact_match", "wheight": 1}]}, 422, "/scorers/0/wheight"),
        ({"scorers": [{"type": "json_fields", "lenient": 1}]}, 422, "/scorers/0/lenient"),
        ({"repeats": 0}, 422, "/repeats"),
        ({"repeats": True}, 422, "/repeats"),
        ({"budget": {"max_task_calls": 3}}, 422, "/budget/max_task_calls"),
        ({"budget": {"max_cost_usd": 0}}, 422, "/budget/max_cost_usd"),
        ({"budget": {"max_cost_usd": 1e-12}}, 422, "/budget/max_cost_usd"),
        ({"budget": {"max_cost_usd": float("nan")}}, 422, "/budget/max_cost_usd"),
        ({"model": {"provider": "openai", "model_name": "who-knows"}, "budget": {"max_cost_usd": 1}}, 422,
         "/budget/max_cost_usd"),
        ({"params": {"top_k": 1}}, 422, "/params/top_k"),
    ],
)  # fmt: skip
def test_bad_input_is_named_and_leaves_no_row(
    api: Api, change: dict[str, Any], status: int, pointer: str | None
) -> None:
    make_triage(api, cases=10)

    answer = api.post("/v1/evaluations", evaluation_body(**change))

    assert answer.status_code == status, answer.get_data(as_text=True)
    if pointer:
        assert pointer in pointers(answer)
    with db.reading() as session:
        assert [session.scalar(sa.select(sa.func.count()).select_from(model)) for model in (Evaluation, Job)] == [0, 0]


def test_a_case_that_does_not_fit_the_prompt_is_found_before_anything_is_paid(api: Api) -> None:
    make_triage(api, cases=10)
    api.expect(201, "POST", "/v1/datasets/tickets/cases", [{"inputs": {"body": "no ticket here"}, "expected": "x"}])

    answer = api.post("/v1/evaluations", evaluation_body())

    assert answer.status_code == 422
    assert pointers(answer) == ["/dataset"]
    assert "case 11" in answer.get_json()["detail"]
    assert "ticket" in answer.get_json()["detail"]


def test_a_case_without_an_expected_value_is_found_too(api: Api) -> None:
    make_triage(api, cases=10)
    api.expect(201, "POST", "/v1/datasets/tickets/cases", [{"inputs": {"ticket": "what now"}}])

    compared = api.post("/v1/evaluations", evaluation_body())
    formal = api.post("/v1/evaluations", evaluation_body(scorers=[{"type": "json_valid"}]))

    assert compared.status_code == 422
    assert "case 11 has no expected value" in compared.get_json()["detail"]
    assert formal.status_code == 202


def test_a_template_that_is_too_slow_for_its_dataset_is_refused_in_bounded_time(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand cases of ninety thousand loop turns once kept a request for eight seconds."""
    monkeypatch.setattr(evaluations, "MAX_CHECK_SECONDS", 0.05)
    make_triage(api, cases=1)
    make_prompt(api, "slow", template="{% for a in items %}{% for b in items %}{% endfor %}{% endfor %}")
    api.expect(201, "POST", "/v1/datasets", {"name": "lists"})
    cases = [{"inputs": {"items": [i] * 300}, "expected": "x"} for i in range(100)]
    api.expect(201, "POST", "/v1/datasets/lists/cases", cases)
    model = {"provider": "simulated", "model_name": "simulated-small"}

    answer = api.post("/v1/evaluations", evaluation_body(prompt_name="slow", dataset="lists", model=model))

    assert answer.status_code == 422
    assert pointers(answer) == ["/dataset"]
    assert "the template is too slow" in answer.get_json()["detail"]


def test_a_busy_machine_makes_no_template_too_slow(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    make_triage(api, cases=2)
    minutes = itertools.count()
    monkeypatch.setattr(evaluations.time, "monotonic", lambda: 60.0 * next(minutes))

    answer = api.post("/v1/evaluations", evaluation_body())

    assert answer.status_code == 202
