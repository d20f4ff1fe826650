"""The catalogue of search settings: one place from which validation, defaults and documentation are made.

A knob that is not here is refused, and every knob that is here changes what a search does.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared import spaces
from shared.errors import FieldError, Unprocessable

OPERATORS = ("reflect", "paraphrase", "fresh_start", "shorten", "delete", "swap", "insert_phrase")
LLM_OPERATORS = ("reflect", "paraphrase", "fresh_start", "shorten")


MAX_WEIGHT = 1_000_000  # sums of weights stay finite
MAX_TEXT = 128  # characters of a name
SMALL = 30  # cases; below this, train and dev are the same and a result is only indicative


@dataclass(frozen=True)
class Knob:
    """One setting. `kind` is int, float, bool, enum, text, weights (name → number ≥ 0), names (a list of choices)
    or space (model setting → where to look for its value); with optional_ before it null is a value too."""

    kind: str
    default: Any
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    open_low: bool = False  # the lower bound itself is not allowed
    note: str = ""


EVALUATION: Mapping[str, Knob] = {
    "mode": Knob("enum", "halving", choices=("full", "halving"), note="score everything, or drop losers early"),
    "min_cases": Knob("int", 16, 1, 10_000, note="cases of the first rung of halving"),
    "max_cases": Knob("optional_int", None, 1, 10_000, note="of the dev split; all when null"),
    "eta": Knob("int", 2, 2, 8, note="halving: keep 1/eta, give survivors eta times the cases"),
    "repeats": Knob("int", 1, 1, 10, note="answers per case, each scored"),
    "case_order": Knob(
        "enum",
        "stratified",
        choices=("fixed", "stratified", "shuffled_per_round"),
        note="which cases come first",
    ),
    "lcb_z": Knob("float", 0.0, 0, 3, note="rank by mean - z standard errors"),
    "missing_tolerance": Knob("float", 0.2, 0, 1, note="share of failed calls that a candidate may have"),
}

SPLIT: Mapping[str, Knob] = {
    "train_fraction": Knob("float", 0.3, 0, 1, note="shown to the proposer"),
    "dev_fraction": Knob("float", 0.4, 0, 1, note="decides the search"),
    "holdout_fraction": Knob("float", 0.3, 0, 1, note="confirms the result; nothing in the search sees it"),
    "split_seed": Knob("int", 0, 0, 2**31 - 1),
}

EARLY_STOPPING: Mapping[str, Knob] = {
    "patience": Knob("int", 3, 1, 1000, note="rounds without gain before the search ends"),
    "min_delta": Knob("float", 0.005, 0, 1, note="what counts as a gain"),
    "target_score": Knob("optional_float", None, 0, 1, open_low=True, note="stop when the best reaches it"),
}

_COMMON: Mapping[str, Knob] = {
    "proposer_temperature": Knob("float", 1.0, 0, 2),
    "errors_in_context": Knob("int", 4, 1, 32, note="failures shown to the proposer"),
    "length_penalty": Knob("float", 0.0, 0, 2, note="subtracts penalty x (length / seed length) / 10"),
    "max_growth": Knob("float", 4.0, 1, 100, note="longest text, as a multiple of the seed's"),
    "near_dup": Knob("float", 0.97, 0.5, 1, note="texts more alike than this are one"),
    "finalists": Knob("int", 3, 1, 10, note="candidates scored on the whole dev split before the choice"),
}

_NO_TEXTS = ("finalists",)  # of the common knobs, what a strategy has that leaves the texts alone
_TEACHING: Mapping[str, Knob] = {
    "teacher": Knob("optional_text", None, note="model that answers the train cases; null: the task's own"),
    "metric_threshold": Knob("float", 1.0, 0, 1, open_low=True, note="score that makes an answer a demonstration"),
}
TIPS: Mapping[str, str] = {
    "none": "",
    "creative": "Do not be afraid to be creative.",
    "simple": "Keep the prompt clear and concise.",
    "description": "Make the prompt informative: describe what the input and the answer are.",
    "high_stakes": "Describe a situation in which a wrong answer would do harm.",
    "persona": "Begin with the role that is best placed to do this task.",
}
STRATEGIES: Mapping[str, Mapping[str, Knob]] = {
    "random": {
        "proposals": Knob("int", 32, 1, 10_000, note="candidates drawn from the seed"),
        "mode": Knob("enum", "paraphrase", choices=("paraphrase", "fresh_start", "edit")),
        **_COMMON,
    },
    "beam_search": {
        "beam_width": Knob("int", 3, 2, 64, note="parents kept from round to round"),
        "expansions_per_beam": Knob("int", 3, 1, 32, note="children of each parent"),
        "max_rounds": Knob("int", 6, 1, 200),
        "max_candidates": Knob("optional_int", None, 2, 2048, note="largest pool of a round, parents first"),
        "keep_parents": Knob("bool", True, note="parents compete with their children"),
        "prune_threshold": Knob("float", 0.0, 0, 1, note="drop what is this far below the best; 0: off"),
        "candidate_reranker": Knob("enum", "score", choices=("score", "diversity")),
        "diversity_rate": Knob("float", 0.0, 0, 1, note="weight of being unlike the beam (MMR)"),
        "stochastic_temp": Knob("float", 0.0, 0, 10, note="Gumbel noise on the ranking; 0: off"),
        "evidence_cases": Knob("int", 16, 1, 256, note="train cases run per parent to find failures"),
        "operators": Knob(
            "weights",
            {"reflect": 0.8, "paraphrase": 0.1, "insert_phrase": 0.1},
            choices=OPERATORS,
            note="how often each operator makes a child",
        ),
        **_COMMON,
    },
    "bootstrap": {
        **_TEACHING,
        "rounds": Knob("int", 1, 1, 10, note="passes of the teacher; from the second, warmer and for what failed"),
        "max_bootstrapped": Knob("int", 4, 0, 32, note="demonstrations answered by the teacher, per set"),
        "max_labeled": Knob("int", 4, 0, 64, note="demonstrations in all, filled up with expected answers"),
        "candidate_sets": Knob("int", 12, 1, 256, note="sets tried besides the controls"),
        "selection": Knob(
            "enum", "random", choices=("random", "diverse", "optuna"), note="how the cases of a set are picked"
        ),
        "order": Knob(
            "enum", "random", choices=("random", "by_similarity"), note="by_similarity: the most typical case last"
        ),
        "length_penalty": _COMMON["length_penalty"],
        **{name: _COMMON[name] for name in _NO_TEXTS},
    },
    "mipro": {
        "num_instructions": Knob("int", 6, 1, 64, note="instructions proposed from train cases, beside the seed's"),
        "num_demo_sets": Knob("int", 6, 0, 64, note="sets of demonstrations, beside none; 0: instructions only"),
        "max_bootstrapped_demos": Knob("int", 3, 0, 16, note="demonstrations answered by the teacher, per set"),
        "max_labeled_demos": Knob("int", 3, 0, 16, note="demonstrations in all, filled up with expected answers"),
        **_TEACHING,
        "trials": Knob("optional_int", None, 1, 5000, note="pairs scored; null: as MIPROv2 counts them"),
        "minibatch_size": Knob("int", 24, 1, 10_000, note="dev cases of a trial"),
        "full_eval_every": Knob("int", 5, 1, 100, note="trials until the best mean is scored on all of dev"),
        "batch": Knob("int", 4, 1, 32, note="trials at once"),
        "sampler": Knob("enum", "tpe", choices=("tpe", "gp", "random"), note="what proposes the next pairs"),
        "refresh_instructions_every": Knob("int", 0, 0, 100, note="batches until the best is rewritten; 0: never"),
        "tips": Knob("names", list(TIPS), choices=tuple(TIPS), note="styles that the proposer is asked for in turn"),
        **_COMMON,
    },
    "hyperparameter": {
        "search_method": Knob(
            "enum", "bayesian", choices=("bayesian", "gp", "grid", "random", "qmc"), note="bayesian: TPE; qmc: Halton"
        ),
        "params_to_optimize": Knob(
            "space",
            {"temperature": {**spaces.RANGES["temperature"]}},
            choices=(*spaces.RANGES, "model_name"),
            note="setting to {type, low, high, step, log} or {choices}; or a list of settings",
        ),
        "max_trials": Knob("int", 20, 1, 5000, note="settings tried"),
        "batch": Knob("int", 4, 1, 64, note="trials at once"),
        "pruner": Knob(
            "enum", "none", choices=("none", "median", "halving", "paired"), note="who is dropped after `min_cases`"
        ),
        "pruner_p": Knob("float", 0.1, 0, 0.5, open_low=True, note="paired: how unlikely a chance must be"),
        "objective_weights": Knob(
            "weights",
            {"score": 1.0},
            choices=("score", "cost", "latency"),
            note="subtracts (weight / score's) x (mean / the seed's mean) / 10",
        ),
        **{name: _COMMON[name] for name in _NO_TEXTS},
    },
    "gepa": {
        "reflection_minibatch_size": Knob("int", 8, 1, 64, note="train cases of a gate"),
        "parents_per_step": Knob("int", 2, 1, 16, note="parents of an iteration"),
        "mutations_per_step": Knob("int", 2, 1, 16, note="children of each parent"),
        "candidate_selection": Knob(
            "enum",
            "pareto",
            choices=("pareto", "current_best", "epsilon_greedy", "top_k_pareto"),
            note="who becomes a parent",
        ),
        "acceptance": Knob(
            "enum",
            "strict",
            choices=("strict", "at_least", "tolerance", "paired"),
            note="the gate: child against parent on the minibatch",
        ),
        "tolerance": Knob("float", 0.01, 0, 0.5, note="tolerance: how much worse a child may be"),
        "paired_z": Knob("float", 1.0, 0, 3, note="paired: standard errors by which a child must be better"),
        "module_selector": Knob(
            "enum", "round_robin", choices=("round_robin", "all"), note="which texts a child has rewritten"
        ),
        "val_cases": Knob("optional_int", None, 1, 10_000, note="dev cases that the front is made of; all when null"),
        "perfect_score": Knob("float", 1.0, 0, 1, open_low=True, note="score of a case that needs no improvement"),
        "skip_perfect": Knob("bool", True, note="no child from a minibatch that is all perfect"),
        "stall_iterations": Knob("int", 10, 1, 1000, note="iterations without a child through the gate, then the end"),
        "max_rounds": Knob("int", 50, 1, 1000, note="iterations"),
        **_COMMON,
    },
    "mcts": {
        "simulations": Knob("int", 20, 1, 200, note="ways down the tree"),
        "max_depth": Knob("int", 4, 1, 10, note="generations below the seed"),
        "exploration_c": Knob("float", 0.3, 0.05, 5, note="UCT: weight of what was seldom visited"),
        "candidates_per_node": Knob("int", 3, 1, 10, note="children of a node"),
        "score_dedup_bin": Knob("float", 0.1, 0.01, 0.5, note="siblings within one bin of this width are one"),
        "early_stop_no_improve": Knob("int", 5, 1, 50, note="simulations without a better reward, then the end"),
        "token_budget": Knob("optional_int", None, 1, 1_000_000, note="tokens after which no simulation begins"),
        "evidence_cases": Knob("int", 16, 1, 256, note="train cases run per node to find failures"),
        **_COMMON,
    },
}

# Names of other systems: the strategy here, and the knobs that the name stands for.
STRATEGY_ALIASES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "miprov2": ("mipro", {}),
    "bootstrap_fewshot": ("bootstrap", {}),
    "hyperparam": ("hyperparameter", {}),
    "hparam": ("hyperparameter", {}),
    "bayesian": ("hyperparameter", {"search_method": "bayesian"}),
    "grid_search": ("hyperparameter", {"search_method": "grid"}),
}
KNOB_ALIASES: Mapping[str, Mapping[str, str]] = {
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
    "gepa": {"candidate_selection_strategy": "candidate_selection", "skip_perfect_score": "skip_perfect"},
}

DESCRIPTIONS: Mapping[str, str] = {
    "random": "Control: variations of the seed only, scored by the same policy. Beat it or be dropped.",
    "beam_search": "Expands the best prompts from their failures, screens the children by halving, keeps the best.",
    "bootstrap": "Leaves the texts alone and shows answered train cases: a teacher's right answers and expected ones.",
    "mipro": "Pairs proposed instructions with sets of demonstrations and lets a model of the scores pick the pairs.",
    "hyperparameter": "Leaves the texts alone and tunes the settings of the model, and which model, if you let it.",
    "gepa": "Rewrites prompts from their failures; parents are those that are best on some case (the library GEPA).",
    "mcts": "Grows a tree of rewrites and follows its most promising branches (UCT).",
}


def resolve(knobs: Mapping[str, Knob], given: Mapping[str, Any], pointer: str) -> dict[str, Any]:
    """The given values checked, with defaults for the rest; `Unprocessable` names each bad knob and its rule."""
    errors = [
        FieldError(f"{pointer}/{name}", f"unknown knob; there are: {', '.join(knobs)}")
        for name in given
        if name not in knobs
    ]
    resolved = {}
    for name, knob in knobs.items():
        value = given.get(name, knob.default)
        problem = _problem(knob, value)
        if problem:
            errors.append(FieldError(f"{pointer}/{name}", problem))
        resolved[name] = _plain(knob, value) if not problem else value
    _raise(errors)
    return resolved


def resolve_strategy(strategy: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs of a strategy, checked one by one and against each other. Both may have their older names."""
    strategy, given = canonical(strategy, given)
    if strategy not in STRATEGIES:
        detail = f"unknown strategy; there are: {', '.join(STRATEGIES)}"
        raise Unprocessable(f"/strategy: {detail}", errors=[FieldError("/strategy", detail)])
    resolved = resolve(STRATEGIES[strategy], given, "/knobs")
    rule = _CROSS_RULES.get(strategy)
    if rule:
        _raise(rule(resolved))
    return resolved


def canonical(strategy: str, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The strategy and the knobs under the names that they have here."""
    strategy, implied = STRATEGY_ALIASES.get(strategy, (strategy, {}))
    named: dict[str, Any] = {}
    for name, value in given.items():
        own = KNOB_ALIASES.get(strategy, {}).get(name, name)
        if own in named or (own in implied and implied[own] != value):
            _raise([FieldError(f"/knobs/{name}", f"contradicts {own}, which is given under another name")])
        named[own] = value
    return strategy, {**implied, **named}


def models_of(given: Mapping[str, Any]) -> list[str]:
    """The models besides the task's that these knobs may have called."""
    choices = given.get("params_to_optimize", {}).get("model_name", {}).get("choices", [])
    return list(dict.fromkeys([*([given["teacher"]] if given.get("teacher") else []), *choices]))


def most_trials(strategy: Mapping[str, Any]) -> int:
    """How many trials a search by trials makes; unless mipro is told, what MIPROv2 makes of its instructions."""
    n, variables = strategy.get("num_instructions", 1), 2 if strategy.get("num_demo_sets") else 1
    given = strategy["max_trials"] if "max_trials" in strategy else strategy["trials"]
    return int(given or max(math.ceil(2 * variables * math.log2(n)), math.ceil(1.5 * n)))


def most_rounds(strategy: Mapping[str, Any]) -> int:
    """The rounds after which a search ends by itself."""
    if "batch" in strategy:
        return math.ceil(most_trials(strategy) / strategy["batch"])
    return int(strategy.get("max_rounds", strategy.get("simulations", 1)))


def needs_train(strategy: Mapping[str, Any]) -> bool:
    """Whether these knobs make a search that is nothing without train cases: demonstrations, gates of gepa."""
    shows = "metric_threshold" in strategy and strategy.get("num_demo_sets", 1) > 0
    return shows or "reflection_minibatch_size" in strategy


def resolve_split(given: Mapping[str, Any]) -> dict[str, Any]:
    resolved = resolve(SPLIT, given, "/split")
    fractions = [resolved[f"{part}_fraction"] for part in ("train", "dev", "holdout")]
    if abs(sum(fractions) - 1) > 1e-6:
        _raise([FieldError("/split", f"the three fractions must add up to 1; these make {sum(fractions):g}")])
    if not resolved["dev_fraction"] or not resolved["holdout_fraction"]:
        _raise([FieldError("/split", "dev_fraction and holdout_fraction must be above 0")])
    return resolved


def split_shares(split: Mapping[str, Any], cases: int) -> dict[str, float]:
    """The share of each part that gets any. Without train, as with few cases, the dev cases serve as train."""
    if cases < SMALL:
        holdout = max(5 / cases, split["holdout_fraction"])
        return {"dev": 1 - holdout, "holdout": holdout}
    shares = {part: split[f"{part}_fraction"] for part in ("train", "dev", "holdout")}
    return {part: share for part, share in shares.items() if share > 0}


def minimum_task_calls(spec: Mapping[str, Any], cases: int) -> int:
    """Task calls of the cheapest useful run: the baseline, one round of one rung, and the holdout twice."""
    strategy, evaluation = spec["knobs"], spec["evaluation"]
    sizes = {part: math.ceil(cases * share - 1e-6) for part, share in split_shares(spec["split"], cases).items()}
    dev = min(sizes["dev"], evaluation["max_cases"] or sizes["dev"])
    rung = dev if evaluation["mode"] == "full" else min(evaluation["min_cases"], dev)
    lone = {"hyperparameter": strategy.get("max_trials", 2), "bootstrap": 1}.get(spec.get("strategy", ""), 2)
    children = strategy.get("expansions_per_beam", min(lone, strategy.get("proposals", 2)))
    # Where dev serves as train, only what `max_cases` leaves out of the baseline is still to be run.
    evidence = min(strategy.get("evidence_cases", 0), sizes.get("train", sizes["dev"] - dev))
    taught = teacher_cases(strategy) * strategy.get("rounds", 1)
    if "reflection_minibatch_size" in strategy:
        evidence = 2 * children * strategy["reflection_minibatch_size"]
        rung = min(dev, strategy["val_cases"] or dev)
    elif "minibatch_size" in strategy:
        rung = min(dev, strategy["minibatch_size"])
    elif strategy.get("pruner") == "none":
        rung = dev
    return int((dev + evidence + taught + rung * children + 2 * sizes["holdout"]) * evaluation["repeats"])


def teacher_cases(strategy: Mapping[str, Any]) -> int:
    """How many train cases the teacher answers at most in a round: a few times what one set of its answers holds."""
    if not strategy.get("num_demo_sets", 1):
        return 0
    return int(4 * strategy.get("max_bootstrapped", strategy.get("max_bootstrapped_demos", 0)))


def describe() -> list[dict[str, Any]]:
    """The strategies with their knobs, for the API and for forms."""
    return [
        {
            "name": name,
            "description": DESCRIPTIONS[name],
            "knobs": [
                {
                    "name": knob_name,
                    "type": knob.kind,
                    "default": knob.default,
                    "low": None if math.isinf(knob.low) else knob.low,
                    "high": None if math.isinf(knob.high) else knob.high,
                    "choices": list(knob.choices),
                    "note": knob.note,
                }
                for knob_name, knob in knobs.items()
            ],
        }
        for name, knobs in STRATEGIES.items()
    ]


def _beam_rules(knobs: Mapping[str, Any]) -> list[FieldError]:
    errors = []
    if knobs["max_candidates"] is not None and knobs["max_candidates"] < knobs["beam_width"]:
        errors.append(FieldError("/knobs/max_candidates", "must be at least beam_width"))
    if knobs["diversity_rate"] > 0 and knobs["candidate_reranker"] != "diversity":
        errors.append(FieldError("/knobs/diversity_rate", "needs candidate_reranker diversity"))
    return errors


def _bootstrap_rules(knobs: Mapping[str, Any]) -> list[FieldError]:
    errors = []
    if not knobs["max_bootstrapped"] and not knobs["max_labeled"]:
        errors.append(FieldError("/knobs/max_labeled", "max_bootstrapped and max_labeled are both 0: nothing to show"))
    if knobs["rounds"] > 1 and not knobs["max_bootstrapped"]:
        errors.append(FieldError("/knobs/rounds", "needs max_bootstrapped above 0: nobody teaches"))
    return errors


def _mipro_rules(knobs: Mapping[str, Any]) -> list[FieldError]:
    errors = []
    if knobs["num_demo_sets"] and not knobs["max_bootstrapped_demos"] and not knobs["max_labeled_demos"]:
        errors.append(FieldError("/knobs/num_demo_sets", "must be 0 when sets may hold no demonstration"))
    if not knobs["tips"]:
        errors.append(FieldError("/knobs/tips", 'must name at least one; "none" asks for no style'))
    return errors


def _hyperparameter_rules(knobs: Mapping[str, Any]) -> list[FieldError]:
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


def _gepa_rules(knobs: Mapping[str, Any]) -> list[FieldError]:
    if knobs["parents_per_step"] * knobs["mutations_per_step"] > MAX_CHILDREN:
        return [FieldError("/knobs/mutations_per_step", f"an iteration makes at most {MAX_CHILDREN} children")]
    return []


MAX_CHILDREN = 64  # of one iteration of gepa

_CROSS_RULES: Mapping[str, Callable[[Mapping[str, Any]], list[FieldError]]] = {
    "beam_search": _beam_rules,
    "bootstrap": _bootstrap_rules,
    "mipro": _mipro_rules,
    "hyperparameter": _hyperparameter_rules,
    "gepa": _gepa_rules,
}


def _problem(knob: Knob, value: Any) -> str | None:
    if knob.kind.startswith("optional_") and value is None:
        return None
    kind = knob.kind.removeprefix("optional_")
    if kind == "bool":
        return None if isinstance(value, bool) else "must be true or false"
    if kind == "enum":
        return None if value in knob.choices else f"must be one of {', '.join(knob.choices)}"
    if kind == "weights":
        return _weights_problem(knob, value)
    if kind == "text":
        is_name = isinstance(value, str) and value.strip() == value and 0 < len(value) <= MAX_TEXT
        return None if is_name else f"must be a name of at most {MAX_TEXT} characters"
    if kind == "names":
        is_list = isinstance(value, list) and all(isinstance(name, str) and name in knob.choices for name in value)
        return None if is_list and len({*value}) == len(value) else f"must be a list out of {', '.join(knob.choices)}"
    if kind == "space":
        return spaces.problem(value)
    if isinstance(value, bool) or not isinstance(value, int if kind == "int" else (int, float)):
        return "must be a whole number" if kind == "int" else "must be a number"
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    below = value <= knob.low if knob.open_low else value < knob.low
    if below or value > knob.high:
        left = "(" if knob.open_low else "["
        return f"must be in {left}{knob.low:g}, {knob.high:g}]"
    return None


def _weights_problem(knob: Knob, value: Any) -> str | None:
    if not isinstance(value, Mapping) or not value:
        return f"must be an object of weights; names: {', '.join(knob.choices)}"
    for name, weight in value.items():
        if name not in knob.choices:
            return f"unknown name {name!r}; there are: {', '.join(knob.choices)}"
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= MAX_WEIGHT:
            return f"the weight of {name} must be a number from 0 to {MAX_WEIGHT:,}"
    return None if sum(value.values()) > 0 else "at least one weight must be above 0"


def _plain(knob: Knob, value: Any) -> Any:
    if knob.kind in ("float", "optional_float") and value is not None:
        return float(value)
    if knob.kind == "space":
        return spaces.plain(value)
    if knob.kind == "names":
        return list(value)
    return dict(value) if knob.kind == "weights" else value


def _raise(errors: Sequence[FieldError]) -> None:
    if errors:
        raise Unprocessable("; ".join(f"{e.pointer}: {e.detail}" for e in errors), errors=errors)
