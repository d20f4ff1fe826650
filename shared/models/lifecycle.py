"""Every change of a prompt's lifecycle state. The state itself stands on the prompt."""

import uuid
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import db_now
from shared.models.base import Base, BigId


class LifecycleChange(Base):
    __tablename__ = "lifecycle_changes"
    __table_args__ = (sa.Index(None, "prompt_id", "id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    workspace_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("workspaces.id"))
    prompt_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("prompts.id", ondelete="CASCADE"))
    from_state: Mapped[str] = mapped_column(sa.String(16))
    to_state: Mapped[str] = mapped_column(sa.String(16))
    reason: Mapped[str] = mapped_column(default="")
    changed_by: Mapped[str] = mapped_column(sa.String(128), default="")
    changed_at: Mapped[datetime] = mapped_column(insert_default=db_now())
