"""Datasets that can be deleted and tell their revisions; test cases that can be changed and keep their id."""

import sqlalchemy as sa
from alembic import op

from shared.db import UtcDateTime

revision = "0027"
down_revision = "0026"

NAME = "uq_datasets_project_id_name"
CONTENT = "uq_test_cases_dataset_id_content_hash"
LIVE = sa.text("removed_in IS NULL")


def upgrade() -> None:
    with op.batch_alter_table("datasets") as datasets:
        datasets.drop_constraint(op.f(NAME), type_="unique")
        datasets.add_column(sa.Column("deleted_at", UtcDateTime(), nullable=True))
        datasets.add_column(sa.Column("deleted_by", sa.String(length=128), nullable=True))
    there = sa.text("deleted_at IS NULL")
    op.create_index(NAME, "datasets", ["project_id", "name"], unique=True, postgresql_where=there, sqlite_where=there)
    op.create_table(
        "dataset_revisions",
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("added", sa.Integer(), nullable=False),
        sa.Column("removed", sa.Integer(), nullable=False),
        sa.Column("case_count", sa.Integer(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_dataset_revisions_dataset_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_dataset_revisions_workspace_id")),
        sa.PrimaryKeyConstraint("dataset_id", "number", name=op.f("pk_dataset_revisions")),
    )
    # Until now every revision was an import, made at the time of its cases; by whom was not kept with it.
    op.execute(
        "INSERT INTO dataset_revisions"
        " (dataset_id, number, workspace_id, action, added, removed, case_count, created_by, created_at)"
        " SELECT dataset_id, added_in, workspace_id, 'imported', added, 0,"
        " sum(added) OVER (PARTITION BY dataset_id ORDER BY added_in), '', made_at FROM"
        " (SELECT dataset_id, added_in, workspace_id, count(*) AS added, min(created_at) AS made_at"
        " FROM test_cases GROUP BY dataset_id, added_in, workspace_id) AS imports"
    )
    with op.batch_alter_table("test_cases") as cases:
        cases.add_column(sa.Column("case_id", sa.Uuid(), nullable=True))
        cases.add_column(sa.Column("description", sa.Text(), nullable=False, server_default=""))
        cases.add_column(sa.Column("generated", sa.Boolean(), nullable=False, server_default=sa.false()))
        cases.add_column(sa.Column("source_execution_id", sa.Uuid(), nullable=True))
    op.execute("UPDATE test_cases SET case_id = id")
    op.drop_index(CONTENT, table_name="test_cases")  # one over a part of the rows is not read back by SQLAlchemy
    with op.batch_alter_table("test_cases") as cases:
        cases.alter_column("case_id", nullable=False)
        cases.alter_column("description", server_default=None)  # what filled the rows is not what fills new ones
        cases.alter_column("generated", server_default=None)
        cases.drop_constraint(op.f("uq_test_cases_dataset_id_ordinal"), type_="unique")
        cases.create_unique_constraint(
            op.f("uq_test_cases_dataset_id_ordinal_added_in"), ["dataset_id", "ordinal", "added_in"]
        )
        cases.create_unique_constraint(
            op.f("uq_test_cases_dataset_id_case_id_added_in"), ["dataset_id", "case_id", "added_in"]
        )
    op.create_index(
        CONTENT, "test_cases", ["dataset_id", "content_hash"], unique=True, postgresql_where=LIVE, sqlite_where=LIVE
    )


def downgrade() -> None:
    # The older version knows one row for each ordinal: what a changed case was before gets one of its own, at the end.
    # It stays, because evaluations refer to it, and is in the same revisions as it was.
    op.execute(
        "UPDATE test_cases SET ordinal = (SELECT max(every.ordinal) FROM test_cases AS every"
        " WHERE every.dataset_id = test_cases.dataset_id) + numbered.place"
        " FROM (SELECT older.id, row_number() OVER (PARTITION BY older.dataset_id ORDER BY older.id) AS place"
        " FROM test_cases AS older WHERE EXISTS (SELECT 1 FROM test_cases AS newer"
        " WHERE newer.dataset_id = older.dataset_id AND newer.case_id = older.case_id"
        " AND newer.added_in > older.added_in)) AS numbered"
        " WHERE numbered.id = test_cases.id"
    )
    op.drop_index(CONTENT, table_name="test_cases")
    with op.batch_alter_table("test_cases") as cases:
        cases.drop_constraint(op.f("uq_test_cases_dataset_id_case_id_added_in"), type_="unique")
        cases.drop_constraint(op.f("uq_test_cases_dataset_id_ordinal_added_in"), type_="unique")
        cases.create_unique_constraint(op.f("uq_test_cases_dataset_id_ordinal"), ["dataset_id", "ordinal"])
        cases.drop_column("source_execution_id")
        cases.drop_column("generated")
        cases.drop_column("description")
        cases.drop_column("case_id")
    op.create_index(
        CONTENT, "test_cases", ["dataset_id", "content_hash"], unique=True, postgresql_where=LIVE, sqlite_where=LIVE
    )
    op.drop_table("dataset_revisions")
    op.drop_index(NAME, table_name="datasets")
    # What was run on a deleted dataset still refers to it, so its row stays: under a name that no other has.
    op.execute(
        "UPDATE datasets SET name = substr(name, 1, 87) || '.deleted-' || replace(CAST(id AS varchar(36)), '-', '')"
        " WHERE deleted_at IS NOT NULL"
    )
    with op.batch_alter_table("datasets") as datasets:
        datasets.drop_column("deleted_by")
        datasets.drop_column("deleted_at")
        datasets.create_unique_constraint(op.f(NAME), ["project_id", "name"])
