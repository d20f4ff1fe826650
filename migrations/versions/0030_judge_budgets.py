"""Ceilings on the calls of judges and embeddings."""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    # The defaults stay: during a deploy the older version inserts rows too.
    op.add_column("budgets", sa.Column("limit_judge_calls", sa.Integer(), nullable=True))
    for name in ("reserved_judge_calls", "spent_judge_calls"):
        op.add_column("budgets", sa.Column(name, sa.Integer(), server_default="0", nullable=False))


def downgrade() -> None:
    for name in ("spent_judge_calls", "reserved_judge_calls", "limit_judge_calls"):
        op.drop_column("budgets", name)
