"""An index of a workspace's events in the order in which they are read."""

from alembic import op

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    op.create_index(op.f("ix_events_workspace_id_xid_id"), "events", ["workspace_id", "xid", "id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_events_workspace_id_xid_id"), "events")
