"""Every move of a label, who may move it, and moves that wait for a second person."""

import sqlalchemy as sa
from alembic import op

from shared.db import UtcDateTime

revision = "0019"
down_revision = "0018"

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "label_moves",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("prompt_id", sa.Uuid(), nullable=False),
        sa.Column("label", sa.String(length=36), nullable=False),
        sa.Column("from_version", sa.Integer(), nullable=True),
        sa.Column("to_version", sa.Integer(), nullable=True),
        sa.Column("undoes", BIG_ID, nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("moved_by", sa.String(length=128), nullable=False),
        sa.Column("approved_by", sa.String(length=128), nullable=True),
        sa.Column("moved_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["prompt_id"], ["prompts.id"], name=op.f("fk_label_moves_prompt_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_label_moves_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_label_moves")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_label_moves_prompt_id_label_id"), "label_moves", ["prompt_id", "label", "id"])
    op.create_table(
        "label_protections",
        sa.Column("prompt_id", sa.Uuid(), nullable=False),
        sa.Column("label", sa.String(length=36), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=True),
        sa.Column("approvals", sa.Integer(), nullable=True),
        sa.Column("set_by", sa.String(length=128), nullable=False),
        sa.Column("set_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint("(role IS NULL) <> (approvals IS NULL)", name=op.f("ck_label_protections_one")),
        sa.ForeignKeyConstraint(
            ["prompt_id"], ["prompts.id"], name=op.f("fk_label_protections_prompt_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_label_protections_workspace_id")),
        sa.PrimaryKeyConstraint("prompt_id", "label", name=op.f("pk_label_protections")),
    )
    op.create_table(
        "label_requests",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("prompt_id", sa.Uuid(), nullable=False),
        sa.Column("label", sa.String(length=36), nullable=False),
        sa.Column("from_version", sa.Integer(), nullable=True),
        sa.Column("to_version", sa.Integer(), nullable=True),
        sa.Column("undoes", BIG_ID, nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("asked_by", sa.String(length=128), nullable=False),
        sa.Column("asked_by_id", sa.Uuid(), nullable=False),
        sa.Column("decided_by", sa.String(length=128), nullable=True),
        sa.Column("decided_at", UtcDateTime(), nullable=True),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "state IN ('pending', 'approved', 'rejected', 'superseded')", name=op.f("ck_label_requests_state")
        ),
        sa.ForeignKeyConstraint(["asked_by_id"], ["users.id"], name=op.f("fk_label_requests_asked_by_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_label_requests_project_id")),
        sa.ForeignKeyConstraint(
            ["prompt_id"], ["prompts.id"], name=op.f("fk_label_requests_prompt_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_label_requests_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_label_requests")),
    )
    op.create_index(
        op.f("ix_label_requests_workspace_id_created_at_id"), "label_requests", ["workspace_id", "created_at", "id"]
    )
    op.create_index(
        "ix_label_requests_pending",
        "label_requests",
        ["prompt_id", "label"],
        unique=False,
        postgresql_where=sa.text("state = 'pending'"),
        sqlite_where=sa.text("state = 'pending'"),
    )
    # What a label did before is not known; the history begins where it is now.
    op.execute(
        "INSERT INTO label_moves (workspace_id, prompt_id, label, to_version, reason, moved_by, moved_at)"
        " SELECT labels.workspace_id, labels.prompt_id, labels.name, versions.number,"
        " 'the last move before moves were kept', labels.moved_by, labels.moved_at"
        " FROM labels JOIN versions ON versions.id = labels.version_id"
        " ORDER BY labels.moved_at, labels.prompt_id, labels.name"
    )
    op.execute(
        "INSERT INTO label_protections (prompt_id, label, workspace_id, role, set_by, set_at)"
        " SELECT prompt_id, name, workspace_id, 'operator', moved_by, moved_at FROM labels WHERE protected"
    )
    op.drop_column("labels", "protected")


def downgrade() -> None:
    with op.batch_alter_table("labels") as table:
        table.add_column(sa.Column("protected", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.execute(
        "UPDATE labels SET protected = true WHERE EXISTS (SELECT 1 FROM label_protections"
        " WHERE label_protections.prompt_id = labels.prompt_id AND label_protections.label = labels.name)"
    )
    with op.batch_alter_table("labels") as table:
        table.alter_column("protected", server_default=None)
    op.drop_table("label_requests")
    op.drop_table("label_protections")
    op.drop_table("label_moves")
