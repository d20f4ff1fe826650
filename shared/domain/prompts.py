"""Prompts and versions. A version is its content: the same content is the same version."""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.db import db_now, holds_item, insert_if_absent
from shared.domain import events, labels, pages, projects, search_index
from shared.domain.content import Content
from shared.domain.events import Change
from shared.domain.names import LATEST, PRODUCTION, VersionChoice, check_name, is_name
from shared.domain.new_versions import Added, NewVersion, add_versions
from shared.domain.pages import Numbered, Page
from shared.domain.tenants import Caller
from shared.errors import AlreadyExists, Conflict, NotFound, field_error
from shared.models import Label, LabelRequest, Prompt, Version, new_id


@dataclass(frozen=True)
class NamedContent:
    """What a prompt is to say next."""

    name: str
    content: Content
    author: str
    message: str = ""


@dataclass(frozen=True)
class Upserted:
    prompt: Prompt
    version: Version
    version_change: bool  # a new version was made
    label_request: LabelRequest | None = None  # `production` takes a second person, who was asked


def upsert(
    session: Session,
    caller: Caller,
    name: str,
    content: Content,
    *,
    project: str | None = None,
    description: str | None = None,
    owner_team: str | None = None,
    category: str | None = None,
    tags: Sequence[str] | None = None,
    created_by: str | None = None,
    message: str = "",
    set_active: bool = False,
    must_be_new: bool = False,
    forked_from: Version | None = None,
) -> Upserted:
    """Create the prompt or add a version, unless any earlier version already has this content.

    `set_active` moves the label `production` to the version, new or old. `forked_from` is kept with a new version.
    """
    home = projects.get_project(session, caller, project, writing=True)
    author = created_by or caller.user_name
    own = {"workspace_id": caller.workspace_id, "project_id": home.id, "name": check_name(name), "created_by": author}
    # Looked for without a lock: who holds one while it waits for the name of a new row makes a circle with others.
    named = live().where(Prompt.project_id == home.id, Prompt.name == name)
    present = session.scalar(named.with_only_columns(Prompt.id)) is not None
    created = not present and insert_if_absent(session, Prompt, id=new_id(), **own)
    if must_be_new and not created:
        raise AlreadyExists(f"a prompt named {name} exists in project {home.name}")
    # The row's lock makes version numbers without gaps or races; what merely refers to the row need not wait for it.
    locked = named.with_for_update(key_share=True).execution_options(populate_existing=True)
    prompt = session.scalars(locked).one_or_none()
    if prompt is None:
        raise Conflict(f"prompt {name} was deleted at this moment; repeat the request to create it anew")
    require_full(prompt)
    changes = [Change(prompt.workspace_id, "prompt.created", prompt.id, {"name": name}, author)] if created else []
    fields = {"description": description, "owner_team": owner_team, "category": category, "tags": tags}
    given = {field: value for field, value in fields.items() if value is not None}
    if any(getattr(prompt, field) != value for field, value in given.items()):
        for field, value in given.items():
            setattr(prompt, field, value)
        prompt.updated_at = db_now()
        if not created:
            changes.append(Change(prompt.workspace_id, "prompt.updated", prompt.id, given, author))
    version, made = _add_version(session, prompt, content, author=author, message=message, forked_from=forked_from)
    events.record(session, [*changes, *made])
    search_index.index_prompt(session, prompt)
    moved = labels.move_label(session, caller, prompt, PRODUCTION, version) if set_active else None
    return Upserted(prompt, version, bool(made), moved if isinstance(moved, LabelRequest) else None)


def add_together(
    session: Session, caller: Caller, wanted: Sequence[NamedContent], *, project: str | None = None
) -> list[tuple[Prompt, Added] | None]:
    """The version that `upsert` would make of each, in the order given, for many in the statements of one.

    None where more is to be done than to add a version, or where another transaction is at work: of these nothing was
    written, and nobody was waited for.
    """
    home = projects.get_project(session, caller, project, writing=True)
    rows = live().where(Prompt.project_id == home.id, Prompt.name.in_({each.name for each in wanted}))
    locked = rows.with_for_update(key_share=True, skip_locked=True).execution_options(populate_existing=True)
    found = {prompt.name: prompt for prompt in session.scalars(locked) if prompt.mode == "full"}
    contents = {
        place: NewVersion(found[each.name], each.content, each.author, each.message)
        for place, each in enumerate(wanted)
        if each.name in found
    }
    added, changes = add_versions(session, list(contents.values()))
    events.record(session, changes)
    search_index.index_prompts(session, list(found.values()) if changes else [])
    made = dict(zip(contents, added, strict=True))
    return [(contents[place].prompt, made[place]) if place in made else None for place in range(len(wanted))]


def require_full(prompt: Prompt) -> None:
    """`Conflict` for a prompt that lives in its user's code: its content is not changed from here."""
    if prompt.mode != "full":
        raise Conflict(
            f"{prompt.name} is in tracking mode: it lives in code, and changes when that code is registered again"
            f" (POST /v1/prompts/register-code). To manage it here instead, move it with"
            f' POST /v1/prompts/{prompt.name}/mode {{"mode": "full"}}'
        )


def live() -> sa.Select[Prompt]:
    """The prompts that are not deleted."""
    return sa.select(Prompt).where(Prompt.deleted_at.is_(None))


def get_prompt(
    session: Session, caller: Caller, name: str, *, project: str | None = None, writing: bool = False
) -> Prompt:
    """`writing`: it is to be changed or run, which is a 409 in an archived project."""
    home = projects.get_project(session, caller, project, writing=writing)
    query = live().where(Prompt.project_id == home.id, Prompt.name == name)
    prompt = session.scalars(query).one_or_none() if is_name(name) else None
    if prompt is None:
        raise NotFound(f"no prompt {name!r} in project {home.name}", fields=["prompt_name"])
    return prompt


def get_by_id(
    session: Session, caller: Caller, prompt_id: uuid.UUID, *, project: str | None = None, writing: bool = False
) -> Prompt:
    """The same by its id: for the older addresses, which name prompts so."""
    home = projects.get_project(session, caller, project, writing=writing)
    prompt = session.scalars(live().where(Prompt.project_id == home.id, Prompt.id == prompt_id)).one_or_none()
    if prompt is None:
        raise NotFound(f"no prompt {prompt_id} in project {home.name}", fields=["prompt_id"])
    return prompt


def rows_of(session: Session, prompt_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, Prompt]:
    """By id, deleted ones too. Of ids that the caller may see: nothing is looked at here."""
    return {prompt.id: prompt for prompt in session.scalars(sa.select(Prompt).where(Prompt.id.in_(prompt_ids)))}


def names_of(session: Session, prompt_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, str]:
    return dict(session.execute(sa.select(Prompt.id, Prompt.name).where(Prompt.id.in_(prompt_ids))).all())


def list_prompts(
    session: Session,
    caller: Caller,
    *,
    project: str | None = None,
    mode: str | None = None,
    category: str | None = None,
    tag: str | None = None,
    owner_team: str | None = None,
    lifecycle: str | None = None,
    name_prefix: str | None = None,
    include_deleted: bool = False,
    limit: int,
    cursor: str | None,
) -> Page:
    query = _matching(
        session, caller, project, mode=mode, category=category, owner_team=owner_team, lifecycle=lifecycle, tag=tag
    )
    if not include_deleted:
        query = query.where(Prompt.deleted_at.is_(None))
    if name_prefix is not None:  # LIKE would not tell "A" from "a" on SQLite
        query = query.where(sa.func.substr(Prompt.name, 1, len(name_prefix)) == name_prefix)
    return pages.newest_first(session, query, Prompt, limit=limit, cursor=cursor)


def list_from(
    session: Session,
    caller: Caller,
    *,
    project: str | None = None,
    category: str | None = None,
    tag: str | None = None,
    lifecycle: str | None = None,
    limit: int,
    offset: int,
) -> Numbered:
    """The same by offset, of one project: for the older addresses."""
    home = projects.get_project(session, caller, project)
    query = _matching(session, caller, str(home.id), category=category, tag=tag, lifecycle=lifecycle)
    return pages.at_offset(
        session,
        query.where(Prompt.deleted_at.is_(None)),
        Prompt,
        limit=limit,
        offset=offset,
    )


def _matching(
    session: Session,
    caller: Caller,
    project: str | None,
    *,
    mode: str | None = None,
    category: str | None = None,
    owner_team: str | None = None,
    lifecycle: str | None = None,
    tag: str | None = None,
) -> sa.Select[Any]:
    query = projects.living_in(session, caller, Prompt, project)
    filters = {
        Prompt.mode: mode,
        Prompt.category: category,
        Prompt.owner_team: owner_team,
        Prompt.lifecycle: lifecycle,
    }
    for column, value in filters.items():
        if value is not None:
            query = query.where(column == value)
    if tag is not None:
        query = query.where(holds_item(session, Prompt.tags, tag))
    return query


def list_versions(
    session: Session,
    prompt: Prompt,
    *,
    template_hash: str | None = None,
    newest_first: bool = False,
    limit: int,
    cursor: str | None,
) -> Page:
    """1, 2, 3… or the other way round."""
    query = sa.select(Version).where(Version.prompt_id == prompt.id)
    if template_hash is not None:
        query = query.where(Version.template_hash == template_hash)
    order = pages.descending if newest_first else pages.ascending
    return order(session, query, Version.number, limit=limit, cursor=cursor)


def get_version(session: Session, prompt: Prompt, choice: VersionChoice) -> Version:
    """The chosen version. A label that does not exist is a 404, never a silent fallback."""
    query = sa.select(Version).where(Version.prompt_id == prompt.id)
    if choice.number is not None:
        query, wanted = query.where(Version.number == choice.number), f"version {choice.number}"
    elif choice.content_hash is not None:
        query = query.where(Version.content_hash.startswith(choice.content_hash, autoescape=True))
        wanted = f"version with content hash {choice.content_hash}"
    elif choice.label == LATEST:
        query, wanted = query.where(Version.number == prompt.last_version_number), "version"
    else:
        # By the key of the labels: by the version alone, SQLite reads every label that there is.
        query = query.join(Label, Label.version_id == Version.id)
        query = query.where(Label.prompt_id == prompt.id, Label.name == choice.label)
        wanted = f"label {choice.label!r}"
    found = session.scalars(query.limit(2)).all() if choice.label is None or is_name(choice.label) else []
    if not found:
        hint = ""
        if choice.label == PRODUCTION:
            hint = "; name a version_number or label, or move it by putting the prompt with set_active: true"
        own = ["label"] if choice.label is not None else []
        if choice.number is not None:
            own = ["version_number", "version"]
        raise NotFound(f"prompt {prompt.name!r} has no {wanted}{hint}", fields=[*own, "prompt_name"])
    if len(found) > 1:
        raise field_error("/prompt_name", "the content hash is ambiguous; give more digits")
    return found[0]


def add_version(session: Session, prompt_id: uuid.UUID, content: Content, *, author: str, message: str) -> Version:
    """A version of an existing prompt, made by the service itself (an optimization's result)."""
    prompt = session.get_one(Prompt, prompt_id, with_for_update=True, populate_existing=True)
    version, made = _add_version(session, prompt, content, author=author, message=message)
    events.record(session, made)
    search_index.index_prompt(session, prompt)
    return version


def _add_version(
    session: Session, prompt: Prompt, content: Content, *, author: str, message: str, forked_from: Version | None = None
) -> tuple[Version, list[Change]]:
    """The version with this content, and the event of it if it is new."""
    session.flush()
    [added], made = add_versions(session, [NewVersion(prompt, content, author, message, forked_from)])
    if made:
        session.refresh(prompt, ["last_version_number", "updated_at"])
    return session.get_one(Version, added.id), made
