"""Controls of the queues, the workspaces that operate the fleet, and indexes for dead and requeued jobs."""

import sqlalchemy as sa
from alembic import op

from shared.db import UtcDateTime

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "queues",
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("draining", sa.Boolean(), nullable=False),
        sa.Column("max_running", sa.Integer(), nullable=True),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("updated_by", sa.String(length=128), nullable=False),
        sa.CheckConstraint("max_running > 0", name=op.f("ck_queues_max_running")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_queues")),
    )
    op.add_column("workspaces", sa.Column("operates_fleet", sa.Boolean(), nullable=False, server_default=sa.false()))
    # Who set the installation up goes on running it.
    op.execute(
        "UPDATE workspaces SET operates_fleet = true"
        " WHERE id = (SELECT id FROM workspaces ORDER BY created_at, id LIMIT 1)"
    )
    op.create_index(
        "ix_jobs_dead",
        "jobs",
        ["workspace_id", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'failed'"),
        sqlite_where=sa.text("state = 'failed'"),
    )
    op.create_index(
        "ix_jobs_retry_of",
        "jobs",
        ["retry_of"],
        unique=False,
        postgresql_where=sa.text("retry_of IS NOT NULL"),
        sqlite_where=sa.text("retry_of IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_retry_of", table_name="jobs")
    op.drop_index("ix_jobs_dead", table_name="jobs")
    op.drop_column("workspaces", "operates_fleet")
    op.drop_table("queues")
