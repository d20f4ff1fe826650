"""When a search with `max_wall_seconds` must stop: early enough for its holdout, at the pace of its calls so far."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.domain import clocks
from shared.domain.runs import Collected
from shared.models import Budget, Job, Optimization

_CUT = ("baseline", "preflight", "search", "topup")  # phases that end when time is up; the holdout never is cut


def lock(session: Session, steps: Sequence[Job]) -> None:
    """The budgets of runs with such a ceiling, before these runs, as who steers them does."""
    ids = [job.budget_id for job in steps if job.budget_id is not None]
    timed = sa.select(Budget.id).where(Budget.id.in_(ids), Budget.limit_wall_seconds.is_not(None))
    session.execute(timed.order_by(Budget.id).with_for_update())


def is_late(session: Session, run: Optimization, collected: Sequence[Collected]) -> bool:
    """Whether the step that takes these results is the last one of the search.

    Never where all of them are those of another run: what a continuation repeats costs no time of it.
    """
    state = run.search_state
    if state is None or state["phase"] not in _CUT or all(item.cached for item in collected):
        return False
    if any(item.error == "out_of_time" for item in collected):
        return True  # also where the ceiling was raised since: it was too late for these
    left = _seconds_left(session, run, state)
    return left is not None and left <= 0


def set_deadline(session: Session, run: Optimization, state: Mapping[str, Any]) -> None:
    """For the calls that this state waits for."""
    left = _seconds_left(session, run, state)
    if left is not None:
        clocks.set_deadline(session, run, left if state["phase"] in _CUT else None)


def lift_deadline(session: Session, run: Optimization) -> None:
    """What judges are asked about answers that were paid for is asked, however late it is."""
    if run.spec["budget"].get("max_wall_seconds") is not None:
        clocks.set_deadline(session, run, None)


def _seconds_left(session: Session, run: Optimization, state: Mapping[str, Any]) -> float | None:
    limit = run.spec["budget"].get("max_wall_seconds")
    if limit is None:
        return None
    elapsed = clocks.elapsed_seconds(session, run)
    calls = state["spent"]["task_calls"]
    of_holdout = 2 * len(state["holdout"]) * run.spec["evaluation"]["repeats"]
    return float(limit - elapsed - (elapsed / calls * of_holdout if calls else 0.0))
