"""Projects: unique by name in their workspace."""

import uuid
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.db import insert_if_absent
from shared.domain import events, pages
from shared.domain.names import check_name, is_name
from shared.domain.pages import Page
from shared.domain.tenants import DEFAULT_PROJECT, Caller, visible
from shared.errors import AlreadyExists, Forbidden, NotFound
from shared.models import Project, new_id


def create_project(session: Session, caller: Caller, *, name: str, description: str = "") -> Project:
    if caller.project_ids is not None:
        raise Forbidden("this key is limited to projects that exist")
    project_id = new_id()
    if not insert_if_absent(
        session,
        Project,
        id=project_id,
        workspace_id=caller.workspace_id,
        name=check_name(name),
        description=description,
        created_by=caller.user_name,
    ):
        raise AlreadyExists(f"a project named {name} exists")
    events.record(
        session,
        [events.Change(caller.workspace_id, "project.created", project_id, {"name": name}, caller.user_name)],
    )
    return session.get_one(Project, project_id)


def get_project(session: Session, caller: Caller, name_or_id: str | None) -> Project:
    """By name or id; the workspace's `default` project when none is named."""
    wanted = DEFAULT_PROJECT if name_or_id is None else name_or_id
    query = sa.select(Project).where(Project.workspace_id == caller.workspace_id)
    try:
        query = query.where(Project.id == uuid.UUID(wanted))
    except ValueError:
        query = query.where(Project.name == wanted)
    project = session.scalars(query).one_or_none() if is_name(wanted) else None
    if project is None or not caller.may_see(project.id):
        raise NotFound(f"no project {wanted!r}", fields=["project"])
    return project


def visible_in(session: Session, caller: Caller, entity: Any, project: str | None) -> sa.Select[Any]:
    """The rows of an entity that a caller may see; if a project is named, those in it."""
    query = visible(caller, entity)
    if project is None:
        return query
    return query.where(entity.project_id == get_project(session, caller, project).id)


def list_projects(session: Session, caller: Caller, *, limit: int, cursor: str | None) -> Page:
    query = sa.select(Project).where(Project.workspace_id == caller.workspace_id)
    if caller.project_ids is not None:
        query = query.where(Project.id.in_(caller.project_ids))
    return pages.newest_first(session, query, Project, limit=limit, cursor=cursor)
