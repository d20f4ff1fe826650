"""The feed of registry events misses none, whatever order transactions commit in."""

import uuid
from collections.abc import Iterable

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared import db
from shared.domain import changes, events
from shared.domain.changes import Feed
from shared.domain.events import Change
from shared.domain.tenants import Caller
from shared.models import new_id
from tests.domain.test_plans import caught, is_postgres, scans


def record(session: Session, caller: Caller, subjects: Iterable[uuid.UUID], kind: str = "prompt.updated") -> None:
    events.record(session, [Change(caller.workspace_id, kind, subject) for subject in subjects])


def changed(caller: Caller, *subjects: uuid.UUID, kind: str = "prompt.updated") -> None:
    with db.transaction() as session:
        record(session, caller, subjects, kind)


def rolled_back(caller: Caller) -> None:
    with db.transaction() as session:
        record(session, caller, [new_id()])
        raise RuntimeError


@pytest.fixture
def feed(admin: Caller) -> Feed:
    changed(admin, new_id())  # from before
    with db.reading() as session:
        return changes.follow(session)


def poll(feed: Feed) -> set[str] | None:
    with db.reading() as session:
        return changes.poll(session, feed)


def test_each_change_is_told_once(feed: Feed, admin: Caller) -> None:
    one, two = new_id(), new_id()

    changed(admin, one)
    first = poll(feed)
    changed(admin, two)

    assert [first, poll(feed), poll(feed)] == [{one.hex}, {two.hex}, set()]


def test_a_new_version_is_told_as_that_and_as_no_change_of_the_prompt(feed: Feed, admin: Caller) -> None:
    one = new_id()

    changed(admin, one, kind=changes.NEW_VERSION)

    assert poll(feed) == {changes.newest_of(one)}


def test_what_has_nothing_to_do_with_the_registry_is_not_told(feed: Feed, admin: Caller) -> None:
    changed(admin, new_id(), kind="execution.succeeded")
    one = new_id()
    changed(admin, one, kind="project.deleted")

    assert poll(feed) == {one.hex}


def test_a_transaction_that_began_before_others_and_commits_after_them_is_told(feed: Feed, admin: Caller) -> None:
    """On PostgreSQL its event has a lower id and a lower transaction than those that were told already."""
    slow, quick = new_id(), new_id()
    if not is_postgres():
        changed(admin, quick)
        assert poll(feed) == {quick.hex}  # writers are serial
        return

    with db.transaction() as session:
        record(session, admin, [slow])
        changed(admin, quick)
        told = [poll(feed), poll(feed)]
    told += [poll(feed), poll(feed)]

    assert told == [{quick.hex}, set(), {slow.hex}, set()]


def test_what_is_rolled_back_is_not_told_and_holds_nothing_up(feed: Feed, admin: Caller) -> None:
    with pytest.raises(RuntimeError):
        rolled_back(admin)
    one = new_id()
    changed(admin, one)

    assert poll(feed) == {one.hex}


def test_so_many_that_all_may_have_changed_are_told_as_none_and_then_it_goes_on(
    feed: Feed, admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "TOO_MANY", 500)
    for _ in range(3):
        changed(admin, *(new_id() for _ in range(changes.TOO_MANY // 2)))

    told = [poll(feed)]
    one = new_id()
    changed(admin, one)
    told.append(poll(feed))

    assert told == [None, {one.hex}]


def test_a_poll_reads_the_index_of_the_registrys_events(feed: Feed, admin: Caller) -> None:
    changed(admin, new_id())
    with caught() as sent:
        poll(feed)

    asked = [one for one in sent if "events" in one.statement]
    assert len(asked) == 1
    with db.engine().connect() as connection:
        if is_postgres():
            connection.execute(sa.text("SET enable_seqscan = off"))  # with three rows it would read the table
        prefix = "EXPLAIN " if is_postgres() else "EXPLAIN QUERY PLAN "
        plan = "\n".join(map(str, connection.exec_driver_sql(prefix + asked[0].statement, asked[0].parameters)))
    assert "ix_events_registry" in plan
    assert is_postgres() or not scans(asked[0])


def test_a_commit_that_changed_the_registry_is_noted_here_and_no_other(admin: Caller) -> None:
    counts = [changes.committed_here()]
    changed(admin, new_id(), kind="execution.queued")
    counts.append(changes.committed_here())
    with pytest.raises(RuntimeError):
        rolled_back(admin)
    counts.append(changes.committed_here())
    changed(admin, new_id())
    counts.append(changes.committed_here())

    assert [count - counts[0] for count in counts] == [0, 0, 0, 1]
