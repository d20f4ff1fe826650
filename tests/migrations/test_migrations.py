"""Every revision goes up and down on both databases, keeps the rows it does not own, and may be run by two at once."""

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory

import migrations
from shared import db
from shared.domain import leases, providers, tenants
from shared.models import Base, Queue, Role
from tests.servers import RedisServer, wait_until
from tests.support import API_KEY, OWNER, Api, Drain, client, evaluation_body, make_triage, optimization_body

ROOT = Path(__file__).parents[2]
REVISIONS = [script.revision for script in ScriptDirectory.from_config(migrations.config()).walk_revisions()][::-1]


def test_upgrading_an_empty_database_makes_every_table_of_the_models(empty_database: str) -> None:
    migrations.upgrade()

    assert set(tables()) == set(Base.metadata.tables)


def test_the_migrated_schema_is_that_of_the_models(empty_database: str) -> None:
    migrations.upgrade()

    command.check(migrations.config())  # raises when a new revision would have something to do


def test_upgrading_again_changes_nothing(empty_database: str) -> None:
    migrations.upgrade()
    before = schema()

    migrations.upgrade()

    assert schema() == before


def test_each_revision_takes_back_exactly_what_it_made(empty_database: str) -> None:
    schemas = [schema()]
    for revision in REVISIONS:
        migrations.upgrade(revision)
        schemas.append(schema())

    for revision, before in zip(reversed(REVISIONS), reversed(schemas[:-1]), strict=True):
        migrations.downgrade("-1")
        assert schema() == before, revision

    assert not tables()


def test_a_database_that_was_downgraded_to_nothing_can_be_upgraded_again(empty_database: str) -> None:
    migrations.upgrade()
    before = schema()

    migrations.downgrade("base")
    migrations.upgrade()

    assert schema() == before


def test_taking_back_the_last_revision_keeps_every_row_that_is_not_its_own(
    empty_database: str, broker: RedisServer
) -> None:
    migrations.upgrade()
    fill()
    before = rows()

    migrations.downgrade("-1")
    kept = {table: [column["name"] for column in inspector().get_columns(table)] for table in tables()}
    migrations.upgrade()

    after = rows()
    assert not {table for table in SPINE if not before[table]}
    for table, columns in kept.items():
        assert only(columns, after[table]) == only(columns, before[table]), table


def test_the_oldest_workspace_of_a_database_that_is_older_than_the_fleets_operators_becomes_one(
    empty_database: str,
) -> None:
    migrations.upgrade("0014")
    migrations.downgrade("-1")
    with db.engine().begin() as connection:
        for number, (name, day) in enumerate([("later", 2), ("oldest", 1), ("latest", 3)]):
            values = {"id": uuid.UUID(int=number).hex, "name": name, "day": f"2026-01-0{day} 00:00:00"}
            statement = "INSERT INTO workspaces (id, name, created_at) VALUES (:id, :name, :day)"
            connection.execute(sa.text(statement), values)

    migrations.upgrade("0014")

    assert {row["name"]: bool(row["operates_fleet"]) for row in rows()["workspaces"]} == {
        "oldest": True,
        "later": False,
        "latest": False,
    }


def test_what_was_stored_before_there_were_forks_and_tools_has_none(empty_database: str, broker: RedisServer) -> None:
    migrations.upgrade()
    fill()
    migrations.downgrade("0015")
    before = rows()

    migrations.upgrade("0016")

    after = rows()
    assert {row["forked_from_version_id"] for row in after["versions"]} == {None}
    assert {(row["tools"], row["response_schema"]) for row in after["executions"]} == {(None, None)}
    for table in ("versions", "executions"):
        assert only(list(before[table][0]), after[table]) == before[table]


@pytest.mark.parametrize("empty_database", ["postgresql"], indirect=True)
def test_an_upgrade_that_another_process_overtakes_succeeds_and_so_does_the_other(empty_database: str) -> None:
    with overtaken() as rival:
        migrations.upgrade()

    output, _ = rival.communicate()
    assert rival.returncode == 0, output
    assert set(tables()) == set(Base.metadata.tables)


def test_the_full_text_index_of_sqlite_goes_when_its_revision_is_taken_back(empty_database: str) -> None:
    migrations.upgrade("0021")
    made = full_text_tables()

    migrations.downgrade("-1")

    assert made == (["search_fts"] if db.engine().dialect.name == "sqlite" else [])
    assert full_text_tables() == []


def full_text_tables() -> list[str]:
    return [name for name in inspector().get_table_names() if name == "search_fts"]


SPINE = set(
    "api_keys barriers batches budgets bulk_items bulk_operations calls candidates datasets evaluations events"
    " executions idempotency_records jobs labels leases models optimizations prices projects prompts schedules"
    " test_cases users versions work_items workers workspaces".split()
)


def fill() -> None:
    """Rows in the tables of SPINE, made by the service itself; a job is left running."""
    with db.transaction() as session:
        providers.seed_catalogue(session)
        tenants.create_key(session, workspace="default", user="admin", role=Role.ADMIN, key=API_KEY)
        leases.check_in(session, OWNER, list(Queue), 1)
        leases.take_turn(session, "sweep", every_seconds=1)
    api = Api(client(), API_KEY)
    drain = Drain()
    make_triage(api, cases=40)
    api.expect(202, "POST", "/v1/bulk/prompts", {"operation": "tag", "filter": {"mode": "full"}, "add": ["tagged"]})
    drain()
    api.expect(202, "POST", "/v1/optimizations", optimization_body(), headers={"Idempotency-Key": "once"})
    drain(most=5)
    api.expect(202, "POST", "/v1/executions:batch", {"prompt_name": "triage", "dataset": "tickets"})
    api.expect(202, "POST", "/v1/evaluations", evaluation_body(name="left running"))
    drain.claim()


def tables() -> list[str]:
    """Without the full-text index of SQLite: a virtual table, and five that belong to it."""
    found = set(inspector().get_table_names()) - {"alembic_version"}
    return sorted(name for name in found if not name.startswith("search_fts"))


def schema() -> dict[str, Any]:
    """Columns, keys, constraints and indexes of every table, as the database describes them."""
    found = inspector()
    return {
        table: {
            "columns": by_name(found.get_columns(table)),
            "primary key": str(found.get_pk_constraint(table)),
            "foreign keys": by_name(found.get_foreign_keys(table)),
            "unique": by_name(found.get_unique_constraints(table)),
            "checks": by_name(found.get_check_constraints(table)),
            "indexes": by_name(found.get_indexes(table)),
        }
        for table in tables()
    }


def by_name(described: Any) -> dict[str, dict[str, str]]:
    return {str(item["name"]): {key: as_text(value) for key, value in item.items()} for item in described}


def as_text(described: Any) -> str:
    """The predicate of an index is an object, equal only to itself; its text is what counts."""
    if isinstance(described, dict):
        return str({key: str(value) for key, value in described.items()})
    return str(described)


def rows() -> dict[str, list[dict[str, Any]]]:
    found = {}
    with db.engine().connect() as connection:
        for name in tables():
            table = sa.Table(name, sa.MetaData(), autoload_with=connection)
            selected = connection.execute(sa.select(table).order_by(*table.primary_key.columns))
            found[name] = [dict(row) for row in selected.mappings()]
    return found


def only(columns: list[str], selected: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{column: row[column] for column in columns} for row in selected]


def inspector() -> sa.Inspector:
    return sa.inspect(db.engine())


@contextlib.contextmanager
def overtaken() -> Iterator["subprocess.Popen[str]"]:
    """Another process upgrades too. Whenever this one has ended a transaction, the other goes first, if it can."""
    rival = subprocess.Popen(
        [sys.executable, "-m", "app.admin", "migrate"],
        cwd=ROOT,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    transactions = 0

    def let_it_go_first(connection: sa.Connection) -> None:
        nonlocal transactions
        transactions += 1
        if transactions == 1:
            return
        is_sqlite = connection.dialect.name == "sqlite"
        if is_sqlite:  # the lock was taken a moment ago, with the transaction; nothing has been read under it yet
            connection.exec_driver_sql("ROLLBACK")
        wait_until(lambda: rival.poll() is not None or waits_for_a_lock(), "the other process ends or waits")
        if is_sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine = db.engine()
    sa.event.listen(engine, "begin", let_it_go_first)
    try:
        yield rival
    finally:
        sa.event.remove(engine, "begin", let_it_go_first)


def waits_for_a_lock() -> bool:
    """Whether a process waits for another. On SQLite none does: the caller has just let go of the only lock."""
    url = db.engine().url
    if url.get_backend_name() == "sqlite":
        return False
    with psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False)) as connection:
        found = connection.execute(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return found.fetchone() is not None
