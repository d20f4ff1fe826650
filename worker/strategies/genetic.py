"""A genetic search: parents are drawn by fitness, crossed and changed, and their children compete for places.

The first round makes and scores the population; each later one is a generation: plan → evidence → breed → mutate →
screen → seat → close. The leader is scored on the whole dev split before it becomes the incumbent. EvoPrompt (Guo et
al. 2023) and CAPO (Zehle et al. 2025) are settings of it. Without generations it goes on in `steady`.
"""

from typing import TYPE_CHECKING

from worker.strategies import breeding, children, credit, policy, steady
from worker.strategies.children import Asked
from worker.strategies.outcome import shrunk_value

if TYPE_CHECKING:
    from worker.strategies.search import Search


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
        "steady": steady.advance,
    }
    stages[search.own["stage"]](search)


# ---- the first population ------------------------------------------------------------------------


def _found(search: "Search") -> None:
    search.own["stage"] = "settle"
    wanted = search.knobs["population_size"] - 1
    component = search.free_components[0]
    for slot, text in enumerate(search.knobs["initial_prompts"][:wanted]):
        search.admit_child(search.seed, component, text, operator="provided", lineage={"slot": slot})
    asked = [(_first(search, slot), search.seed, slot) for slot in range(len(search.children()), wanted)]
    if search.propose(asked) is None:
        search.conclude("budget")


def _first(search: "Search", slot: int) -> str:
    init = search.knobs["init"]
    kind = ("paraphrase", "fresh_start", "edit")[slot % 3] if init == "mixed" else init
    return "paraphrase" if kind == "provided" else breeding.concrete(search, str(kind), slot)


def _settle(search: "Search") -> None:
    search.own["stage"] = "seat"
    policy.screen(search, [search.seed, *search.children()], keep=search.knobs["population_size"])


# ---- a generation --------------------------------------------------------------------------------


def _plan(search: "Search") -> None:
    """Who has children with whom, and by what; those whose failures are to be shown are run on train cases."""
    search.own["stage"] = "breed"
    fit = breeding.fitness(search, search.own["population"]) or {search.incumbent: 0.0}
    search.own["plan"] = [breeding.couple(search, fit, slot) for slot in range(search.own["couples"])]
    shown = [item["parent"] for item in search.own["plan"] if not item["mates"] and item["change"] == "reflect"]
    if shown and not policy.gather_evidence(search, list(dict.fromkeys(shown))):
        search.conclude("budget")


def _breed(search: "Search") -> None:
    search.own["stage"] = "mutate"
    asked: list[Asked] = []
    for item in search.own["plan"]:
        wanted = breeding.first_change(search, item)
        if wanted is None:
            breeding.crossed(search, item)
        else:
            asked.append(wanted)
    first = len(search.own["plan"])
    asked += [("fresh_start", search.incumbent, first + i) for i in range(search.own["immigrants"])]
    if search.propose(asked) is None and not search.children():
        search.conclude("budget")


def _mutate(search: "Search") -> None:
    """Children of two parents that are to be changed as well; what they were before is no candidate."""
    search.own["stage"] = "screen"
    changes = {item["slot"]: item["change"] for item in search.own["plan"] if item["mates"] and item["change"]}
    offset = len(search.own["plan"]) + search.own["immigrants"]
    asked = [
        (breeding.concrete(search, changes[slot], slot), child, offset + slot)
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
    else:
        elite = min(knobs["elitism"], len(population))  # after a restart there are fewer
        policy.screen(search, made, keep=max(1, knobs["population_size"] - elite))


def _contenders(search: "Search") -> list[str]:
    """The children of the round without those that were changed further or stand too near to a member."""
    made = search.children()
    replaced = {parent for one in made for parent in search.candidates[one]["parents"] if parent in made}
    contenders = []
    for one in made:
        if one in replaced:
            search.decide(one, "pruned", breeding.CHANGED_FURTHER)
        elif not breeding.is_too_near(search, one):
            contenders.append(one)
    return contenders


def _seat(search: "Search") -> None:
    """The new population; its leader is confirmed on the whole dev split."""
    search.own["stage"] = "close"
    credit.settle(search, search.children())
    population, survivors = search.own["population"], search.own["survivors"]
    fit = breeding.fitness(search, list(dict.fromkeys([*population, *survivors])))
    # Shared fitness draws parents and fills places; who is the best is a matter of the scores alone.
    worth = {one: shrunk_value(search, one) or 0.0 for one in fit}
    elite = sorted((one for one in population if one in fit), key=lambda one: -worth[one])[: search.knobs["elitism"]]
    seated = _replaced(search, elite, fit) or [search.incumbent]
    for one in dict.fromkeys([*population, *survivors]):
        if one in (search.seed, search.incumbent):
            continue
        if one in seated:
            search.decide(one, "kept", f"in the population of round {search.round}")
        else:
            search.decide(one, "pruned", f"no place in the population of round {search.round}")
    search.own["population"] = seated
    leader = max(seated, key=lambda one: worth.get(one, 0.0))
    search.own["leader"] = leader
    if not search.evaluate([leader], search.dev):
        search.conclude("budget")


def _replaced(search: "Search", elite: list[str], fit: dict[str, float]) -> list[str]:
    size, population = search.knobs["population_size"], search.own["population"]
    survivors = [one for one in search.own["survivors"] if one in fit]
    if search.round > 1 and search.knobs["replacement"] == "generational":
        # Too few children: the best of the former generation keep their places.
        survivors += sorted((one for one in population if one in fit), key=lambda one: -fit[one])
    return list(dict.fromkeys([*elite, *survivors]))[:size]


def _close(search: "Search") -> None:
    before = search.incumbent
    if search.own["leader"] != before:
        search.crown(search.own["leader"])
    if not breeding.close_generation(search, gained=search.incumbent != before):
        return
    if search.knobs["replacement"] == "steady_state":
        search.own["stage"] = "steady"
        steady.begin(search)
    else:
        search.own["stage"] = "plan"
