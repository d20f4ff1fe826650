"""The catalogue of search settings: defaults filled in, each bad knob named with its rule, all of it described."""

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import knobs
from shared.errors import Unprocessable
from shared.knob_values import Knob
from shared.knobs import EARLY_STOPPING, EVALUATION, SPLIT, STRATEGIES, minimum_task_calls, split_shares
from worker.strategies import STRATEGIES as IMPLEMENTED

BLOCKS: Mapping[str, Mapping[str, Knob]] = {
    "/evaluation": EVALUATION,
    "/split": SPLIT,
    "/early_stopping": EARLY_STOPPING,
    **{f"/knobs of {name}": known for name, known in STRATEGIES.items()},
}
EVERY = [(block, name) for block, known in BLOCKS.items() for name in known]
NUMBERS = [
    (block, name) for block, name in EVERY if "int" in BLOCKS[block][name].kind or "float" in BLOCKS[block][name].kind
]
every_knob = pytest.mark.parametrize(("block", "name"), EVERY)
every_number = pytest.mark.parametrize(("block", "name"), NUMBERS)


def refusal(block: str, given_values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(pointer, rule) of each error; fails when the values are accepted."""
    with pytest.raises(Unprocessable) as refused:
        knobs.resolve(BLOCKS[block], given_values, block)
    return [(error.pointer, error.detail) for error in refused.value.errors]


# ---- every knob ----------------------------------------------------------------------------------


@pytest.mark.parametrize("block", sorted(BLOCKS))
def test_nothing_given_resolves_to_the_defaults(block: str) -> None:
    resolved = knobs.resolve(BLOCKS[block], {}, block)

    assert resolved == {name: knob.default for name, knob in BLOCKS[block].items()}
    assert json.loads(json.dumps(resolved, allow_nan=False)) == resolved


@every_knob
def test_the_default_is_within_its_own_rule(block: str, name: str) -> None:
    default = BLOCKS[block][name].default

    assert knobs.resolve(BLOCKS[block], {name: default}, block)[name] == default


@every_number
def test_both_ends_of_a_range_are_accepted_and_what_is_beyond_is_not(block: str, name: str) -> None:
    knob = BLOCKS[block][name]
    step = 1 if knob.kind.endswith("int") else 1e-9
    low, high = (int(knob.low), int(knob.high)) if knob.kind.endswith("int") else (knob.low, knob.high)
    lowest = low + step if knob.open_low else low

    assert knobs.resolve(BLOCKS[block], {name: lowest}, block)[name] == lowest
    assert knobs.resolve(BLOCKS[block], {name: high}, block)[name] == high
    for beyond in (lowest - step, high + step):
        assert refusal(block, {name: beyond}) == [
            (f"{block}/{name}", f"must be in {'(' if knob.open_low else '['}{knob.low:g}, {knob.high:g}]")
        ]


@every_number
@pytest.mark.parametrize("value", [True, False, "1", [1], {"a": 1}])
def test_a_number_is_neither_a_boolean_nor_a_text(block: str, name: str, value: Any) -> None:
    whole = BLOCKS[block][name].kind.endswith("int")

    assert refusal(block, {name: value}) == [
        (f"{block}/{name}", "must be a whole number" if whole else "must be a number")
    ]


@every_number
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_is_finite(block: str, name: str, value: float) -> None:
    whole = BLOCKS[block][name].kind.endswith("int")

    assert refusal(block, {name: value}) == [
        (f"{block}/{name}", "must be a whole number" if whole else "must be a finite number")
    ]


@every_number
def test_a_number_too_large_for_a_float_is_out_of_range_and_no_accident(block: str, name: str) -> None:
    ((pointer, rule),) = refusal(block, {name: 10**400})

    assert pointer == f"{block}/{name}"
    assert rule.startswith("must be in")


@every_knob
def test_null_is_for_the_knobs_that_say_so(block: str, name: str) -> None:
    if BLOCKS[block][name].kind.startswith("optional_"):
        assert knobs.resolve(BLOCKS[block], {name: None}, block)[name] is None
    else:
        assert [pointer for pointer, _ in refusal(block, {name: None})] == [f"{block}/{name}"]


@pytest.mark.parametrize(("block", "name"), [(b, n) for b, n in EVERY if BLOCKS[b][n].kind.endswith("enum")])
@pytest.mark.parametrize("value", ["", "nobody", "FULL", 1, True, ["full"], {}])
def test_an_enum_takes_its_choices_only(block: str, name: str, value: Any) -> None:
    knob = BLOCKS[block][name]

    assert all(knobs.resolve(BLOCKS[block], {name: choice}, block)[name] == choice for choice in knob.choices)
    assert refusal(block, {name: value}) == [(f"{block}/{name}", f"must be one of {', '.join(knob.choices)}")]


@pytest.mark.parametrize(("block", "name"), [(b, n) for b, n in EVERY if BLOCKS[b][n].kind == "bool"])
@pytest.mark.parametrize("value", [0, 1, "true", None])
def test_a_switch_is_true_or_false(block: str, name: str, value: Any) -> None:
    assert refusal(block, {name: value}) == [(f"{block}/{name}", "must be true or false")]


@pytest.mark.parametrize("block", sorted(BLOCKS))
def test_an_unknown_knob_is_refused_with_the_known_ones(block: str) -> None:
    assert refusal(block, {"temprature": 1}) == [
        (f"{block}/temprature", f"unknown knob; there are: {', '.join(BLOCKS[block])}")
    ]


def test_every_bad_knob_is_named_at_once() -> None:
    found = refusal("/evaluation", {"eta": 1, "mode": "best", "patience": 3, "repeats": 2})

    assert {pointer for pointer, _ in found} == {"/evaluation/eta", "/evaluation/mode", "/evaluation/patience"}


def test_a_whole_number_given_for_a_share_becomes_a_float() -> None:
    resolved = knobs.resolve(EVALUATION, {"lcb_z": 1}, "/evaluation")

    assert isinstance(resolved["lcb_z"], float)


@settings(max_examples=200, deadline=None)
@given(
    given_values=st.dictionaries(
        st.sampled_from([*STRATEGIES["beam_search"], "unknown"]),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just(10**400)),
            lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(), inner, max_size=2)),
            max_leaves=4,
        ),
        max_size=4,
    )
)
def test_any_json_is_resolved_or_refused_by_name(given_values: dict[str, Any]) -> None:
    named: set[str] = set()
    resolved = {**knobs.resolve_strategy("beam_search", {}), **given_values}
    try:
        resolved = knobs.resolve_strategy("beam_search", given_values)
    except Unprocessable as error:
        named = {problem.pointer.split("/")[2] for problem in error.errors}

    assert named <= {*given_values}
    assert named or json.dumps(resolved, allow_nan=False)
    assert {name: resolved[name] for name in given_values} == given_values


# ---- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "rule"),
    [
        ({}, "must be an object of weights; names: reflect, paraphrase"),
        ([], "must be an object of weights"),
        ("reflect", "must be an object of weights"),
        (None, "must be an object of weights"),
        ({"rewrite": 1}, "unknown name 'rewrite'; there are: reflect, paraphrase"),
        ({"reflect": -0.1}, "the weight of reflect must be a number from 0"),
        ({"reflect": True}, "the weight of reflect must be a number from 0"),
        ({"reflect": "1"}, "the weight of reflect must be a number from 0"),
        ({"reflect": None}, "the weight of reflect must be a number from 0"),
        ({"reflect": math.nan}, "the weight of reflect must be a number from 0"),
        ({"reflect": math.inf}, "the weight of reflect must be a number from 0"),
        ({"reflect": 1e308, "shorten": 1e308}, "the weight of reflect must be a number from 0 to 1,000,000"),
        ({"shorten": 10**400}, "the weight of shorten must be a number from 0 to 1,000,000"),
        ({"reflect": 0, "shorten": 0.0}, "at least one weight must be above 0"),
    ],
)
def test_weights_are_named_numbers_with_a_sum(weights: Any, rule: str) -> None:
    ((pointer, found),) = refusal("/knobs of beam_search", {"operators": weights})

    assert pointer == "/knobs of beam_search/operators"
    assert found.startswith(rule)


def test_the_weights_that_are_given_replace_the_default_ones() -> None:
    assert knobs.resolve_strategy("beam_search", {"operators": {"shorten": 1, "delete": 0}})["operators"] == {
        "shorten": 1,
        "delete": 0,
    }


def test_resolving_does_not_hand_out_the_catalogue_itself() -> None:
    knobs.resolve_strategy("beam_search", {})["operators"]["shorten"] = 5

    assert "shorten" not in knobs.resolve_strategy("beam_search", {})["operators"]


# ---- rules between knobs -------------------------------------------------------------------------


CONTRADICTIONS: list[tuple[str, dict[str, Any], str, str]] = [
    ("beam_search", {"beam_width": 4, "max_candidates": 3}, "max_candidates", "at least beam_width"),
    ("beam_search", {"diversity_rate": 0.5}, "diversity_rate", "needs candidate_reranker"),
    (
        "beam_search",
        {"diversity_rate": 0.5, "candidate_reranker": "score"},
        "diversity_rate",
        "needs candidate_reranker",
    ),
    ("beam_search", {"pruning": "diverse"}, "diversity_rate", "above 0"),
    ("beam_search", {"pruning": "threshold"}, "prune_threshold", "above 0"),
    ("beam_search", {"gradients_per_beam": 4}, "gradients_per_beam", "at most expansions_per_beam"),
    ("beam_search", {"errors_per_gradient": 2}, "errors_per_gradient", "needs gradients_per_beam"),
    ("random", {"edit_level": "line"}, "edit_level", "only with mode edit"),
    ("iterative", {"tolerance": 0.1}, "tolerance", "only with acceptance tolerance"),
    ("iterative", {"paired_z": 2.0, "acceptance": "at_least"}, "paired_z", "only with acceptance paired"),
    ("iterative", {"restarts": 0, "max_stall": 3}, "max_stall", "needs restarts"),
    ("anneal", {"cooling_rate": 0.5, "schedule": "linear"}, "cooling_rate", "only with schedule geometric"),
    ("anneal", {"step_size": 0.01}, "step_size", "only with schedule linear"),
    ("anneal", {"step_size": 0.01, "schedule": "linear"}, "step_size", "needs initial_temp"),
    (
        "anneal",
        {"step_size": 0.01, "schedule": "linear", "initial_temp": 0.1, "epochs": 40},
        "step_size",
        "step_size x epochs must be at most initial_temp - min_temp, which is 0.098",
    ),
    ("anneal", {"initial_temp": 0.1, "min_temp": 0.1}, "min_temp", "below initial_temp"),
    ("anneal", {"min_temp": 0.0}, "min_temp", "only with schedule linear or cosine"),
    ("anneal", {"target_acceptance": 0.5}, "target_acceptance", "only with schedule adaptive"),
    ("anneal", {"window": 5}, "window", "only with schedule adaptive"),
    ("anneal", {"cooling_rate": 0.5, "schedule": "adaptive"}, "cooling_rate", "only with schedule geometric"),
    ("anneal", {"schedule": "adaptive", "reheat_factor": 1.0}, "reheat_factor", "below 1 with schedule adaptive"),
    *(
        ("anneal", {"acceptance": rule, name: value}, name, "only with acceptance metropolis or noisy_metropolis")
        for rule in ("threshold", "greedy", "late_acceptance")
        for name, value in {
            "schedule": "cosine",
            "initial_temp": 0.1,
            "min_temp": 0.01,
            "calibration_moves": 3,
            "initial_acceptance": 0.7,
            "reheat_factor": 0.7,
        }.items()
    ),
    ("anneal", {"initial_temp": 0.1, "calibration_moves": 3}, "calibration_moves", "only with initial_temp auto"),
    ("anneal", {"noise_penalty": 2.0}, "noise_penalty", "only with acceptance noisy_metropolis"),
    ("anneal", {"threshold": 0.1}, "threshold", "only with acceptance threshold"),
    ("anneal", {"history": 3}, "history", "only with acceptance late_acceptance"),
    ("anneal", {"chains": 64, "proposals_per_step": 5}, "proposals_per_step", "at most 256"),
    ("anneal", {"chains": 1, "exchange_every": 2}, "exchange_every", "chains of at least 2"),
    ("anneal", {"neighbourhood": "llm", "edit_weight": 0.1}, "edit_weight", "only with neighbourhood mixed"),
    (
        "anneal",
        {"neighbourhood": "llm", "edits_per_move": 2},
        "edits_per_move",
        "only with neighbourhood edit or mixed",
    ),
    ("anneal", {"operators": {"reflect": 1}}, "operators", "needs an operator of the kind edit"),
    ("anneal", {"operators": {"delete": 1}, "neighbourhood": "llm"}, "operators", "of the kind llm"),
    ("genetic", {"population_size": 4, "elitism": 4}, "elitism", "below population_size 4"),
    ("genetic", {"population_size": 4, "tournament_size": 5}, "tournament_size", "at most population_size 4"),
    ("genetic", {"selection": "rank", "tournament_size": 4}, "tournament_size", "only with selection tournament"),
    ("genetic", {"rank_pressure": 1.5}, "rank_pressure", "only with selection rank"),
    ("genetic", {"roulette_scaling": "none"}, "roulette_scaling", "only with selection roulette"),
    ("genetic", {"selection": "roulette", "softmax_temp": 0.2}, "softmax_temp", "only with roulette_scaling softmax"),
    ("genetic", {"crossover_operator": "de", "population_size": 3}, "crossover_operator", "at least 4"),
    ("genetic", {"uniform_prob": 0.3}, "uniform_prob", "only with crossover_operator uniform"),
    ("genetic", {"crossover_rate": 0, "mutation_rate": 0}, "mutation_rate", "must be above 0"),
    ("genetic", {"mutation_min": 0.2}, "mutation_min", "only with adaptive_mutation true"),
    (
        "genetic",
        {"adaptive_mutation": True, "mutation_min": 0.6, "mutation_max": 0.5},
        "mutation_min",
        "at most mutation_max",
    ),
    ("genetic", {"immigrants": 0.05}, "immigrants", "0 or at least 1; this is 0.4"),
    (
        "genetic",
        {"offspring": 3, "replacement": "steady_state"},
        "offspring",
        "only with replacement generational or plus",
    ),
    ("genetic", {"async_window": 3}, "async_window", "only with replacement steady_state"),
    ("genetic", {"replacement": "steady_state", "async_window": 9}, "async_window", "at most population_size 8"),
    ("genetic", {"restart_keep": 8}, "restart_keep", "below population_size 8"),
    ("genetic", {"init": "provided"}, "initial_prompts", "at least one text"),
    ("gepa", {"tolerance": 0.1}, "tolerance", "only with acceptance tolerance"),
    ("gepa", {"frontier": "hybrid", "candidate_selection": "current_best"}, "frontier", "pareto or top_k_pareto"),
    ("gepa", {"epsilon": 0.2}, "epsilon", "only with candidate_selection epsilon_greedy"),
    ("gepa", {"top_k": 3}, "top_k", "only with candidate_selection top_k_pareto"),
    ("gepa", {"paired_z": 2.0}, "paired_z", "only with acceptance paired"),
    ("gepa", {"perfect_score": 0.9, "skip_perfect": False}, "perfect_score", "only with skip_perfect true"),
    ("hyperparameter", {"pruner_p": 0.2}, "pruner_p", "only with pruner paired"),
    ("genetic", {"initial_prompts": ["Sort {{ ticket }}."]}, "initial_prompts", "only with init provided"),
]


@pytest.mark.parametrize(("strategy", "given_values", "knob", "rule"), CONTRADICTIONS)
def test_knobs_that_contradict_each_other_are_refused_by_name_and_rule(
    strategy: str, given_values: dict[str, Any], knob: str, rule: str
) -> None:
    with pytest.raises(Unprocessable) as refused:
        knobs.resolve_strategy(strategy, given_values)

    assert [error.pointer for error in refused.value.errors] == [f"/knobs/{knob}"]
    assert rule in refused.value.errors[0].detail


@pytest.mark.parametrize(
    ("strategy", "given_values"),
    [
        ("beam_search", {"beam_width": 4, "max_candidates": 4}),
        ("beam_search", {"diversity_rate": 0.5, "candidate_reranker": "diversity"}),
        ("beam_search", {"diversity_rate": 0.5, "candidate_reranker": "hybrid"}),
        ("beam_search", {"diversity_rate": 0.5, "pruning": "diverse"}),
        ("beam_search", {"gradients_per_beam": 2, "errors_per_gradient": 2}),
        ("anneal", {"schedule": "linear", "initial_temp": 0.1, "step_size": 0.002, "epochs": 40, "min_temp": 0.0}),
        ("anneal", {"schedule": "cosine", "min_temp": 0.0}),
        ("anneal", {"schedule": "adaptive", "target_acceptance": 0.5, "window": 5}),
        ("anneal", {"acceptance": "threshold", "threshold": 0.1}),
        ("anneal", {"neighbourhood": "edit", "operators": {"delete": 1}}),
        ("gepa", {"frontier": "hybrid", "candidate_selection": "top_k_pareto"}),
        ("gepa", {"frontier": "hybrid", "candidate_selection": "current_best", "use_merge": True}),
        ("genetic", {"immigrants": 0.0, "population_size": 2}),
        ("genetic", {"replacement": "steady_state", "async_window": 8}),
        ("genetic", {"selection": "roulette", "roulette_scaling": "softmax", "softmax_temp": 0.2}),
        ("genetic", {"init": "provided", "initial_prompts": ["Sort {{ ticket }}."]}),
        ("genetic", {"population_size": 2}),
    ],
)
def test_knobs_that_agree_are_accepted(strategy: str, given_values: dict[str, Any]) -> None:
    assert given_values.items() <= knobs.resolve_strategy(strategy, given_values).items()


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_what_was_resolved_resolves_to_itself(strategy: str) -> None:
    """A run is repeated from its own spec."""
    resolved = knobs.resolve_strategy(strategy, {})

    assert knobs.resolve_strategy(strategy, resolved) == resolved


# ---- older names ---------------------------------------------------------------------------------


@pytest.mark.parametrize("alias", sorted(knobs.STRATEGY_ALIASES))
def test_an_older_name_of_a_strategy_means_it(alias: str) -> None:
    meant, implied = knobs.STRATEGY_ALIASES[alias]
    enough = {"max_trials": 11} if alias == "grid_search" else {}  # so many points the usual grid has

    assert knobs.canonical(alias, {}) == (meant, implied)
    assert knobs.resolve_strategy(alias, enough) == knobs.resolve_strategy(meant, {**implied, **enough})
    assert alias not in STRATEGIES


@pytest.mark.parametrize(
    ("strategy", "alias", "meant"),
    [(name, alias, meant) for name, known in knobs.KNOB_ALIASES.items() for alias, meant in known.items()],
)
def test_an_older_name_of_a_knob_means_it_and_is_named_when_refused(strategy: str, alias: str, meant: str) -> None:
    value, bad = _another(STRATEGIES[strategy][meant])

    assert alias not in STRATEGIES[strategy]
    assert knobs.resolve_strategy(strategy, {alias: value})[meant] == value
    for values in ({alias: bad}, {alias: value, meant: value}):
        with pytest.raises(Unprocessable) as refused:
            knobs.resolve_strategy(strategy, values)
        assert refused.value.errors[0].pointer in (f"/knobs/{alias}", f"/knobs/{meant}")
        assert len(values) > 1 or refused.value.errors[0].pointer == f"/knobs/{alias}"


def _another(knob: Knob) -> tuple[Any, Any]:
    """A good value that is not the default, and a bad one."""
    if knob.kind == "enum":
        return knob.choices[-1], "nobody"
    if knob.kind == "bool":
        return not knob.default, 2
    return (knob.default or 0) + 1, -1


def test_values_and_groups_of_older_systems_are_understood() -> None:
    anneal = knobs.resolve_strategy(
        "simulated_annealing",
        {"schedule": "exponential", "initial_temp": "auto", "reheat": {"stall_steps": 5, "factor": 0.7, "max": 2}},
    )
    genetic = knobs.resolve_strategy(
        "ga", {"diversity": {"min_distance": 0.1, "immigrants": 0.5}, "restart": {"stall": 0, "keep": 2}}
    )

    assert (anneal["schedule"], anneal["initial_temp"]) == ("geometric", None)
    assert [anneal[f"reheat_{name}"] for name in ("stall_steps", "factor", "max")] == [5, 0.7, 2]
    assert [genetic[name] for name in ("min_distance", "immigrants", "restart_stall", "restart_keep")] == [
        0.1,
        0.5,
        0,
        2,
    ]


@pytest.mark.parametrize(
    ("group", "pointer"),
    [({"stall_steps": 0}, "/knobs/reheat/stall_steps"), ({"warm": 1}, "/knobs/reheat/warm"), (3, "/knobs/reheat")],
)
def test_a_bad_part_of_a_group_is_named_within_it(group: Any, pointer: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        knobs.resolve_strategy("anneal", {"reheat": group})

    assert [error.pointer for error in refused.value.errors] == [pointer]


# ---- rules between the blocks --------------------------------------------------------------------


def a_spec(strategy: str, **blocks: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "strategy": strategy,
        "knobs": knobs.resolve_strategy(strategy, blocks.get("knobs_", {})),
        "evaluation": knobs.resolve(EVALUATION, blocks.get("evaluation", {}), "/evaluation"),
        "early_stopping": knobs.resolve(EARLY_STOPPING, blocks.get("early_stopping", {}), "/early_stopping"),
        "split": knobs.resolve_split({}),
        "budget": blocks.get("budget", {}),
    }


@pytest.mark.parametrize(
    ("strategy", "blocks", "pointer", "rule"),
    [
        ("beam_search", {"evaluation": {"mode": "full", "eta": 4}}, "/evaluation/eta", "only with mode halving"),
        ("random", {"evaluation": {"alpha": 0.05}}, "/evaluation/alpha", "only with mode racing"),
        ("random", {"evaluation": {"ucb_c": 2.0, "mode": "racing"}}, "/evaluation/ucb_c", "only with mode ucb"),
        (
            "beam_search",
            {"knobs_": {"pruning": "top_k"}, "evaluation": {"mode": "racing", "alpha": 0.05}},
            "/evaluation/alpha",
            "only with mode racing; this is minibatch",
        ),
        (
            "beam_search",
            {"evaluation": {"mode": "ucb", "ucb_rounds": 5, "block_size": 2}},
            "/evaluation/ucb_rounds",
            "at least the 12 candidates",
        ),
        (
            "beam_search",
            {"knobs_": {"pruning": "successive_rejects"}, "budget": {"max_task_calls": 600}},
            "/knobs/pruning",
            "needs 624 task calls",
        ),
        *(
            (strategy, {"evaluation": {"mode": mode}}, "/evaluation/mode", f"one list of cases for all; {mode}")
            for strategy in ("anneal", "mcts", "mipro", "hyperparameter", "gepa")
            for mode in ("racing", "ucb")
        ),
        *(
            (strategy, {"evaluation": {"eta": 4}}, "/evaluation/eta", f"{strategy} drops nobody by it")
            for strategy in ("anneal", "mcts", "mipro", "hyperparameter", "gepa")
        ),
        *(
            (strategy, {"evaluation": {"case_order": "shuffled_per_round"}}, "/evaluation/case_order", "for all rounds")
            for strategy in ("mcts", "mipro", "hyperparameter", "gepa")
        ),
        (
            "bootstrap",
            {"evaluation": {"mode": "ucb", "ucb_rounds": 1}},
            "/evaluation/ucb_rounds",
            "at least the 15 candidates",
        ),
        (
            "hyperparameter",
            {"knobs_": {"pruner": "median"}, "evaluation": {"mode": "full"}},
            "/knobs/pruner",
            "only none with evaluation.mode full",
        ),
        (
            "gepa",
            {"knobs_": {"val_cases": 9}, "evaluation": {"mode": "full"}},
            "/knobs/val_cases",
            "only null with evaluation.mode full",
        ),
        (
            "beam_search",
            {"knobs_": {"stagnation_restart": 5}},
            "/knobs/stagnation_restart",
            "below early_stopping.patience 5",
        ),
    ],
)
def test_blocks_that_contradict_each_other_are_refused(
    strategy: str, blocks: dict[str, Any], pointer: str, rule: str
) -> None:
    with pytest.raises(Unprocessable) as refused:
        knobs.check_together(a_spec(strategy, **blocks), blocks.get("evaluation", {}))

    assert [error.pointer for error in refused.value.errors] == [pointer]
    assert rule in refused.value.errors[0].detail


@pytest.mark.parametrize(
    ("strategy", "blocks"),
    [
        ("beam_search", {"knobs_": {"pruning": "racing"}, "evaluation": {"alpha": 0.05, "test": "sign"}}),
        ("beam_search", {"knobs_": {"pruning": "successive_rejects"}, "budget": {"max_task_calls": 624}}),
        ("beam_search", {"knobs_": {"stagnation_restart": 2}}),
        ("genetic", {"knobs_": {"survivors_by": "racing"}, "evaluation": {"block_size": 16}}),
        ("random", {"evaluation": {"mode": "full", "eta": 2}}),
        ("hyperparameter", {"knobs_": {"pruner": "halving"}, "evaluation": {"eta": 4}}),
        ("hyperparameter", {"evaluation": {"mode": "full"}}),
        ("gepa", {"evaluation": {"mode": "full"}}),
        ("gepa", {"evaluation": {"case_order": "fixed"}}),
        ("anneal", {"evaluation": {"case_order": "shuffled_per_round"}}),
        ("bootstrap", {"evaluation": {"mode": "racing", "alpha": 0.05}}),
    ],
)
def test_blocks_that_agree_are_accepted(strategy: str, blocks: dict[str, Any]) -> None:
    knobs.check_together(a_spec(strategy, **blocks), blocks.get("evaluation", {}))


def test_the_rounds_of_a_search_are_told_from_its_knobs() -> None:
    rounds = {name: knobs.rounds_of({"knobs": knobs.resolve_strategy(name, {})}) for name in STRATEGIES}

    # A generation more than asked for: the first population is a round too.
    assert rounds == {**rounds, "noop": 1, "random": 1, "iterative": 20, "beam_search": 6, "anneal": 40, "genetic": 9}


@pytest.mark.parametrize("value", [None, "text", [1], [""], ["  "], ["x" * 100_001], ["x"] * 513, {"a": "b"}])
def test_texts_are_a_list_of_some_that_say_something(value: Any) -> None:
    ((pointer, _),) = refusal("/knobs of genetic", {"initial_prompts": value})

    assert pointer == "/knobs of genetic/initial_prompts"


def test_an_unknown_strategy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Unprocessable) as refused:
        knobs.resolve_strategy("magic", {})

    assert [error.pointer for error in refused.value.errors] == ["/strategy"]
    assert all(name in refused.value.errors[0].detail for name in STRATEGIES)


@pytest.mark.parametrize(
    ("fractions", "rule"),
    [
        ((0.3, 0.4, 0.4), "must add up to 1; these make 1.1"),
        ((0.3, 0.3, 0.3), "must add up to 1; these make 0.9"),
        ((0.0, 0.0, 1.0), "dev_fraction and holdout_fraction must be above 0"),
        ((0.5, 0.5, 0.0), "dev_fraction and holdout_fraction must be above 0"),
    ],
)
def test_fractions_that_make_no_split_are_refused(fractions: tuple[float, float, float], rule: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        knobs.resolve_split(dict(zip(("train_fraction", "dev_fraction", "holdout_fraction"), fractions, strict=True)))

    assert [error.pointer for error in refused.value.errors] == ["/split"]
    assert rule in refused.value.errors[0].detail


def test_fractions_may_add_up_to_one_but_for_rounding_and_train_may_be_empty() -> None:
    thirds = {"train_fraction": 0.333333, "dev_fraction": 0.333333, "holdout_fraction": 0.333334}
    no_train = {"train_fraction": 0, "dev_fraction": 0.6, "holdout_fraction": 0.4}

    told = {"split_seed": 0, "stratify_by": None, "group_by": None, "allow_tiny": False}
    assert knobs.resolve_split(thirds) == {**thirds, **told}
    assert knobs.resolve_split(no_train)["train_fraction"] == 0


# ---- what a run needs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cases", "shares"),
    [
        (10, {"dev": 0.5, "holdout": 0.5}),
        (20, {"dev": 0.7, "holdout": 0.3}),
        (29, {"dev": 0.7, "holdout": 0.3}),
        (30, {"train": 0.3, "dev": 0.4, "holdout": 0.3}),
    ],
)
def test_few_cases_are_divided_in_two_with_five_for_the_holdout(cases: int, shares: dict[str, float]) -> None:
    assert split_shares(knobs.resolve_split({}), cases) == pytest.approx(shares)


@pytest.mark.parametrize(
    ("strategy", "given_knobs", "evaluation", "cases", "calls"),
    [
        # dev 40, evidence 16, three children on 16 cases, holdout 30 twice
        ("beam_search", {}, {}, 100, 40 + 16 + 3 * 16 + 60),
        ("beam_search", {"evidence_cases": 4, "expansions_per_beam": 2}, {"min_cases": 8}, 100, 40 + 4 + 2 * 8 + 60),
        ("beam_search", {"evidence_cases": 200}, {}, 100, 40 + 30 + 3 * 16 + 60),
        ("beam_search", {}, {"mode": "full"}, 100, 40 + 16 + 3 * 40 + 60),
        ("beam_search", {}, {"max_cases": 10}, 100, 10 + 16 + 3 * 10 + 60),
        ("beam_search", {}, {"repeats": 3}, 100, 3 * (40 + 16 + 3 * 16 + 60)),
        # ten of dev are set aside, and are asked about once
        ("beam_search", {}, {"generalization_check_every": 3}, 100, 30 + 10 + 16 + 3 * 16 + 60),
        # train is dev: the failures of the baseline are the evidence
        ("beam_search", {}, {}, 20, 14 + 0 + 3 * 14 + 12),
        ("beam_search", {}, {"max_cases": 10}, 20, 10 + 4 + 3 * 10 + 12),
        ("random", {}, {}, 100, 40 + 2 * 16 + 60),
        ("random", {"proposals": 1}, {}, 100, 40 + 16 + 60),
        ("random", {}, {}, 10, 5 + 2 * 5 + 10),
        # dev once more, for the twin
        ("noop", {}, {}, 100, 40 + 40 + 60),
        ("iterative", {"evidence_cases": 8, "proposals_per_step": 2}, {}, 100, 40 + 8 + 2 * 16 + 60),
        # six moves to measure the first temperature, then four of each of two chains
        ("anneal", {}, {"min_cases": 8}, 100, 40 + 16 + (6 + 8) * 8 + 60),
        ("anneal", {"initial_temp": 0.1}, {"min_cases": 8}, 100, 40 + 16 + 8 * 8 + 60),
        ("anneal", {"acceptance": "greedy", "chains": 1}, {"mode": "full"}, 100, 40 + 16 + 4 * 40 + 60),
        # 8 members, and half of 7 children in each of 8 generations
        ("genetic", {}, {"min_cases": 8}, 100, 40 + 16 + 8 * (8 + 28) + 60),
        ("genetic", {"generations": 1, "population_size": 4}, {"mode": "minibatch"}, 100, 40 + 16 + 88 + 60),
        ("genetic", {"generations": 1, "survivors_by": "score"}, {}, 100, 40 + 16 + 460 + 60),
        ("beam_search", {"pruning": "top_k"}, {"mode": "racing"}, 100, 40 + 16 + 3 * 16 + 60),
    ],
)
def test_the_smallest_useful_run_is_counted(
    strategy: str, given_knobs: dict[str, Any], evaluation: dict[str, Any], cases: int, calls: int
) -> None:
    spec = {
        "strategy": strategy,
        "knobs": knobs.resolve_strategy(strategy, given_knobs),
        "evaluation": knobs.resolve(EVALUATION, evaluation, "/evaluation"),
        "split": knobs.resolve_split({}),
    }

    assert minimum_task_calls(spec, cases) == calls


@pytest.mark.parametrize("name", ["stratify_by", "group_by"])
def test_what_cases_are_told_by_is_a_field_of_theirs(name: str) -> None:
    for path in ("expected", "tags", "group", "inputs.country", "expected.meta.country"):
        assert knobs.resolve_split({name: path})[name] == path
    for path in ("country", "inputs", "inputs.", "expected..a", "tags.0", "group.a", "weight", "input.country"):
        with pytest.raises(Unprocessable) as refused:
            knobs.resolve_split({name: path})
        assert [(error.pointer, error.detail) for error in refused.value.errors] == [
            (f"/split/{name}", "must be expected, tags, group, inputs.<name> or expected.<field>")
        ]


# ---- the description -----------------------------------------------------------------------------


def test_every_strategy_that_can_run_is_in_the_catalogue_and_the_other_way_round() -> None:
    assert set(IMPLEMENTED) == set(STRATEGIES)


def test_the_description_lists_every_strategy_with_every_knob() -> None:
    described = {item["name"]: item for item in knobs.describe()}

    assert list(described) == list(STRATEGIES)
    for name, known in STRATEGIES.items():
        assert described[name]["description"]
        assert [knob["name"] for knob in described[name]["knobs"]] == list(known)
    json.dumps(knobs.describe(), allow_nan=False)


def test_a_described_knob_tells_its_type_default_range_and_choices() -> None:
    described = {
        knob["name"]: knob for item in knobs.describe() for knob in item["knobs"] if item["name"] == "beam_search"
    }

    assert described["beam_width"] == {
        "name": "beam_width",
        "aliases": ["beam_size"],
        "type": "int",
        "default": 3,
        "low": 2,
        "high": 64,
        "choices": [],
        "note": "parents kept from round to round",
        "only_with": {},
    }
    assert described["candidate_reranker"]["choices"] == ["none", "score", "diversity", "hybrid"]
    assert (described["candidate_reranker"]["low"], described["candidate_reranker"]["high"]) == (None, None)
