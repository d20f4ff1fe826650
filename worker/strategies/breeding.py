"""The parts of a genetic search that decide nothing about money: who is fit, who is drawn, who is crossed with whom."""

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING

from worker.strategies import edits, selection
from worker.strategies.outcome import shrunk_value

if TYPE_CHECKING:
    from worker.strategies.search import Search

_LEAST = 1e-9  # a share that everybody has: no wheel is without a part for each


def fitness(search: "Search", members: Sequence[str]) -> dict[str, float]:
    """The values that parents are drawn by; with sharing_sigma, divided among members that are alike.

    f / sum of sh(d), sh = 1 - d / sigma below sigma (Goldberg and Richardson 1987), of values moved above 0.
    """
    values = {one: shrunk_value(search, one) for one in members}
    known = {one: value for one, value in values.items() if value is not None}
    sigma = search.knobs["sharing_sigma"]
    if not sigma or not known:
        return known
    low = min(0.0, *known.values())
    shared = {}
    for one, value in known.items():
        niche = sum(max(0.0, 1 - (1 - search.similarity(one, other)) / sigma) for other in known)
        shared[one] = (value - low) / max(1.0, niche)
    return shared


def diversity(search: "Search", members: Sequence[str]) -> float:
    """The mean distance of two members' texts, in [0, 1]."""
    pairs = [1 - search.similarity(one, other) for place, one in enumerate(members) for other in members[place + 1 :]]
    return sum(pairs) / len(pairs) if pairs else 0.0


def draw_parent(search: "Search", fit: Mapping[str, float], chance: Random) -> str:
    """One parent, by the rule of `selection`."""
    names = list(fit)
    rule = search.knobs["selection"]
    if rule == "tournament":
        entered = chance.sample(names, min(search.knobs["tournament_size"], len(names)))
        return max(entered, key=lambda one: fit[one])
    if rule == "truncation":
        best = sorted(names, key=lambda one: -fit[one])
        return chance.choice(best[: max(1, math.ceil(len(best) / 2))])
    weights = wheel(search, fit)
    return chance.choices(names, [weights[one] for one in names])[0]


def wheel(search: "Search", fit: Mapping[str, float]) -> dict[str, float]:
    """The share of each member in a draw.

    rank: (2 - s) + 2 (s - 1) r / (n - 1), r = 0 for the worst (Baker 1985). roulette: the fitness itself, or above the
    least, or 1 + (f - mean) / (2 sd) (sigma scaling, Forrest 1985), or exp(f / T). pareto_instance: cases won.
    """
    knobs = search.knobs
    if knobs["selection"] == "rank":
        pressure, worst_first = knobs["rank_pressure"], sorted(fit, key=lambda one: fit[one])
        step = 2 * (pressure - 1) / max(1, len(fit) - 1)
        return {one: max(_LEAST, 2 - pressure + step * place) for place, one in enumerate(worst_first)}
    if knobs["selection"] == "pareto_instance":
        cases = [case for case in search.dev if all(search.is_tried(one, case) for one in fit)]
        return {one: max(_LEAST, won) for one, won in selection.wins(search, list(fit), cases).items()}
    scaling = _SCALINGS[knobs["roulette_scaling"]]
    return {one: max(_LEAST, share) for one, share in scaling(fit, knobs["softmax_temp"]).items()}


def _plain(fit: Mapping[str, float], temp: float) -> dict[str, float]:
    return dict(fit)


def _above_least(fit: Mapping[str, float], temp: float) -> dict[str, float]:
    low = min(fit.values())
    return {one: value - low for one, value in fit.items()}


def _sigma(fit: Mapping[str, float], temp: float) -> dict[str, float]:
    mean = sum(fit.values()) / len(fit)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in fit.values()) / len(fit))
    return {one: 1 + (value - mean) / (2 * deviation) if deviation else 1.0 for one, value in fit.items()}


def _softmax(fit: Mapping[str, float], temp: float) -> dict[str, float]:
    high = max(fit.values())
    return {one: math.exp((value - high) / temp) for one, value in fit.items()}


_SCALINGS: Mapping[str, Callable[[Mapping[str, float], float], dict[str, float]]] = {
    "none": _plain,
    "shift_min": _above_least,
    "sigma": _sigma,
    "softmax": _softmax,
}


def cross(search: "Search", operator: str, parent: str, mate: str, slot: int) -> str | None:
    """A child by a crossover that asks no model: its hash, or None where the checks refuse it."""
    chance = search.draw("cross", parent, mate, slot)
    mine, theirs = search.components(parent), search.components(mate)
    names = sorted(mine)
    if operator == "component" and len(names) > 1:
        taken = set(chance.sample(names, chance.randint(1, len(names) - 1)))
        mixed = {name: theirs[name] if name in taken else mine[name] for name in names}
        return search.admit(mixed, parents=[parent, mate], operator="component", lineage={"slot": slot})
    operator = "uniform" if operator == "component" else operator
    component = chance.choice(names)
    text = edits.mix(
        operator,
        mine[component],
        theirs[component],
        chance,
        level=search.knobs["edit_level"],
        share=search.knobs["uniform_prob"],
    )
    return search.admit_child(parent, component, text, operator=operator, lineage={"slot": slot}, mates=[mate])
