"""Prompts, their immutable versions, and the labels that point at versions."""

import uuid
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import db_now
from shared.models.base import Base, Identified, Json


class Prompt(Identified, Base):
    __tablename__ = "prompts"
    __table_args__ = (
        # A deleted prompt keeps its row, for what was run with it, and its name is free at once.
        sa.Index(
            "uq_prompts_project_id_name",
            "project_id",
            "name",
            unique=True,
            postgresql_where=sa.text("deleted_at IS NULL"),
            sqlite_where=sa.text("deleted_at IS NULL"),
        ),
        sa.CheckConstraint("mode IN ('full', 'tracking')", name="mode"),
        sa.Index(None, "workspace_id", "created_at", "id"),
    )

    project_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(sa.String(128))
    mode: Mapped[str] = mapped_column(sa.String(16), default="full")
    description: Mapped[str] = mapped_column(default="")
    category: Mapped[str] = mapped_column(sa.String(64), default="")
    tags: Mapped[Json] = mapped_column(default=list)
    owner_team: Mapped[str] = mapped_column(sa.String(128), default="")
    lifecycle: Mapped[str] = mapped_column(sa.String(16), default="draft")
    created_by: Mapped[str] = mapped_column(sa.String(128), default="")
    updated_at: Mapped[datetime] = mapped_column(insert_default=db_now())
    # The last number handed out. Raised under the row's lock, so numbers have no gaps and no races.
    last_version_number: Mapped[int] = mapped_column(default=0)
    deleted_at: Mapped[datetime | None]
    deleted_by: Mapped[str | None] = mapped_column(sa.String(128))


class Version(Identified, Base):
    """Immutable content. The same content never makes a second version, over all history."""

    __tablename__ = "versions"
    __table_args__ = (
        sa.UniqueConstraint("prompt_id", "number"),
        sa.UniqueConstraint("prompt_id", "content_hash"),
        sa.Index(
            "ix_versions_forked_from_version_id",
            "forked_from_version_id",
            postgresql_where=sa.text("forked_from_version_id IS NOT NULL"),
            sqlite_where=sa.text("forked_from_version_id IS NOT NULL"),
        ),
    )

    prompt_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("prompts.id", ondelete="CASCADE"))
    number: Mapped[int]
    content: Mapped[Json]
    template_hash: Mapped[str] = mapped_column(sa.String(64))
    content_hash: Mapped[str] = mapped_column(sa.String(64))
    variables: Mapped[Json]  # the template's variable names, sorted
    message: Mapped[str] = mapped_column(default="")
    # The version of another prompt that this one began as. No foreign key: a fork outlives what it was made from.
    forked_from_version_id: Mapped[uuid.UUID | None]
    created_by: Mapped[str] = mapped_column(sa.String(128), default="")


class Label(Base):
    __tablename__ = "labels"

    prompt_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("prompts.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    workspace_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("workspaces.id"))
    version_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("versions.id"))
    moved_by: Mapped[str] = mapped_column(sa.String(128), default="")
    moved_at: Mapped[datetime] = mapped_column(insert_default=db_now())
