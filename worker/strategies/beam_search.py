"""Beam search: the best prompts have children made from their failures; the best of all go on.

ProTeGi (Pryzant et al. 2023), its critiques in two steps included if asked for. A round is evidence → critique →
expand → reword → screen → select → close; the round's winner is scored on the whole dev split before it becomes the
incumbent, so the curve never rises on luck with sixteen cases.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from worker.strategies import credit, policy, selection
from worker.strategies.children import Asked, Wanted

if TYPE_CHECKING:
    from worker.strategies.search import Search


def begin(search: "Search") -> None:
    search.own.update({"beam": [search.seed], "stage": "evidence", "stagnant": 0, "fresh": False})


def advance(search: "Search") -> None:
    stages = {
        "evidence": _gather,
        "critique": _criticize,
        "expand": _expand,
        "reword": _reword,
        "screen": _screen,
        "select": _select,
        "close": _close,
    }
    stages[search.own["stage"]](search)


def _gather(search: "Search") -> None:
    search.own["stage"] = "critique" if search.knobs["gradients_per_beam"] else "expand"
    if not policy.gather_evidence(search, search.own["beam"]):
        search.conclude("budget")


def _slots(search: "Search") -> list[tuple[str, int]]:
    """(parent, slot) of each child. The first round has one parent: it gets the expansions of the whole beam."""
    beam = search.own["beam"]
    each = search.knobs["expansions_per_beam"] * (search.knobs["beam_width"] if len(beam) == 1 else 1)
    return [(parent, place * each + i) for place, parent in enumerate(beam) for i in range(each)]


def _criticized(search: "Search") -> list[tuple[str, int]]:
    """The first children of each parent, who are made from a critique."""
    share = search.knobs["gradients_per_beam"]
    slots = _slots(search)
    each = len(slots) // len(search.own["beam"])
    share *= search.knobs["beam_width"] if len(search.own["beam"]) == 1 else 1
    return [item for i, item in enumerate(slots) if i % each < share]


def _criticize(search: "Search") -> None:
    search.own["stage"] = "expand"
    asked = [] if search.own["fresh"] else _criticized(search)
    search.own.update({"notes": [], "criticized": [slot for _, slot in asked]})
    if search.propose([("gradient", parent, slot) for parent, slot in asked]) is None:
        search.conclude("budget")


def _expand(search: "Search") -> None:
    search.own["stage"] = "reword" if search.knobs["paraphrases_per_child"] else "screen"
    notes = search.own.get("notes", [])
    asked: list[Asked] = [
        Wanted("apply_gradient", note["parent"], note["slot"], note=note["text"], component=note["component"])
        for note in notes
    ]
    # A slot is asked for once: where nothing was wrong, the critique has been a child already.
    in_two_steps = set(search.own.get("criticized", []))
    for parent, slot in _slots(search):
        if slot in in_two_steps:
            continue
        operator = "fresh_start" if search.own["fresh"] else _operator(search, parent, slot)
        asked.append((operator, parent, slot))
    search.own["fresh"] = False
    if search.propose(asked) is None:
        search.conclude("budget")


def _operator(search: "Search", parent: str, slot: int) -> str:
    return credit.choose(search, search.knobs["operators"], parent, slot)


def _reword(search: "Search") -> None:
    """Monte Carlo successors: each child in other words, to search around it (Pryzant et al. 2023, 2.2)."""
    search.own["stage"] = "screen"
    each = search.knobs["paraphrases_per_child"]
    first = len(_slots(search))
    asked = [
        ("paraphrase", child, first + place * each + i)
        for place, child in enumerate(search.children())
        for i in range(each)
    ]
    search.propose(asked)  # what cannot be paid for is left out: the children are there


def _screen(search: "Search") -> None:
    search.own["stage"] = "select"
    made = search.children()
    if not made:
        search.own["survivors"] = list(search.own["beam"])
        search.own["survivor_cases"] = []
        return
    pool = [*search.own["beam"], *made] if search.knobs["keep_parents"] else made
    limit = search.knobs["max_candidates"]
    if limit is not None:
        for dropped in pool[limit:]:
            search.decide(dropped, "pruned", f"beyond max_candidates {limit}")
        pool = pool[:limit]
    policy.screen(search, pool, keep=search.knobs["beam_width"])


def _select(search: "Search") -> None:
    """The new beam out of the survivors; its first member is confirmed on the whole dev split."""
    search.own["stage"] = "close"
    credit.settle(search, search.children())
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
    knobs = search.knobs
    values = {survivor: search.value(survivor, cases) or 0.0 for survivor in survivors}
    best, threshold = max(values.values(), default=0.0), knobs["prune_threshold"]
    left = {one: value for one, value in values.items() if not threshold or value >= best - threshold}
    if knobs["pruning"] == "pareto":
        left = {one: won for one, won in selection.wins(search, list(left), cases).items() if won > 0}
    if knobs["candidate_reranker"] == "none" and not knobs["stochastic_temp"] and knobs["pruning"] != "diverse":
        return list(left)
    noisy = selection.with_noise(search, left, knobs["stochastic_temp"])
    if knobs["pruning"] == "diverse" or knobs["candidate_reranker"] == "diversity":
        return selection.diverse_order(search, list(noisy), noisy, knobs["diversity_rate"], most=knobs["beam_width"])
    if knobs["candidate_reranker"] == "hybrid":
        return selection.hybrid_order(search, list(noisy), noisy, knobs["diversity_rate"])
    return list(noisy)


def _close(search: "Search") -> None:
    leader = search.own["beam"][0]
    before = search.incumbent
    if leader != search.incumbent:
        search.crown(leader)
    reason = search.close_round()
    if reason or search.is_exhausted or search.round >= search.knobs["max_rounds"]:
        search.conclude(reason or "max_rounds")
        return
    search.own["stagnant"] = search.own["stagnant"] + 1 if search.incumbent == before else 0
    limit = search.knobs["stagnation_restart"]
    if limit and search.own["stagnant"] >= limit:
        search.own.update({"beam": [search.incumbent], "fresh": True, "stagnant": 0})
    search.next_round()
    search.own["stage"] = "evidence"
