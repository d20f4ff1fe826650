"""Hill climbing by reflection: children of one prompt, of which the best may replace it.

A step is evidence → propose → screen → compare → confirm. What replaced the current prompt is scored on the whole dev
split; the best that was ever found is what the run returns, not the last. After `max_stall` steps in vain it starts
afresh from the best (VISTA 2026: restarts are what saves a climb from a defective seed).
"""

from typing import TYPE_CHECKING

from shared import stats
from worker.strategies import credit, policy

if TYPE_CHECKING:
    from worker.strategies.search import Search


def begin(search: "Search") -> None:
    search.own.update({"stage": "evidence", "current": search.seed, "stall": 0, "restarts": 0, "fresh": False})


def advance(search: "Search") -> None:
    stages = {
        "evidence": _gather,
        "propose": _propose,
        "screen": _screen,
        "confirm": _compare,
        "decide": _decide,
        "close": _close,
    }
    stages[search.own["stage"]](search)


def _gather(search: "Search") -> None:
    search.own["stage"] = "propose"
    if not policy.gather_evidence(search, [search.own["current"]]):
        search.conclude("budget")


def _propose(search: "Search") -> None:
    search.own["stage"] = "screen"
    current = search.own["current"]
    asked = []
    for slot in range(search.knobs["proposals_per_step"]):
        operator = "fresh_start" if search.own["fresh"] else credit.choose(search, search.knobs["operators"], slot)
        asked.append((operator, current, slot))
    search.own["fresh"] = False
    if search.propose(asked) is None:
        search.conclude("budget")


def _screen(search: "Search") -> None:
    search.own["stage"] = "confirm"
    policy.screen(search, search.children(), keep=1)


def _compare(search: "Search") -> None:
    """Both on the same cases: those of the screening, and as many more as `confirm_cases` asks for."""
    search.own["stage"] = "decide"
    credit.settle(search, search.children())
    survivors, cases = search.own["survivors"][:1], search.own["survivor_cases"]
    further = [case for case in search.case_list() if case not in cases][: search.knobs["confirm_cases"]]
    search.own["compared"] = [*cases, *further]
    if survivors and not search.evaluate([search.own["current"], *survivors], search.own["compared"]):
        search.conclude("budget")


def _decide(search: "Search") -> None:
    search.own["stage"] = "close"
    survivors = search.own["survivors"][:1]
    accepted = bool(survivors) and _accepts(search, survivors[0])
    for child in search.own["survivors"][int(accepted) :]:
        search.decide(child, "pruned", "not accepted" if child in survivors else "not the best of its step")
    search.own["stall"] = 0 if accepted else search.own["stall"] + 1
    search.own["challenger"] = survivors[0] if accepted else None
    if accepted:
        search.decide(survivors[0], "kept", f"accepted in step {search.round}")
        search.own["current"] = survivors[0]
        if not search.evaluate(survivors, search.dev):
            search.conclude("budget")


def _accepts(search: "Search", child: str) -> bool:
    rule, cases, current = search.knobs["acceptance"], search.own["compared"], search.own["current"]
    value, before = search.value(child, cases), search.value(current, cases)
    if value is None or before is None:
        return before is None and value is not None
    if rule == "paired":
        found = policy.differences(search, child, current, cases)
        return value - before > search.knobs["paired_z"] * stats.standard_error(found)
    allowed = {"strict": 0.0, "at_least": 0.0, "tolerance": search.knobs["tolerance"]}[rule]
    return value > before if rule == "strict" else value >= before - allowed - 1e-12


def _close(search: "Search") -> None:
    challenger = search.own["challenger"]
    if challenger is not None:
        search.crown(challenger)
    reason = search.close_round(current=search.own["current"])
    stalled = search.own["stall"] >= search.knobs["max_stall"] or reason == "converged"
    can_go_on = not search.is_exhausted and search.round < search.knobs["max_rounds"]
    if stalled and reason in (None, "converged") and can_go_on and search.own["restarts"] < search.knobs["restarts"]:
        search.own.update(
            {"restarts": search.own["restarts"] + 1, "stall": 0, "fresh": True, "current": search.incumbent}
        )
        search.state["stall"] = 0
        reason = None
    if reason or not can_go_on:
        search.conclude(reason or "max_rounds")
        return
    search.next_round()
    search.own["stage"] = "evidence"
