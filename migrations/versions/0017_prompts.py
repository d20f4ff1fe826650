"""Deleted prompts keep their row and free their name; an index counts the runs of a version."""

import sqlalchemy as sa
from alembic import op

from shared.db import UtcDateTime

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    with op.batch_alter_table("prompts", table_args=_checks()) as prompts:
        prompts.drop_constraint(op.f("uq_prompts_project_id_name"), type_="unique")
        prompts.add_column(sa.Column("deleted_at", UtcDateTime(), nullable=True))
        prompts.add_column(sa.Column("deleted_by", sa.String(length=128), nullable=True))
    op.create_index(
        "uq_prompts_project_id_name",
        "prompts",
        ["project_id", "name"],
        unique=True,
        postgresql_where=sa.text("deleted_at IS NULL"),
        sqlite_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(op.f("ix_executions_version_id_purpose"), "executions", ["version_id", "purpose"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_executions_version_id_purpose"), table_name="executions")
    op.drop_index("uq_prompts_project_id_name", table_name="prompts")
    # What was run with a deleted prompt still refers to it, so its row stays: under a name that no other has.
    op.execute(
        "UPDATE prompts SET name = substr(name, 1, 87) || '.deleted-' || replace(CAST(id AS varchar(36)), '-', '')"
        " WHERE deleted_at IS NOT NULL"
    )
    with op.batch_alter_table("prompts", table_args=_checks()) as prompts:
        prompts.drop_column("deleted_by")
        prompts.drop_column("deleted_at")
        prompts.create_unique_constraint(op.f("uq_prompts_project_id_name"), ["project_id", "name"])


def _checks() -> tuple[sa.CheckConstraint, ...]:
    """SQLite makes the table anew to drop a constraint, and its checks are not read back from the database."""
    return (sa.CheckConstraint("mode IN ('full', 'tracking')", name="ck_prompts_mode"),)
