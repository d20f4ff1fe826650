"""An index of the events of projects and prompts, which every API process follows."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
WHERE = sa.text("substr(type, 1, 3) = 'pro'")


def upgrade() -> None:
    op.create_index("ix_events_registry", "events", ["xid", "id"], postgresql_where=WHERE, sqlite_where=WHERE)


def downgrade() -> None:
    op.drop_index("ix_events_registry", "events")
