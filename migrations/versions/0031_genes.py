"""Candidates with genes beside their texts: the demonstrations that they show, and model settings of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"


def upgrade() -> None:
    with op.batch_alter_table("candidates") as table:
        table.add_column(sa.Column("demos", sa.JSON(none_as_null=True), nullable=False, server_default="[]"))
        table.add_column(sa.Column("params", sa.JSON(none_as_null=True), nullable=False, server_default="{}"))
    # The candidates that are there have none; from here on who inserts a row says what it has.
    with op.batch_alter_table("candidates") as table:
        table.alter_column("demos", server_default=None)
        table.alter_column("params", server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("candidates") as table:
        table.drop_column("params")
        table.drop_column("demos")
