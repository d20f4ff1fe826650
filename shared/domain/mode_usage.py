"""What was run and how it went, counted from the rows whenever it is asked. What is not known is None, never 0."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.domain import projects
from shared.domain.modes import MODES
from shared.domain.tenants import Caller
from shared.errors import FieldError, Unprocessable
from shared.models import Execution, Prompt, State

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Window:
    """Which executions: submitted at or after `start` and before `end`; None is no limit."""

    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True)
class ModeUsage:
    """The runs of all prompts that are in one mode now. Latency is of those that succeeded."""

    prompt_count: int  # not deleted, whether they were run or not
    execution_count: int
    succeeded: int
    failed: int
    canceled: int
    avg_latency_ms: float | None
    latency_ms: Mapping[int, int | None]  # by percentile
    prompt_tokens: int
    response_tokens: int
    cost_nano: int | None  # None: there were answers, and no price is known for any
    unpriced: int  # answers without a price


def usage_by_mode(
    session: Session, caller: Caller, *, project: str | None = None, window: Window = Window()
) -> dict[str, ModeUsage]:
    """The usage of each mode, in three statements. The calls of evaluations and optimizations are not runs."""
    if window.start and window.end and window.start >= window.end:
        raise Unprocessable("from must be before to", errors=[FieldError("?to", "must be after from")])
    project_id = None if project is None else projects.get_project(session, caller, project).id
    runs = _runs(caller, project_id, window)
    counts = _prompt_counts(session, caller, project_id)
    totals = _totals(session, runs)
    latencies = _latencies(session, runs)
    return {mode: _usage(counts.get(mode, 0), totals.get(mode), latencies.get(mode, {})) for mode in MODES}


def _runs(caller: Caller, project_id: uuid.UUID | None, window: Window) -> sa.Subquery:
    query = (
        sa.select(
            Prompt.mode,
            Execution.state,
            Execution.latency_ms,
            Execution.prompt_tokens,
            Execution.response_tokens,
            Execution.cost_nano,
        )
        .join(Prompt, Prompt.id == Execution.prompt_id)
        .where(Execution.workspace_id == caller.workspace_id, Execution.purpose == "run")
    )
    if caller.project_ids is not None:
        query = query.where(Execution.project_id.in_(caller.project_ids))
    if project_id is not None:
        query = query.where(Execution.project_id == project_id)
    if window.start is not None:
        query = query.where(Execution.created_at >= window.start)
    if window.end is not None:
        query = query.where(Execution.created_at < window.end)
    return query.subquery("runs")


def _prompt_counts(session: Session, caller: Caller, project_id: uuid.UUID | None) -> dict[str, int]:
    query = projects.visible_in(session, caller, Prompt, None).where(Prompt.deleted_at.is_(None))
    if project_id is not None:
        query = query.where(Prompt.project_id == project_id)
    rows = session.execute(query.with_only_columns(Prompt.mode, sa.func.count()).group_by(Prompt.mode))
    return {row[0]: row[1] for row in rows}


def _totals(session: Session, runs: sa.Subquery) -> dict[str, Any]:
    answered = runs.c.state == State.SUCCEEDED
    rows = session.execute(
        sa.select(
            runs.c.mode,
            sa.func.count().label("execution_count"),
            *(sa.func.count().filter(runs.c.state == state).label(state) for state in State),
            sa.func.avg(runs.c.latency_ms).filter(answered).label("avg_latency_ms"),
            sa.func.sum(runs.c.prompt_tokens).label("prompt_tokens"),
            sa.func.sum(runs.c.response_tokens).label("response_tokens"),
            sa.func.sum(runs.c.cost_nano).label("cost_nano"),
            sa.func.count().filter(answered, runs.c.cost_nano.is_(None)).label("unpriced"),
        ).group_by(runs.c.mode)
    )
    return {row.mode: row for row in rows}


def _latencies(session: Session, runs: sa.Subquery) -> dict[str, dict[int, int]]:
    """The percentiles by mode, each a latency that occurred: the smallest that so many percent do not pass."""
    ranked = (
        sa.select(
            runs.c.mode,
            runs.c.latency_ms,
            sa.func.row_number().over(partition_by=runs.c.mode, order_by=runs.c.latency_ms).label("rank"),
            sa.func.count().over(partition_by=runs.c.mode).label("of"),
        )
        .where(runs.c.state == State.SUCCEEDED, runs.c.latency_ms.is_not(None))
        .subquery("ranked")
    )
    columns = (
        sa.func.min(ranked.c.latency_ms).filter(ranked.c.rank * 100 >= ranked.c.of * percent) for percent in PERCENTILES
    )
    rows = session.execute(sa.select(ranked.c.mode, *columns).group_by(ranked.c.mode))
    return {row[0]: dict(zip(PERCENTILES, row[1:], strict=True)) for row in rows}


def _usage(prompt_count: int, row: Any, latencies: Mapping[int, int]) -> ModeUsage:
    if row is None:
        return ModeUsage(prompt_count, 0, 0, 0, 0, None, dict.fromkeys(PERCENTILES), 0, 0, 0, 0)
    return ModeUsage(
        prompt_count=prompt_count,
        execution_count=row.execution_count,
        succeeded=row.succeeded,
        failed=row.failed,
        canceled=row.canceled,
        avg_latency_ms=None if row.avg_latency_ms is None else float(row.avg_latency_ms),
        latency_ms={percent: latencies.get(percent) for percent in PERCENTILES},
        prompt_tokens=int(row.prompt_tokens or 0),
        response_tokens=int(row.response_tokens or 0),
        cost_nano=_cost(row),
        unpriced=row.unpriced,
    )


def _cost(row: Any) -> int | None:
    """0 when nothing was answered; None when something was, and no price is known for any of it."""
    if row.cost_nano is not None:
        return int(row.cost_nano)
    return None if row.unpriced else 0


def total(usages: Sequence[ModeUsage], measure: str) -> int | None:
    """The sum of a measure over modes; None when it is unknown in one that was run and known in none."""
    known = [value for usage in usages if (value := getattr(usage, measure)) is not None]
    unknown = len(known) < len(usages)
    return sum(known) if known and (any(known) or not unknown) else None
