"""Generations: a model writes test cases for a prompt's variables. The steps themselves are in the worker."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from shared.domain import budgets, datasets, events, executions, jobs, pages, projects, providers, queues
from shared.domain.budgets import Limits
from shared.domain.case_requests import DIVERSE, batches_of
from shared.domain.evaluations import check_limits
from shared.domain.executions import RunRequest
from shared.domain.pages import Page
from shared.domain.tenants import Caller, get_visible
from shared.errors import BudgetTooSmall, FieldError, field_error
from shared.models import Dataset, Generation, JobKind, Prompt, Queue, Version, new_id

MAX_COUNT = 50
MAX_OUTPUT_TOKENS = 4_096  # for ten cases; what the version gives its own answers is no measure of these


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """What is to be written. The model that is left out is the version's."""

    prompt_name: str
    count: int
    strategy: str = DIVERSE
    description: str = ""
    with_expected: bool = False
    provider: str | None = None
    model_name: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits | None = None


@dataclass(frozen=True)
class Target:
    """Everything checked."""

    dataset: Dataset
    prompt: Prompt
    version: Version
    model: Mapping[str, Any]  # {"provider", "model_name", "params"}


def plan_generation(
    session: Session, caller: Caller, request: GenerationRequest, dataset_name: str, *, project: str | None
) -> Target:
    """Resolve the dataset, the version and the model. Reads only."""
    dataset = datasets.get_dataset(session, caller, dataset_name, project=project, writing=True)
    if dataset.case_count + request.count > datasets.MAX_CASES:
        raise field_error(
            "/count", f"{dataset.name} has {dataset.case_count:,} cases, and holds at most {datasets.MAX_CASES:,}"
        )
    run = RunRequest(prompt_name=request.prompt_name, project=str(dataset.project_id))
    prompt, version = executions.resolve(session, caller, run)
    if not version.variables:
        raise field_error("/prompt_name", f"{prompt.name} has no variables: there is nothing to write test cases of")
    settings = version.content.get("model", {})
    provider = request.provider or settings.get("provider")
    model_name = request.model_name or settings.get("model_name")
    if not provider or not model_name:
        raise field_error("/model", "required: the version carries no model settings")
    params = {"max_new_tokens": MAX_OUTPUT_TOKENS, **request.params}
    providers.check_params(providers.quote(session, provider, model_name), params)
    return Target(dataset, prompt, version, {"provider": provider, "model_name": model_name, "params": params})


def create_generation(session: Session, caller: Caller, request: GenerationRequest, target: Target) -> Generation:
    """Insert the generation and its first job."""
    limits, needed = request.limits, len(batches_of(request.strategy, request.count))
    if limits is not None and limits.max_task_calls is not None and limits.max_task_calls < needed:
        detail = f"{request.count} cases need {needed} calls"
        raise BudgetTooSmall(detail, errors=[FieldError("/budget/max_task_calls", detail)])
    check_limits(session, limits, target.model)
    queues.accept(session, Queue.OPTIMIZATIONS, Queue.EXECUTIONS)
    generation_id = new_id()
    generation = Generation(
        id=generation_id,
        workspace_id=caller.workspace_id,
        project_id=target.dataset.project_id,
        dataset_id=target.dataset.id,
        prompt_id=target.prompt.id,
        version_id=target.version.id,
        strategy=request.strategy,
        description=request.description,
        count=request.count,
        with_expected=request.with_expected,
        model=dict(target.model),
        budget_id=budgets.create(session, caller.workspace_id, generation_id, limits) if limits else None,
        created_by=caller.user_name,
    )
    session.add(generation)
    session.flush()
    said = {"count": request.count, "strategy": request.strategy}
    events.record(
        session,
        [events.Change(caller.workspace_id, "generation.queued", generation_id, said, caller.user_name)],
    )
    jobs.enqueue_step(session, caller.workspace_id, JobKind.GENERATION, generation_id, 1)
    return generation


def get_generation(session: Session, caller: Caller, generation_id: uuid.UUID) -> Generation:
    found: Generation = get_visible(session, caller, Generation, generation_id)
    return found


def list_generations(session: Session, caller: Caller, *, project: str | None, limit: int, cursor: str | None) -> Page:
    query = projects.visible_in(session, caller, Generation, project)
    return pages.newest_first(session, query, Generation, limit=limit, cursor=cursor)
