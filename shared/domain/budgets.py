"""Ceilings that hold before money is spent (I6): reserved at the claim, settled at the finish.

Money is integer nano-dollars. A reservation is the upper bound that was computed when the execution
was created. An attempt whose outcome is unknown stays charged at that bound: it may have been billed.
"""

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.db import db_now
from shared.domain import jobs
from shared.models import Budget, Execution, Job, JobKind, State, new_id

NANO = 1_000_000_000
MEASURES = ("task_calls", "proposer_calls", "judge_calls", "tokens", "nano")
CALLS_OF = {"proposal": "proposer_calls", "judge": "judge_calls", "embedding": "judge_calls"}  # all else: task_calls
UNBLOCK_AT_ONCE = 100


@dataclass(frozen=True)
class Limits:
    """A null field is no limit."""

    max_task_calls: int | None = None
    max_proposer_calls: int | None = None
    max_judge_calls: int | None = None
    max_tokens: int | None = None
    max_cost_usd: float | None = None
    max_wall_seconds: int | None = None


@dataclass(frozen=True)
class Usage:
    """What one finished attempt used."""

    tokens: int
    nano: int


def create(
    session: Session,
    workspace_id: uuid.UUID,
    subject_id: uuid.UUID,
    limits: Limits,
    *,
    budget_id: uuid.UUID | None = None,
) -> uuid.UUID:
    budget = Budget(
        id=budget_id or new_id(),
        workspace_id=workspace_id,
        subject_id=subject_id,
        limit_task_calls=limits.max_task_calls,
        limit_proposer_calls=limits.max_proposer_calls,
        limit_judge_calls=limits.max_judge_calls,
        limit_tokens=limits.max_tokens,
        limit_nano=None if limits.max_cost_usd is None else round(limits.max_cost_usd * NANO),
        limit_wall_seconds=limits.max_wall_seconds,
    )
    session.add(budget)
    session.flush()
    return budget.id


def reserve(session: Session, wanted: Sequence[Job]) -> list[Job]:
    """Reserve for each locked job and return those that fit, in the order given.

    What the pause of its run holds back is set aside with `blocked_by` until that goes on; one that does not
    fit, until something in flight settles for less than its bound. When nothing is in flight it can never fit,
    and it fails with `budget_exceeded`. A call that comes due after the deadline of its run fails with `out_of_time`.
    """
    locked = _lock_budgets(session, wanted)
    if not locked:
        return list(wanted)
    bounds = _bounds(session, wanted)
    overdue = _overdue(session, locked.values())
    fits, hopeless, late = [], [], []
    for job in wanted:
        budget = locked.get(job.budget_id) if job.budget_id else None
        if budget is None:
            fits.append(job)
        elif budget.held:
            job.blocked_by = budget.id
        elif budget.id in overdue and job.kind == JobKind.EXECUTION:
            late.append(job)
        elif _has_room(budget, bounds[job.id]):
            _add(budget, "reserved", bounds[job.id])
            fits.append(job)
        elif any(getattr(budget, f"reserved_{measure}") for measure in MEASURES):
            job.blocked_by = budget.id
        else:
            hopeless.append(job)
    session.flush()
    jobs.close(
        session,
        [
            jobs.Ending(job, State.FAILED, "budget_exceeded", "what is left of the budget does not cover this call")
            for job in hopeless
        ]
        + [
            jobs.Ending(job, State.FAILED, "out_of_time", "the time of its run was up before this call began")
            for job in late
        ],
    )
    _unblock(session, sorted({job.budget_id for job in [*hopeless, *late] if job.budget_id}))
    return fits


def reserve_at_once(session: Session, wanted: Sequence[Job]) -> list[Job]:
    """Reserve for those that fit now, and leave the others as they are, as well as those whose budget is locked."""
    locked = _lock_budgets(session, wanted, skip_locked=True)
    bounds = _bounds(session, wanted) if locked else {}
    overdue = _overdue(session, locked.values())
    fits = []
    for job in wanted:
        if job.budget_id:
            budget = locked.get(job.budget_id)
            if budget is None or budget.held or budget.id in overdue or not _has_room(budget, bounds[job.id]):
                continue
            _add(budget, "reserved", bounds[job.id])
        fits.append(job)
    session.flush()
    return fits


def _overdue(session: Session, budgets: Iterable[Budget]) -> set[uuid.UUID]:
    """Of these budgets, those whose deadline has passed."""
    deadlines = {budget.id: budget.deadline_at for budget in budgets if budget.deadline_at is not None}
    if not deadlines:
        return set()
    now = session.scalars(sa.select(db_now())).one()
    return {budget_id for budget_id, deadline_at in deadlines.items() if deadline_at <= now}


def hold(session: Session, budget_id: uuid.UUID) -> None:
    """Let no job of this budget begin. Locks it: what has not begun by then does not."""
    session.get_one(Budget, budget_id, with_for_update=True, populate_existing=True).held = True
    session.flush()


def let_go(session: Session, budget_id: uuid.UUID) -> None:
    session.get_one(Budget, budget_id, with_for_update=True, populate_existing=True).held = False
    session.flush()
    _unblock(session, [budget_id])


def lock(session: Session, touched: Iterable[Job]) -> None:
    """Take the locks that several changes in this transaction will need, at once and in order."""
    _lock_budgets(session, touched)


def settle(session: Session, used: Mapping[int, Usage], finished: Sequence[Job]) -> None:
    """Replace the reservations of finished jobs by what they used (`used` by job id; absent: not billed).

    A job that the sweep had put back was charged its bound as presumed paid: that charge is corrected.
    """
    charges = {}
    for job in finished:
        usage = used.get(job.id)
        charges[job.id] = {} if usage is None else {"tokens": usage.tokens, "nano": usage.nano, "calls": 1}
    _move(session, finished, charges)


def give_back(session: Session, unstarted: Sequence[Job]) -> None:
    """Drop the reservations of jobs that made no call."""
    _move(session, unstarted, {job.id: {} for job in unstarted})


def presume_paid(session: Session, lost: Sequence[Job]) -> None:
    """Charge the bound for attempts whose outcome is unknown, and count them where users see it."""
    executions = [job.subject_id for job in lost if job.kind == JobKind.EXECUTION]
    if not executions:
        return
    session.execute(
        sa.update(Execution)
        .where(Execution.id.in_(executions))
        .values(ambiguous_attempts=Execution.ambiguous_attempts + 1)
    )
    _move(session, lost, None)


def _move(session: Session, moved: Sequence[Job], charges: Mapping[int, Mapping[str, int]] | None) -> None:
    """From reserved (or, for a salvaged job, from spent) to spent. `charges` None: the bound itself."""
    locked = _lock_budgets(session, moved)
    if not locked:
        return
    bounds = _bounds(session, moved)
    for job in moved:
        budget = locked.get(job.budget_id) if job.budget_id else None
        if budget is None:
            continue
        bound = bounds[job.id]
        held = "spent" if job.state == State.QUEUED else "reserved"
        _add(budget, held, {measure: -amount for measure, amount in bound.items()})
        _add(budget, "spent", bound if charges is None else _as_measures(bound, charges[job.id]))
    session.flush()
    _unblock(session, list(locked))


def unblock_stranded(session: Session) -> None:
    """Unblock jobs whose budget has nothing in flight: nobody is left whose end would do it."""
    idle = sa.and_(*(getattr(Budget, f"reserved_{measure}") == 0 for measure in MEASURES))
    blocked = Budget.id.in_(sa.select(Job.blocked_by).where(Job.blocked_by.is_not(None)).distinct())
    _unblock(session, session.scalars(sa.select(Budget.id).where(idle, blocked).order_by(Budget.id).limit(100)).all())


def _unblock(session: Session, budget_ids: Sequence[uuid.UUID]) -> None:
    """Let the next jobs of these budgets try again: a page of them, since most will find no room either.

    The rest is not forgotten: whatever becomes of a job of this page unblocks the next one.
    """
    for budget_id in budget_ids:
        page = (
            sa.select(Job.id)
            .where(
                Job.blocked_by == budget_id,
                Job.state == State.QUEUED,
                ~sa.exists().where(Budget.id == budget_id, Budget.held),
            )
            .order_by(Job.priority, Job.run_at, Job.id)
            .limit(UNBLOCK_AT_ONCE)
        )
        session.execute(
            sa.update(Job)
            .where(Job.id.in_(page.with_for_update(skip_locked=True)), Job.state == State.QUEUED)
            .values(blocked_by=None)
            .execution_options(synchronize_session=False)
        )


def _lock_budgets(session: Session, touched: Iterable[Job], *, skip_locked: bool = False) -> dict[uuid.UUID, Budget]:
    ids = sorted({job.budget_id for job in touched if job.budget_id})
    if not ids:
        return {}
    query = sa.select(Budget).where(Budget.id.in_(ids)).order_by(Budget.id).with_for_update(skip_locked=skip_locked)
    return {budget.id: budget for budget in session.scalars(query.execution_options(populate_existing=True))}


def _bounds(session: Session, of: Sequence[Job]) -> dict[int, dict[str, int]]:
    """By job id, the upper bound of each measure."""
    by_subject = defaultdict(list)
    for job in of:
        if job.budget_id:
            by_subject[job.subject_id].append(job.id)
    rows = session.execute(
        sa.select(Execution.id, Execution.purpose, Execution.estimate_tokens, Execution.estimate_nano).where(
            Execution.id.in_(list(by_subject))
        )
    )
    bounds: dict[int, dict[str, int]] = {job.id: {} for job in of}  # a step costs nothing
    for row in rows:
        call = CALLS_OF.get(row.purpose, "task_calls")
        for job_id in by_subject[row.id]:
            bounds[job_id] = {call: 1, "tokens": row.estimate_tokens, "nano": row.estimate_nano}
    return bounds


def _as_measures(bound: Mapping[str, int], charge: Mapping[str, int]) -> dict[str, int]:
    call = next((measure for measure in bound if measure.endswith("_calls")), "")
    return {call if name == "calls" else name: amount for name, amount in charge.items()}


def _has_room(budget: Budget, bound: Mapping[str, int]) -> bool:
    return all(
        (limit := getattr(budget, f"limit_{measure}")) is None
        or getattr(budget, f"spent_{measure}") + getattr(budget, f"reserved_{measure}") + amount <= limit
        for measure, amount in bound.items()
    )


def _add(budget: Budget, column: str, amounts: Mapping[str, int]) -> None:
    for measure, amount in amounts.items():
        name = f"{column}_{measure}"
        setattr(budget, name, getattr(budget, name) + amount)
