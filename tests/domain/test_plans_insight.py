"""Lists and figures of executions are read along an index of time, whoever else has millions of them.

Of every statement that is sent the database says how it would answer it: never by reading a whole table.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared import db
from shared.domain import analytics, drift, executions, feedback, tenants
from shared.domain.executions import Filter
from shared.domain.feedback import Opinion
from shared.domain.tenants import Caller
from shared.models import Execution, Feedback, Prompt, Role, Version, WorkItem, table_of
from tests.domain import test_plans
from tests.domain.test_plans import ENDED, analyze, caught, empty, insert_ended, scans
from tests.executed import insert_executions, insert_feedback, make_versions

NOW = datetime.now(UTC)
WEEK = Filter(created_from=NOW - timedelta(days=7), created_before=NOW + timedelta(days=1))


@pytest.fixture
def crowd(admin: Caller, monkeypatch: pytest.MonkeyPatch) -> Iterator[Caller]:
    """Another workspace, with thousands of executions of a day ago, each with a score and with feedback."""
    monkeypatch.setattr(test_plans, "BIG", (*test_plans.BIG, "feedback"))
    empty()
    with db.transaction() as session:
        made = tenants.create_key(session, workspace="crowd", user="u", role=Role.ADMIN, key=tenants.new_key())
    insert_ended(made, ENDED)
    with db.transaction() as session:
        fill(session, WorkItem, scope_id=Execution.id, step_no=1, ordinal=0, work_key="k", kind="evaluate", score=0.5)
        times = {"created_at": Execution.created_at, "updated_at": Execution.created_at}
        fill(session, Feedback, id=Execution.id, user_id=sa.literal(made.user_id, sa.Uuid), score=0.5, **times)
    yield made
    empty()


def fill(session: Session, entity: Any, **values: Any) -> None:
    """One row of this for each execution."""
    values |= {"workspace_id": Execution.workspace_id, "execution_id": Execution.id}
    chosen = [
        value if isinstance(value, sa.sql.ClauseElement | sa.orm.QueryableAttribute) else sa.literal(value)
        for value in values.values()
    ]
    session.execute(sa.insert(table_of(entity)).from_select(list(values), sa.select(*chosen)))


@pytest.fixture
def version(admin: Caller, crowd: Caller) -> Version:
    versions = make_versions(admin, 2)
    for made in versions:
        ids = insert_executions(admin, [{"created_at": NOW, "latency_ms": place} for place in range(30)], version=made)
        insert_feedback(admin, {ids[0]: 1.0})
    analyze()
    return versions[0]


def test_no_list_of_executions_reads_what_others_have(admin: Caller, version: Version) -> None:
    base = Filter()
    asked: dict[str, Filter] = {
        "all": base,
        "window": WEEK,
        "prompt": replace(base, prompt_id=version.prompt_id),
        "version": replace(base, prompt_id=version.prompt_id, version_id=version.id),
        "correlation": replace(base, correlation_id="c-1"),
        "has feedback": replace(base, has_feedback=True),
        "has none": replace(base, has_feedback=False),
        **{
            name: replace(base, **{name: value})
            for name, value in {
                "state": "failed",
                "environment": "prod",
                "purpose": "judge",
                "provider": "openai",
                "model_name": "gpt-4o",
                "created_by": "eve",
                "error_type": "timeout",
                "min_latency_ms": 500,
            }.items()
        },
    }

    found = {
        name: scanned(
            lambda session, wanted=wanted: executions.list_executions(session, admin, wanted, limit=50, cursor=None)
        )
        for name, wanted in asked.items()
    }

    assert {name: plans for name, plans in found.items() if plans} == {}


def test_a_little_feedback_is_no_reason_to_read_every_execution_by_its_id(
    admin: Caller, crowd: Caller, version: Version
) -> None:
    """PostgreSQL did, in a merge join that it thought would end early."""
    with db.transaction() as session:
        session.execute(sa.delete(Feedback).where(Feedback.workspace_id == crowd.workspace_id))
    analyze()

    found = scanned(
        lambda session: executions.list_executions(session, admin, Filter(has_feedback=True), limit=50, cursor=None)
    )

    assert [scan for scan in found if "executions" in scan.partition(":")[0]] == []


def test_no_figure_reads_what_others_have(admin: Caller, version: Version) -> None:
    prompt = the_prompt(version)
    of_one = replace(WEEK, prompt_id=prompt.id)
    asked: dict[str, Callable[[Session], Any]] = {
        "total": lambda session: analytics.total(session, admin, WEEK),
        "rating": lambda session: analytics.rating(session, admin, WEEK),
        "errors": lambda session: analytics.error_classes(session, admin, WEEK),
        "active prompts": lambda session: analytics.active_prompts(session, admin, WEEK),
        "versions": lambda session: analytics.by_version(session, admin, prompt, WEEK),
        "one prompt": lambda session: analytics.total(session, admin, of_one),
        "drift": lambda session: drift.report(session, admin, prompt, Filter(), baseline=None, current=None),
        **{
            f"usage by {group}": lambda session, group=group: analytics.usage(
                session, admin, WEEK, interval="hour", group_by=group
            )
            for group in (None, *analytics.GROUPS)
        },
    }

    found = {name: scanned(ask) for name, ask in asked.items()}

    assert {name: plans for name, plans in found.items() if plans} == {}


def test_of_a_crowd_only_the_window_is_read(crowd: Caller, version: Version) -> None:
    hour = Filter(created_from=NOW - timedelta(hours=2), created_before=NOW - timedelta(hours=1))

    figures = scanned(lambda session: analytics.total(session, crowd, hour))
    listed = scanned(lambda session: executions.list_executions(session, crowd, hour, limit=50, cursor=None))

    assert (figures, listed) == ([], [])


def test_feedback_is_found_by_its_execution(admin: Caller, version: Version) -> None:
    with db.reading() as session:
        rated = session.scalars(sa.select(Execution.id).where(Execution.version_id == version.id).limit(1)).one()
    before = (1.0, 0.5)

    def speak(session: Session) -> None:
        feedback.give_feedback(session, admin, rated, Opinion(score=before[1]))
        feedback.list_feedback(session, admin, rated, limit=50, cursor=None)
        feedback.withdraw_feedback(session, admin, rated)

    assert scanned(speak, writes=True) == []


def test_the_figures_of_a_window_take_one_reading_of_its_rows(admin: Caller, version: Version) -> None:
    with caught() as sent, db.reading() as session:
        analytics.total(session, admin, WEEK)

    (statement,) = [one.statement for one in sent if "FROM executions" in one.statement]
    assert len(re.findall(r"\bFROM executions\b", statement)) == 1
    assert "messages" not in statement


def the_prompt(version: Version) -> Prompt:
    with db.reading() as session:
        return session.get_one(Prompt, version.prompt_id)


def scanned(ask: Callable[[Session], Any], *, writes: bool = False) -> list[str]:
    """The statements that this sends and that would read all of a big table, or all of an index of it."""
    opened = db.transaction if writes else db.reading
    with caught() as sent, opened() as session:
        ask(session)
    assert any("executions" in one.statement for one in sent)
    return [f"{scan}: {' '.join(one.statement.split())}" for one in sent for scan in scans(one)]
