"""Choosing from scored candidates: in an order, with diversity, with chance, by the cases that each is best at."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.strategies.search import Search


def with_noise(search: "Search", values: Mapping[str, float], heat: float) -> dict[str, float]:
    """Values, best first; with heat the order is a sample from softmax(value / heat) without replacement.

    Gumbel top-k (Kool, van Hoof and Welling 2019).
    """
    noisy = dict(values)
    if heat > 0:
        for place, one in enumerate(values):
            uniform = search.draw("gumbel", place).uniform(1e-12, 1.0)
            noisy[one] -= heat * math.log(-math.log(uniform) + 1e-300)
    return dict(sorted(noisy.items(), key=lambda item: -item[1]))


def diverse_order(
    search: "Search", left: Sequence[str], values: Mapping[str, float], rate: float, *, most: int | None = None
) -> list[str]:
    """Maximal marginal relevance (Carbonell and Goldstein 1998): good, and unlike what is chosen already.

    The first `most` of the order; each takes a comparison of texts with all that are left.
    """
    if not left:
        return []
    low, high = min(values[one] for one in left), max(values[one] for one in left)
    scale = (high - low) or 1.0
    nearest = dict.fromkeys(left, 0.0)  # likeness to the most alike of the chosen
    chosen: list[str] = []
    waiting = list(left)
    while waiting and len(chosen) != most:
        best = max(waiting, key=lambda one: (1 - rate) * (values[one] - low) / scale - rate * nearest[one])
        chosen.append(best)
        waiting.remove(best)
        for one in waiting:
            nearest[one] = max(nearest[one], search.similarity(one, best))
    return chosen


def hybrid_order(search: "Search", left: Sequence[str], values: Mapping[str, float], rate: float) -> list[str]:
    """By the places in both orders (Borda 1781): (1 - rate) x the place by value + rate x the place by unlikeness."""
    by_value = sorted(left, key=lambda one: -values[one])
    unlike = diverse_order(search, by_value, values, 1.0)
    by_unlikeness = {one: place for place, one in enumerate(unlike)}
    places = {one: (1 - rate) * place + rate * by_unlikeness[one] for place, one in enumerate(by_value)}
    return sorted(by_value, key=lambda one: places[one])


def wins(search: "Search", candidates: Sequence[str], cases: Sequence[int]) -> dict[str, float]:
    """How many cases each is best at, a shared one in shares (the front by instance of GEPA, Agrawal et al. 2025)."""
    found = {one: search.by_case(one, cases) for one in candidates}
    total = dict.fromkeys(candidates, 0.0)
    for case in cases:
        best = max((scores[case] for scores in found.values() if case in scores), default=None)
        winners = [one for one, scores in found.items() if best is not None and scores.get(case) == best]
        for one in winners:
            total[one] += 1 / len(winners)
    return total
