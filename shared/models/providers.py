"""The catalogue of provider models and what they cost. Shared by all workspaces."""

import uuid
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import db_now
from shared.models.base import Base, JsonOrNull, new_id


class Model(Base):
    __tablename__ = "models"
    __table_args__ = (sa.UniqueConstraint("provider", "model_name"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    provider: Mapped[str] = mapped_column(sa.String(32))
    model_name: Mapped[str] = mapped_column(sa.String(128))
    max_tokens: Mapped[int | None]  # context window
    max_output_tokens: Mapped[int | None]
    supports_streaming: Mapped[bool] = mapped_column(default=True)
    accepted_params: Mapped[JsonOrNull]  # list of our parameter names; null = what the provider takes by default
    created_at: Mapped[datetime] = mapped_column(insert_default=db_now())


class Price(Base):
    """Nano-dollars (1e-9 USD) per million tokens, from a date on. Integers, because money adds up."""

    __tablename__ = "prices"
    __table_args__ = (sa.UniqueConstraint("model_id", "effective_at"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    model_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("models.id", ondelete="CASCADE"))
    effective_at: Mapped[datetime]
    input_nano_per_mtok: Mapped[int] = mapped_column(sa.BigInteger)
    output_nano_per_mtok: Mapped[int] = mapped_column(sa.BigInteger)
