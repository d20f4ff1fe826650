"""What becomes of the jobs of bulk operations when the revision that made their tables is taken back."""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

import migrations
from shared import db

NOW = datetime(2026, 11, 21, tzinfo=UTC)
WORKSPACE = uuid.UUID(int=1)


def insert(connection: sa.Connection, name: str, row: Mapping[str, Any]) -> None:
    """By the table as it is at this revision; the models may be further."""
    table = sa.Table(name, sa.MetaData(), autoload_with=connection)
    as_stored = {uuid.UUID: lambda value: value.hex, datetime: lambda value: value.replace(tzinfo=None)}
    if connection.dialect.name == "sqlite":
        row = {key: as_stored.get(type(value), lambda same: same)(value) for key, value in row.items()}
    connection.execute(table.insert().values(row))


def insert_job(connection: sa.Connection, number: int, kind: str, state: str) -> None:
    row = {
        "id": number,
        "workspace_id": WORKSPACE,
        "kind": kind,
        "queue": "maintenance",
        "subject_id": uuid.uuid4(),
        "state": state,
        "run_at": NOW,
        "created_at": NOW,
        "finished_at": NOW if state == "succeeded" else None,
        "max_attempts": 4,
        "cancel_requested": False,
        **dict.fromkeys(("priority", "attempts", "losses", "deferrals", "fence"), 0),
    }
    insert(connection, "jobs", row)


def test_no_job_is_left_that_could_never_end_and_all_others_are(empty_database: str) -> None:
    migrations.upgrade("0023")
    with db.engine().begin() as connection:
        row = {"id": WORKSPACE, "name": "default", "created_at": NOW, "operates_fleet": True}
        insert(connection, "workspaces", row)
        for number, (kind, state) in enumerate(
            [("bulk", "succeeded"), ("bulk", "running"), ("bulk", "queued"), ("execution", "queued")], start=1
        ):
            insert_job(connection, number, kind, state)
        moments = {"acquired_at": NOW, "heartbeat_at": NOW, "expires_at": NOW}
        insert(connection, "leases", {"job_id": 2, "owner": "worker:1", "fence": 0, **moments})

    migrations.downgrade("-1")

    with db.engine().connect() as connection:
        jobs = connection.execute(sa.text("SELECT id, kind, state FROM jobs ORDER BY id")).all()
        leases = connection.execute(sa.text("SELECT count(*) FROM leases")).scalar_one()
    assert [tuple(row) for row in jobs] == [(1, "bulk", "succeeded"), (4, "execution", "queued")]
    assert leases == 0
