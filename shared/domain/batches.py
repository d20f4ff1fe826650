"""Batches: thousands of executions by one request, followed and canceled as one thing.

What a batch is doing is counted from its executions whenever it is asked for, so no finish of a call has to
write to it. Canceling it is a fact of its own, written first; its jobs follow page by page.
"""

import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, undefer

from shared.db import db_now
from shared.domain import budgets, datasets, evaluations, events, executions, jobs, pages, projects, queues, runs
from shared.domain.budgets import Limits
from shared.domain.executions import NewExecution, RunRequest
from shared.domain.pages import Page
from shared.domain.tenants import Caller
from shared.errors import Conflict, FieldError, NotFound, PromptmillError, Unprocessable, field_error
from shared.models import OPEN_STATES, Batch, Execution, Queue, State, new_id

MAX_ITEMS = 10_000
MAX_PLAN_SECONDS = 20.0  # for rendering, while somebody waits for the answer
MAX_RENDERED_BYTES = 128_000_000  # of all prompts together: they are in memory until they are stored
_SHOWN_ERRORS = 100
_SHOWN_OF_ONE_ITEM = 5
_MAX_DETAIL = 500  # characters; what was sent may be quoted in it


@dataclass(frozen=True)
class Item:
    """One item as it was sent: what it asks for, or why that cannot be read."""

    where: str  # its JSON pointer
    own: Collection[str]  # the fields that it gives itself
    asked: RunRequest | PromptmillError
    case: int | None = None  # the ordinal of the test case that it was made of


@dataclass(frozen=True)
class BatchRequest:
    items: Sequence[Item]
    shared: Collection[str] = ()  # the fields that are given once, for the items that do not give their own
    priority: int = jobs.DEFAULT_PRIORITY
    limits: Limits | None = None
    dataset_id: uuid.UUID | None = None
    dataset_revision: int | None = None


@dataclass(frozen=True)
class Rejection:
    index: int
    code: str
    detail: str
    errors: Sequence[FieldError]


@dataclass(frozen=True)
class BatchPlan:
    """All that is decided before the transaction: what is inserted, and what is not."""

    batch_id: uuid.UUID
    budget_id: uuid.UUID | None
    request: BatchRequest
    accepted: Sequence[NewExecution]
    rejected: Sequence[Rejection]


@dataclass(frozen=True)
class Progress:
    """What the executions of a batch have come to. `counts` has every state."""

    status: State
    counts: Mapping[str, int]
    tokens: int
    nano: int
    ambiguous_attempts: int
    completed_at: datetime | None
    eta_at: datetime | None  # None: not begun, ended, or being canceled


@dataclass(frozen=True)
class Result:
    """What became of an item: its execution as it stands, or why there is none."""

    index: int
    execution_id: uuid.UUID | None = None
    state: str | None = None
    error: Any = None


def items_of_dataset(
    session: Session, caller: Caller, request: RunRequest, dataset_name: str
) -> tuple[list[Item], uuid.UUID, int]:
    """One item for each case of the dataset's newest revision, which is given back too.

    The inputs of the case are the variables; its id is the execution's correlation id.
    """
    dataset = datasets.get_dataset(session, caller, dataset_name, project=request.project)
    executions.resolve(session, caller, request)  # what is wrong for every case is said once, of the request itself
    if not 1 <= dataset.case_count <= MAX_ITEMS:
        raise field_error("/dataset", f"{dataset.case_count:,} test cases; a batch takes 1 to {MAX_ITEMS:,}")
    cases = datasets.cases_of(session, dataset.id, dataset.revision)
    items = [
        Item("", (), replace(request, variables=case.inputs, correlation_id=str(case.case_id)), case.ordinal)
        for case in cases
    ]
    return items, dataset.id, dataset.revision


def plan_batch(session: Session, caller: Caller, request: BatchRequest) -> BatchPlan:
    """Resolve, check and render every item. Reads only. `Unprocessable` when not one of them can be run."""
    batch_id, budget_id = new_id(), new_id() if request.limits else None
    readable = [
        replace(item.asked, priority=request.priority, budget_id=budget_id, batch_id=batch_id, batch_index=index)
        for index, item in enumerate(request.items)
        if isinstance(item.asked, RunRequest)
    ]
    planned = executions.plan_each(session, caller, readable)
    deadline, room = time.monotonic() + MAX_PLAN_SECONDS, MAX_RENDERED_BYTES
    accepted: list[NewExecution] = []
    rejected: list[Rejection] = []
    for index, item in enumerate(request.items):
        outcome = item.asked if isinstance(item.asked, PromptmillError) else next(planned)
        if isinstance(outcome, PromptmillError):
            rejected.append(_rejection(index, item, outcome, request.shared))
            continue
        accepted.append(outcome)
        room -= outcome.size()
        if room < 0:
            raise field_error("/items", f"the rendered prompts pass {MAX_RENDERED_BYTES:,} characters; send fewer")
        if time.monotonic() > deadline:
            raise field_error("/items", f"{index + 1:,} were rendered in {MAX_PLAN_SECONDS:g} s; send fewer")
    if not accepted:
        raise _nothing_to_run(rejected)
    models = {(new.model.provider, new.model.model_name) for new in accepted}
    evaluations.check_limits(
        session, request.limits, *({"provider": provider, "model_name": name} for provider, name in sorted(models))
    )
    return BatchPlan(batch_id, budget_id, request, accepted, rejected)


def create_batch(session: Session, caller: Caller, plan: BatchPlan) -> uuid.UUID:
    """Insert the batch with its executions; its id."""
    queues.accept(session, Queue.EXECUTIONS)
    request = plan.request
    if request.limits is not None:
        budgets.create(session, caller.workspace_id, plan.batch_id, request.limits, budget_id=plan.budget_id)
    in_projects = {new.project_id for new in plan.accepted}
    session.add(
        Batch(
            id=plan.batch_id,
            workspace_id=caller.workspace_id,
            project_id=in_projects.pop() if len(in_projects) == 1 else None,
            dataset_id=request.dataset_id,
            dataset_revision=request.dataset_revision,
            priority=request.priority,
            budget_id=plan.budget_id,
            total=len(request.items),
            rejected=len(plan.rejected),
            rejections=[_stored(rejection) for rejection in plan.rejected],
            created_by=caller.user_name,
        )
    )
    session.flush()
    executions.submit_many(session, plan.accepted, queue=Queue.EXECUTIONS)
    counts = {"total": len(request.items), "rejected": len(plan.rejected)}
    events.record(
        session, [events.Change(caller.workspace_id, "batch.created", plan.batch_id, counts, caller.user_name)]
    )
    return plan.batch_id


def get_batch(session: Session, caller: Caller, batch_id: uuid.UUID) -> Batch:
    batch = session.scalars(_visible(caller).where(Batch.id == batch_id)).one_or_none()
    if batch is None:
        raise NotFound(f"no batch {batch_id}")
    return batch


def list_batches(session: Session, caller: Caller, *, project: str | None, limit: int, cursor: str | None) -> Page:
    query = _visible(caller)
    if project is not None:
        query = query.where(Batch.project_id == projects.get_project(session, caller, project).id)
    return pages.newest_first(session, query, Batch, limit=limit, cursor=cursor)


def results_of(session: Session, batch: Batch) -> list[Result]:
    """One for each item, in their order."""
    rejections = session.scalars(sa.select(Batch).where(Batch.id == batch.id).options(undefer(Batch.rejections))).one()
    rows = session.execute(
        sa.select(Execution.batch_index, Execution.id, Execution.state).where(Execution.batch_id == batch.id)
    )
    results = [Result(row.batch_index, row.id, row.state) for row in rows]
    results += [Result(kept["index"], error=kept["error"]) for kept in rejections.rejections]
    return sorted(results, key=lambda result: result.index)


def progress_of(session: Session, batches: Sequence[Batch]) -> dict[uuid.UUID, Progress]:
    """By batch id, in one statement."""
    tokens, nano = runs.charged(Execution.ambiguous_attempts)
    rows = session.execute(
        sa.select(
            Execution.batch_id,
            *(sa.func.count().filter(Execution.state == state).label(state) for state in State),
            sa.func.sum(tokens).label("tokens"),
            sa.func.sum(nano).label("nano"),
            sa.func.sum(Execution.ambiguous_attempts).label("ambiguous_attempts"),
            sa.func.min(Execution.started_at).label("started_at"),
            sa.func.max(Execution.completed_at).label("completed_at"),
            db_now().label("now"),
        )
        .where(Execution.batch_id.in_([batch.id for batch in batches]))
        .group_by(Execution.batch_id)
    )
    by_id = {batch.id: batch for batch in batches}
    return {row.batch_id: _progress(by_id[row.batch_id], row) for row in rows}


def cancel_batch(session: Session, caller: Caller, batch_id: uuid.UUID) -> Batch:
    """Ask for the end of a batch; 409 when all of it has ended. Follow it with `cancel_page` until that is done."""
    batch = get_batch(session, caller, batch_id)
    session.refresh(batch, with_for_update=True)
    if batch.cancel_requested_at is not None:
        return batch
    progress = progress_of(session, [batch])[batch.id]
    if progress.status not in OPEN_STATES:
        raise Conflict(f"the batch has already ended: {progress.status}")
    batch.cancel_requested_at = db_now()
    session.flush()
    events.record(
        session,
        [events.Change(batch.workspace_id, "batch.canceled", batch.id, dict(progress.counts), caller.user_name)],
    )
    return batch


def cancel_page(session: Session, batch_id: uuid.UUID, *, limit: int = 500) -> int:
    """Cancel some jobs of a batch whose end was asked for, in a transaction of its own; 0 when none is left."""
    canceled = jobs.cancel_batch(session, batch_id, limit=limit)
    if not canceled:
        session.execute(
            sa.update(Batch).where(Batch.id == batch_id, Batch.canceled_at.is_(None)).values(canceled_at=db_now())
        )
    return canceled


def cancel_left(session: Session) -> int:
    """The same for the batch whose cancel has waited longest: it died between two pages. How many jobs."""
    waiting = session.scalar(
        sa.select(Batch.id)
        .where(Batch.cancel_requested_at.is_not(None), Batch.canceled_at.is_(None))
        .order_by(Batch.cancel_requested_at)
        .limit(1)
    )
    return 0 if waiting is None else cancel_page(session, waiting)


def _visible(caller: Caller) -> sa.Select[Batch]:
    """A key that is limited to projects sees the batches whose executions it may all see."""
    query = sa.select(Batch).where(Batch.workspace_id == caller.workspace_id)
    if caller.project_ids is None:
        return query
    elsewhere = sa.exists().where(Execution.batch_id == Batch.id, Execution.project_id.not_in(caller.project_ids))
    return query.where(
        sa.or_(Batch.project_id.in_(caller.project_ids), sa.and_(Batch.project_id.is_(None), ~elsewhere))
    )


def _progress(batch: Batch, row: Any) -> Progress:
    counts = {str(state): int(getattr(row, state)) for state in State}
    status = _status(batch, counts)
    waiting = counts[State.QUEUED] + counts[State.RUNNING]
    ended = counts[State.SUCCEEDED] + counts[State.FAILED]
    eta_at = None
    if waiting and ended and batch.cancel_requested_at is None:
        eta_at = row.now + max(row.now - row.started_at, timedelta()) * (waiting / ended) if row.started_at else None
    return Progress(
        status=status,
        counts=counts,
        tokens=int(row.tokens),
        nano=int(row.nano),
        ambiguous_attempts=int(row.ambiguous_attempts),
        completed_at=None if waiting else row.completed_at,
        eta_at=eta_at,
    )


def _status(batch: Batch, counts: Mapping[str, int]) -> State:
    """Once it is terminal it never changes (I5): none of its executions does, and no other is added."""
    if counts[State.QUEUED] or counts[State.RUNNING]:
        return State.RUNNING if counts[State.QUEUED] < sum(counts.values()) else State.QUEUED
    if counts[State.CANCELED] and (batch.cancel_requested_at is not None or not counts[State.SUCCEEDED]):
        return State.CANCELED
    return State.SUCCEEDED if counts[State.SUCCEEDED] else State.FAILED


def _rejection(index: int, item: Item, error: PromptmillError, shared: Collection[str]) -> Rejection:
    problems = list(error.errors)
    if isinstance(error, NotFound):
        named = (field for field in error.fields if field in item.own or field in shared)
        problems = [FieldError(f"/{field}", error.detail) for field in named][:1]
    errors = [
        _located(item, problem, shared) for problem in (problems or [FieldError("", error.detail)])[:_SHOWN_OF_ONE_ITEM]
    ]
    return Rejection(index, error.code, "; ".join(map(str, errors))[:_MAX_DETAIL], errors)


def _located(item: Item, problem: FieldError, shared: Collection[str]) -> FieldError:
    """Where it stands what a problem of one run points at: in the item, beside the items, or in the dataset."""
    field = problem.pointer.split("/")[1] if problem.pointer else ""
    detail = problem.detail[:_MAX_DETAIL]
    if item.case is not None and field == "variables":
        return FieldError("/dataset", f"case {item.case} does not fit the prompt: {problem.pointer}: {detail}")
    if field in shared and field not in item.own:
        return FieldError(problem.pointer, detail)
    return FieldError(item.where + problem.pointer, detail)


def _nothing_to_run(rejected: Sequence[Rejection]) -> Unprocessable:
    """Each problem once: what is wrong beside the items is wrong in all of them."""
    errors = list(dict.fromkeys(error for rejection in rejected for error in rejection.errors))
    shown = "; ".join(map(str, errors[:5]))
    return Unprocessable(f"none of the {len(rejected):,} items can be run: {shown}", errors=errors[:_SHOWN_ERRORS])


def _stored(rejection: Rejection) -> dict[str, Any]:
    errors = [{"pointer": error.pointer, "detail": error.detail} for error in rejection.errors]
    return {
        "index": rejection.index,
        "error": {"code": rejection.code, "detail": rejection.detail, "errors": errors},
    }
