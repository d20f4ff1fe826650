"""A test case that is deleted for good is looked up in what was scored, and not searched for in all of it."""

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"

INDEX = "ix_work_items_test_case_id"


def upgrade() -> None:
    there = sa.text("test_case_id IS NOT NULL")
    op.create_index(INDEX, "work_items", ["test_case_id"], postgresql_where=there, sqlite_where=there)


def downgrade() -> None:
    op.drop_index(INDEX, "work_items")
