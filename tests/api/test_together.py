"""Writes that come at the same moment share a transaction."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app import together
from app.together import Together
from shared import db
from shared.errors import Conflict, DatabaseBusy
from shared.models import Workspace
from tests.servers import wait_until

Group = tuple[str, ...]


class Writer:
    """Writes a workspace of each name; the first group of a key waits inside its transaction until it is let go."""

    def __init__(self) -> None:
        self.groups: list[Group] = []
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.together: Together[str, str] = Together(self.write)

    def write(self, session: Session, key: str, names: Sequence[str]) -> list[str]:
        self.groups.append((key, *names))
        session.add_all(Workspace(name=f"{key}-{name}") for name in names)
        session.flush()
        if "holds" in names:
            self.entered.set()
            assert self.go_on.wait(timeout=30)
        if "bad" in names:
            raise Conflict("bad is among them")
        if "busy" in names:
            raise DatabaseBusy
        if "fault" in names:
            raise LookupError
        return [f"{name} by {threading.get_ident()}" for name in names]

    def waiting(self, key: str) -> int:
        return len(self.together._waiting.get(key, []))


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(100) as threads:
        yield threads


def begin(pool: ThreadPoolExecutor, writer: Writer, names: Sequence[str]) -> list[Future[Any]]:
    """The first name is written, and held; the others have come meanwhile, in this order."""
    asked = []
    for place, name in enumerate(names, start=1):
        asked.append(pool.submit(writer.together.do, "key", name))
        wait_until(lambda place=place: writer.waiting("key") == place, f"{place} have come")
        assert writer.entered.wait(timeout=30)
    writer.go_on.set()
    return asked


def written(database: str) -> set[str]:
    with db.reading() as session:
        return {name for name in session.scalars(sa.select(Workspace.name)) if name.startswith("key-")}


def test_those_who_come_while_one_writes_are_written_by_one_of_them(database: str, pool: ThreadPoolExecutor) -> None:
    writer = Writer()

    results = [each.result(timeout=30) for each in begin(pool, writer, ["holds", "b", "c", "d"])]

    assert writer.groups == [("key", "holds"), ("key", "b", "c", "d")]
    assert [result.split()[0] for result in results] == ["holds", "b", "c", "d"]
    assert len({result.split()[-1] for result in results[1:]}) == 1
    assert written(database) == {"key-holds", "key-b", "key-c", "key-d"}
    assert writer.waiting("key") == 0


def test_a_lonely_write_is_written_at_once_and_nothing_of_it_is_kept(database: str) -> None:
    writer = Writer()

    for name in ("a", "b"):
        assert str(writer.together.do("key", name)).startswith(name)

    assert writer.groups == [("key", "a"), ("key", "b")]
    assert writer.waiting("key") == 0


def test_all_of_a_transaction_that_failed_are_left_to_themselves(database: str, pool: ThreadPoolExecutor) -> None:
    writer = Writer()

    first, *others = begin(pool, writer, ["holds", "b", "bad", "c"])

    assert first.result(timeout=30) is not None
    assert [each.result(timeout=30) for each in others] == [None, None, None]
    assert written(database) == {"key-holds"}
    assert writer.together.do("key", "later") is not None


def test_a_busy_database_is_that_for_all_and_nobody_waits_again(database: str, pool: ThreadPoolExecutor) -> None:
    writer = Writer()

    first, *others = begin(pool, writer, ["holds", "b", "busy"])

    assert first.result(timeout=30) is not None
    for each in others:
        with pytest.raises(DatabaseBusy):
            each.result(timeout=30)
    assert writer.together.do("key", "later") is not None


def test_a_fault_of_ours_is_raised_to_one_and_holds_up_nobody(database: str, pool: ThreadPoolExecutor) -> None:
    writer = Writer()

    _, writes, other = begin(pool, writer, ["holds", "fault", "b"])

    with pytest.raises(LookupError):
        writes.result(timeout=30)
    assert other.result(timeout=30) is None
    assert writer.together.do("key", "later") is not None


def test_a_group_has_a_largest_size_and_the_rest_are_the_next(
    database: str, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "MOST", 2)
    writer = Writer()

    for each in begin(pool, writer, ["holds", "b", "c", "d"]):
        each.result(timeout=30)

    assert writer.groups == [("key", "holds"), ("key", "b", "c"), ("key", "d")]


def test_who_cannot_begin_a_transaction_is_left_to_itself_too(database: str) -> None:
    writer, engine = Writer(), db.engine()
    db.use(db.open_engine("postgresql+psycopg://nobody@127.0.0.1:1/none"))
    assert writer.together.do("key", "a") is None
    db.use(engine)

    assert writer.together.do("key", "b") is not None
    assert writer.groups == [("key", "b")]


def test_other_keys_are_not_waited_for(database: str, pool: ThreadPoolExecutor) -> None:
    writer = Writer()
    held = pool.submit(writer.together.do, "key", "holds")
    assert writer.entered.wait(timeout=30)

    other = pool.submit(writer.together.do, "other", "x")
    with db.reading() as session:
        if db.is_postgres(session):  # SQLite has one writer
            assert other.result(timeout=30).startswith("x")
    writer.go_on.set()

    assert held.result(timeout=30).startswith("holds")
    assert other.result(timeout=30).startswith("x")
