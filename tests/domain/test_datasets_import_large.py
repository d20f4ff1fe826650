"""An import of the largest dataset takes a fixed number of statements, whatever the number of its rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from shared import db
from shared.domain import datasets
from shared.domain.case_files import read_jsonl
from shared.domain.datasets import MAX_CASES
from shared.domain.tenants import Caller
from shared.domain.test_cases import import_cases


@contextmanager
def statements() -> Iterator[list[str]]:
    """What is sent to the database meanwhile; many rows of one statement are one."""
    sent: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        sent.append(statement)

    sa.event.listen(db.engine(), "before_cursor_execute", note)
    yield sent
    sa.event.remove(db.engine(), "before_cursor_execute", note)


def imported(caller: Caller, name: str, count: int) -> list[str]:
    """The statements of an import of so many new cases."""
    raw = "".join(f'{{"inputs": {{"number": {number}}}, "expected": "x"}}\n' for number in range(count)).encode()
    rows = read_jsonl(raw).cases
    with db.transaction() as session:
        dataset = datasets.create_dataset(session, caller, name=name)
        with statements() as sent:
            result = import_cases(session, caller.user_name, dataset, rows)
    assert (result.added, result.dataset.case_count) == (count, count)
    return sent


def test_a_hundred_thousand_rows_take_no_statement_of_their_own(admin: Caller) -> None:
    few, many = imported(admin, "few", 10), imported(admin, "many", MAX_CASES)

    assert MAX_CASES == 100_000
    assert len(many) <= len(few) + MAX_CASES // 5_000
