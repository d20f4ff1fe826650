"""What people thought of an answer: one row for each execution and author."""

import uuid
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import db_now
from shared.models.base import Base, Identified


class Feedback(Identified, Base):
    """The author is a user of the API and, if he says so, the one of his own users for whom he speaks."""

    __tablename__ = "feedback"
    __table_args__ = (
        sa.UniqueConstraint("execution_id", "user_id", "end_user"),
        sa.Index(None, "workspace_id", "execution_id"),
        sa.CheckConstraint("score >= 0 AND score <= 1", name="score"),
        sa.CheckConstraint("thumb IN ('up', 'down')", name="thumb"),
    )

    execution_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("executions.id", ondelete="CASCADE"))
    user_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("users.id"))
    end_user: Mapped[str] = mapped_column(sa.String(128), default="")  # "": the author speaks for himself
    score: Mapped[float | None]  # 0 to 1; null: only said in words, or by a label
    thumb: Mapped[str | None] = mapped_column(sa.String(4))
    label: Mapped[str | None] = mapped_column(sa.String(64))
    comment: Mapped[str | None]
    created_by: Mapped[str] = mapped_column(sa.String(128), default="")
    updated_at: Mapped[datetime] = mapped_column(insert_default=db_now())
