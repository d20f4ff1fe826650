"""A search repeated from its records, in one job and without a call: does it come to the same?"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.domain import controls, replays, runs
from shared.domain.leases import Lease
from shared.domain.runs import Collected, Spend
from shared.models import Candidate, Optimization, State
from worker.steps import Done, Failure, Verdict, judging
from worker.steps.evaluations import step_failure
from worker.steps.optimizations import Loaded, decide, load_basis, measured_in, questions_of
from worker.strategies.record import Record

_OF_CANDIDATES = ("hash", "decision", "reason", "cases", "mean", "standard_error")
_SHOWN = 500  # characters of a value that differs


@dataclass(frozen=True)
class _Recorded:
    """A run as it is stored: per step what it was told, by what it decided, and what it then asked for."""

    basis: Loaded
    collected: Mapping[int, Sequence[Collected]]
    spends: Mapping[int, Spend]
    budgets: Mapping[int, Mapping[str, Any]]
    candidates: list[dict[str, Any]]
    late: int | None  # the step of the search at which its time was up


def load(session: Session, leases: Sequence[Lease]) -> Mapping[int, Any]:
    loaded = {}
    for lease in leases:
        optimization = session.get_one(Optimization, lease.subject_id)
        if optimization.search_state is not None:
            loaded[lease.job_id] = _load(session, optimization)
    return loaded


def run(lease: Lease, recorded: _Recorded) -> dict[str, Any]:
    state: Any = None
    problem = None
    last = recorded.basis.optimization.step_no
    for step_no in range(1, last + 1):
        collected = recorded.collected[step_no]
        replies: Sequence[Collected] = ()
        if judging.is_about_answers(collected):
            collected, replies = recorded.collected[step_no - 1], collected
        loaded = replace(
            recorded.basis,
            state=state,
            collected=collected,
            replies=replies,
            spend=recorded.spends[step_no],
            budget=recorded.budgets[step_no],
            late=state is not None and recorded.late == state["step"] + 1,
        )
        if questions_of(loaded):
            continue  # the search heard of the answers at the next step, with the replies
        problem, step, _ = decide(loaded)
        state = json.loads(json.dumps(step.state))
        asked = [work.key for work in step.work]
        told = [item.key for item in recorded.collected[step_no + 1] if item.kind not in judging.KINDS]
        if difference := first_difference(told, asked, f"/steps/{step_no}/work"):
            return _report(step_no, state, difference)
    assert problem is not None
    stored = recorded.basis.optimization.search_state
    difference = (
        first_difference(recorded.candidates, _candidates(Record(problem, state)), "/candidates")
        or first_difference(stored["scores"], state["scores"], "/scores")
        or first_difference(stored["result"], state["result"], "/result")
        or first_difference(stored, state, "/state")
    )
    return _report(last, state, difference)


def finish(session: Session, done: Sequence[Done]) -> Mapping[int, Verdict]:
    verdicts = {}
    for item in done:
        if isinstance(item.outcome, Failure):
            verdicts[item.job.id] = step_failure(item.job, item.outcome)
        elif isinstance(item.outcome, dict):
            replays.record_report(session, item.job, item.outcome)
            verdicts[item.job.id] = Verdict(State.SUCCEEDED)
        else:
            verdicts[item.job.id] = Verdict(State.CANCELED)
    return verdicts


def first_difference(recorded: Any, replayed: Any, at: str) -> dict[str, Any] | None:
    """Where two JSON values first differ, in the order of the recorded one; None when they are the same."""
    if isinstance(recorded, Mapping) and isinstance(replayed, Mapping):
        for name in [*recorded, *(name for name in replayed if name not in recorded)]:
            if difference := first_difference(recorded.get(name), replayed.get(name), f"{at}/{name}"):
                return difference
        return None
    if isinstance(recorded, list) and isinstance(replayed, list):
        for i in range(max(len(recorded), len(replayed))):
            one, other = (values[i] if i < len(values) else None for values in (recorded, replayed))
            if difference := first_difference(one, other, f"{at}/{i}"):
                return difference
        return None
    if recorded == replayed:
        return None
    return {"at": at, "recorded": _shown(recorded), "replayed": _shown(replayed)}


def _load(session: Session, optimization: Optimization) -> _Recorded:
    steps = range(1, optimization.step_no + 2)  # with the results that the last one has asked for
    rows = session.execute(
        sa.select(*(getattr(Candidate, name) for name in _OF_CANDIDATES))
        .where(Candidate.optimization_id == optimization.id)
        .order_by(Candidate.ordinal)
    )
    return _Recorded(
        replace(load_basis(session, optimization), state=None),
        {step_no: runs.collect(session, optimization.id, step_no) for step_no in steps},
        {step_no: runs.logical_spend_of(session, optimization.id, step_no=step_no) for step_no in steps},
        {step_no: controls.budget_at(optimization, step_no) for step_no in steps},
        [dict(row) for row in rows.mappings()],
        (optimization.search_state or {}).get("out_of_time"),
    )


def _candidates(record: Record) -> list[dict[str, Any]]:
    """As the rows of the run show them."""
    return [
        {"hash": item["hash"], "decision": item["decision"], "reason": item["reason"], **asdict(found)}
        for item, found in zip(record.state["candidates"], measured_in(record), strict=True)
    ]


def _report(steps: int, state: Mapping[str, Any], difference: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "identical": difference is None,
        "steps": steps,
        "candidates": len(state["candidates"]),
        "verdict": (state["result"] or {}).get("verdict"),
        "difference": difference,
    }


def _shown(value: Any) -> Any:
    text = json.dumps(value, sort_keys=True)
    return value if len(text) <= _SHOWN else text[:_SHOWN]
