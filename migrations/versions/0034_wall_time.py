"""A ceiling on how long a run goes on: its clock stands with its budget."""

import sqlalchemy as sa
from alembic import op

from shared.db import UtcDateTime

revision = "0034"
down_revision = "0033"


def upgrade() -> None:
    # The default stays: during a deploy the older version inserts rows too.
    op.add_column("budgets", sa.Column("limit_wall_seconds", sa.Integer(), nullable=True))
    op.add_column("budgets", sa.Column("idle_seconds", sa.Float(), server_default="0", nullable=False))
    op.add_column("budgets", sa.Column("paused_at", UtcDateTime(), nullable=True))
    op.add_column("budgets", sa.Column("deadline_at", UtcDateTime(), nullable=True))


def downgrade() -> None:
    for name in ("deadline_at", "paused_at", "idle_seconds", "limit_wall_seconds"):
        op.drop_column("budgets", name)
