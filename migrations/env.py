"""Alembic's entry: runs the revisions on the engine of `shared.db`, in one transaction each."""

from typing import Any

from alembic import context
from sqlalchemy import Connection, text

from shared import db
from shared.models import Base

_LOCK = 0x504D << 48 | 1  # two deploys at once: one migrates, the other waits


def run() -> None:
    bind = db.engine().execution_options(promptmill_writes=True, promptmill_wait_ms=60_000)
    with bind.connect() as connection:
        if connection.dialect.name == "sqlite":
            _enforce_foreign_keys(connection, "OFF")
        if connection.dialect.name == "postgresql":
            # An index of a large table takes longer than any request may.
            connection.execute(text("SET statement_timeout = 0"))
            connection.execute(text(f"SELECT pg_advisory_lock({_LOCK})"))
            connection.commit()
        try:
            context.configure(
                connection=connection,
                target_metadata=Base.metadata,
                render_as_batch=connection.dialect.name == "sqlite",
                transaction_per_migration=connection.dialect.name == "postgresql",
                compare_type=_compare_type,
                on_version_apply=_refuse_dangling,
                include_name=_is_ours,
            )
            with context.begin_transaction():
                context.run_migrations()
        finally:
            if connection.dialect.name == "postgresql":
                connection.rollback()
                connection.execute(text(f"SELECT pg_advisory_unlock({_LOCK})"))
                connection.execute(text("RESET statement_timeout"))
                connection.commit()
            else:
                connection.rollback()
                _enforce_foreign_keys(connection, "ON")


def _enforce_foreign_keys(connection: Connection, setting: str) -> None:
    """SQLite changes a constraint by copying the table and dropping the old one, which rows that refer to it would
    forbid. The setting is that of the connection, and heard only between transactions: so past SQLAlchemy, which
    would begin one.
    """
    driver: Any = connection.connection.driver_connection
    driver.execute(f"PRAGMA foreign_keys={setting}")


def _refuse_dangling(ctx: Any, step: Any, heads: Any, run_args: Any) -> None:
    """At the end of each revision, in its transaction: what foreign keys would have refused, had they been on."""
    if ctx.dialect.name == "sqlite":
        dangling = ctx.connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        if dangling:
            raise RuntimeError(f"rows that refer to nothing: {[tuple(row) for row in dangling[:5]]}")


def _compare_type(migration: Any, inspected_column: Any, column: Any, inspected: Any, wanted: Any) -> bool | None:
    """SQLite has one integer and one text type behind many names; there only PostgreSQL can tell them apart."""
    return False if migration.dialect.name == "sqlite" else None


def _is_ours(name: str | None, kind: str, parents: Any) -> bool:
    """The full-text index of SQLite is a virtual table with five tables of its own; no model describes them."""
    return not (kind == "table" and name is not None and name.startswith("search_fts"))


run()
