"""Workspaces (the tenants), their users and API keys."""

import uuid
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import db_now
from shared.models.base import Base, Identified, JsonOrNull, new_id


class Role(StrEnum):
    """What an API key may do; each role may do all that the one before it may."""

    VIEWER = "viewer"  # read
    EDITOR = "editor"  # write prompts and datasets, run things
    OPERATOR = "operator"  # see and steer the fleet
    ADMIN = "admin"  # keys, permanent deletes


class Workspace(Base):
    __tablename__ = "workspaces"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(sa.String(128), unique=True)
    created_at: Mapped[datetime] = mapped_column(insert_default=db_now())
    # Its operators and administrators steer what all workspaces share: queues and workers.
    operates_fleet: Mapped[bool] = mapped_column(default=False, server_default=sa.false())


class User(Identified, Base):
    __tablename__ = "users"
    __table_args__ = (sa.UniqueConstraint("workspace_id", "name"),)

    name: Mapped[str] = mapped_column(sa.String(128))


class ApiKey(Identified, Base):
    """A credential. Only its SHA-256 is stored: the key has 256 random bits, so a slow hash adds nothing."""

    __tablename__ = "api_keys"

    user_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("users.id"))
    name: Mapped[str] = mapped_column(sa.String(128))
    key_hash: Mapped[str] = mapped_column(sa.String(64), unique=True)
    role: Mapped[str] = mapped_column(sa.String(16), default=Role.EDITOR)
    project_ids: Mapped[JsonOrNull]  # list of project ids that the key is limited to; null = every project
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
