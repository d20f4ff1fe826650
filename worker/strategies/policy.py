"""The evaluation policy: which of a pool of candidates are good, at what price.

Halving (Karnin, Koren and Somekh 2013; successive halving): everybody gets a few cases, the better
1/eta get eta times as many, until few enough are left. All candidates of a rung see the same cases, so
the comparison is paired. Nobody is scored twice on a case.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.strategies.search import Search


def screen(search: "Search", pool: Sequence[str], *, keep: int) -> None:
    """Begin to score a pool, of which `keep` are wanted; the survivors appear in `search.own["survivors"]`.

    When the budget ends first, those are the survivors that the rungs so far have left.
    """
    cases = search.case_list()
    full = search.evaluation["mode"] == "full"
    first = len(cases) if full else min(search.evaluation["min_cases"], len(cases))
    search.state["policy"] = {"alive": list(pool), "keep": keep, "cases": cases, "rung": first, "scored": 0}
    _score_rung(search)


def advance(search: "Search") -> None:
    """After a rung: drop the worse part, and either score the rest on more cases or hand over."""
    state = search.state["policy"]
    state["scored"] = state["rung"]
    ranked = rank(search, state["alive"], state["cases"][: state["rung"]])
    keep, size = state["keep"], state["rung"]
    if len(ranked) > keep and size < len(state["cases"]):
        alive = ranked[: max(keep, math.ceil(len(ranked) / search.evaluation["eta"]))]
        _drop(search, ranked[len(alive) :], f"halving at {size} cases")
        state["alive"] = alive
        if len(alive) > keep:
            state["rung"] = min(size * search.evaluation["eta"], len(state["cases"]))
            _score_rung(search)
            return
        ranked = alive
    _hand_over(search, ranked)


def rank(search: "Search", candidates: Sequence[str], cases: Sequence[int]) -> list[str]:
    """Best first, by value on these cases; ties keep the older candidate first. Invalid ones are dropped."""
    values = {candidate: search.value(candidate, cases) for candidate in candidates}
    _drop(search, [candidate for candidate, value in values.items() if value is None], "too many failed calls")
    valid = [candidate for candidate in candidates if values[candidate] is not None]
    return sorted(valid, key=lambda candidate: -(values[candidate] or 0.0))


def _score_rung(search: "Search") -> None:
    state = search.state["policy"]
    cases = state["cases"][: state["rung"]]
    if not state["scored"]:
        # A pool that is too large for what is left is cut, so that the last of the budget still buys something.
        pool, state["alive"] = state["alive"], search.evaluate_affordable(state["alive"], cases)
        _drop(search, pool[len(state["alive"]) :], "the budget does not cover it")
        if not state["alive"]:
            _hand_over(search, [])
    elif not search.evaluate(state["alive"], cases):
        _hand_over(search, rank(search, state["alive"], state["cases"][: state["scored"]]))


def _hand_over(search: "Search", ranked: Sequence[str]) -> None:
    search.own["survivors"] = list(ranked)
    search.own["survivor_cases"] = search.state["policy"]["cases"][: search.state["policy"]["scored"]]
    search.state["policy"] = None


def _drop(search: "Search", candidates: Sequence[str], reason: str) -> None:
    for candidate in candidates:
        if candidate not in (search.seed, search.incumbent):
            search.decide(candidate, "pruned", reason)
