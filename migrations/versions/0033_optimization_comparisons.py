"""Comparisons of strategies: which optimizations belong together."""

import sqlalchemy as sa
from alembic import op

from shared.db import UtcDateTime

revision = "0033"
down_revision = "0032"


def upgrade() -> None:
    op.create_table(
        "optimization_comparisons",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("arms", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name="fk_optimization_comparisons_workspace_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_optimization_comparisons_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_optimization_comparisons"),
    )
    op.create_index(
        "ix_optimization_comparisons_workspace_id_created_at_id",
        "optimization_comparisons",
        ["workspace_id", "created_at", "id"],
    )


def downgrade() -> None:
    op.drop_index("ix_optimization_comparisons_workspace_id_created_at_id", table_name="optimization_comparisons")
    op.drop_table("optimization_comparisons")
