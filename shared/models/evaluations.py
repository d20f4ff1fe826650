"""Evaluations, and the units of work that evaluations and optimizations are made of."""

import uuid

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, BigId, Identified, Json, JsonOrNull, Run, state_check


class Evaluation(Identified, Run, Base):
    """A version scored on a dataset revision by scorers."""

    __tablename__ = "evaluations"
    __table_args__ = (
        state_check(),
        sa.Index(None, "workspace_id", "created_at", "id"),
        sa.Index(
            "ix_evaluations_open",
            "id",
            postgresql_where=sa.text("state IN ('queued', 'running')"),
            sqlite_where=sa.text("state IN ('queued', 'running')"),
        ),
    )

    project_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("projects.id"))
    prompt_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("prompts.id"))
    version_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("versions.id"))
    dataset_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("datasets.id"))
    dataset_revision: Mapped[int]
    name: Mapped[str] = mapped_column(sa.String(255), default="")
    scorers: Mapped[Json]
    model: Mapped[Json]  # {"provider", "model_name", "params"}
    repeats: Mapped[int] = mapped_column(default=1)
    step_no: Mapped[int] = mapped_column(default=0)
    fresh: Mapped[bool] = mapped_column(default=False, server_default=sa.false())  # no answer of another run is taken
    retry_of: Mapped[uuid.UUID | None]  # the evaluation whose answers it takes over
    budget_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("budgets.id"))
    aggregate: Mapped[JsonOrNull]  # null until it is done
    slices: Mapped[JsonOrNull] = mapped_column(deferred=True)  # the same by tag, group and scorer
    created_by: Mapped[str] = mapped_column(sa.String(128), default="")


class WorkItem(Base):
    """One unit of work of a scope: a candidate on a case, or a proposal. Several may share one call."""

    __tablename__ = "work_items"
    __table_args__ = (
        sa.UniqueConstraint("scope_id", "work_key"),
        sa.Index(None, "scope_id", "step_no", "ordinal"),
        sa.Index(None, "execution_id"),  # else each execution that is pruned is looked for in the whole table
        sa.Index(  # and each test case that is deleted for good
            "ix_work_items_test_case_id",
            "test_case_id",
            postgresql_where=sa.text("test_case_id IS NOT NULL"),
            sqlite_where=sa.text("test_case_id IS NOT NULL"),
        ),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    workspace_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("workspaces.id"))
    scope_id: Mapped[uuid.UUID]
    step_no: Mapped[int]  # the step that reads the result
    ordinal: Mapped[int]  # order of emission within the step
    work_key: Mapped[str] = mapped_column(sa.String(64))
    kind: Mapped[str] = mapped_column(sa.String(16))  # evaluate, propose, judge or embedding
    candidate: Mapped[str | None] = mapped_column(sa.String(64))  # the candidate's hash, in an optimization
    test_case_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("test_cases.id"))
    repeat: Mapped[int] = mapped_column(default=0)
    execution_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("executions.id"))
    score: Mapped[float | None]  # null: missing, which is not 0
    passed: Mapped[bool | None]
    feedback: Mapped[str | None]
    details: Mapped[JsonOrNull]
