"""A/A test: the seed against itself, measured again with other samples. What it finds is noise, and nothing else.

A search whose gains are no larger than these found nothing (2.3 of the design's research: the best of 50 equal
prompts on 50 cases looks 14 points better than it is).
"""

from typing import TYPE_CHECKING

from shared import stats
from worker.strategies import policy

if TYPE_CHECKING:
    from worker.strategies.search import Search


def begin(search: "Search") -> None:
    search.own["stage"] = "measure"
    for number in range(1, search.knobs["twins"] + 1):
        search.admit(
            dict(search.components(search.seed)), parents=[search.seed], operator="noop", lineage={}, twin=number
        )


def advance(search: "Search") -> None:
    twins = search.children()
    if search.own["stage"] == "measure":
        search.own["stage"] = "conclude"
        if not search.evaluate_affordable(twins, search.dev):
            search.conclude("budget")
        return
    found = []
    for twin in twins:
        if search.is_complete(twin):
            found += policy.differences(search, twin, search.seed, search.dev)
            search.crown(twin)
    if found:
        # By case and twin: what the score of one case moves by when nothing has changed.
        deviation = stats.standard_error(found) * len(found) ** 0.5
        search.own["noise"] = {"mean": stats.mean(found), "standard_deviation": deviation, "n": len(found)}
    search.conclude(search.close_round() or "max_rounds")
