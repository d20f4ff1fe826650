"""What is to be forgotten by all that remember the registry, and what is worth remembering before it is asked for."""

import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.db import db_now
from shared.domain import events, projects
from shared.domain.events import Change
from shared.domain.names import LATEST, is_name
from shared.domain.tenants import Caller
from shared.errors import field_error
from shared.models import Execution, Label, Project, Prompt, Version

FORGOTTEN_BY_NAME = 1_000  # more prompts than these are forgotten as all of the workspace
USED_SECONDS = timedelta(days=7).total_seconds()


def forget(session: Session, caller: Caller, pattern: str, *, project: str | None = None) -> int:
    """Have every process forget what it remembers of the prompts of a name, or whose name begins so (`greet*`).

    How many prompts that is. The event says so to all of them.
    """
    beginning = pattern.removesuffix("*")
    if beginning and not is_name(beginning):
        raise field_error("/pattern", "must be a name, the beginning of one and *, or *")
    query = projects.living_in(session, caller, Prompt, project).where(Prompt.deleted_at.is_(None))
    if beginning == pattern:
        query = query.where(Prompt.name == pattern)
    elif beginning:
        query = query.where(sa.func.substr(Prompt.name, 1, len(beginning)) == beginning)
    count = session.scalar(sa.select(sa.func.count()).select_from(query.subquery())) or 0
    subjects: Sequence[uuid.UUID] = [caller.workspace_id]
    if 0 < count <= FORGOTTEN_BY_NAME:
        subjects = session.scalars(query.with_only_columns(Prompt.id)).all()
    if count:
        data = {"pattern": pattern}
        events.record(
            session, [Change(caller.workspace_id, "prompts.forgotten", one, data, caller.user_name) for one in subjects]
        )
    return count


def worth_remembering(
    session: Session, caller: Caller, *, label: str, limit: int
) -> Sequence[sa.Row[Prompt, Version, str]]:
    """Prompts that have the label, with its version and the name of their project: most used of late, then newest."""
    used = (
        sa.select(Execution.prompt_id, sa.func.count().label("runs"))
        .where(Execution.workspace_id == caller.workspace_id, Execution.created_at > db_now(-USED_SECONDS))
        .group_by(Execution.prompt_id)
        .subquery()
    )
    query = (
        _with_version(projects.living_in(session, caller, Prompt, None), label)
        .where(Prompt.deleted_at.is_(None))
        .join(Project, Project.id == Prompt.project_id)
        .outerjoin(used, used.c.prompt_id == Prompt.id)
        .order_by(sa.func.coalesce(used.c.runs, 0).desc(), Prompt.created_at.desc(), Prompt.id.desc())
        .limit(limit)
    )
    return session.execute(query.with_only_columns(Prompt, Version, Project.name)).all()


def _with_version(query: sa.Select[Any], label: str) -> sa.Select[Any]:
    """The prompts that the label, or `latest`, is of, each with that version."""
    if label == LATEST:
        newest = sa.and_(Version.prompt_id == Prompt.id, Version.number == Prompt.last_version_number)
        return query.join(Version, newest)
    labelled = query.join(Label, sa.and_(Label.prompt_id == Prompt.id, Label.name == label))
    return labelled.join(Version, Version.id == Label.version_id)
