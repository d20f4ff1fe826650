"""What a search comes to: who its finalists are, and what the holdout says about the best of them."""

from dataclasses import asdict
from typing import Any

from shared import stats
from shared.knobs import TINY
from worker.strategies import watch
from worker.strategies.record import Record

GIVE_UP_MISSING = 0.5  # of the scores that were asked for: with fewer, nothing is claimed


def finalists(record: Record) -> list[str]:
    """The incumbent, then the best of the others that have a valid score; ties keep the older one first."""
    values: dict[str, float] = {}
    for candidate in record.candidates:
        value = shrunk_value(record, candidate)
        if value is not None and candidate != record.incumbent and not record.is_teacher(candidate):
            values[candidate] = value
    others = sorted(values, key=lambda one: -values[one])
    return [record.incumbent, *others[: record.knobs.get("finalists", 1) - 1]]


def shrunk_value(record: Record, candidate: str) -> float | None:
    """The value on the dev cases so far; what few cases say is pulled toward the baseline.

    Shrinkage with the weight of one first rung, so that a lucky 16 of 16 does not displace 120 of 160.
    """
    cases = [case for case in record.dev if record.is_tried(candidate, case)]
    value = record.value(candidate, cases)
    if value is None:
        return None
    weight = len(cases) / (len(cases) + record.evaluation["min_cases"])
    return weight * value + (1 - weight) * record.mean(record.seed, record.dev)


def result(record: Record, reason: str) -> dict[str, Any]:
    """What is told of a finished search: its verdict, and the numbers that this rests on."""
    holdout = _holdout_comparison(record)
    return {
        "verdict": _verdict(record, reason, holdout),
        "baseline_dev": _mean_or_none(record, record.seed),
        "best_dev": _mean_or_none(record, record.incumbent),
        "best": record.incumbent,
        "holdout": asdict(holdout) if holdout else None,
        "indicative": record.state["indicative"],
        **({"tiny": True} if _is_tiny(record) else {}),
        **({"noise": record.own["noise"]} if "noise" in record.own else {}),
        **({"preflight": record.state["preflight"]} if "preflight" in record.state else {}),
        **({"generalization": watch.told(record)} if "checks" in record.state else {}),
        "cases": {
            part: len(record.state[part]) for part in ("train", "dev", "holdout", "watch") if part in record.state
        },
    }


def _holdout_comparison(record: Record) -> stats.Difference | None:
    """Baseline against best, paired over the holdout cases that both have a score for, by their weights."""
    seed, best = record.seed, record.incumbent
    both = [case for case in record.state["holdout"] if record.scores(seed, [case]) and record.scores(best, [case])]
    if not both:
        return None
    return stats.compare_paired(
        record.scores(seed, both),
        record.scores(best, both),
        seed=record.problem.spec["seed"],
        weights=record.weights(seed, both),
    )


def _verdict(record: Record, reason: str, holdout: stats.Difference | None) -> str:
    if reason == "no_headroom":
        return "no_headroom"
    if holdout is None or holdout.n < (1 - GIVE_UP_MISSING) * len(record.state["holdout"]):
        return "not_measured"
    if _is_tiny(record):
        return "not_significant"  # an interval over a few cases can leave out 0 by one answer
    return {1: "improved", -1: "worse", 0: "not_significant"}[holdout.direction]


def _is_tiny(record: Record) -> bool:
    return len(record.cases) < TINY


def _mean_or_none(record: Record, candidate: str) -> float | None:
    return record.mean(candidate, record.dev) if record.scores(candidate, record.dev) else None
