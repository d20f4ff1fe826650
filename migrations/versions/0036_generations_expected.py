"""A generation may be asked to say what its cases expect."""

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0035"


def upgrade() -> None:
    # The default stays: during a deploy the older version inserts rows too.
    op.add_column("generations", sa.Column("with_expected", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    op.drop_column("generations", "with_expected")
