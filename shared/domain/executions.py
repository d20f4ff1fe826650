"""Executions: planned (resolved and rendered outside any transaction), submitted, read, canceled.

The provider call itself happens in the worker, which is the only process that has providers.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased, defer

from shared.bulk_rows import bulk_insert
from shared.domain import events, jobs, lifecycle, pages, projects, prompts, providers, queues
from shared.domain.content import render_messages
from shared.domain.names import PRODUCTION, VersionChoice, parse_reference
from shared.domain.pages import Numbered, Page
from shared.domain.providers import Quote
from shared.domain.tenants import Caller, get_visible
from shared.errors import Conflict, PromptmillError, field_error
from shared.hashing import dump_json, hash_of
from shared.models import Call, Execution, Feedback, Job, JobKind, Prompt, Queue, State, Version, new_id

Found = TypeVar("Found")
PURPOSES = ("run", "evaluation", "proposal", "judge", "embedding", "refinement", "generation")


@dataclass(frozen=True)
class RunRequest:
    """What a caller asks for. `model` may be left out when the version carries model settings."""

    prompt_name: str
    project: str | None = None
    version_number: int | None = None
    label: str | None = None
    environment: str = "dev"
    variables: Mapping[str, Any] = field(default_factory=dict)
    provider: str | None = None
    model_name: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    correlation_id: str | None = None
    request_id: str | None = None
    priority: int = jobs.DEFAULT_PRIORITY
    budget_id: uuid.UUID | None = None
    batch_id: uuid.UUID | None = None
    batch_index: int | None = None


@dataclass(frozen=True)
class NewExecution:
    """One provider call to be made, fully decided: nothing is looked up or rendered after this."""

    workspace_id: uuid.UUID
    model: Quote
    params: Mapping[str, Any]
    messages: Sequence[Mapping[str, str]]
    tools: Sequence[Mapping[str, Any]] | None = None
    response_schema: Mapping[str, Any] | None = None
    purpose: str = "run"
    mode: str = "async"
    environment: str = "dev"
    project_id: uuid.UUID | None = None
    prompt_id: uuid.UUID | None = None
    version_id: uuid.UUID | None = None
    scope_id: uuid.UUID | None = None  # None: the execution is its own scope
    variables: Mapping[str, Any] = field(default_factory=dict)
    sample: int = 0
    budget_id: uuid.UUID | None = None
    batch_id: uuid.UUID | None = None
    batch_index: int | None = None
    priority: int = jobs.DEFAULT_PRIORITY
    correlation_id: str | None = None
    request_id: str | None = None
    created_by: str = ""
    generation: int = 0  # how often this call was made before, and failed
    # Worked out here and now, so that the transaction that inserts thousands need not.
    call_key: str = field(init=False)
    bound: tuple[int, int] = field(init=False)  # tokens and nano-dollars at most

    def __post_init__(self) -> None:
        content: list[Any] = [self.model.provider, self.model.model_name, self.params, self.messages, self.sample]
        beside = self._beside()
        if beside:  # without it the key is what it was before there was such a thing
            content.append(beside)
        object.__setattr__(self, "call_key", hash_of(content))
        replies = self.purpose != "embedding"
        bound = providers.upper_bound(self.model, self.messages, self.params, replies=replies, **beside)
        object.__setattr__(self, "bound", bound)

    def size(self) -> int:
        """How many characters of it are stored and sent."""
        beside = self._beside()
        return sum(len(message["content"]) for message in self.messages) + (len(dump_json(beside)) if beside else 0)

    def _beside(self) -> dict[str, Any]:
        given = {"tools": self.tools, "response_schema": self.response_schema}
        return {name: value for name, value in given.items() if value}


def plan(session: Session, caller: Caller, request: RunRequest) -> NewExecution:
    """Resolve the version and the model, check the parameters, render. Reads only."""
    return _planned(caller, request, resolve(session, caller, request), partial(providers.quote, session))


def plan_each(
    session: Session, caller: Caller, requests: Iterable[RunRequest]
) -> Iterator[NewExecution | PromptmillError]:
    """Each request as `plan` has it, or why it cannot be. What several have in common is looked up once."""
    find = _once(lambda *choice: resolve(session, caller, RunRequest(*choice)))
    quote = _once(partial(providers.quote, session))
    for request in requests:
        choice = (request.prompt_name, request.project, request.version_number, request.label)
        try:
            yield _planned(caller, request, find(*choice), quote)
        except PromptmillError as error:
            yield error


def resolve(session: Session, caller: Caller, request: RunRequest) -> tuple[Prompt, Version]:
    """The prompt to run and the version: by number, by label, by reference, else by the label `production`.

    409 when the prompt, or its project, is archived.
    """
    name, choice = parse_reference(request.prompt_name)
    given = [request.version_number is not None, request.label is not None, choice is not None]
    if sum(given) > 1:
        raise field_error("/version_number", "give one of version_number, label or a reference with @")
    if choice is None:
        label = request.label or PRODUCTION
        choice = (
            VersionChoice(label=label)
            if request.version_number is None
            else VersionChoice(number=request.version_number)
        )
    prompt = prompts.get_prompt(session, caller, name, project=request.project, writing=True)
    lifecycle.check_runnable(prompt)
    return prompt, prompts.get_version(session, prompt, choice)


def _planned(
    caller: Caller,
    request: RunRequest,
    resolved: tuple[Prompt, Version],
    quote: Callable[[str, str], Quote],
) -> NewExecution:
    prompt, version = resolved
    settings = version.content.get("model", {})
    provider = request.provider or settings.get("provider")
    model_name = request.model_name or settings.get("model_name")
    if not provider or not model_name:
        raise field_error("/model", "required: the version carries no model settings")
    params = {**settings.get("params", {}), **request.params}
    model = quote(provider, model_name)
    providers.check_params(model, params)
    if request.budget_id is not None:  # a call without an output limit would have no upper bound
        params.setdefault("max_new_tokens", providers.DEFAULT_OUTPUT_TOKENS)
    messages = render_messages(version.content, request.variables)
    return NewExecution(
        workspace_id=caller.workspace_id,
        project_id=prompt.project_id,
        prompt_id=prompt.id,
        version_id=version.id,
        model=model,
        params=params,
        messages=messages,
        tools=version.content.get("tools"),
        response_schema=version.content.get("response_schema"),
        environment=request.environment,
        variables=request.variables,
        budget_id=request.budget_id,
        batch_id=request.batch_id,
        batch_index=request.batch_index,
        priority=request.priority,
        correlation_id=request.correlation_id,
        request_id=request.request_id,
        created_by=caller.user_name,
    )


def _once(ask: Callable[..., Found]) -> Callable[..., Found]:
    """The function, asked once for the same arguments; a refusal is remembered and raised again."""
    known: dict[tuple[Any, ...], Found | PromptmillError] = {}

    def remembered(*asked: Any) -> Found:
        if asked not in known:
            try:
                known[asked] = ask(*asked)
            except PromptmillError as error:
                known[asked] = error
        found = known[asked]
        if isinstance(found, PromptmillError):
            raise found.with_traceback(None)  # else it would keep the frames of every time that it is raised
        return found

    return remembered


def submit(session: Session, new: NewExecution, *, interactive: bool) -> uuid.UUID:
    """Insert one execution with its ledger row and its job; its id."""
    mode = "sync" if interactive else "async"
    queue = Queue.INTERACTIVE if interactive else Queue.EXECUTIONS
    queues.accept(session, queue)
    return submit_many(session, [replace(new, mode=mode)], queue=queue)[0]


def submit_many(
    session: Session, new: Sequence[NewExecution], *, queue: Queue, barrier_id: int | None = None
) -> list[uuid.UUID]:
    """Insert executions, ledger rows, jobs and events in four statements, whatever their number. Ids in order.

    The caller has already left out the calls that the ledger holds (`find_calls`).
    """
    if not new:
        return []
    ids = [new_id() for _ in new]
    bulk_insert(session, Execution, [_row(execution_id, item) for execution_id, item in zip(ids, new, strict=True)])
    bulk_insert(
        session,
        Call,
        [
            {
                "scope_id": item.scope_id or execution_id,
                "call_key": item.call_key,
                "generation": item.generation,
                "workspace_id": item.workspace_id,
                "execution_id": execution_id,
            }
            for execution_id, item in zip(ids, new, strict=True)
        ],
    )
    events.record(
        session,
        [
            events.Change(item.workspace_id, "execution.queued", execution_id, {}, item.created_by)
            for execution_id, item in zip(ids, new, strict=True)
        ],
    )
    jobs.enqueue(
        session,
        [
            jobs.NewJob(
                item.workspace_id,
                JobKind.EXECUTION,
                queue,
                execution_id,
                priority=item.priority,
                barrier_id=barrier_id,
                budget_id=item.budget_id,
            )
            for execution_id, item in zip(ids, new, strict=True)
        ],
    )
    return ids


def find_calls(session: Session, scope_id: uuid.UUID, call_keys: Sequence[str]) -> dict[str, uuid.UUID]:
    """The executions that the ledger of a scope holds for these keys, newest generation."""
    found: dict[str, uuid.UUID] = {}
    for start in range(0, len(call_keys), 500):  # SQLite takes 32,766 parameters; a page keeps plans alike
        rows = session.execute(
            sa.select(Call.call_key, Call.execution_id)
            .where(Call.scope_id == scope_id, Call.call_key.in_(call_keys[start : start + 500]))
            .order_by(Call.generation)
        )
        found.update({row.call_key: row.execution_id for row in rows})
    return found


def find_answers(
    session: Session,
    project_id: uuid.UUID,
    call_keys: Sequence[str],
    *,
    usable: Callable[[str, str], bool] | None = None,
) -> dict[str, uuid.UUID]:
    """The executions, by key, of calls that runs of a project have had answered; the newest of several.

    Only of evaluations and optimizations, whose calls are never pruned; only of the project, so that a key that is
    limited to it learns nothing of others, and what is removed with another project is not missed here. `usable` is
    asked about each key and its text.
    """
    text: Any = Execution.response_text if usable else sa.null()
    found: dict[str, uuid.UUID] = {}
    for start in range(0, len(call_keys), 500):
        rows = session.execute(
            sa.select(Call.call_key, Call.execution_id, text.label("text"))
            .join(Execution, Execution.id == Call.execution_id)
            .where(
                Call.call_key.in_(call_keys[start : start + 500]),
                Call.scope_id != Call.execution_id,
                Execution.project_id == project_id,
                Execution.state == State.SUCCEEDED,
            )
            .order_by(Execution.id)
        )
        for row in rows:
            if usable is None or usable(row.call_key, row.text or ""):
                found[row.call_key] = row.execution_id
    return found


def retries_of(session: Session, execution_id: uuid.UUID) -> tuple[uuid.UUID | None, uuid.UUID | None]:
    """(the execution that this one was made to retry, the one that was made to retry this), by the ledger."""
    own, other = aliased(Call), aliased(Call)
    rows = session.execute(
        sa.select(other.execution_id, (other.generation - own.generation).label("step"))
        .select_from(own)
        .join(other, sa.and_(other.scope_id == own.scope_id, other.call_key == own.call_key))
        .where(own.execution_id == execution_id, sa.func.abs(other.generation - own.generation) == 1)
    )
    found = {row.step: row.execution_id for row in rows}
    return found.get(-1), found.get(1)


def get_execution(session: Session, caller: Caller, execution_id: uuid.UUID) -> Execution:
    return get_visible(session, caller, Execution, execution_id)


@dataclass(frozen=True)
class Filter:
    """Which executions: what is None is not asked for. Times are those of the submit: from, and before."""

    project: str | None = None
    prompt_id: uuid.UUID | None = None
    version_id: uuid.UUID | None = None
    state: str | None = None
    environment: str | None = None
    purpose: str | None = None
    correlation_id: str | None = None
    batch_id: uuid.UUID | None = None
    provider: str | None = None
    model_name: str | None = None
    created_by: str | None = None
    error_type: str | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None
    min_latency_ms: int | None = None
    has_feedback: bool | None = None


MAX_ROWS_WITH_TEXTS = 20  # each may hold 700 KB
_TEXTS = ("messages", "variables", "params", "response_text", "error_message")


def list_executions(
    session: Session, caller: Caller, wanted: Filter, *, texts: bool = False, limit: int, cursor: str | None
) -> Page:
    """Newest first. Without `texts` the columns that hold them are not read, and reading them raises."""
    query = matching(session, caller, wanted)
    if texts:
        limit = min(limit, MAX_ROWS_WITH_TEXTS)
    else:
        query = _without_texts(query)
    return pages.newest_first(session, query, Execution, limit=limit, cursor=cursor)


def list_from(session: Session, caller: Caller, wanted: Filter, *, limit: int, offset: int) -> Numbered:
    """The same by offset, without texts: for the older addresses."""
    query = _without_texts(matching(session, caller, wanted))
    return pages.at_offset(session, query, Execution, limit=limit, offset=offset)


def _without_texts(query: sa.Select[Any]) -> sa.Select[Any]:
    return query.options(*(defer(getattr(Execution, name), raiseload=True) for name in _TEXTS))


def matching(session: Session, caller: Caller, wanted: Filter) -> sa.Select[Any]:
    """The executions that the caller may see and asks for."""
    query = projects.visible_in(session, caller, Execution, wanted.project).select_from(Execution)
    for name in _EQUAL:
        value = getattr(wanted, name)
        if value is not None:
            query = query.where(getattr(Execution, name) == value)
    if wanted.created_from is not None:
        query = query.where(Execution.created_at >= wanted.created_from)
    if wanted.created_before is not None:
        query = query.where(Execution.created_at < wanted.created_before)
    if wanted.min_latency_ms is not None:
        query = query.where(Execution.latency_ms >= wanted.min_latency_ms)
    if wanted.has_feedback is not None:
        # OFFSET keeps PostgreSQL from making a join of it, which read every execution of every workspace by its id.
        found = sa.select(Feedback.id).where(Feedback.execution_id == Execution.id).offset(0).exists()
        query = query.where(found if wanted.has_feedback else ~found)
    return query


_EQUAL = (
    "prompt_id version_id state environment purpose correlation_id batch_id provider model_name created_by error_type"
).split()


def names_of(session: Session, found: Sequence[Execution]) -> dict[uuid.UUID, tuple[str | None, int | None]]:
    """(prompt name, version number) of these executions, by their ids."""
    prompt_names = _looked_up(session, Prompt.id, Prompt.name, {execution.prompt_id for execution in found})
    numbers = _looked_up(session, Version.id, Version.number, {execution.version_id for execution in found})
    return {
        execution.id: (prompt_names.get(execution.prompt_id), numbers.get(execution.version_id)) for execution in found
    }


def _looked_up(session: Session, key: Any, value: Any, keys: Set[uuid.UUID | None]) -> dict[uuid.UUID | None, Any]:
    rows = session.execute(sa.select(key, value).where(key.in_([one for one in keys if one is not None])))
    return {row[0]: row[1] for row in rows}


def cancel_execution(session: Session, caller: Caller, execution_id: uuid.UUID) -> Execution:
    """Cancel it at once when it is queued, within one heartbeat when it runs; 409 when it has ended."""
    execution = get_execution(session, caller, execution_id)
    job = jobs.open_job_of(session, execution_id)
    session.refresh(execution)
    if job is None:
        if execution.state == State.CANCELED:
            return execution
        raise Conflict(f"the execution has already {execution.state}")
    jobs.cancel(session, job)
    session.refresh(execution)
    return execution


def job_of(session: Session, execution_id: uuid.UUID) -> Job | None:
    """The newest job of an execution: why it waits, how often it was tried."""
    return session.scalars(
        sa.select(Job).where(Job.subject_id == execution_id).order_by(Job.id.desc()).limit(1)
    ).one_or_none()


def _row(execution_id: uuid.UUID, new: NewExecution) -> dict[str, Any]:
    tokens, nano = new.bound
    return {
        "id": execution_id,
        "workspace_id": new.workspace_id,
        "project_id": new.project_id,
        "prompt_id": new.prompt_id,
        "version_id": new.version_id,
        "scope_id": new.scope_id,
        "batch_id": new.batch_id,
        "batch_index": new.batch_index,
        "purpose": new.purpose,
        "mode": new.mode,
        "environment": new.environment,
        "correlation_id": new.correlation_id,
        "request_id": new.request_id,
        "created_by": new.created_by,
        "provider": new.model.provider,
        "model_name": new.model.model_name,
        "params": new.params,
        "variables": new.variables,
        "messages": new.messages,
        "tools": new.tools,
        "response_schema": new.response_schema,
        "sample": new.sample,
        "budget_id": new.budget_id,
        "estimate_tokens": tokens,
        "estimate_nano": nano,
        "input_nano_per_mtok": new.model.input_nano_per_mtok,
        "output_nano_per_mtok": new.model.output_nano_per_mtok,
    }
