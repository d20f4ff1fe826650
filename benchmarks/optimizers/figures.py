"""Figures of many runs: by method, and of ours beside each other one."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.optimizers.outcomes import Outcome

RESAMPLES = 10_000


def figures(outcomes: Sequence[Outcome], *, seed: int) -> dict[str, Any]:
    """By method; intervals are percentile bootstrap over worlds (Efron 1979), the runs of a world kept together."""
    found: dict[str, Any] = {}
    for method in dict.fromkeys(each.method for each in outcomes):
        own = [each for each in outcomes if each.method == method]
        real, null = [each for each in own if not each.is_null], [each for each in own if each.is_null]
        tried = [each.proposals_tried for each in own if each.proposals_tried is not None]
        found[method] = {
            "runs": len(own),
            "failed_runs": sum(each.failed for each in own),
            "worlds": len({each.world for each in own}),
            "calls_to_80": _mean(real, lambda one: one.calls_to_80, seed),
            "calls_to_80_median": _median([each.calls_to_80 for each in real]),
            "reached_80": _mean(real, lambda one: one.reached, seed),
            "regret": _mean(real, lambda one: one.regret, seed),
            "gain_of_returned": _mean(real, lambda one: one.gain or 0.0, seed),
            "worse_than_seed": _mean(own, lambda one: one.worse, seed),
            "false_improvements": _mean(null, lambda one: one.claims, seed),
            "calls": _mean(own, lambda one: one.calls, seed),
            "seconds_median": _median([each.seconds for each in own if each.seconds is not None]),
            "proposals_tried": round(float(np.mean(tried)), 3) if tried else None,
            "calls_to_80_by_family": {
                family: round(float(np.mean([each.calls_to_80 for each in real if each.family == family])), 1)
                for family in dict.fromkeys(each.family for each in real)
            },
        }
    return found


def ratios(outcomes: Sequence[Outcome], ours: str, *, seed: int) -> dict[str, Any]:
    """The calls to reach 80 % of ours to those of each other, over the worlds that both ran in."""
    made = {}
    for method in dict.fromkeys(each.method for each in outcomes):
        if method == ours:
            continue
        pair = [_by_world(_real(outcomes, name), lambda one: one.calls_to_80) for name in (ours, method)]
        both = sorted(set(pair[0]) & set(pair[1]))
        if not both:
            continue
        values = np.array([[of_one[world] for world in both] for of_one in pair])
        drawn = np.random.default_rng(seed).integers(0, len(both), size=(RESAMPLES, len(both)))
        sums = values[:, drawn].sum(axis=2)
        made[method] = _figure(values[0].sum() / values[1].sum(), sums[0] / sums[1], len(both))
    return made


def ranking(outcomes: Sequence[Outcome]) -> list[str]:
    """Fewest calls to reach 80 % first; of those alike, the smaller regret."""
    methods = dict.fromkeys(each.method for each in outcomes if not each.is_null)
    return sorted(
        methods,
        key=lambda name: (
            float(np.mean([each.calls_to_80 for each in _real(outcomes, name)])),
            float(np.mean([each.regret for each in _real(outcomes, name)])),
        ),
    )


def plain(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    return [asdict(each) for each in outcomes]


def _real(outcomes: Sequence[Outcome], method: str) -> list[Outcome]:
    return [each for each in outcomes if each.method == method and not each.is_null]


def _by_world(outcomes: Sequence[Outcome], value: Callable[[Outcome], float]) -> dict[str, float]:
    worlds: dict[str, list[float]] = {}
    for each in outcomes:
        worlds.setdefault(each.world, []).append(float(value(each)))
    return {world: float(np.mean(values)) for world, values in worlds.items()}


def _mean(outcomes: Sequence[Outcome], value: Callable[[Outcome], float], seed: int) -> dict[str, Any] | None:
    values = np.array(list(_by_world(outcomes, value).values()))
    if not len(values):
        return None
    drawn = np.random.default_rng(seed).integers(0, len(values), size=(RESAMPLES, len(values)))
    return _figure(values.mean(), values[drawn].mean(axis=1), len(values))


def _median(values: Sequence[float]) -> float | None:
    return round(float(np.median(values)), 1) if values else None


def _figure(value: float, resampled: Any, worlds: int) -> dict[str, Any]:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return {name: float(f"{number:.4g}") for name, number in (("value", value), ("low", low), ("high", high))} | {
        "worlds": worlds
    }
