"""0029 and 0030: evaluations and budgets that are there stay what they were, and can be retried."""

from typing import Any

import sqlalchemy as sa
from alembic.script import ScriptDirectory

import migrations
from shared import db
from shared.domain import providers, tenants
from shared.models import Role
from tests.judged import JUDGE
from tests.servers import RedisServer
from tests.support import API_KEY, Api, Drain, client, evaluation_body, make_triage

BEFORE = str(ScriptDirectory.from_config(migrations.config()).get_revision("0029").down_revision)


def rows(table: str) -> list[dict[str, Any]]:
    with db.engine().connect() as connection:
        return [dict(row) for row in connection.execute(sa.text(f"SELECT * FROM {table} ORDER BY id")).mappings()]


def test_what_was_there_is_kept_both_ways_and_takes_part(empty_database: str, broker: RedisServer) -> None:
    migrations.upgrade()
    with db.transaction() as session:
        providers.seed_catalogue(session)
        tenants.create_key(session, workspace="default", user="admin", role=Role.ADMIN, key=API_KEY)
    api, drain = Api(client(), API_KEY), Drain()
    make_triage(api, cases=10)
    body = evaluation_body(scorers=[JUDGE], budget={"max_cost_usd": 1})
    started = api.expect(202, "POST", "/v1/evaluations", body)
    drain(most=5)
    api.expect(200, "POST", f"/v1/evaluations/{started['evaluation_id']}/cancel")
    before = {table: rows(table) for table in ("evaluations", "budgets")}

    migrations.downgrade(BEFORE)
    older = {table: rows(table) for table in before}
    migrations.upgrade()
    after = {table: rows(table) for table in before}

    gone = {table: set(before[table][0]) - set(older[table][0]) for table in before}
    assert gone["evaluations"] == {"fresh", "retry_of", "slices"}
    assert gone["budgets"] >= {"limit_judge_calls", "reserved_judge_calls", "spent_judge_calls"}  # and of later ones
    for table in before:
        for was, is_now in zip(before[table], after[table], strict=True):
            kept = set(was) - gone[table]
            assert {name: was[name] for name in kept} == {name: is_now[name] for name in kept}
    assert (bool(after["evaluations"][0]["fresh"]), after["budgets"][0]["spent_judge_calls"]) == (False, 0)
    again = api.expect(202, "POST", f"/v1/evaluations/{started['evaluation_id']}/retry", {})
    drain()
    done = api.expect(200, "GET", f"/v1/evaluations/{again['evaluation_id']}")
    assert (done["status"], done["aggregate"]["cached"]) == ("succeeded", 4)
