"""hyperparameter: better than random where settings decide, and what each of its knobs does."""

from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

import pytest

from tests.strategies.effects import Effect
from tests.strategies.world import Run, World, make_cases, run_search
from tests.strategies.worlds_genes import setting, settings_decide, true_tuned, with_genes
from worker.strategies.contract import Evaluate, Genes, Result

BOTH = {"temperature": {"low": 0.0, "high": 1.0}, "top_p": {"low": 0.1, "high": 1.0}}
STEPS = {"temperature": {"choices": [0.0, 0.5, 1.0]}}
PATIENT = {"early_stopping": {"patience": 1000}}


@dataclass(frozen=True)
class Priced(World):
    """A world whose warm answers are a little better, and cost and take ten times as much."""

    def answer(self, work: Any, texts: Any) -> Result:
        result = super().answer(work, texts)
        if not isinstance(work, Evaluate):
            return result
        dear = 10 if work.genes.params.get("temperature") == 1.0 else 1
        return replace(result, nano=100 * dear, latency_ms=20 * dear)


PRICED = Priced(score=lambda text, case: 0.4 + 0.2 * setting(text, "temperature", 0.0))


def points(run: Run) -> list[dict[str, Any]]:
    return [point for point, _ in run.state["own"]["rows"]]


def first_batch(run: Run) -> list[int]:
    """The sizes of what each candidate of the first batch was asked."""
    return [len(cases) for cases in run.cases_of(1).values()]


def best_params(run: Run) -> dict[str, Any]:
    best = next(item for item in run.state["candidates"] if item["hash"] == run.result["best"])
    return dict(best.get("params", {}))


def pruned(run: Run) -> int:
    return sum(" at " in item["reason"] and item["decision"] == "pruned" for item in run.state["candidates"])


KNOBS = {
    "search_method": Effect(
        see=lambda run: points(run) == [{"temperature": value} for value in (0.0, 0.5, 1.0)],
        values=("grid", "random"),
        seen=(True, False),
        given={"knobs_": {"params_to_optimize": STEPS}, **PATIENT},
    ),
    "params_to_optimize": Effect(
        see=lambda run: {name for point in points(run) for name in point},
        values=(["temperature"], ["top_p", "max_tokens"]),
        seen=({"temperature"}, {"top_p", "max_new_tokens"}),
    ),
    "max_trials": Effect(see=lambda run: len(points(run)), values=(3, 7), seen=(3, 7), given=PATIENT),
    "batch": Effect(see=lambda run: len(run.steps[1].state["own"]["rows"]), values=(1, 4), seen=(1, 4)),
    "pruner": Effect(see=lambda run: max(first_batch(run)), values=("none", "halving"), seen=(16, 4)),
    "pruner_p": Effect(
        see=lambda run: pruned(run) > 0,
        values=(1e-6, 0.5),
        seen=(False, True),
        world=World(score=lambda text, case: 0.9 - 0.5 * setting(text, "temperature", 0.0)),
        given={"knobs_": {"pruner": "paired"}},
    ),
    "objective_weights": Effect(
        see=best_params,
        values=({"score": 1}, {"score": 1, "cost": 1, "latency": 0.5}),
        seen=({"temperature": 1.0}, {"temperature": 0.5}),
        world=PRICED,
        given={"knobs_": {"params_to_optimize": STEPS, "search_method": "grid"}, **PATIENT},
    ),
    "finalists": Effect(see=lambda run: len(run.state["finalists"]), values=(1, 4), seen=(1, 4)),
}


def found_by(name: str, seed: int, **knobs: Any) -> float:
    """The true score of what a strategy ends with, where settings decide."""
    run = run_search(
        name,
        World(cases=make_cases(100), salt=seed, score=settings_decide(seed)),
        knobs_=knobs,
        evaluation={"min_cases": 16},
        budget={"max_task_calls": 1_200},
        seed=seed,
        **PATIENT,
    )
    assert len(run.evaluations) <= 1_200
    best = next(item for item in run.state["candidates"] if item["hash"] == run.result["best"])
    return true_tuned(with_genes(best["components"]["template"], Genes(params=best.get("params", {}))))


@pytest.mark.parametrize("method", ["bayesian", "gp", "random", "qmc"])
def test_it_beats_random_rewriting_at_the_same_budget_where_settings_decide(method: str) -> None:
    tuned = [
        found_by("hyperparameter", seed, params_to_optimize=BOTH, search_method=method, max_trials=24)
        for seed in range(3)
    ]
    rewritten = [found_by("random", seed, proposals=60) for seed in range(3)]

    assert mean(tuned) > mean(rewritten) + 0.3, (tuned, rewritten)


@pytest.mark.parametrize("pruner", ["median", "halving", "paired"])
def test_a_pruner_saves_calls_and_says_whom_it_dropped(pruner: str) -> None:
    world = World(cases=make_cases(100), salt=3, score=settings_decide(3))
    settings = {"params_to_optimize": BOTH, "max_trials": 16, "batch": 4, "search_method": "random"}

    whole, cut = (
        run_search(
            "hyperparameter",
            world,
            knobs_={**settings, **more},
            evaluation={"min_cases": 12},
            budget={"max_task_calls": 5_000},
            **PATIENT,
        )
        for more in ({}, {"pruner": pruner})
    )

    assert len(cut.evaluations) < len(whole.evaluations)
    assert pruned(cut) > 0


def test_two_trials_of_one_point_are_one_candidate_and_are_paid_once() -> None:
    run = run_search("hyperparameter", knobs_={"params_to_optimize": STEPS, "max_trials": 9}, **PATIENT)

    assert len(points(run)) == 9
    assert len(run.state["candidates"]) == 4
    assert run.state["rejected"] == 0
    assert len(run.paid) == len(run.emitted)


def test_without_cost_or_latency_in_the_objective_neither_is_kept() -> None:
    kept = [
        run_search("hyperparameter", PRICED, knobs_={"objective_weights": weights}).state.get("measures", {})
        for weights in ({"score": 2}, {"score": 2, "latency": 1})
    ]

    assert kept[0] == {}
    assert all(sums["latency"] >= 20 * sums["calls"] for sums in kept[1].values())
