"""A test case that is deleted for good is looked up in what was scored, and not searched for in all of it."""

import json
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.domain import datasets, tenants, test_cases
from shared.domain.case_files import case_of
from shared.domain.tenants import Caller
from shared.models import Execution, Role, TestCase, WorkItem
from tests.domain.test_plans import ENDED, Sent, analyze, caught, empty, insert_ended, is_postgres
from tests.domain.test_plans_insight import fill

INDEX = "ix_work_items_test_case_id"


@pytest.fixture
def scored(admin: Caller) -> Any:
    """Two cases, one of which thousands of answers were scored on."""
    empty()
    with db.transaction() as session:
        crowd = tenants.create_key(session, workspace="crowd", user="u", role=Role.ADMIN, key=tenants.new_key())
        dataset = datasets.create_dataset(session, admin, name="tickets")
        rows = [case_of({"inputs": {"n": n}}, n) for n in range(2)]
        test_cases.import_cases(session, "u", dataset, rows)
    insert_ended(crowd, ENDED)
    with db.transaction() as session:
        popular, lonely = session.scalars(sa.select(TestCase.id).order_by(TestCase.ordinal)).all()
        answered = sa.literal(popular, sa.Uuid)
        values = {"ordinal": 0, "work_key": "k", "kind": "evaluate", "test_case_id": answered, "score": 0.5}
        fill(session, WorkItem, scope_id=Execution.id, step_no=1, **values)
    analyze()
    yield lonely
    empty()


def plan_of(sent: Sent) -> str:
    with db.engine().connect() as connection:
        prefix = "EXPLAIN (FORMAT JSON) " if is_postgres() else "EXPLAIN QUERY PLAN "
        rows = connection.exec_driver_sql(prefix + sent.statement, sent.parameters).fetchall()
    return json.dumps([[str(column) for column in row] for row in rows])


def test_what_was_scored_on_a_case_is_found_by_an_index(scored: Any) -> None:
    """What both databases ask themselves before they delete a row that others refer to."""
    with caught() as sent, db.reading() as session:
        found = session.scalars(sa.select(WorkItem.execution_id).where(WorkItem.test_case_id == scored)).all()

    plan = plan_of(sent[-1])
    assert found == []
    assert INDEX in plan
    assert ("Index Cond" if is_postgres() else "(test_case_id=?)") in plan  # looked up, not read from end to end
