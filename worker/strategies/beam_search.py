"""Beam search: the best prompts have children made from their failures; the best of all go on.

ProTeGi (Pryzant et al. 2023) without its bandit: children are screened by the shared policy. A round is
evidence → expand → screen → confirm; the round's winner is scored on the whole dev split before it
becomes the incumbent, so the curve never rises on luck with sixteen cases.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from worker.strategies import policy

if TYPE_CHECKING:
    from worker.strategies.search import Search


def begin(search: "Search") -> None:
    search.own["beam"] = [search.seed]
    search.own["stage"] = "evidence"


def advance(search: "Search") -> None:
    stage = search.own["stage"]
    if stage == "evidence":
        _gather_evidence(search)
    elif stage == "expand":
        _expand(search)
    elif stage == "screen":
        _screen(search)
    elif stage == "select":
        _select(search)
    elif stage == "close":
        _close(search)


def _gather_evidence(search: "Search") -> None:
    """Run the parents on train cases; what they get wrong is what their children are made from."""
    search.own["stage"] = "expand"
    train = list(search.state["train"])
    search.draw("evidence").shuffle(train)
    if not search.evaluate(search.own["beam"], train[: search.knobs["evidence_cases"]]):
        search.conclude("budget")


def _expand(search: "Search") -> None:
    search.own["stage"] = "screen"
    beam = search.own["beam"]
    # The first round has one parent: it gets the expansions of the whole beam.
    each = search.knobs["expansions_per_beam"] * (search.knobs["beam_width"] if len(beam) == 1 else 1)
    asked = [
        (_operator(search, parent, i), parent, place * each + i)
        for place, parent in enumerate(beam)
        for i in range(each)
    ]
    if search.propose(asked) is None:
        search.conclude("budget")


def _operator(search: "Search", parent: str, slot: int) -> str:
    weights = search.knobs["operators"]
    names = sorted(weights)
    return search.draw("operator", parent, slot).choices(names, [weights[name] for name in names])[0]


def _screen(search: "Search") -> None:
    search.own["stage"] = "select"
    children = search.children()
    if not children:
        search.own["survivors"] = list(search.own["beam"])
        search.own["survivor_cases"] = []
        return
    pool = [*search.own["beam"], *children] if search.knobs["keep_parents"] else children
    limit = search.knobs["max_candidates"]
    if limit is not None:
        for dropped in pool[limit:]:
            search.decide(dropped, "pruned", f"beyond max_candidates {limit}")
        pool = pool[:limit]
    policy.screen(search, pool, keep=search.knobs["beam_width"])


def _select(search: "Search") -> None:
    """The new beam out of the survivors; its first member is confirmed on the whole dev split."""
    search.own["stage"] = "close"
    survivors, cases = search.own["survivors"], search.own["survivor_cases"]
    beam = _reranked(search, survivors, cases)[: search.knobs["beam_width"]] if cases else survivors
    for survivor in survivors:
        if survivor not in beam and survivor not in (search.seed, search.incumbent):
            search.decide(survivor, "pruned", "outside the beam")
    for member in beam:
        if member not in (search.seed, search.incumbent):
            search.decide(member, "kept", f"in the beam of round {search.round}")
    search.own["beam"] = beam or [search.incumbent]
    leader = search.own["beam"][0]
    if leader != search.incumbent and not search.evaluate([leader], search.dev):
        search.conclude("budget")


def _reranked(search: "Search", survivors: Sequence[str], cases: Sequence[int]) -> list[str]:
    """Order the survivors by value, with the threshold, the noise and the diversity that the knobs ask for."""
    values = {survivor: search.value(survivor, cases) or 0.0 for survivor in survivors}
    best = max(values.values(), default=0.0)
    threshold = search.knobs["prune_threshold"]
    left = [survivor for survivor in survivors if not threshold or values[survivor] >= best - threshold]
    heat = search.knobs["stochastic_temp"]
    if heat > 0:
        # Gumbel top-k: sampling without replacement from softmax(value / temperature) (Kool et al. 2019).
        for place, survivor in enumerate(left):
            uniform = search.draw("gumbel", place).uniform(1e-12, 1.0)
            values[survivor] -= heat * math.log(-math.log(uniform) + 1e-300)
    left.sort(key=lambda survivor: -values[survivor])
    if search.knobs["candidate_reranker"] == "score":
        return left
    return _diverse(search, left, values)


def _diverse(search: "Search", left: Sequence[str], values: Mapping[str, float]) -> list[str]:
    """Maximal marginal relevance (Carbonell and Goldstein 1998): good, and unlike what is chosen already."""
    if not left:
        return []
    rate = search.knobs["diversity_rate"]
    low, high = min(values[one] for one in left), max(values[one] for one in left)
    scale = (high - low) or 1.0
    chosen: list[str] = []
    waiting = list(left)
    while waiting:
        best = max(
            waiting,
            key=lambda one: (
                (1 - rate) * (values[one] - low) / scale
                - rate * max((search.similarity(one, other) for other in chosen), default=0.0)
            ),
        )
        chosen.append(best)
        waiting.remove(best)
    return chosen


def _close(search: "Search") -> None:
    leader = search.own["beam"][0]
    if leader != search.incumbent:
        search.crown(leader)
    reason = search.close_round()
    if reason or search.is_exhausted or search.round >= search.knobs["max_rounds"]:
        search.conclude(reason or "max_rounds")
        return
    search.next_round()
    search.own["stage"] = "evidence"
