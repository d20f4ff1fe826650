"""The prompt row's life: changed, renamed, deleted, restored, and deleted for good. Its content is in `prompts`.

A deleted prompt keeps its row, versions and labels, so that everything that was run with it can still be traced; its
name is free at once.
"""

import uuid
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared.db import db_now
from shared.domain import events, projects, prompts, search_index
from shared.domain.events import Change
from shared.domain.names import check_name
from shared.domain.tenants import Caller, get_visible
from shared.errors import AlreadyExists, Conflict, NotFound
from shared.hashing import hash_of
from shared.models import Evaluation, Execution, Generation, Label, Optimization, Prompt, Version


def etag_of(prompt: Prompt) -> str:
    """Changes with the row's own fields, and not with versions or labels: those have their own ways of not being lost.

    Two states that look alike have one tag, whatever lay between them.
    """
    fields = (
        *(str(prompt.id), prompt.name, prompt.mode, prompt.lifecycle, prompt.deleted_at is None),
        *(prompt.description, prompt.category, prompt.tags, prompt.owner_team),
    )
    return hash_of(fields)[:32]


def lock_prompt(session: Session, caller: Caller, name: str, *, project: str | None = None) -> Prompt:
    """The prompt of this name; nobody else changes its row until the transaction ends."""
    prompt = _lock(session, prompts.get_prompt(session, caller, name, project=project, writing=True))
    if prompt is None or prompt.deleted_at is not None or prompt.name != name:  # since the statement before
        raise NotFound(f"no prompt {name!r}")
    return prompt


def lock_by_id(session: Session, caller: Caller, prompt_id: uuid.UUID, *, project: str | None = None) -> Prompt:
    """The same for a prompt that may be deleted: then its id is the only way to name it."""
    home = None if project is None else projects.get_project(session, caller, project).id
    prompt = _lock(session, get_visible(session, caller, Prompt, prompt_id))
    if prompt is None or home not in (None, prompt.project_id):
        raise NotFound(f"no prompt {prompt_id}")
    return prompt


def update_prompt(session: Session, caller: Caller, prompt: Prompt, fields: Mapping[str, Any]) -> None:
    """Write the fields that differ. Another name must be free; the versions, labels and runs come along."""
    given = {field: value for field, value in fields.items() if getattr(prompt, field) != value}
    if not given:
        return
    changes = []
    if "name" in given:
        _require_free(session, prompt, check_name(given["name"]))
        renamed = {"from": prompt.name, "to": given["name"]}
        changes.append(_change(caller, prompt, "prompt.renamed", renamed))
    if described := {field: value for field, value in given.items() if field != "name"}:
        changes.append(_change(caller, prompt, "prompt.updated", described))
    for field, value in given.items():
        setattr(prompt, field, value)
    _write(session, prompt, changes)


def delete_prompt(session: Session, caller: Caller, prompt: Prompt) -> None:
    """Free the name. What runs goes on, and what was run can still be read. Deleting it again changes nothing."""
    if prompt.deleted_at is not None:
        return
    prompt.deleted_at = db_now()
    prompt.deleted_by = caller.user_name
    _write(session, prompt, [_change(caller, prompt, "prompt.deleted", {"name": prompt.name, "permanent": False})])


def restore_prompt(session: Session, caller: Caller, prompt_id: uuid.UUID, *, name: str | None = None) -> Prompt:
    """Bring a deleted prompt back, under another name if one is given. One that is not deleted stays as it is."""
    prompt = lock_by_id(session, caller, prompt_id)
    projects.get_project(session, caller, str(prompt.project_id), writing=True)
    wanted = prompt.name if name is None else check_name(name)
    if prompt.deleted_at is None:
        if wanted != prompt.name:
            raise Conflict(f"{prompt.name} is not deleted; rename it with PATCH /v1/prompts/{prompt.name}")
        return prompt
    _require_free(session, prompt, wanted, hint='; restore it under another: {"name": …}')
    restored = {"name": wanted, "deleted_as": prompt.name}
    prompt.name, prompt.deleted_at, prompt.deleted_by = wanted, None, None
    _write(session, prompt, [_change(caller, prompt, "prompt.restored", restored)])
    return prompt


def destroy_prompt(session: Session, caller: Caller, prompt: Prompt) -> None:
    """Delete the row with its versions and labels, for good; `Conflict` while anything refers to it.

    What was paid for is never left without the prompt that it was paid for.
    """
    counts = {
        entity.__tablename__: session.scalar(
            sa.select(sa.func.count()).select_from(entity).where(entity.prompt_id == prompt.id)
        )
        for entity in (Execution, Evaluation, Optimization, Generation)
    }
    if any(counts.values()):
        held = ", ".join(f"{count} {noun}" for noun, count in counts.items() if count)
        raise Conflict(
            f"{held} refer to {prompt.name}, and would no longer say what they ran;"
            " delete it without `permanent`, which frees its name and keeps its history"
        )
    events.record(session, [_change(caller, prompt, "prompt.deleted", {"name": prompt.name, "permanent": True})])
    try:
        for rows in (sa.delete(Label), sa.delete(Version)):
            session.execute(rows.where(rows.table.c.prompt_id == prompt.id))
        session.delete(prompt)
        session.flush()
    except IntegrityError as error:  # an execution that was submitted at this moment, or a noun that is newer than this
        raise Conflict(f"something still refers to {prompt.name}; delete it without `permanent`") from error


def _lock(session: Session, prompt: Prompt) -> Prompt | None:
    query = sa.select(Prompt).where(Prompt.id == prompt.id).with_for_update().execution_options(populate_existing=True)
    return session.scalars(query).one_or_none()


def _require_free(session: Session, prompt: Prompt, name: str, *, hint: str = "") -> None:
    # Who takes the name between this and the commit violates the index: the same 409, without the hint.
    taken = prompts.live().where(Prompt.project_id == prompt.project_id, Prompt.name == name, Prompt.id != prompt.id)
    if session.scalars(taken).first() is not None:
        raise AlreadyExists(f"a prompt named {name} exists in the project{hint}")


def _write(session: Session, prompt: Prompt, changes: list[Change]) -> None:
    prompt.updated_at = db_now()
    session.flush()
    events.record(session, changes)
    session.refresh(prompt)
    search_index.index_prompt(session, prompt)


def _change(caller: Caller, prompt: Prompt, kind: str, data: Mapping[str, Any]) -> Change:
    return Change(prompt.workspace_id, kind, prompt.id, data, caller.user_name)
