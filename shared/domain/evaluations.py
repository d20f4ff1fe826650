"""Evaluations: a version scored on a pinned dataset revision. The steps themselves are in the worker."""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.domain import budgets, datasets, events, executions, jobs, judges, pages, projects, providers, queues, runs
from shared.domain.budgets import NANO, Limits
from shared.domain.content import render_messages
from shared.domain.datasets import RunCase
from shared.domain.executions import NewExecution, RunRequest
from shared.domain.pages import Page
from shared.domain.providers import Quote
from shared.domain.runs import Reuse, Unit
from shared.domain.tenants import Caller, get_visible
from shared.errors import BudgetTooSmall, Conflict, FieldError, PromptmillError, field_error
from shared.hashing import hash_of
from shared.models import (
    OPEN_STATES,
    Evaluation,
    Execution,
    JobKind,
    Prompt,
    Queue,
    State,
    TestCase,
    Version,
    WorkItem,
    new_id,
)
from shared.scoring import Delivered, asks, facts_needed, problem_with_expected

MAX_CHECK_SECONDS = 5.0  # of CPU time, for rendering every case of a dataset while somebody waits for the answer
MAX_QUESTIONS = 200_000  # to judges, of one evaluation
FAN_OUT, SCORE, JUDGED = 1, 2, 3  # the steps: the second scores, or asks the judges whose replies the third needs
FIRST_CALLS = 32  # are made with the evaluation, for the fleet to begin with while the first step makes the others


@dataclass(frozen=True)
class Target:
    """A version with the model that runs it and the cases that it runs on; everything checked."""

    prompt: Prompt
    version: Version
    dataset_id: uuid.UUID
    dataset_revision: int
    cases: Sequence[RunCase]
    model: Mapping[str, Any]  # {"provider", "model_name", "params"}


@dataclass(frozen=True, kw_only=True)
class TargetRequest:
    """What is run on what. Model settings that are left out come from the version."""

    prompt_name: str
    dataset: str
    dataset_revision: int | None = None  # the newest if left out
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
    fresh: bool = False
    limits: Limits | None = None


@dataclass(frozen=True)
class Plan:
    """An evaluation that can be inserted, with the first of its `cells`; rendered and hashed already."""

    evaluation: Evaluation
    limits: Limits | None
    units: Sequence[Unit]
    cells: int


def plan(session: Session, caller: Caller, request: EvaluationRequest, scorers: Sequence[Mapping[str, Any]]) -> Plan:
    """Check the request as `plan_target` does, and its limits. Reads only."""
    target = plan_target(session, caller, request, scorers)
    check_request(session, caller, request, scorers, target)
    evaluation = planned(caller, request, scorers, target)
    quote = providers.quote(session, target.model["provider"], target.model["model_name"])
    units = islice(units_of(evaluation, target.version, target.cases, quote), FIRST_CALLS)
    return Plan(evaluation, request.limits, list(units), len(target.cases) * request.repeats)


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
    judges.check_models(scorers)
    if "cost" in facts_needed(scorers) and not quote.has_price:
        raise field_error("/scorers", f"no price is known for {provider}/{model_name}, which cost needs")
    dataset = datasets.get_dataset(session, caller, request.dataset, project=request.project)
    revision = datasets.check_revision(dataset, request.dataset_revision, "/dataset_revision")
    cases = datasets.cases_of(session, dataset.id, revision)
    if not cases:
        raise field_error("/dataset", f"dataset {dataset.name} has no test case; import some")
    deadline = time.thread_time() + MAX_CHECK_SECONDS
    for done, case in enumerate(cases):
        if time.thread_time() > deadline:
            raise field_error(
                "/dataset",
                f"the template is too slow: {MAX_CHECK_SECONDS:g} s of CPU time rendered {done} of {len(cases)} cases",
            )
        try:
            render_messages(version.content, case.inputs)
        except PromptmillError as error:
            raise field_error("/dataset", f"case {case.ordinal} does not fit the prompt: {error.detail}") from error
        if problem := problem_with_expected(scorers, case.expected):
            raise field_error("/dataset", f"case {case.ordinal} {problem}{_how_to_label(case)}")
    model = {"provider": provider, "model_name": model_name, "params": params}
    return Target(prompt, version, dataset.id, revision, cases, model)


def _how_to_label(case: RunCase) -> str:
    if case.expected is not None or not case.generated:
        return ""
    return "; a model wrote its inputs: PATCH it, or collect answers that you trust with cases:from-executions"


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


def check_request(
    session: Session, caller: Caller, request: EvaluationRequest, scorers: Sequence[Mapping[str, Any]], target: Target
) -> None:
    """What can be known to be too little or too much before anything is made."""
    limits = request.limits
    cells = len(target.cases) * request.repeats
    most = None if limits is None else limits.max_task_calls
    # That each cell is a call of its own is the most there can be; only beyond it are they looked at one by one.
    if (
        most is not None
        and most < cells
        and most < (needed := _missing_calls(session, caller, request, scorers, target))
    ):
        detail = f"{len(target.cases)} cases x {request.repeats} repeats need {needed} task calls"
        raise BudgetTooSmall(detail, errors=[FieldError("/budget/max_task_calls", detail)])
    questions = cells * questions_per_answer(scorers)
    if questions > MAX_QUESTIONS:
        raise field_error("/scorers", f"the judges would be asked {questions:,} times; at most {MAX_QUESTIONS:,}")
    check_limits(session, limits, target.model, *judges.models_of(scorers))


def _missing_calls(
    session: Session, caller: Caller, request: EvaluationRequest, scorers: Sequence[Mapping[str, Any]], target: Target
) -> int:
    """How many calls the cells need that nobody has answered yet; cells that ask the same share one."""
    quote = providers.quote(session, target.model["provider"], target.model["model_name"])
    row = planned(caller, request, scorers, target)
    keys = {call.call_key for _, _, call in calls_of(row, target.version, target.cases, quote)}
    known = {} if request.fresh else executions.find_answers(session, target.prompt.project_id, list(keys))
    return len(keys) - len(known)


def questions_per_answer(scorers: Sequence[Mapping[str, Any]]) -> int:
    """How many calls judging one answer takes."""
    return len(asks(scorers, Delivered("an answer", "what is expected")))


def create_evaluation(session: Session, caller: Caller, plan: Plan) -> Evaluation:
    """Insert the evaluation with its first calls, and the job that makes the others."""
    evaluation = plan.evaluation
    if plan.limits:
        budgets.create(session, caller.workspace_id, evaluation.id, plan.limits, budget_id=evaluation.budget_id)
    _insert(session, caller, evaluation)
    runs.begin(
        session,
        workspace_id=evaluation.workspace_id,
        kind=JobKind.EVALUATION,
        subject_id=evaluation.id,
        step_no=SCORE,
        units=plan.units,
        total=plan.cells,
        reuse=Reuse(evaluation.project_id, fresh=evaluation.fresh),
    )
    jobs.enqueue_step(session, caller.workspace_id, JobKind.EVALUATION, evaluation.id, FAN_OUT)
    return evaluation


def planned(
    caller: Caller, request: EvaluationRequest, scorers: Sequence[Mapping[str, Any]], target: Target
) -> Evaluation:
    """The row that would be inserted; in no session."""
    return Evaluation(
        id=new_id(),
        workspace_id=caller.workspace_id,
        project_id=target.prompt.project_id,
        prompt_id=target.prompt.id,
        version_id=target.version.id,
        dataset_id=target.dataset_id,
        dataset_revision=target.dataset_revision,
        name=request.name,
        scorers=list(scorers),
        model=capped(target.model, request.limits),
        repeats=request.repeats,
        fresh=request.fresh,
        budget_id=new_id() if request.limits else None,
        created_by=caller.user_name,
    )


def retry_evaluation(session: Session, caller: Caller, evaluation_id: uuid.UUID, limits: Limits | None) -> Evaluation:
    """A new evaluation of the same, which takes over every answer of this one and makes only the calls that failed.

    Those are the next generation of their calls in the ledger. It spends from the budget that is left, unless it is
    given one. `Conflict` while the first one is open, when nothing is missing, and when it was retried already.
    """
    first = get_evaluation(session, caller, evaluation_id)
    session.refresh(first, with_for_update=True)  # of two who retry it, the second sees what the first has made
    if first.state in OPEN_STATES:
        raise Conflict(f"the evaluation is {first.state}; retry it once it has ended, or cancel it")
    if first.state == State.SUCCEEDED and not (first.aggregate or {}).get("missing"):
        raise Conflict("nothing of the evaluation is missing")
    again = session.execute(
        sa.select(Evaluation.id, Evaluation.state)
        .where(Evaluation.retry_of == first.id, Evaluation.state.in_((*OPEN_STATES, State.SUCCEEDED)))
        .order_by(Evaluation.id.desc())
        .limit(1)
    ).first()
    if again is not None:
        raise Conflict(f"it was retried as /v1/evaluations/{again.id}, which is {again.state}")
    prompt, version = session.get_one(Prompt, first.prompt_id), session.get_one(Version, first.version_id)
    executions.resolve(
        session,
        caller,
        RunRequest(prompt_name=prompt.name, project=str(prompt.project_id), version_number=version.number),
    )
    check_limits(session, limits, first.model, *judges.models_of(first.scorers))
    if capped(first.model, limits) != first.model:
        raise field_error("/budget", "its calls have no output limit, and under a ceiling they would be other calls")
    copied = "project_id prompt_id version_id dataset_id dataset_revision name scorers model repeats fresh".split()
    evaluation = Evaluation(
        id=new_id(),
        workspace_id=first.workspace_id,
        retry_of=first.id,
        created_by=caller.user_name,
        **{name: getattr(first, name) for name in copied},
    )
    evaluation.budget_id = (
        budgets.create(session, caller.workspace_id, evaluation.id, limits) if limits else first.budget_id
    )
    _insert(session, caller, evaluation)
    jobs.enqueue_step(session, caller.workspace_id, JobKind.EVALUATION, evaluation.id, FAN_OUT)
    return evaluation


def _insert(session: Session, caller: Caller, evaluation: Evaluation) -> None:
    queues.accept(session, Queue.OPTIMIZATIONS, Queue.EXECUTIONS)
    session.add(evaluation)
    session.flush()
    retried = {"retry_of": str(evaluation.retry_of)} if evaluation.retry_of else {}
    events.record(
        session,
        [events.Change(caller.workspace_id, "evaluation.queued", evaluation.id, retried, caller.user_name)],
    )


def units_of(evaluation: Evaluation, version: Version, cases: Sequence[RunCase], quote: Quote) -> Iterator[Unit]:
    """The units of work, in the order of the cases."""
    for case, repeat, call in calls_of(evaluation, version, cases, quote):
        yield Unit(hash_of(["case", case.ordinal, repeat]), "evaluate", call, test_case_id=case.id, repeat=repeat)


def calls_of(
    evaluation: Evaluation, version: Version, cases: Sequence[RunCase], quote: Quote
) -> Iterator[tuple[RunCase, int, NewExecution]]:
    """(case, repeat, the call that answers it): each case, as often as it is repeated."""
    for case in cases:
        messages = render_messages(version.content, case.inputs)
        for repeat in range(evaluation.repeats):
            yield (
                case,
                repeat,
                NewExecution(
                    workspace_id=evaluation.workspace_id,
                    model=quote,
                    params=evaluation.model["params"],
                    messages=messages,
                    tools=version.content.get("tools"),
                    response_schema=version.content.get("response_schema"),
                    purpose="evaluation",
                    environment="evaluation",
                    project_id=evaluation.project_id,
                    prompt_id=evaluation.prompt_id,
                    version_id=evaluation.version_id,
                    scope_id=evaluation.id,
                    variables=case.inputs,
                    sample=repeat,
                    budget_id=evaluation.budget_id,
                    created_by=evaluation.created_by,
                ),
            )


def get_evaluation(session: Session, caller: Caller, evaluation_id: uuid.UUID) -> Evaluation:
    return get_visible(session, caller, Evaluation, evaluation_id)


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
    own = sa.func.coalesce(Execution.scope_id == evaluation.id, True)
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
            WorkItem.details,
            WorkItem.execution_id,
            TestCase.tags,
            TestCase.group,
            Execution.state,
            Execution.response_text,
            Execution.error_type,
            Execution.latency_ms,
            sa.not_(own).label("cached"),
        )
        .join(TestCase, TestCase.id == WorkItem.test_case_id)
        .join(Execution, Execution.id == WorkItem.execution_id, isouter=True)
        .where(WorkItem.scope_id == evaluation.id, WorkItem.kind == "evaluate")
    )
    return pages.ascending(session, query, WorkItem.id, limit=limit, cursor=cursor, scalars=False)


def scores_by_case(session: Session, evaluation: Evaluation) -> list[float]:
    """The mean over repeats of each case that has a score, in the order of the dataset."""
    of_case = (
        sa.select(sa.func.avg(WorkItem.score))
        .join(TestCase, TestCase.id == WorkItem.test_case_id)
        .where(WorkItem.scope_id == evaluation.id, WorkItem.kind == "evaluate", WorkItem.score.is_not(None))
        .group_by(TestCase.ordinal)
        .order_by(TestCase.ordinal)
    )
    return [float(mean) for mean in session.scalars(of_case)]
