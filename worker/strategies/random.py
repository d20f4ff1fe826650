"""Control: variations of the seed and nothing else. A strategy that does not beat it is not worth its name."""

from typing import TYPE_CHECKING

from shared.knobs import EDITS
from worker.strategies import policy

if TYPE_CHECKING:
    from worker.strategies.search import Search


def begin(search: "Search") -> None:
    search.own["stage"] = "propose"


def advance(search: "Search") -> None:
    stage = search.own["stage"]
    if stage == "propose":
        search.own["stage"] = "screen"
        count = search.knobs["proposals"]
        if search.propose([(_operator(search, slot), search.seed, slot) for slot in range(count)]) is None:
            search.conclude("budget")
    elif stage == "screen":
        search.own["stage"] = "confirm"
        policy.screen(search, [search.seed, *search.children()], keep=search.knobs["finalists"])
    elif stage == "confirm":
        search.own["stage"] = "conclude"
        if not search.evaluate(search.own["survivors"][: search.knobs["finalists"]], search.dev):
            search.conclude("budget")
    else:
        for survivor in search.own["survivors"][: search.knobs["finalists"]]:
            search.crown(survivor)
        search.conclude(search.close_round() or "max_rounds")


def _operator(search: "Search", slot: int) -> str:
    mode = search.knobs["mode"]
    return search.draw("edit", slot).choice(EDITS) if mode == "edit" else str(mode)
