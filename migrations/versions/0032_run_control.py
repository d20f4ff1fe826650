"""The control of optimizations: pause, raised budgets, continuations, promotions and replays."""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"


def upgrade() -> None:
    # The defaults stay: during a deploy the older version inserts rows too.
    op.add_column("budgets", sa.Column("held", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("optimizations", sa.Column("source_id", sa.Uuid(), nullable=True))
    op.add_column("optimizations", sa.Column("relation", sa.String(16), nullable=True))
    op.add_column("optimizations", sa.Column("ceilings", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("optimizations", sa.Column("promotions", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("optimizations", sa.Column("replay", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    # The older version has no way to let them go on.
    op.execute("UPDATE optimizations SET state = 'running' WHERE state = 'paused' AND started_at IS NOT NULL")
    op.execute("UPDATE optimizations SET state = 'queued' WHERE state = 'paused'")
    op.execute("UPDATE jobs SET blocked_by = NULL WHERE blocked_by IN (SELECT id FROM budgets WHERE held)")
    op.execute("DELETE FROM jobs WHERE kind = 'replay'")  # a kind that it does not know
    for name in ("replay", "promotions", "ceilings", "relation", "source_id"):
        op.drop_column("optimizations", name)
    op.drop_column("budgets", "held")
