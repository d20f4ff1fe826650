"""What a continuation takes over from the run that it goes on from: its answers, and what they have cost.

Its ledger begins at all that the source has spent, and its search with nothing: they would disagree about what is left
by the calls that the search does not ask for again, such as the holdout of a prompt that is no longer the best. So the
search is told what the ledger holds, and which work has been paid for. Both follow from rows that do not change any
more, so that a replay is told the same.
"""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.domain import budgets, judges, runs
from shared.domain.runs import Reuse, Spend
from shared.models import Budget, Execution, Optimization, State, WorkItem

CONTINUATION = "continuation"


def carried_from(ledger: Budget) -> dict[str, int]:
    """What the ledger of a continuation begins with, for its spec. `ledger` is that of the source, locked."""
    return {name: getattr(ledger, f"spent_{name}") + getattr(ledger, f"reserved_{name}") for name in budgets.MEASURES}


def reuse_of(run: Optimization) -> Reuse | None:
    """Whose answers a run takes over: a continuation those of its source, and no other run any."""
    if run.relation != CONTINUATION:
        return None
    return Reuse(run.project_id, fresh=True, retry_of=run.source_id)


def charged_to(session: Session, run: Optimization, *, step_no: int | None = None) -> Spend | None:
    """What its ledger holds, as its search knows it; None where that is what the search has spent.

    A continuation that was made before there was `carried` in its spec goes on by its own spend, as it began; one that
    was made before a measure was among it counts that from nothing.
    """
    carried = run.spec.get("carried")
    if carried is None:
        return None
    own = runs.logical_spend_of(session, run.id, step_no=step_no, own=True)
    return Spend(**{name: getattr(own, name) + carried.get(name, 0) for name in budgets.MEASURES}, ambiguous=0)


def paid_keys(session: Session, run: Optimization) -> frozenset[str]:
    """The keys of the work that this run gets for nothing: answered for its source before it was made.

    A call of a canceled source that was in flight then is not among them: the ledger holds its bound. Where judges
    are asked about answers, an answer alone is not all that its work costs; what has its score is.
    """
    if run.spec.get("carried") is None:
        return frozenset()
    answered = sa.and_(Execution.state == State.SUCCEEDED, Execution.completed_at <= run.created_at)
    free = answered | WorkItem.execution_id.is_(None)  # what cannot be rendered makes no call
    if judges.models_of(run.spec["scorers"]):
        free &= (WorkItem.kind == "propose") | WorkItem.score.is_not(None) | WorkItem.execution_id.is_(None)
    query = (
        sa.select(WorkItem.work_key)
        .join(Execution, Execution.id == WorkItem.execution_id, isouter=True)
        .where(WorkItem.scope_id == run.source_id, WorkItem.kind.in_(("evaluate", "propose")), free)
    )
    return frozenset(session.scalars(query))
