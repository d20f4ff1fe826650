"""What evaluations and optimizations answer alike: their spend, how far they are, and their cancel."""

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from app.auth import caller
from shared.db import reading, transaction
from shared.domain import jobs, providers, runs
from shared.domain.tenants import Caller
from shared.models import BulkOperation, Evaluation, JobKind, Optimization, Role

Run = Evaluation | Optimization
Found = TypeVar("Found", Evaluation, Optimization, BulkOperation)


def spend(session: Session, run: Run) -> dict[str, Any]:
    """What was spent, with what is presumed paid; each call of the ledger that was attempted counts once."""
    spent = runs.spend_of(session, run.id)
    return {
        "task_calls": spent.task_calls,
        "proposer_calls": spent.proposer_calls,
        "tokens": spent.tokens,
        "cost_usd": providers.usd(spent.nano),
        "ambiguous_attempts": spent.ambiguous,
    }


def progress(session: Session, run: Run) -> dict[str, int]:
    """Calls of the current step."""
    done, total = runs.open_calls(session, run.id)
    return {"done": done, "total": total}


def cancel(
    kind: JobKind,
    find: Callable[[Session, Caller], Found],
    render: Callable[[Session, Found], Any],
    *,
    reason: str = "",
) -> Any:
    """End a run, then its open calls, page by page in transactions of their own; the run as it then is."""
    author = caller(Role.EDITOR)
    with transaction() as session:
        run = find(session, author)
        runs.cancel_run(session, author, run, kind=kind, reason=reason)
    left = True
    while left:
        with transaction() as session:
            left = jobs.cancel_scope(session, run.id) > 0
    with reading() as session:
        return render(session, run)
