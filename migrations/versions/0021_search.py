"""What the search finds prompts by; `app.admin migrate` fills it when the schema is there."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.create_table(
        "search_documents",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("prompt_id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("category", sa.String(length=64), nullable=False),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("lifecycle", sa.String(length=16), nullable=False),
        sa.Column("owner_team", sa.String(length=128), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("words", sa.Text().with_variant(postgresql.TSVECTOR(), "postgresql"), nullable=True),
        sa.ForeignKeyConstraint(
            ["prompt_id"], ["prompts.id"], name=op.f("fk_search_documents_prompt_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_search_documents_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_search_documents")),
        sa.UniqueConstraint("prompt_id", name=op.f("uq_search_documents_prompt_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_search_documents_workspace_id_id"), "search_documents", ["workspace_id", "id"], unique=False
    )
    op.create_index(
        op.f("ix_search_documents_words"),
        "search_documents",
        ["words"],
        unique=False,
        postgresql_using="gin",
        postgresql_with={"gin_pending_list_limit": 256},
        sqlite_where=sa.text("words IS NOT NULL"),
    )
    if op.get_bind().dialect.name == "sqlite":
        # The words come folded and separated by spaces, so the plainest tokenizer splits them. It keeps a text of its
        # own: one that reads another table's (external content) is corrupted by any update that it does not hear of.
        op.execute("CREATE VIRTUAL TABLE search_fts USING fts5(words, tokenize='ascii', prefix='3 4', columnsize=0)")
        # A prompt that is deleted takes its document along by the foreign key, and that takes the words along.
        op.execute(
            "CREATE TRIGGER search_documents_deleted AFTER DELETE ON search_documents"
            " BEGIN DELETE FROM search_fts WHERE rowid = old.id; END"
        )


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER search_documents_deleted")
        op.execute("DROP TABLE search_fts")
    op.drop_table("search_documents")
