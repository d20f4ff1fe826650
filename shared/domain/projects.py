"""Projects: unique by name in their workspace among those that are not deleted. An archived one is read only."""

import uuid
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.db import db_now, insert_if_absent
from shared.domain import events, pages
from shared.domain.names import check_name, is_name
from shared.domain.pages import Page
from shared.domain.preconditions import ANY, Precondition
from shared.domain.tenants import DEFAULT_PROJECT, Caller, visible
from shared.errors import AlreadyExists, Conflict, Forbidden, NotFound, field_error
from shared.models import Project, ProjectStatus, new_id


def create_project(
    session: Session,
    caller: Caller,
    *,
    name: str,
    description: str = "",
    status: str = ProjectStatus.ACTIVE,
    metadata: Mapping[str, Any] | None = None,
) -> Project:
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
        status=status,
        details=dict(metadata or {}),
        created_by=caller.user_name,
    ):
        raise AlreadyExists(f"a project named {name} exists")
    project = session.get_one(Project, project_id)
    _record(session, caller, project, "created", {"name": name})
    return project


def get_project(
    session: Session,
    caller: Caller,
    name_or_id: str | None,
    *,
    writing: bool = False,
    include_deleted: bool = False,
) -> Project:
    """By name or id; the workspace's `default` project when none is named.

    `writing`: something in it is to be written or run, which an archived project refuses. A deleted project is
    found by its id only, and only with `include_deleted`.
    """
    wanted = DEFAULT_PROJECT if name_or_id is None else name_or_id
    project = find_project(session, caller, wanted, include_deleted=include_deleted)
    if project is None:
        raise NotFound(f"no project {wanted!r}", fields=["project", "project_id"])
    if writing and project.status == ProjectStatus.ARCHIVED:
        raise Conflict(
            f"project {project.name} is archived and takes no changes and no runs;"
            f" POST /v1/projects/{project.name}/unarchive opens it again"
        )
    return project


def find_project(session: Session, caller: Caller, name_or_id: str, *, include_deleted: bool = False) -> Project | None:
    if not is_name(name_or_id):
        return None
    project_id = _as_uuid(name_or_id)
    query = _NAMED if project_id is None else _WITH_ID if include_deleted else _LIVING_WITH_ID
    wanted = {"workspace": caller.workspace_id, "wanted": name_or_id if project_id is None else project_id}
    project = session.scalars(query, wanted).one_or_none()
    return project if project is not None and caller.may_see(project.id) else None


# Built once: nearly every request asks for a project, and to build the question takes longer than to answer it.
_OF_WORKSPACE = sa.select(Project).where(Project.workspace_id == sa.bindparam("workspace"))
_WITH_ID = _OF_WORKSPACE.where(Project.id == sa.bindparam("wanted"))
_LIVING_WITH_ID = _WITH_ID.where(Project.deleted_at.is_(None))
_NAMED = _OF_WORKSPACE.where(Project.name == sa.bindparam("wanted"), Project.deleted_at.is_(None))


def visible_in(session: Session, caller: Caller, entity: Any, project: str | None) -> sa.Select[Any]:
    """The rows of an entity that a caller may see; if a project is named, those in it."""
    query = visible(caller, entity)
    if project is None:
        return query
    return query.where(entity.project_id == get_project(session, caller, project).id)


def living_in(session: Session, caller: Caller, entity: Any, project: str | None) -> sa.Select[Any]:
    """The same without what is in deleted projects: for things that are reached by a name in their project."""
    query = visible_in(session, caller, entity, project)
    return query if project is not None else query.where(is_living(caller, entity.project_id))


def is_living(caller: Caller, project_id: Any) -> sa.ColumnElement[bool]:
    """Whether a row of the caller's workspace, with this column, is in no deleted project."""
    return project_id.not_in(deleted(caller))


def deleted(caller: Caller) -> sa.Select[uuid.UUID]:
    """The ids of the deleted projects of the caller's workspace."""
    return sa.select(Project.id).where(Project.workspace_id == caller.workspace_id, Project.deleted_at.is_not(None))


def list_projects(
    session: Session,
    caller: Caller,
    *,
    status: str | None = None,
    search: str | None = None,
    include_deleted: bool = False,
    limit: int,
    cursor: str | None,
) -> Page:
    """Newest first. `search` is a part of the name, in any case."""
    query = matching(caller, status=status, search=search, include_deleted=include_deleted)
    return pages.newest_first(session, query, Project, limit=limit, cursor=cursor)


def matching(caller: Caller, *, status: str | None, search: str | None, include_deleted: bool) -> sa.Select[Project]:
    query = sa.select(Project).where(Project.workspace_id == caller.workspace_id)
    if caller.project_ids is not None:
        query = query.where(Project.id.in_(caller.project_ids))
    if not include_deleted:
        query = query.where(Project.deleted_at.is_(None))
    if status is not None:
        query = query.where(Project.status == status)
    if search is not None:
        query = query.where(sa.func.lower(Project.name).contains(search.lower(), autoescape=True))
    return query


def update_project(
    session: Session,
    caller: Caller,
    name_or_id: str,
    *,
    name: str | None = None,
    description: str | None = None,
    status: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    precondition: Precondition = ANY,
) -> Project:
    """Change what is given; `metadata` is replaced as a whole. What is so already is no change."""
    project = _locked(session, caller, name_or_id, precondition)
    if name is not None and name != project.name:
        if project.name == DEFAULT_PROJECT:
            raise field_error("/name", f"{DEFAULT_PROJECT} is what requests without a project mean; it keeps its name")
        _check_free(session, caller, check_name(name))
    given = {"name": name, "description": description, "status": status, "details": metadata}
    changed = {field: value for field, value in given.items() if value is not None and value != getattr(project, field)}
    if changed:
        _change(session, project, **changed)
        told = {"metadata" if field == "details" else field: value for field, value in changed.items()}
        _record(session, caller, project, "updated", told)
    return project


def set_archived(
    session: Session, caller: Caller, name_or_id: str, *, archived: bool, precondition: Precondition = ANY
) -> Project:
    """Close a project for changes and runs, or open it again. What runs in it goes on to its end."""
    project = _locked(session, caller, name_or_id, precondition)
    if archived == (project.status == ProjectStatus.ARCHIVED):
        return project
    _change(session, project, status=ProjectStatus.ARCHIVED if archived else ProjectStatus.ACTIVE)
    _record(session, caller, project, "archived" if archived else "unarchived", {})
    return project


def delete_project(session: Session, caller: Caller, name_or_id: str, *, precondition: Precondition = ANY) -> Project:
    """Hide a project with all that is in it, and free its name. `restore_project` takes it back."""
    project = _locked(session, caller, name_or_id, precondition)
    check_deletable(project)
    _change(session, project, deleted_at=db_now())
    _record(session, caller, project, "deleted", {"name": project.name})
    return project


def restore_project(
    session: Session, caller: Caller, name_or_id: str, *, name: str | None = None, precondition: Precondition = ANY
) -> Project:
    """Bring a deleted project back, under another name if one is given; 409 while the name is taken."""
    project = find_deleted(session, caller, name_or_id)
    if project is None:
        project = get_project(session, caller, name_or_id)
        raise Conflict(f"project {project.name} is not deleted")
    session.refresh(project, with_for_update={"key_share": True})
    precondition.check(etag_of(project), f"project {project.name}")
    if project.deleted_at is None:
        raise Conflict(f"project {project.name} is not deleted")
    _check_free(session, caller, project.name if name is None else check_name(name))
    _change(session, project, deleted_at=None, name=name or project.name)
    _record(session, caller, project, "restored", {"name": project.name})
    return project


def find_deleted(session: Session, caller: Caller, name_or_id: str) -> Project | None:
    """A deleted project by its id, or by the name that it had if it is the only one; 409 if there are several."""
    query = sa.select(Project).where(Project.workspace_id == caller.workspace_id, Project.deleted_at.is_not(None))
    project_id = _as_uuid(name_or_id)
    query = query.where(Project.name == name_or_id if project_id is None else Project.id == project_id)
    rows = session.scalars(query).all() if is_name(name_or_id) else []
    found = [project for project in rows if caller.may_see(project.id)]
    if len(found) > 1:
        raise Conflict(f"{len(found)} deleted projects had the name {name_or_id}; give the id of one")
    return found[0] if found else None


def check_deletable(project: Project) -> None:
    if project.name == DEFAULT_PROJECT:
        raise Conflict(f"the project {DEFAULT_PROJECT} cannot be deleted: it is what requests without a project mean")


def etag_of(project: Project) -> str:
    return str(project.revision)


def _locked(session: Session, caller: Caller, name_or_id: str, precondition: Precondition) -> Project:
    project = get_project(session, caller, name_or_id)
    session.refresh(project, with_for_update={"key_share": True})
    if project.deleted_at is not None:  # while this waited for the lock
        raise NotFound(f"no project {name_or_id!r}", fields=["project"])
    precondition.check(etag_of(project), f"project {project.name}")
    return project


def _check_free(session: Session, caller: Caller, name: str) -> None:
    """For the words of the refusal; two at once are told apart by the unique index."""
    taken = sa.exists().where(
        Project.workspace_id == caller.workspace_id, Project.name == name, Project.deleted_at.is_(None)
    )
    if session.scalar(sa.select(taken)):
        raise AlreadyExists(f"a project named {name} exists; choose another name")


def _change(session: Session, project: Project, **values: Any) -> None:
    for field, value in values.items():
        setattr(project, field, value)
    project.revision += 1
    project.updated_at = db_now()
    session.flush()
    session.refresh(project)


def _record(session: Session, caller: Caller, project: Project, happened: str, data: Mapping[str, Any]) -> None:
    change = events.Change(caller.workspace_id, f"project.{happened}", project.id, data, caller.user_name)
    events.record(session, [change])


def _as_uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None
