"""What prompts are found by. Derived from prompts, labels and versions; `shared.domain.search_index` writes it."""

import uuid

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, BigId


class SearchDocument(Base):
    """One per prompt that can be found. Made anew at each change, so the highest id changed last."""

    __tablename__ = "search_documents"
    __table_args__ = (
        sa.UniqueConstraint("prompt_id"),
        sa.Index(None, "workspace_id", "id"),
        # SQLite keeps the words in the FTS5 table `search_fts`, whose rowid is the id here. The column stays empty
        # there, and so does this index.
        sa.Index(
            None,
            "words",
            postgresql_using="gin",
            # What waits in the list is read by every search: it is kept short.
            postgresql_with={"gin_pending_list_limit": 256},
            sqlite_where=sa.text("words IS NOT NULL"),
        ),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    prompt_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("prompts.id", ondelete="CASCADE"))
    workspace_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("workspaces.id"))
    project_id: Mapped[uuid.UUID]
    version_id: Mapped[uuid.UUID | None]  # the version whose content was indexed
    name: Mapped[str] = mapped_column(sa.String(128))
    tags: Mapped[str]  # a JSON list as text: PostgreSQL groups by no JSON
    category: Mapped[str] = mapped_column(sa.String(64))
    mode: Mapped[str] = mapped_column(sa.String(16))
    lifecycle: Mapped[str] = mapped_column(sa.String(16))
    owner_team: Mapped[str] = mapped_column(sa.String(128))
    fingerprint: Mapped[str] = mapped_column(sa.String(64))  # of all that was indexed, and how
    words: Mapped[str | None] = mapped_column(sa.Text().with_variant(TSVECTOR(), "postgresql"))
