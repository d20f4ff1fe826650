"""Datasets, their revisions and their test cases. Each change makes a revision; an old one can still be read."""

import uuid
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import db_now
from shared.models.base import Base, Identified, Json, JsonOrNull, new_id


class Dataset(Identified, Base):
    """A name is taken by the one dataset of a project that has it and is not deleted."""

    __tablename__ = "datasets"
    __table_args__ = (
        sa.Index(
            "uq_datasets_project_id_name",
            "project_id",
            "name",
            unique=True,
            postgresql_where=sa.text("deleted_at IS NULL"),
            sqlite_where=sa.text("deleted_at IS NULL"),
        ),
    )

    project_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(sa.String(128))
    description: Mapped[str] = mapped_column(default="")
    revision: Mapped[int] = mapped_column(default=0)
    case_count: Mapped[int] = mapped_column(default=0)
    created_by: Mapped[str] = mapped_column(sa.String(128), default="")
    updated_at: Mapped[datetime] = mapped_column(insert_default=db_now())
    deleted_at: Mapped[datetime | None]
    deleted_by: Mapped[str | None] = mapped_column(sa.String(128))


class DatasetRevision(Base):
    """What made a revision, and how many cases it holds. Revision 0, the empty dataset, has no row."""

    __tablename__ = "dataset_revisions"

    dataset_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    workspace_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("workspaces.id"))
    action: Mapped[str] = mapped_column(sa.String(16))  # imported, changed, removed, restored, collected, generated
    added: Mapped[int] = mapped_column(default=0)  # a changed case counts in both
    removed: Mapped[int] = mapped_column(default=0)
    case_count: Mapped[int]
    created_by: Mapped[str] = mapped_column(sa.String(128), default="")
    created_at: Mapped[datetime] = mapped_column(insert_default=db_now())


class TestCase(Identified, Base):
    """A case as some revisions have it: r when `added_in <= r` and (`removed_in` is null or `removed_in > r`).

    A changed case is a new row with the same `case_id` and `ordinal`; what was run on the old row still refers to it.
    """

    __test__ = False  # the name is the field's word; pytest must not collect it
    __tablename__ = "test_cases"
    __table_args__ = (
        sa.UniqueConstraint("dataset_id", "ordinal", "added_in"),
        sa.Index(
            "uq_test_cases_dataset_id_content_hash",
            "dataset_id",
            "content_hash",
            unique=True,
            postgresql_where=sa.text("removed_in IS NULL"),
            sqlite_where=sa.text("removed_in IS NULL"),
        ),
        sa.UniqueConstraint("dataset_id", "case_id", "added_in"),  # a selection has the case of another dataset
    )

    dataset_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("datasets.id", ondelete="CASCADE"))
    case_id: Mapped[uuid.UUID] = mapped_column(default=new_id)  # what users call the case; stays when it changes
    ordinal: Mapped[int]  # 1, 2, 3… in the order of import; never that of another case
    content_hash: Mapped[str] = mapped_column(sa.String(64))
    name: Mapped[str] = mapped_column(sa.String(255), default="")
    description: Mapped[str] = mapped_column(default="")
    inputs: Mapped[Json]
    expected: Mapped[JsonOrNull]
    tags: Mapped[Json] = mapped_column(default=list)
    group: Mapped[str | None] = mapped_column(sa.String(128))
    weight: Mapped[float] = mapped_column(default=1.0)
    golden: Mapped[bool] = mapped_column(default=False)
    generated: Mapped[bool] = mapped_column(default=False)  # written by a model
    # The execution that it was made from. No foreign key: a case outlives the execution.
    source_execution_id: Mapped[uuid.UUID | None]
    added_in: Mapped[int]
    removed_in: Mapped[int | None]
