"""Executions (the only way to reach a provider) and the ledger of calls that keeps them from repeating."""

import uuid

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, Identified, Json, JsonOrNull, Run, state_check


class Execution(Identified, Run, Base):
    """One logical provider call, with all that went out and all that came back."""

    __tablename__ = "executions"
    __table_args__ = (
        state_check(),
        sa.Index(None, "workspace_id", "created_at", "id"),
        sa.Index(None, "prompt_id", "created_at"),
        sa.Index(None, "version_id", "purpose"),  # how often a version was run, counted in the index alone
        sa.Index(None, "correlation_id"),
        sa.Index(None, "scope_id"),
        sa.Index(
            "ix_executions_batch_id",
            "batch_id",
            "batch_index",
            postgresql_where=sa.text("batch_id IS NOT NULL"),
            sqlite_where=sa.text("batch_id IS NOT NULL"),
        ),
        # By what never changes: an index of when it ended would cost every finish a new entry in all others.
        sa.Index(
            "ix_executions_runs",
            "created_at",
            postgresql_where=sa.text("purpose = 'run' AND scope_id IS NULL AND batch_id IS NULL"),
            sqlite_where=sa.text("purpose = 'run' AND scope_id IS NULL AND batch_id IS NULL"),
        ),
    )

    project_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("projects.id"))
    prompt_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("prompts.id"))
    version_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("versions.id"))
    scope_id: Mapped[uuid.UUID | None]  # the evaluation or optimization that it belongs to
    # Like the scope no foreign key: it would be looked up once more for each of ten thousand rows.
    batch_id: Mapped[uuid.UUID | None]
    batch_index: Mapped[int | None]  # which item of the batch, from 0
    purpose: Mapped[str] = mapped_column(sa.String(16), default="run")
    mode: Mapped[str] = mapped_column(sa.String(8), default="async")
    environment: Mapped[str] = mapped_column(sa.String(64), default="dev")
    correlation_id: Mapped[str | None] = mapped_column(sa.String(128))
    request_id: Mapped[str | None] = mapped_column(sa.String(64))
    created_by: Mapped[str] = mapped_column(sa.String(128), default="")

    provider: Mapped[str] = mapped_column(sa.String(32))
    model_name: Mapped[str] = mapped_column(sa.String(128))
    params: Mapped[Json] = mapped_column(default=dict)
    variables: Mapped[Json] = mapped_column(default=dict)
    messages: Mapped[Json]  # rendered: [{"role", "content"}]
    tools: Mapped[JsonOrNull]  # what the version offers the model besides; null: nothing
    response_schema: Mapped[JsonOrNull]
    sample: Mapped[int] = mapped_column(default=0)  # which of several wanted answers to the same request

    budget_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("budgets.id"))
    estimate_tokens: Mapped[int] = mapped_column(sa.BigInteger, default=0)  # upper bound, input + output
    estimate_nano: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    input_nano_per_mtok: Mapped[int | None] = mapped_column(sa.BigInteger)  # the price when it was submitted
    output_nano_per_mtok: Mapped[int | None] = mapped_column(sa.BigInteger)

    response_text: Mapped[str | None]
    finish_reason: Mapped[str | None] = mapped_column(sa.String(32))
    truncated: Mapped[bool] = mapped_column(default=False)
    response_bytes: Mapped[int | None]  # of the whole answer, before it was cut
    prompt_tokens: Mapped[int | None]
    response_tokens: Mapped[int | None]
    cost_nano: Mapped[int | None] = mapped_column(sa.BigInteger)  # null: no price is known
    latency_ms: Mapped[int | None]
    provider_request_id: Mapped[str | None] = mapped_column(sa.String(128))
    attempts: Mapped[int] = mapped_column(default=0)
    # Attempts whose answer was never read although the request may have been sent: possibly paid.
    ambiguous_attempts: Mapped[int] = mapped_column(default=0)


class Call(Base):
    """`(scope, call_key, generation)` → execution. Unique, so nothing is paid twice.

    `call_key` = sha256(provider, model, settings, rendered content, sample number, tools and response schema if any).
    """

    __tablename__ = "calls"
    __table_args__ = (
        # Where an answer to the same call is looked for. A run of a prompt is its own scope, and pays for no entry.
        sa.Index(
            "ix_calls_of_runs",
            "call_key",
            postgresql_where=sa.text("scope_id <> execution_id"),
            sqlite_where=sa.text("scope_id <> execution_id"),
        ),
    )

    scope_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    call_key: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True, default=0)
    workspace_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("workspaces.id"))
    execution_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("executions.id", ondelete="CASCADE"), unique=True)
