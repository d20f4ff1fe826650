"""Projects with a status, metadata and a revision, that can be deleted and leave their name to another."""

import sqlalchemy as sa
from alembic import op

from shared.db import UtcDateTime

revision = "0018"
down_revision = "0017"

NAME = "uq_projects_workspace_id_name"


def upgrade() -> None:
    with op.batch_alter_table("projects") as table:
        table.add_column(sa.Column("status", sa.String(length=16), nullable=False, server_default="active"))
        table.add_column(sa.Column("metadata", sa.JSON(none_as_null=True), nullable=False, server_default="{}"))
        table.add_column(sa.Column("revision", sa.Integer(), nullable=False, server_default="1"))
        table.add_column(sa.Column("deleted_at", UtcDateTime(), nullable=True))
        table.drop_constraint(op.f(NAME), type_="unique")
    with op.batch_alter_table("projects") as table:  # what filled the rows is not what fills new ones
        table.alter_column("status", server_default=None)
        table.alter_column("metadata", server_default=None)
        table.alter_column("revision", server_default=None)
        table.create_check_constraint(op.f("ck_projects_status"), "status IN ('draft', 'active', 'archived')")
    op.create_index(
        NAME,
        "projects",
        ["workspace_id", "name"],
        unique=True,
        postgresql_where=sa.text("deleted_at IS NULL"),
        sqlite_where=sa.text("deleted_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index(NAME, table_name="projects")
    # The older version knows no deleted project: it comes back, under a name that no other can have.
    op.execute(
        "UPDATE projects SET name = substr(name, 1, 91) || '.' || CAST(id AS varchar(36)) WHERE deleted_at IS NOT NULL"
    )
    with op.batch_alter_table("projects") as table:
        table.drop_constraint(op.f("ck_projects_status"), type_="check")
        table.drop_column("deleted_at")
        table.drop_column("revision")
        table.drop_column("metadata")
        table.drop_column("status")
        table.create_unique_constraint(op.f(NAME), ["workspace_id", "name"])
