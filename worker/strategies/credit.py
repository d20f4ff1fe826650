"""Which operator makes the next child: by its weight, or by what its children were worth so far."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shared.knobs import EDITS

if TYPE_CHECKING:
    from worker.strategies.search import Search

FLOOR = 0.05  # the least chance of an operator that takes part


def choose(search: "Search", weights: Mapping[str, float], *purpose: Any) -> str:
    """An operator, drawn for this purpose.

    With `adaptive_operators` weights only say who takes part: Thompson sampling (1933) over Beta(1 + improved,
    1 + tried - improved) of each, the counters of SAMMO (Schnabel and Neville 2024), with a floor for all.
    """
    chance = search.draw("operator", *purpose)
    names = sorted(name for name, weight in weights.items() if weight > 0)
    if not search.knobs.get("adaptive_operators"):
        return chance.choices(names, [weights[name] for name in names])[0]
    if chance.random() < FLOOR * len(names):
        return chance.choice(names)
    drawn = {}
    for name in names:
        tried, improved = _counted(search, name)
        drawn[name] = chance.betavariate(1 + improved, 1 + tried - improved)
    return max(names, key=lambda name: drawn[name])


def _counted(search: "Search", name: str) -> tuple[int, int]:
    """(tried, improved) of an operator; of all edits together for the name edit."""
    credit = search.own.get("credit", {})
    found = [credit.get(one, (0, 0)) for one in (EDITS if name == "edit" else (name,))]
    return sum(tried for tried, _ in found), sum(improved for _, improved in found)


def settle(search: "Search", children: Sequence[str]) -> None:
    """Count for each child that was scored whether it is better than its parent, on the cases that both have.

    To be called once for each child.
    """
    credit = search.own.setdefault("credit", {})
    for child in children:
        item = search.candidates[child]
        cases = [case for case in search.dev if search.is_tried(child, case)]
        if not cases:
            continue
        both = [case for case in cases if search.is_tried(item["parents"][0], case)]
        # The seed has every dev case: it stands in where the parent was scored on none of these.
        reference, shared = (item["parents"][0], both) if both else (search.seed, cases)
        value, before = search.value(child, shared), search.value(reference, shared)
        tried, improved = credit.get(item["operator"], (0, 0))
        gained = value is not None and (before is None or value > before)
        credit[item["operator"]] = [tried + 1, improved + gained]
