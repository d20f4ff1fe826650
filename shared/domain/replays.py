"""Replays: an ended search repeated from its records, which costs nothing. The repeating itself is in the worker."""

import uuid
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.db import db_now
from shared.domain import events, jobs, optimizations, queues
from shared.domain.events import Change
from shared.domain.tenants import Caller
from shared.errors import Conflict, NotFound
from shared.models import LIVE_STATES, OPEN_STATES, Job, JobKind, Optimization, Queue, State


def start_replay(session: Session, caller: Caller, optimization_id: uuid.UUID) -> dict[str, Any]:
    """Queue one; the one that is open, if there is one. `Conflict` while the search goes on, or never began."""
    run = optimizations.get_optimization(session, caller, optimization_id)
    session.refresh(run, with_for_update=True)
    if run.state in LIVE_STATES:
        raise Conflict(f"the optimization is {run.state}; replay it once it has ended")
    if run.search_state is None:
        raise Conflict("the optimization ended before its first step; there is nothing to replay")
    if run.replay is not None and (open_one := show_replay(session, run))["status"] in OPEN_STATES:
        return open_one
    queues.accept(session, Queue.OPTIMIZATIONS)
    new = jobs.NewJob(run.workspace_id, JobKind.REPLAY, Queue.OPTIMIZATIONS, run.id)
    (job_id,) = jobs.enqueue(session, [new])
    run.replay = {"job_id": job_id, "asked_by": caller.user_name, "asked_at": _now(session)}
    session.flush()
    _tell(session, run, "optimization.replay_queued", {"job_id": job_id}, caller.user_name)
    return show_replay(session, run)


def show_replay(session: Session, run: Optimization) -> dict[str, Any]:
    """The newest replay; its `status` is that of its job until there is a report."""
    if run.replay is None:
        raise NotFound("the optimization was never replayed")
    shown: dict[str, Any] = {"optimization_id": run.id, "identical": None, "difference": None, **run.replay}
    if "identical" in run.replay:
        return {**shown, "status": State.SUCCEEDED}
    job = session.get(Job, run.replay["job_id"])  # a job that failed long ago is pruned
    return {**shown, "status": State.FAILED if job is None else job.state}


def record_report(session: Session, job: Job, report: Mapping[str, Any]) -> None:
    run = session.get_one(Optimization, job.subject_id, with_for_update=True)
    if run.replay is None or run.replay["job_id"] != job.id:
        return  # another was asked for since
    run.replay = {**run.replay, **report, "replayed_at": _now(session)}
    session.flush()
    _tell(session, run, "optimization.replayed", {"identical": report["identical"]}, "")


def _now(session: Session) -> str:
    return session.scalars(sa.select(db_now())).one().isoformat()


def _tell(session: Session, run: Optimization, kind: str, data: Mapping[str, Any], actor: str) -> None:
    events.record(session, [Change(run.workspace_id, kind, run.id, dict(data), actor)])
