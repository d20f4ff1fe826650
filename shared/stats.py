"""Statistics that decide whether a prompt is better. Seeded, so the same scores give the same verdict."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
_CELLS = 1_000_000  # of one block of resamples


@dataclass(frozen=True)
class Difference:
    """A paired comparison: candidate minus baseline, with its 95 % interval and sign-flip p-value."""

    n: int
    baseline: float
    candidate: float
    difference: float
    ci_low: float
    ci_high: float
    p_value: float


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def standard_error(values: Sequence[float]) -> float:
    """Of the mean; 0 for fewer than two values."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def mean_interval(values: Sequence[float], *, seed: int, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron 1979)."""
    if not len(values):
        return float("nan"), float("nan")
    means = _bootstrap_means(np.asarray(values, dtype=float), seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compare_paired(baseline: Sequence[float], candidate: Sequence[float], *, seed: int) -> Difference:
    """Compare two score lists case by case (same length, same order, nothing missing).

    Interval: percentile bootstrap over cases, 10,000 resamples (Efron 1979). p-value: two-sided
    sign-flip permutation test of the mean difference (Fisher 1935), 10,000 flips, with the observed
    one counted.
    """
    if len(baseline) != len(candidate) or not len(baseline):
        raise ValueError("paired scores must have the same, positive length")
    a, b = np.asarray(baseline, dtype=float), np.asarray(candidate, dtype=float)
    deltas = b - a
    means = _bootstrap_means(deltas, seed)
    low, high = np.quantile(means, [0.025, 0.975])
    observed = abs(deltas.mean())
    generator = np.random.default_rng(seed)
    as_extreme = 0
    for rows in _blocks(len(deltas)):
        signs = generator.integers(0, 2, size=(rows, len(deltas)), dtype=np.int8) * 2 - 1
        # Floating-point sums of the same numbers in another order may differ in the last bit.
        as_extreme += int((np.abs((signs * deltas).mean(axis=1)) >= observed - 1e-12).sum())
    p_value = (1 + as_extreme) / (RESAMPLES + 1)
    return Difference(
        len(deltas), float(a.mean()), float(b.mean()), float(deltas.mean()), float(low), float(high), p_value
    )


def _bootstrap_means(
    values: "np.ndarray[tuple[int], np.dtype[np.float64]]", seed: int
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    generator = np.random.default_rng(seed)
    means = [
        values[generator.integers(0, len(values), size=(rows, len(values)))].mean(axis=1)
        for rows in _blocks(len(values))
    ]
    return np.concatenate(means)


def _blocks(width: int) -> list[int]:
    """The resamples in blocks of rows, so that 50,000 cases take tens of megabytes and not gigabytes."""
    rows = max(1, _CELLS // width)
    return [min(rows, RESAMPLES - done) for done in range(0, RESAMPLES, rows)]
