"""The lifecycle of a prompt: draft, published, deprecated, archived; who moved it on, when and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.db import db_now
from shared.domain import events, pages, projects, prompts, search_index
from shared.domain.events import Change
from shared.domain.label_protections import check_role, find_protection
from shared.domain.names import PRODUCTION
from shared.domain.pages import Page
from shared.domain.tenants import Caller
from shared.errors import Conflict, PromptmillError
from shared.models import Label, LifecycleChange, Prompt


class Lifecycle(StrEnum):
    DRAFT = "draft"  # not released yet; it can be run
    PUBLISHED = "published"  # released: `production` says which version
    DEPRECATED = "deprecated"  # it runs, and whoever runs it is told
    ARCHIVED = "archived"  # it can be read and not run


TRANSITIONS = {
    Lifecycle.DRAFT: (Lifecycle.PUBLISHED, Lifecycle.ARCHIVED),
    Lifecycle.PUBLISHED: (Lifecycle.DEPRECATED, Lifecycle.ARCHIVED),
    Lifecycle.DEPRECATED: (Lifecycle.PUBLISHED, Lifecycle.ARCHIVED),
    Lifecycle.ARCHIVED: (Lifecycle.DRAFT,),
}


@dataclass(frozen=True)
class Transition:
    """What became of one prompt of several: the state that it has, or why it could not get it."""

    name: str
    previous: str | None = None
    state: str | None = None
    error: PromptmillError | None = None


def change_state(session: Session, caller: Caller, prompt: Prompt, state: Lifecycle, *, reason: str = "") -> Prompt:
    """Move a prompt on from the state that `prompt` was read with; 409 when it has another one by now.

    So of two that saw the same state and want different ones, one wins. The state that it has is no change.
    """
    seen = prompt.lifecycle
    prompt = session.get_one(Prompt, prompt.id, with_for_update={"key_share": True}, populate_existing=True)
    if prompt.lifecycle != seen:
        raise Conflict(f"{prompt.name} became {prompt.lifecycle} meanwhile; it was {seen}")
    if state == seen:
        return prompt
    check_change(session, caller, prompt, state)
    prompt.lifecycle = state
    prompt.updated_at = db_now()
    session.add(
        LifecycleChange(
            workspace_id=prompt.workspace_id,
            prompt_id=prompt.id,
            from_state=seen,
            to_state=state,
            reason=reason,
            changed_by=caller.user_name,
        )
    )
    session.flush()
    data = {"from": seen, "to": state, **({"reason": reason} if reason else {})}
    events.record(session, [Change(prompt.workspace_id, "prompt.lifecycle_changed", prompt.id, data, caller.user_name)])
    search_index.index_prompt(session, prompt)
    return prompt


def check_change(session: Session, caller: Caller, prompt: Prompt, state: Lifecycle) -> None:
    """Raise what stands against the change. Writes nothing."""
    allowed = TRANSITIONS[Lifecycle(prompt.lifecycle)]
    if state not in allowed:
        raise Conflict(f"{prompt.name} is {prompt.lifecycle}; from there it can become {' or '.join(allowed)}")
    if state == Lifecycle.PUBLISHED and not _has_production(session, prompt):
        raise Conflict(
            f"publishing takes a label {PRODUCTION}, and {prompt.name} has none; move it to the version to release"
        )
    if state == Lifecycle.ARCHIVED:
        _check_production_may_go(session, caller, prompt)


def change_states(
    session: Session,
    caller: Caller,
    names: Sequence[str],
    state: Lifecycle,
    *,
    project: str | None = None,
    reason: str = "",
) -> list[Transition]:
    """Each of these prompts as far as it can be, in the order of the names."""
    home = projects.get_project(session, caller, project, writing=True)
    query = prompts.live().where(Prompt.project_id == home.id, Prompt.name.in_(names)).order_by(Prompt.id)
    session.execute(query.with_for_update(key_share=True))  # in one order: two batches do not wait in a circle
    return [_change_one(session, caller, name, state, project=project, reason=reason) for name in names]


def list_changes(session: Session, prompt: Prompt, *, limit: int, cursor: str | None) -> Page:
    """Newest first."""
    query = sa.select(LifecycleChange).where(LifecycleChange.prompt_id == prompt.id)
    return pages.descending(session, query, LifecycleChange.id, limit=limit, cursor=cursor)


def count_states(session: Session, caller: Caller, *, project: str | None) -> dict[str, int]:
    """How many prompts are in each state."""
    rows = projects.living_in(session, caller, Prompt, project).where(Prompt.deleted_at.is_(None)).subquery()
    counted = session.execute(sa.select(rows.c.lifecycle, sa.func.count()).group_by(rows.c.lifecycle))
    return {**dict.fromkeys(map(str, Lifecycle), 0), **dict(counted.all())}


def check_runnable(prompt: Prompt) -> None:
    if prompt.lifecycle == Lifecycle.ARCHIVED:
        raise Conflict(f"prompt {prompt.name} is archived and cannot be run; make it a draft again to run it")


def deprecated_at(session: Session, prompt: Prompt) -> datetime | None:
    """Since when it has been deprecated; None when it is not."""
    if prompt.lifecycle != Lifecycle.DEPRECATED:
        return None
    last = sa.select(LifecycleChange.changed_at).where(LifecycleChange.prompt_id == prompt.id)
    return session.scalar(last.order_by(LifecycleChange.id.desc()).limit(1)) or prompt.updated_at


def _change_one(
    session: Session, caller: Caller, name: str, state: Lifecycle, *, project: str | None, reason: str
) -> Transition:
    previous = None
    try:
        prompt = prompts.get_prompt(session, caller, name, project=project)
        previous = prompt.lifecycle
        prompt = change_state(session, caller, prompt, state, reason=reason)
    except PromptmillError as error:  # the guards stand before the first write, so nothing of it is there
        return Transition(name, previous, previous, error)
    return Transition(name, previous, prompt.lifecycle)


def _has_production(session: Session, prompt: Prompt) -> bool:
    """A label points at a version, so there is one of these too."""
    return bool(session.scalar(sa.select(sa.exists().where(Label.prompt_id == prompt.id, Label.name == PRODUCTION))))


def _check_production_may_go(session: Session, caller: Caller, prompt: Prompt) -> None:
    """To archive takes what `production` serves out of service, so it takes what a move of it takes."""
    if not _has_production(session, prompt):
        return
    protection = find_protection(session, prompt.id, PRODUCTION)
    if protection is not None and protection.approvals:
        raise Conflict(
            f"the label {PRODUCTION} of {prompt.name} moves with a second person's approval only, and archiving would"
            " take it out of service; let it be deleted first, or lift its protection"
        )
    check_role(caller, prompt, protection)
