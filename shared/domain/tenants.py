"""Who calls: workspaces, users, API keys, and what a key may do."""

import re
import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.db import db_now, insert_if_absent
from shared.domain import events
from shared.errors import Forbidden, NotFound, Unauthorized, field_error
from shared.hashing import sha256
from shared.models import ApiKey, Project, Role, User, Workspace, new_id

DEFAULT_WORKSPACE = "default"
DEFAULT_PROJECT = "default"
MAX_NAME = 128  # of a workspace or a user
_RANK = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True)
class Caller:
    """The authenticated author of a request. Every domain function scopes by its workspace (I10)."""

    workspace_id: uuid.UUID
    user_id: uuid.UUID
    user_name: str
    role: Role
    project_ids: frozenset[uuid.UUID] | None = None  # None: every project of the workspace
    key_id: uuid.UUID | None = None  # the API key; None: who works at the command line

    def require(self, role: Role) -> None:
        if not self.has(role):
            raise Forbidden(f"this needs the role {role}; the key has {self.role}")

    def has(self, role: Role) -> bool:
        return _RANK[self.role] >= _RANK[role]

    def may_see(self, project_id: uuid.UUID | None) -> bool:
        return self.project_ids is None or project_id in self.project_ids


def authenticate(session: Session, key: str) -> Caller:
    """The caller that an API key stands for; `Unauthorized` when it is unknown, expired or revoked."""
    row = session.execute(
        sa.select(ApiKey, User.name)
        .join(User, User.id == ApiKey.user_id)
        .where(
            ApiKey.key_hash == sha256(key),
            ApiKey.revoked_at.is_(None),
            sa.or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > db_now()),
        )
    ).first()
    if row is None:
        raise Unauthorized("the API key is unknown, expired or revoked")
    api_key: ApiKey = row[0]
    projects = None if api_key.project_ids is None else frozenset(map(uuid.UUID, api_key.project_ids))
    return Caller(api_key.workspace_id, api_key.user_id, row[1], Role(api_key.role), projects, api_key.id)


def is_revoked(session: Session, key_id: uuid.UUID) -> bool:
    """Whether somebody took a key back; one that has only expired is not."""
    return not session.scalar(sa.select(sa.exists().where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))))


def at_command_line(session: Session, workspace: str, user: str) -> Caller:
    """Who works on a workspace at the command line, with every right in it; the user is made if new."""
    workspace_id = session.scalar(sa.select(Workspace.id).where(Workspace.name == workspace))
    if workspace_id is None:
        raise NotFound(f"no workspace named {workspace}")
    insert_if_absent(session, User, id=new_id(), workspace_id=workspace_id, name=user)
    user_id = session.scalars(sa.select(User.id).where(User.workspace_id == workspace_id, User.name == user)).one()
    return Caller(workspace_id, user_id, user, Role.ADMIN)


def visible(caller: Caller, entity: Any) -> sa.Select[Any]:
    """The rows of an entity that a caller may see: of its workspace, and of its projects if it is limited."""
    query = sa.select(entity).where(entity.workspace_id == caller.workspace_id)
    return query if caller.project_ids is None else query.where(entity.project_id.in_(caller.project_ids))


def get_visible(session: Session, caller: Caller, entity: Any, entity_id: uuid.UUID) -> Any:
    """The row, or NotFound: to a caller who may not see it, it does not exist."""
    found = session.scalars(visible(caller, entity).where(entity.id == entity_id)).one_or_none()
    if found is None:
        noun = re.sub(r"\B([A-Z])", r" \1", entity.__name__).lower()
        raise NotFound(f"no {noun} {entity_id}")
    return found


def operates_fleet(session: Session, caller: Caller) -> bool:
    """Whether the caller may see and steer what all workspaces share: operators of a workspace that runs the fleet.

    A role is one workspace's to give, so it says nothing about the fleet by itself (I10).
    """
    if not caller.has(Role.OPERATOR) or caller.project_ids is not None:
        return False
    return bool(session.scalar(sa.select(Workspace.operates_fleet).where(Workspace.id == caller.workspace_id)))


def require_fleet(session: Session, caller: Caller) -> None:
    """`Forbidden` unless the caller may steer the fleet."""
    if not operates_fleet(session, caller):
        raise Forbidden(
            "this acts on every workspace: it needs the role operator in a workspace that operates the fleet,"
            " and a key that is not limited to projects"
        )


def fleet_workspace(session: Session) -> uuid.UUID:
    """The workspace whose history shows what was done to the fleet without an API key."""
    found = session.scalar(
        sa.select(Workspace.id).where(Workspace.operates_fleet).order_by(Workspace.created_at, Workspace.id).limit(1)
    )
    if found is None:
        raise NotFound("no workspace operates the fleet; `python -m app.admin bootstrap` makes the first")
    return found


def new_key() -> str:
    """A fresh API key: 256 random bits behind a prefix that secret scanners can find."""
    return f"pm_{secrets.token_urlsafe(32)}"


def create_key(
    session: Session,
    *,
    workspace: str,
    user: str,
    role: Role,
    key: str,
    name: str = "",
    projects: list[str] | None = None,
    expires_at: datetime | None = None,
    operates_fleet: bool = False,
) -> Caller:
    """Store a key (hashed) for a user, making the workspace, its default project and the user if needed.

    Storing the same key again changes nothing. With `operates_fleet` the workspace operates the fleet, unless
    another one does already.
    """
    for field, text in (("/workspace", workspace), ("/user", user)):
        if not text.strip() or len(text) > MAX_NAME:
            raise field_error(field, f"must be 1 to {MAX_NAME} characters, not only blanks")
    insert_if_absent(session, Workspace, id=new_id(), name=workspace)
    workspace_id = session.scalars(sa.select(Workspace.id).where(Workspace.name == workspace)).one()
    if operates_fleet and not session.scalar(sa.select(sa.exists().where(Workspace.operates_fleet))):
        session.execute(sa.update(Workspace).where(Workspace.id == workspace_id).values(operates_fleet=True))
    insert_if_absent(session, User, id=new_id(), workspace_id=workspace_id, name=user)
    insert_if_absent(session, Project, id=new_id(), workspace_id=workspace_id, name=DEFAULT_PROJECT, created_by=user)
    user_id = session.scalars(sa.select(User.id).where(User.workspace_id == workspace_id, User.name == user)).one()
    api_key_id = new_id()
    if insert_if_absent(
        session,
        ApiKey,
        id=api_key_id,
        workspace_id=workspace_id,
        user_id=user_id,
        name=name,
        key_hash=sha256(key),
        role=role,
        project_ids=_project_ids(session, workspace_id, projects),
        expires_at=expires_at,
    ):
        events.record(
            session,
            [events.Change(workspace_id, "api_key.created", api_key_id, {"name": name, "role": role}, user)],
        )
    return authenticate(session, key)


@dataclass(frozen=True)
class StoredKey:
    """What is known of a key: all but the key."""

    key_id: uuid.UUID
    workspace: str
    user: str
    name: str
    role: str
    projects: list[str] | None  # ids; None: every project
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


def list_keys(session: Session, *, workspace: str | None = None) -> list[StoredKey]:
    """The keys of a workspace, or of all; the newest first, revoked and expired ones too."""
    query = (
        sa.select(ApiKey, Workspace.name, User.name)
        .join(Workspace, Workspace.id == ApiKey.workspace_id)
        .join(User, User.id == ApiKey.user_id)
        .order_by(ApiKey.created_at.desc(), ApiKey.id.desc())
    )
    if workspace is not None:
        query = query.where(Workspace.name == workspace)
    return [
        StoredKey(
            key.id, home, user, key.name, key.role, key.project_ids, key.created_at, key.expires_at, key.revoked_at
        )
        for key, home, user in session.execute(query)
    ]


def revoke_key(session: Session, key_id: uuid.UUID, *, actor: str) -> bool:
    """Take a key back, for ever. False: somebody had already."""
    key = session.scalars(sa.select(ApiKey).where(ApiKey.id == key_id).with_for_update()).one_or_none()
    if key is None:
        raise NotFound(f"no API key {key_id}")
    if key.revoked_at is not None:
        return False
    key.revoked_at = db_now()
    session.flush()
    change = events.Change(key.workspace_id, "api_key.revoked", key.id, {"name": key.name, "role": key.role}, actor)
    events.record(session, [change])
    return True


def _project_ids(session: Session, workspace_id: uuid.UUID, names: list[str] | None) -> list[str] | None:
    if names is None:
        return None
    found = dict(
        session.execute(
            sa.select(Project.name, Project.id).where(
                Project.workspace_id == workspace_id, Project.name.in_(names), Project.deleted_at.is_(None)
            )
        ).all()
    )
    missing = [name for name in names if name not in found]
    if missing:
        raise NotFound(f"no project named {', '.join(missing)}")
    return [str(found[name]) for name in names]
