"""Paired tests for racing: how surely is one candidate better than another on the same cases? One-sided p-values.

They stand here and not in `shared.stats` because they only decide what a search spends on; no verdict rests on them.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

_EXACT_FLIPS = 10  # up to so many differences every assignment of signs is looked at
_FLIPS = 2_000
_EXACT_RANKS = 25  # up to so many differences the distribution of the sum of ranks is counted out
_SMALL = 20  # fewer differences that are all -1, 0 or 1 are no sample of a normal distribution


def p_value(test: str, differences: Sequence[float]) -> float:
    """P of a mean difference at least as large, were there none; 1 for fewer than two differences."""
    if len(differences) < 2 or not any(differences):
        return 1.0
    return _TESTS[test](differences)


def student(differences: Sequence[float]) -> float:
    """Student's paired t (1908). Few differences that are signs only, or all the same, go to the sign test."""
    n = len(differences)
    mean = math.fsum(differences) / n
    variance = math.fsum((d - mean) ** 2 for d in differences) / (n - 1)
    signs_only = n < _SMALL and all(d in (-1, 0, 1) for d in differences)
    if signs_only or variance <= 1e-24:
        return sign(differences)
    return t_tail(mean / math.sqrt(variance / n), n - 1)


def sign(differences: Sequence[float]) -> float:
    """The exact sign test (Arbuthnot 1710): of the differences that are not 0, how many are above it."""
    above, below = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    n = above + below
    return sum(math.comb(n, k) for k in range(above, n + 1)) / 2**n


def wilcoxon(differences: Sequence[float]) -> float:
    """Wilcoxon's signed-rank test (1945): zeros left out, mid-ranks for ties, exact up to 25, else normal."""
    found = [d for d in differences if d]
    order = sorted(abs(d) for d in found)
    places = {size: (bisect_left(order, size), bisect_right(order, size)) for size in set(order)}
    # Twice the mean of the ranks from first + 1 to last, which is a whole number.
    doubled = [sum(places[abs(d)]) + 1 for d in found]
    positive, n = sum(rank for rank, d in zip(doubled, found, strict=True) if d > 0) / 2, len(found)
    if n <= _EXACT_RANKS:
        return sum(_signed_rank_counts(tuple(sorted(doubled)))[round(2 * positive) :]) / 2**n
    ties = sum((last - first) ** 3 - (last - first) for first, last in places.values())
    deviation = math.sqrt(n * (n + 1) * (2 * n + 1) / 24 - ties / 48)
    beyond = positive - n * (n + 1) / 4 - 0.5
    return 0.5 * math.erfc(beyond / deviation / math.sqrt(2))


def permutation(differences: Sequence[float]) -> float:
    """The sign-flip permutation test of the mean (Fisher 1935): all flips up to 10, else 2,000 fixed ones."""
    array = np.asarray(differences, dtype=float)
    flips = _flips(len(array))
    # Sums of the same numbers in another order may differ in the last bit.
    extreme = int((flips @ array >= array.sum() - 1e-12).sum())
    return extreme / len(flips) if len(array) <= _EXACT_FLIPS else (1 + extreme) / (1 + len(flips))


_TESTS = {"paired_t": student, "sign": sign, "wilcoxon": wilcoxon, "permutation": permutation}


@lru_cache(maxsize=4)  # a race asks about a few numbers of cases at a time, and of thousands each takes megabytes
def _flips(n: int) -> "np.ndarray[tuple[Any, ...], np.dtype[np.int8]]":
    if n <= _EXACT_FLIPS:
        return np.array([[1 if bits >> i & 1 else -1 for i in range(n)] for bits in range(2**n)], dtype=np.int8)
    return np.asarray(np.random.default_rng(n).integers(0, 2, size=(_FLIPS, n)) * 2 - 1, dtype=np.int8)


@lru_cache(maxsize=32)
def _signed_rank_counts(ranks: tuple[int, ...]) -> tuple[int, ...]:
    """How many assignments of signs give each sum of these ranks of what is positive."""
    counts = [1]
    for rank in ranks:
        longer = counts + [0] * rank
        for total, ways in enumerate(counts):
            longer[total + rank] += ways
        counts = longer
    return tuple(counts)


def t_tail(t: float, freedom: int) -> float:
    """P(T > t) of Student's distribution, by the incomplete beta function (Abramowitz and Stegun 1964, 26.7.1)."""
    if not t:
        return 0.5
    tail = 0.5 * _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))
    return tail if t > 0 else 1 - tail


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularized I_x(a, b), by its continued fraction (Abramowitz and Stegun 26.5.8; Lentz 1976)."""
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 300):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + term * d)
            c = 1 + term / c
            fraction *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return front * fraction / a
