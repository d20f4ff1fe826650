"""Indexes that keep pruning and the sweep from reading what has ended."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.create_index(
        "ix_jobs_finished",
        "jobs",
        ["state", "finished_at"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NOT NULL"),
        sqlite_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index(
        "ix_executions_runs",
        "executions",
        ["created_at"],
        unique=False,
        postgresql_where=sa.text("purpose = 'run' AND scope_id IS NULL AND batch_id IS NULL"),
        sqlite_where=sa.text("purpose = 'run' AND scope_id IS NULL AND batch_id IS NULL"),
    )
    op.create_index(op.f("ix_work_items_execution_id"), "work_items", ["execution_id"], unique=False)
    for table in ("evaluations", "optimizations"):
        op.create_index(
            f"ix_{table}_open",
            table,
            ["id"],
            unique=False,
            postgresql_where=sa.text("state IN ('queued', 'running')"),
            sqlite_where=sa.text("state IN ('queued', 'running')"),
        )


def downgrade() -> None:
    for table in ("optimizations", "evaluations"):
        op.drop_index(f"ix_{table}_open", table_name=table)
    op.drop_index(op.f("ix_work_items_execution_id"), table_name="work_items")
    op.drop_index("ix_executions_runs", table_name="executions")
    op.drop_index("ix_jobs_finished", table_name="jobs")
