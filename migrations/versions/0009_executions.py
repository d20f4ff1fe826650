"""Executions and the ledger of calls."""

import sqlalchemy as sa
from alembic import op

from shared.db import UtcDateTime

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "executions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=True),
        sa.Column("prompt_id", sa.Uuid(), nullable=True),
        sa.Column("version_id", sa.Uuid(), nullable=True),
        sa.Column("scope_id", sa.Uuid(), nullable=True),
        sa.Column("purpose", sa.String(length=16), nullable=False),
        sa.Column("mode", sa.String(length=8), nullable=False),
        sa.Column("environment", sa.String(length=64), nullable=False),
        sa.Column("correlation_id", sa.String(length=128), nullable=True),
        sa.Column("request_id", sa.String(length=64), nullable=True),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("provider", sa.String(length=32), nullable=False),
        sa.Column("model_name", sa.String(length=128), nullable=False),
        sa.Column("params", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("variables", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("messages", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("sample", sa.Integer(), nullable=False),
        sa.Column("budget_id", sa.Uuid(), nullable=True),
        sa.Column("estimate_tokens", sa.BigInteger(), nullable=False),
        sa.Column("estimate_nano", sa.BigInteger(), nullable=False),
        sa.Column("input_nano_per_mtok", sa.BigInteger(), nullable=True),
        sa.Column("output_nano_per_mtok", sa.BigInteger(), nullable=True),
        sa.Column("response_text", sa.Text(), nullable=True),
        sa.Column("finish_reason", sa.String(length=32), nullable=True),
        sa.Column("truncated", sa.Boolean(), nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=True),
        sa.Column("response_tokens", sa.Integer(), nullable=True),
        sa.Column("cost_nano", sa.BigInteger(), nullable=True),
        sa.Column("latency_ms", sa.Integer(), nullable=True),
        sa.Column("provider_request_id", sa.String(length=128), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("ambiguous_attempts", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("error_type", sa.String(length=64), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("started_at", UtcDateTime(), nullable=True),
        sa.Column("completed_at", UtcDateTime(), nullable=True),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed', 'canceled')", name=op.f("ck_executions_state")
        ),
        sa.ForeignKeyConstraint(["budget_id"], ["budgets.id"], name=op.f("fk_executions_budget_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_executions_project_id")),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.id"], name=op.f("fk_executions_prompt_id")),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_executions_version_id")),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_executions_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_executions")),
    )
    op.create_index(op.f("ix_executions_correlation_id"), "executions", ["correlation_id"], unique=False)
    op.create_index(op.f("ix_executions_prompt_id_created_at"), "executions", ["prompt_id", "created_at"], unique=False)
    op.create_index(op.f("ix_executions_scope_id"), "executions", ["scope_id"], unique=False)
    op.create_index(
        op.f("ix_executions_workspace_id_created_at_id"),
        "executions",
        ["workspace_id", "created_at", "id"],
        unique=False,
    )
    op.create_table(
        "calls",
        sa.Column("scope_id", sa.Uuid(), nullable=False),
        sa.Column("call_key", sa.String(length=64), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("execution_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["execution_id"], ["executions.id"], name=op.f("fk_calls_execution_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_calls_workspace_id")),
        sa.PrimaryKeyConstraint("scope_id", "call_key", "generation", name=op.f("pk_calls")),
        sa.UniqueConstraint("execution_id", name=op.f("uq_calls_execution_id")),
    )


def downgrade() -> None:
    op.drop_table("calls")
    op.drop_table("executions")
