"""Steering an optimization: pause, resume, higher ceilings, and new ones made from it (continuation, clone).

An ended run never changes (I5), so what goes on after its end is another one, which takes over what was paid for.
Locks go from the budget to the run, the order in which the claim of a first step takes them.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.domain import budgets, clocks, datasets, events, optimizations, projects, prompts, takeovers
from shared.domain.budgets import NANO, Limits
from shared.domain.evaluations import Target
from shared.domain.events import Change
from shared.domain.lifecycle import check_runnable
from shared.domain.optimizations import OptimizationRequest
from shared.domain.takeovers import CONTINUATION
from shared.domain.tenants import Caller
from shared.errors import Conflict, FieldError, Unprocessable, field_error
from shared.models import (
    LIVE_STATES,
    OPEN_STATES,
    PAUSED,
    Budget,
    Execution,
    Optimization,
    Prompt,
    State,
    Version,
    new_id,
)

CLONE = "clone"
# The ceilings as requests, budgets and specs call them.
_CEILINGS = {
    "max_task_calls": ("limit_task_calls", "max_task_calls"),
    "max_proposer_calls": ("limit_proposer_calls", "max_proposer_calls"),
    "max_judge_calls": ("limit_judge_calls", "max_judge_calls"),
    "max_tokens": ("limit_tokens", "max_tokens"),
    "max_cost_usd": ("limit_nano", "max_cost_nano"),
    "max_wall_seconds": ("limit_wall_seconds", "max_wall_seconds"),
}


@dataclass(frozen=True, kw_only=True)
class CloneRequest:
    """What differs from the source; knobs and the like are changed one by one."""

    seed: int
    name: str | None = None
    budget: Limits | None = None
    knobs: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    early_stopping: Mapping[str, Any] = field(default_factory=dict)


def pause(session: Session, caller: Caller, optimization_id: uuid.UUID) -> Optimization:
    """Begin nothing new of a run. Calls and a step in flight end, and what they bring is kept.

    A step in flight may be the last one: then the run ends although it was paused.
    """
    run = optimizations.get_optimization(session, caller, optimization_id)
    budgets.hold(session, _budget_of(run))
    session.refresh(run, with_for_update=True)
    if run.state == PAUSED:
        return run
    if run.state not in OPEN_STATES:
        raise Conflict(f"the optimization has already {run.state}")
    clocks.stop(session, session.get_one(Budget, _budget_of(run)))
    run.state = PAUSED
    return _told(session, caller, run, "optimization.paused", {})


def resume(session: Session, caller: Caller, optimization_id: uuid.UUID) -> Optimization:
    """Go on where the run was paused; nothing is paid for twice."""
    run = optimizations.get_optimization(session, caller, optimization_id)
    projects.get_project(session, caller, str(run.project_id), writing=True)
    budgets.let_go(session, _budget_of(run))
    session.refresh(run, with_for_update=True)
    if run.state in OPEN_STATES:
        return run
    if run.state != PAUSED:
        raise Conflict(f"the optimization has already {run.state}")
    clocks.go_on(session, session.get_one(Budget, _budget_of(run)), run.started_at)
    run.state = State.RUNNING if run.started_at else State.QUEUED
    return _told(session, caller, run, "optimization.resumed", {"state": run.state})


def raise_budget(session: Session, caller: Caller, optimization_id: uuid.UUID, limits: Limits) -> Optimization:
    """Raise ceilings of a run that has not ended; it holds for the steps that are still to be decided.

    What it has already is no change, so that a request may be repeated.
    """
    run = optimizations.get_optimization(session, caller, optimization_id)
    projects.get_project(session, caller, str(run.project_id), writing=True)
    budget = session.get_one(Budget, _budget_of(run), with_for_update=True, populate_existing=True)
    session.refresh(run, with_for_update=True)
    if run.state not in LIVE_STATES:
        raise Conflict(
            f"the optimization has already {run.state}; POST /v1/optimizations/{run.id}/continue goes on"
            " from a run that stopped for its budget"
        )
    before = run.spec["budget"]
    raised = _raised(budget, limits, "", must=False)
    if not raised:
        raise field_error("", "name a ceiling")
    if all(value == getattr(budget, _CEILINGS[name][0]) for name, value in raised.items()):
        return run
    if budget.deadline_at is not None and budget.limit_wall_seconds is not None:
        more = raised.get("max_wall_seconds", budget.limit_wall_seconds) - budget.limit_wall_seconds
        budget.deadline_at += timedelta(seconds=more)
    for name, value in raised.items():
        setattr(budget, _CEILINGS[name][0], value)
    after = {**before, **_as_spec(raised)}
    run.spec = {**run.spec, "budget": after}
    decided = run.ceilings or [{"from_step": 1, "budget": before}]
    run.ceilings = [*decided, {"from_step": None, "budget": after}]
    session.flush()
    if not budget.held:
        budgets.let_go(session, budget.id)
    return _told(session, caller, run, "optimization.budget_raised", {"from": before, "to": after})


def in_force(
    ceilings: Sequence[Mapping[str, Any]] | None, budget: Mapping[str, Any], step_no: int
) -> list[Mapping[str, Any]] | None:
    """The ceilings with the step from which this budget decides, if it is new: a replay must know. Pure."""
    if ceilings is None:
        return None
    newest = max((i for i, entry in enumerate(ceilings) if entry["budget"] == budget), default=0)
    if ceilings[newest]["from_step"] is not None:
        return list(ceilings)
    known = [entry for entry in ceilings[:newest] if entry["from_step"] is not None]
    return [*known, {**ceilings[newest], "from_step": step_no}, *ceilings[newest + 1 :]]


def budget_at(optimization: Optimization, step_no: int) -> Mapping[str, Any]:
    """The budget that a step was decided by."""
    budget: Mapping[str, Any] = optimization.spec["budget"]
    for entry in reversed(optimization.ceilings or []):
        if entry["from_step"] is not None and entry["from_step"] <= step_no:
            return dict(entry["budget"])
    return budget


def continue_run(
    session: Session, caller: Caller, optimization_id: uuid.UUID, limits: Limits, *, name: str | None = None
) -> Optimization:
    """A new run that repeats an ended one from its records, for nothing, and goes on where that stopped.

    The ceilings are those of both together: what the source has spent counts. So there is one at most, and what
    comes after it is made from it.
    """
    source = optimizations.get_optimization(session, caller, optimization_id)
    spent = session.get_one(Budget, _budget_of(source), with_for_update=True, populate_existing=True)
    session.refresh(source, with_for_update=True)
    if source.state in LIVE_STATES:
        raise Conflict(f"the optimization is {source.state}; raise its budget instead, or cancel it")
    if source.state == State.SUCCEEDED and not _ended_by_budget(session, source):
        raise Conflict(f"the optimization ended by itself ({source.finish_reason}); clone it to search again")
    of_source = sa.select(Optimization.id).where(
        Optimization.workspace_id == source.workspace_id,
        Optimization.source_id == source.id,
        Optimization.relation == CONTINUATION,
    )
    if (known := session.scalar(of_source.limit(1))) is not None:
        raise Conflict(f"it was continued as /v1/optimizations/{known}; go on from that")
    _check_open(session, caller, source)
    raised = _raised(spent, limits, "/budget", must=source.state == State.SUCCEEDED)
    ceilings = {ask: raised.get(ask, getattr(spent, column)) for ask, (column, _) in _CEILINGS.items()}
    run = _made_from(source, CONTINUATION, caller, name)
    run.spec = {
        **source.spec,
        "budget": {**source.spec["budget"], **_as_spec(raised)},
        "carried": takeovers.carried_from(spent),
    }
    budget = Budget(id=new_id(), workspace_id=source.workspace_id, subject_id=run.id)
    for ask, (column, _) in _CEILINGS.items():
        setattr(budget, column, ceilings[ask])
    for measure in budgets.MEASURES:
        used = getattr(spent, f"spent_{measure}") + getattr(spent, f"reserved_{measure}")
        setattr(budget, f"spent_{measure}", used)
    budget.idle_seconds = -clocks.elapsed_seconds(session, source)
    if budget.limit_wall_seconds is not None and budget.limit_wall_seconds <= -budget.idle_seconds:
        rule = f"must be above the {-budget.idle_seconds:.0f} seconds that the run has gone on"
        raise field_error("/budget/max_wall_seconds", rule)
    session.add(budget)
    session.flush()
    run.budget_id = budget.id
    optimizations.start(session, run, {"source_id": str(source.id), "relation": CONTINUATION})
    return run


def _ended_by_budget(session: Session, source: Optimization) -> bool:
    """Of its own accord, or because calls were refused: those that a worker lost are paid from what is kept back."""
    if str(source.finish_reason).startswith("budget_"):
        return True
    refused = sa.select(Execution.id).where(Execution.scope_id == source.id, Execution.error_type == "budget_exceeded")
    return source.finish_reason == "scoring_failed" and session.scalar(refused.limit(1)) is not None


def clone_run(session: Session, caller: Caller, optimization_id: uuid.UUID, request: CloneRequest) -> Optimization:
    """A new run of the same version, dataset revision, scorers and model, with another seed; it pays for itself."""
    source = optimizations.get_optimization(session, caller, optimization_id)
    prompt = _check_open(session, caller, source)
    spec = source.spec
    wanted = OptimizationRequest(
        prompt_name=prompt.name,
        dataset=str(source.dataset_id),
        strategy=spec["strategy"],
        knobs={**spec["knobs"], **request.knobs},
        evaluation={**spec["evaluation"], **request.evaluation},
        early_stopping={**spec["early_stopping"], **request.early_stopping},
        scorers=spec["scorers"],
        budget=request.budget or _limits_of(session.get_one(Budget, _budget_of(source)), spec["budget"]),
        name=source.name if request.name is None else request.name,
        proposer=spec["proposer"],
        split=spec["split"],
        seed=request.seed,
        preflight=spec.get("preflight", False),
    )
    target = Target(
        prompt,
        session.get_one(Version, source.version_id),
        source.dataset_id,
        source.dataset_revision,
        datasets.cases_of(session, source.dataset_id, source.dataset_revision),
        spec["model"],
    )
    made = {"source_id": source.id, "relation": CLONE}
    checked = optimizations.check_request(wanted)
    return optimizations.create_optimization(session, caller, wanted, checked, target, made_from=made)


def _made_from(source: Optimization, relation: str, caller: Caller, name: str | None) -> Optimization:
    copied = "workspace_id project_id prompt_id version_id dataset_id dataset_revision strategy".split()
    return Optimization(
        id=new_id(),
        name=source.name if name is None else name,
        source_id=source.id,
        relation=relation,
        created_by=caller.user_name,
        **{column: getattr(source, column) for column in copied},
    )


def _check_open(session: Session, caller: Caller, source: Optimization) -> Prompt:
    """The prompt, if it and its project still take runs."""
    prompt = prompts.get_by_id(session, caller, source.prompt_id, project=str(source.project_id), writing=True)
    check_runnable(prompt)
    return prompt


def _budget_of(run: Optimization) -> uuid.UUID:
    assert run.budget_id is not None  # every optimization has one
    return run.budget_id


def _raised(budget: Budget, limits: Limits, pointer: str, *, must: bool = True) -> dict[str, int]:
    """The ceilings that are named, as a budget counts them. `must`: at least one is higher than before."""
    asked = {name: getattr(limits, name) for name in _CEILINGS if getattr(limits, name) is not None}
    if limits.max_cost_usd is not None:
        asked["max_cost_usd"] = round(limits.max_cost_usd * NANO)
    errors = []
    for name, value in asked.items():
        before = getattr(budget, _CEILINGS[name][0])
        shown = f"{before / NANO:g}" if name == "max_cost_usd" and before is not None else before
        if before is None:
            errors.append(
                FieldError(f"{pointer}/{name}", "the run has no such ceiling, and can only be given higher ones")
            )
        elif value < before:
            errors.append(FieldError(f"{pointer}/{name}", f"must not be below {shown}, the ceiling that the run has"))
    if not errors and must and all(value == getattr(budget, _CEILINGS[name][0]) for name, value in asked.items()):
        errors.append(FieldError(pointer, "name at least one ceiling that is higher than before"))
    if errors:
        raise Unprocessable("; ".join(str(error) for error in errors), errors=errors)
    return asked


def _as_spec(ceilings: Mapping[str, int]) -> dict[str, int]:
    return {_CEILINGS[ask][1]: value for ask, value in ceilings.items()}


def _limits_of(budget: Budget, spec: Mapping[str, Any]) -> Limits:
    nano = spec["max_cost_nano"]
    return Limits(
        max_task_calls=spec["max_task_calls"],
        max_proposer_calls=spec["max_proposer_calls"],
        max_judge_calls=budget.limit_judge_calls,
        max_tokens=spec["max_tokens"],
        max_cost_usd=None if nano is None else nano / NANO,
        max_wall_seconds=spec.get("max_wall_seconds"),
    )


def _told(session: Session, caller: Caller, run: Optimization, kind: str, data: Mapping[str, Any]) -> Optimization:
    session.flush()
    events.record(session, [Change(run.workspace_id, kind, run.id, dict(data), caller.user_name)])
    return run
