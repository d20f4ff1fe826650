"""Feedback on executions, and how long an answer was before it was cut."""

import sqlalchemy as sa
from alembic import op

from shared.db import UtcDateTime

revision = "0024"
down_revision = "0015"


def upgrade() -> None:
    op.create_table(
        "feedback",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("execution_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("end_user", sa.String(length=128), nullable=False),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("thumb", sa.String(length=4), nullable=True),
        sa.Column("label", sa.String(length=64), nullable=True),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint("score >= 0 AND score <= 1", name=op.f("ck_feedback_score")),
        sa.CheckConstraint("thumb IN ('up', 'down')", name=op.f("ck_feedback_thumb")),
        sa.ForeignKeyConstraint(
            ["execution_id"], ["executions.id"], name=op.f("fk_feedback_execution_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_feedback_user_id")),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_feedback_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feedback")),
        sa.UniqueConstraint(
            "execution_id", "user_id", "end_user", name=op.f("uq_feedback_execution_id_user_id_end_user")
        ),
    )
    op.create_index(
        op.f("ix_feedback_workspace_id_execution_id"), "feedback", ["workspace_id", "execution_id"], unique=False
    )
    # Null for the answers that are there: to measure them would rewrite every row.
    op.add_column("executions", sa.Column("response_bytes", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("executions", "response_bytes")
    op.drop_table("feedback")
