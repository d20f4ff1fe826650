"""The rules between search settings: what contradicts what, said of the knob that should give way."""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from shared import spaces
from shared.errors import FieldError

WITH_TEMPERATURE = ("metropolis", "noisy_metropolis")  # the acceptance rules of `anneal` that have one
LARGEST_MOVE = 256  # children of all chains together
LARGEST_STEP = 64  # children of one iteration of `gepa`
# The strategies that compare what earlier rounds scored, and not only one pool with itself: on one list of cases.
ON_ONE_LIST = {
    "anneal": "compares all moves on the first min_cases",
    "mcts": "compares all prompts of its tree on the first min_cases",
    "mipro": "models the scores of minibatches (minibatch_size)",
    "hyperparameter": "drops by its own rule (pruner)",
    "gepa": "has its own gate (reflection_minibatch_size) and front (val_cases)",
}

_Errors = list[FieldError]


def screening_mode(knobs: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
    """The policy by which this strategy's pools are scored: its own knob overrides `evaluation.mode`."""
    own = knobs.get("pruning", knobs.get("survivors_by"))
    if own in (None, "halving", "racing", "ucb", "successive_rejects"):
        return str(own or evaluation["mode"])
    if own == "score" or evaluation["mode"] == "full":
        return "full"
    return "minibatch"  # top_k, threshold, diverse, pareto: they choose among scores on one list of cases


def broken(strategy: str, knobs: Mapping[str, Any], given: Collection[str]) -> _Errors:
    """The rules between the knobs of one strategy that are broken. `given` are those that are not at their default."""
    rule = _RULES.get(strategy)
    return rule(knobs, given) if rule else []


def broken_together(spec: Mapping[str, Any]) -> _Errors:
    """The rules between a strategy's knobs, `evaluation`, `early_stopping` and `budget`."""
    knobs, evaluation, strategy = spec["knobs"], spec["evaluation"], spec["strategy"]
    errors: _Errors = []
    mode, pool = screening_mode(knobs, evaluation), _largest_pool(strategy, knobs)
    if mode == "ucb" and evaluation["ucb_rounds"] * evaluation["block_size"] < pool:
        rule = f"ucb_rounds x block_size must be at least the {pool} candidates of a pool"
        errors.append(FieldError("/evaluation/ucb_rounds", rule))
    limit = spec["budget"].get("max_task_calls")
    needed = pool * (pool + 1) // 2 * evaluation["block_size"]
    if mode == "successive_rejects" and limit is not None and limit < needed:
        rule = f"successive_rejects on {pool} candidates needs {needed} task calls: K(K+1)/2 blocks of block_size"
        errors.append(FieldError("/knobs/pruning", rule))
    if strategy in ON_ONE_LIST and mode in ("racing", "ucb"):
        rule = f"{strategy} {ON_ONE_LIST[strategy]}: one list of cases for all; {mode} gives each another"
        errors.append(FieldError("/evaluation/mode", rule))
    if strategy in ON_ONE_LIST and strategy != "anneal" and evaluation["case_order"] == "shuffled_per_round":
        rule = f"{strategy} {ON_ONE_LIST[strategy]}: one list of cases for all rounds, and each would have another"
        errors.append(FieldError("/evaluation/case_order", rule))
    if mode == "full" and knobs.get("pruner", "none") != "none":
        errors.append(FieldError("/knobs/pruner", "only none with evaluation.mode full: all is scored before"))
    if mode == "full" and knobs.get("val_cases") is not None:
        errors.append(FieldError("/knobs/val_cases", "only null with evaluation.mode full"))
    patience = spec["early_stopping"]["patience"]
    if knobs.get("stagnation_restart", 0) >= patience:
        rule = f"must be below early_stopping.patience {patience}, at which the search ends"
        errors.append(FieldError("/knobs/stagnation_restart", rule))
    return errors


def _largest_pool(strategy: str, knobs: Mapping[str, Any]) -> int:
    if strategy == "beam_search":
        return int(knobs["max_candidates"] or _beam_pool(knobs))
    if strategy == "genetic":
        return int(knobs["population_size"] + _offspring(knobs))
    if strategy == "bootstrap":
        return int(knobs["candidate_sets"]) + 3  # with the seed and the two controls
    return int(knobs.get("proposals", 0) + 1 if "proposals" in knobs else knobs.get("proposals_per_step", 1))


def _beam_pool(knobs: Mapping[str, Any]) -> int:
    children = knobs["beam_width"] * knobs["expansions_per_beam"] * (1 + knobs["paraphrases_per_child"])
    return int(children + (knobs["beam_width"] if knobs["keep_parents"] else 0))


def _offspring(knobs: Mapping[str, Any]) -> int:
    return int(knobs["offspring"] or max(1, knobs["population_size"] - knobs["elitism"]))


def _beam(knobs: Mapping[str, Any], given: Collection[str]) -> _Errors:
    errors = []
    limit = knobs["max_candidates"]
    if limit is not None and limit < knobs["beam_width"]:
        errors.append(FieldError("/knobs/max_candidates", "must be at least beam_width"))
    if knobs["diversity_rate"] > 0 and not (
        knobs["candidate_reranker"] in ("diversity", "hybrid") or knobs["pruning"] == "diverse"
    ):
        rule = "needs candidate_reranker diversity or hybrid, or pruning diverse"
        errors.append(FieldError("/knobs/diversity_rate", rule))
    if knobs["pruning"] == "diverse" and not knobs["diversity_rate"]:
        errors.append(FieldError("/knobs/diversity_rate", "must be above 0 with pruning diverse"))
    if knobs["pruning"] == "threshold" and not knobs["prune_threshold"]:
        errors.append(FieldError("/knobs/prune_threshold", "must be above 0 with pruning threshold"))
    if knobs["gradients_per_beam"] > knobs["expansions_per_beam"]:
        errors.append(FieldError("/knobs/gradients_per_beam", "must be at most expansions_per_beam"))
    if "errors_per_gradient" in given and not knobs["gradients_per_beam"]:
        errors.append(FieldError("/knobs/errors_per_gradient", "needs gradients_per_beam above 0"))
    return errors


def _anneal(knobs: Mapping[str, Any], given: Collection[str]) -> _Errors:
    errors = []
    start, least = knobs["initial_temp"], knobs["min_temp"]
    hot = knobs["acceptance"] in WITH_TEMPERATURE
    if knobs["chains"] * knobs["proposals_per_step"] > LARGEST_MOVE:
        rule = f"chains x proposals_per_step must be at most {LARGEST_MOVE}"
        errors.append(FieldError("/knobs/proposals_per_step", rule))
    if knobs["exchange_every"] and knobs["chains"] < 2:
        errors.append(FieldError("/knobs/exchange_every", "needs chains of at least 2"))
    if hot and start is not None and least >= start:
        errors.append(FieldError("/knobs/min_temp", f"must be below initial_temp {start:g}"))
    if hot and not least and knobs["schedule"] not in ("linear", "cosine"):
        errors.append(FieldError("/knobs/min_temp", "may be 0 only with schedule linear or cosine"))
    step = knobs["step_size"]
    if step is not None and start is None:
        errors.append(FieldError("/knobs/step_size", "needs initial_temp as a number"))
    elif step is not None and start is not None and step * knobs["epochs"] > start - least + 1e-12:
        rule = f"step_size x epochs must be at most initial_temp - min_temp, which is {start - least:g}"
        errors.append(FieldError("/knobs/step_size", rule))
    if start is not None and {"calibration_moves", "initial_acceptance"} & set(given):
        name = "calibration_moves" if "calibration_moves" in given else "initial_acceptance"
        errors.append(FieldError(f"/knobs/{name}", "only with initial_temp auto"))
    if hot and knobs["schedule"] == "adaptive" and knobs["reheat_max"] and knobs["reheat_factor"] >= 1:
        errors.append(FieldError("/knobs/reheat_factor", "must be below 1 with schedule adaptive"))
    return [*errors, *_without_operators(knobs)]


def _without_operators(knobs: Mapping[str, Any]) -> _Errors:
    """A neighbourhood of edits or of rewrites needs at least one operator of its kind."""
    from_edits = {"delete", "swap", "move", "duplicate", "add_back", "insert_phrase", "format_toggle"}
    active = {name for name, weight in knobs["operators"].items() if weight > 0}
    kinds = {"edit": active & from_edits, "llm": active - from_edits}
    wanted = ("edit", "llm") if knobs["neighbourhood"] == "mixed" else (knobs["neighbourhood"],)
    return [
        FieldError("/knobs/operators", f"neighbourhood {knobs['neighbourhood']} needs an operator of the kind {kind}")
        for kind in wanted
        if not kinds[kind]
    ]


def _genetic(knobs: Mapping[str, Any], given: Collection[str]) -> _Errors:
    errors = []
    size = knobs["population_size"]
    if knobs["elitism"] >= size:
        errors.append(FieldError("/knobs/elitism", f"must be below population_size {size}"))
    if knobs["selection"] == "tournament" and knobs["tournament_size"] > size and "tournament_size" in given:
        errors.append(FieldError("/knobs/tournament_size", f"must be at most population_size {size}"))
    if (knobs["async_window"] or 1) > size:
        errors.append(FieldError("/knobs/async_window", f"must be at most population_size {size}"))
    if knobs["crossover_operator"] == "de" and size < 4:
        errors.append(FieldError("/knobs/crossover_operator", "de needs a population_size of at least 4"))
    if knobs["crossover_rate"] + knobs["mutation_rate"] <= 0:
        errors.append(FieldError("/knobs/mutation_rate", "crossover_rate + mutation_rate must be above 0"))
    if "immigrants" in given and 0 < knobs["immigrants"] * size < 1:
        rule = f"immigrants x population_size must be 0 or at least 1; this is {knobs['immigrants'] * size:g}"
        errors.append(FieldError("/knobs/immigrants", rule))
    if knobs["adaptive_mutation"] and knobs["mutation_min"] > knobs["mutation_max"]:
        errors.append(FieldError("/knobs/mutation_min", "must be at most mutation_max"))
    if knobs["restart_keep"] >= size:
        errors.append(FieldError("/knobs/restart_keep", f"must be below population_size {size}"))
    if (knobs["init"] == "provided") != bool(knobs["initial_prompts"]):
        errors.append(FieldError("/knobs/initial_prompts", "init provided needs at least one text"))
    return errors


def _iterative(knobs: Mapping[str, Any], given: Collection[str]) -> _Errors:
    if not knobs["restarts"] and "max_stall" in given:
        return [FieldError("/knobs/max_stall", "needs restarts above 0: without, patience ends the search")]
    return []


def _bootstrap(knobs: Mapping[str, Any], given: Collection[str]) -> _Errors:
    errors = []
    if not knobs["max_bootstrapped"] and not knobs["max_labeled"]:
        errors.append(FieldError("/knobs/max_labeled", "max_bootstrapped and max_labeled are both 0: nothing to show"))
    if knobs["rounds"] > 1 and not knobs["max_bootstrapped"]:
        errors.append(FieldError("/knobs/rounds", "needs max_bootstrapped above 0: nobody teaches"))
    if knobs["include_reasoning"] and not knobs["max_bootstrapped"]:
        errors.append(FieldError("/knobs/include_reasoning", "needs max_bootstrapped above 0: nobody teaches"))
    return errors


def _mipro(knobs: Mapping[str, Any], given: Collection[str]) -> _Errors:
    errors = []
    if knobs["num_demo_sets"] and not knobs["max_bootstrapped_demos"] and not knobs["max_labeled_demos"]:
        errors.append(FieldError("/knobs/num_demo_sets", "must be 0 when sets may hold no demonstration"))
    if not knobs["tips"]:
        errors.append(FieldError("/knobs/tips", 'must name at least one; "none" asks for no style'))
    return errors


def _hyperparameter(knobs: Mapping[str, Any], given: Collection[str]) -> _Errors:
    errors = []
    if not knobs["objective_weights"].get("score"):
        errors.append(FieldError("/knobs/objective_weights", "the weight of score must be above 0"))
    if knobs["search_method"] == "grid":
        endless = [name for name, where in knobs["params_to_optimize"].items() if not spaces.values_of(where)]
        errors += [
            FieldError(f"/knobs/params_to_optimize/{name}/step", "grid needs a step, and no log") for name in endless
        ]
        size = math.prod(len(spaces.values_of(where)) for where in knobs["params_to_optimize"].values())
        if not endless and size > min(spaces.MAX_GRID, knobs["max_trials"]):
            errors.append(FieldError("/knobs/max_trials", f"the grid has {size:,} points; that many trials are needed"))
    return errors


def _gepa(knobs: Mapping[str, Any], given: Collection[str]) -> _Errors:
    errors = []
    if knobs["parents_per_step"] * knobs["mutations_per_step"] > LARGEST_STEP:
        errors.append(FieldError("/knobs/mutations_per_step", f"an iteration makes at most {LARGEST_STEP} children"))
    looks_at_the_front = knobs["use_merge"] or knobs["candidate_selection"] in ("pareto", "top_k_pareto")
    if "frontier" in given and not looks_at_the_front:
        rule = "needs candidate_selection pareto or top_k_pareto, or use_merge: nobody else looks at the front"
        errors.append(FieldError("/knobs/frontier", rule))
    return errors


_RULES: Mapping[str, Callable[[Mapping[str, Any], Collection[str]], _Errors]] = {
    "beam_search": _beam,
    "anneal": _anneal,
    "genetic": _genetic,
    "iterative": _iterative,
    "bootstrap": _bootstrap,
    "mipro": _mipro,
    "hyperparameter": _hyperparameter,
    "gepa": _gepa,
}
