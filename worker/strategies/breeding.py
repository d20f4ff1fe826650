"""What a genetic search does with and without generations: who is fit, who has children with whom, and how they end."""

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from shared.knobs import EDITS
from worker.strategies import credit, edits, selection
from worker.strategies.children import Asked, Wanted
from worker.strategies.outcome import shrunk_value

if TYPE_CHECKING:
    from worker.strategies.search import Search

CHANGED_FURTHER = "changed further before it was scored"
_LEAST = 1e-9  # a share that everybody has: no wheel is without a part for each
_FREE_CROSSOVERS = ("one_point", "two_point", "uniform", "component")


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


def couple(search: "Search", fit: dict[str, float], slot: int) -> dict[str, Any]:
    """A child to be: its parent, its mates if it has any, and the operator that changes it, if one does."""
    knobs, chance = search.knobs, search.draw("couple", slot)
    parent = draw_parent(search, fit, chance)
    others = {one: value for one, value in fit.items() if one != parent}
    crossed = bool(others) and chance.random() < knobs["crossover_rate"]
    mates: list[str] = []
    if crossed:
        mates = [draw_parent(search, others, chance)]
        if knobs["crossover_operator"] == "de" and len(others) >= 3:
            best = max(fit, key=lambda one: fit[one])
            mates = [*chance.sample(list(others), 2), best]
    # Of one parent and unchanged it would be a clone.
    changed = not crossed or chance.random() < search.own["rate"]
    change = credit.choose(search, knobs["mutation_mix"], "change", slot) if changed else None
    return {"parent": parent, "mates": mates, "change": change, "slot": slot}


def first_change(search: "Search", item: Mapping[str, Any]) -> Asked | None:
    """What to ask for, so that a couple has its child; None for a crossover that asks no model (`crossed`)."""
    operator = search.knobs["crossover_operator"]
    if not item["mates"]:
        return Wanted(concrete(search, item["change"], item["slot"]), item["parent"], item["slot"])
    if operator in _FREE_CROSSOVERS:
        return None
    name = "de_llm" if operator == "de" and len(item["mates"]) == 3 else "crossover_llm"
    return Wanted(name, item["parent"], item["slot"], mates=tuple(item["mates"]))


def concrete(search: "Search", operator: str, slot: int) -> str:
    return search.draw("edit", slot).choice(EDITS) if operator == "edit" else operator


def crossed(search: "Search", item: Mapping[str, Any]) -> str | None:
    """The child of a couple that no model is asked about."""
    return cross(search, search.knobs["crossover_operator"], item["parent"], item["mates"][0], item["slot"])


def cross(search: "Search", operator: str, parent: str, mate: str, slot: int) -> str | None:
    """A child by a crossover that asks no model: its hash, or None where the checks refuse it."""
    chance = search.draw("cross", parent, mate, slot)
    mine, theirs = search.components(parent), search.components(mate)
    names = search.free_components
    if operator == "component" and len(names) > 1:
        taken = set(chance.sample(names, chance.randint(1, len(names) - 1)))
        mixed = {name: theirs[name] if name in taken else text for name, text in sorted(mine.items())}
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


def is_too_near(search: "Search", child: str) -> bool:
    """Whether it says nearly the same as a member, and is therefore dropped."""
    least = search.knobs["min_distance"]
    if all(1 - search.similarity(child, member) >= least for member in search.own["population"]):
        return False
    search.decide(child, "pruned", f"nearer than {least:g} to a member")
    return True


def close_generation(search: "Search", *, gained: bool) -> bool:
    """The curve, the rate of mutation, and who comes next: fresh starts or couples. False when the search ends."""
    knobs = search.knobs
    spread = diversity(search, search.own["population"])
    reason = search.close_round(diversity=spread, mutation_rate=search.own["rate"])
    if reason or search.is_exhausted or search.round > knobs["generations"]:
        search.conclude(reason or "max_rounds")
        return False
    search.own["stagnant"] = 0 if gained else search.own["stagnant"] + 1
    if knobs["adaptive_mutation"]:
        rate = search.own["rate"] * (0.8 if gained else 1.5)
        search.own["rate"] = min(knobs["mutation_max"], max(knobs["mutation_min"], rate))
    if knobs["restart_stall"] and search.own["stagnant"] >= knobs["restart_stall"]:
        _restart(search)
    else:
        alike = knobs["immigrants"] and spread < knobs["diversity_threshold"]
        fresh = max(1, math.floor(knobs["immigrants"] * knobs["population_size"])) if alike else 0
        search.own.update({"immigrants": fresh, "couples": max(0, offspring(search) - fresh)})
    search.next_round()
    return True


def offspring(search: "Search") -> int:
    """The children of a generation; without generations, so many children count as one."""
    knobs = search.knobs
    if knobs["replacement"] == "steady_state":
        return max(1, int(knobs["population_size"] // 2))
    return int(knobs["offspring"] or max(1, knobs["population_size"] - knobs["elitism"]))


def _restart(search: "Search") -> None:
    """The best stay; all others make room for fresh starts."""
    keep, population = search.knobs["restart_keep"], search.own["population"]
    fit = fitness(search, population)
    kept = sorted(population, key=lambda one: -fit.get(one, 0.0))[:keep]
    for one in population:
        if one not in kept and one not in (search.seed, search.incumbent):
            search.decide(one, "pruned", f"the population was restarted after round {search.round}")
    fresh = int(search.knobs["population_size"] - keep)
    search.own.update({"population": kept, "stagnant": 0, "immigrants": fresh, "couples": 0})
