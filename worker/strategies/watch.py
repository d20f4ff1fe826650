"""An early warning of overfit: every so many rounds the best is scored on dev cases that decide nothing.

These cases (`watch` in the state) are taken from dev before the search begins; the holdout stays unseen. No proposer is
shown them and nobody is ranked by them, so a best that is worse there than on dev was liked by luck.
"""

import math
from collections.abc import Sequence
from typing import Any

from shared import stats
from worker.strategies import budget
from worker.strategies.contract import Work
from worker.strategies.record import Record


def note(record: Record) -> None:
    """At the end of a round: whether it is time for a check of the best."""
    every = record.evaluation.get("generalization_check_every", 0)
    if every and record.round % every == 0 and record.state.get("watch"):
        record.state["checks"].append({"round": record.round, "candidate": record.incumbent})


def wanted(record: Record, asked: Sequence[Work]) -> list[Work]:
    """At the end of a step: the calls of the checks that were noted, beside what the search itself has asked for.

    A check must not end the search: one that the budget does not cover, or no time is left for, is left out.
    """
    found: list[Work] = []
    for item in waiting(record):
        calls = record.untried(item["candidate"], record.state["watch"])
        if "out_of_time" not in record.state and budget.affordable(record, [*asked, *found], [calls])[0]:
            found += calls
        else:
            record.state["checks"].remove(item)
    return found


def settle(record: Record) -> list[dict[str, Any]]:
    """Enter what the checks have found whose calls have all ended; these."""
    settled = []
    for item in waiting(record):
        one, watch = item["candidate"], record.state["watch"]
        if not record.untried(one, watch):
            found = gap(record, one, record.dev, watch)
            item |= {"dev": None, "watch": None, "gap": None, **(found or {}), "cases": len(record.scores(one, watch))}
            settled.append(dict(item))
    return settled


def waiting(record: Record) -> list[dict[str, Any]]:
    return [item for item in record.state.get("checks", []) if "gap" not in item]


def gap(record: Record, candidate: str, here: Sequence[int], there: Sequence[int]) -> dict[str, Any] | None:
    """Its mean on these cases minus that on others, with two standard errors either way; None without both.

    The cases are others, so the errors add up as those of independent samples.
    """
    if not record.scores(candidate, here) or not record.scores(candidate, there):
        return None
    dev, watch = record.mean(candidate, here), record.mean(candidate, there)
    errors = [
        stats.standard_error(record.scores(candidate, cases), record.weights(candidate, cases))
        for cases in (here, there)
    ]
    between, spread = dev - watch, 2 * math.hypot(*errors)
    return {"dev": dev, "watch": watch, "gap": between, "ci_low": between - spread, "ci_high": between + spread}


def told(record: Record) -> list[dict[str, Any]]:
    """The checks whose calls have ended, oldest first."""
    return [item for item in record.state.get("checks", []) if "gap" in item]
