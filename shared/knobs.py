"""The catalogue of search settings: one place from which validation, defaults and documentation are made.

A knob that is not here is refused, and every knob that is here changes what a search does.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import FieldError, Unprocessable

OPERATORS = ("reflect", "paraphrase", "fresh_start", "shorten", "delete", "swap", "insert_phrase")
LLM_OPERATORS = ("reflect", "paraphrase", "fresh_start", "shorten")


MAX_WEIGHT = 1_000_000  # sums of weights stay finite
SMALL = 30  # cases; below this, train and dev are the same and a result is only indicative


@dataclass(frozen=True)
class Knob:
    """One setting. `kind` is int, float, bool, enum, optional_int or weights (name → number ≥ 0)."""

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
}

DESCRIPTIONS: Mapping[str, str] = {
    "random": "Control: variations of the seed only, scored by the same policy. Beat it or be dropped.",
    "beam_search": "Expands the best prompts from their failures, screens the children by halving, keeps the best.",
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
    """The knobs of a strategy, checked one by one and against each other."""
    if strategy not in STRATEGIES:
        detail = f"unknown strategy; there are: {', '.join(STRATEGIES)}"
        raise Unprocessable(f"/strategy: {detail}", errors=[FieldError("/strategy", detail)])
    resolved = resolve(STRATEGIES[strategy], given, "/knobs")
    rule = _CROSS_RULES.get(strategy)
    if rule:
        _raise(rule(resolved))
    return resolved


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
    children = strategy.get("expansions_per_beam", min(2, strategy.get("proposals", 2)))
    # Where dev serves as train, only what `max_cases` leaves out of the baseline is still to be run.
    evidence = min(strategy.get("evidence_cases", 0), sizes.get("train", sizes["dev"] - dev))
    dev *= 2 if spec.get("preflight") else 1
    return int((dev + evidence + rung * children + 2 * sizes["holdout"]) * evaluation["repeats"])


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


_CROSS_RULES: Mapping[str, Callable[[Mapping[str, Any]], list[FieldError]]] = {"beam_search": _beam_rules}


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
    return dict(value) if knob.kind == "weights" else value


def _raise(errors: Sequence[FieldError]) -> None:
    if errors:
        raise Unprocessable("; ".join(f"{e.pointer}: {e.detail}" for e in errors), errors=errors)
