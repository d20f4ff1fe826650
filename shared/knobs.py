"""The settings of a search: from here come validation, defaults and documentation.

A knob that is in no catalogue is refused, and every knob that is in one changes what a search does.
"""

import math
from collections.abc import Mapping
from typing import Any

from shared import knob_names, knob_rules
from shared.errors import FieldError, Unprocessable
from shared.knob_blocks import EARLY_STOPPING, EDITS, EVALUATION, LLM_OPERATORS, ONLY_IN_MODE, OPERATORS, SPLIT
from shared.knob_genes import GENES, TIPS
from shared.knob_names import KNOB_ALIASES, STRATEGY_ALIASES
from shared.knob_texts import TEXTS
from shared.knob_values import Knob, plain, problem, refuse

__all__ = [  # of other modules, beside all that stands here
    "EARLY_STOPPING",
    "EDITS",
    "EVALUATION",
    "KNOB_ALIASES",
    "LLM_OPERATORS",
    "OPERATORS",
    "SPLIT",
    "STRATEGY_ALIASES",
    "TIPS",
]

SMALL = 30  # cases; below this, train and dev are the same and a result is only indicative
TINY, FEWEST = 10, 2  # below the first a search must be told to go on, below the second there is nothing to divide
WATCHED = 0.25  # of dev, what `generalization_check_every` sets aside
_TOLD_BY = ("expected", "tags", "group")  # what a case may be told by, and any field of its inputs or of `expected`

DEFAULT = "merge"  # the strategy to take without a reason for another, by what docs/performance.md shows
STRATEGIES: Mapping[str, Mapping[str, Knob]] = {**TEXTS, **GENES}
DESCRIPTIONS: Mapping[str, str] = {
    "random": "Control: variations of the seed only, scored by the same policy. Beat it or be dropped.",
    "noop": "A/A: the seed against itself, measured again. What it gains is noise.",
    "iterative": "Hill climbing: the best of a few children made from failures replaces its parent, with restarts.",
    "beam_search": "Expands the best prompts from their failures, screens the children, keeps the best.",
    "merge": "Joins sentences of many rewrites; a model of what each is worth picks which.",
    "anneal": "Simulated annealing under noise: chains that also take worse prompts while they are hot.",
    "genetic": "A population: parents are drawn by fitness, recombined and changed; children compete for places.",
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
        wrong = problem(knob, value)
        if wrong:
            errors.append(FieldError(f"{pointer}/{name}", wrong))
        resolved[name] = value if wrong else plain(knob, value)
    refuse(errors)
    return resolved


def canonical(strategy: str, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The strategy and the knobs by their own names; `Unprocessable` when there is no such strategy."""
    name, values, _ = _named(strategy, given)
    return name, values


def resolve_strategy(strategy: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs of a strategy, checked one by one and against each other. Older names are understood."""
    name, values, called = _named(strategy, given)
    known = STRATEGIES[name]
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
    for name, modes in ONLY_IN_MODE.items():
        if name in given and spec["evaluation"][name] != EVALUATION[name].default and mode not in modes:
            errors.append(FieldError(f"/evaluation/{name}", f"only with mode {' or '.join(modes)}; this is {mode}"))
    halves = spec["strategy"] not in knob_rules.ON_ONE_LIST or spec["knobs"].get("pruner") == "halving"
    if not errors and not halves and spec["evaluation"]["eta"] != EVALUATION["eta"].default:
        errors.append(FieldError("/evaluation/eta", f"{spec['strategy']} drops nobody by it"))
    refuse([*errors, *knob_rules.broken_together(spec)])


def models_of(given: Mapping[str, Any]) -> list[str]:
    """The models besides the task's that these knobs may have called."""
    choices = given.get("params_to_optimize", {}).get("model_name", {}).get("choices", [])
    return list(dict.fromkeys([*([given["teacher"]] if given.get("teacher") else []), *choices]))


def most_trials(strategy: Mapping[str, Any]) -> int:
    """How many trials a search by trials makes; unless mipro is told, what MIPROv2 makes of its instructions."""
    n, variables = strategy.get("num_instructions", 1), 2 if strategy.get("num_demo_sets") else 1
    given = strategy["max_trials"] if "max_trials" in strategy else strategy["trials"]
    return int(given or max(math.ceil(2 * variables * math.log2(n)), math.ceil(1.5 * n)))


def rounds_of(spec: Mapping[str, Any]) -> int:
    """How many rounds a search has at most."""
    given = spec["knobs"]
    if "epochs" in given:
        return int(given["epochs"] * given["moves_per_temp"])
    if "generations" in given:
        return int(given["generations"]) + 1  # the first population is a round too
    if "batch" in given:
        return math.ceil(most_trials(given) / given["batch"])
    return int(given.get("max_rounds", given.get("simulations", 1)))


def needs_train(strategy: Mapping[str, Any]) -> bool:
    """Whether these knobs make a search that is nothing without train cases: demonstrations, gates of gepa."""
    shows = "metric_threshold" in strategy and strategy.get("num_demo_sets", 1) > 0
    return shows or "reflection_minibatch_size" in strategy


def teacher_cases(strategy: Mapping[str, Any]) -> int:
    """How many train cases the teacher answers at most in a round: a few times what one set of its answers holds."""
    if not strategy.get("num_demo_sets", 1):
        return 0
    return int(4 * strategy.get("max_bootstrapped", strategy.get("max_bootstrapped_demos", 0)))


def resolve_split(given: Mapping[str, Any]) -> dict[str, Any]:
    resolved = resolve(SPLIT, given, "/split")
    fractions = [resolved[f"{part}_fraction"] for part in ("train", "dev", "holdout")]
    if abs(sum(fractions) - 1) > 1e-6:
        refuse([FieldError("/split", f"the three fractions must add up to 1; these make {sum(fractions):g}")])
    if not resolved["dev_fraction"] or not resolved["holdout_fraction"]:
        refuse([FieldError("/split", "dev_fraction and holdout_fraction must be above 0")])
    named = f"must be {', '.join(_TOLD_BY)}, inputs.<name> or expected.<field>"
    refuse(
        [
            FieldError(f"/split/{name}", named)
            for name in ("stratify_by", "group_by")
            if resolved[name] is not None and not _tells(resolved[name])
        ]
    )
    return resolved


def _tells(path: str) -> bool:
    where, *fields = path.split(".")
    return path in _TOLD_BY or (where in ("inputs", "expected") and bool(fields) and all(fields))


def split_shares(split: Mapping[str, Any], cases: int) -> dict[str, float]:
    """The share of each part that gets any. Without train, as with few cases, the dev cases serve as train."""
    if cases < SMALL:
        holdout = max(min(5 / cases, 0.5), split["holdout_fraction"])
        return {"dev": 1 - holdout, "holdout": holdout}
    shares = {part: split[f"{part}_fraction"] for part in ("train", "dev", "holdout")}
    return {part: share for part, share in shares.items() if share > 0}


def minimum_task_calls(spec: Mapping[str, Any], cases: int) -> int:
    """Task calls of the cheapest useful run: the baseline, one round of one rung, and the holdout twice.

    For `genetic` all generations, each of half its children on one rung: fewer calls want a smaller population.
    """
    strategy, evaluation = spec["knobs"], spec["evaluation"]
    sizes = {part: math.ceil(cases * share - 1e-6) for part, share in split_shares(spec["split"], cases).items()}
    watched = math.floor(WATCHED * sizes["dev"]) if evaluation.get("generalization_check_every") else 0
    sizes["dev"] -= watched
    dev = min(sizes["dev"], evaluation["max_cases"] or sizes["dev"])
    fewest = _fewest_candidates(strategy)
    # Where dev serves as train, only what `max_cases` leaves out of the baseline is still to be run.
    evidence = min(strategy.get("evidence_cases", 0), sizes.get("train", sizes["dev"] - dev))
    if "reflection_minibatch_size" in strategy:
        evidence = 2 * int(fewest) * strategy["reflection_minibatch_size"]
    taught = teacher_cases(strategy) * strategy.get("rounds", 1)
    rungs = dev if spec["strategy"] == "noop" else math.ceil(_rung(strategy, evaluation, dev) * fewest)
    probed = dev if spec.get("preflight") else 0
    return int((dev + watched + probed + evidence + taught + rungs + 2 * sizes["holdout"]) * evaluation["repeats"])


def _rung(strategy: Mapping[str, Any], evaluation: Mapping[str, Any], dev: int) -> int:
    """How many cases a candidate is scored on first."""
    if "probe_cases" in strategy:
        return int(strategy["evidence_cases"])
    if knob_rules.screening_mode(strategy, evaluation) == "full" or strategy.get("pruner") == "none":
        return dev
    if "reflection_minibatch_size" in strategy:
        return min(dev, strategy["val_cases"] or dev)
    return int(min(dev, strategy.get("minibatch_size", evaluation["min_cases"])))


def _fewest_candidates(strategy: Mapping[str, Any]) -> float:
    """How many candidates a run scores on a first rung before it can be called a search."""
    if "population_size" in strategy:
        size = strategy["population_size"]
        return size * (1 + strategy["generations"] * (1 - strategy["elitism"] / size) / 2)
    if "chains" in strategy:
        calibrated = strategy["acceptance"] in knob_rules.WITH_TEMPERATURE and strategy["initial_temp"] is None
        return strategy["chains"] * strategy["proposals_per_step"] + calibrated * strategy["calibration_moves"]
    if "candidate_sets" in strategy or "probe_cases" in strategy:
        return 1
    for name in ("expansions_per_beam", "proposals_per_step"):
        if name in strategy:
            return int(strategy[name])
    return min(2, strategy.get("proposals", strategy.get("max_trials", 2)))


def describe() -> list[dict[str, Any]]:
    """The strategies with their knobs, for the API and for forms."""
    return [
        {
            "name": name,
            "description": DESCRIPTIONS[name],
            "is_default": name == DEFAULT,
            "aliases": [alias for alias, (meant, _) in STRATEGY_ALIASES.items() if meant == name],
            "knobs": [
                {
                    "name": knob_name,
                    "aliases": [alias for alias, meant in KNOB_ALIASES.get(name, {}).items() if meant == knob_name],
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


def _named(strategy: str, given: Mapping[str, Any]) -> tuple[str, dict[str, Any], dict[str, str]]:
    name, values, called = knob_names.canonical(strategy, given)
    if name not in STRATEGIES:
        detail = f"unknown strategy; there are: {', '.join(STRATEGIES)}"
        raise Unprocessable(f"/strategy: {detail}", errors=[FieldError("/strategy", detail)])
    return name, values, called


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
