"""Labels: movable pointers to versions, behind their protection.

Every function that changes a label locks the prompt first; that orders all of them.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.db import among
from shared.domain import label_moves, label_requests, pages, projects
from shared.domain.label_moves import Move
from shared.domain.label_protections import check_role, find_protection
from shared.domain.names import PRODUCTION, check_label, is_name
from shared.domain.pages import Page
from shared.domain.preconditions import ANY, Precondition
from shared.domain.tenants import Caller
from shared.errors import Conflict, NotFound
from shared.models import Label, LabelMove, LabelProtection, LabelRequest, Prompt, Version


@dataclass(frozen=True)
class Target:
    """The version that the label of a prompt is to point at."""

    prompt: Prompt
    version_id: uuid.UUID
    version_number: int


@dataclass(frozen=True)
class Moved:
    """Of a label of many prompts, by prompt: the number that it pointed at, and the requests of those that take a
    second person."""

    before: Mapping[uuid.UUID, int]
    asked: Mapping[uuid.UUID, LabelRequest]


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
    living = projects.living_in(session, caller, Prompt, project).where(Prompt.deleted_at.is_(None))
    query = living.join(LabelMove, is_newest)
    page = pages.newest_first(
        session, query.where(LabelMove.to_version.is_not(None)), Prompt, limit=limit, cursor=cursor
    )
    ids = [prompt.id for prompt in page.data]
    moves = session.scalars(sa.select(LabelMove).join(Prompt, is_newest).where(Prompt.id.in_(ids)))
    return page, {move.prompt_id: _as_moved(move) for move in moves}


def placed_versions(session: Session, prompt: Prompt, name: str = PRODUCTION) -> tuple[int | None, frozenset[int]]:
    """The number that the label points at, None when it does not, and all that it ever pointed at."""
    here = _placed(session, prompt, name)
    moves = sa.select(LabelMove.to_version).where(LabelMove.prompt_id == prompt.id, LabelMove.label == name)
    numbers = session.scalars(moves.where(LabelMove.to_version.is_not(None)).distinct())
    return here[0].version_number if here else None, frozenset(number for number in numbers if number is not None)


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


def move_labels(session: Session, caller: Caller, name: str, targets: Sequence[Target], *, reason: str = "") -> Moved:
    """The same label of many prompts, all of them or none.

    The number of statements does not grow with the prompts, but for those that take a second person.
    """
    check_label(name)
    of_these = {"ids": [target.prompt.id for target in targets], "label": name}
    session.execute(_LOCK, of_these)  # in one order: two who move many do not wait in a circle
    before = dict(session.execute(_NUMBERS, of_these).all())
    protections = {protection.prompt_id: protection for protection in session.scalars(_PROTECTIONS, of_these)}
    asked, moves = {}, []
    for target in targets:
        prompt = target.prompt
        here, protection = before.get(prompt.id), protections.get(prompt.id)
        if here == target.version_number:
            continue
        if protection is not None and protection.approvals:
            wanted = {"from_version": here, "to_version": target.version_number, "undoes": None}
            asked[prompt.id] = label_requests.ask(session, caller, prompt, name, wanted, reason)
            continue
        check_role(caller, prompt, protection)
        moves.append(Move(prompt, target.version_id, here, target.version_number, caller.user_name, reason))
    label_moves.write(session, name, moves, actor=caller.user_name)
    return Moved(before, asked)


# Built once: to build them for each batch costs more than to run them.
_LOCK = sa.select(Prompt.id).where(among(Prompt.id)).order_by(Prompt.id).with_for_update(key_share=True)
_NUMBERS = (
    sa.select(Label.prompt_id, Version.number)
    .join(Version, Version.id == Label.version_id)
    .where(among(Label.prompt_id), Label.name == sa.bindparam("label"))
)
_PROTECTIONS = sa.select(LabelProtection).where(
    among(LabelProtection.prompt_id), LabelProtection.label == sa.bindparam("label")
)


def delete_label(
    session: Session, caller: Caller, prompt: Prompt, name: str, *, reason: str = "", precondition: Precondition = ANY
) -> LabelRequest | None:
    """Remove a label; its history and its protection stay. None when it is done, else the request for it."""
    here = _lock(session, prompt, name, precondition)
    if here is None:
        raise NotFound(f"prompt {prompt.name!r} has no label {name!r}")
    label_moves.check_deletable(prompt, name)
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
    version = label_moves.version_of(session, prompt.id, last.from_version)
    outcome = _move_or_ask(session, caller, prompt, name, here, version, reason=reason, undoes=last.id)
    assert outcome is not None
    return outcome


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
    protection = find_protection(session, prompt.id, name)
    if protection is not None and protection.approvals:
        wanted = {"from_version": before, "to_version": after, "undoes": undoes}
        return label_requests.ask(session, caller, prompt, name, wanted, reason)
    check_role(caller, prompt, protection)
    version_id = None if version is None else version.id
    move = Move(prompt, version_id, before, after, caller.user_name, reason, undoes)
    label_moves.write(session, name, [move], actor=caller.user_name)
    return get_label(session, prompt, name) if version is not None else None


def _lock(session: Session, prompt: Prompt, name: str, precondition: Precondition) -> Placed | None:
    """Where the label points, with the prompt locked, if that is as the request expects it."""
    label_moves.lock_prompt(session, prompt)
    found = _placed(session, prompt, name)
    here = found[0] if found else None
    precondition.check(None if here is None else here.etag, f"the label {name!r} of {prompt.name}")
    return here


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
