"""Merging: rewrites of one prompt, each made from other failures of it, become one prompt with all their changes.

A round is evidence → expand → merge → screen → select → close. One rewrite changes a thing or two, which few cases
cannot tell from luck; all of them together make a difference that can be seen, and only what they make together is
scored. As with model soups (Wortsman et al. 2022) errors cancel: what one rewrite alone forgets stays. When a round
finds nothing better, the next one takes smaller steps: fewer rewrites, each scored by itself.
"""

from typing import TYPE_CHECKING

from worker.strategies import credit, edits, policy

if TYPE_CHECKING:
    from worker.strategies.search import Search


def begin(search: "Search") -> None:
    search.own.update({"stage": "evidence", "merging": True})


def advance(search: "Search") -> None:
    stages = {
        "evidence": _gather,
        "expand": _expand,
        "screen": _screen,
        "select": _select,
        "close": _close,
    }
    stages[search.own["stage"]](search)


def _gather(search: "Search") -> None:
    search.own["stage"] = "expand"
    if not policy.gather_evidence(search, [search.incumbent]):
        search.conclude("budget")


def _expand(search: "Search") -> None:
    search.own["stage"] = "screen"
    count = search.knobs["proposals_per_step" if search.own["merging"] else "single_proposals"]
    asked = [(credit.choose(search, search.knobs["operators"], slot), search.incumbent, slot) for slot in range(count)]
    if search.propose(asked) is None:
        search.conclude("budget")


def _screen(search: "Search") -> None:
    search.own["stage"] = "select"
    pool = (_merge(search) if search.own["merging"] else []) or search.children()
    if not pool:
        search.own.update({"survivors": [], "survivor_cases": []})
        return
    policy.screen(search, [search.incumbent, *pool], keep=1)


def _merge(search: "Search") -> list[str]:
    """The first is made of all children, the others of random halves of them; none where there is only one child."""
    children = search.children()
    made: list[str] = []
    for place in range(search.knobs["merges"] if len(children) > 1 else 0):
        drawn = search.draw("merge", place).sample(children, max(2, (len(children) + 1) // 2))
        merged = _merged(search, children if place == 0 else drawn, place)
        made += [merged] if merged else []
    for child in children if made else ():
        search.decide(child, "pruned", "merged with the others, not scored by itself")
    return made


def _merged(search: "Search", children: list[str], place: int) -> str | None:
    parent, level = search.incumbent, search.knobs["edit_level"]
    texts = {
        name: edits.merged(text, [search.components(child)[name] for child in children], level=level)
        for name, text in search.components(parent).items()
    }
    lineage = {"slot": search.knobs["proposals_per_step"] + place}
    return search.admit(
        texts, parents=[parent, *children], operator="merge", lineage=lineage, genes=search.genes(parent)
    )


def _select(search: "Search") -> None:
    """The best on the cases of the screening is confirmed on the whole dev split."""
    search.own["stage"] = "close"
    survivors = search.own["survivors"]
    for other in survivors[1:]:
        if other != search.incumbent:
            search.decide(other, "pruned", "not the best of its round")
    leader = search.own["leader"] = survivors[0] if survivors else search.incumbent
    if leader != search.incumbent and not search.evaluate([leader], search.dev):
        search.conclude("budget")


def _close(search: "Search") -> None:
    before = search.incumbent
    if search.own["leader"] != before:
        search.crown(search.own["leader"])
    reason = search.close_round(merging=search.own["merging"])
    if search.incumbent == before:
        if search.own["merging"]:
            # Small steps come before giving up: patience counts those only.
            search.state["stall"] -= 1
            reason = None if reason == "converged" else reason
        search.own["merging"] = not search.own["merging"]
    if reason or search.is_exhausted or search.round >= search.knobs["max_rounds"]:
        search.conclude(reason or "max_rounds")
        return
    search.next_round()
    search.own["stage"] = "evidence"
