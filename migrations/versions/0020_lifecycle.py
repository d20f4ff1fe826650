"""Every change of a prompt's lifecycle state."""

import sqlalchemy as sa
from alembic import op

from shared.db import UtcDateTime

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.create_table(
        "lifecycle_changes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("prompt_id", sa.Uuid(), nullable=False),
        sa.Column("from_state", sa.String(length=16), nullable=False),
        sa.Column("to_state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("changed_by", sa.String(length=128), nullable=False),
        sa.Column("changed_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["prompt_id"], ["prompts.id"], name=op.f("fk_lifecycle_changes_prompt_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_lifecycle_changes_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lifecycle_changes")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_lifecycle_changes_prompt_id_id"), "lifecycle_changes", ["prompt_id", "id"])


def downgrade() -> None:
    op.drop_table("lifecycle_changes")
