"""What a connection keeps and what it is asked: reads that write nothing, and statements that nobody waits for."""

import uuid
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from shared import db
from shared.bulk_rows import HANDED_OVER_FROM, bulk_insert
from shared.domain import leases
from shared.domain.leases import Lease
from shared.domain.tenants import Caller
from shared.models import Event, Job, Project, Queue, State
from tests.domain.test_plans import caught
from tests.factories import claim, submit
from tests.rows import count
from worker.providers import Answer
from worker.recording import record
from worker.tasks import STEPS

POSTGRESQL = pytest.mark.parametrize("database", ["postgresql"], indirect=True)
NOBODY = uuid.UUID(int=1)
_OWN = sa.text("SELECT pg_backend_pid()")


def events(number: int, workspace_id: uuid.UUID) -> list[dict[str, Any]]:
    return [{"workspace_id": workspace_id, "type": "a.b", "subject_id": uuid.UUID(int=n)} for n in range(number)]


def test_what_is_changed_in_a_read_is_not_kept(admin: Caller) -> None:
    with db.reading() as session:
        session.scalars(sa.select(Project)).one().name = "renamed"

    with db.reading() as session:
        assert session.scalars(sa.select(Project.name)).one() == "default"


@POSTGRESQL
def test_a_read_cannot_write(admin: Caller) -> None:
    with pytest.raises(DBAPIError, match="read-only"), db.reading() as session:
        session.execute(sa.delete(Event))


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_sqlite_file_is_read_where_it_lies(admin: Caller) -> None:
    with db.reading() as session:
        assert session.scalars(sa.text("PRAGMA mmap_size")).one() == 0x7FFF0000


@POSTGRESQL
def test_statements_stay_prepared_from_one_read_to_the_next(admin: Caller) -> None:
    for _ in range(8):  # the driver prepares what it has sent five times
        with db.reading() as session:
            session.execute(sa.select(Project.name)).all()

    with db.reading() as session:
        prepared = session.scalars(sa.text("SELECT statement FROM pg_prepared_statements")).all()
    assert any("FROM projects" in statement for statement in prepared)


@POSTGRESQL
def test_a_text_serves_any_number_of_ids(admin: Caller) -> None:
    ids = submit(admin, 3)
    by_id = sa.select(Job.subject_id).where(db.among(Job.subject_id)).order_by(Job.id)
    wanted: list[list[uuid.UUID]] = [ids, ids[1:], ids[:1], []]
    with caught() as sent:
        for some in wanted:
            with db.reading() as session:
                assert session.scalars(by_id, {"ids": some}).all() == some

    assert len(sent) == len(wanted)
    assert len({one.statement for one in sent}) == 1


@POSTGRESQL
def test_connections_that_died_while_they_lay_idle_are_replaced(admin: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "_PING_AFTER_SECONDS", 0.0)
    with db.reading() as session, db.engine().connect() as other:
        before = {one.scalar(_OWN) for one in (session, other)}
    with db.engine().connect() as killer:
        killer.execute(
            sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND pid <> pg_backend_pid()")
        )  # fmt: skip

    with db.reading() as session, db.engine().connect() as other:
        after = {one.scalar(_OWN) for one in (session, other)}
    assert len(before) == len(after) == 2
    assert len(before & after) <= 1  # that of the killer


def test_an_error_that_nobody_waited_for_is_told_before_the_commit_and_nothing_is_kept(admin: Caller) -> None:
    before = count(Event)

    def write() -> None:
        with db.transaction(pipelined=True) as session:
            bulk_insert(session, Event, events(2, admin.workspace_id))
            bulk_insert(session, Event, events(2, NOBODY))

    with pytest.raises(IntegrityError):
        write()

    assert count(Event) == before


def test_an_error_that_nobody_waited_for_is_told_by_the_next_statement_that_is_read(admin: Caller) -> None:
    before = count(Event)

    def write() -> None:
        with db.transaction(pipelined=True) as session:
            bulk_insert(session, Event, events(2, NOBODY))
            session.scalars(sa.select(Project.name)).one()
            raise AssertionError("it was not told")

    with pytest.raises(IntegrityError):
        write()

    assert count(Event) == before


def test_what_is_read_in_between_is_as_it_would_be_of_statements_that_are_waited_for(admin: Caller) -> None:
    before = count(Event)

    with db.transaction(pipelined=True) as session:
        bulk_insert(session, Event, events(3, admin.workspace_id))
        inserted = session.scalars(sa.select(sa.func.count()).select_from(Event)).one() - before
        renamed: Any = session.execute(sa.update(Project).values(name="renamed"))
        missed: Any = session.execute(sa.delete(Event).where(Event.workspace_id == NOBODY))
        bulk_insert(session, Event, events(max(HANDED_OVER_FROM.values()), admin.workspace_id))

    assert (inserted, renamed.rowcount, missed.rowcount) == (3, 1, 0)
    assert count(Event) == before + 3 + max(HANDED_OVER_FROM.values())
    with db.reading() as session:
        assert session.scalars(sa.select(Project.name)).one() == "renamed"


@POSTGRESQL
def test_recording_a_group_and_claiming_the_next_waits_for_few_answers(admin: Caller) -> None:
    """Each is a round trip, after which the thread waits for its turn among all that make calls."""
    submit(admin, 6)
    waited: list[str] = []
    claimed: list[Lease] = []
    answer = Answer(text="yes", prompt_tokens=3, response_tokens=1, latency_ms=5)

    def note(connection: Any, cursor: Any, text: str, parameters: Any, context: Any, many: bool) -> None:
        if not context.execution_options.get("promptmill_unread"):
            waited.append(text)

    group = [(lease, answer) for lease in claim(limit=3)]
    sa.event.listen(db.engine(), "after_cursor_execute", note)
    try:
        record(
            STEPS,
            group,
            beside=lambda session: claimed.extend(
                leases.claim_at_once(session, "worker:1", queue=Queue.EXECUTIONS, limit=3, lease_seconds=60)
            ),
        )
    finally:
        sa.event.remove(db.engine(), "after_cursor_execute", note)

    assert len(claimed) == 3
    assert len(waited) <= 6, waited
    with db.reading() as session:
        states = session.execute(sa.select(Job.state, sa.func.count()).group_by(Job.state)).all()
    assert dict(states) == {State.SUCCEEDED: 3, State.RUNNING: 3}
