"""Evaluations that take answers of others: retries, fresh ones, slices, and where answers are looked for."""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    # The default stays: during a deploy the older version inserts rows too.
    op.add_column("evaluations", sa.Column("fresh", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("evaluations", sa.Column("retry_of", sa.Uuid(), nullable=True))
    op.add_column("evaluations", sa.Column("slices", sa.JSON(none_as_null=True), nullable=True))
    op.create_index(
        "ix_calls_of_runs",
        "calls",
        ["call_key"],
        postgresql_where=sa.text("scope_id <> execution_id"),
        sqlite_where=sa.text("scope_id <> execution_id"),
    )


def downgrade() -> None:
    op.drop_index("ix_calls_of_runs", table_name="calls")
    for name in ("slices", "retry_of", "fresh"):
        op.drop_column("evaluations", name)
