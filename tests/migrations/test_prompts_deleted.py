"""0017: the table of prompts is made anew on SQLite, and nothing that refers to it may notice."""

import uuid
from typing import Any

import pytest
import sqlalchemy as sa

import migrations
from shared import db
from shared.domain import providers, tenants
from shared.models import Role
from tests.migrations.test_migrations import rows, schema
from tests.servers import RedisServer
from tests.support import API_KEY, Api, client, make_prompt, run_body

BELOW = ("versions", "labels", "executions", "calls", "jobs", "events")
on_sqlite = pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)


def api() -> Api:
    with db.transaction() as session:
        providers.seed_catalogue(session)
        tenants.create_key(session, workspace="default", user="admin", role=Role.ADMIN, key=API_KEY)
    return Api(client(), API_KEY)


def take_back() -> None:
    migrations.downgrade("0017")
    migrations.downgrade("-1")


def test_what_refers_to_a_prompt_is_the_same_after_the_way_down_and_up(
    empty_database: str, broker: RedisServer
) -> None:
    migrations.upgrade()
    client = api()
    make_prompt(client)
    client.expect(202, "POST", "/v1/executions:submit", run_body())
    before = rows()

    take_back()
    below = rows()
    migrations.upgrade()

    after = rows()
    assert all(before[table] for table in BELOW)
    for table in BELOW:
        assert [row["workspace_id"] for row in below[table]] == [row["workspace_id"] for row in before[table]], table
        assert after[table] == before[table], table
    assert after["prompts"] == before["prompts"]


def test_deleted_prompts_are_kept_under_names_of_their_own_when_it_is_taken_back(
    empty_database: str, broker: RedisServer
) -> None:
    migrations.upgrade()
    client = api()
    longest = "n" * 128
    for _ in range(2):
        for name in ("greeter", longest):
            make_prompt(client, name)
            client.expect(200, "DELETE", f"/v1/prompts/{name}")
    make_prompt(client)
    ids = {row["id"] for row in rows()["prompts"]}

    take_back()
    names = sorted(row["name"] for row in rows()["prompts"])
    migrations.upgrade()

    assert names[0] == "greeter"
    assert [name[:16] for name in names[1:]] == ["greeter.deleted-"] * 2 + ["n" * 16] * 2
    assert len(set(names)) == 5
    assert max(map(len, names)) == 128
    assert {row["id"] for row in rows()["prompts"]} == ids
    assert len(rows()["versions"]) == 5


@on_sqlite
def test_foreign_keys_hold_again_after_a_migration(empty_database: str) -> None:
    migrations.upgrade()

    with pytest.raises(sa.exc.IntegrityError), db.engine().begin() as connection:
        insert_dangling(connection)


@on_sqlite
def test_a_migration_that_would_leave_rows_that_refer_to_nothing_is_taken_back(empty_database: str) -> None:
    migrations.upgrade("0015")
    with db.engine().connect() as connection:
        driver: Any = connection.connection.driver_connection
        driver.execute("PRAGMA foreign_keys=OFF")
        with connection.begin():
            insert_dangling(connection)
        driver.execute("PRAGMA foreign_keys=ON")
    before = schema()

    with pytest.raises(RuntimeError, match="refer to nothing"):
        migrations.upgrade("0017")

    assert schema() == before


def insert_dangling(connection: sa.Connection) -> None:
    """A user of a workspace that there is not."""
    values = {"id": uuid.uuid4().hex, "workspace": uuid.uuid4().hex, "now": "2026-01-01 00:00:00"}
    statement = "INSERT INTO users (id, workspace_id, created_at, name) VALUES (:id, :workspace, :now, 'u')"
    connection.execute(sa.text(statement), values)
