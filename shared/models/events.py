"""One row for each state change. Feeds history, live progress, webhooks and audit."""

import uuid
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import db_now, transaction_id
from shared.models.base import Base, BigId, Json

# The events of projects and prompts, by which those who remember the registry know what is no longer true. The text of
# the index and of the query must be one, or no database finds that the index serves the query.
OF_THE_REGISTRY = sa.text("substr(type, 1, 3) = 'pro'")


class Event(Base):
    __tablename__ = "events"
    __table_args__ = (
        sa.Index(None, "workspace_id", "id"),
        sa.Index(None, "workspace_id", "xid", "id"),
        sa.Index(None, "subject_id"),
        sa.Index("ix_events_registry", "xid", "id", postgresql_where=OF_THE_REGISTRY, sqlite_where=OF_THE_REGISTRY),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    # Ids are handed out before commit, so a reader that tails by id could skip a slow transaction.
    # On PostgreSQL readers order by (xid, id) and stop below the oldest transaction still open.
    xid: Mapped[int] = mapped_column(sa.BigInteger, insert_default=transaction_id())
    workspace_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("workspaces.id"))
    type: Mapped[str] = mapped_column(sa.String(64))  # "<subject>.<what happened>"
    subject_id: Mapped[uuid.UUID]
    actor: Mapped[str] = mapped_column(sa.String(128), default="")
    data: Mapped[Json] = mapped_column(default=dict)
    created_at: Mapped[datetime] = mapped_column(insert_default=db_now())
