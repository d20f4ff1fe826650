"""What evaluations and optimizations share: units of work fanned out as executions, and collected again.

A unit of work is a row with a key that is a hash of its content, so emitting it twice inserts nothing.
Several units may share one call: the ledger decides, by the content of the request.
"""

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.bulk_rows import bulk_insert, bulk_update
from shared.db import among, db_now
from shared.domain import budgets, events, executions, jobs, providers
from shared.domain.executions import NewExecution
from shared.domain.jobs import Unmade
from shared.domain.tenants import Caller
from shared.errors import Conflict
from shared.models import (
    LIVE_STATES,
    Barrier,
    BulkOperation,
    Call,
    Evaluation,
    Execution,
    Generation,
    JobKind,
    Optimization,
    Queue,
    State,
    WorkItem,
)
from shared.scoring import Facts

_ATTEMPTED = (Execution.attempts > 0) | (Execution.ambiguous_attempts > 0)


@dataclass(frozen=True)
class Unit:
    """One unit of work with the call that it needs. `call` is None when it cannot be rendered (`problem`)."""

    key: str
    kind: str  # evaluate, propose, judge, embedding or generate
    call: NewExecution | None
    candidate: str | None = None
    test_case_id: uuid.UUID | None = None
    repeat: int = 0
    problem: str = ""
    is_usable: Callable[[str], bool] | None = None  # whether an answer of another run will do; None: any will


@dataclass(frozen=True)
class Reuse:
    """Where answers that have been paid for are looked for before a call is made."""

    project_id: uuid.UUID
    fresh: bool = False  # not in other runs
    retry_of: uuid.UUID | None = None  # but always in this one


@dataclass(frozen=True)
class Collected:
    """A unit whose call has ended. `text` is None when there is no answer; `error` then says why."""

    item_id: int
    key: str
    kind: str
    candidate: str | None
    test_case_id: uuid.UUID | None
    repeat: int
    text: str | None
    error: str | None = None
    facts: Facts = field(default_factory=Facts)  # of an answer
    cached: bool = False  # the answer is that of another run, and was paid for there


def begin(
    session: Session,
    *,
    workspace_id: uuid.UUID,
    kind: JobKind,
    subject_id: uuid.UUID,
    step_no: int,
    units: Sequence[Unit],
    total: int,
    reuse: Reuse,
) -> None:
    """Insert the first of `total` units of a new run and their calls, before the step that fans out the others.

    The barrier counts those others as calls already, and stays up until that step has said how many it has made.
    """
    missing, known = _sorted_out(session, subject_id, units, reuse)
    calls = len(missing) + total - len(units)
    barrier_id = _raise_barrier(session, workspace_id, kind, subject_id, step_no, total=calls, remaining=calls + 1)
    _insert(session, workspace_id, subject_id, step_no, units, missing, known, barrier_id)


def count_begun(session: Session, subject_id: uuid.UUID, step_no: int) -> int:
    """How many units `begin` has inserted."""
    begun = sa.select(sa.func.count()).where(WorkItem.scope_id == subject_id, WorkItem.step_no == step_no)
    return session.scalars(begun).one()


def fan_out(
    session: Session,
    *,
    workspace_id: uuid.UUID,
    kind: JobKind,
    subject_id: uuid.UUID,
    step_no: int,
    units: Sequence[Unit],
    reuse: Reuse | None = None,
    begun: int = 0,
) -> Unmade | None:
    """Insert the units, their calls and a barrier that starts step `step_no` when all calls have ended.

    A call that the ledger of this run holds already is not made again; it is only waited for if open. With `reuse`
    neither is one that another run has had answered: the unit then points at that execution, and nothing is charged.
    `begun`: so many units come before these, and a barrier waits; the job of the step must end with what is returned.
    """
    missing, known = _sorted_out(session, subject_id, units, reuse)
    if begun:
        found = sa.select(Barrier.id, Barrier.total).where(Barrier.subject_id == subject_id, Barrier.step_no == step_no)
        barrier_id, counted = session.execute(found).one()
        _insert(session, workspace_id, subject_id, step_no, units, missing, known, barrier_id, first=begun)
        made = session.scalars(sa.select(sa.func.count()).where(Call.scope_id == subject_id)).one()
        return Unmade(barrier_id, counted - made)
    count = len(missing)
    barrier_id = _raise_barrier(session, workspace_id, kind, subject_id, step_no, total=count, remaining=count)
    _insert(session, workspace_id, subject_id, step_no, units, missing, known, barrier_id)
    if not missing:
        jobs.enqueue_step(session, workspace_id, kind, subject_id, step_no)
    return None


def _sorted_out(
    session: Session, subject_id: uuid.UUID, units: Sequence[Unit], reuse: Reuse | None
) -> tuple[list[NewExecution], dict[str, uuid.UUID]]:
    """(the calls that are to be made, the executions of the others by call key)"""
    wanted = {unit.call.call_key: unit.call for unit in units if unit.call is not None}
    known = executions.find_calls(session, subject_id, list(wanted))
    generations: Mapping[str, int] = {}
    if reuse is not None:
        known = {**_paid_for(session, reuse, units), **known}
        generations = _generations(session, reuse.retry_of, [key for key in wanted if key not in known])
    missing = [
        replace(call, generation=generations[key]) if key in generations else call
        for key, call in wanted.items()
        if key not in known
    ]
    return missing, known


def _raise_barrier(
    session: Session,
    workspace_id: uuid.UUID,
    kind: JobKind,
    subject_id: uuid.UUID,
    step_no: int,
    *,
    total: int,
    remaining: int,
) -> int:
    barrier = Barrier(
        workspace_id=workspace_id, kind=kind, subject_id=subject_id, step_no=step_no, total=total, remaining=remaining
    )
    session.add(barrier)
    session.flush()
    return barrier.id


def _insert(
    session: Session,
    workspace_id: uuid.UUID,
    subject_id: uuid.UUID,
    step_no: int,
    units: Sequence[Unit],
    missing: Sequence[NewExecution],
    known: dict[str, uuid.UUID],
    barrier_id: int,
    *,
    first: int = 0,
) -> None:
    ids = executions.submit_many(session, missing, queue=Queue.EXECUTIONS, barrier_id=barrier_id)
    known |= {call.call_key: execution_id for call, execution_id in zip(missing, ids, strict=True)}
    if units:
        bulk_insert(
            session,
            WorkItem,
            [
                {
                    "workspace_id": workspace_id,
                    "scope_id": subject_id,
                    "step_no": step_no,
                    "ordinal": ordinal,
                    "work_key": unit.key,
                    "kind": unit.kind,
                    "candidate": unit.candidate,
                    "test_case_id": unit.test_case_id,
                    "repeat": unit.repeat,
                    "execution_id": known[unit.call.call_key] if unit.call else None,
                    "feedback": unit.problem or None,
                }
                for ordinal, unit in enumerate(units, start=first)
            ],
        )


def _paid_for(session: Session, reuse: Reuse, units: Sequence[Unit]) -> dict[str, uuid.UUID]:
    """By call key, the executions that units may point at instead of a call of their own."""
    checks = {unit.call.call_key: unit.is_usable for unit in units if unit.call is not None}

    def usable(key: str, text: str) -> bool:
        check = checks[key]
        return check is None or check(text)

    asked = usable if any(checks.values()) else None
    found: dict[str, uuid.UUID] = {}
    if not reuse.fresh:
        found = executions.find_answers(session, reuse.project_id, list(checks), usable=asked)
    if reuse.retry_of is not None:
        found |= _answers_of(session, reuse.retry_of, checks, usable)
    return found


def _answers_of(
    session: Session, run_id: uuid.UUID, wanted: Mapping[str, Any], usable: Callable[[str, str], bool]
) -> dict[str, uuid.UUID]:
    """The same of one run, with the answers that it had itself from others.

    Only what is wanted is read: each step of a continuation asks, and its source may have any number of answers.
    """
    found: dict[str, uuid.UUID] = {}
    keys = list(wanted)
    for start in range(0, len(keys), 500):
        rows = session.execute(
            sa.select(Call.call_key, Call.execution_id, Execution.response_text)
            .join(Execution, Execution.id == Call.execution_id)
            .where(
                Call.call_key.in_(keys[start : start + 500]),
                Call.scope_id != Call.execution_id,
                Execution.state == State.SUCCEEDED,
                sa.exists().where(WorkItem.execution_id == Call.execution_id, WorkItem.scope_id == run_id),
            )
            .order_by(Execution.id)
        )
        found.update({key: execution_id for key, execution_id, text in rows if usable(key, text or "")})
    return found


def _generations(session: Session, run_id: uuid.UUID | None, call_keys: Sequence[str]) -> dict[str, int]:
    """Of calls that another run made in vain: the generation that comes next."""
    found: dict[str, int] = {}
    for start in range(0, len(call_keys) if run_id else 0, 500):
        rows = session.execute(
            sa.select(Call.call_key, sa.func.max(Call.generation))
            .where(Call.scope_id == run_id, Call.call_key.in_(call_keys[start : start + 500]))
            .group_by(Call.call_key)
        )
        found.update({key: newest + 1 for key, newest in rows})
    return found


def collect(session: Session, subject_id: uuid.UUID, step_no: int) -> list[Collected]:
    """The units that a step was waiting for, in the order of their emission."""
    rows = session.connection().execute(_collected(), {"scope": subject_id, "step": step_no})
    return [
        Collected(
            row.id,
            row.work_key,
            row.kind,
            row.candidate,
            row.test_case_id,
            row.repeat,
            row.response_text if row.state == State.SUCCEEDED else None,
            _error(row),
            Facts(row.latency_ms, providers.usd(row.cost_nano)),
            row.scope_id is not None and row.scope_id != subject_id,
        )
        for row in rows
    ]


# Built once, here and below: to build a statement anew costs as much as to run it.
@cache
def _collected() -> sa.Select[*tuple[Any, ...]]:
    return (
        sa.select(
            WorkItem.id,
            WorkItem.work_key,
            WorkItem.kind,
            WorkItem.candidate,
            WorkItem.test_case_id,
            WorkItem.repeat,
            Execution.state,
            Execution.response_text,
            Execution.error_type,
            Execution.scope_id,
            Execution.latency_ms,
            Execution.cost_nano,
        )
        .join(Execution, Execution.id == WorkItem.execution_id, isouter=True)
        .where(WorkItem.scope_id == sa.bindparam("scope"), WorkItem.step_no == sa.bindparam("step"))
        .order_by(WorkItem.ordinal)
    )


def _error(row: Any) -> str | None:
    if row.state == State.SUCCEEDED:
        return None
    if row.state is None:
        return "render_failed"  # there was no call to make
    return str(row.error_type or row.state)


def record_scores(session: Session, scores: Sequence[Mapping[str, Any]]) -> None:
    """Write score, passed, feedback and details of work items, by `id`."""
    bulk_update(session, WorkItem, scores)


@dataclass(frozen=True)
class Spend:
    """Spend of a run: each call of its ledger that was attempted, once. `ambiguous`: attempts possibly paid besides."""

    task_calls: int
    proposer_calls: int
    judge_calls: int
    tokens: int
    nano: int
    ambiguous: int


def spends_of(session: Session, subject_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Spend]:
    """What users are told of runs: tokens and money are what the budget has charged, to the last nano-dollar.

    An attempt whose answer was never read is charged at its bound, like an answer that reports no usage. A call
    that was never attempted (canceled first, or over the budget) is none.
    """
    rows = session.connection().execute(_spends(), {"ids": list(subject_ids)})
    found = {row[0]: _spend(row[1:]) for row in rows}
    return {subject_id: found.get(subject_id, Spend(0, 0, 0, 0, 0, 0)) for subject_id in subject_ids}


@cache
def _spends() -> sa.Select[*tuple[Any, ...]]:
    return (
        sa.select(Execution.scope_id, *_figures(Execution.ambiguous_attempts))
        .where(among(Execution.scope_id), _ATTEMPTED)
        .group_by(Execution.scope_id)
    )


def logical_spend_of(
    session: Session, subject_id: uuid.UUID, *, step_no: int | None = None, own: bool = False
) -> Spend:
    """What a search decides by: the same without the attempts that were lost, for a crash must not change it (I9).

    And with the calls that a continuation takes over: to the search they are its own; `own` leaves these out. With
    `step_no`: as it was when that step was decided.
    """
    of_items = sa.select(WorkItem.execution_id).where(
        WorkItem.scope_id == subject_id, WorkItem.execution_id.is_not(None)
    )
    if step_no is not None:
        of_items = of_items.where(WorkItem.step_no <= step_no)
    query = sa.select(*_figures(sa.literal(0))).where(Execution.id.in_(of_items), _ATTEMPTED)
    if own:
        query = query.where(Execution.scope_id == subject_id)
    return _spend(session.execute(query).one())


def _figures(presumed_paid: sa.SQLColumnExpression[int]) -> list[sa.ColumnElement[int]]:
    """The columns of `Spend`, in its order."""

    def calls(measure: str) -> sa.ColumnElement[int]:
        purposes = [purpose for purpose, counted_as in budgets.CALLS_OF.items() if counted_as == measure]
        return sa.func.count().filter(Execution.purpose.in_(purposes))

    tokens, nano = charged(presumed_paid)
    return [
        sa.func.count().filter(Execution.purpose.not_in(list(budgets.CALLS_OF))),
        calls("proposer_calls"),
        calls("judge_calls"),
        *(sa.func.coalesce(sa.func.sum(each), 0) for each in (tokens, nano, Execution.ambiguous_attempts)),
    ]


def _spend(row: Iterable[Any]) -> Spend:
    return Spend(*(int(value) for value in row))


def charged(presumed_paid: sa.SQLColumnExpression[int]) -> tuple[sa.ColumnElement[int], sa.ColumnElement[int]]:
    """(tokens, nano-dollars) that an execution has cost; `presumed_paid` attempts are charged at their bound."""
    answered = Execution.state == State.SUCCEEDED
    used = Execution.prompt_tokens + Execution.response_tokens  # null unless both were reported
    tokens = sa.case((answered, sa.func.coalesce(used, Execution.estimate_tokens)), else_=0)
    nano = sa.case(
        (answered & used.is_(None), Execution.estimate_nano),
        (answered, sa.func.coalesce(Execution.cost_nano, 0)),  # null where no price is known
        else_=0,
    )
    return tokens + presumed_paid * Execution.estimate_tokens, nano + presumed_paid * Execution.estimate_nano


def open_calls(session: Session, subject_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, tuple[int, int]]:
    """(done, total) of the calls of each run's newest barrier: how far its current step has come.

    One of those done is missing while a step has yet to make others: the barrier is held for it."""
    rows = session.connection().execute(_newest_barriers(), {"ids": list(subject_ids)})
    done = {row.subject_id: (max(0, row.total - row.remaining), row.total) for row in rows}
    return dict.fromkeys(subject_ids, (0, 0)) | done


@cache
def _newest_barriers() -> sa.Select[*tuple[Any, ...]]:
    newest = (
        sa.select(Barrier.subject_id, sa.func.max(Barrier.step_no).label("step_no"))
        .where(among(Barrier.subject_id))
        .group_by(Barrier.subject_id)
        .subquery()
    )
    is_newest = sa.and_(Barrier.subject_id == newest.c.subject_id, Barrier.step_no == newest.c.step_no)
    return sa.select(Barrier.subject_id, Barrier.total, Barrier.remaining).join(newest, is_newest)


def cancel_run(
    session: Session,
    caller: Caller,
    run: Evaluation | Optimization | Generation | BulkOperation,
    *,
    kind: JobKind,
    reason: str = "",
) -> None:
    """End a run at once, keeping what it has paid for or done. Follow it with `jobs.cancel_scope` in a new transaction.

    Compare-and-set: a run that has ended meanwhile keeps its state, and this is a 409.
    """
    subject = jobs.SUBJECTS[kind]
    moved = session.execute(
        sa.update(subject)
        .where(subject.id == run.id, subject.state.in_(LIVE_STATES))
        .values(state=State.CANCELED, completed_at=db_now())
    )
    if not moved.rowcount:  # type: ignore[attr-defined]
        session.refresh(run)
        if run.state != State.CANCELED:
            raise Conflict(f"the {kind} has already {run.state}")
        return
    events.record(
        session,
        [
            events.Change(
                run.workspace_id, f"{kind}.canceled", run.id, {"reason": reason} if reason else {}, caller.user_name
            )
        ],
    )
    session.refresh(run)
