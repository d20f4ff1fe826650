"""0034: a run with a ceiling on its time loses its clock under the older version, and nothing else."""

from typing import Any

import sqlalchemy as sa

import migrations
from app.factory import create_app
from shared import db
from shared.domain import providers, tenants
from shared.models import Role
from tests.servers import RedisServer
from tests.support import API_KEY, Api, Drain, make_triage, optimization_body

OF_THE_CLOCK = {"limit_wall_seconds", "idle_seconds", "paused_at", "deadline_at"}


def budgets() -> list[dict[str, Any]]:
    with db.engine().connect() as connection:
        return [dict(row) for row in connection.execute(sa.text("SELECT * FROM budgets ORDER BY id")).mappings()]


def test_a_paused_run_goes_on_after_both_ways_without_its_clock(empty_database: str, broker: RedisServer) -> None:
    migrations.upgrade()
    with db.transaction() as session:
        providers.seed_catalogue(session)
        tenants.create_key(session, workspace="default", user="admin", role=Role.ADMIN, key=API_KEY)
    api, drain = Api(create_app().test_client(), API_KEY), Drain()
    make_triage(api, cases=20)
    body = optimization_body(budget={"max_task_calls": 400, "max_wall_seconds": 600})
    path = f"/v1/optimizations/{api.expect(202, 'POST', '/v1/optimizations', body)['optimization_id']}"
    drain(most=4)
    api.expect(200, "POST", f"{path}/pause")
    (before,) = budgets()

    migrations.downgrade("0033")
    (older,) = budgets()
    migrations.upgrade()
    (after,) = budgets()
    api.expect(200, "POST", f"{path}/resume")
    drain()

    assert before["deadline_at"] is not None
    assert before["paused_at"] is not None
    assert set(before) - set(older) == OF_THE_CLOCK
    assert {name: after[name] for name in older} == {name: before[name] for name in older}
    assert [after[name] for name in sorted(OF_THE_CLOCK)] == [None, 0, None, None]
    assert api.expect(200, "GET", path)["status"] == "succeeded"
