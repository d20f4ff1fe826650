"""Temperatures of an annealing run, and when a move is made at one. Pure functions; scores are maximised."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

HOTTEST, COOLEST_START = 1.0, 0.01  # what a measured initial temperature is clipped to
_LAST_TARGET = 0.02  # share of accepted moves that the adaptive schedule falls to


def temperature(knobs: Mapping[str, Any], initial: float, k: int) -> float:
    """Of epoch k = 0 … epochs - 1; never below min_temp. The adaptive schedule starts at `initial` and has no formula.

    geometric T0 a^k (Kirkpatrick, Gelatt and Vecchi 1983); linear T0 - k (T0 - Tmin) / (K - 1), or T0 - k step_size;
    cosine Tmin + (T0 - Tmin) (1 + cos(pi k / (K - 1))) / 2 (Loshchilov and Hutter 2017); logarithmic T0 / ln(k + e)
    (Geman and Geman 1984).
    """
    least, last = knobs["min_temp"], max(1, knobs["epochs"] - 1)
    schedule = knobs["schedule"]
    if schedule == "geometric":
        found = initial * knobs["cooling_rate"] ** k
    elif schedule == "linear":
        fall = knobs["step_size"] if knobs["step_size"] is not None else (initial - least) / last
        found = initial - k * fall
    elif schedule == "cosine":
        found = least + (initial - least) * (1 + math.cos(math.pi * min(k, last) / last)) / 2
    elif schedule == "logarithmic":
        found = initial / math.log(k + math.e)
    else:
        found = initial
    return float(max(least, found))


def initial_temperature(differences: Sequence[float], acceptance: float) -> float:
    """T0 = -mean(negative differences) / ln(acceptance), so that this share of worsening moves is accepted at first.

    Johnson, Aragon, McGeoch and Schevon (1989). Clipped to [0.01, 1]; without a worsening move, 0.01.
    """
    worse = [one for one in differences if one < 0]
    if not worse:
        return COOLEST_START
    mean = math.fsum(worse) / len(worse)
    return min(HOTTEST, max(COOLEST_START, mean / math.log(acceptance)))


def adapted(knobs: Mapping[str, Any], current: float, accepted: Sequence[int], progress: float) -> float:
    """The temperature after a move of the adaptive schedule: a fifth up or down, toward the wanted share.

    The wanted share falls from target_acceptance to 0.02 as the run goes on (after Lam and Delosme 1988).
    """
    wanted = knobs["target_acceptance"] + (_LAST_TARGET - knobs["target_acceptance"]) * progress
    share = sum(accepted) / len(accepted) if accepted else wanted
    return float(max(knobs["min_temp"], min(10.0, current * (1.2 if share < wanted else 0.8))))


def cases_for(temp: float, deviation: float, least: int, most: int) -> int:
    """Cases so that the standard error of a difference is at most half the temperature: ceil((s / (T / 2))^2).

    Noisy annealing needs more evaluations as it cools (Bouttier and Gavra 2019). `deviation` is of one case.
    """
    wanted = math.ceil((deviation / (0.5 * temp)) ** 2) if temp > 0 else most
    return min(most, max(least, wanted))


def accepts(
    knobs: Mapping[str, Any],
    *,
    delta: float,
    variance: float,
    temp: float,
    uniform: float,
    progress: float,
    value: float,
    before: float,
) -> bool:
    """Whether a move is made that gains `delta`, whose mean paired difference has this variance.

    metropolis: u < exp(delta / T) (Metropolis et al. 1953). noisy_metropolis: ln u < delta / T - p s^2 / (2 T^2), the
    penalty method (Ceperley and Dewing 1999): with p = 1 the walk under noise has the distribution of one without.
    threshold: delta > -threshold, which falls to 0 (Dueck and Scheuer 1990). late_acceptance: not worse than now or
    than `before`, the value some moves ago (Burke and Bykov 2017). greedy: delta > 0.
    """
    rule = knobs["acceptance"]
    if rule == "greedy":
        return delta > 0
    if rule == "threshold":
        return delta > -knobs["threshold"] * (1 - progress)
    if rule == "late_acceptance":
        return delta >= 0 or value >= before
    if temp <= 0:
        return delta > 0
    penalty = knobs["noise_penalty"] * variance / (2 * temp * temp) if rule == "noisy_metropolis" else 0.0
    return math.log(uniform or 1e-300) < delta / temp - penalty


def draw_weights(values: Sequence[float], temp: float) -> list[float]:
    """exp(value / T), scaled so that the largest is 1 (multiple-try Metropolis; Liu, Liang and Wong 2000)."""
    best = max(values)
    if temp <= 0:
        return [float(value == best) for value in values]
    return [math.exp((value - best) / temp) for value in values]
