"""What is done with whole versions: roll back to one, fork one into a prompt of its own, and where forks came from.

Content is the version, so no verb here copies a version within its prompt: going back is moving a label.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from shared.domain import events, label_moves, labels, pages, projects, prompts
from shared.domain.content import Content
from shared.domain.events import Change
from shared.domain.names import PRODUCTION
from shared.domain.prompts import Upserted
from shared.domain.tenants import Caller
from shared.errors import NotFound
from shared.models import Label, LabelRequest, Prompt, Version

MAX_ANCESTORS = 100


@dataclass(frozen=True)
class RolledBack:
    from_number: int | None  # where production pointed; None: nowhere
    moved: bool
    label_request: LabelRequest | None = None  # a second person has to approve, and was asked


@dataclass(frozen=True)
class Relative:
    """A version that another one was forked from, or that was forked from another."""

    prompt: Prompt
    version: Version


def get_relative(session: Session, caller: Caller, version_id: uuid.UUID, *, writing: bool = False) -> Relative:
    """A version by its id, with its prompt; neither the prompt nor its project is deleted.

    `writing`: the prompt is to be changed or run, which is a 409 in an archived project.
    """
    found = _relatives(session, caller, [version_id])
    if not found or found[0].prompt.deleted_at is not None:
        raise NotFound(f"no version {version_id}", fields=["prompt_id", "initial_prompt_id", "parent_version_id"])
    projects.get_project(session, caller, str(found[0].prompt.project_id), writing=writing)
    return found[0]


def listed(caller: Caller, project_id: uuid.UUID | None, *, include_deleted: bool = False) -> sa.Select[Version]:
    """The versions of every prompt of a project, or of all that the caller may see."""
    query = (
        sa.select(Version)
        .join(Prompt, Prompt.id == Version.prompt_id)
        .where(*_visible(caller), projects.is_living(caller, Prompt.project_id))
    )
    if project_id is not None:
        query = query.where(Prompt.project_id == project_id)
    return query if include_deleted else query.where(Prompt.deleted_at.is_(None))


def of_prompt(prompt: Prompt) -> sa.Select[Version]:
    return sa.select(Version).where(Version.prompt_id == prompt.id)


def with_prompts(session: Session, caller: Caller, versions: Sequence[Version]) -> list[Relative]:
    """In the order given."""
    found = {relative.version.id: relative for relative in _relatives(session, caller, [v.id for v in versions])}
    return [found[version.id] for version in versions]


def numbers_of(session: Session, version_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, int]:
    return dict(session.execute(sa.select(Version.id, Version.number).where(Version.id.in_(version_ids))).all())


def parents_of(session: Session, versions: Sequence[Version]) -> dict[uuid.UUID, uuid.UUID | None]:
    """By version the one before it in its prompt; of version 1, what it was forked from."""
    before = [(version.prompt_id, version.number - 1) for version in versions if version.number > 1]
    numbers = sa.tuple_(Version.prompt_id, Version.number)
    rows = session.execute(sa.select(Version.prompt_id, Version.number, Version.id).where(numbers.in_(before))).all()
    known = {(row.prompt_id, row.number): row.id for row in rows}
    return {
        version.id: known.get((version.prompt_id, version.number - 1), version.forked_from_version_id)
        for version in versions
    }


def roll_back(
    session: Session,
    caller: Caller,
    prompt: Prompt,
    version: Version,
    *,
    message: str = "",
    set_active: bool = True,
) -> RolledBack:
    """Point `production` at an earlier (or any other) version. One event more than the move's, with from and to.

    Without `set_active` nothing is changed: the older content is a version already.
    """
    label_moves.lock_prompt(session, prompt)  # nobody moves it between what is read here and what is written
    before = session.scalar(
        sa.select(Version.number)
        .join(Label, Label.version_id == Version.id)
        .where(Label.prompt_id == prompt.id, Label.name == PRODUCTION)
    )
    if not set_active or before == version.number:
        return RolledBack(before, moved=False)
    moved = labels.move_label(session, caller, prompt, PRODUCTION, version, reason=message)
    if isinstance(moved, LabelRequest):
        return RolledBack(before, moved=False, label_request=moved)
    data = {"from": before, "to": version.number, "message": message}
    events.record(session, [Change(prompt.workspace_id, "prompt.rolled_back", prompt.id, data, caller.user_name)])
    return RolledBack(before, moved=True)


def fork(
    session: Session,
    caller: Caller,
    source: Prompt,
    version: Version,
    name: str,
    *,
    project: str | None = None,
    message: str = "",
    **metadata: Any,
) -> Upserted:
    """A new prompt whose version 1 is this version's content, and says so.

    It is in the project of its source unless one is named. What is not given of `metadata` (description, owner_team,
    category, tags; see `prompts.upsert`) is that of the source.
    """
    inherited = {field: getattr(source, field) for field in ("description", "owner_team", "category", "tags")}
    made = prompts.upsert(
        session,
        caller,
        name,
        Content(version.content, version.template_hash, version.content_hash, tuple(version.variables)),
        project=project or str(source.project_id),
        message=message or f"forked from {source.name} version {version.number}",
        must_be_new=True,
        forked_from=version,
        **{**inherited, **metadata},
    )
    data = {"from_prompt_id": str(source.id), "from_version_number": version.number}
    author = made.version.created_by
    events.record(session, [Change(made.prompt.workspace_id, "prompt.forked", made.prompt.id, data, author)])
    return made


def origin_of(session: Session, prompt: Prompt) -> uuid.UUID | None:
    """The version that a prompt was forked from, if it was."""
    return session.scalar(
        sa.select(Version.forked_from_version_id).where(Version.prompt_id == prompt.id, Version.number == 1)
    )


def origins_of(session: Session, caller: Caller, prompt_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, uuid.UUID]:
    """Of each prompt that was forked the prompt that it was forked from, where the caller may see that."""
    first = aliased(Version)
    rows = session.execute(
        sa.select(first.prompt_id, Prompt.id)
        .join(Version, Version.id == first.forked_from_version_id)
        .join(Prompt, Prompt.id == Version.prompt_id)
        .where(first.prompt_id.in_(prompt_ids), first.number == 1, *_visible(caller))
    )
    return dict(rows.all())


def ancestors_of(session: Session, caller: Caller, prompt: Prompt) -> list[Relative]:
    """What a prompt was forked from, and that from, and so on: nearest first, as far as the caller may see."""
    found: list[Relative] = []
    version_id = origin_of(session, prompt)
    while version_id is not None and len(found) < MAX_ANCESTORS:
        relatives = _relatives(session, caller, [version_id])
        if not relatives:
            break
        found += relatives
        version_id = origin_of(session, relatives[0].prompt)
    return found


def forks_of(
    session: Session, caller: Caller, prompt: Prompt, *, limit: int, cursor: str | None
) -> tuple[Sequence[tuple[Relative, int]], str | None]:
    """One page of (fork, the number of the version that it was made from), newest first; and the next cursor."""
    own = sa.select(Version.id).where(Version.prompt_id == prompt.id)
    query = (
        sa.select(Version)
        .join(Prompt, Prompt.id == Version.prompt_id)
        .where(Version.forked_from_version_id.in_(own), *_visible(caller))
    )
    page = pages.newest_first(session, query, Version, limit=limit, cursor=cursor)
    wanted = {version.forked_from_version_id for version in page.data}
    numbers = numbers_of(session, wanted)
    by_id = {relative.version.id: relative for relative in _relatives(session, caller, [v.id for v in page.data])}
    rows = [(by_id[version.id], numbers[version.forked_from_version_id]) for version in page.data]
    return rows, page.next_cursor


def _relatives(session: Session, caller: Caller, version_ids: Sequence[uuid.UUID]) -> list[Relative]:
    rows = session.execute(
        sa.select(Prompt, Version)
        .join(Version, Version.prompt_id == Prompt.id)
        .where(Version.id.in_(version_ids), *_visible(caller))
    )
    return [Relative(row[0], row[1]) for row in rows]


def _visible(caller: Caller) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = [Prompt.workspace_id == caller.workspace_id]
    if caller.project_ids is not None:
        conditions.append(Prompt.project_id.in_(caller.project_ids))
    return conditions
