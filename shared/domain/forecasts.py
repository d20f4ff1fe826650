"""What an evaluation would take: calls, tokens, money and time, as ranges. Reads only.

Each call has an upper bound, which is what a budget reserves. What calls of the same model have used of their bounds
lately is the range from the tenth to the ninetieth of a hundred; without any such call it is from nothing to the bound.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.domain import evaluations, executions, judges, providers, status
from shared.domain.datasets import RunCase
from shared.domain.evaluations import EvaluationRequest, Target
from shared.domain.providers import Quote
from shared.domain.tenants import Caller
from shared.models import Execution, Queue, State
from shared.scoring import Delivered, asks
from shared.scoring.scores import text_of

RECENT = 200  # calls
SEARCHED = 5_000  # of the newest executions of the workspace
MOST_CELLS = 5_000  # that are looked at one by one; of more, as many, evenly spread
MOST_JUDGED = 200  # likewise, for what judges are asked
_READ = (
    "id created_at project_id state provider model_name purpose prompt_tokens response_tokens estimate_tokens"
    " estimate_nano cost_nano latency_ms"
).split()
STANDIN = "x" * 400  # for an answer that is not there yet, where nothing is expected


@dataclass(frozen=True)
class Range:
    low: float
    high: float


@dataclass(frozen=True)
class Forecast:
    """`cost_usd` is None where a price is not known, `seconds` where nobody works or nothing was measured."""

    cells: int
    task_calls: int
    cached_calls: int
    judge_calls: int
    tokens: Range
    cost_usd: Range | None
    seconds: Range | None
    measured_calls: int
    slots: int


@dataclass(frozen=True)
class _Lot:
    """Calls of one model for one purpose, and what they cannot pass: with answers as short as can be, and as long."""

    quote: Quote
    purpose: str
    calls: float
    low: tuple[float, float]  # tokens and nano-dollars
    high: tuple[float, float]


@dataclass(frozen=True)
class _Recent:
    """Of recent calls: shares of the bound in tokens and in money, milliseconds."""

    tokens: Sequence[float]
    nano: Sequence[float]
    latency_ms: Sequence[float]


def forecast(
    session: Session, caller: Caller, request: EvaluationRequest, scorers: Sequence[Mapping[str, Any]], target: Target
) -> Forecast:
    """Of this request, which is checked as for a start."""
    evaluations.check_request(session, caller, request, scorers, target)
    cells = len(target.cases) * request.repeats
    task, cached = _task_lot(session, caller, request, scorers, target)
    lots = [lot for lot in (task, *_judge_lots(session, request, scorers, target)) if lot.calls]
    recent = [_recent(session, caller, target, lot) for lot in lots]
    slots = status.slots(session, Queue.EXECUTIONS)
    priced = all(lot.quote.has_price for lot in lots)
    return Forecast(
        cells,
        round(task.calls),
        cached,
        round(sum(lot.calls for lot in lots if lot is not task)),
        _sum(_range(lot.low[0], lot.high[0], past.tokens) for lot, past in zip(lots, recent, strict=True)),
        _dollars(_sum(_range(lot.low[1], lot.high[1], past.nano) for lot, past in zip(lots, recent, strict=True)))
        if priced
        else None,
        _seconds(lots, recent, slots),
        sum(len(past.tokens) for past in recent),
        slots,
    )


def _task_lot(
    session: Session, caller: Caller, request: EvaluationRequest, scorers: Sequence[Mapping[str, Any]], target: Target
) -> tuple[_Lot, int]:
    """The calls that answer the cases, without those that have been answered before; and how many of those."""
    quote = providers.quote(session, target.model["provider"], target.model["model_name"])
    row = evaluations.planned(caller, request, scorers, target)
    some = _spread(target.cases, max(1, MOST_CELLS // request.repeats))
    calls = {call.call_key: call for _, _, call in evaluations.calls_of(row, target.version, some, quote)}
    looked_at = len(some) * request.repeats
    known = {} if request.fresh else executions.find_answers(session, target.prompt.project_id, list(calls))
    scale = len(target.cases) / len(some)
    wanted = [call.bound for key, call in calls.items() if key not in known]
    tokens, nano = (scale * sum(bound[i] for bound in wanted) for i in (0, 1))
    shared = looked_at - len(calls)  # cells that ask the same have one call
    cached = sum(1 for key in calls if key in known)
    lot = _Lot(quote, "evaluation", scale * (looked_at - shared - cached), (tokens, nano), (tokens, nano))
    return lot, round(scale * cached)


def _judge_lots(
    session: Session, request: EvaluationRequest, scorers: Sequence[Mapping[str, Any]], target: Target
) -> list[_Lot]:
    quotes = judges.quotes_of(session, scorers)
    if not quotes:
        return []
    some = _spread(target.cases, MOST_JUDGED)
    scale = request.repeats * len(target.cases) / len(some)
    longest = int(target.model["params"].get("max_new_tokens", providers.DEFAULT_OUTPUT_TOKENS))
    found: dict[tuple[Quote, str], _Lot] = {}
    for case in some:
        for ask in asks(scorers, _standin(case)):
            quote = judges.quote_of(quotes, ask)
            low = judges.bound_of(quotes, ask)
            more = 4 * longest  # no tokenizer makes more tokens than bytes, and about four bytes make a token
            high = (low[0] + more, low[1] + (quote.cost_nano(more, 0) or 0))
            lot = found.get((quote, ask.purpose), _Lot(quote, ask.purpose, 0, (0, 0), (0, 0)))
            found[quote, ask.purpose] = replace(
                lot,
                calls=lot.calls + scale,
                low=(lot.low[0] + scale * low[0], lot.low[1] + scale * low[1]),
                high=(lot.high[0] + scale * high[0], lot.high[1] + scale * high[1]),
            )
    return list(found.values())


def _standin(case: RunCase) -> Delivered:
    return Delivered(STANDIN if case.expected is None else text_of(case.expected), case.expected, inputs=case.inputs)


def _spread(cases: Sequence[RunCase], most: int) -> Sequence[RunCase]:
    if len(cases) <= most:
        return cases
    return [cases[i * len(cases) // most] for i in range(most)]


def _recent(session: Session, caller: Caller, target: Target, lot: _Lot) -> _Recent:
    """The newest calls like these: of the same project, model and purpose."""
    newest = (
        sa.select(*(getattr(Execution, name) for name in _READ))
        .where(Execution.workspace_id == caller.workspace_id)
        .order_by(Execution.created_at.desc(), Execution.id.desc())
        .limit(SEARCHED)
        .subquery()
    )
    one = newest.c
    rows = session.execute(
        sa.select(
            one.estimate_tokens,
            one.estimate_nano,
            (one.prompt_tokens + one.response_tokens).label("tokens"),
            one.cost_nano,
            one.latency_ms,
        )
        .where(
            one.project_id == target.prompt.project_id,
            one.state == State.SUCCEEDED,
            one.provider == lot.quote.provider,
            one.model_name == lot.quote.model_name,
            one.purpose.in_(("run", "evaluation") if lot.purpose == "evaluation" else (lot.purpose,)),
            one.prompt_tokens.is_not(None),
            one.response_tokens.is_not(None),
        )
        .order_by(one.created_at.desc(), one.id.desc())
        .limit(RECENT)
    ).all()
    return _Recent(
        [row.tokens / row.estimate_tokens for row in rows if row.estimate_tokens],
        [row.cost_nano / row.estimate_nano for row in rows if row.estimate_nano and row.cost_nano is not None],
        [row.latency_ms for row in rows if row.latency_ms is not None],
    )


def _range(low: float, high: float, shares: Sequence[float]) -> Range:
    if not shares:
        return Range(0.0, high)
    tenth, ninetieth = np.quantile(np.asarray(shares, dtype=float), [0.1, 0.9])
    return Range(low * float(tenth), high * min(1.0, float(ninetieth)))


def _sum(ranges: Iterator[Range]) -> Range:
    found = list(ranges)
    return Range(sum(one.low for one in found), sum(one.high for one in found))


def _dollars(nano: Range) -> Range:
    return Range(nano.low / 1e9, nano.high / 1e9)


def _seconds(lots: Sequence[_Lot], recent: Sequence[_Recent], slots: int) -> Range | None:
    """Every slot busy with nothing else, at the median latency; and at the ninetieth of a hundred."""
    if not slots or not all(past.latency_ms for past in recent):
        return None
    ranges = []
    for lot, past in zip(lots, recent, strict=True):
        median, slow = np.quantile(np.asarray(past.latency_ms, dtype=float), [0.5, 0.9])
        ranges.append(Range(lot.calls * float(median) / 1000 / slots, lot.calls * float(slow) / 1000 / slots))
    return _sum(iter(ranges))
