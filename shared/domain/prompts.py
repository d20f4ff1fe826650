"""Prompts and versions. A version is its content: the same content is the same version."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared import templating
from shared.db import db_now, insert_if_absent
from shared.domain import events, labels, pages, projects
from shared.domain.events import Change
from shared.domain.names import LATEST, PRODUCTION, VersionChoice, check_name, is_name
from shared.domain.pages import Page
from shared.domain.tenants import Caller
from shared.errors import AlreadyExists, Conflict, FieldError, InvalidTemplate, NotFound, field_error
from shared.hashing import hash_of, sha256
from shared.models import Label, LabelRequest, Prompt, Version, new_id

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Content:
    """A checked version content: what it says, its hashes and the variables that it needs."""

    body: Mapping[str, Any]  # {"template_source": …} or {"messages": […]}, and "model" if it has settings
    template_hash: str
    content_hash: str
    variables: tuple[str, ...]


@dataclass(frozen=True)
class Upserted:
    prompt: Prompt
    version: Version
    version_change: bool  # a new version was made
    label_request: LabelRequest | None = None  # `production` takes a second person, who was asked


def check_content(
    *,
    template_source: str | None = None,
    messages: Sequence[Mapping[str, str]] | None = None,
    model: Mapping[str, Any] | None = None,
) -> Content:
    """Validate a text template or chat messages, and hash them. Pure: call it before any transaction.

    `template_hash` is the SHA-256 of the template's source, byte for byte; `content_hash` covers the
    model settings too. Whitespace and case count in both.
    """
    if (template_source is None) == (messages is None):
        raise field_error("/template_source", "give either template_source or messages")
    body: dict[str, Any] = {}
    if template_source is not None:
        _check_template(template_source, "/template_source")
        body["template_source"] = template_source
        template_hash = sha256(template_source)
    else:
        assert messages is not None
        body["messages"] = [_check_message(message, i) for i, message in enumerate(messages)]
        if not body["messages"]:
            raise field_error("/messages", "must not be empty")
        template_hash = hash_of(body["messages"])
    if model:
        body["model"] = dict(model)
    return Content(body, template_hash, hash_of(body), tuple(variables_of(body)))


def message_templates(body: Mapping[str, Any]) -> list[Mapping[str, str]]:
    """A content's chat messages, unrendered; a text template is one user message."""
    if "template_source" in body:
        return [{"role": "user", "content": body["template_source"]}]
    return list(body["messages"])


def variables_of(body: Mapping[str, Any]) -> list[str]:
    names = set()
    for message in message_templates(body):
        names.update(templating.variable_names(message["content"]))
    return sorted(names)


def render_messages(body: Mapping[str, Any], variables: Mapping[str, Any]) -> list[dict[str, str]]:
    """The content's messages filled with the variables; `RenderFailed` names what is missing."""
    rendered = [
        {"role": message["role"], "content": templating.render(message["content"], variables)}
        for message in message_templates(body)
    ]
    if sum(len(message["content"].encode()) for message in rendered) > templating.MAX_RENDERED_BYTES:
        raise field_error("/variables", f"the rendered prompt passes {templating.MAX_RENDERED_BYTES} bytes")
    return rendered


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
) -> Upserted:
    """Create the prompt or add a version, unless any earlier version already has this content.

    `set_active` moves the label `production` to the version, new or old.
    """
    home = projects.get_project(session, caller, project, writing=True)
    author = created_by or caller.user_name
    prompt_id = new_id()
    created = insert_if_absent(
        session,
        Prompt,
        id=prompt_id,
        workspace_id=caller.workspace_id,
        project_id=home.id,
        name=check_name(name),
        created_by=author,
    )
    if must_be_new and not created:
        raise AlreadyExists(f"a prompt named {name} exists in project {home.name}")
    # The row's lock makes version numbers without gaps or races.
    prompt = session.scalars(
        sa.select(Prompt)
        .where(Prompt.project_id == home.id, Prompt.name == name)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()
    if prompt.mode != "full":
        raise Conflict(f"{name} is in {prompt.mode} mode; it is changed by registering the code that holds it")
    changes = [Change(prompt.workspace_id, "prompt.created", prompt.id, {"name": name}, author)] if created else []
    fields = {"description": description, "owner_team": owner_team, "category": category, "tags": tags}
    given = {field: value for field, value in fields.items() if value is not None}
    if any(getattr(prompt, field) != value for field, value in given.items()):
        for field, value in given.items():
            setattr(prompt, field, value)
        prompt.updated_at = db_now()
        if not created:
            changes.append(Change(prompt.workspace_id, "prompt.updated", prompt.id, given, author))
    events.record(session, changes)
    version, is_new = _add_version(session, prompt, content, author=author, message=message)
    moved = labels.move_label(session, caller, prompt, PRODUCTION, version) if set_active else None
    return Upserted(prompt, version, is_new, moved if isinstance(moved, LabelRequest) else None)


def get_prompt(
    session: Session, caller: Caller, name: str, *, project: str | None = None, writing: bool = False
) -> Prompt:
    """`writing`: it is to be changed or run, which is a 409 in an archived project."""
    home = projects.get_project(session, caller, project, writing=writing)
    query = sa.select(Prompt).where(Prompt.project_id == home.id, Prompt.name == name)
    prompt = session.scalars(query).one_or_none() if is_name(name) else None
    if prompt is None:
        raise NotFound(f"no prompt {name!r} in project {home.name}", fields=["prompt_name"])
    return prompt


def list_prompts(session: Session, caller: Caller, *, project: str | None, limit: int, cursor: str | None) -> Page:
    query = projects.living_in(session, caller, Prompt, project)
    return pages.newest_first(session, query, Prompt, limit=limit, cursor=cursor)


def names_of(session: Session, prompt_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, str]:
    return dict(session.execute(sa.select(Prompt.id, Prompt.name).where(Prompt.id.in_(prompt_ids))).all())


def list_versions(session: Session, prompt: Prompt, *, limit: int, cursor: str | None) -> Page:
    """Oldest first: 1, 2, 3…"""
    query = sa.select(Version).where(Version.prompt_id == prompt.id)
    return pages.ascending(session, query, Version.number, limit=limit, cursor=cursor)


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
        query = query.join(Label, Label.version_id == Version.id).where(Label.name == choice.label)
        wanted = f"label {choice.label!r}"
    found = session.scalars(query.limit(2)).all() if choice.label is None or is_name(choice.label) else []
    if not found:
        hint = ""
        if choice.label == PRODUCTION:
            hint = "; name a version_number or label, or move it by putting the prompt with set_active: true"
        own = ["version_number"] if choice.number is not None else ["label"] if choice.label is not None else []
        raise NotFound(f"prompt {prompt.name!r} has no {wanted}{hint}", fields=[*own, "prompt_name"])
    if len(found) > 1:
        raise field_error("/prompt_name", "the content hash is ambiguous; give more digits")
    return found[0]


def add_version(session: Session, prompt_id: uuid.UUID, content: Content, *, author: str, message: str) -> Version:
    """A version of an existing prompt, made by the service itself (an optimization's result)."""
    prompt = session.get_one(Prompt, prompt_id, with_for_update=True, populate_existing=True)
    return _add_version(session, prompt, content, author=author, message=message)[0]


def _add_version(
    session: Session, prompt: Prompt, content: Content, *, author: str, message: str
) -> tuple[Version, bool]:
    existing = session.scalars(
        sa.select(Version).where(Version.prompt_id == prompt.id, Version.content_hash == content.content_hash)
    ).one_or_none()
    if existing is not None:
        return existing, False
    prompt.last_version_number += 1
    prompt.updated_at = db_now()
    version = Version(
        workspace_id=prompt.workspace_id,
        prompt_id=prompt.id,
        number=prompt.last_version_number,
        content=dict(content.body),
        template_hash=content.template_hash,
        content_hash=content.content_hash,
        variables=list(content.variables),
        message=message,
        created_by=author,
    )
    session.add(version)
    session.flush()
    session.refresh(version)
    session.refresh(prompt)
    events.record(
        session,
        [
            Change(
                prompt.workspace_id,
                "prompt.version_created",
                prompt.id,
                {"version_number": version.number, "content_hash": version.content_hash},
                author,
            )
        ],
    )
    return version, True


def _check_message(message: Mapping[str, str], index: int) -> dict[str, str]:
    if message["role"] not in ROLES:
        raise field_error(f"/messages/{index}/role", f"must be one of {', '.join(ROLES)}")
    _check_template(message["content"], f"/messages/{index}/content")
    return {"role": message["role"], "content": message["content"]}


def _check_template(source: str, pointer: str) -> None:
    if not source.strip():
        raise field_error(pointer, "must not be empty")
    try:
        templating.check(source)
    except InvalidTemplate as error:
        raise InvalidTemplate(error.detail, errors=[FieldError(pointer, error.detail)]) from error
