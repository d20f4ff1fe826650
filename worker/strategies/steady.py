"""A genetic search without generations: a child takes the place of the worst member as soon as it is scored.

Up to `async_window` children are on their way at once, each at its own stage: shown → breed → change → score → seat →
lead. They are looked at in the order of their birth and bred from the population as it then stands, so the k-th
child knows of all that were seated before it was born. What they wait for is asked for together, and a step takes all
of it: nothing depends on which answer came first, and a slow call holds up one step and not a generation.
"""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from worker.strategies import breeding, children, credit, policy
from worker.strategies.children import Asked, Wanted
from worker.strategies.outcome import shrunk_value

if TYPE_CHECKING:
    from worker.strategies.search import Search

Child = dict[str, Any]  # its couple, with `stage` and, when there is one, its `hash`


@dataclass
class _Told:
    """What the answers of a step have brought: children by their slots, and what everybody is worth by now."""

    search: "Search"
    landed: dict[int, str]
    known: dict[str, float | None] = field(default_factory=dict)

    def value(self, one: str) -> float | None:
        if one not in self.known:
            self.known[one] = shrunk_value(self.search, one)
        return self.known[one]

    def order(self, one: str) -> float:
        """To sort by, the best first; who has no value is the last."""
        value = self.value(one)
        return math.inf if value is None else -value


def begin(search: "Search") -> None:
    search.own.update({"flight": [], "born": 0, "ended": 0, "former": search.incumbent})
    search.own["known"] = len(search.candidates)


def advance(search: "Search") -> None:
    """Seat who was scored, end generations, then ask for what the others wait for and have new children."""
    fresh = list(search.candidates)[search.own["known"] :]
    told = _Told(search, {children.slot_of(search, one): one for one in fresh})
    _let_on(told, "seat", "lead")
    while search.own["ended"] >= breeding.offspring(search):
        search.own["ended"] -= breeding.offspring(search)
        former, search.own["former"] = search.own["former"], search.incumbent
        if not breeding.close_generation(search, gained=search.incumbent != former):
            search.work.clear()  # what was asked for a moment ago is not wanted any more
            return
    _let_on(told, "shown", "change", "score")
    _have_children(told)
    search.own["known"] = len(search.candidates)
    if not search.own["flight"] and search.is_exhausted:
        breeding.close_generation(search, gained=search.incumbent != search.own["former"])


def _let_on(told: _Told, *stages: str) -> None:
    """Those at these stages, each until it waits for an answer or has ended."""
    search = told.search
    for child in [one for one in search.own["flight"] if one["stage"] in stages]:
        asked = len(search.work)
        while child["stage"] != "over" and len(search.work) == asked:
            _STAGES[child["stage"]](told, child)
        if child["stage"] == "over":
            search.own["flight"].remove(child)
            search.own["ended"] += 1


def _have_children(told: _Told) -> None:
    """Fill the window; those whose parents' failures are to be shown wait for these."""
    search, own, knobs = told.search, told.search.own, told.search.knobs
    fit = breeding.fitness(search, own["population"]) or {search.incumbent: 0.0}
    window = knobs.get("async_window") or max(1, knobs["population_size"] // 2)
    born: list[Child] = []
    for _ in range(0 if search.is_exhausted else window - len(own["flight"])):
        slot, own["born"] = 2 * own["born"], own["born"] + 1  # the odd one is for a change after a crossover
        if own["immigrants"]:
            own["immigrants"] -= 1
            couple = {"parent": search.incumbent, "mates": [], "change": "fresh_start", "slot": slot}
        else:
            couple = breeding.couple(search, fit, slot)
        born.append({**couple, "stage": "breed"})
    shown = [one["parent"] for one in born if not one["mates"] and one["change"] == "reflect"]
    asked = len(search.work)
    if shown and not policy.gather_evidence(search, list(dict.fromkeys(shown))):
        return
    if len(search.work) > asked:
        for child in born:
            child["stage"] = "shown" if not child["mates"] and child["change"] == "reflect" else "breed"
    own["flight"] += born
    _let_on(told, "breed")


def _breed(told: _Told, child: Child) -> None:
    search = told.search
    child["stage"] = "change"
    wanted = breeding.first_change(search, child)
    if wanted is not None:
        _ask(search, child, wanted)
    elif made := breeding.crossed(search, child):
        child["hash"] = made
    else:
        child["stage"] = "over"


def _ask(search: "Search", child: Child, wanted: Asked) -> None:
    """An edit is there at once. Without an edit and without a proposal the child is what it was, or ends."""
    asked = len(search.work)
    made = search.propose([wanted])
    if made:
        child["hash"] = made[0]
    elif len(search.work) == asked and "hash" not in child:
        child["stage"] = "over"


def _change(told: _Told, child: Child) -> None:
    """What two parents have made may be changed once more; what it was before is then no candidate."""
    made = child.get("hash") or told.landed.get(child["slot"])
    child["stage"] = "score" if made else "over"
    if not made:
        return
    child["hash"] = made
    if child["mates"] and child["change"]:
        child["crossed"] = made
        operator = breeding.concrete(told.search, child["change"], child["slot"])
        _ask(told.search, child, Wanted(operator, made, child["slot"] + 1))


def _score(told: _Told, child: Child) -> None:
    search = told.search
    child["hash"] = one = str(told.landed.get(child["slot"] + 1, child["hash"]))
    if child.get("crossed", one) != one:
        search.decide(child["crossed"], "pruned", breeding.CHANGED_FURTHER)
    is_asked = not breeding.is_too_near(search, one) and search.evaluate([one], policy.first_rung(search))
    child["stage"] = "seat" if is_asked else "over"


def _seat(told: _Told, child: Child) -> None:
    """The child has the place of the worst member if it is better; the elite keep theirs."""
    search, one = told.search, child["hash"]
    members, size = search.own["population"], search.knobs["population_size"]
    credit.settle(search, [one])
    seated = [member for member in members if told.value(member) is not None]
    worst = max(sorted(seated, key=told.order)[search.knobs["elitism"] :], key=told.order, default=None)
    if told.value(one) is not None and len(seated) < size:
        seated.append(one)
    elif worst is not None and told.order(one) < told.order(worst):
        seated[seated.index(worst)] = one
    child["stage"] = "lead" if one in seated else "over"
    for member in [*members, one]:
        if member not in seated and member not in (search.seed, search.incumbent):
            search.decide(member, "pruned", f"no place in the population of round {search.round}")
    if one in seated:
        search.decide(one, "kept", f"in the population of round {search.round}")
    search.own["population"] = seated or [search.incumbent]


def _lead(told: _Told, child: Child) -> None:
    """The leader, whoever that is by now, is confirmed on the whole dev split before it is the best."""
    search = told.search
    leader = min(search.own["population"], key=told.order)
    awaited = [other.get("leader") for other in search.own["flight"] if other is not child]
    if leader != search.incumbent and search.is_complete(leader):
        search.crown(leader)
    elif leader != search.incumbent and leader not in awaited and search.evaluate([leader], search.dev):
        child["leader"] = leader
        return
    child["stage"] = "over"


_STAGES = {"shown": _breed, "breed": _breed, "change": _change, "score": _score, "seat": _seat, "lead": _lead}
