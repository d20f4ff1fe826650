"""The declarative base, the naming convention and the columns that many tables share."""

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, cast

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column
from uuid6 import uuid7

from shared.db import UtcDateTime, db_now


class State(StrEnum):
    """The life of a job, an execution, an evaluation and an optimization; one spelling everywhere."""

    QUEUED = "queued"  # waiting for a worker (or for its run_at, or for budget)
    RUNNING = "running"  # a worker holds the lease
    SUCCEEDED = "succeeded"  # terminal: the outcome is recorded
    FAILED = "failed"  # terminal: no attempt is left, or the error is permanent
    CANCELED = "canceled"  # terminal: somebody said stop


OPEN_STATES = (State.QUEUED, State.RUNNING)
PAUSED = "paused"  # of an optimization only: nothing new of it begins
LIVE_STATES = (*OPEN_STATES, PAUSED)  # not ended


def new_id() -> uuid.UUID:
    """A time-ordered id (UUIDv7), so that fresh rows sit together in the index."""
    return uuid.UUID(bytes=uuid7().bytes)


Json = Annotated[Any, mapped_column(sa.JSON(none_as_null=True))]
JsonOrNull = Annotated[Any, mapped_column(sa.JSON(none_as_null=True), nullable=True)]
BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite counts up only on INTEGER keys


class Base(DeclarativeBase):
    # Values that the database computes are read back by the same statement, so a row can be rendered
    # after its transaction has ended.
    __mapper_args__ = {"eager_defaults": True}  # noqa: RUF012

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  # read by SQLAlchemy, never written
        datetime: UtcDateTime(),
        str: sa.Text(),
        uuid.UUID: sa.Uuid(),
    }


def table_of(model: type[Base]) -> sa.Table:
    """For statements on the hot path, which the ORM would make several times as dear."""
    return cast("sa.Table", model.__table__)


class Identified:
    """A UUID key and the tenant; on every entity that the API names."""

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id, sort_order=-3)

    @declared_attr
    def workspace_id(cls) -> Mapped[uuid.UUID]:  # noqa: N805  # SQLAlchemy passes the class
        return mapped_column(sa.ForeignKey("workspaces.id"), sort_order=-2)

    created_at: Mapped[datetime] = mapped_column(insert_default=db_now(), sort_order=-1)


class Run:
    """What a job works for: an execution, an evaluation or an optimization. `shared.domain.jobs` moves it."""

    state: Mapped[str] = mapped_column(sa.String(16), default=State.QUEUED)
    error_type: Mapped[str | None] = mapped_column(sa.String(64))
    error_message: Mapped[str | None]
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]


def state_check() -> sa.CheckConstraint:
    allowed = ", ".join(f"'{state}'" for state in State)
    return sa.CheckConstraint(f"state IN ({allowed})", name="state")
