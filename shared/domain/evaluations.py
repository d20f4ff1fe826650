"""Evaluations: a version scored on a pinned dataset revision. The steps themselves are in the worker."""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.domain import budgets, datasets, events, executions, jobs, pages, projects, providers, queues
from shared.domain.budgets import NANO, Limits
from shared.domain.content import render_messages
from shared.domain.executions import RunRequest
from shared.domain.pages import Page
from shared.domain.tenants import Caller, get_visible
from shared.errors import BudgetTooSmall, FieldError, PromptmillError, field_error
from shared.models import (
    OPEN_STATES,
    Evaluation,
    Execution,
    JobKind,
    Prompt,
    Queue,
    TestCase,
    Version,
    WorkItem,
    new_id,
)
from shared.scoring import needs_expected

MAX_CHECK_SECONDS = 5.0  # for rendering every case of a dataset while somebody waits for the answer


@dataclass(frozen=True)
class Target:
    """A version with the model that runs it and the cases that it runs on; everything checked."""

    prompt: Prompt
    version: Version
    dataset_id: uuid.UUID
    dataset_revision: int
    cases: Sequence[TestCase]
    model: Mapping[str, Any]  # {"provider", "model_name", "params"}


@dataclass(frozen=True, kw_only=True)
class TargetRequest:
    """What is run on what. Model settings that are left out come from the version."""

    prompt_name: str
    dataset: str
    project: str | None = None
    version_number: int | None = None
    label: str | None = None
    provider: str | None = None
    model_name: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest(TargetRequest):
    scorers: Sequence[Mapping[str, Any]]
    name: str = ""
    repeats: int = 1
    limits: Limits | None = None


def plan_target(
    session: Session, caller: Caller, request: TargetRequest, scorers: Sequence[Mapping[str, Any]]
) -> Target:
    """Resolve prompt, version, model and dataset, and render every case once, so that bad input fails here.

    Reads only.
    """
    prompt, version = executions.resolve(
        session,
        caller,
        RunRequest(
            prompt_name=request.prompt_name,
            project=request.project,
            version_number=request.version_number,
            label=request.label,
        ),
    )
    settings = version.content.get("model", {})
    provider = request.provider or settings.get("provider")
    model_name = request.model_name or settings.get("model_name")
    if not provider or not model_name:
        raise field_error("/model", "required: the version carries no model settings")
    params = {**settings.get("params", {}), **request.params}
    quote = providers.quote(session, provider, model_name)
    providers.check_params(quote, params)
    dataset = datasets.get_dataset(session, caller, request.dataset, project=request.project)
    cases = datasets.cases_of(session, dataset.id, dataset.revision)
    if not cases:
        raise field_error("/dataset", f"dataset {dataset.name} has no test case; import some")
    deadline = time.monotonic() + MAX_CHECK_SECONDS
    for done, case in enumerate(cases):
        if time.monotonic() > deadline:
            raise field_error(
                "/dataset",
                f"the template is too slow: {done} of {len(cases)} cases were rendered in {MAX_CHECK_SECONDS:g} s",
            )
        try:
            render_messages(version.content, case.inputs)
        except PromptmillError as error:
            raise field_error("/dataset", f"case {case.ordinal} does not fit the prompt: {error.detail}") from error
        if case.expected is None and (kind := needs_expected(scorers)):
            raise field_error("/dataset", f"case {case.ordinal} has no expected value, which {kind} needs")
    model = {"provider": provider, "model_name": model_name, "params": params}
    return Target(prompt, version, dataset.id, dataset.revision, cases, model)


def check_limits(session: Session, limits: Limits | None, *models: Mapping[str, Any]) -> None:
    """A ceiling in USD is at least a nano-dollar, and needs a price for every model that may be called."""
    if limits is None or limits.max_cost_usd is None:
        return
    if round(limits.max_cost_usd * NANO) == 0:
        raise field_error("/budget/max_cost_usd", "must be at least 0.000000001, the smallest sum that is counted")
    for model in models:
        if not providers.quote(session, model["provider"], model["model_name"]).has_price:
            raise field_error(
                "/budget/max_cost_usd",
                f"no price is known for {model['provider']}/{model['model_name']}; limit tokens or calls instead",
            )


def capped(model: Mapping[str, Any], limits: Limits | None) -> dict[str, Any]:
    """The model with an output limit. Under a ceiling a call without one would have no upper bound."""
    params = dict(model["params"])
    if limits is not None:
        params.setdefault("max_new_tokens", providers.DEFAULT_OUTPUT_TOKENS)
    return {**model, "params": params}


def create_evaluation(
    session: Session,
    caller: Caller,
    request: EvaluationRequest,
    scorers: Sequence[Mapping[str, Any]],
    target: Target,
) -> Evaluation:
    """Insert the evaluation and its first job."""
    needed = len(target.cases) * request.repeats
    limits = request.limits
    if limits is not None and limits.max_task_calls is not None and limits.max_task_calls < needed:
        detail = f"{len(target.cases)} cases x {request.repeats} repeats need {needed} task calls"
        raise BudgetTooSmall(detail, errors=[FieldError("/budget/max_task_calls", detail)])
    check_limits(session, limits, target.model)
    queues.accept(session, Queue.OPTIMIZATIONS, Queue.EXECUTIONS)
    evaluation_id = new_id()
    budget_id = budgets.create(session, caller.workspace_id, evaluation_id, limits) if limits else None
    evaluation = Evaluation(
        id=evaluation_id,
        workspace_id=caller.workspace_id,
        project_id=target.prompt.project_id,
        prompt_id=target.prompt.id,
        version_id=target.version.id,
        dataset_id=target.dataset_id,
        dataset_revision=target.dataset_revision,
        name=request.name,
        scorers=list(scorers),
        model=capped(target.model, limits),
        repeats=request.repeats,
        budget_id=budget_id,
        created_by=caller.user_name,
    )
    session.add(evaluation)
    session.flush()
    events.record(
        session,
        [events.Change(caller.workspace_id, "evaluation.queued", evaluation_id, {}, caller.user_name)],
    )
    jobs.enqueue_step(session, caller.workspace_id, JobKind.EVALUATION, evaluation_id, 1)
    return evaluation


def get_evaluation(session: Session, caller: Caller, evaluation_id: uuid.UUID) -> Evaluation:
    return get_visible(session, caller, Evaluation, evaluation_id)


def is_waiting(session: Session, evaluation_id: uuid.UUID) -> bool:
    """Whether its outcome is still to come."""
    return session.scalar(sa.select(Evaluation.state).where(Evaluation.id == evaluation_id)) in OPEN_STATES


def list_evaluations(
    session: Session, caller: Caller, *, project: str | None = None, limit: int, cursor: str | None
) -> Page:
    return pages.newest_first(
        session, matching(session, caller, project=project), Evaluation, limit=limit, cursor=cursor
    )


def matching(
    session: Session, caller: Caller, *, project: str | None, version_id: uuid.UUID | None = None
) -> sa.Select[Evaluation]:
    query = projects.visible_in(session, caller, Evaluation, project)
    return query if version_id is None else query.where(Evaluation.version_id == version_id)


def list_results(session: Session, evaluation: Evaluation, *, limit: int, cursor: str | None) -> Page:
    """One row per case and repeat: (work item, case, execution), in the order of the dataset."""
    query = (
        sa.select(
            WorkItem.id.label("id"),
            TestCase.ordinal,
            TestCase.name,
            TestCase.inputs,
            TestCase.expected,
            WorkItem.repeat,
            WorkItem.score,
            WorkItem.passed,
            WorkItem.feedback,
            WorkItem.execution_id,
            Execution.state,
            Execution.response_text,
            Execution.error_type,
        )
        .join(TestCase, TestCase.id == WorkItem.test_case_id)
        .join(Execution, Execution.id == WorkItem.execution_id, isouter=True)
        .where(WorkItem.scope_id == evaluation.id)
    )
    return pages.ascending(session, query, WorkItem.id, limit=limit, cursor=cursor, scalars=False)
