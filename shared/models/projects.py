"""Projects: they group prompts, datasets and runs."""

from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import db_now
from shared.models.base import Base, Identified, Json


class ProjectStatus(StrEnum):
    DRAFT = "draft"  # a word for people; all works as in an active one
    ACTIVE = "active"
    ARCHIVED = "archived"  # read only: nothing in it is written or run


class Project(Identified, Base):
    """A name is taken by the one project that has it and is not deleted."""

    __tablename__ = "projects"
    __table_args__ = (
        sa.CheckConstraint("status IN ('draft', 'active', 'archived')", name="status"),
        sa.Index(
            "uq_projects_workspace_id_name",
            "workspace_id",
            "name",
            unique=True,
            postgresql_where=sa.text("deleted_at IS NULL"),
            sqlite_where=sa.text("deleted_at IS NULL"),
        ),
    )

    name: Mapped[str] = mapped_column(sa.String(128))
    description: Mapped[str] = mapped_column(default="")
    status: Mapped[str] = mapped_column(sa.String(16), default=ProjectStatus.ACTIVE)
    details: Mapped[Json] = mapped_column("metadata", default=dict)  # SQLAlchemy keeps the name for itself
    revision: Mapped[int] = mapped_column(default=1)  # raised by each change: the ETag
    created_by: Mapped[str] = mapped_column(sa.String(128), default="")
    updated_at: Mapped[datetime] = mapped_column(insert_default=db_now())
    deleted_at: Mapped[datetime | None]
