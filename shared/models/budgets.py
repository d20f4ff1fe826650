"""Ceilings on what a run may spend, and what it has reserved and spent."""

import uuid
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, Identified


class Budget(Identified, Base):
    """A null limit is no limit. `reserved_*` is held by calls in flight, `spent_*` is settled.

    spent + reserved ≤ limit holds after every transaction, for every measure.
    """

    __tablename__ = "budgets"

    subject_id: Mapped[uuid.UUID]  # the run that it belongs to
    held: Mapped[bool] = mapped_column(default=False, server_default=sa.false())  # the run is paused: no call begins
    limit_task_calls: Mapped[int | None]
    limit_proposer_calls: Mapped[int | None]
    limit_judge_calls: Mapped[int | None]
    limit_tokens: Mapped[int | None] = mapped_column(sa.BigInteger)
    limit_nano: Mapped[int | None] = mapped_column(sa.BigInteger)
    limit_wall_seconds: Mapped[int | None]
    # The clock of the run (`shared.domain.clocks`): what does not count of the time since its start, negative where
    # a continuation begins late; since when it stands still; after what moment no call begins.
    idle_seconds: Mapped[float] = mapped_column(default=0.0, server_default="0")
    paused_at: Mapped[datetime | None]
    deadline_at: Mapped[datetime | None]
    reserved_task_calls: Mapped[int] = mapped_column(default=0)
    reserved_proposer_calls: Mapped[int] = mapped_column(default=0)
    reserved_judge_calls: Mapped[int] = mapped_column(default=0, server_default="0")
    reserved_tokens: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    reserved_nano: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    spent_task_calls: Mapped[int] = mapped_column(default=0)
    spent_proposer_calls: Mapped[int] = mapped_column(default=0)
    spent_judge_calls: Mapped[int] = mapped_column(default=0, server_default="0")
    spent_tokens: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    spent_nano: Mapped[int] = mapped_column(sa.BigInteger, default=0)
