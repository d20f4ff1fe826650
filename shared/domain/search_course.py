"""How a search went: what it knew after how many calls. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.domain import optimizations
from shared.models import Candidate, Optimization, TestCase, WorkItem


@dataclass(frozen=True)
class Mark:
    """A candidate, when the last of its dev cases had been asked for.

    `calls`: how many calls the search had asked for by then, proposals and train cases among them.
    `is_complete`: it was asked about as many dev cases as a candidate can be, so its mean compares with the others.
    """

    ordinal: int
    calls: int
    mean: float
    is_complete: bool


def course(session: Session, optimization: Optimization) -> Sequence[Mark]:
    """The candidates that have a score on dev, in the order in which it was asked for."""
    state = optimization.search_state
    if state is None:
        return []
    dev, most = set(state["dev"]), len(state["dev"][: optimization.spec["evaluation"]["max_cases"]])
    asked = (
        sa.select(WorkItem.candidate, TestCase.ordinal)
        .join(TestCase, TestCase.id == WorkItem.test_case_id, isouter=True)
        .where(WorkItem.scope_id == optimization.id, WorkItem.kind.in_(("evaluate", "propose")))
        .order_by(WorkItem.id)
    )
    known_after: dict[str | None, int] = {}
    for calls, (candidate, case) in enumerate(session.execute(asked), start=1):
        if case in dev:
            known_after[candidate] = calls
    found = session.scalars(optimizations.candidates_of(optimization).where(Candidate.mean.is_not(None))).all()
    marks = [
        Mark(one.ordinal, known_after[one.hash], float(one.mean or 0.0), one.cases + len(one.demos) >= most)
        for one in found
        if one.hash in known_after
    ]
    return sorted(marks, key=lambda mark: (mark.calls, mark.ordinal))
