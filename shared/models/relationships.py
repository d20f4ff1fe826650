"""Relationships between prompts: a directed edge with a type."""

import uuid
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import db_now
from shared.models.base import Base, Identified, Json


class Relationship(Identified, Base):
    """The source extends, references, replaces… the target."""

    __tablename__ = "relationships"
    __table_args__ = (
        sa.UniqueConstraint("source_id", "target_id", "type"),
        sa.Index(None, "target_id", "type"),
        sa.CheckConstraint("source_id <> target_id", name="ends"),
        sa.CheckConstraint("strength >= 0 AND strength <= 1", name="strength"),
    )

    source_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("prompts.id", ondelete="CASCADE"))
    target_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("prompts.id", ondelete="CASCADE"))
    type: Mapped[str] = mapped_column(sa.String(16))
    strength: Mapped[float] = mapped_column(default=1.0)
    note: Mapped[str] = mapped_column(default="")
    details: Mapped[Json] = mapped_column("metadata", default=dict)  # SQLAlchemy keeps `metadata` for itself
    created_by: Mapped[str] = mapped_column(sa.String(128), default="")
    updated_at: Mapped[datetime] = mapped_column(insert_default=db_now())
