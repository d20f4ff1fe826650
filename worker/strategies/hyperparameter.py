"""The texts stay, and the settings of the model are searched: by a grid, by chance, or by a model of the scores.

What is scored is a candidate like any other, so the verdict comes from the holdout here too.
"""

import math
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from shared import spaces, stats
from worker.strategies import trials
from worker.strategies.contract import Genes, identity

if TYPE_CHECKING:
    from worker.strategies.search import Search

_METHODS = {"bayesian": "tpe", "gp": "gp", "random": "random", "qmc": "qmc"}


def begin(search: "Search") -> None:
    search.own.update({"stage": "try", "rows": [], "is_short": False})


def advance(search: "Search") -> None:
    stage = search.own["stage"]
    if stage == "try":
        _try(search)
    elif stage == "prune":
        _prune(search)
    else:
        _close(search)


def _try(search: "Search") -> None:
    """The next settings, on the first cases."""
    search.own["stage"] = "prune"
    fresh: list[str] = []
    for point in _points(search):
        genes = Genes(params=point)
        components = dict(search.components(search.seed))
        known = identity(components, genes)
        if known not in search.candidates:
            search.admit(components, parents=[search.seed], operator="settings", lineage={}, genes=genes)
        if known in search.candidates and known not in fresh:
            fresh.append(known)
        search.own["rows"].append([point, known])
    search.own["batch"] = search.evaluate_affordable(fresh, _first_cases(search))
    search.own["is_short"] = len(search.own["batch"]) < len(fresh)


def _points(search: "Search") -> list[dict[str, Any]]:
    knobs, rows = search.knobs, search.own["rows"]
    space = knobs["params_to_optimize"]
    count = min(knobs["batch"], knobs["max_trials"] - len(rows))
    if knobs["search_method"] == "grid":
        return spaces.grid(space)[len(rows) : len(rows) + count]
    scored = [(point, _value_so_far(search, one)) for point, one in rows]
    return trials.ask(_METHODS[knobs["search_method"]], space, scored, count=count, seed=search.problem.spec["seed"])


def _value_so_far(search: "Search", candidate: str) -> float | None:
    if candidate not in search.candidates:
        return None
    cases = [case for case in search.dev if search.is_tried(candidate, case)]
    return search.value(candidate, cases) if cases else None


def _first_cases(search: "Search") -> list[int]:
    cases = search.case_list()
    return cases if search.knobs["pruner"] == "none" else cases[: search.evaluation["min_cases"]]


def _prune(search: "Search") -> None:
    """Drop what the first cases say is not worth the rest of them."""
    search.own["stage"] = "close"
    batch, cases = search.own["batch"], _first_cases(search)
    values = {one: value for one in batch if (value := search.value(one, cases)) is not None}
    left = _survivors(search, values, cases)
    for one in batch:
        if one not in left and one != search.incumbent:
            said = "too many failed calls" if one not in values else f"{search.knobs['pruner']} at {len(cases)} cases"
            search.decide(one, "pruned", said)
    search.own["batch"] = left
    search.own["is_short"] |= len(search.evaluate_affordable(left, search.dev)) < len(left)


def _survivors(search: "Search", values: dict[str, float], cases: Sequence[int]) -> list[str]:
    pruner = search.knobs["pruner"]
    if pruner == "median":
        known = [
            search.value(one, cases)
            for one in dict.fromkeys(row[1] for row in search.own["rows"])
            if one in search.candidates
        ]
        middle = median([value for value in known if value is not None] or [0.0])
        return [one for one in values if values[one] >= middle]
    if pruner == "halving":
        ranked = sorted(values, key=lambda one: -values[one])
        return ranked[: math.ceil(len(ranked) / search.evaluation["eta"])]
    if pruner == "paired":
        return [one for one in values if not _is_clearly_worse(search, one, cases)]
    return list(values)


def _is_clearly_worse(search: "Search", candidate: str, cases: Sequence[int]) -> bool:
    """Whether chance would hardly make it lose to the best by so much, on the cases that both have a score for."""
    best = search.incumbent
    both = [case for case in cases if search.scores(candidate, [case]) and search.scores(best, [case])]
    if not both:
        return False
    found = stats.compare_paired(
        search.scores(best, both),
        search.scores(candidate, both),
        seed=search.problem.spec["seed"],
        weights=search.weights(best, both),
    )
    return found.difference < 0 and found.p_value < search.knobs["pruner_p"]


def _close(search: "Search") -> None:
    for one in search.own["batch"]:
        if one != search.incumbent and search.is_complete(one):
            search.crown(one)
    reason = search.close_round()
    total = search.knobs["max_trials"]
    if search.knobs["search_method"] == "grid":
        total = len(spaces.grid(search.knobs["params_to_optimize"]))
    if reason or search.own["is_short"] or len(search.own["rows"]) >= total:
        search.conclude(reason or "max_rounds")
        return
    search.next_round()
    search.own["stage"] = "try"
