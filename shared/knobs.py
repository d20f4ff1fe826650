"""The catalogue of search settings: one place from which validation, defaults and documentation are made.

A knob that is not here is refused, and every knob that is here changes what a search does.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from shared import knob_rules
from shared.errors import FieldError, Unprocessable
from shared.knob_values import Knob, plain, problem, refuse

# What asks a model for a text out of one parent; what needs no model and costs nothing.
LLM_OPERATORS = (
    *("reflect", "paraphrase", "fresh_start", "shorten", "elaborate", "restructure"),
    *("induce_rules", "opro", "crossover_llm"),
)
EDITS = ("delete", "swap", "move", "duplicate", "add_back", "insert_phrase", "format_toggle")
OPERATORS = (*LLM_OPERATORS, *EDITS)

SMALL = 30  # cases; below this, train and dev are the same and a result is only indicative


EVALUATION: Mapping[str, Knob] = {
    "mode": Knob(
        "enum",
        "halving",
        choices=("full", "minibatch", "halving", "racing", "ucb"),
        note="score everything, or a few cases each, or drop losers early by one of three rules",
    ),
    "min_cases": Knob("int", 16, 1, 10_000, note="cases of the first rung or block, of all of a minibatch"),
    "max_cases": Knob("optional_int", None, 1, 10_000, note="of the dev split; all when null"),
    "eta": Knob("int", 2, 2, 8, note="halving: keep 1/eta, give survivors eta times the cases"),
    "block_size": Knob("int", 8, 2, 256, note="racing, ucb, successive_rejects: cases given at a time"),
    "alpha": Knob("float", 0.1, 0.001, 0.3, note="racing: significance at which a loser is dropped"),
    "test": Knob(
        "enum",
        "paired_t",
        choices=("paired_t", "wilcoxon", "sign", "permutation"),
        note="racing: the paired test, one-sided",
    ),
    "ucb_c": Knob("float", 1.0, 0, 10, note="ucb: weight of what is uncertain, mean + c sqrt(ln t / n)"),
    "ucb_rounds": Knob("int", 8, 1, 200, note="ucb: how often blocks are given to the most promising"),
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

_ONLY_IN_MODE: Mapping[str, tuple[str, ...]] = {
    "eta": ("halving",),
    "block_size": ("racing", "ucb", "successive_rejects"),
    "alpha": ("racing",),
    "test": ("racing",),
    "ucb_c": ("ucb",),
    "ucb_rounds": ("ucb",),
}

_COMMON: Mapping[str, Knob] = {
    "proposer_temperature": Knob("float", 1.0, 0, 2),
    "errors_in_context": Knob("int", 4, 1, 32, note="failures shown to the proposer"),
    "repair_attempts": Knob("int", 1, 0, 3, note="times a rewrite that broke the template is sent back"),
    "length_penalty": Knob("float", 0.0, 0, 2, note="subtracts penalty x (length / seed length) / 10"),
    "max_growth": Knob("float", 4.0, 1, 100, note="longest text, as a multiple of the seed's"),
    "near_dup": Knob("float", 0.97, 0.5, 1, note="texts more alike than this are one"),
    "finalists": Knob("int", 3, 1, 10, note="candidates scored on the whole dev split before the choice"),
}
_EVIDENCE = Knob("int", 16, 1, 256, note="train cases run per parent to find failures")
_ADAPTIVE = Knob("bool", False, note="operators that made better children are used more (Thompson sampling)")
_LEVEL = Knob("enum", "sentence", choices=("sentence", "line", "section"), note="what an edit takes as one unit")
_HOT: Mapping[str, tuple[Any, ...]] = {"acceptance": knob_rules.WITH_TEMPERATURE}
_SCREENS = ("top_k", "threshold", "halving", "racing", "ucb", "successive_rejects", "diverse", "pareto")

STRATEGIES: Mapping[str, Mapping[str, Knob]] = {
    "random": {
        "proposals": Knob("int", 32, 1, 10_000, note="candidates drawn from the seed"),
        "mode": Knob("enum", "paraphrase", choices=("paraphrase", "fresh_start", "edit")),
        "edit_level": replace(_LEVEL, only={"mode": ("edit",)}),
        **_COMMON,
    },
    "noop": {
        "twins": Knob("int", 1, 1, 10, note="how often the seed is measured again, as if it were another prompt"),
    },
    "iterative": {
        "max_rounds": Knob("int", 20, 1, 10_000, note="steps"),
        "proposals_per_step": Knob("int", 4, 1, 32, note="children of the current prompt; the best may replace it"),
        "evidence_cases": _EVIDENCE,
        "acceptance": Knob(
            "enum",
            "strict",
            choices=("strict", "at_least", "tolerance", "paired"),
            note="when the best child replaces the current prompt",
        ),
        "tolerance": Knob("float", 0.01, 0, 0.5, note="how much worse it may be", only={"acceptance": ("tolerance",)}),
        "paired_z": Knob(
            "float",
            1.0,
            0,
            3,
            note="standard errors of the paired difference it must be better by",
            only={"acceptance": ("paired",)},
        ),
        "confirm_cases": Knob("int", 0, 0, 10_000, note="further dev cases for both before the decision"),
        "max_stall": Knob("int", 8, 1, 1000, note="steps without acceptance before a restart"),
        "restarts": Knob("int", 1, 0, 20, note="fresh starts from the best; patience ends only the last stretch"),
        "operators": Knob(
            "weights",
            {"reflect": 0.7, "paraphrase": 0.1, "shorten": 0.1, "insert_phrase": 0.1},
            choices=OPERATORS,
            note="how often each operator makes a child",
        ),
        "adaptive_operators": _ADAPTIVE,
        "edit_level": _LEVEL,
        **_COMMON,
    },
    "beam_search": {
        "beam_width": Knob("int", 3, 2, 64, note="parents kept from round to round"),
        "expansions_per_beam": Knob("int", 3, 1, 32, note="children of each parent"),
        "max_rounds": Knob("int", 6, 1, 200),
        "max_candidates": Knob("optional_int", None, 2, 2048, note="largest pool of a round, parents first"),
        "keep_parents": Knob("bool", True, note="parents compete with their children"),
        "pruning": Knob(
            "optional_enum",
            None,
            choices=_SCREENS,
            note="how a pool becomes a beam; as evaluation.mode says when null",
        ),
        "prune_threshold": Knob("float", 0.0, 0, 1, note="drop what is this far below the best; 0: off"),
        "candidate_reranker": Knob(
            "enum",
            "score",
            choices=("none", "score", "diversity", "hybrid"),
            note="the order of the survivors: as they were screened, by score, by MMR, by the places in both",
        ),
        "diversity_rate": Knob("float", 0.0, 0, 1, note="weight of being unlike the beam (MMR)"),
        "stochastic_temp": Knob("float", 0.0, 0, 10, note="Gumbel noise on the ranking; 0: off"),
        "evidence_cases": _EVIDENCE,
        "gradients_per_beam": Knob(
            "int", 0, 0, 16, note="children of each parent made in two steps: a critique, then its application"
        ),
        "errors_per_gradient": Knob("int", 4, 1, 32, note="failures that a critique is shown"),
        "paraphrases_per_child": Knob("int", 0, 0, 8, note="rewordings of each child that join the pool"),
        "stagnation_restart": Knob(
            "int", 0, 0, 100, note="rounds without gain before the beam restarts from the best; 0: off"
        ),
        "operators": Knob(
            "weights",
            {"reflect": 0.8, "paraphrase": 0.1, "insert_phrase": 0.1},
            choices=OPERATORS,
            note="how often each operator makes a child",
        ),
        "adaptive_operators": _ADAPTIVE,
        "edit_level": _LEVEL,
        **_COMMON,
    },
    "anneal": {
        "epochs": Knob("int", 40, 1, 10_000, note="temperatures"),
        "moves_per_temp": Knob("int", 1, 1, 100, note="moves at each temperature"),
        "proposals_per_step": Knob("int", 4, 1, 64, note="children of a move, of which one is drawn (multiple-try)"),
        "chains": Knob("int", 2, 1, 64, note="walks side by side"),
        "exchange_every": Knob("int", 0, 0, 1000, note="epochs after which the worst chain joins the best; 0: never"),
        "acceptance": Knob(
            "enum",
            "metropolis",
            choices=("metropolis", "noisy_metropolis", "threshold", "late_acceptance", "greedy"),
            note="when a move is made",
        ),
        "schedule": Knob(
            "enum",
            "geometric",
            choices=("geometric", "linear", "cosine", "logarithmic", "adaptive"),
            note="how the temperature falls",
            only=_HOT,
        ),
        "initial_temp": Knob(
            "optional_float", None, 0, 10, open_low=True, note="in units of score; null or auto: measured", only=_HOT
        ),
        "min_temp": Knob("float", 0.002, 0, 10, note="the temperature never falls below it", only=_HOT),
        "cooling_rate": Knob(
            "float", 0.92, 0, 1, open_low=True, note="factor per epoch", only={"schedule": ("geometric",), **_HOT}
        ),
        "step_size": Knob(
            "optional_float",
            None,
            0,
            10,
            open_low=True,
            note="fall per epoch; down to min_temp at the end when null",
            only={"schedule": ("linear",), **_HOT},
        ),
        "target_acceptance": Knob(
            "float",
            0.3,
            0.001,
            0.999,
            note="share of moves accepted at first; falls to 0.02",
            only={"schedule": ("adaptive",), **_HOT},
        ),
        "window": Knob(
            "int", 10, 2, 200, note="moves that the share is taken over", only={"schedule": ("adaptive",), **_HOT}
        ),
        "calibration_moves": Knob(
            "int", 6, 2, 50, note="children of the seed that initial_temp is taken from", only=_HOT
        ),
        "initial_acceptance": Knob(
            "float", 0.5, 0.05, 0.95, note="share of worsening moves accepted at initial_temp", only=_HOT
        ),
        "noise_penalty": Knob(
            "float",
            1.0,
            0,
            4,
            note="how much doubt about a difference counts against a move",
            only={"acceptance": ("noisy_metropolis",)},
        ),
        "threshold": Knob(
            "float",
            0.02,
            0,
            1,
            note="how much worse a move may be at first; falls to 0",
            only={"acceptance": ("threshold",)},
        ),
        "history": Knob(
            "int",
            10,
            1,
            1000,
            note="a move must not be worse than the value this many moves ago",
            only={"acceptance": ("late_acceptance",)},
        ),
        "reheat_stall_steps": Knob("int", 8, 1, 1000, note="moves of a chain without a new best before it is reheated"),
        "reheat_factor": Knob("float", 0.5, 0, 1, open_low=True, note="of initial_temp", only=_HOT),
        "reheat_max": Knob("int", 3, 0, 100, note="reheats of a chain, each from its best"),
        "neighbourhood": Knob("enum", "mixed", choices=("llm", "edit", "mixed"), note="who makes the moves"),
        "edit_weight": Knob("float", 0.5, 0, 1, note="share of edits", only={"neighbourhood": ("mixed",)}),
        "edits_per_move": Knob(
            "int", 1, 1, 10, note="edits one after another", only={"neighbourhood": ("edit", "mixed")}
        ),
        "neighbourhood_scale": Knob(
            "enum",
            "temperature",
            choices=("fixed", "temperature"),
            note="large rewrites when hot and single edits when cold, or the same all along",
        ),
        "evidence_cases": _EVIDENCE,
        "operators": Knob(
            "weights",
            {"reflect": 0.6, "paraphrase": 0.1, "shorten": 0.1, "fresh_start": 0.1, **dict.fromkeys(EDITS, 0.1)},
            choices=OPERATORS,
            note="how often each operator makes a move, among those of its kind",
        ),
        "adaptive_operators": _ADAPTIVE,
        "edit_level": _LEVEL,
        **_COMMON,
    },
    "genetic": {
        "population_size": Knob("int", 8, 2, 512),
        "generations": Knob("int", 8, 1, 1000),
        "offspring": Knob(
            "optional_int",
            None,
            1,
            1024,
            note="children of a generation; population_size - elitism when null",
            only={"replacement": ("generational", "plus")},
        ),
        "init": Knob(
            "enum",
            "paraphrase",
            choices=("paraphrase", "fresh_start", "edit", "mixed", "provided"),
            note="how the first population is made from the seed",
        ),
        "initial_prompts": Knob(
            "texts", [], note="texts of the first component, for init provided", only={"init": ("provided",)}
        ),
        "selection": Knob(
            "enum",
            "tournament",
            choices=("tournament", "roulette", "rank", "truncation", "pareto_instance"),
            note="how parents are drawn",
        ),
        "tournament_size": Knob("int", 3, 2, 512, note="the best of so many", only={"selection": ("tournament",)}),
        "rank_pressure": Knob(
            "float",
            1.7,
            1,
            2,
            open_low=True,
            note="children of the best, as a multiple of the mean",
            only={"selection": ("rank",)},
        ),
        "roulette_scaling": Knob(
            "enum",
            "sigma",
            choices=("none", "shift_min", "sigma", "softmax"),
            note="what a share of the wheel is proportional to",
            only={"selection": ("roulette",)},
        ),
        "softmax_temp": Knob(
            "float",
            0.1,
            0,
            10,
            open_low=True,
            note="of the softmax, in units of score",
            only={"roulette_scaling": ("softmax",)},
        ),
        "crossover_rate": Knob("float", 0.7, 0, 1, note="share of children with two parents"),
        "crossover_operator": Knob(
            "enum",
            "llm",
            choices=("one_point", "two_point", "uniform", "component", "llm", "de"),
            note="how two texts become one",
        ),
        "uniform_prob": Knob(
            "float",
            0.5,
            0.001,
            0.999,
            note="chance that a unit is the second parent's",
            only={"crossover_operator": ("uniform",)},
        ),
        "mutation_rate": Knob("float", 0.5, 0, 1, note="share of children that are changed; of one parent, all are"),
        "adaptive_mutation": Knob(
            "bool", False, note="the rate x 1.5 after a generation without gain, x 0.8 after one with"
        ),
        "mutation_min": Knob("float", 0.1, 0, 1, note="lowest rate", only={"adaptive_mutation": (True,)}),
        "mutation_max": Knob("float", 0.8, 0, 1, note="highest rate", only={"adaptive_mutation": (True,)}),
        "mutation_mix": Knob(
            "weights",
            {"reflect": 0.5, "paraphrase": 0.2, "edit": 0.3},
            choices=(*(name for name in LLM_OPERATORS if name != "crossover_llm"), "edit"),
            note="how often each operator changes a child",
        ),
        "adaptive_operators": _ADAPTIVE,
        "elitism": Knob("int", 1, 0, 511, note="the best that no child can displace"),
        "replacement": Knob(
            "enum",
            "plus",
            choices=("generational", "plus", "steady_state"),
            note="children replace all, or compete with all, or a few at a time with the worst",
        ),
        "min_distance": Knob("float", 0.03, 0, 1, note="a child nearer than this to a member is no candidate"),
        "diversity_threshold": Knob(
            "float", 0.3, 0, 1, note="mean distance of the members below which immigrants come"
        ),
        "immigrants": Knob("float", 0.1, 0, 1, note="of the population, fresh starts"),
        "sharing_sigma": Knob("float", 0.0, 0, 1, note="members nearer than this share their fitness; 0: off"),
        "restart_stall": Knob("int", 2, 0, 1000, note="generations without gain before a restart; 0: never"),
        "restart_keep": Knob("int", 1, 1, 512, note="the best that a restart keeps; the others are fresh starts"),
        "survivors_by": Knob(
            "optional_enum",
            None,
            choices=("score", "halving", "racing"),
            note="how children are screened, score on all of dev; as evaluation.mode says when null",
        ),
        "evidence_cases": _EVIDENCE,
        "edit_level": _LEVEL,
        **_COMMON,
    },
}

DESCRIPTIONS: Mapping[str, str] = {
    "random": "Control: variations of the seed only, scored by the same policy. Beat it or be dropped.",
    "noop": "A/A: the seed against itself, measured again. What it gains is noise.",
    "iterative": "Hill climbing: the best of a few children made from failures replaces its parent, with restarts.",
    "beam_search": "Expands the best prompts from their failures, screens the children, keeps the best.",
    "anneal": "Simulated annealing under noise: chains that also take worse prompts while they are hot.",
    "genetic": "A population: parents are drawn by fitness, recombined and changed; children compete for places.",
}

# Names that earlier systems use for the same things; resolved here and nowhere else.
STRATEGY_ALIASES: Mapping[str, str] = {
    "random_search": "random",
    "hill_climbing": "iterative",
    "hill_climb": "iterative",
    "greedy": "iterative",
    "beam": "beam_search",
    "simulated_annealing": "anneal",
    "annealing": "anneal",
    "ga": "genetic",
    "genetic_algorithm": "genetic",
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
        wrong = problem(knob, value)
        if wrong:
            errors.append(FieldError(f"{pointer}/{name}", wrong))
        resolved[name] = value if wrong else plain(knob, value)
    refuse(errors)
    return resolved


def strategy_name(name: str) -> str:
    """The name of a strategy by its own or an older name; `Unprocessable` when there is none."""
    known = STRATEGY_ALIASES.get(name, name)
    if known not in STRATEGIES:
        detail = f"unknown strategy; there are: {', '.join(STRATEGIES)}"
        raise Unprocessable(f"/strategy: {detail}", errors=[FieldError("/strategy", detail)])
    return known


def resolve_strategy(strategy: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs of a strategy, checked one by one and against each other. Older names are understood."""
    name = strategy_name(strategy)
    known = STRATEGIES[name]
    values, called = _canonical(name, given)
    try:
        resolved = resolve(known, values, "/knobs")
        refuse(_misplaced(known, resolved, "/knobs"))
        chosen = {knob for knob, value in resolved.items() if value != known[knob].default}
        refuse(knob_rules.broken(name, resolved, chosen))
    except Unprocessable as refused:
        # A knob is named as the caller wrote it.
        refuse([FieldError(_as_given(error.pointer, called), error.detail) for error in refused.errors])
        raise
    return resolved


def check_together(spec: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """The rules between a strategy's knobs and the blocks that all share; `given` is the `evaluation` that was sent."""
    errors = []
    mode = knob_rules.screening_mode(spec["knobs"], spec["evaluation"])
    for name, modes in _ONLY_IN_MODE.items():
        if name in given and spec["evaluation"][name] != EVALUATION[name].default and mode not in modes:
            errors.append(FieldError(f"/evaluation/{name}", f"only with mode {' or '.join(modes)}; this is {mode}"))
    refuse([*errors, *knob_rules.broken_together(spec)])


def rounds_of(spec: Mapping[str, Any]) -> int:
    """How many rounds a search has at most."""
    given = spec["knobs"]
    if "epochs" in given:
        return int(given["epochs"] * given["moves_per_temp"])
    if "generations" in given:
        return int(given["generations"]) + 1  # the first population is a round too
    return int(given.get("max_rounds", 1))


def resolve_split(given: Mapping[str, Any]) -> dict[str, Any]:
    resolved = resolve(SPLIT, given, "/split")
    fractions = [resolved[f"{part}_fraction"] for part in ("train", "dev", "holdout")]
    if abs(sum(fractions) - 1) > 1e-6:
        refuse([FieldError("/split", f"the three fractions must add up to 1; these make {sum(fractions):g}")])
    if not resolved["dev_fraction"] or not resolved["holdout_fraction"]:
        refuse([FieldError("/split", "dev_fraction and holdout_fraction must be above 0")])
    return resolved


def split_shares(split: Mapping[str, Any], cases: int) -> dict[str, float]:
    """The share of each part that gets any. Without train, as with few cases, the dev cases serve as train."""
    if cases < SMALL:
        holdout = max(5 / cases, split["holdout_fraction"])
        return {"dev": 1 - holdout, "holdout": holdout}
    shares = {part: split[f"{part}_fraction"] for part in ("train", "dev", "holdout")}
    return {part: share for part, share in shares.items() if share > 0}


def minimum_task_calls(spec: Mapping[str, Any], cases: int) -> int:
    """Task calls of the cheapest useful run: the baseline, one round of one rung, and the holdout twice.

    For `genetic` all generations, each of half its children on one rung: fewer calls want a smaller population.
    """
    strategy, evaluation = spec["knobs"], spec["evaluation"]
    sizes = {part: math.ceil(cases * share - 1e-6) for part, share in split_shares(spec["split"], cases).items()}
    dev = min(sizes["dev"], evaluation["max_cases"] or sizes["dev"])
    full = knob_rules.screening_mode(strategy, evaluation) == "full"
    rung = dev if full else min(evaluation["min_cases"], dev)
    # Where dev serves as train, only what `max_cases` leaves out of the baseline is still to be run.
    evidence = min(strategy.get("evidence_cases", 0), sizes.get("train", sizes["dev"] - dev))
    search = dev if spec["strategy"] == "noop" else evidence + math.ceil(rung * _fewest_candidates(strategy))
    return int((dev + search + 2 * sizes["holdout"]) * evaluation["repeats"])


def _fewest_candidates(strategy: Mapping[str, Any]) -> float:
    """How many candidates a run scores on a first rung before it can be called a search."""
    if "population_size" in strategy:
        size = strategy["population_size"]
        return size * (1 + strategy["generations"] * (1 - strategy["elitism"] / size) / 2)
    if "chains" in strategy:
        calibrated = strategy["acceptance"] in knob_rules.WITH_TEMPERATURE and strategy["initial_temp"] is None
        return strategy["chains"] * strategy["proposals_per_step"] + calibrated * strategy["calibration_moves"]
    for name in ("expansions_per_beam", "proposals_per_step"):
        if name in strategy:
            return int(strategy[name])
    return min(2, strategy.get("proposals", 2))


def describe() -> list[dict[str, Any]]:
    """The strategies with their knobs, for the API and for forms."""
    return [
        {
            "name": name,
            "description": DESCRIPTIONS[name],
            "aliases": [alias for alias, meant in STRATEGY_ALIASES.items() if meant == name],
            "knobs": [
                {
                    "name": knob_name,
                    "type": knob.kind,
                    "default": knob.default,
                    "low": None if math.isinf(knob.low) else knob.low,
                    "high": None if math.isinf(knob.high) else knob.high,
                    "choices": list(knob.choices),
                    "note": knob.note,
                    "only_with": {other: list(values) for other, values in knob.only.items()},
                }
                for knob_name, knob in knobs.items()
            ],
        }
        for name, knobs in STRATEGIES.items()
    ]


def _canonical(strategy: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The values by the names of the catalogue, and how the caller called each that has another name there."""
    values: dict[str, Any] = {}
    called: dict[str, str] = {}
    for name, value in given.items():
        group = KNOB_GROUPS.get(strategy, {}).get(name)
        inner = value if group is not None and isinstance(value, Mapping) else None
        for part, one in inner.items() if inner is not None else [(None, value)]:
            known = KNOB_ALIASES.get(strategy, {}).get(name, name) if part is None else (group or {}).get(part, part)
            if known in values:
                refuse([FieldError(f"/knobs/{name}", f"given twice: {name} is another name of {known}")])
            values[known] = VALUE_ALIASES.get((known, one), one) if isinstance(one, str) else one
            called[known] = name if part is None else f"{name}/{part}"
    return values, called


def _as_given(pointer: str, called: Mapping[str, str]) -> str:
    name = pointer.removeprefix("/knobs/")
    return f"/knobs/{called.get(name, name)}"


def _misplaced(known: Mapping[str, Knob], resolved: Mapping[str, Any], pointer: str) -> list[FieldError]:
    """The knobs that were set where they do nothing."""
    errors = []
    for name, knob in known.items():
        if resolved[name] == knob.default:
            continue
        for other, allowed in knob.only.items():
            if resolved[other] not in allowed:
                names = " or ".join("true" if value is True else str(value) for value in allowed)
                errors.append(FieldError(f"{pointer}/{name}", f"only with {other} {names}"))
                break
    return errors
