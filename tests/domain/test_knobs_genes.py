"""Knobs of the searches over demonstrations and settings: spaces, names of other systems, rules, smallest budgets."""

import math
from typing import Any

import pytest

from shared import knobs, spaces
from shared.errors import Unprocessable


def refusal(strategy: str, given: Any) -> list[tuple[str, str]]:
    with pytest.raises(Unprocessable) as refused:
        knobs.resolve_strategy(strategy, given)
    return [(error.pointer, error.detail) for error in refused.value.errors]


# ---- spaces of settings --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "resolved"),
    [
        (["temperature"], {"temperature": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.1, "log": False}}),
        (["max_tokens"], {"max_new_tokens": {"type": "int", "low": 16, "high": 1024, "step": 1, "log": True}}),
        (
            {"temperature": {"low": 0, "high": 2}},
            {"temperature": {"type": "float", "low": 0.0, "high": 2.0, "step": None, "log": False}},
        ),
        (
            {"max_new_tokens": {"low": 10, "high": 50, "log": False, "step": 20}},
            {"max_new_tokens": {"type": "int", "low": 10, "high": 50, "step": 20, "log": False}},
        ),
        (
            {"model_name": {"choices": ["a", "b"]}, "top_p": {"choices": [0.5, 1]}},
            {
                "model_name": {"type": "categorical", "choices": ["a", "b"]},
                "top_p": {"type": "categorical", "choices": [0.5, 1]},
            },
        ),
    ],
)
def test_a_space_is_completed(given: Any, resolved: Any) -> None:
    found = knobs.resolve_strategy("hyperparameter", {"params_to_optimize": given})["params_to_optimize"]

    assert found == resolved
    assert knobs.resolve_strategy("hyperparameter", {"params_to_optimize": found})["params_to_optimize"] == resolved


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({}, "must be an object of settings"),
        ([], "must be an object of settings"),
        ("temperature", "must be an object of settings"),
        (5, "must be an object of settings"),
        ([["temperature"]], "must be an object of settings"),
        ({"seed": {"low": 1, "high": 2}}, "unknown setting 'seed'; there are: temperature, top_p"),
        (["model_name"], "model_name: give its choices"),
        ({"max_tokens": {}, "max_new_tokens": {}}, "max_new_tokens is given under two names"),
        ({"temperature": None}, "temperature: must be an object"),
        ({"temperature": {"lo": 1}}, "temperature: must be an object"),
        ({"temperature": {"low": 1, "high": 1}}, "temperature: low must be below high, both in [0, 2]"),
        ({"temperature": {"high": 2.1}}, "temperature: low must be below high, both in [0, 2]"),
        ({"temperature": {"low": True}}, "temperature: low must be a number"),
        ({"temperature": {"low": math.nan}}, "temperature: low must be a finite number"),
        ({"temperature": {"high": 10**400}}, "temperature: high must be a finite number"),
        ({"temperature": {"low": 0, "high": 1, "step": 0}}, "temperature: step must be above 0 and divide"),
        ({"temperature": {"low": 0, "high": 1, "step": 0.3}}, "temperature: step must be above 0 and divide"),
        ({"temperature": {"low": 0, "high": 1, "log": True}}, "temperature: log needs a low above 0"),
        ({"top_p": {"low": 0.1, "high": 1, "log": True, "step": 0.1}}, "top_p: log and step exclude each other"),
        ({"temperature": {"log": 1}}, "temperature: log must be true or false"),
        ({"temperature": {"type": "int"}}, "temperature: type must be float"),
        ({"max_new_tokens": {"low": 1.5}}, "max_new_tokens: low must be a whole number"),
        ({"top_p": {"choices": []}}, "top_p: choices must be a list of 1 to 64 values"),
        ({"top_p": {"choices": [0.5, 0.5]}}, "top_p: choices must differ"),
        ({"top_p": {"choices": [0.5, "1"]}}, "top_p: each choice must be a number"),
        ({"top_p": {"choices": [2]}}, "top_p: choices must be in [0.001, 1]"),
        ({"top_p": {"choices": [1], "low": 0}}, "top_p: takes choices and nothing else"),
        ({"model_name": {"choices": [1]}}, "model_name: choices must be names of models"),
        ({"model_name": {"choices": ["a", "a"]}}, "model_name: choices must be names of models, each once"),
        ({"model_name": {}}, "model_name: choices must be a list"),
    ],
)
def test_a_space_that_is_none_is_refused_with_the_setting_and_the_rule(given: Any, rule: str) -> None:
    ((pointer, found),) = refusal("hyperparameter", {"params_to_optimize": given})

    assert pointer == "/knobs/params_to_optimize"
    assert found.startswith(rule)


def test_a_grid_is_every_point_once() -> None:
    space = spaces.plain({"temperature": {"low": 0, "high": 1, "step": 0.5}, "model_name": {"choices": ["a", "b"]}})

    points = spaces.grid(space)

    assert len(points) == 6
    assert points[:3] == [
        {"model_name": "a", "temperature": 0.0},
        {"model_name": "a", "temperature": 0.5},
        {"model_name": "a", "temperature": 1.0},
    ]


# ---- rules between knobs -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "given", "pointer"),
    [
        ("bootstrap", {"max_bootstrapped": 0, "max_labeled": 0}, "/knobs/max_labeled"),
        ("bootstrap", {"max_bootstrapped": 0, "rounds": 2}, "/knobs/rounds"),
        ("bootstrap", {"max_bootstrapped": 0, "include_reasoning": True}, "/knobs/include_reasoning"),
        ("mipro", {"max_bootstrapped_demos": 0, "max_labeled_demos": 0}, "/knobs/num_demo_sets"),
        ("mipro", {"tips": []}, "/knobs/tips"),
        ("hyperparameter", {"objective_weights": {"cost": 1}}, "/knobs/objective_weights"),
        ("hyperparameter", {"search_method": "grid", "max_trials": 10}, "/knobs/max_trials"),
        (
            "hyperparameter",
            {"search_method": "grid", "params_to_optimize": {"temperature": {"low": 0, "high": 2}}},
            "/knobs/params_to_optimize/temperature/step",
        ),
        (
            "hyperparameter",
            {
                "search_method": "grid",
                "max_trials": 5000,
                "params_to_optimize": {"max_new_tokens": {"low": 1, "high": 100_000, "log": False}},
            },
            "/knobs/max_trials",
        ),
        ("gepa", {"parents_per_step": 16, "mutations_per_step": 16}, "/knobs/mutations_per_step"),
        ("bootstrap", {"teacher": ""}, "/knobs/teacher"),
        ("bootstrap", {"teacher": 5}, "/knobs/teacher"),
        ("mipro", {"tips": ["shout"]}, "/knobs/tips"),
        ("mipro", {"tips": ["none", "none"]}, "/knobs/tips"),
    ],
)
def test_knobs_that_contradict_each_other_are_refused(strategy: str, given: dict[str, Any], pointer: str) -> None:
    assert [found for found, _ in refusal(strategy, given)] == [pointer]


# ---- names of other systems ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alias", "given", "strategy", "resolved"),
    [
        ("miprov2", {"num_trials": 9}, "mipro", {"trials": 9}),
        ("bootstrap_fewshot", {"max_bootstrapped_demos": 2}, "bootstrap", {"max_bootstrapped": 2}),
        ("hyperparam", {}, "hyperparameter", {}),
        ("hparam", {"max_trials": 3}, "hyperparameter", {"max_trials": 3}),
        ("bayesian", {}, "hyperparameter", {"search_method": "bayesian"}),
        ("grid_search", {"max_trials": 11}, "hyperparameter", {"search_method": "grid", "max_trials": 11}),
        ("mcts", {"mcts_simulations": 7, "mcts_max_depth": 2}, "mcts", {"simulations": 7, "max_depth": 2}),
        ("mcts", {"mcts_exploration_c": 2.0, "prompt_candidates_per_node": 4}, "mcts", {"exploration_c": 2.0}),
    ],
)
def test_older_names_mean_what_they_say(
    alias: str, given: dict[str, Any], strategy: str, resolved: dict[str, Any]
) -> None:
    assert knobs.canonical(alias, given)[0] == strategy
    assert resolved.items() <= knobs.resolve_strategy(alias, given).items()


def test_a_knob_under_two_names_and_one_against_its_strategy_are_refused() -> None:
    assert refusal("mcts", {"mcts_simulations": 3, "simulations": 3})[0][0] == "/knobs/simulations"
    assert refusal("grid_search", {"search_method": "random"})[0][0] == "/knobs/search_method"


def test_every_alias_leads_to_a_knob_and_hides_none() -> None:
    for strategy, aliases in knobs.KNOB_ALIASES.items():
        assert set(aliases.values()) <= set(knobs.STRATEGIES[strategy])
        assert not set(aliases) & set(knobs.STRATEGIES[strategy])
    assert {strategy for strategy, _ in knobs.STRATEGY_ALIASES.values()} <= set(knobs.STRATEGIES)
    assert not set(knobs.STRATEGY_ALIASES) & set(knobs.STRATEGIES)


# ---- what a run needs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "given", "calls"),
    [
        # 100 cases: dev 40, train 30, holdout 30 twice; rungs of 16
        ("bootstrap", {}, 40 + 16 + 16 + 60),
        ("bootstrap", {"rounds": 3}, 40 + 3 * 16 + 16 + 60),
        ("bootstrap", {"max_bootstrapped": 0}, 40 + 16 + 60),
        ("mipro", {}, 40 + 12 + 2 * 24 + 60),
        ("mipro", {"num_demo_sets": 0, "minibatch_size": 10_000}, 40 + 2 * 40 + 60),
        ("hyperparameter", {}, 40 + 2 * 40 + 60),
        ("hyperparameter", {"pruner": "median"}, 40 + 2 * 16 + 60),
        ("hyperparameter", {"max_trials": 1}, 40 + 40 + 60),
        ("gepa", {}, 40 + 4 * 8 + 2 * 40 + 60),
        ("mcts", {}, 40 + 16 + 2 * 16 + 60),
    ],
)
def test_the_smallest_useful_run_is_counted(strategy: str, given: dict[str, Any], calls: int) -> None:
    spec = {
        "strategy": strategy,
        "knobs": knobs.resolve_strategy(strategy, given),
        "evaluation": knobs.resolve(knobs.EVALUATION, {}, "/evaluation"),
        "split": knobs.resolve_split({}),
    }

    assert knobs.minimum_task_calls(spec, 100) == calls


@pytest.mark.parametrize(
    ("strategy", "given", "needs"),
    [
        ("bootstrap", {}, True),
        ("gepa", {}, True),
        ("mipro", {}, True),
        ("mipro", {"num_demo_sets": 0}, False),
        ("mcts", {}, False),
        ("hyperparameter", {}, False),
        ("random", {}, False),
    ],
)
def test_what_works_from_train_cases_says_so(strategy: str, given: dict[str, Any], needs: bool) -> None:
    assert knobs.needs_train(knobs.resolve_strategy(strategy, given)) is needs


@pytest.mark.parametrize(
    ("strategy", "given", "rounds"),
    [
        ("random", {}, 1),
        ("beam_search", {"max_rounds": 4}, 4),
        ("bootstrap", {}, 1),
        ("mcts", {"simulations": 7}, 7),
        ("gepa", {"max_rounds": 9}, 9),
        ("hyperparameter", {"max_trials": 10, "batch": 4}, 3),
        ("mipro", {"trials": 9}, 3),
        ("mipro", {"num_instructions": 8}, 3),  # 12 trials, four at once
    ],
)
def test_progress_is_told_out_of_so_many_rounds(strategy: str, given: dict[str, Any], rounds: int) -> None:
    assert knobs.rounds_of({"knobs": knobs.resolve_strategy(strategy, given)}) == rounds


def test_the_models_that_may_be_called_are_known_before_the_search() -> None:
    space = {"model_name": {"choices": ["a", "b"]}, "temperature": {}}

    assert knobs.models_of(knobs.resolve_strategy("hyperparameter", {"params_to_optimize": space})) == ["a", "b"]
    assert knobs.models_of(knobs.resolve_strategy("mipro", {"teacher": "c"})) == ["c"]
    assert knobs.models_of(knobs.resolve_strategy("gepa", {})) == []
