"""Batches: many executions submitted by one request. Their states are counted, never copied here."""

import uuid
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, Identified, Json


class Batch(Identified, Base):
    __tablename__ = "batches"
    __table_args__ = (
        sa.Index(None, "workspace_id", "created_at", "id"),
        # A cancel that is not through yet: what the sweep looks for.
        sa.Index(
            "ix_batches_canceling",
            "cancel_requested_at",
            postgresql_where=sa.text("cancel_requested_at IS NOT NULL AND canceled_at IS NULL"),
            sqlite_where=sa.text("cancel_requested_at IS NOT NULL AND canceled_at IS NULL"),
        ),
    )

    project_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("projects.id"))  # null: of several
    dataset_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("datasets.id"))
    dataset_revision: Mapped[int | None]
    priority: Mapped[int] = mapped_column(sa.SmallInteger, default=5)
    budget_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("budgets.id"))
    total: Mapped[int]  # items that were sent
    rejected: Mapped[int]  # of them, those that made no execution
    rejections: Mapped[Json] = mapped_column(deferred=True)  # [{"index", "error"}], to answer with again
    cancel_requested_at: Mapped[datetime | None]
    canceled_at: Mapped[datetime | None]  # every job that was open then has been stopped, or asked to
    created_by: Mapped[str] = mapped_column(sa.String(128), default="")
