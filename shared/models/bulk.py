"""Bulk operations: one verb on thousands of prompts, with a result for each."""

import uuid

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, Identified, Json, JsonOrNull, Run, State, state_check


class BulkOperation(Identified, Run, Base):
    """What was asked for, by whom and with which rights, and how far it is. Its items are done in their order."""

    __tablename__ = "bulk_operations"
    __table_args__ = (
        state_check(),
        sa.Index(None, "workspace_id", "created_at", "id"),
        sa.Index(
            "ix_bulk_operations_open",
            "id",
            postgresql_where=sa.text("state IN ('queued', 'running')"),
            sqlite_where=sa.text("state IN ('queued', 'running')"),
        ),
    )

    project_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("projects.id"))  # null: several, or unknown
    operation: Mapped[str] = mapped_column(sa.String(16))
    dry_run: Mapped[bool] = mapped_column(default=False)
    criteria: Mapped[JsonOrNull]  # the filter that the items were found by
    retry_of: Mapped[uuid.UUID | None]
    total: Mapped[int]
    succeeded: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    skipped: Mapped[int] = mapped_column(default=0)
    step_no: Mapped[int] = mapped_column(default=0)
    # Items below this one are tried one at a time: a page of them failed, and none of them gave the reason.
    alone_until: Mapped[int] = mapped_column(default=0)
    # The caller as he was at the submit; each item is done with his rights, and with no others.
    user_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("users.id"))
    key_id: Mapped[uuid.UUID | None]
    role: Mapped[str] = mapped_column(sa.String(16))
    project_ids: Mapped[JsonOrNull]  # null: every project of the workspace
    created_by: Mapped[str] = mapped_column(sa.String(128), default="")


class BulkItem(Base):
    """One item and its result. It stays `queued` when its operation ends before its turn."""

    __tablename__ = "bulk_items"
    __table_args__ = (sa.CheckConstraint("state IN ('queued', 'succeeded', 'failed', 'skipped')", name="state"),)

    operation_id: Mapped[uuid.UUID] = mapped_column(
        sa.ForeignKey("bulk_operations.id", ondelete="CASCADE"), primary_key=True
    )
    ordinal: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # from 0
    workspace_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("workspaces.id"))
    payload: Mapped[Json]  # its checked fields
    state: Mapped[str] = mapped_column(sa.String(16), default=State.QUEUED)
    name: Mapped[str | None] = mapped_column(sa.String(128))
    prompt_id: Mapped[uuid.UUID | None]  # no foreign key: a result outlives its prompt
    version_number: Mapped[int | None]
    error: Mapped[JsonOrNull]  # {"code", "detail", "errors"}
