"""Moves of labels that take a second person: asked for by one, approved or rejected by another."""

import uuid

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.db import db_now
from shared.domain import events, label_moves, pages, projects
from shared.domain.events import Change
from shared.domain.label_moves import Move
from shared.domain.label_protections import check_role, find_protection
from shared.domain.pages import Page
from shared.domain.tenants import Caller, visible
from shared.errors import Conflict, Forbidden, NotFound
from shared.models import LabelRequest, Prompt, RequestState, new_id


def ask(
    session: Session, caller: Caller, prompt: Prompt, name: str, wanted: dict[str, int | None], reason: str
) -> LabelRequest:
    """A request for the move; the one that the caller has made already, if it still waits."""
    same = [getattr(LabelRequest, column).is_not_distinct_from(value) for column, value in wanted.items()]
    known = session.scalars(
        sa.select(LabelRequest).where(
            LabelRequest.prompt_id == prompt.id,
            LabelRequest.label == name,
            LabelRequest.state == RequestState.PENDING,
            LabelRequest.asked_by_id == caller.user_id,
            *same,
        )
    ).first()
    if known is not None:
        return known
    request = LabelRequest(
        id=new_id(),
        workspace_id=prompt.workspace_id,
        project_id=prompt.project_id,
        prompt_id=prompt.id,
        label=name,
        reason=reason,
        asked_by=caller.user_name,
        asked_by_id=caller.user_id,
        **wanted,
    )
    session.add(request)
    session.flush()
    data = {"label": name, "from": wanted["from_version"], "to": wanted["to_version"]}
    events.record(session, [Change(prompt.workspace_id, "label_request.created", request.id, data, caller.user_name)])
    return request


def get_request(session: Session, caller: Caller, request_id: uuid.UUID) -> LabelRequest:
    request = session.scalars(visible(caller, LabelRequest).where(LabelRequest.id == request_id)).one_or_none()
    if request is None:
        raise NotFound(f"no label request {request_id}")
    return request


def list_requests(
    session: Session,
    caller: Caller,
    *,
    state: str | None = None,
    project: str | None = None,
    limit: int,
    cursor: str | None,
) -> Page:
    query = projects.living_in(session, caller, LabelRequest, project)
    query = query.where(sa.exists().where(Prompt.id == LabelRequest.prompt_id, Prompt.deleted_at.is_(None)))
    if state is not None:
        query = query.where(LabelRequest.state == state)
    return pages.newest_first(session, query, LabelRequest, limit=limit, cursor=cursor)


def approve_request(session: Session, caller: Caller, request_id: uuid.UUID, *, reason: str = "") -> LabelRequest:
    """Make the move that was asked for. 409 once it was decided, or the label was moved meanwhile."""
    request, prompt = _pending(session, caller, request_id)
    if request.asked_by_id == caller.user_id:
        raise Forbidden("a second person approves; whoever asked can only reject, which withdraws it")
    check_role(caller, prompt, find_protection(session, prompt.id, request.label))
    if request.to_version is None:
        label_moves.check_deletable(prompt, request.label)  # it may have been published meanwhile
    _decide(session, caller, request, RequestState.APPROVED, reason)
    version = None if request.to_version is None else label_moves.version_of(session, prompt.id, request.to_version)
    move = Move(
        prompt,
        None if version is None else version.id,
        request.from_version,
        request.to_version,
        request.asked_by,
        request.reason,
        request.undoes,
        approved_by=caller.user_name,
    )
    label_moves.write(session, request.label, [move], actor=caller.user_name)
    return request


def reject_request(session: Session, caller: Caller, request_id: uuid.UUID, *, reason: str = "") -> LabelRequest:
    """Say no; of one's own request: withdraw it. 409 once it was decided."""
    request, _ = _pending(session, caller, request_id)
    _decide(session, caller, request, RequestState.REJECTED, reason)
    return request


def _pending(session: Session, caller: Caller, request_id: uuid.UUID) -> tuple[LabelRequest, Prompt]:
    """The request and its prompt, locked; 409 when it waits no longer."""
    request = get_request(session, caller, request_id)
    projects.get_project(session, caller, str(request.project_id), writing=True)
    prompt = session.get_one(Prompt, request.prompt_id)
    label_moves.lock_prompt(session, prompt)
    if prompt.deleted_at is not None:
        raise Conflict(f"{prompt.name} has been deleted; restore it first")
    session.refresh(request)
    if request.state == RequestState.SUPERSEDED:
        raise Conflict(f"the label {request.label!r} was moved since this was asked; ask again")
    if request.state != RequestState.PENDING:
        raise Conflict(f"the request was already {request.state}")
    return request, prompt


def _decide(session: Session, caller: Caller, request: LabelRequest, state: RequestState, reason: str) -> None:
    request.state, request.decision = state, reason
    request.decided_by, request.decided_at = caller.user_name, session.scalars(sa.select(db_now())).one()
    session.flush()
    events.record(session, [Change(request.workspace_id, f"label_request.{state}", request.id, {}, caller.user_name)])
