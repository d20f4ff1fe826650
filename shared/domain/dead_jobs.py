"""Dead jobs put to work again: not by moving them, for what has ended stays as it is (I5), but as new ones.

A dead execution is requeued as a new execution, the next generation of the same call in the ledger, with a job
whose `retry_of` is the dead one. So at most one of a lineage is open or has succeeded, and nothing is paid twice.
"""

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from shared.domain import events, jobs, queues
from shared.domain.jobs import NewJob
from shared.domain.lifecycle import Lifecycle
from shared.domain.tenants import Caller
from shared.errors import Conflict
from shared.models import (
    OPEN_STATES,
    Call,
    Evaluation,
    Execution,
    Generation,
    Job,
    JobKind,
    Project,
    ProjectStatus,
    Prompt,
    Queue,
    State,
    new_id,
)

COPIED_AT_ONCE = 50  # executions whose messages are in memory together
REFUSED_SHOWN = 100
# What was decided when the dead execution was made. It is not decided again: not the version, not the price.
_DECIDED = (
    "project_id prompt_id version_id purpose environment correlation_id provider model_name params variables messages"
    " tools response_schema sample budget_id estimate_tokens estimate_nano input_nano_per_mtok output_nano_per_mtok"
).split()


@dataclass(frozen=True)
class Requeued:
    """The dead job, and the execution and job that take its place."""

    job_id: int
    requeued_as: int
    execution_id: uuid.UUID


@dataclass(frozen=True)
class Refused:
    job_id: int
    reason: str


@dataclass(frozen=True)
class Filter:
    """Which dead jobs. A null field is any."""

    queue: str | None = None
    error: str | None = None
    kind: str | None = None
    failed_before: datetime | None = None


def requeue(session: Session, caller: Caller, job_id: int, *, request_id: str | None = None) -> Requeued:
    """Requeue one; `Conflict` says why not, and what to do instead."""
    jobs.get_job(session, caller, job_id)
    queues.accept(session, Queue.EXECUTIONS)
    done, refused = _requeue(session, caller, jobs.lock(session, [job_id]), request_id)
    if refused:
        raise Conflict(refused[0].reason)
    return done[0]


def requeue_many(
    session: Session, caller: Caller, which: Filter, *, limit: int, request_id: str | None = None
) -> tuple[list[Requeued], list[Refused]]:
    """Requeue the oldest dead executions, up to `limit`; and the dead jobs that cannot be, as far as they are shown.

    Those that have been requeued before are neither. Repeat it until none is requeued.
    """
    queues.accept(session, Queue.EXECUTIONS)
    own, newer = aliased(Call), aliased(Call)
    is_newest = ~sa.exists().where(
        newer.scope_id == own.scope_id, newer.call_key == own.call_key, newer.generation > own.generation
    )
    candidates = (
        sa.select(Job.id)
        .join(Execution, Execution.id == Job.subject_id)
        .join(own, own.execution_id == Execution.id)
        .where(*_dead(caller, which), Execution.scope_id.is_(None), is_newest, ~_is_closed())
        .order_by(Job.id)
        .limit(limit)
    )
    ids = session.scalars(candidates).all()
    done, refused = _requeue(session, caller, jobs.lock(session, ids, skip_locked=True), request_id)
    of_runs = (
        sa.select(Job)
        .join(Execution, Execution.id == Job.subject_id, isouter=True)
        .where(*_dead(caller, which), (Job.kind != JobKind.EXECUTION) | Execution.scope_id.is_not(None))
        .order_by(Job.id)
        .limit(REFUSED_SHOWN)
    )
    hopeless = session.scalars(of_runs).all()
    reasons = _reasons(session, hopeless)
    return done, refused + [Refused(job.id, reasons[job.id]) for job in hopeless]


def _dead(caller: Caller, which: Filter) -> list[sa.ColumnElement[bool]]:
    conditions = [Job.state == State.FAILED, *jobs.visible(caller)]
    for column, value in ((Job.queue, which.queue), (Job.error, which.error), (Job.kind, which.kind)):
        if value is not None:
            conditions.append(column == value)
    if which.failed_before is not None:
        conditions.append(Job.finished_at < which.failed_before)
    return conditions


def _is_closed() -> sa.ColumnElement[bool]:
    """Whether the prompt of an execution takes no runs now."""
    return (
        sa.exists()
        .where(Prompt.id == Execution.prompt_id, Project.id == Prompt.project_id)
        .where(
            sa.or_(
                Prompt.deleted_at.is_not(None),
                Prompt.lifecycle == Lifecycle.ARCHIVED,
                Project.status == ProjectStatus.ARCHIVED,
                Project.deleted_at.is_not(None),
            )
        )
        .correlate(Execution)
    )


def _requeue(
    session: Session, caller: Caller, locked: Sequence[Job], request_id: str | None
) -> tuple[list[Requeued], list[Refused]]:
    reasons = _reasons(session, locked)
    wanted = [job for job in locked if job.id not in reasons]
    made: list[Requeued] = []
    for start in range(0, len(wanted), COPIED_AT_ONCE):
        made += _copy(session, caller, wanted[start : start + COPIED_AT_ONCE], request_id)
    return made, [Refused(job_id, reason) for job_id, reason in reasons.items()]


def _reasons(session: Session, dead: Sequence[Job]) -> dict[int, str]:
    """Why a job cannot be requeued, by its id; absent: it can. Locks the ledger's rows of those that may be."""
    reasons: dict[int, str] = {}
    calls: dict[int, Job] = {}
    for job in dead:
        if job.state != State.FAILED:
            reasons[job.id] = f"the job is {job.state}; only what has failed is requeued"
        elif job.kind == JobKind.REPLAY:
            reasons[job.id] = f"it was a replay; POST {jobs.subject_url(job)}/replay starts another"
        elif job.kind != JobKind.EXECUTION:
            advice = "start a new one" if job.kind == JobKind.OPTIMIZATION else "retry that"
            reasons[job.id] = f"it was a step of {jobs.subject_url(job)}, which failed with it; {advice}"
        else:
            calls[job.id] = job
    subjects = [job.subject_id for job in calls.values()]
    scopes: dict[uuid.UUID, Any] = {
        row.id: row
        for row in session.execute(
            sa.select(
                Execution.id,
                Execution.scope_id.label("run_id"),
                Call.scope_id.label("ledger_scope"),
                _is_closed().label("is_closed"),
            )
            .join(Call, Call.execution_id == Execution.id)
            .where(Execution.id.in_(subjects))
        )
    }
    runs = {row.run_id for row in scopes.values() if row.run_id}
    nouns = {
        run_id: noun
        for noun, run in (("evaluation", Evaluation), ("generation", Generation))
        for run_id in session.scalars(sa.select(run.id).where(run.id.in_(runs)))
    }
    lineages = _lineages(session, [row.ledger_scope for row in scopes.values() if row.run_id is None])
    for job_id, job in calls.items():
        row = scopes.get(job.subject_id)
        if row is None:
            reasons[job_id] = "its execution has been pruned"
        elif row.run_id is not None:
            noun = nouns.get(row.run_id, "optimization")
            advice = "retry that" if noun == "evaluation" else f"start a new {noun}"
            reasons[job_id] = f"it was a call of /v1/{noun}s/{row.run_id}, which went on without it; {advice}"
        elif row.is_closed:
            reasons[job_id] = "its prompt or its project is archived or deleted, and takes no runs"
        else:
            for execution_id, state in lineages[row.ledger_scope].items():
                if state in (*OPEN_STATES, State.SUCCEEDED):
                    reasons[job_id] = f"it was requeued as /v1/executions/{execution_id}, which is {state}"
    return reasons


def _lineages(session: Session, scopes: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, dict[uuid.UUID, str]]:
    """By scope, the executions of one call and their states.

    The rows are locked first: of two who requeue the same call, the second sees what the first has made.
    """
    found: dict[uuid.UUID, dict[uuid.UUID, str]] = defaultdict(dict)
    of_scopes = sa.select(Call.scope_id, Call.execution_id).where(Call.scope_id.in_(scopes))
    session.execute(of_scopes.order_by(Call.scope_id, Call.generation).with_for_update()).all()
    states = of_scopes.add_columns(Execution.state).join(Execution, Execution.id == Call.execution_id)
    for row in session.execute(states.order_by(Call.generation)):
        found[row.scope_id][row.execution_id] = row.state
    return found


def _copy(session: Session, caller: Caller, dead: Sequence[Job], request_id: str | None) -> list[Requeued]:
    ids = {job.subject_id: new_id() for job in dead}
    decided = session.execute(
        sa.select(Execution.id, *(getattr(Execution, name) for name in _DECIDED)).where(Execution.id.in_(ids))
    ).all()
    session.execute(
        sa.insert(Execution),
        [
            {
                **{name: getattr(row, name) for name in _DECIDED},
                "id": ids[row.id],
                "workspace_id": caller.workspace_id,
                "mode": "async",
                "request_id": request_id,
                "created_by": caller.user_name,
            }
            for row in decided
        ],
    )
    _next_generation(session, caller, ids)
    events.record(
        session,
        [
            events.Change(caller.workspace_id, "execution.queued", new, {"retry_of": str(old)}, caller.user_name)
            for old, new in ids.items()
        ],
    )
    new_jobs = [
        # Nobody waits for it any more, so it does not go back to the interactive lane.
        NewJob(
            caller.workspace_id,
            JobKind.EXECUTION,
            Queue.EXECUTIONS,
            ids[job.subject_id],
            priority=job.priority,
            budget_id=job.budget_id,
            retry_of=job.id,
        )
        for job in dead
    ]
    made = jobs.enqueue(session, new_jobs)
    return [Requeued(job.id, new, ids[job.subject_id]) for job, new in zip(dead, made, strict=True)]


def _next_generation(session: Session, caller: Caller, ids: Mapping[uuid.UUID, uuid.UUID]) -> None:
    """The ledger's rows of the new executions (by the old ones): the same call, one generation later."""
    own, last = aliased(Call), aliased(Call)
    rows = session.execute(
        sa.select(own.execution_id, own.scope_id, own.call_key, sa.func.max(last.generation).label("newest"))
        .join(last, sa.and_(last.scope_id == own.scope_id, last.call_key == own.call_key))
        .where(own.execution_id.in_(ids))
        .group_by(own.execution_id, own.scope_id, own.call_key)
    )
    session.execute(
        sa.insert(Call),
        [
            {
                "scope_id": row.scope_id,
                "call_key": row.call_key,
                "generation": row.newest + 1,
                "workspace_id": caller.workspace_id,
                "execution_id": ids[row.execution_id],
            }
            for row in rows
        ],
    )
