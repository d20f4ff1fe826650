"""The threads of a process that want to write to SQLite take turns, and a turn that failed is given back."""

import sqlite3
from threading import Lock
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from shared import db


def test_a_connection_that_cannot_be_asked_gives_its_turn_back() -> None:
    """A PRAGMA of a closed connection fails, before BEGIN and after it; the others would have waited for ever."""
    in_turn = Lock()
    with sa.create_engine("sqlite://").connect() as connection:
        driver: Any = connection.connection.driver_connection
        driver.close()

        with pytest.raises(sqlite3.ProgrammingError):
            db._begin_writing(connection, 1.0, in_turn)

    assert in_turn.acquire(blocking=False)


def test_who_waited_too_long_for_the_file_gives_its_turn_back(tmp_path: Any) -> None:
    in_turn = Lock()
    with sqlite3.connect(tmp_path / "busy.db") as other:
        other.execute("BEGIN IMMEDIATE")
        with sa.create_engine(f"sqlite:///{tmp_path / 'busy.db'}").connect() as connection:
            with pytest.raises(OperationalError):
                db._begin_writing(connection, 0.05, in_turn)

            assert in_turn.acquire(blocking=False)
            driver: Any = connection.connection.driver_connection
            assert driver.execute("PRAGMA busy_timeout").fetchone() == (int(db.LOCK_WAIT_SECONDS * 1000),)


def test_who_waited_too_long_for_its_turn_has_none_to_give_back() -> None:
    in_turn = Lock()
    in_turn.acquire()
    with sa.create_engine("sqlite://").connect() as connection, pytest.raises(OperationalError):
        db._begin_writing(connection, 0.01, in_turn)

    assert in_turn.locked()
