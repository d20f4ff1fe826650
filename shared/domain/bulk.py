"""Bulk operations: one verb on up to ten thousand prompts, as a chain of jobs that each do a page of the items.

A page, its results, the counts and the job of the next page are committed together under the lease of the page's
job. So whatever dies, an item is done exactly once; and between two pages the operation can be canceled.
"""

import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.bulk_rows import bulk_insert
from shared.db import db_now
from shared.domain import bulk_verbs, events, jobs, pages, projects, queues, tenants
from shared.domain.bulk_verbs import VERBS, Applied, Wanted
from shared.domain.pages import Numbered, Page
from shared.domain.tenants import Caller
from shared.errors import Conflict, DatabaseBusy, FieldError, NotFound, PromptmillError, Unprocessable, field_error
from shared.models import OPEN_STATES, BulkItem, BulkOperation, JobKind, Prompt, Queue, Role, State, new_id

MAX_ITEMS = 10_000
PAGE = 50  # items in one transaction, which on SQLite keeps every other writer waiting
SHOWN_ERRORS = 100
SKIPPED = "skipped"  # the prompt was already as the item wants it
ITEM_STATES = (State.SUCCEEDED, State.FAILED, SKIPPED, State.CANCELED, State.QUEUED)
# A bug or a row that cannot be stored; its text stays in the worker's log.
INTERNAL_ERROR = {"code": "internal_error", "detail": "it could not be done; the worker's log says why", "errors": []}


@dataclass(frozen=True)
class Filter:
    """Which prompts. A null field is any."""

    project: str | None = None
    category: str | None = None
    tag: str | None = None
    owner_team: str | None = None
    lifecycle: str | None = None
    mode: str | None = None


@dataclass(frozen=True)
class BulkRequest:
    """`items` as they were sent, each with its JSON pointer; or `criteria`, and what to do with what it finds."""

    operation: str
    items: Sequence[tuple[str, Mapping[str, Any]]] = ()
    criteria: Filter | None = None
    shared: Mapping[str, Any] | None = None
    dry_run: bool = False


@dataclass(frozen=True)
class BulkPlan:
    """All that is decided before the transaction."""

    request: BulkRequest
    items: Sequence[Mapping[str, Any]]
    project_id: uuid.UUID | None


@dataclass(frozen=True)
class Result:
    """What became of an item."""

    index: int
    status: str
    name: str | None
    prompt_id: uuid.UUID | None
    version_number: int | None
    error: Mapping[str, Any] | None


@dataclass(frozen=True)
class Progress:
    total: int
    done: int
    succeeded: int
    failed: int
    skipped: int
    canceled: int
    eta_at: datetime | None  # None: not begun, ended


def plan_operation(session: Session, caller: Caller, request: BulkRequest) -> BulkPlan:
    """Check every item as far as the rows of prompts are not needed; find them, where a filter is given. Reads only.

    `Unprocessable` names each item that makes no sense; then nothing is stored.
    """
    caller.require(VERBS[request.operation].role)
    if request.criteria is not None:
        found = _found(session, caller, request.criteria)
        items: Sequence[tuple[str, Mapping[str, Any]]] = [
            ("", {**(request.shared or {}), "prompt_id": str(prompt_id)}) for prompt_id in found
        ]
        # What is wrong is wrong for each of them, and is said once.
        bulk_verbs.prepare(request.operation, items[0][1])
    else:
        items = request.items
        if not 1 <= len(items) <= MAX_ITEMS:
            raise field_error("/items", f"1 to {MAX_ITEMS:,} items; here are {len(items):,}")
        _check_each(request.operation, items)
    homes = _projects_of(session, caller, [fields for _, fields in items])
    return BulkPlan(request, [fields for _, fields in items], homes.pop() if len(homes) == 1 else None)


def create_operation(
    session: Session, caller: Caller, plan: BulkPlan, *, retry_of: uuid.UUID | None = None
) -> BulkOperation:
    """Insert the operation with its items and the job of its first page."""
    queues.accept(session, Queue.MAINTENANCE)
    request = plan.request
    criteria = request.criteria and {name: value for name, value in vars(request.criteria).items() if value is not None}
    operation = BulkOperation(
        id=new_id(),
        workspace_id=caller.workspace_id,
        project_id=plan.project_id,
        operation=request.operation,
        dry_run=request.dry_run,
        criteria=criteria,
        retry_of=retry_of,
        total=len(plan.items),
        user_id=caller.user_id,
        key_id=caller.key_id,
        role=caller.role,
        project_ids=None if caller.project_ids is None else sorted(map(str, caller.project_ids)),
        created_by=caller.user_name,
    )
    session.add(operation)
    session.flush()
    bulk_insert(
        session,
        BulkItem,
        [
            {
                "operation_id": operation.id,
                "ordinal": ordinal,
                "workspace_id": caller.workspace_id,
                "payload": dict(fields),
                "name": fields.get("name"),
                "prompt_id": uuid.UUID(fields["prompt_id"]) if "prompt_id" in fields else None,
            }
            for ordinal, fields in enumerate(plan.items)
        ],
    )
    said = {"operation": request.operation, "total": operation.total, "dry_run": request.dry_run}
    _record(session, operation, "bulk.queued", said, actor=caller.user_name)
    jobs.enqueue_step(session, caller.workspace_id, JobKind.BULK, operation.id, 1)
    return operation


def get_operation(session: Session, caller: Caller, operation_id: uuid.UUID) -> BulkOperation:
    query = sa.select(BulkOperation).where(BulkOperation.id == operation_id, *_visible(caller))
    operation = session.scalars(query).one_or_none()
    if operation is None:
        raise NotFound(f"no bulk operation {operation_id}")
    return operation


def list_operations(
    session: Session,
    caller: Caller,
    *,
    state: str | None = None,
    operation: str | None = None,
    limit: int,
    cursor: str | None,
) -> Page:
    query = _matching(caller, state, operation)
    return pages.newest_first(session, query, BulkOperation, limit=limit, cursor=cursor)


def list_from(
    session: Session, caller: Caller, *, state: str | None, operation: str | None, limit: int, offset: int
) -> Numbered:
    """The same by offset: for the older addresses."""
    query = _matching(caller, state, operation)
    return pages.at_offset(session, query, BulkOperation, limit=limit, offset=offset)


def list_results(
    session: Session, operation: BulkOperation, *, status: str | None = None, limit: int, cursor: str | None
) -> Page:
    """A `Result` for each item, in their order. What was not done before the end of the operation is `canceled`."""
    query = sa.select(*_RESULT_COLUMNS).where(BulkItem.operation_id == operation.id)
    left = State.QUEUED if operation.state in OPEN_STATES else State.CANCELED
    if status is not None:
        stored = State.QUEUED if status == left else status
        # Of the two words for what was not done only one is true at a time.
        possible = status == left or status not in (State.QUEUED, State.CANCELED)
        query = query.where(BulkItem.state == stored if possible else sa.false())
    page = pages.ascending(session, query, BulkItem.ordinal, limit=limit, cursor=cursor, scalars=False)
    results = [
        Result(
            row.ordinal,
            left if row.state == State.QUEUED else row.state,
            row.name,
            row.prompt_id,
            row.version_number,
            row.error,
        )
        for row in page.data
    ]
    return Page(results, page.next_cursor)


def progress_of(session: Session, operations: Sequence[BulkOperation]) -> dict[uuid.UUID, Progress]:
    """By operation id."""
    now = session.scalars(sa.select(db_now())).one()
    return {operation.id: _progress(operation, now) for operation in operations}


def retry_operation(session: Session, caller: Caller, operation_id: uuid.UUID) -> BulkOperation:
    """A new operation of the items that failed, and of those that one which failed as a whole never came to.

    It is done with the rights of who retries it. `Conflict` while the first one is open, or when none failed.
    """
    operation = get_operation(session, caller, operation_id)
    caller.require(VERBS[operation.operation].role)
    if operation.state in OPEN_STATES:
        raise Conflict(f"the operation is {operation.state}; retry it once it has ended, or cancel it")
    wanted = [State.FAILED, State.QUEUED] if operation.state == State.FAILED else [State.FAILED]
    again = session.scalars(
        sa.select(BulkItem.payload)
        .where(BulkItem.operation_id == operation.id, BulkItem.state.in_(wanted))
        .order_by(BulkItem.ordinal)
    ).all()
    if not again:
        raise Conflict("no item of the operation failed")
    request = BulkRequest(operation.operation, dry_run=operation.dry_run)
    plan = BulkPlan(request, again, operation.project_id)
    return create_operation(session, caller, plan, retry_of=operation.id)


# ---- what a worker does ---------------------------------------------------------------------


def next_page(session: Session, operation: BulkOperation) -> Sequence[BulkItem]:
    """The next items in their order: a page, or one where a page has failed. Empty: all are done."""
    done = _done(operation)
    size = 1 if done < operation.alone_until else PAGE
    query = sa.select(BulkItem).where(BulkItem.operation_id == operation.id, BulkItem.ordinal >= done)
    return session.scalars(query.order_by(BulkItem.ordinal).limit(size)).all()


def prepare(operation: str, payload: Mapping[str, Any]) -> Wanted | PromptmillError:
    """An item ready to be done, or why it cannot be: a newer version may refuse what was taken at the submit."""
    try:
        return bulk_verbs.prepare(operation, payload)
    except PromptmillError as error:
        return error


def do_page(session: Session, operation: BulkOperation, wanted: Mapping[int, Wanted | PromptmillError]) -> None:
    """Do these items (by ordinal) of a locked, open operation, and enqueue the next page or end the operation.

    Each in a savepoint of its own: an item that is refused fails alone. Any other error is the page's.
    """
    caller = _caller_of(operation)
    results = [
        {"operation_id": operation.id, "ordinal": ordinal, **_done_item(session, caller, operation, wanted[ordinal])}
        for ordinal in sorted(wanted)
    ]
    _settle(session, operation, results)


def fail_page(session: Session, operation: BulkOperation) -> bool:
    """After an error that no item gave: let the items of the next page be tried one by one, or fail the one.

    True when the same step is to be tried again.
    """
    page = next_page(session, operation)
    if len(page) > 1:
        operation.alone_until = page[-1].ordinal + 1
        return True
    failed = {"state": State.FAILED, "error": INTERNAL_ERROR}
    _settle(session, operation, [{**_key(item), **_shown(item.name, item.prompt_id, None), **failed} for item in page])
    return False


def is_withdrawn(session: Session, operation: BulkOperation) -> bool:
    """Whether the key that submitted it was revoked: what it was trusted with ends with the trust."""
    return operation.key_id is not None and tenants.is_revoked(session, operation.key_id)


def _done_item(
    session: Session, caller: Caller, operation: BulkOperation, wanted: Wanted | PromptmillError
) -> dict[str, Any]:
    """The columns of an item's result."""
    if isinstance(wanted, PromptmillError):
        return _refused(wanted, {})
    savepoint = session.begin_nested()
    try:
        applied = bulk_verbs.apply(session, caller, operation.operation, wanted)
        shown = _applied(applied, is_new=VERBS[operation.operation].makes_prompts and operation.dry_run)
        session.flush()
    except DatabaseBusy:
        raise
    except PromptmillError as error:
        savepoint.rollback()
        return _refused(error, wanted.fields)
    if operation.dry_run:
        savepoint.rollback()
    else:
        savepoint.commit()
    return shown


def _applied(applied: Applied, *, is_new: bool) -> dict[str, Any]:
    """`is_new`: the prompt was made for a dry run, and is gone a moment later."""
    prompt_id = None if is_new else applied.prompt.id
    state = State.SUCCEEDED if applied.changed else SKIPPED
    return {"state": state, "error": None, **_shown(applied.prompt.name, prompt_id, applied.version_number)}


def _refused(error: PromptmillError, fields: Mapping[str, Any]) -> dict[str, Any]:
    problems = list(error.errors)
    if isinstance(error, NotFound):
        problems = [FieldError(f"/{field}", error.detail) for field in error.fields if field in fields][:1]
    shown = [{"pointer": problem.pointer, "detail": problem.detail} for problem in problems]
    kept = {"code": error.code, "detail": error.detail or error.title(), "errors": shown}
    prompt_id = uuid.UUID(fields["prompt_id"]) if "prompt_id" in fields else None
    return {"state": State.FAILED, "error": kept, **_shown(fields.get("name"), prompt_id, None)}


def _shown(name: str | None, prompt_id: uuid.UUID | None, version_number: int | None) -> dict[str, Any]:
    return {"name": name, "prompt_id": prompt_id, "version_number": version_number}


def _settle(session: Session, operation: BulkOperation, results: Sequence[Mapping[str, Any]]) -> None:
    """Keep the results of the next items, count them, and go on to the next page or end."""
    if results:
        session.execute(sa.update(BulkItem), list(results))
    counts = Counter(str(result["state"]) for result in results)
    operation.succeeded += counts[State.SUCCEEDED]
    operation.failed += counts[State.FAILED]
    operation.skipped += counts[SKIPPED]
    operation.step_no += 1
    session.flush()
    figures = {name: getattr(operation, name) for name in ("total", "succeeded", "failed", "skipped")}
    if _done(operation) < operation.total:
        _record(session, operation, "bulk.progressed", figures)
        jobs.enqueue_step(session, operation.workspace_id, JobKind.BULK, operation.id, operation.step_no + 1)
        return
    failed = operation.failed == operation.total
    operation.state = State.FAILED if failed else State.SUCCEEDED
    operation.error_type = "every_item_failed" if failed else None
    operation.error_message = "every item failed; the results say why" if failed else None
    operation.completed_at = db_now()
    session.flush()
    _record(session, operation, f"bulk.{operation.state}", figures)


def _check_each(operation: str, items: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    errors: list[FieldError] = []
    first: dict[tuple[str | None, str], str] = {}
    for where, fields in items:
        try:
            bulk_verbs.prepare(operation, fields)
        except PromptmillError as error:
            problems = error.errors or [FieldError("", error.detail)]
            errors += [FieldError(where + problem.pointer, problem.detail) for problem in problems]
        if VERBS[operation].makes_prompts:
            key = (fields.get("project"), fields["name"])
            if first.setdefault(key, where) != where:
                errors.append(FieldError(f"{where}/name", f"{fields['name']} is to be made by {first[key]} already"))
    if errors:
        raise Unprocessable("; ".join(map(str, errors[:5])), errors=errors[:SHOWN_ERRORS])


def _found(session: Session, caller: Caller, criteria: Filter) -> list[uuid.UUID]:
    """The prompts that a filter finds, oldest first."""
    living = projects.living_in(session, caller, Prompt, criteria.project).where(Prompt.deleted_at.is_(None))
    query = living.with_only_columns(Prompt.id, Prompt.tags).order_by(Prompt.created_at, Prompt.id)
    for name in ("category", "owner_team", "lifecycle", "mode"):
        if (value := getattr(criteria, name)) is not None:
            query = query.where(getattr(Prompt, name) == value)
    found = []
    for prompt_id, tags in session.execute(query):
        if criteria.tag is None or criteria.tag in tags:
            found.append(prompt_id)
        if len(found) > MAX_ITEMS:
            raise field_error("/filter", f"finds more than {MAX_ITEMS:,} prompts; narrow it")
    if not found:
        raise field_error("/filter", "finds no prompt")
    return found


def _projects_of(session: Session, caller: Caller, items: Sequence[Mapping[str, Any]]) -> set[uuid.UUID | None]:
    """The projects of the prompts that these items name; one that the caller may not see is a 404."""
    named = {fields.get("project") for fields in items if "prompt_id" not in fields}
    homes: set[uuid.UUID | None] = {projects.get_project(session, caller, name).id for name in named}
    ids = list({uuid.UUID(fields["prompt_id"]) for fields in items if "prompt_id" in fields})
    known: dict[uuid.UUID, uuid.UUID] = {}
    for start in range(0, len(ids), 500):
        visible = tenants.visible(caller, Prompt).with_only_columns(Prompt.id, Prompt.project_id)
        rows = session.execute(visible.where(Prompt.id.in_(ids[start : start + 500])))
        known.update({row.id: row.project_id for row in rows})
    homes.update(known.get(prompt_id) for prompt_id in ids)
    return homes


def _matching(caller: Caller, state: str | None, operation: str | None) -> sa.Select[Any]:
    query = sa.select(BulkOperation).where(*_visible(caller))
    if state is not None:
        query = query.where(BulkOperation.state == state)
    if operation is not None:
        query = query.where(BulkOperation.operation == operation)
    return query


def _visible(caller: Caller) -> tuple[sa.ColumnElement[bool], ...]:
    """A key that is limited to projects sees what is all in one of these, and what it submitted itself."""
    mine = BulkOperation.workspace_id == caller.workspace_id
    if caller.project_ids is None:
        return (mine,)
    in_projects = BulkOperation.project_id.in_(caller.project_ids)
    return mine, sa.or_(in_projects, BulkOperation.key_id == caller.key_id)


def _caller_of(operation: BulkOperation) -> Caller:
    """Who submitted it, as he was then."""
    limits = operation.project_ids
    return Caller(
        operation.workspace_id,
        operation.user_id,
        operation.created_by,
        Role(operation.role),
        None if limits is None else frozenset(map(uuid.UUID, limits)),
        operation.key_id,
    )


def _progress(operation: BulkOperation, now: datetime) -> Progress:
    done = _done(operation)
    left = operation.total - done
    is_open = operation.state in OPEN_STATES
    eta_at = None
    if is_open and done and operation.started_at is not None:
        eta_at = now + max(now - operation.started_at, timedelta()) * (left / done)
    return Progress(
        operation.total,
        done,
        operation.succeeded,
        operation.failed,
        operation.skipped,
        canceled=0 if is_open else left,
        eta_at=eta_at,
    )


def _done(operation: BulkOperation) -> int:
    """Items are done in their order, so this is the ordinal of the next one too."""
    return operation.succeeded + operation.failed + operation.skipped


def _key(item: BulkItem) -> dict[str, Any]:
    return {"operation_id": item.operation_id, "ordinal": item.ordinal}


def _record(
    session: Session, operation: BulkOperation, kind: str, data: Mapping[str, Any], *, actor: str | None = None
) -> None:
    author = operation.created_by if actor is None else actor
    events.record(session, [events.Change(operation.workspace_id, kind, operation.id, data, author)])


_RESULT_COLUMNS = (
    BulkItem.ordinal,
    BulkItem.state,
    BulkItem.name,
    BulkItem.prompt_id,
    BulkItem.version_number,
    BulkItem.error,
)
