"""Relationships between prompts."""

import sqlalchemy as sa
from alembic import op

from shared.db import UtcDateTime

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    op.create_table(
        "relationships",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("source_id", sa.Uuid(), nullable=False),
        sa.Column("target_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("strength", sa.Float(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("metadata", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint("source_id <> target_id", name=op.f("ck_relationships_ends")),
        sa.CheckConstraint("strength >= 0 AND strength <= 1", name=op.f("ck_relationships_strength")),
        sa.ForeignKeyConstraint(
            ["source_id"], ["prompts.id"], name=op.f("fk_relationships_source_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["target_id"], ["prompts.id"], name=op.f("fk_relationships_target_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_relationships_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_relationships")),
        sa.UniqueConstraint("source_id", "target_id", "type", name=op.f("uq_relationships_source_id_target_id_type")),
    )
    op.create_index(op.f("ix_relationships_target_id_type"), "relationships", ["target_id", "type"], unique=False)


def downgrade() -> None:
    op.drop_table("relationships")
