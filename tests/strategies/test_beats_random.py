"""A strategy must be better than the control at the same price, on landscapes whose true scores are known."""

import importlib
from collections.abc import Mapping
from functools import cache
from statistics import mean
from typing import Any

import pytest

from tests.strategies.world import SEED_TEXT, family, run_search
from worker.strategies import STRATEGIES

CALLS = 2_000
SEEDS = range(100, 106)
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "random": {"proposals": 160},
    "iterative": {"max_rounds": 1000, "proposals_per_step": 4, "evidence_cases": 16, "restarts": 20},
    "beam_search": {"beam_width": 3, "expansions_per_beam": 3, "evidence_cases": 16, "max_rounds": 50},
    "anneal": {"epochs": 200, "evidence_cases": 16, "initial_temp": 0.05, "edit_weight": 0.2, "reheat_max": 50},
    "merge": {"max_rounds": 200, "evidence_cases": 16},
    "genetic": {"population_size": 6, "generations": 40, "evidence_cases": 16, "mutation_rate": 0.8},
}
EVALUATION: Mapping[str, Mapping[str, Any]] = {name: {"min_cases": 16} for name in SETTINGS}


@cache
def found(strategy: str, kind: str) -> tuple[float, ...]:
    """The true score of what the strategy returns, in each of the worlds."""
    scores = []
    for seed in SEEDS:
        world = family(kind, seed)
        run = run_search(
            strategy,
            world,
            knobs_={**SETTINGS[strategy], "max_growth": 20},
            evaluation=EVALUATION[strategy],
            early_stopping={"patience": 1000},
            budget={"max_task_calls": CALLS},
            seed=seed,
        )
        assert len(run.evaluations) <= CALLS, "nobody may win by having more to spend"
        assert strategy != "random" or len(run.evaluations) > 0.8 * CALLS, "nor by a control that spends nothing"
        scores.append(world.true_score(run.best_text))
    return tuple(scores)


@pytest.mark.parametrize(
    ("strategy", "kind", "gain"),
    [
        ("iterative", "deceptive", 0.2),
        ("beam_search", "additive", 0.08),
        ("beam_search", "deceptive", 0.15),
        ("anneal", "deceptive", 0.12),
        ("merge", "additive", 0.08),
        ("merge", "deceptive", 0.15),
        ("genetic", "additive", 0.06),
        ("genetic", "deceptive", 0.2),
    ],
)
def test_it_beats_random_at_the_same_budget_of_task_calls(strategy: str, kind: str, gain: float) -> None:
    assert mean(found(strategy, kind)) > mean(found("random", kind)) + gain


# What cannot beat it, and why; all others have their own duel, here or in the file of their own tests.
WITHOUT_A_DUEL = {
    "random": "it is the control",
    "noop": "it tries no other prompt: its own tests show that what it gains is noise",
}


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES) - set(WITHOUT_A_DUEL)))
def test_every_strategy_has_its_duel(strategy: str) -> None:
    """Searches over demonstrations or settings meet it in a world where these decide."""
    its_own = importlib.import_module(f"tests.strategies.test_{strategy}")

    assert strategy in SETTINGS or any(name.startswith("test_it_beats_random") for name in vars(its_own))


def test_what_has_no_duel_gains_nothing() -> None:
    runs = [run_search("noop", family(kind, seed), seed=seed) for kind in ("additive", "deceptive") for seed in SEEDS]

    assert {text for run in runs for text in run.texts.values()} == {SEED_TEXT}
    assert not [run for run in runs if run.result["verdict"] == "improved"]
