"""Generations: test cases that a model is asked to write."""

import uuid

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, Identified, Json, JsonOrNull, Run, state_check


class Generation(Identified, Run, Base):
    """Cases for the variables of a version, written by a model into a dataset."""

    __tablename__ = "generations"
    __table_args__ = (
        state_check(),
        sa.Index(None, "workspace_id", "created_at", "id"),
        sa.Index(
            "ix_generations_open",
            "id",
            postgresql_where=sa.text("state IN ('queued', 'running')"),
            sqlite_where=sa.text("state IN ('queued', 'running')"),
        ),
    )

    project_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("projects.id"))
    dataset_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("datasets.id"))
    prompt_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("prompts.id"))
    version_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("versions.id"))
    strategy: Mapped[str] = mapped_column(sa.String(16))
    description: Mapped[str] = mapped_column(default="")
    count: Mapped[int]  # how many cases are wanted
    with_expected: Mapped[bool] = mapped_column(default=False)  # whether the model says what each expects, too
    model: Mapped[Json]  # {"provider", "model_name", "params"}
    step_no: Mapped[int] = mapped_column(default=0)
    budget_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("budgets.id"))
    revision: Mapped[int | None]  # the one that its cases made; null: not yet, or none was new
    results: Mapped[JsonOrNull]  # one for each case that a model wrote; null until it is done
    created_by: Mapped[str] = mapped_column(sa.String(128), default="")
