"""The evaluation policy: which of a pool of candidates are good, at what price.

full and minibatch score everybody on the same cases. Halving (Karnin, Koren and Somekh 2013; successive
halving): everybody gets a few cases, the better 1/eta get eta times as many, until few enough are left.
Racing (Maron and Moore 1994; by the rule of CAPO, Zehle et al. 2025): block after block, who is surely worse
than as many as are wanted is out. ucb (UCB1, Auer, Cesa-Bianchi and Fischer 2002): blocks go to those that
may be the best. successive_rejects (Audibert, Bubeck and Munos 2010): the last is out after each phase.

Whoever is compared is compared on the same cases, taken from one list in one order (common random numbers).
Nobody is scored twice on a case.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shared.knob_rules import screening_mode
from worker.strategies import paired

if TYPE_CHECKING:
    from worker.strategies.search import Search


def gather_evidence(search: "Search", parents: Sequence[str]) -> bool:
    """Run the parents on train cases; what they get wrong is what their children are made from."""
    train = list(search.state["train"])
    search.draw("evidence").shuffle(train)
    return search.evaluate(parents, train[: search.knobs["evidence_cases"]])


def first_rung(search: "Search") -> list[int]:
    """The dev cases that a newcomer is scored on first: a few, or all of them in the mode full."""
    cases = search.case_list()
    mode = screening_mode(search.knobs, search.evaluation)
    return cases if mode == "full" else cases[: search.evaluation["min_cases"]]


def screen(search: "Search", pool: Sequence[str], *, keep: int, mode: str | None = None) -> None:
    """Begin to score a pool, of which `keep` are wanted; the survivors appear in `search.own["survivors"]`.

    With them `survivor_cases`: the cases that all of them were scored on. When the budget ends first, the
    survivors are those that the rungs so far have left. More than `keep` may survive where the mode drops nobody.
    """
    cases = search.case_list()
    mode = mode or screening_mode(search.knobs, search.evaluation)
    first = len(cases) if mode == "full" else min(search.evaluation["min_cases"], len(cases))
    state: dict[str, Any] = {"mode": mode, "alive": list(pool), "keep": keep, "cases": cases, "rung": first}
    if mode == "successive_rejects":
        state["rung"] = _phases(len(pool), keep, len(cases), search.evaluation["block_size"])[0]
        state["pool"] = len(pool)
    search.state["policy"] = {**state, "scored": 0}
    _score_rung(search)


def advance(search: "Search") -> None:
    """After a rung: drop who is out by the rule of the mode, and either score the rest further or hand over."""
    state = search.state["policy"]
    if state["mode"] == "ucb":
        _advance_ucb(search)
        return
    state["scored"] = state["rung"]
    cases = state["cases"][: state["rung"]]
    ranked = rank(search, state["alive"], cases)
    more = len(ranked) > state["keep"] and len(cases) < len(state["cases"])
    if not more or state["mode"] in ("full", "minibatch"):
        _hand_over(search, ranked)
        return
    dropping = {"halving": _after_halving, "racing": _after_race, "successive_rejects": _after_reject}
    alive, rung = dropping[state["mode"]](search, ranked)
    _drop(search, [one for one in ranked if one not in alive], f"{state['mode']} at {len(cases)} cases")
    state["alive"] = alive
    if len(alive) <= state["keep"]:
        _hand_over(search, alive)
        return
    state["rung"] = min(rung, len(state["cases"]))
    _score_rung(search)


def rank(search: "Search", candidates: Sequence[str], cases: Sequence[int]) -> list[str]:
    """Best first, by value on these cases; ties keep the older candidate first. Invalid ones are dropped."""
    values = {candidate: search.value(candidate, cases) for candidate in candidates}
    _drop(search, [candidate for candidate, value in values.items() if value is None], "too many failed calls")
    valid = [candidate for candidate in candidates if values[candidate] is not None]
    return sorted(valid, key=lambda candidate: -(values[candidate] or 0.0))


def differences(search: "Search", one: str, other: str, cases: Sequence[int]) -> list[float]:
    """one - other on each of the cases that both have a score for."""
    mine, theirs = search.by_case(one, cases), search.by_case(other, cases)
    return [mine[case] - theirs[case] for case in cases if case in mine and case in theirs]


def _after_halving(search: "Search", ranked: Sequence[str]) -> tuple[list[str], int]:
    state, eta = search.state["policy"], search.evaluation["eta"]
    return list(ranked[: max(state["keep"], math.ceil(len(ranked) / eta))]), state["rung"] * eta


def _after_race(search: "Search", ranked: Sequence[str]) -> tuple[list[str], int]:
    """Out is who is significantly worse than each of the `keep` best."""
    state, settings = search.state["policy"], search.evaluation
    cases = state["cases"][: state["rung"]]
    best = ranked[: state["keep"]]
    alive = list(best)
    for candidate in ranked[state["keep"] :]:
        surely_worse = all(
            paired.p_value(settings["test"], differences(search, one, candidate, cases)) < settings["alpha"]
            for one in reversed(best)  # the least of them first: it settles the question most often
        )
        if not surely_worse:
            alive.append(candidate)
    return alive, state["rung"] + settings["block_size"]


def _after_reject(search: "Search", ranked: Sequence[str]) -> tuple[list[str], int]:
    state = search.state["policy"]
    phases = _phases(state["pool"], state["keep"], len(state["cases"]), search.evaluation["block_size"])
    # The worst is out after each phase that this many cases complete; invalid ones may have gone before.
    done = sum(length <= state["rung"] for length in phases)
    left = max(state["keep"], min(len(ranked) - 1, state["pool"] - done))
    return list(ranked[:left]), next((length for length in phases if length > state["rung"]), len(state["cases"]))


def _phases(arms: int, keep: int, cases: int, block: int) -> list[int]:
    """Cases that an arm has at the end of each phase, in whole blocks.

    n_k = ceil((n - K) / (logbar(K) (K + 1 - k))), logbar(K) = 1/2 + sum of 1/i for i = 2..K, with n such that the
    last phase of all uses every case (Audibert, Bubeck and Munos 2010). Phases that reject below `keep` are left out.
    """
    lengths = [2 * cases / (arms + 1 - k) for k in range(1, max(2, arms - keep + 1))]
    return [min(cases, block * math.ceil(length / block)) for length in lengths]


def _advance_ucb(search: "Search") -> None:
    """One more round of blocks, or the end: ranked by lower bound, so that luck with one block wins nothing."""
    state, settings = search.state["policy"], search.evaluation
    state["round"] = state.get("round", 0) + 1
    bounds = _bounds(search)
    out = [one for one in state["alive"] if one not in bounds]
    _drop(search, out, "too many failed calls")
    state["alive"] = alive = [one for one in state["alive"] if one in bounds]
    total = len(state["cases"])
    open_arms = [one for one in alive if _scored(search, one) < total]
    if len(alive) > state["keep"] and open_arms and state["round"] <= settings["ucb_rounds"]:
        chosen = sorted(open_arms, key=lambda one: -bounds[one][1])[: state["keep"]]
        block = settings["block_size"]
        search.ask([search.untried(one, state["cases"][: _scored(search, one) + block]) for one in chosen])
        if search.work:
            return
    ranked = sorted(alive, key=lambda one: -bounds[one][0])
    kept = ranked[: state["keep"]]
    for one in ranked[state["keep"] :]:
        _drop(search, [one], f"ucb at {_scored(search, one)} cases")
    state["scored"] = min((_scored(search, one) for one in kept), default=0)
    _hand_over(search, kept)


def _bounds(search: "Search") -> dict[str, tuple[float, float]]:
    """mean ± c sqrt(ln t / n) of each valid candidate: n its cases, t those of all, at least 1."""
    state, c = search.state["policy"], search.evaluation["ucb_c"]
    counts = {one: _scored(search, one) for one in state["alive"]}
    spent = math.log(max(1, sum(counts.values())))
    bounds = {}
    for one, count in counts.items():
        value = search.value(one, state["cases"][:count]) if count else None
        if value is not None:
            doubt = c * math.sqrt(spent / count)
            bounds[one] = (value - doubt, value + doubt)
    return bounds


def _scored(search: "Search", candidate: str) -> int:
    """How many cases of the list, from its beginning, the candidate was tried on."""
    cases = search.state["policy"]["cases"]
    fair = set(search.fair(candidate, cases))  # what it shows itself it is never tried on
    return next((i for i, one in enumerate(cases) if one in fair and not search.is_tried(candidate, one)), len(cases))


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
