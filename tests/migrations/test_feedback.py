"""0024: feedback comes and goes without touching an execution."""

from typing import Any

import sqlalchemy as sa
from alembic.script import ScriptDirectory

import migrations
from shared import db
from shared.domain import providers, tenants
from shared.models import Feedback, Role
from tests.executed import insert_executions, insert_feedback
from tests.rows import count

BEFORE = str(ScriptDirectory.from_config(migrations.config()).get_revision("0024").down_revision)


def executions() -> list[dict[str, Any]]:
    with db.engine().connect() as connection:
        rows = connection.execute(sa.text("SELECT * FROM executions ORDER BY id")).mappings().all()
    return [{name: value for name, value in row.items() if name != "response_bytes"} for row in rows]


def test_without_feedback_the_executions_are_what_they_were_and_with_it_again_too(empty_database: str) -> None:
    migrations.upgrade()
    with db.transaction() as session:
        providers.seed_catalogue(session)
        admin = tenants.create_key(session, workspace="default", user="admin", role=Role.ADMIN, key="pm_key")
    ids = insert_executions(admin, [{"response_text": "yes"}, {}])
    insert_feedback(admin, {ids[0]: 1.0})
    before = executions()

    migrations.downgrade(BEFORE)
    without = executions()
    tables = set(sa.inspect(db.engine()).get_table_names())
    migrations.upgrade()

    assert len(before) == 2
    assert without == before == executions()
    assert "feedback" not in tables
    assert count(Feedback) == 0
    insert_feedback(admin, {ids[1]: 0.5})
    assert count(Feedback) == 1
