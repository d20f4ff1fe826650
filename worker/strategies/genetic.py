"""A genetic search: parents are drawn by fitness, crossed and changed, and their children compete for places.

The first round makes and scores the population; each later one is a generation: plan → evidence → breed → mutate →
screen → seat → close. The leader is scored on the whole dev split before it becomes the incumbent. EvoPrompt (Guo et
al. 2023) and CAPO (Zehle et al. 2025) are settings of it.
"""

import math
from typing import TYPE_CHECKING, Any

from shared.knobs import EDITS
from worker.strategies import breeding, children, credit, policy
from worker.strategies.children import Asked, Wanted

if TYPE_CHECKING:
    from worker.strategies.search import Search

_FREE_CROSSOVERS = ("one_point", "two_point", "uniform", "component")


def begin(search: "Search") -> None:
    search.own.update(
        {
            "stage": "found",
            "population": [search.seed],
            "rate": search.knobs["mutation_rate"],
            "stagnant": 0,
            "immigrants": 0,
        }
    )


def advance(search: "Search") -> None:
    stages = {
        "found": _found,
        "settle": _settle,
        "plan": _plan,
        "breed": _breed,
        "mutate": _mutate,
        "screen": _screen,
        "seat": _seat,
        "close": _close,
    }
    stages[search.own["stage"]](search)


# ---- the first population ------------------------------------------------------------------------


def _found(search: "Search") -> None:
    search.own["stage"] = "settle"
    wanted = search.knobs["population_size"] - 1
    component = sorted(search.components(search.seed))[0]
    for slot, text in enumerate(search.knobs["initial_prompts"][:wanted]):
        search.admit_child(search.seed, component, text, operator="provided", lineage={"slot": slot})
    asked = [(_first(search, slot), search.seed, slot) for slot in range(len(search.children()), wanted)]
    if search.propose(asked) is None:
        search.conclude("budget")


def _first(search: "Search", slot: int) -> str:
    init = search.knobs["init"]
    kind = ("paraphrase", "fresh_start", "edit")[slot % 3] if init == "mixed" else init
    if kind == "edit":
        return search.draw("edit", slot).choice(EDITS)
    return "paraphrase" if kind == "provided" else str(kind)


def _settle(search: "Search") -> None:
    search.own["stage"] = "seat"
    policy.screen(search, [search.seed, *search.children()], keep=search.knobs["population_size"])


# ---- a generation --------------------------------------------------------------------------------


def _plan(search: "Search") -> None:
    """Who has children with whom, and by what; those whose failures are to be shown are run on train cases."""
    search.own["stage"] = "breed"
    fit = breeding.fitness(search, search.own["population"]) or {search.incumbent: 0.0}
    search.own["plan"] = [_couple(search, fit, slot) for slot in range(search.own["couples"])]
    shown = [item["parent"] for item in search.own["plan"] if not item["mates"] and item["change"] == "reflect"]
    if shown and not policy.gather_evidence(search, list(dict.fromkeys(shown))):
        search.conclude("budget")


def _couple(search: "Search", fit: dict[str, float], slot: int) -> dict[str, Any]:
    """A child to be: its parent, its mates if it has any, and the operator that changes it, if one does."""
    knobs, chance = search.knobs, search.draw("couple", slot)
    parent = breeding.draw_parent(search, fit, chance)
    others = {one: value for one, value in fit.items() if one != parent}
    crossed = bool(others) and chance.random() < knobs["crossover_rate"]
    mates: list[str] = []
    if crossed:
        mates = [breeding.draw_parent(search, others, chance)]
        if knobs["crossover_operator"] == "de" and len(others) >= 3:
            best = max(fit, key=lambda one: fit[one])
            mates = [*chance.sample(list(others), 2), best]
    # Of one parent and unchanged it would be a clone.
    changed = not crossed or chance.random() < search.own["rate"]
    change = credit.choose(search, knobs["mutation_mix"], "change", slot) if changed else None
    return {"parent": parent, "mates": mates, "change": change, "slot": slot}


def _breed(search: "Search") -> None:
    search.own["stage"] = "mutate"
    operator = search.knobs["crossover_operator"]
    asked: list[Asked] = []
    for item in search.own["plan"]:
        if not item["mates"]:
            asked.append((_concrete(search, item["change"], item["slot"]), item["parent"], item["slot"]))
        elif operator in _FREE_CROSSOVERS:
            breeding.cross(search, operator, item["parent"], item["mates"][0], item["slot"])
        else:
            name = "de_llm" if operator == "de" and len(item["mates"]) == 3 else "crossover_llm"
            asked.append(Wanted(name, item["parent"], item["slot"], mates=tuple(item["mates"])))
    first = len(search.own["plan"])
    asked += [("fresh_start", search.incumbent, first + i) for i in range(search.own["immigrants"])]
    if search.propose(asked) is None and not search.children():
        search.conclude("budget")


def _concrete(search: "Search", operator: str, slot: int) -> str:
    return search.draw("edit", slot).choice(EDITS) if operator == "edit" else operator


def _mutate(search: "Search") -> None:
    """Children of two parents that are to be changed as well; what they were before is no candidate."""
    search.own["stage"] = "screen"
    changes = {item["slot"]: item["change"] for item in search.own["plan"] if item["mates"] and item["change"]}
    offset = len(search.own["plan"]) + search.own["immigrants"]
    asked = [
        (_concrete(search, changes[slot], slot), child, offset + slot)
        for child in search.children()
        if (slot := children.slot_of(search, child)) in changes
    ]
    search.propose(asked)  # what cannot be paid for stays as the crossover made it


def _screen(search: "Search") -> None:
    search.own["stage"] = "seat"
    made = _contenders(search)
    population, knobs = search.own["population"], search.knobs
    if not made:
        search.own.update({"survivors": list(population), "survivor_cases": []})
        return
    if knobs["replacement"] == "plus":
        policy.screen(search, [*population, *made], keep=knobs["population_size"])
    elif knobs["replacement"] == "generational":
        elite = min(knobs["elitism"], len(population))  # after a restart there are fewer
        policy.screen(search, made, keep=max(1, knobs["population_size"] - elite))
    else:
        policy.screen(search, made, keep=len(made))


def _contenders(search: "Search") -> list[str]:
    """The children of the round without those that were changed further or stand too near to a member."""
    made = search.children()
    replaced = {parent for one in made for parent in search.candidates[one]["parents"] if parent in made}
    contenders = []
    for one in made:
        near = any(
            1 - search.similarity(one, member) < search.knobs["min_distance"] for member in search.own["population"]
        )
        if one in replaced:
            search.decide(one, "pruned", "changed further before it was scored")
        elif near:
            search.decide(one, "pruned", f"nearer than {search.knobs['min_distance']:g} to a member")
        else:
            contenders.append(one)
    return contenders


def _seat(search: "Search") -> None:
    """The new population; its leader is confirmed on the whole dev split."""
    search.own["stage"] = "close"
    credit.settle(search, search.children())
    population, survivors = search.own["population"], search.own["survivors"]
    fit = breeding.fitness(search, list(dict.fromkeys([*population, *survivors])))
    elite = sorted((one for one in population if one in fit), key=lambda one: -fit[one])[: search.knobs["elitism"]]
    seated = _replaced(search, elite, fit) or [search.incumbent]
    for one in dict.fromkeys([*population, *survivors]):
        if one in (search.seed, search.incumbent):
            continue
        if one in seated:
            search.decide(one, "kept", f"in the population of round {search.round}")
        else:
            search.decide(one, "pruned", f"no place in the population of round {search.round}")
    search.own["population"] = seated
    leader = max(seated, key=lambda one: fit.get(one, 0.0))
    search.own["leader"] = leader
    if not search.evaluate([leader], search.dev):
        search.conclude("budget")


def _replaced(search: "Search", elite: list[str], fit: dict[str, float]) -> list[str]:
    size, rule = search.knobs["population_size"], search.knobs["replacement"]
    population, survivors = search.own["population"], [one for one in search.own["survivors"] if one in fit]
    if search.round == 1 or rule == "plus":
        return list(dict.fromkeys([*elite, *survivors]))[:size]
    if rule == "generational":
        # Too few children: the best of the former generation keep their places.
        rest = sorted((one for one in population if one in fit), key=lambda one: -fit[one])
        return list(dict.fromkeys([*elite, *survivors, *rest]))[:size]
    seated = [one for one in population if one in fit]
    for child in survivors:
        open_places = [one for one in seated if one not in elite]
        worst = min(open_places, key=lambda one: fit[one], default=None)
        if len(seated) < size:
            seated.append(child)
        elif worst is not None and child not in seated and fit[child] > fit[worst]:
            seated[seated.index(worst)] = child
    return seated


def _close(search: "Search") -> None:
    knobs, before = search.knobs, search.incumbent
    if search.own["leader"] != search.incumbent:
        search.crown(search.own["leader"])
    spread = breeding.diversity(search, search.own["population"])
    reason = search.close_round(diversity=spread, mutation_rate=search.own["rate"])
    if reason or search.is_exhausted or search.round > knobs["generations"]:
        search.conclude(reason or "max_rounds")
        return
    gained = search.incumbent != before
    search.own["stagnant"] = 0 if gained else search.own["stagnant"] + 1
    if knobs["adaptive_mutation"]:
        rate = search.own["rate"] * (0.8 if gained else 1.5)
        search.own["rate"] = min(knobs["mutation_max"], max(knobs["mutation_min"], rate))
    if knobs["restart_stall"] and search.own["stagnant"] >= knobs["restart_stall"]:
        _restart(search)
    else:
        alike = knobs["immigrants"] and spread < knobs["diversity_threshold"]
        fresh = max(1, math.floor(knobs["immigrants"] * knobs["population_size"])) if alike else 0
        search.own.update({"immigrants": fresh, "couples": max(0, _offspring(search) - fresh)})
    search.next_round()
    search.own["stage"] = "plan"


def _offspring(search: "Search") -> int:
    knobs = search.knobs
    if knobs["replacement"] == "steady_state":
        return max(1, int(knobs["population_size"] // 2))
    return int(knobs["offspring"] or max(1, knobs["population_size"] - knobs["elitism"]))


def _restart(search: "Search") -> None:
    """The best stay; all others make room for fresh starts."""
    keep, population = search.knobs["restart_keep"], search.own["population"]
    fit = breeding.fitness(search, population)
    kept = sorted(population, key=lambda one: -fit.get(one, 0.0))[:keep]
    for one in population:
        if one not in kept and one not in (search.seed, search.incumbent):
            search.decide(one, "pruned", f"the population was restarted after round {search.round}")
    fresh = int(search.knobs["population_size"] - keep)
    search.own.update({"population": kept, "stagnant": 0, "immigrants": fresh, "couples": 0})
