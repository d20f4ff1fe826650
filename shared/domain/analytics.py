"""Figures of executions, counted from their rows when they are asked for: nothing is rolled up, nothing assumed.

Percentiles are exact, by one definition on both databases: that of `percentile_cont` (Hyndman and Fan 1996, type 7).
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.db import db_now, epoch_seconds
from shared.domain import executions, projects
from shared.domain.executions import Filter
from shared.domain.labels import list_labels
from shared.domain.modes import MODES
from shared.domain.tenants import Caller
from shared.errors import FieldError, Unprocessable
from shared.models import Execution, Feedback, Prompt, State, Version

MAX_DAYS = 366
DEFAULT_DAYS = 30
MAX_BUCKETS = 1_000
MAX_GROUPS = 20
MAX_VERSIONS = 100
MAX_ERROR_TYPES = 100
PERCENTILES = (50, 95, 99)
# Seconds of a bucket, and of the shift that lets it begin on the hour, at midnight, on Monday: day 0 was a Thursday.
INTERVALS: Mapping[str, tuple[int, int]] = {"hour": (3_600, 0), "day": (86_400, 0), "week": (604_800, 259_200)}
GROUPS: Mapping[str, tuple[Any, ...]] = {
    "prompt": (Execution.prompt_id,),
    "version": (Execution.prompt_id, Execution.version_id),
    "model": (Execution.provider, Execution.model_name),
    "environment": (Execution.environment,),
    "created_by": (Execution.created_by,),
    "status": (Execution.state,),
    "purpose": (Execution.purpose,),
}


@dataclass(frozen=True)
class Figures:
    """Executions of one group: how many, how they ended, what they took."""

    executions: int = 0
    succeeded: int = 0
    failed: int = 0
    canceled: int = 0
    prompt_tokens: int = 0
    response_tokens: int = 0
    cost_nano: int = 0
    without_cost: int = 0  # succeeded, and nobody knows for how much
    latencies: int = 0  # how many the percentiles are of
    mean_latency_ms: float | None = None
    latency_ms: tuple[float | None, ...] = (None,) * len(PERCENTILES)

    @property
    def known_cost_nano(self) -> int | None:
        """None when there are answers, and for none of them it is known what it cost."""
        return (
            None if self.without_cost and self.without_cost == self.succeeded and not self.cost_nano else self.cost_nano
        )

    @property
    def success_rate(self) -> float | None:
        """A percentage of what has ended by itself; None when nothing has."""
        ended = self.succeeded + self.failed
        return 100 * self.succeeded / ended if ended else None


@dataclass(frozen=True)
class Group:
    """What its executions have in common, as the API names it, and their figures: in all, and by bucket."""

    key: Mapping[str, Any]
    total: Figures
    buckets: Sequence[tuple[datetime, Figures]] = ()


@dataclass(frozen=True)
class Rating:
    """The scores that people gave: how many, and their mean."""

    n: int = 0
    mean: float | None = None


@dataclass(frozen=True)
class ErrorClass:
    error_type: str
    executions: int
    prompts: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True)
class ModeUsage:
    """The prompts that are in one mode now, whether they were run or not, and their runs."""

    prompts: int
    runs: Figures


@dataclass(frozen=True)
class VersionFigures:
    version_id: uuid.UUID
    version_number: int
    labels: Sequence[str]  # that point at it now
    figures: Figures
    rating: Rating
    errors: Mapping[str, int]


def within(session: Session, wanted: Filter, *, default_days: int = DEFAULT_DAYS) -> Filter:
    """The same with a window: up to now and the last 30 days unless it says otherwise, 366 days at most."""
    end = wanted.created_before or session.scalars(sa.select(db_now())).one()
    try:
        start = wanted.created_from or end - timedelta(days=default_days)
    except OverflowError as error:
        raise _refused("?to", "is too early") from error
    if start >= end:
        raise _refused("?from", "must be before `to`")
    if end - start > timedelta(days=MAX_DAYS):
        raise _refused("?from", f"the window may be {MAX_DAYS} days long")
    return replace(wanted, created_from=start, created_before=end)


def total(session: Session, caller: Caller, wanted: Filter) -> Figures:
    """The figures of all that is asked for, as one."""
    return next(iter(_figures(session, executions.matching(session, caller, wanted), {}).values()), Figures())


def active_prompts(session: Session, caller: Caller, wanted: Filter) -> int:
    """How many prompts were run."""
    query = executions.matching(session, caller, wanted)
    return session.scalar(query.with_only_columns(sa.func.count(sa.distinct(Execution.prompt_id)))) or 0


def groups(
    session: Session, caller: Caller, wanted: Filter, group_by: str, *, limit: int = MAX_GROUPS
) -> tuple[list[Group], int]:
    """The groups with the most executions, and how many there are besides."""
    columns = GROUPS[group_by]
    found = _largest(session, executions.matching(session, caller, wanted), columns)
    names = _names(session, group_by, list(found)[:limit])
    return [Group(names[key], found[key]) for key in list(found)[:limit]], max(0, len(found) - limit)


def usage(
    session: Session, caller: Caller, wanted: Filter, *, interval: str, group_by: str | None
) -> tuple[list[Group], int]:
    """Figures over time: for each group every bucket of the window, those without an execution too.

    Buckets are UTC hours, days, or weeks from Monday; the first and the last hold what of them is in the window.
    Groups are those with the most executions; how many there are besides comes second.
    """
    assert wanted.created_from is not None
    assert wanted.created_before is not None
    width, shift = INTERVALS[interval]
    last = wanted.created_before - timedelta(microseconds=1)
    numbers = range(_bucket(wanted.created_from, width, shift), _bucket(last, width, shift) + 1)
    if len(numbers) > MAX_BUCKETS:
        raise _refused("?interval", f"the window would have {len(numbers):,} buckets, and {MAX_BUCKETS:,} are allowed")
    query = executions.matching(session, caller, wanted)
    columns = GROUPS[group_by] if group_by else ()
    totals = _largest(session, query, columns) if columns else {(): total(session, caller, wanted)}
    kept = list(totals)[:MAX_GROUPS]
    if columns and kept:
        query = query.where(sa.or_(*(_is(columns, key) for key in kept)))
    number = (epoch_seconds(Execution.created_at) + shift) // width
    by_bucket = _figures(session, query, {**_named(columns), "bucket": number})
    names = _names(session, group_by, kept) if group_by else {(): {}}
    found = []
    for key in kept:
        buckets = [
            (datetime.fromtimestamp(at * width - shift, UTC), by_bucket.get((*key, at), Figures())) for at in numbers
        ]
        found.append(Group(names[key], totals[key], buckets))
    return found, len(totals) - len(kept)


def by_mode(session: Session, caller: Caller, wanted: Filter) -> dict[str, ModeUsage]:
    """The runs of the prompts in each mode. The calls of evaluations and optimizations are not runs."""
    if wanted.created_from and wanted.created_before and wanted.created_from >= wanted.created_before:
        raise _refused("?to", "must be after `from`")
    runs = executions.matching(session, caller, replace(wanted, purpose="run"))
    figures = _figures(session, runs.join(Prompt, Prompt.id == Execution.prompt_id), {"mode": Prompt.mode})
    there = projects.living_in(session, caller, Prompt, wanted.project).where(Prompt.deleted_at.is_(None))
    counts = dict(session.execute(there.with_only_columns(Prompt.mode, sa.func.count()).group_by(Prompt.mode)).all())
    return {mode: ModeUsage(counts.get(mode, 0), figures.get((mode,), Figures())) for mode in MODES}


def by_version(session: Session, caller: Caller, prompt: Prompt, wanted: Filter) -> tuple[list[VersionFigures], int]:
    """The versions of a prompt that were run, highest number first, and how many more there are."""
    query = executions.matching(session, caller, replace(wanted, prompt_id=prompt.id))
    query = query.where(Execution.version_id.is_not(None))
    figures = _figures(session, query, {"version": Execution.version_id})
    numbers = dict(session.execute(sa.select(Version.id, Version.number).where(Version.prompt_id == prompt.id)).all())
    ratings = _ratings(session, query, Execution.version_id)
    labels: dict[uuid.UUID, list[str]] = {}
    ids = {number: version_id for version_id, number in numbers.items()}
    for placed in list_labels(session, prompt):
        labels.setdefault(ids[placed.version_number], []).append(placed.label)
    errors: dict[uuid.UUID, dict[str, int]] = {}
    failed: Any = query.with_only_columns(Execution.version_id, Execution.error_type, sa.func.count())
    failed = failed.where(Execution.error_type.is_not(None)).group_by(Execution.version_id, Execution.error_type)
    for version_id, error_type, count in session.execute(failed.order_by(sa.func.count().desc(), Execution.error_type)):
        errors.setdefault(version_id, {})[error_type] = count
    found = [
        VersionFigures(
            version_id,
            numbers[version_id],
            labels.get(version_id, []),
            figures[version_id,],
            ratings.get((version_id,), Rating()),
            errors.get(version_id, {}),
        )
        for (version_id,) in figures
    ]
    found.sort(key=lambda version: -version.version_number)
    return found[:MAX_VERSIONS], max(0, len(found) - MAX_VERSIONS)


def rating(session: Session, caller: Caller, wanted: Filter) -> Rating:
    """Of all feedback that has a score, on the executions that are asked for."""
    return _ratings(session, executions.matching(session, caller, wanted))[()]


def error_classes(session: Session, caller: Caller, wanted: Filter) -> list[ErrorClass]:
    """Error types by number. `truncated` is one of them: it succeeded, and was cut."""
    query = executions.matching(session, caller, wanted)
    counted: Any = query.with_only_columns(
        Execution.error_type,
        sa.func.count(),
        sa.func.count(sa.distinct(Execution.prompt_id)),
        sa.func.min(Execution.created_at),
        sa.func.max(Execution.created_at),
    )
    counted = counted.where(Execution.error_type.is_not(None)).group_by(Execution.error_type)
    rows = session.execute(counted.order_by(sa.func.count().desc(), Execution.error_type).limit(MAX_ERROR_TYPES))
    return [ErrorClass(*row) for row in rows]


def _figures(session: Session, query: sa.Select[Any], keys: Mapping[str, Any]) -> dict[tuple[Any, ...], Figures]:
    """Figures by key, in one reading of the rows.

    The value at the fraction p of n sorted ones lies between those of the ranks floor(p(n-1)) and the next. Both are
    picked by their row number, in whole numbers, so both databases pick the same.
    """
    in_group = list(keys.values())
    latency = Execution.latency_ms
    rows = query.with_only_columns(
        *(column.label(f"key_{name}") for name, column in keys.items()),
        Execution.state,
        Execution.prompt_tokens,
        Execution.response_tokens,
        Execution.cost_nano,
        latency,
        sa.func.row_number().over(partition_by=[*in_group, latency.is_(None)], order_by=latency).label("rank"),
        sa.func.count(latency).over(partition_by=in_group or None).label("n"),
    ).subquery()
    at = [column for name, column in rows.c.items() if name.startswith("key_")]
    ranks: list[Any] = []
    for percent in PERCENTILES:
        lower = (percent * (rows.c.n - 1)) // 100
        ranks += [sa.func.max(sa.case((rows.c.rank - 1 == rank, rows.c.latency_ms))) for rank in (lower, lower + 1)]
    measured: dict[str, Any] = {
        "executions": sa.func.count(),
        "succeeded": _count(rows.c.state == State.SUCCEEDED),
        "failed": _count(rows.c.state == State.FAILED),
        "canceled": _count(rows.c.state == State.CANCELED),
        "prompt_tokens": _sum(rows.c.prompt_tokens),
        "response_tokens": _sum(rows.c.response_tokens),
        "cost_nano": _sum(rows.c.cost_nano),
        "without_cost": _count(sa.and_(rows.c.state == State.SUCCEEDED, rows.c.cost_nano.is_(None))),
        "latencies": sa.func.coalesce(sa.func.max(rows.c.n), 0),
    }
    found = {}
    mean = sa.func.avg(rows.c.latency_ms)
    for row in session.execute(sa.select(*at, *measured.values(), mean, *ranks).group_by(*at)):
        key, (*counts, average), picked = row[: len(at)], row[len(at) : -len(ranks)], row[-len(ranks) :]
        counted = dict(zip(measured, map(int, counts), strict=True))
        found[tuple(key)] = Figures(
            **counted,
            mean_latency_ms=None if average is None else float(average),
            latency_ms=_percentiles(counted["latencies"], picked),
        )
    return found


def _percentiles(n: int, picked: Sequence[int | None]) -> tuple[float | None, ...]:
    if not n:
        return (None,) * len(PERCENTILES)
    found = []
    for percent, lower, upper in zip(PERCENTILES, picked[::2], picked[1::2], strict=True):
        assert lower is not None
        beyond = percent * (n - 1) % 100
        found.append(float(lower) if upper is None else lower + (upper - lower) * beyond / 100)
    return tuple(found)


def _largest(session: Session, query: sa.Select[Any], columns: Sequence[Any]) -> dict[tuple[Any, ...], Figures]:
    """Figures by group, the group with the most executions first."""
    found = _figures(session, query, _named(columns))
    return dict(sorted(found.items(), key=lambda item: (-item[1].executions, str(item[0]))))


def _named(columns: Sequence[Any]) -> dict[str, Any]:
    return {column.key: column for column in columns}


def _is(columns: Sequence[Any], key: tuple[Any, ...]) -> sa.ColumnElement[bool]:
    return sa.and_(*(column.is_not_distinct_from(value) for column, value in zip(columns, key, strict=True)))


def _names(session: Session, group_by: str, keys: Sequence[tuple[Any, ...]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The keys as the API shows them: ids with the names that belong to them."""
    if group_by not in ("prompt", "version"):
        names = ["status" if column.key == "state" else column.key for column in GROUPS[group_by]]
        return {key: dict(zip(names, key, strict=True)) for key in keys}
    prompt_ids = [key[0] for key in keys if key[0] is not None]
    prompt_names = dict(session.execute(sa.select(Prompt.id, Prompt.name).where(Prompt.id.in_(prompt_ids))).all())
    version_ids = [key[-1] for key in keys if group_by == "version" and key[-1] is not None]
    numbers = dict(session.execute(sa.select(Version.id, Version.number).where(Version.id.in_(version_ids))).all())
    found = {}
    for key in keys:
        found[key] = {"prompt_id": key[0], "prompt_name": prompt_names.get(key[0])}
        if group_by == "version":
            found[key] |= {"version_id": key[1], "version_number": numbers.get(key[1])}
    return found


def _ratings(session: Session, query: sa.Select[Any], *keys: Any) -> dict[tuple[Any, ...], Rating]:
    # The workspace too, else a small one would wait for the feedback of all to be read.
    on_execution = sa.and_(Feedback.execution_id == Execution.id, Feedback.workspace_id == Execution.workspace_id)
    rows = session.execute(
        query.with_only_columns(*keys, sa.func.count(Feedback.score), sa.func.avg(Feedback.score))
        .join(Feedback, on_execution)
        .group_by(*keys)
    )
    return {tuple(row[:-2]): Rating(row[-2], None if row[-1] is None else float(row[-1])) for row in rows}


def _count(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.count(sa.case((condition, 1)))


def _sum(column: Any) -> sa.ColumnElement[int]:
    return sa.cast(sa.func.coalesce(sa.func.sum(column), 0), sa.BigInteger)


def _bucket(at: datetime, width: int, shift: int) -> int:
    seconds = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    return (seconds + shift) // width


def _refused(pointer: str, detail: str) -> Unprocessable:
    error = FieldError(pointer, detail)
    return Unprocessable(str(error), errors=[error])
