"""Optimizations: checked and recorded here; searched in the worker, step by step."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, defer

from shared import knobs, splits
from shared.domain import budgets, evaluations, events, jobs, judges, openings, pages, projects, providers, queues, runs
from shared.domain.budgets import NANO, Limits
from shared.domain.content import components_meant, components_of, message_templates
from shared.domain.evaluations import Target, TargetRequest
from shared.domain.openings import Opening
from shared.domain.pages import Page
from shared.domain.tenants import Caller, get_visible
from shared.errors import BudgetTooSmall, FieldError, field_error
from shared.models import Candidate, Execution, JobKind, Optimization, Queue, WorkItem, new_id
from shared.scoring import check_scorers, objectives

WITHOUT_STATE = defer(Optimization.search_state)  # of many rows: each may be megabytes, and nobody shows it
PROPOSER_MAX_NEW_TOKENS = 2_000


@dataclass(frozen=True, kw_only=True)
class OptimizationRequest(TargetRequest):
    strategy: str
    scorers: Sequence[Mapping[str, Any]]
    budget: Limits
    name: str = ""
    proposer: Mapping[str, Any] | None = None  # {"provider", "model_name"}; the task model if left out
    knobs: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    split: Mapping[str, Any] = field(default_factory=dict)
    early_stopping: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    preflight: bool = False  # score the seed twice first


def check_request(request: OptimizationRequest) -> dict[str, Any]:
    """The search's settings with every default filled in. Pure; raises `Unprocessable` naming each bad knob."""
    limits = request.budget
    strategy, _ = knobs.canonical(request.strategy, request.knobs)
    if all(value is None for value in (limits.max_task_calls, limits.max_tokens, limits.max_cost_usd)):
        raise field_error("/budget", "set at least one of max_task_calls, max_tokens, max_cost_usd")
    spec: dict[str, Any] = {
        "strategy": strategy,
        "knobs": knobs.resolve_strategy(request.strategy, request.knobs),
        "evaluation": knobs.resolve(knobs.EVALUATION, request.evaluation, "/evaluation"),
        "split": knobs.resolve_split(request.split),
        "early_stopping": knobs.resolve(knobs.EARLY_STOPPING, request.early_stopping, "/early_stopping"),
        "scorers": check_scorers(request.scorers),
        "budget": {
            "max_task_calls": limits.max_task_calls,
            "max_proposer_calls": limits.max_proposer_calls,
            "max_tokens": limits.max_tokens,
            "max_cost_nano": None if limits.max_cost_usd is None else round(limits.max_cost_usd * NANO),
            **({"max_judge_calls": limits.max_judge_calls} if limits.max_judge_calls is not None else {}),
            **({"max_wall_seconds": limits.max_wall_seconds} if limits.max_wall_seconds is not None else {}),
        },
        "seed": request.seed,
        "seeded_samples": True,  # absent in what began before there were any, whose calls are numbered from 0
        **({"preflight": True} if request.preflight else {}),  # absent, a spec is what it was before there were any
    }
    knobs.check_together(spec, request.evaluation)
    if spec["knobs"].get("frontier", "instance") != "instance" and len(objectives(spec["scorers"])) < 2:
        raise field_error("/knobs/frontier", "needs two scorers or more, or one composite of several parts")
    return spec


def check_target(request: OptimizationRequest, spec: Mapping[str, Any], target: Target) -> None:
    """What can be known of the prompt and its cases to be too little for this search. Pure."""
    _check_split(spec["split"], target.cases)
    rewritable = _rewritable(spec, target)
    if knobs.needs_train(spec["knobs"]) and "train" not in _parts(spec, target):
        raise field_error("/split/train_fraction", f"must be above 0: {spec['strategy']} works from train cases")
    if spec["knobs"].get("use_merge") and len(rewritable) < 2:
        raise field_error("/knobs/use_merge", "needs two texts or more that may be rewritten; here is one")
    most = spec["knobs"].get("max_prompt_tokens")
    tokens = providers.prompt_bound(message_templates(target.version.content))
    if most is not None and most < tokens:
        raise field_error("/knobs/max_prompt_tokens", f"the prompt itself may take {tokens} tokens")
    needed = knobs.minimum_task_calls(spec, len(target.cases))
    limit = request.budget.max_task_calls
    if limit is not None and limit < needed:
        detail = f"the cheapest useful run needs {needed} task calls"
        raise BudgetTooSmall(detail, errors=[FieldError("/budget/max_task_calls", detail)])


def create_optimization(
    session: Session,
    caller: Caller,
    request: OptimizationRequest,
    spec: Mapping[str, Any],
    target: Target,
    *,
    made_from: Mapping[str, Any] | None = None,
    opening: Opening | None = None,
) -> Optimization:
    """Insert the optimization with its budget and its first job.

    `made_from`: its columns that say from which. `opening`: that of this target, where it is known.
    """
    check_target(request, spec, target)
    proposer = _proposer(session, request, target, spec)
    others = [*_other_models(session, target, spec), *judges.models_of(spec["scorers"])]
    evaluations.check_limits(session, request.budget, target.model, proposer, *others)
    model = evaluations.capped(target.model, request.budget)
    openings.check_budget(spec["budget"], opening or openings.opening_of(session, spec, target, model))
    full_spec = {**spec, "knobs": _named(spec, target), "model": model, "proposer": proposer}
    optimization_id = new_id()
    budget_id = budgets.create(session, caller.workspace_id, optimization_id, request.budget)
    optimization = Optimization(
        id=optimization_id,
        workspace_id=caller.workspace_id,
        project_id=target.prompt.project_id,
        prompt_id=target.prompt.id,
        version_id=target.version.id,
        dataset_id=target.dataset_id,
        dataset_revision=target.dataset_revision,
        name=request.name,
        strategy=spec["strategy"],
        spec=full_spec,
        budget_id=budget_id,
        created_by=caller.user_name,
        **(made_from or {}),
    )
    start(session, optimization, {name: str(value) for name, value in (made_from or {}).items()})
    return optimization


def start(session: Session, optimization: Optimization, told: Mapping[str, Any] | None = None) -> None:
    """Insert the row, its event and its first job; `told` stands in the event."""
    queues.accept(session, Queue.OPTIMIZATIONS, Queue.EXECUTIONS)
    session.add(optimization)
    session.flush()
    data = {"strategy": optimization.strategy, **(told or {})}
    change = events.Change(
        optimization.workspace_id, "optimization.queued", optimization.id, data, optimization.created_by
    )
    events.record(session, [change])
    jobs.enqueue_step(session, optimization.workspace_id, JobKind.OPTIMIZATION, optimization.id, 1)


def get_optimization(session: Session, caller: Caller, optimization_id: uuid.UUID) -> Optimization:
    return get_visible(session, caller, Optimization, optimization_id)


def list_optimizations(
    session: Session, caller: Caller, *, project: str | None = None, limit: int, cursor: str | None
) -> Page:
    query = matching(session, caller, project=project)
    return pages.newest_first(session, query, Optimization, limit=limit, cursor=cursor)


def matching(
    session: Session, caller: Caller, *, project: str | None, state: str | None = None
) -> sa.Select[Optimization]:
    query = projects.visible_in(session, caller, Optimization, project).options(WITHOUT_STATE)
    return query if state is None else query.where(Optimization.state == state)


def list_candidates(session: Session, optimization: Optimization, *, limit: int, cursor: str | None) -> Page:
    """In the order in which the search admitted them; 0 is the seed."""
    return pages.ascending(session, candidates_of(optimization), Candidate.ordinal, limit=limit, cursor=cursor)


def candidates_of(optimization: Optimization) -> sa.Select[Candidate]:
    return sa.select(Candidate).where(Candidate.optimization_id == optimization.id)


@dataclass(frozen=True)
class CandidateSpend:
    """What the calls that tried a candidate have cost; one that two candidates share counts for both."""

    tokens: int
    nano: int


def spend_by_candidate(
    session: Session, optimization: Optimization, candidates: Sequence[Candidate]
) -> dict[str, CandidateSpend]:
    """By hash; those without a call are left out."""
    tokens, nano = runs.charged(Execution.ambiguous_attempts)
    rows = session.execute(
        sa.select(WorkItem.candidate, sa.func.sum(tokens), sa.func.sum(nano))
        .join(Execution, Execution.id == WorkItem.execution_id)
        .where(WorkItem.scope_id == optimization.id, WorkItem.candidate.in_([item.hash for item in candidates]))
        .group_by(WorkItem.candidate)
    )
    return {str(row[0]): CandidateSpend(int(row[1]), int(row[2])) for row in rows}


def _check_split(split: Mapping[str, Any], cases: Sequence[splits.Case]) -> None:
    """Whether there are cases enough, and what they are to be told by."""
    fewest = knobs.FEWEST if split["allow_tiny"] else knobs.TINY
    if len(cases) < fewest:
        more = "" if split["allow_tiny"] else f"; with split.allow_tiny, {knobs.FEWEST}"
        raise field_error("/dataset", f"an optimization needs at least {fewest} cases{more}; this has {len(cases)}")
    for name in ("stratify_by", "group_by"):
        path = split[name]
        if path is not None and all(splits.value_at(case, path) is None for case in cases):
            raise field_error(f"/split/{name}", f"no case has {path}")
    if split["group_by"] is not None:
        parts = splits.split(cases, split)
        if not parts.dev or not parts.holdout:
            rule = f"all cases have the same {split['group_by']}: dev or the holdout would have none"
            raise field_error("/split/group_by", rule)


def _named(spec: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """The knobs with `components` by the names that candidates have for them, which no role shares."""
    named = {} if spec["knobs"].get("components") is None else {"components": _rewritable(spec, target)}
    return {**spec["knobs"], **named}


def _rewritable(spec: Mapping[str, Any], target: Target) -> list[str]:
    """The names of the texts that the search may change."""
    content, wanted = target.version.content, spec["knobs"].get("components")
    return list(components_of(content)) if wanted is None else components_meant(content, wanted)


def _parts(spec: Mapping[str, Any], target: Target) -> set[str]:
    """The parts that the cases are divided into; where train is dev, it counts as there."""
    is_small = len(target.cases) < knobs.SMALL
    return {*knobs.split_shares(spec["split"], len(target.cases)), *(["train"] if is_small else [])}


def _other_models(session: Session, target: Target, spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The models that candidates may be run on besides the task's. Each must take the settings that it would get."""
    provider = target.model["provider"]
    searched = [name for name in spec["knobs"].get("params_to_optimize", {}) if name != "model_name"]
    params = {**target.model["params"], **dict.fromkeys(searched)}
    task = providers.quote(session, provider, target.model["model_name"])
    if searched:
        providers.check_params(task, params, "/knobs/params_to_optimize")
    names = knobs.models_of(spec["knobs"])
    for name in names:
        at = "/knobs/teacher" if name == spec["knobs"].get("teacher") else "/knobs/params_to_optimize/model_name"
        refused = [param for param in params if param not in providers.quote(session, provider, name).accepted_params]
        if refused:
            raise field_error(at, f"{provider}/{name} does not take {', '.join(refused)}")
    return [{"provider": provider, "model_name": name} for name in names]


def _proposer(
    session: Session, request: OptimizationRequest, target: Target, spec: Mapping[str, Any]
) -> dict[str, Any]:
    """The model that writes candidates, with the settings of its calls."""
    chosen = request.proposer or target.model
    quote = providers.quote(session, chosen["provider"], chosen["model_name"])
    wanted = {
        "temperature": spec["knobs"].get("proposer_temperature", 1.0),
        "max_new_tokens": PROPOSER_MAX_NEW_TOKENS,
    }
    # A reasoning model takes no temperature; the knob then has nothing to set, which is not the user's error.
    params = {name: value for name, value in wanted.items() if name in quote.accepted_params}
    return {"provider": quote.provider, "model_name": quote.model_name, "params": params}
