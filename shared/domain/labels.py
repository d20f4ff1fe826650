"""Labels: movable pointers to versions.

One function writes a move, whatever asked for it: so each obeys the protection of its label, is kept in the history
and is one event. Every function that changes a label locks the prompt first; that orders all of them.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.db import bulk_insert, db_now
from shared.domain import events, pages, projects
from shared.domain.events import Change
from shared.domain.names import PRODUCTION, check_label, is_name
from shared.domain.pages import Page
from shared.domain.preconditions import ANY, Precondition
from shared.domain.tenants import Caller, visible
from shared.errors import Conflict, Forbidden, NotFound
from shared.models import (
    Label,
    LabelMove,
    LabelProtection,
    LabelRequest,
    Prompt,
    RequestState,
    Role,
    Version,
    new_id,
    table_of,
)


@dataclass(frozen=True)
class Target:
    """The version that the label of a prompt is to point at."""

    prompt: Prompt
    version_id: uuid.UUID
    version_number: int


@dataclass(frozen=True)
class Placed:
    """A label and where it points, now or then."""

    prompt_id: uuid.UUID
    label: str
    version_number: int
    moved_by: str
    moved_at: datetime
    protection: LabelProtection | None = None
    etag: str = ""

    @property
    def protected(self) -> bool:
        return self.protection is not None


def list_labels(session: Session, prompt: Prompt) -> list[Placed]:
    """The prompt's labels, by name."""
    return _placed(session, prompt)


def get_label(session: Session, prompt: Prompt, name: str, *, at: datetime | None = None) -> Placed:
    """Where the label points, or pointed at a time; NotFound when there is, or was, no such label."""
    if at is not None:
        move = session.scalars(_newest(prompt.id, name).where(LabelMove.moved_at <= at)).one_or_none()
        if move is None or move.to_version is None:
            raise NotFound(f"prompt {prompt.name!r} had no label {name!r} at {at.isoformat()}")
        return _as_moved(move)
    found = _placed(session, prompt, name)
    if not found:
        raise NotFound(f"prompt {prompt.name!r} has no label {name!r}")
    return found[0]


def list_placed(
    session: Session,
    caller: Caller,
    *,
    label: str = PRODUCTION,
    at: datetime | None = None,
    project: str | None,
    limit: int,
    cursor: str | None,
) -> tuple[Page, dict[uuid.UUID, Placed]]:
    """Every prompt that has, or had at a time, this label: a page of prompts, newest first, and where each points."""
    newest = sa.select(sa.func.max(LabelMove.id)).where(LabelMove.prompt_id == Prompt.id, LabelMove.label == label)
    if at is not None:
        newest = newest.where(LabelMove.moved_at <= at)
    is_newest = LabelMove.id == newest.correlate(Prompt).scalar_subquery()
    query = projects.living_in(session, caller, Prompt, project).join(LabelMove, is_newest)
    page = pages.newest_first(
        session, query.where(LabelMove.to_version.is_not(None)), Prompt, limit=limit, cursor=cursor
    )
    ids = [prompt.id for prompt in page.data]
    moves = session.scalars(sa.select(LabelMove).join(Prompt, is_newest).where(Prompt.id.in_(ids)))
    return page, {move.prompt_id: _as_moved(move) for move in moves}


def list_moves(session: Session, prompt: Prompt, name: str, *, limit: int, cursor: str | None) -> Page:
    """Newest first, those of a label that was deleted too."""
    query = sa.select(LabelMove).where(LabelMove.prompt_id == prompt.id, LabelMove.label == name)
    page = pages.descending(session, query, LabelMove.id, limit=limit, cursor=cursor)
    if not page.data and cursor is None:
        raise NotFound(f"prompt {prompt.name!r} never had a label {name!r}")
    return page


def move_label(
    session: Session,
    caller: Caller,
    prompt: Prompt,
    name: str,
    version: Version,
    *,
    reason: str = "",
    precondition: Precondition = ANY,
) -> Placed | LabelRequest:
    """Point a label at a version, making the label if needed; or ask for it, if that takes a second person."""
    check_label(name)
    here = _lock(session, prompt, name, precondition)
    if here is not None and here.version_number == version.number:
        return here
    outcome = _move_or_ask(session, caller, prompt, name, here, version, reason=reason)
    assert outcome is not None  # it points at a version
    return outcome


def move_labels(
    session: Session, caller: Caller, name: str, targets: Sequence[Target], *, reason: str = ""
) -> dict[uuid.UUID, LabelRequest]:
    """The same label of many prompts, all of them or none; by prompt the requests of those that take a second person.

    The number of statements does not grow with the prompts, but for these requests.
    """
    check_label(name)
    ids = [target.prompt.id for target in targets]
    lock = sa.select(Prompt.id).where(Prompt.id.in_(ids)).order_by(Prompt.id).with_for_update(key_share=True)
    session.execute(lock)  # in one order: two who move many do not wait in a circle
    numbers = (
        sa.select(Label.prompt_id, Version.number)
        .join(Version, Version.id == Label.version_id)
        .where(Label.prompt_id.in_(ids), Label.name == name)
    )
    here = dict(session.execute(numbers).all())
    found = sa.select(LabelProtection).where(LabelProtection.prompt_id.in_(ids), LabelProtection.label == name)
    protections = {protection.prompt_id: protection for protection in session.scalars(found)}
    asked, moves = {}, []
    for target in targets:
        prompt = target.prompt
        before, protection = here.get(prompt.id), protections.get(prompt.id)
        if before == target.version_number:
            continue
        if protection is not None and protection.approvals:
            wanted = {"from_version": before, "to_version": target.version_number, "undoes": None}
            asked[prompt.id] = _ask(session, caller, prompt, name, wanted, reason)
            continue
        check_role(caller, prompt, protection)
        moves.append(_Move(prompt, target.version_id, before, target.version_number, caller.user_name, reason))
    _write(session, name, moves, actor=caller.user_name)
    return asked


def delete_label(
    session: Session, caller: Caller, prompt: Prompt, name: str, *, reason: str = "", precondition: Precondition = ANY
) -> LabelRequest | None:
    """Remove a label; its history and its protection stay. None when it is done, else the request for it."""
    here = _lock(session, prompt, name, precondition)
    if here is None:
        raise NotFound(f"prompt {prompt.name!r} has no label {name!r}")
    outcome = _move_or_ask(session, caller, prompt, name, here, None, reason=reason)
    return outcome if isinstance(outcome, LabelRequest) else None


def undo_move(
    session: Session, caller: Caller, prompt: Prompt, name: str, *, reason: str = "", precondition: Precondition = ANY
) -> Placed | LabelRequest:
    """Point the label at what it pointed at before its last move that was not undone yet.

    So two undos walk back two moves, not to and fro; the undo of a delete makes the label again.
    """
    here = _lock(session, prompt, name, precondition)
    undone = sa.select(LabelMove.undoes).where(
        LabelMove.prompt_id == prompt.id, LabelMove.label == name, LabelMove.undoes.is_not(None)
    )
    last = session.scalars(
        _newest(prompt.id, name).where(LabelMove.undoes.is_(None), LabelMove.id.not_in(undone))
    ).one_or_none()
    if last is None:
        raise NotFound(f"prompt {prompt.name!r} never had a label {name!r}")
    if last.from_version is None:
        raise Conflict(f"nothing stands before: the label {name!r} was made by the move to version {last.to_version}")
    version = _version(session, prompt.id, last.from_version)
    outcome = _move_or_ask(session, caller, prompt, name, here, version, reason=reason, undoes=last.id)
    assert outcome is not None
    return outcome


def find_protection(session: Session, prompt_id: uuid.UUID, name: str) -> LabelProtection | None:
    return session.get(LabelProtection, (prompt_id, name), populate_existing=True)


def check_role(caller: Caller, prompt: Prompt, protection: LabelProtection | None) -> None:
    """`Forbidden` when the label is protected by a higher role than the caller's."""
    if protection is not None and protection.role and not caller.has(Role(protection.role)):
        raise Forbidden(
            f"the label {protection.label!r} of {prompt.name} is protected: it takes the role {protection.role};"
            f" the key has {caller.role}"
        )


def protect_label(
    session: Session,
    caller: Caller,
    prompt: Prompt,
    name: str,
    *,
    role: Role | None = None,
    approvals: int | None = None,
) -> LabelProtection | None:
    """Let a label be moved by this role or a higher one only, or with a second person's consent; neither: by all.

    What takes an administrator to move takes one to protect so, and to free again; all else takes an operator.
    """
    check_label(name)
    _lock_prompt(session, prompt)
    before = find_protection(session, prompt.id, name)
    caller.require(Role.ADMIN if Role.ADMIN in (role, before and before.role) else Role.OPERATOR)
    if (role, approvals) == ((before.role, before.approvals) if before else (None, None)):
        return before
    kind = "prompt.label_protected"
    if role is None and approvals is None:
        session.delete(before)
        kind, before = "prompt.label_unprotected", None
    elif before is None:
        before = LabelProtection(prompt_id=prompt.id, label=name, workspace_id=prompt.workspace_id)
        session.add(before)
    if before is not None:
        before.role, before.approvals = role, approvals
        before.set_by, before.set_at = caller.user_name, session.scalars(sa.select(db_now())).one()
    session.flush()
    data = {"label": name, "role": role, "approvals": approvals}
    events.record(session, [Change(prompt.workspace_id, kind, prompt.id, data, caller.user_name)])
    return before


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
    if state is not None:
        query = query.where(LabelRequest.state == state)
    return pages.newest_first(session, query, LabelRequest, limit=limit, cursor=cursor)


def approve_request(session: Session, caller: Caller, request_id: uuid.UUID, *, reason: str = "") -> LabelRequest:
    """Make the move that was asked for. 409 once it was decided, or the label was moved meanwhile."""
    request, prompt = _pending(session, caller, request_id)
    if request.asked_by_id == caller.user_id:
        raise Forbidden("a second person approves; whoever asked can only reject, which withdraws it")
    check_role(caller, prompt, find_protection(session, prompt.id, request.label))
    _decide(session, caller, request, RequestState.APPROVED, reason)
    version = None if request.to_version is None else _version(session, prompt.id, request.to_version)
    move = _Move(
        prompt,
        None if version is None else version.id,
        request.from_version,
        request.to_version,
        request.asked_by,
        request.reason,
        request.undoes,
        approved_by=caller.user_name,
    )
    _write(session, request.label, [move], actor=caller.user_name)
    return request


def reject_request(session: Session, caller: Caller, request_id: uuid.UUID, *, reason: str = "") -> LabelRequest:
    """Say no; of one's own request: withdraw it. 409 once it was decided."""
    request, _ = _pending(session, caller, request_id)
    _decide(session, caller, request, RequestState.REJECTED, reason)
    return request


def _move_or_ask(
    session: Session,
    caller: Caller,
    prompt: Prompt,
    name: str,
    here: Placed | None,
    version: Version | None,
    *,
    reason: str,
    undoes: int | None = None,
) -> Placed | LabelRequest | None:
    """The one way to move a label, behind its protection. None: it is deleted."""
    before = None if here is None else here.version_number
    after = None if version is None else version.number
    if version is None and name == PRODUCTION and prompt.lifecycle == "published":
        raise Conflict(f"{prompt.name} is published, which takes a label {PRODUCTION}; deprecate or archive it first")
    protection = find_protection(session, prompt.id, name)
    if protection is not None and protection.approvals:
        wanted = {"from_version": before, "to_version": after, "undoes": undoes}
        return _ask(session, caller, prompt, name, wanted, reason)
    check_role(caller, prompt, protection)
    version_id = None if version is None else version.id
    move = _Move(prompt, version_id, before, after, caller.user_name, reason, undoes)
    _write(session, name, [move], actor=caller.user_name)
    return get_label(session, prompt, name) if version is not None else None


@dataclass(frozen=True)
class _Move:
    prompt: Prompt
    version_id: uuid.UUID | None  # None: the label goes
    before: int | None
    after: int | None
    moved_by: str
    reason: str = ""
    undoes: int | None = None
    approved_by: str | None = None

    def told(self, label: str) -> dict[str, Any]:
        data = {"label": label, "from": self.before, "to": self.after}
        given = {"reason": self.reason, "undo": self.undoes is not None, "approved_by": self.approved_by}
        return data | {key: value for key, value in given.items() if value}


def _write(session: Session, label: str, moves: Sequence[_Move], *, actor: str) -> None:
    """The pointers, the history, the events; and what was asked for before is no longer what it was.

    The prompts are locked, so nobody makes, moves or deletes the label of one of them meanwhile.
    """
    if not moves:
        return
    now = session.scalars(sa.select(db_now())).one()
    bulk_insert(session, LabelMove, [_history(label, move, now) for move in moves])
    new = [move for move in moves if move.before is None]
    bulk_insert(session, Label, [{**_pointer(move, now), **_key(label, move)} for move in new])
    moved = [move for move in moves if move.before is not None and move.version_id is not None]
    if moved:
        table = table_of(Label)
        change = sa.update(table).where(table.c.prompt_id == sa.bindparam("of"), table.c.name == label)
        session.connection().execute(change, [{"of": move.prompt.id, **_pointer(move, now)} for move in moved])
    gone = [move.prompt.id for move in moves if move.version_id is None]
    if gone:
        session.execute(sa.delete(Label).where(Label.prompt_id.in_(gone), Label.name == label))
    overtaken = session.execute(
        sa.update(LabelRequest)
        .where(
            LabelRequest.prompt_id.in_([move.prompt.id for move in moves]),
            LabelRequest.label == label,
            LabelRequest.state == RequestState.PENDING,
        )
        .values(state=RequestState.SUPERSEDED, decided_at=now)
        .returning(LabelRequest.workspace_id, LabelRequest.id)
    ).all()
    changes = [
        Change(move.prompt.workspace_id, "prompt.label_moved", move.prompt.id, move.told(label), actor)
        for move in moves
    ]
    changes += [Change(row.workspace_id, "label_request.superseded", row.id, {}, actor) for row in overtaken]
    events.record(session, changes)


def _history(label: str, move: _Move, now: datetime) -> dict[str, Any]:
    return {
        "workspace_id": move.prompt.workspace_id,
        "prompt_id": move.prompt.id,
        "label": label,
        "from_version": move.before,
        "to_version": move.after,
        "undoes": move.undoes,
        "reason": move.reason,
        "moved_by": move.moved_by,
        "approved_by": move.approved_by,
        "moved_at": now,
    }


def _key(label: str, move: _Move) -> dict[str, Any]:
    return {"prompt_id": move.prompt.id, "name": label, "workspace_id": move.prompt.workspace_id}


def _pointer(move: _Move, now: datetime) -> dict[str, Any]:
    return {"version_id": move.version_id, "moved_by": move.moved_by, "moved_at": now}


def _ask(
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


def _pending(session: Session, caller: Caller, request_id: uuid.UUID) -> tuple[LabelRequest, Prompt]:
    """The request and its prompt, locked; 409 when it waits no longer."""
    request = get_request(session, caller, request_id)
    projects.get_project(session, caller, str(request.project_id), writing=True)
    prompt = session.get_one(Prompt, request.prompt_id)
    _lock_prompt(session, prompt)
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


def _lock(session: Session, prompt: Prompt, name: str, precondition: Precondition) -> Placed | None:
    """Where the label points, with the prompt locked, if that is as the request expects it."""
    _lock_prompt(session, prompt)
    found = _placed(session, prompt, name)
    here = found[0] if found else None
    precondition.check(None if here is None else here.etag, f"the label {name!r} of {prompt.name}")
    return here


def _lock_prompt(session: Session, prompt: Prompt) -> None:
    # Not FOR UPDATE: an execution of the prompt that is inserted meanwhile need not wait.
    session.refresh(prompt, with_for_update={"key_share": True})


def _placed(session: Session, prompt: Prompt, name: str | None = None) -> list[Placed]:
    last = (
        sa.select(sa.func.max(LabelMove.id))
        .where(LabelMove.prompt_id == Label.prompt_id, LabelMove.label == Label.name)
        .scalar_subquery()
    )
    same = sa.and_(LabelProtection.prompt_id == Label.prompt_id, LabelProtection.label == Label.name)
    query = (
        sa.select(Label.name, Version.number, Label.moved_by, Label.moved_at, LabelProtection, last)
        .join(Version, Version.id == Label.version_id)
        .outerjoin(LabelProtection, same)
        .where(Label.prompt_id == prompt.id)
        .order_by(Label.name)
    )
    if name is not None:
        if not is_name(name):  # what could not be one is not looked up
            return []
        query = query.where(Label.name == name)
    return [
        Placed(prompt.id, label, number, moved_by, moved_at, protection, etag=str(move_id or 0))
        for label, number, moved_by, moved_at, protection, move_id in session.execute(query)
    ]


def _newest(prompt_id: uuid.UUID, name: str) -> sa.Select[LabelMove]:
    query = sa.select(LabelMove).where(LabelMove.prompt_id == prompt_id, LabelMove.label == name)
    return query.order_by(LabelMove.id.desc()).limit(1)


def _as_moved(move: LabelMove) -> Placed:
    assert move.to_version is not None
    return Placed(move.prompt_id, move.label, move.to_version, move.moved_by, move.moved_at)


def _version(session: Session, prompt_id: uuid.UUID, number: int) -> Version:
    return session.scalars(sa.select(Version).where(Version.prompt_id == prompt_id, Version.number == number)).one()
