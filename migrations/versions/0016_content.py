"""What a version offers the model besides its messages, and which version a fork was made from."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.add_column("versions", sa.Column("forked_from_version_id", sa.Uuid(), nullable=True))
    op.create_index(
        "ix_versions_forked_from_version_id",
        "versions",
        ["forked_from_version_id"],
        unique=False,
        postgresql_where=sa.text("forked_from_version_id IS NOT NULL"),
        sqlite_where=sa.text("forked_from_version_id IS NOT NULL"),
    )
    op.add_column("executions", sa.Column("tools", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("executions", sa.Column("response_schema", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    op.drop_column("executions", "response_schema")
    op.drop_column("executions", "tools")
    op.drop_index("ix_versions_forked_from_version_id", table_name="versions")
    op.drop_column("versions", "forked_from_version_id")
