"""/v1/optimizations: from POST to the verdict on SQLite and PostgreSQL, and what is refused."""

import re
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared import knobs as catalogue
from shared.models import Call, Event, Execution, Job, Optimization
from tests.strategies.world import SMALL
from tests.support import MODEL, Api, Drain, make_triage, optimization_body, pointers, tickets


def optimize(api: Api, drain: Drain, **fields: Any) -> Any:
    started = api.expect(202, "POST", "/v1/optimizations", optimization_body(**fields))
    drain()
    return api.expect(200, "GET", f"/v1/optimizations/{started['optimization_id']}")


def test_an_optimization_ends_with_baseline_best_and_a_verdict_on_held_out_cases(api: Api, drain: Drain) -> None:
    make_triage(api, cases=60)

    done = optimize(api, drain)

    result = done["result"]
    assert done["status"] == "succeeded"
    assert done["finish_reason"] in ("max_rounds", "converged")
    assert result["best_dev"] >= result["baseline_dev"]
    assert result["cases"] == {"train": 18, "dev": 24, "holdout": 18}
    assert result["holdout"]["n"] == 18
    assert result["verdict"] in ("improved", "not_significant")
    assert done["spent"]["ambiguous_attempts"] == 0
    assert len(done["progress"]["curve"]) == 2


def test_the_default_strategy_is_taken_when_none_is_named(api: Api) -> None:
    make_triage(api)
    body = {name: value for name, value in optimization_body().items() if name not in ("strategy", "knobs")}

    started = api.expect(202, "POST", "/v1/optimizations", body)

    (default,) = [each for each in api.expect(200, "GET", "/v1/optimizations/strategies")["data"] if each["is_default"]]
    assert started["strategy"] == default["name"] == catalogue.DEFAULT


def test_the_best_prompt_becomes_a_version_and_no_label_moves(api: Api, drain: Drain) -> None:
    make_triage(api, cases=60)

    done = optimize(api, drain)

    prompt = api.expect(200, "GET", "/v1/prompts/triage")
    best = api.expect(200, "GET", f"/v1/prompts/triage/versions/{done['best_version_number']}")
    assert done["best_version_number"] == 2
    assert done["optimization_id"] in best["message"]
    assert best["model"] == prompt["active_version"]["model"]
    assert prompt["active_version"]["version_number"] == 1


def test_candidates_show_where_they_come_from_and_why_they_were_dropped(api: Api, drain: Drain) -> None:
    make_triage(api, cases=60)
    done = optimize(api, drain)

    path = f"/v1/optimizations/{done['optimization_id']}/candidates"
    first = api.expect(200, "GET", f"{path}?limit=2")
    rest = api.expect(200, "GET", f"{path}?limit=100&cursor={first['next_cursor']}")

    candidates = first["data"] + rest["data"]
    assert [item["ordinal"] for item in candidates] == list(range(len(candidates)))
    assert len(candidates) == done["progress"]["candidates"]
    seed, *others = candidates
    assert (seed["decision"], seed["parents"], seed["operator"]) == ("seed", [], "seed")
    known = {item["hash"] for item in candidates}
    assert all(set(item["parents"]) <= known and item["parents"] for item in others)
    assert all(item["reason"] for item in others)
    reflected = [item for item in others if item["operator"] == "reflect"]
    assert reflected
    assert all(item["lineage"]["evidence"] for item in reflected)


def test_progress_and_candidates_show_the_means_by_which_the_search_ranks(api: Api, drain: Drain) -> None:
    """They were once plain means beside a result that weighed the cases."""
    make_triage(api, cases=1)
    heavier = [{**case, "weight": 1 + i % 7 * 10} for i, case in enumerate(tickets(41)[1:])]
    api.expect(201, "POST", "/v1/datasets/tickets/cases", heavier)

    done = optimize(api, drain, evaluation={"min_cases": 6, "repeats": 2})

    listed = api.expect(200, "GET", f"/v1/optimizations/{done['optimization_id']}/candidates?limit=100")["data"]
    assert listed[0]["mean"] == pytest.approx(done["result"]["baseline_dev"])
    assert done["progress"]["baseline_score"] == pytest.approx(done["result"]["baseline_dev"])
    assert listed[0]["cases"] == done["result"]["cases"]["dev"]


def test_the_same_seed_gives_the_same_candidates_and_pays_the_same_calls(api: Api, drain: Drain) -> None:
    """I9, through the database and the queue."""
    make_triage(api, cases=40)

    first, second = optimize(api, drain, seed=7), optimize(api, drain, seed=7)
    other = optimize(api, drain, seed=8)

    def hashes(run: Any) -> list[str]:
        listed = api.expect(200, "GET", f"/v1/optimizations/{run['optimization_id']}/candidates?limit=100")
        return [item["hash"] for item in listed["data"]]

    assert hashes(first) == hashes(second)
    assert first["result"] == second["result"]
    assert first["spent"] == second["spent"]
    assert hashes(first) != hashes(other)


def test_no_call_of_a_run_is_made_twice(api: Api, drain: Drain) -> None:
    """I3 and I4: the ledger has one row per request, and each was tried once."""
    make_triage(api, cases=40)

    optimize(api, drain)

    with db.reading() as session:
        calls = session.scalar(sa.select(sa.func.count()).select_from(Call))
        requests = session.scalar(sa.select(sa.func.count(sa.distinct(Call.call_key))))
        attempts = session.scalars(sa.select(Execution.attempts).distinct()).all()
    assert calls == requests
    assert attempts == [1]


def test_every_state_change_of_a_run_has_its_event(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)

    done = optimize(api, drain)

    with db.reading() as session:
        types = session.scalars(
            sa.select(Event.type).where(Event.type.startswith("optimization.")).order_by(Event.xid, Event.id)
        ).all()
    assert types[:3] == ["optimization.queued", "optimization.running", "optimization.baseline"]
    assert types.count("optimization.round") == len(done["progress"]["curve"])
    assert types[-1] == "optimization.succeeded"


def test_progress_can_be_polled_while_it_runs(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    started = api.expect(202, "POST", "/v1/optimizations", optimization_body())
    path = f"/v1/optimizations/{started['optimization_id']}"

    drain(most=1)
    fanned_out = api.expect(200, "GET", path)
    for lease in drain.claim(limit=5):
        drain.run(lease)
    midway = api.expect(200, "GET", path)

    assert fanned_out["status"] == "running"
    assert fanned_out["progress"]["phase"] == "baseline"
    assert fanned_out["progress"]["step"] == {"done": 0, "total": 16}
    assert midway["progress"]["step"] == {"done": 5, "total": 16}
    assert midway["spent"]["task_calls"] == 5


def test_cancel_ends_it_at_once_and_pays_nothing_more(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    started = api.expect(202, "POST", "/v1/optimizations", optimization_body())
    drain(most=10)
    held = drain.claim(limit=2)

    canceled = api.expect(200, "POST", f"/v1/optimizations/{started['optimization_id']}/cancel")
    for lease in held:
        drain.run(lease)

    assert canceled["status"] == "canceled"
    assert drain() == 0
    stored = api.expect(200, "GET", f"/v1/optimizations/{started['optimization_id']}")
    assert stored["status"] == "canceled"
    assert stored["result"] is None


def test_a_step_that_arrives_after_the_cancel_writes_nothing(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    started = api.expect(202, "POST", "/v1/optimizations", optimization_body())
    (step,) = drain.claim()
    outcome = drain.outcome(step)
    api.expect(200, "POST", f"/v1/optimizations/{started['optimization_id']}/cancel")

    from worker.recording import record
    from worker.tasks import STEPS

    record(STEPS, [(step, outcome)])

    with db.reading() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Execution)) == 0
        assert session.scalars(sa.select(Job.state)).all() == ["canceled"]


def test_a_call_limit_is_never_passed_and_named_as_the_reason(api: Api, drain: Drain) -> None:
    make_triage(api, cases=60)

    done = optimize(api, drain, budget={"max_task_calls": 110}, knobs={"evidence_cases": 6, "max_rounds": 6})

    assert done["status"] == "succeeded"
    assert done["finish_reason"] == "budget_task_calls"
    assert done["spent"]["task_calls"] <= 110
    assert done["result"]["holdout"]["n"] == 18


def test_a_cost_ceiling_is_never_passed(api: Api, drain: Drain) -> None:
    make_triage(api, cases=60)
    ceiling = 0.02

    done = optimize(api, drain, budget={"max_cost_usd": ceiling}, knobs={"evidence_cases": 6, "max_rounds": 6})

    assert done["finish_reason"] == "budget_cost"
    assert 0 < done["spent"]["cost_usd"] <= ceiling


def test_a_budget_that_is_too_small_is_refused_with_the_number_needed(api: Api) -> None:
    make_triage(api, cases=60)

    answer = api.post("/v1/optimizations", optimization_body(budget={"max_task_calls": 50}))

    assert answer.status_code == 422
    assert answer.get_json()["code"] == "budget_too_small"
    assert pointers(answer) == ["/budget/max_task_calls"]
    assert "needs 78 task calls" in answer.get_json()["detail"]  # 24 dev + 6 evidence + 2 x 6 + 2 x 18 holdout


JUDGED = {"type": "llm_judge", "model": MODEL, "criteria": [{"name": "kind", "description": "It is kind."}]}


@pytest.mark.parametrize("limit", ["max_tokens", "max_cost_usd"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"evaluation": {"min_cases": 4, "max_cases": 9, "repeats": 2}},
        {"scorers": [{"type": "json_fields"}, JUDGED]},
    ],
    ids=["plain", "fewer cases, twice", "judged"],
)
def test_tokens_and_money_that_do_not_cover_the_baseline_are_refused_with_the_number_needed(
    api: Api, drain: Drain, limit: str, fields: dict[str, Any]
) -> None:
    """One that was accepted ended at once, with nothing bought and nothing measured."""
    make_triage(api, cases=60)
    body = optimization_body(**fields)
    small = 10 if limit == "max_tokens" else 1e-6

    answer = api.post("/v1/optimizations", {**body, "budget": {limit: small}})

    assert (answer.status_code, answer.get_json()["code"]) == (422, "budget_too_small")
    assert pointers(answer) == [f"/budget/{limit}"]
    found = re.search(r"up to ([0-9.]+) (?:tokens|USD)", answer.get_json()["detail"])
    assert found
    needed = Decimal(found[1])
    step = 1 if limit == "max_tokens" else Decimal("0.000000001")
    less = api.post("/v1/optimizations", {**body, "budget": {limit: as_number(needed - step)}})
    assert (less.status_code, pointers(less)) == (422, [f"/budget/{limit}"])
    done = optimize(api, drain, **fields, budget={limit: as_number(needed)})
    assert done["result"]["baseline_dev"] is not None
    assert done["result"]["verdict"] != "not_measured"


def test_calls_of_judges_that_do_not_cover_the_baseline_are_refused_and_those_that_do_end_the_search(
    api: Api, drain: Drain
) -> None:
    """It went on until nothing could be judged, paid for a holdout that nobody judged, and could not be continued."""
    make_triage(api, cases=60)
    body = optimization_body(scorers=[JUDGED])

    answer = api.post("/v1/optimizations", {**body, "budget": {"max_task_calls": 500, "max_judge_calls": 20}})

    assert (answer.status_code, pointers(answer)) == (422, ["/budget/max_judge_calls"])
    needed = int(re.search(r"up to (\d+) calls of judges", answer.get_json()["detail"])[1])  # type: ignore[index]
    assert needed == 24 + 2 * 18  # dev, and the holdout of two
    ceilings = {"max_task_calls": 500, "max_judge_calls": needed + 20}
    done = optimize(api, drain, scorers=[JUDGED], budget=ceilings)
    assert done["finish_reason"] == "budget_judge_calls"
    assert done["spent"]["judge_calls"] <= needed + 20
    assert done["result"]["holdout"]["n"] == 18
    path = f"/v1/optimizations/{done['optimization_id']}/continue"
    again = api.expect(202, "POST", path, {"budget": {"max_judge_calls": needed + 60}})
    drain()
    more = api.expect(200, "GET", f"/v1/optimizations/{again['optimization_id']}")
    assert more["status"] == "succeeded"
    assert more["result"]["holdout"]["n"] == 18
    assert done["spent"]["judge_calls"] + more["spent"]["judge_calls"] <= needed + 60


def as_number(value: Decimal) -> int | float:
    return int(value) if value == int(value) else float(value)


def test_the_progress_of_what_has_ended_shows_the_best_that_came_out(api: Api, drain: Drain) -> None:
    """A finalist that is scored on all of dev after the last round may be better than the best of the rounds."""
    make_triage(api, cases=60)

    done = optimize(api, drain, budget={"max_task_calls": 300}, knobs=SMALL["beam_search"], seed=0)

    assert done["progress"]["curve"][-1]["best"] < done["result"]["best_dev"]
    assert done["progress"]["best_score"] == done["result"]["best_dev"]


def test_chat_prompts_are_optimized_message_by_message(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    messages = [
        {"role": "system", "content": 'Reply with JSON like {"category": "...", "priority": "..."}.'},
        {"role": "user", "content": "Ticket:\n{{ ticket }}"},
    ]
    api.expect(
        200,
        "PUT",
        "/v1/prompts/chat",
        {
            "messages": messages,
            "set_active": True,
            "model": {"provider": "simulated", "model_name": "simulated-small", "params": {"temperature": 0.0}},
        },
    )

    done = optimize(api, drain, prompt_name="chat")

    assert done["status"] == "succeeded"
    best = api.expect(200, "GET", f"/v1/prompts/chat/versions/{done['best_version_number']}")
    assert [message["role"] for message in best["messages"]] == ["system", "user"]


@pytest.mark.parametrize(
    ("change", "status", "pointer"),
    [
        ({"strategy": "magic"}, 422, "/strategy"),
        ({"knobs": {"beam_widht": 3}}, 422, "/knobs/beam_widht"),
        ({"knobs": {"beam_width": True}}, 422, "/knobs/beam_width"),
        ({"knobs": {"beam_width": 1}}, 422, "/knobs/beam_width"),
        ({"knobs": {"prune_threshold": float("nan")}}, 422, "/knobs/prune_threshold"),
        ({"knobs": {"operators": {"pray": 1}}}, 422, "/knobs/operators"),
        ({"strategy": "annealing", "knobs": {"iterations": 0}}, 422, "/knobs/iterations"),
        ({"strategy": "anneal", "knobs": {"schedule": "linear", "cooling_rate": 0.5}}, 422, "/knobs/cooling_rate"),
        ({"strategy": "anneal", "knobs": {"reheat": {"max": -1}}}, 422, "/knobs/reheat/max"),
        ({"strategy": "anneal", "knobs": {}, "evaluation": {"mode": "ucb"}}, 422, "/evaluation/mode"),
        ({"strategy": "genetic", "knobs": {"elitism": 8}}, 422, "/knobs/elitism"),
        ({"strategy": "genetic", "knobs": {"init": "provided", "initial_prompts": [1]}}, 422, "/knobs/initial_prompts"),
        ({"strategy": "ga", "knobs": {}, "budget": {"max_task_calls": 200}}, 422, "/budget/max_task_calls"),
        ({"strategy": "noop", "knobs": {"proposals": 3}}, 422, "/knobs/proposals"),
        ({"evaluation": {"mode": "full", "eta": 4}}, 422, "/evaluation/eta"),
        ({"evaluation": {"eta": 1}}, 422, "/evaluation/eta"),
        ({"evaluation": {"mode": "guess"}}, 422, "/evaluation/mode"),
        ({"split": {"train_fraction": 0.9}}, 422, "/split"),
        ({"early_stopping": {"patience": 0}}, 422, "/early_stopping/patience"),
        ({"budget": {}}, 422, "/budget"),
        ({"budget": {"max_proposer_calls": 5}}, 422, "/budget"),
        ({"budget": {"max_cost_usd": -1}}, 422, "/budget/max_cost_usd"),
        ({"budget": {"max_cost_usd": 1e-12}}, 422, "/budget/max_cost_usd"),
        ({"seed": -1}, 422, "/seed"),
        ({"seed": True}, 422, "/seed"),
        ({"proposer": {"provider": "openai", "model_name": "who-knows"}}, 422, "/budget/max_cost_usd"),
        ({"dataset": "nothing"}, 404, None),
        ({"prompt_name": "triage@v9"}, 404, None),
    ],
)
def test_bad_input_is_named_and_leaves_no_row(
    api: Api, change: dict[str, Any], status: int, pointer: str | None
) -> None:
    make_triage(api, cases=40)

    answer = api.post("/v1/optimizations", optimization_body(**change))

    assert answer.status_code == status, answer.get_data(as_text=True)
    if pointer:
        assert pointer in pointers(answer)
    with db.reading() as session:
        counted = [
            session.scalar(sa.select(sa.func.count()).select_from(model)) for model in (Optimization, Job, Execution)
        ]
    assert counted == [0, 0, 0]


def test_too_few_cases_are_refused(api: Api) -> None:
    make_triage(api, cases=9)

    answer = api.post("/v1/optimizations", optimization_body())

    assert answer.status_code == 422
    assert "at least 10 cases" in answer.get_json()["detail"]


@pytest.mark.parametrize(
    ("asked", "name", "knobs", "evaluation"),
    [
        ("noop", "noop", {"twins": 2}, {}),
        ("hill_climbing", "iterative", {"steps": 3, "adaptive_operators": True}, {"mode": "racing"}),
        ("beam", "beam_search", {"depth": 2, "beam_width": 2, "gradients_per_beam": 1, "pruning": "ucb"}, {}),
        ("simulated_annealing", "anneal", {"steps": 3, "acceptance": "noisy_metropolis"}, {"mode": "minibatch"}),
        ("ga", "genetic", {"pop_size": 4, "max_generations": 2, "init": "mixed"}, {}),
    ],
)
def test_every_strategy_runs_to_its_verdict_by_an_older_name_too(
    api: Api, drain: Drain, asked: str, name: str, knobs: dict[str, Any], evaluation: dict[str, Any]
) -> None:
    make_triage(api, cases=60)
    body = {"strategy": asked, "knobs": knobs, "evaluation": {"min_cases": 6, **evaluation}}

    done = optimize(api, drain, budget={"max_task_calls": 700}, **body)

    assert (done["status"], done["strategy"], done["error_type"]) == ("succeeded", name, None)
    assert done["result"]["holdout"]["n"] == 18
    assert done["progress"]["round"] <= done["progress"]["max_rounds"] + (name == "anneal")
    assert done["spent"]["task_calls"] <= 700
    if name == "noop":
        assert done["best_version_number"] == 1, "the same text is the same version"
        assert done["result"]["noise"]["n"] == 2 * 24


def test_a_budget_too_small_for_a_population_says_what_it_needs(api: Api) -> None:
    make_triage(api, cases=60)
    body = optimization_body(
        strategy="genetic", knobs={"population_size": 4}, evaluation={"min_cases": 8}, budget={"max_task_calls": 199}
    )

    answer = api.post("/v1/optimizations", body)

    # 24 dev + 16 evidence + 8 cases x 4 members x (1 + 8 generations x 3/8) + 2 x 18 holdout
    assert answer.get_json()["code"] == "budget_too_small"
    assert "needs 204 task calls" in answer.get_json()["detail"]


def test_the_strategies_are_listed_with_the_knobs_that_validation_knows(api: Api) -> None:
    listed = {item["name"]: item for item in api.expect(200, "GET", "/v1/optimizations/strategies")["data"]}

    assert set(listed) == set(catalogue.STRATEGIES)
    assert "simulated_annealing" in listed["anneal"]["aliases"]
    rates = [knob for knob in listed["anneal"]["knobs"] if knob["name"] == "cooling_rate"]
    assert rates[0]["only_with"]["schedule"] == ["geometric"]
    trials = [knob for knob in listed["mipro"]["knobs"] if knob["name"] == "trials"]
    assert trials[0]["aliases"] == ["num_trials"]
    knobs = {knob["name"]: knob for knob in listed["beam_search"]["knobs"]}
    assert (knobs["beam_width"]["default"], knobs["beam_width"]["low"], knobs["beam_width"]["high"]) == (3, 2, 64)
