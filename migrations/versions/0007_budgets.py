"""Budgets."""

import sqlalchemy as sa
from alembic import op

from shared.db import UtcDateTime

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "budgets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("limit_task_calls", sa.Integer(), nullable=True),
        sa.Column("limit_proposer_calls", sa.Integer(), nullable=True),
        sa.Column("limit_tokens", sa.BigInteger(), nullable=True),
        sa.Column("limit_nano", sa.BigInteger(), nullable=True),
        sa.Column("reserved_task_calls", sa.Integer(), nullable=False),
        sa.Column("reserved_proposer_calls", sa.Integer(), nullable=False),
        sa.Column("reserved_tokens", sa.BigInteger(), nullable=False),
        sa.Column("reserved_nano", sa.BigInteger(), nullable=False),
        sa.Column("spent_task_calls", sa.Integer(), nullable=False),
        sa.Column("spent_proposer_calls", sa.Integer(), nullable=False),
        sa.Column("spent_tokens", sa.BigInteger(), nullable=False),
        sa.Column("spent_nano", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_budgets_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budgets")),
    )


def downgrade() -> None:
    op.drop_table("budgets")
