"""Which point of a space to try next. Nothing is remembered: each question is answered from the rows alone.

optuna keeps the state of its samplers to itself, and a store of its own would be a second truth. So the study is
rebuilt from our rows whenever it is asked (some ms for hundreds of rows), and its sampler is seeded by the run's
seed and the number of rows. What was asked but not yet told counts as running, which optuna takes for a loser
("constant liar", Ginsbourger et al. 2010), so a batch does not ask for one point several times.
"""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from shared.splits import draw

optuna.logging.set_verbosity(optuna.logging.WARNING)

Point = dict[str, Any]
Space = Mapping[str, Mapping[str, Any]]  # as shared/spaces.py completes it
Row = tuple[Mapping[str, Any], float | None]  # a point with its value; None when it had none
_STARTUP = 5  # rows before a model of them is worth more than chance
_REMEMBERED = 500  # the newest rows that the Gaussian process models: its time grows by their third power
_GUESSES = 256  # points among which the Gaussian process looks for the most promising


def ask(method: str, space: Space, rows: Sequence[Row], *, count: int, seed: int) -> list[Point]:
    """The next points, none of which is asked for twice at once; random and qmc give fewer where there are no others.

    `rows` stand in the order of their trials, which decides the answer; `method` is tpe, gp, random or qmc.
    """
    key = (seed, len(rows))
    space = dict(sorted(space.items()))
    if method == "tpe":
        return _tpe(space, rows, count, key)
    if method == "gp":
        return _gaussian_process(space, rows, count, key)
    chance = draw("trials", method, *key)
    points: list[Point] = []
    for place in range(count * 8):
        units = [chance.random() for _ in space] if method == "random" else _halton(len(rows) + place, len(space), seed)
        point = _point(space, units)
        if point not in points:
            points.append(point)
        if len(points) == count:
            break
    return points


def _tpe(space: Space, rows: Sequence[Row], count: int, key: tuple[int, int]) -> list[Point]:
    """Tree-structured Parzen estimator (Bergstra et al. 2011), over all settings together."""
    distributions = {name: _distribution(where) for name, where in space.items()}
    sampler = optuna.samplers.TPESampler(seed=draw("tpe", *key).getrandbits(31), n_startup_trials=_STARTUP)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(
        [
            optuna.trial.create_trial(
                params=dict(point),
                distributions=distributions,
                **({"value": value} if value is not None else {"state": optuna.trial.TrialState.FAIL}),
            )
            for point, value in rows
        ]
    )
    asked = [study.ask(distributions).params for _ in range(count)]
    return [{name: _tidy(space[name], point[name]) for name in space} for point in asked]


def _distribution(where: Mapping[str, Any]) -> BaseDistribution:
    if where["type"] == "categorical":
        return CategoricalDistribution(where["choices"])
    if where["type"] == "int":
        return IntDistribution(where["low"], where["high"], log=where["log"], step=where["step"])
    return FloatDistribution(where["low"], where["high"], log=where["log"], step=where["step"])


def _gaussian_process(space: Space, rows: Sequence[Row], count: int, key: tuple[int, int]) -> list[Point]:
    """Expected improvement under a Gaussian process (Jones, Schonlau and Welch 1998), Matérn 5/2, by hand:
    optuna's own needs torch, which weighs more than all the rest of the service. A point that was asked
    for is told the mean that the process has for it, so that the next one lies elsewhere."""
    chance = draw("gp", *key)
    known = [(point, value) for point, value in rows if value is not None]
    top = max((value for _, value in known), default=0.0)
    known = known[-_REMEMBERED:]
    points: list[Point] = []
    while len(points) < count:
        guesses = [_point(space, [chance.random() for _ in space]) for _ in range(_GUESSES)]
        fresh = [guess for guess in guesses if guess not in points] or guesses
        if len(known) < _STARTUP:
            points.append(fresh[0])
            continue
        mean, deviation = _posterior(space, known, fresh)
        best = max(top, *(value for _, value in known))
        gains = [_expected_improvement(m, s, best) for m, s in zip(mean, deviation, strict=True)]
        chosen = max(range(len(fresh)), key=lambda i: gains[i])
        points.append(fresh[chosen])
        known = [*known, (fresh[chosen], float(mean[chosen]))]
    return points


def _posterior(space: Space, known: Sequence[tuple[Mapping[str, Any], float]], asked: Sequence[Point]) -> Any:
    """(means, standard deviations) at the points that are asked about."""
    seen = np.array([_coordinates(space, point) for point, _ in known])
    new = np.array([_coordinates(space, point) for point in asked])
    values = np.array([value for _, value in known])
    centre, scale = values.mean(), values.std() or 1.0
    gram = _matern(seen, seen) + 0.05 * np.eye(len(seen))  # scores of few cases are noisy
    across = _matern(new, seen)
    weights = np.linalg.solve(gram, across.T)
    mean = centre + scale * (weights.T @ ((values - centre) / scale))
    variance = 1.0 - np.einsum("ij,ji->i", across, weights)
    return mean, scale * np.sqrt(np.clip(variance, 1e-9, None))


def _matern(one: Any, other: Any) -> Any:
    distance = np.sqrt(((one[:, None, :] - other[None, :, :]) ** 2).sum(axis=2)) / 0.4
    root = math.sqrt(5) * distance
    return (1 + root + root**2 / 3) * np.exp(-root)


def _expected_improvement(mean: float, deviation: float, best: float) -> float:
    z = (mean - best) / deviation
    density, below = math.exp(-z * z / 2) / math.sqrt(2 * math.pi), 0.5 * math.erfc(-z / math.sqrt(2))
    return (mean - best) * below + deviation * density


def _coordinates(space: Space, point: Mapping[str, Any]) -> list[float]:
    """Where a point lies in the unit cube; each choice of a category has an axis of its own."""
    found: list[float] = []
    for name, where in space.items():
        if where["type"] == "categorical":
            found += [0.7 * (point[name] == choice) for choice in where["choices"]]
        else:
            low, high, value = (_scaled(where, number) for number in (where["low"], where["high"], point[name]))
            found.append((value - low) / (high - low))
    return found


def _point(space: Space, units: Sequence[float]) -> Point:
    """The point of the space at a point of the unit cube."""
    return {name: _value(where, unit) for (name, where), unit in zip(space.items(), units, strict=True)}


def _value(where: Mapping[str, Any], unit: float) -> Any:
    if where["type"] == "categorical":
        return where["choices"][min(int(unit * len(where["choices"])), len(where["choices"]) - 1)]
    low, high, step = where["low"], where["high"], where["step"]
    if step is not None and not where["log"]:
        count = round((high - low) / step) + 1
        return _tidy(where, low + step * min(int(unit * count), count - 1))
    value = _scaled(where, low) + unit * (_scaled(where, high) - _scaled(where, low))
    value = math.exp(value) if where["log"] else value
    return _tidy(where, min(max(value, low), high))


def _scaled(where: Mapping[str, Any], number: float) -> float:
    return math.log(number) if where["log"] else number


def _tidy(where: Mapping[str, Any], value: Any) -> Any:
    """A number that people can read, and that has one spelling in JSON."""
    if where["type"] == "categorical":
        return value
    return round(value) if where["type"] == "int" else min(max(round(float(value), 6), where["low"]), where["high"])


def _halton(index: int, dimensions: int, seed: int) -> list[float]:
    """A point of Halton's sequence (1960), moved by a random shift (Cranley and Patterson 1976)."""
    chance = random.Random(draw("halton", seed).getrandbits(32))
    primes = [2, 3, 5, 7, 11, 13][:dimensions]
    units = []
    for prime in primes:
        unit, share, rest = 0.0, 1.0, index + 1
        while rest:
            share /= prime
            unit += share * (rest % prime)
            rest //= prime
        units.append((unit + chance.random()) % 1.0)
    return units
