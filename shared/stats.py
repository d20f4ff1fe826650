"""Statistics that decide whether a prompt is better. Seeded, so the same scores give the same verdict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.05  # of a test, and what an interval leaves out
_NOISE = 1e-9  # means of scores are nearer to each other than this when they are the same but for rounding
_CELLS = 1_000_000  # of one block of resamples
_CHEAPER_BY_COUNTS = 8  # times as many values as different ones, at least


@dataclass(frozen=True)
class Difference:
    """A paired comparison: candidate minus baseline, with its 95 % interval and sign-flip p-value.

    `direction`: 1 better, -1 worse, 0 when either the interval holds 0 or the test does not reject. Both are asked,
    for on fewer than some ten cases a bootstrap interval is too narrow (Hesterberg 2015).
    """

    n: int
    baseline: float
    candidate: float
    difference: float
    ci_low: float
    ci_high: float
    p_value: float

    @property
    def direction(self) -> int:
        if self.p_value > LEVEL:
            return 0
        return int(self.ci_low > 0) - int(self.ci_high < 0)


@dataclass(frozen=True)
class Comparison:
    """Two independent samples: the statistic of a test, how large the effect is, and the two-sided p-value."""

    statistic: float
    effect: float
    p_value: float


def reaches(value: float, bound: float) -> bool:
    """Whether it is at least the bound, for what is summed in floating point: ten scores of 0.8 reach 0.8."""
    return value >= bound - _NOISE


def mean(values: Sequence[float], weights: Sequence[float] | None = None) -> float:
    if not len(values):
        return float("nan")
    array = np.asarray(values, dtype=float)
    return _mean(array, _unequal(weights))


def median(values: Sequence[float]) -> float:
    return float(np.median(np.asarray(values, dtype=float)))


def standard_error(values: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """Of the (weighted) mean; 0 for fewer than two values.

    Weighted: sqrt(n / (n - 1) * sum((w * (x - mean))^2)) / sum(w), the linearized error of a ratio (Cochran
    1977, section 6.3; found to agree with the bootstrap by Gatz and Smith 1995). Equal weights: s / sqrt(n).
    """
    n = len(values)
    if n < 2:
        return 0.0
    array, uneven = np.asarray(values, dtype=float), _unequal(weights)
    if uneven is None:
        return float(np.std(array, ddof=1) / np.sqrt(n))
    residuals = uneven * (array - _mean(array, uneven))
    return float(np.sqrt(n / (n - 1) * (residuals**2).sum()) / uneven.sum())


def mean_interval(
    values: Sequence[float], *, seed: int, weights: Sequence[float] | None = None, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the (weighted) mean (Efron 1979).

    Pass one value per case, never one per repeat: repeats of a case are no independent draws. A case is
    drawn with its weight, so one that outweighs the rest makes the interval as wide as it should be.
    """
    if not len(values):
        return float("nan"), float("nan")
    means = _bootstrap_means(np.asarray(values, dtype=float), _unequal(weights), seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compare_paired(
    baseline: Sequence[float],
    candidate: Sequence[float],
    *,
    seed: int,
    weights: Sequence[float] | None = None,
) -> Difference:
    """Compare two score lists case by case (same length, same order, nothing missing).

    Interval: percentile bootstrap over cases, 10,000 resamples (Efron 1979). p-value: two-sided
    sign-flip permutation test of the mean difference (Fisher 1935), 10,000 flips, with the observed
    one counted. With weights, each resample and each flip gives the weighted mean of the differences;
    flipping signs is as exact for that statistic as for any other (Lehmann and Romano 2005, 15.2).
    """
    if len(baseline) != len(candidate) or not len(baseline):
        raise ValueError("paired scores must have the same, positive length")
    a, b, uneven = np.asarray(baseline, dtype=float), np.asarray(candidate, dtype=float), _unequal(weights)
    deltas = b - a
    deltas[np.abs(deltas) < _NOISE] = 0.0  # the same score, averaged over other repeats
    means = _bootstrap_means(deltas, uneven, seed)
    low, high = np.quantile(means, [0.025, 0.975])
    difference = _mean(deltas, uneven)
    # n * w * delta / sum(w): its plain mean is the weighted mean of the differences.
    shares = deltas if uneven is None else deltas * (uneven / uneven.mean())
    observed = abs(shares.mean())
    generator = np.random.default_rng(seed)
    as_extreme = 0
    for rows in _blocks(len(deltas)):
        signs = generator.integers(0, 2, size=(rows, len(deltas)), dtype=np.int8) * 2 - 1
        # Floating-point sums of the same numbers in another order may differ in the last bit.
        as_extreme += int((np.abs((signs * shares).mean(axis=1)) >= observed - 1e-12).sum())
    p_value = (1 + as_extreme) / (RESAMPLES + 1)
    return Difference(len(deltas), _mean(a, uneven), _mean(b, uneven), difference, float(low), float(high), p_value)


def paired_effect(
    baseline: Sequence[float], candidate: Sequence[float], weights: Sequence[float] | None = None
) -> float | None:
    """Cohen's d of paired differences (d_z; Cohen 1988): their mean over their standard deviation, both weighted.

    None where all differences are the same, for there is nothing to measure the mean by.
    """
    deltas, uneven = np.asarray(candidate, dtype=float) - np.asarray(baseline, dtype=float), _unequal(weights)
    if len(deltas) < 2:
        return None
    shares = np.ones(len(deltas)) if uneven is None else uneven
    middle = _mean(deltas, uneven)
    variance = float((shares * (deltas - middle) ** 2).sum() / shares.sum()) * len(deltas) / (len(deltas) - 1)
    return middle / math.sqrt(variance) if variance > 1e-24 else None


def mann_whitney(baseline: Sequence[float], current: Sequence[float]) -> Comparison:
    """Mann and Whitney's U of the current sample (1947): are its values mostly higher, or mostly lower?

    By the normal approximation with the correction for ties and for continuity. The effect is Cliff's delta
    (1993), from -1 (all lower) to 1 (all higher).
    """
    n, m = len(baseline), len(current)
    pooled = np.concatenate([np.asarray(baseline, dtype=float), np.asarray(current, dtype=float)])
    _, place, counts = np.unique(pooled, return_inverse=True, return_counts=True)
    middle_ranks = np.cumsum(counts) - (counts - 1) / 2
    u = float(middle_ranks[place[n:]].sum() - m * (m + 1) / 2)
    ties = float((counts.astype(float) ** 3 - counts).sum())
    total = n + m
    deviation = math.sqrt(max(0.0, n * m / 12 * (total + 1 - ties / (total * (total - 1)))))
    beyond = abs(u - n * m / 2) - 0.5
    p_value = min(1.0, math.erfc(beyond / deviation / math.sqrt(2))) if deviation else 1.0
    return Comparison(u, 2 * u / (n * m) - 1, p_value)


def kolmogorov_smirnov(baseline: Sequence[float], current: Sequence[float]) -> Comparison:
    """The largest distance between the two distributions (Smirnov 1939), which is the effect too: 0 to 1.

    The p-value is that of the limiting distribution with Stephens' correction for small samples (1970); with ties
    it is too large rather than too small.
    """
    n, m = len(baseline), len(current)
    a, b = np.sort(np.asarray(baseline, dtype=float)), np.sort(np.asarray(current, dtype=float))
    pooled = np.concatenate([a, b])
    apart = np.searchsorted(a, pooled, side="right") / n - np.searchsorted(b, pooled, side="right") / m
    distance = float(np.abs(apart).max())
    root = math.sqrt(n * m / (n + m))
    return Comparison(distance, distance, kolmogorov_tail((root + 0.12 + 0.11 / root) * distance))


def kolmogorov_tail(x: float) -> float:
    """P(K > x) of Kolmogorov's distribution (1933)."""
    if x < 0.2:  # below, it is 1 to the last bit, and the series would need many terms
        return 1.0
    terms = (2 * (-1) ** (k - 1) * math.exp(-2 * (k * x) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, math.fsum(terms)))


def fisher_exact(failures: tuple[int, int], totals: tuple[int, int]) -> Comparison:
    """Fisher's exact test (1935) of two rates, (baseline, current). The effect is the difference of the rates."""
    (a, b), (n, m) = failures, totals
    together = a + b

    def log_choose(among: int, chosen: int) -> float:
        return math.lgamma(among + 1) - math.lgamma(chosen + 1) - math.lgamma(among - chosen + 1)

    def probability(of_baseline: int) -> float:
        logs = log_choose(n, of_baseline) + log_choose(m, together - of_baseline) - log_choose(n + m, together)
        return math.exp(logs)

    # As likely as what was seen, but for the last bits of a sum of logarithms.
    limit = probability(a) * (1 + 1e-7)
    tables = (probability(k) for k in range(max(0, together - m), min(together, n) + 1))
    p_value = min(1.0, math.fsum(one for one in tables if one <= limit))
    return Comparison(b / m, b / m - a / n, p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values as they are when several questions are asked at once (Holm 1979), in the order given."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for done, place in enumerate(order):
        highest = max(highest, min(1.0, p_values[place] * (len(p_values) - done)))
        adjusted[place] = highest
    return adjusted


_Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


def _unequal(weights: Sequence[float] | None) -> _Floats | None:
    """The weights, at most 1 each, or None where they are all the same: then nothing is weighted, to the last bit."""
    if weights is None or not len(weights) or min(weights) == max(weights):
        return None
    return np.asarray(weights, dtype=float) / max(weights)


def _mean(values: _Floats, weights: _Floats | None) -> float:
    return float(values.mean() if weights is None else (values * weights).sum() / weights.sum())


def _bootstrap_means(values: _Floats, weights: _Floats | None, seed: int) -> _Floats:
    """The (weighted) means of the resamples.

    Where values repeat, how often each is drawn is drawn at once, which is the same (a resample's counts are
    multinomial; Efron 1979): a hundred times faster for scores that are 0 or 1.
    """
    generator = np.random.default_rng(seed)
    ones = np.ones(len(values)) if weights is None else weights
    different, counts = np.unique(values + 1j * ones, return_counts=True)
    if len(different) * _CHEAPER_BY_COUNTS <= len(values):
        drawn = generator.multinomial(len(values), counts / len(values), size=RESAMPLES)
        means: _Floats = (drawn * (different.real * different.imag)).sum(axis=1) / (drawn * different.imag).sum(axis=1)
        return means
    blocks = []
    for rows in _blocks(len(values)):
        chosen = generator.integers(0, len(values), size=(rows, len(values)))
        if weights is None:
            blocks.append(values[chosen].mean(axis=1))
        else:
            blocks.append((values * weights)[chosen].sum(axis=1) / weights[chosen].sum(axis=1))
    return np.concatenate(blocks)


def _blocks(width: int) -> list[int]:
    """The resamples in blocks of rows, so that 50,000 cases take tens of megabytes and not gigabytes."""
    rows = max(1, _CELLS // width)
    return [min(rows, RESAMPLES - done) for done in range(0, RESAMPLES, rows)]
