"""Datasets and their test cases. An import makes a new revision; an old revision can still be read."""

import uuid
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import db_now
from shared.models.base import Base, Identified, Json, JsonOrNull


class Dataset(Identified, Base):
    __tablename__ = "datasets"
    __table_args__ = (sa.UniqueConstraint("project_id", "name"),)

    project_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(sa.String(128))
    description: Mapped[str] = mapped_column(default="")
    revision: Mapped[int] = mapped_column(default=0)
    case_count: Mapped[int] = mapped_column(default=0)
    created_by: Mapped[str] = mapped_column(sa.String(128), default="")
    updated_at: Mapped[datetime] = mapped_column(insert_default=db_now())


class TestCase(Identified, Base):
    """In a revision r when `added_in <= r` and (`removed_in` is null or `removed_in > r`)."""

    __test__ = False  # the name is the field's word; pytest must not collect it
    __tablename__ = "test_cases"
    __table_args__ = (
        sa.UniqueConstraint("dataset_id", "ordinal"),
        sa.Index(
            "uq_test_cases_dataset_id_content_hash",
            "dataset_id",
            "content_hash",
            unique=True,
            postgresql_where=sa.text("removed_in IS NULL"),
            sqlite_where=sa.text("removed_in IS NULL"),
        ),
    )

    dataset_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("datasets.id", ondelete="CASCADE"))
    ordinal: Mapped[int]  # 1, 2, 3… in the order of import; never reused
    content_hash: Mapped[str] = mapped_column(sa.String(64))
    name: Mapped[str] = mapped_column(sa.String(255), default="")
    inputs: Mapped[Json]
    expected: Mapped[JsonOrNull]
    tags: Mapped[Json] = mapped_column(default=list)
    group: Mapped[str | None] = mapped_column(sa.String(128))
    weight: Mapped[float] = mapped_column(default=1.0)
    golden: Mapped[bool] = mapped_column(default=False)
    added_in: Mapped[int]
    removed_in: Mapped[int | None]
