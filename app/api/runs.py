"""What evaluations and optimizations answer alike: their spend, how far they are, and their cancel."""

import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from app.auth import caller
from shared.db import reading, transaction
from shared.domain import jobs, providers, runs
from shared.domain.runs import Spend
from shared.domain.tenants import Caller
from shared.models import BulkOperation, Evaluation, Generation, JobKind, Optimization, Role

Run = Evaluation | Optimization | Generation
Found = TypeVar("Found", Evaluation, Optimization, Generation, BulkOperation)


def told(session: Session, found: Sequence[Run]) -> dict[uuid.UUID, dict[str, Any]]:
    """By run what all kinds tell alike, however many there are in two statements.

    `progress`: calls of the current step. `spent`: with what is presumed paid; each call of the ledger that was
    attempted counts once.
    """
    ids = [run.id for run in found]
    spends, calls = runs.spends_of(session, ids), runs.open_calls(session, ids)
    return {
        run_id: {
            "progress": dict(zip(("done", "total"), calls[run_id], strict=True)),
            "spent": _spent(spends[run_id]),
        }
        for run_id in ids
    }


def _spent(spent: Spend) -> dict[str, Any]:
    return {
        "task_calls": spent.task_calls,
        "proposer_calls": spent.proposer_calls,
        "judge_calls": spent.judge_calls,
        "tokens": spent.tokens,
        "cost_usd": providers.usd(spent.nano),
        "ambiguous_attempts": spent.ambiguous,
    }


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
