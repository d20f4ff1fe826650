"""What a create or a run answered, under the key that the caller chose."""

import uuid
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import db_now
from shared.models.base import Base, JsonOrNull


class IdempotencyRecord(Base):
    """Inserted first in the entity's own transaction, so nothing in progress is ever committed."""

    __tablename__ = "idempotency_records"
    __table_args__ = (sa.Index(None, "expires_at"),)

    user_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("users.id"), primary_key=True)
    route: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    key_hash: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    workspace_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("workspaces.id"))
    body_hash: Mapped[str] = mapped_column(sa.String(64))
    entity_id: Mapped[uuid.UUID | None]
    status: Mapped[int | None]
    body: Mapped[JsonOrNull]
    created_at: Mapped[datetime] = mapped_column(insert_default=db_now())
    expires_at: Mapped[datetime]
