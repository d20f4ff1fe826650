"""What became of labels: every move, who may move them, and the moves that wait for a second person."""

import uuid
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import db_now
from shared.models.base import Base, BigId, Identified


class LabelMove(Base):
    """One move of a label. The newest says where it points; its id is the label's ETag."""

    __tablename__ = "label_moves"
    __table_args__ = (sa.Index(None, "prompt_id", "label", "id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    workspace_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("workspaces.id"))
    prompt_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("prompts.id", ondelete="CASCADE"))
    label: Mapped[str] = mapped_column(sa.String(36))
    from_version: Mapped[int | None]  # null: there was no such label
    to_version: Mapped[int | None]  # null: it was deleted
    undoes: Mapped[int | None] = mapped_column(BigId)  # the move that this one took back
    reason: Mapped[str] = mapped_column(default="")
    moved_by: Mapped[str] = mapped_column(sa.String(128), default="")
    approved_by: Mapped[str | None] = mapped_column(sa.String(128))
    moved_at: Mapped[datetime] = mapped_column(insert_default=db_now())


class LabelProtection(Base):
    """What a move of a label takes. It may stand before the label does, and outlives it."""

    __tablename__ = "label_protections"
    __table_args__ = (sa.CheckConstraint("(role IS NULL) <> (approvals IS NULL)", name="one"),)

    prompt_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("prompts.id", ondelete="CASCADE"), primary_key=True)
    label: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    workspace_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("workspaces.id"))
    role: Mapped[str | None] = mapped_column(sa.String(16))  # the least that moves it
    approvals: Mapped[int | None]  # so many other people
    set_by: Mapped[str] = mapped_column(sa.String(128), default="")
    set_at: Mapped[datetime] = mapped_column(insert_default=db_now())


class RequestState(StrEnum):
    PENDING = "pending"  # waits for a second person
    APPROVED = "approved"  # terminal: the label was moved with it
    REJECTED = "rejected"  # terminal: somebody said no, or the asker withdrew it
    SUPERSEDED = "superseded"  # terminal: the label was moved meanwhile, so what was asked is no longer what it was


class LabelRequest(Identified, Base):
    """A move of a label that was asked for. While it is pending the label is where it was when it was asked."""

    __tablename__ = "label_requests"
    __table_args__ = (
        sa.CheckConstraint("state IN ('pending', 'approved', 'rejected', 'superseded')", name="state"),
        sa.Index(None, "workspace_id", "created_at", "id"),
        sa.Index(
            "ix_label_requests_pending",
            "prompt_id",
            "label",
            postgresql_where=sa.text("state = 'pending'"),
            sqlite_where=sa.text("state = 'pending'"),
        ),
    )

    project_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("projects.id"))
    prompt_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("prompts.id", ondelete="CASCADE"))
    label: Mapped[str] = mapped_column(sa.String(36))
    from_version: Mapped[int | None]
    to_version: Mapped[int | None]  # null: delete it
    undoes: Mapped[int | None] = mapped_column(BigId)
    state: Mapped[str] = mapped_column(sa.String(16), default=RequestState.PENDING)
    reason: Mapped[str] = mapped_column(default="")
    asked_by: Mapped[str] = mapped_column(sa.String(128), default="")
    asked_by_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("users.id"))
    decided_by: Mapped[str | None] = mapped_column(sa.String(128))
    decided_at: Mapped[datetime | None]
    decision: Mapped[str] = mapped_column(default="")  # what the second person said
