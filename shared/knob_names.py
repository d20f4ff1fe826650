"""What earlier systems call the same things: strategies, knobs and values. Resolved here and nowhere else."""

from collections.abc import Mapping
from typing import Any

from shared.errors import FieldError
from shared.knob_values import refuse

# An older name of a strategy: the strategy, and the knobs that the name stands for.
STRATEGY_ALIASES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "random_search": ("random", {}),
    "hill_climbing": ("iterative", {}),
    "hill_climb": ("iterative", {}),
    "greedy": ("iterative", {}),
    "beam": ("beam_search", {}),
    "simulated_annealing": ("anneal", {}),
    "annealing": ("anneal", {}),
    "ga": ("genetic", {}),
    "genetic_algorithm": ("genetic", {}),
    "miprov2": ("mipro", {}),
    "bootstrap_fewshot": ("bootstrap", {}),
    "hyperparam": ("hyperparameter", {}),
    "hparam": ("hyperparameter", {}),
    "bayesian": ("hyperparameter", {"search_method": "bayesian"}),
    "grid_search": ("hyperparameter", {"search_method": "grid"}),
}
KNOB_ALIASES: Mapping[str, Mapping[str, str]] = {
    "random": {"max_trials": "proposals"},
    "iterative": {
        "batch_size": "evidence_cases",
        **dict.fromkeys(("steps", "iterations", "max_iterations", "epochs"), "max_rounds"),
    },
    "beam_search": {"beam_size": "beam_width", **dict.fromkeys(("depth", "max_depth", "rounds"), "max_rounds")},
    "anneal": dict.fromkeys(("steps", "iterations", "max_iterations"), "epochs"),
    "genetic": {
        "pop_size": "population_size",
        "elite_count": "elitism",
        **dict.fromkeys(("max_generations", "epochs"), "generations"),
    },
    "mcts": {
        "mcts_simulations": "simulations",
        "mcts_max_depth": "max_depth",
        "mcts_exploration_c": "exploration_c",
        "prompt_candidates_per_node": "candidates_per_node",
    },
    "bootstrap": {
        "max_bootstrapped_demos": "max_bootstrapped",
        "max_labeled_demos": "max_labeled",
        "num_candidate_programs": "candidate_sets",
        "max_rounds": "rounds",
    },
    "mipro": {
        "num_candidates": "num_instructions",
        "num_trials": "trials",
        "minibatch_full_eval_steps": "full_eval_every",
    },
    "gepa": {
        "candidate_selection_strategy": "candidate_selection",
        "skip_perfect_score": "skip_perfect",
        "frontier_type": "frontier",
    },
}
VALUE_ALIASES: Mapping[tuple[str, str], Any] = {
    ("schedule", "exponential"): "geometric",
    ("initial_temp", "auto"): None,
}
KNOB_GROUPS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "anneal": {
        "reheat": {"stall_steps": "reheat_stall_steps", "factor": "reheat_factor", "max": "reheat_max"},
    },
    "genetic": {
        "diversity": {
            "min_distance": "min_distance",
            "threshold": "diversity_threshold",
            "immigrants": "immigrants",
            "sharing_sigma": "sharing_sigma",
        },
        "restart": {"stall": "restart_stall", "keep": "restart_keep"},
    },
}


def canonical(strategy: str, given: Mapping[str, Any]) -> tuple[str, dict[str, Any], dict[str, str]]:
    """The strategy and the knobs by their own names, and how the caller called each that has another name there."""
    name, implied = STRATEGY_ALIASES.get(strategy, (strategy, {}))
    values: dict[str, Any] = {}
    called: dict[str, str] = {}
    for knob, value in given.items():
        group = KNOB_GROUPS.get(name, {}).get(knob)
        inner = value if group is not None and isinstance(value, Mapping) else None
        for part, one in inner.items() if inner is not None else [(None, value)]:
            known = KNOB_ALIASES.get(name, {}).get(knob, knob) if part is None else (group or {}).get(part, part)
            if known in values:
                refuse([FieldError(f"/knobs/{knob}", f"given twice: {knob} is another name of {known}")])
            values[known] = VALUE_ALIASES.get((known, one), one) if isinstance(one, str) else one
            called[known] = knob if part is None else f"{knob}/{part}"
    for known, value in implied.items():
        if values.setdefault(known, value) != value:
            refuse([FieldError(f"/knobs/{called[known]}", f"contradicts {strategy}, which is {name} with {value}")])
    return name, values, called
