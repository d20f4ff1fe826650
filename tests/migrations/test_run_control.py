"""0032: runs that are there stay what they were; one that was paused goes on under the older version."""

from typing import Any

import sqlalchemy as sa
from alembic.script import ScriptDirectory

import migrations
from shared import db
from shared.domain import providers, tenants
from shared.models import Role
from tests.servers import RedisServer
from tests.support import API_KEY, Api, Drain, client, make_triage, optimization_body

BEFORE = str(ScriptDirectory.from_config(migrations.config()).get_revision("0032").down_revision)
OF_LATER_MIGRATIONS = ("limit_wall_seconds", "idle_seconds", "paused_at", "deadline_at")  # of budgets


def rows(table: str) -> list[dict[str, Any]]:
    with db.engine().connect() as connection:
        return [dict(row) for row in connection.execute(sa.text(f"SELECT * FROM {table} ORDER BY id")).mappings()]


def test_what_was_there_is_kept_both_ways_and_a_paused_run_goes_on(empty_database: str, broker: RedisServer) -> None:
    migrations.upgrade()
    with db.transaction() as session:
        providers.seed_catalogue(session)
        tenants.create_key(session, workspace="default", user="admin", role=Role.ADMIN, key=API_KEY)
    api, drain = Api(client(), API_KEY), Drain()
    make_triage(api, cases=20)
    paths = []
    for _ in range(2):
        started = api.expect(202, "POST", "/v1/optimizations", optimization_body())
        paths.append(f"/v1/optimizations/{started['optimization_id']}")
    drain(most=4)
    for path in paths:
        api.expect(200, "POST", f"{path}/pause")
    drain()
    before = {table: rows(table) for table in ("optimizations", "budgets", "jobs")}

    migrations.downgrade(BEFORE)
    older = {table: rows(table) for table in before}
    migrations.upgrade()
    after = {table: rows(table) for table in before}

    gone = {table: set(before[table][0]) - set(older[table][0]) for table in before}
    assert gone == {
        "optimizations": {"source_id", "relation", "ceilings", "promotions", "replay"},
        "budgets": {"held", *OF_LATER_MIGRATIONS},
        "jobs": set(),
    }
    changed = {"optimizations": {"state"}, "budgets": set(), "jobs": {"blocked_by"}}
    for table in before:
        for was, is_now in zip(before[table], after[table], strict=True):
            kept = set(was) - gone[table] - changed[table]
            assert {name: was[name] for name in kept} == {name: is_now[name] for name in kept}
    assert {row["state"] for row in before["optimizations"]} == {"paused"}
    assert {row["blocked_by"] for row in after["jobs"]} == {None}
    drain()
    assert {api.expect(200, "GET", path)["status"] for path in paths} == {"succeeded"}
