"""Optimizations (searches for a better version) and the candidates that they tried."""

import uuid

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, Identified, Json, JsonOrNull, Run


class Optimization(Identified, Run, Base):
    __tablename__ = "optimizations"
    __table_args__ = (
        sa.CheckConstraint("state IN ('queued', 'running', 'paused', 'succeeded', 'failed', 'canceled')", name="state"),
        sa.Index(None, "workspace_id", "created_at", "id"),
        sa.Index(
            "ix_optimizations_open",
            "id",
            postgresql_where=sa.text("state IN ('queued', 'running')"),
            sqlite_where=sa.text("state IN ('queued', 'running')"),
        ),
    )

    project_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("projects.id"))
    prompt_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("prompts.id"))
    version_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("versions.id"))  # the seed
    dataset_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("datasets.id"))
    dataset_revision: Mapped[int]
    name: Mapped[str] = mapped_column(sa.String(255), default="")
    strategy: Mapped[str] = mapped_column(sa.String(32))
    spec: Mapped[Json]  # everything that decides the search, defaults filled in
    step_no: Mapped[int] = mapped_column(default=0)
    search_state: Mapped[JsonOrNull]  # the reducer's state; null before the first step
    progress: Mapped[Json] = mapped_column(default=dict)
    finish_reason: Mapped[str | None] = mapped_column(sa.String(32))
    result: Mapped[JsonOrNull]  # baseline and best on dev and holdout; null until it is done
    best_version_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("versions.id"))
    budget_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("budgets.id"))
    source_id: Mapped[uuid.UUID | None]  # the optimization, or comparison, that it was made from
    relation: Mapped[str | None] = mapped_column(sa.String(16))  # to that one: clone, continuation or comparison
    ceilings: Mapped[JsonOrNull]  # raised budgets: [{"from_step", "budget", …}]; the first is that of the spec
    promotions: Mapped[JsonOrNull]  # labels that were moved, or asked for, by its result
    replay: Mapped[JsonOrNull]  # the newest replay: its job, then its report
    created_by: Mapped[str] = mapped_column(sa.String(128), default="")


class OptimizationComparison(Identified, Base):
    """Strategies against each other: which optimizations belong together. Its state is that of these."""

    __tablename__ = "optimization_comparisons"
    __table_args__ = (sa.Index(None, "workspace_id", "created_at", "id"),)

    project_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(sa.String(255), default="")
    arms: Mapped[Json]  # [{"strategy", "knobs", "runs": [ids of optimizations, in the order of the seeds]}]
    created_by: Mapped[str] = mapped_column(sa.String(128), default="")


class Candidate(Identified, Base):
    """One text that a search considered, with its lineage and what became of it."""

    __tablename__ = "candidates"
    __table_args__ = (
        sa.UniqueConstraint("optimization_id", "ordinal"),
        sa.UniqueConstraint("optimization_id", "hash"),
    )

    optimization_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("optimizations.id", ondelete="CASCADE"))
    ordinal: Mapped[int]  # 0 is the seed
    hash: Mapped[str] = mapped_column(sa.String(64))
    components: Mapped[Json]  # {"system": text, …}
    demos: Mapped[Json] = mapped_column(default=list)  # answered train cases that it shows: [{"case", "output"}]
    params: Mapped[Json] = mapped_column(default=dict)  # model settings of its own, model_name among them
    parents: Mapped[Json]  # hashes
    operator: Mapped[str] = mapped_column(sa.String(32))
    round: Mapped[int]
    decision: Mapped[str] = mapped_column(sa.String(32))  # seed, evaluated, kept, pruned, rejected
    reason: Mapped[str] = mapped_column(default="")
    cases: Mapped[int] = mapped_column(default=0)  # how many dev cases it was scored on
    mean: Mapped[float | None]
    standard_error: Mapped[float | None]
    lineage: Mapped[Json] = mapped_column(default=dict)  # operator arguments, evidence, proposal keys
