"""Writes that come at the same moment share a transaction, so that a burst of them pays for few commits.

The first to come writes at once. Those who come while it does wait for it, and then one of them writes for all. Nobody
waits for company: a lonely write takes no longer than by itself.
"""

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from itertools import zip_longest
from threading import Lock
from typing import Any, Generic, TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared.db import transaction
from shared.errors import DatabaseBusy, PromptmillError

MOST = 64  # writes of a transaction
log = structlog.get_logger("api")

Item = TypeVar("Item")
Made = TypeVar("Made")


class Together(Generic[Item, Made]):
    """`write` is given a transaction and the items of all that share it and a key; it makes one result of each.

    None is the result of what has to be written by itself. It is also that of all in a transaction that failed: then
    each is told what is wrong with its own. A database that is busy is that for all of them.
    """

    def __init__(self, write: Callable[[Session, Any, Sequence[Item]], Sequence[Made | None]]) -> None:
        self._write = write
        self._lock = Lock()
        self._waiting: dict[Hashable, list[_Waiting]] = {}  # by key, while somebody writes for it; the writer is first

    def do(self, key: Hashable, item: Item) -> Made | None:
        """The result of this item, when its transaction has committed."""
        mine = _Waiting(item)
        with self._lock:
            queue = self._waiting.setdefault(key, [])
            queue.append(mine)
            if queue[0] is mine:
                mine.is_writer.set_result(True)
        if mine.is_writer.result():
            self._write_for_all(key)
        result: Made | None = mine.made.result()
        return result

    def _write_for_all(self, key: Hashable) -> None:
        served: list[_Waiting] = []
        made: Sequence[Made | None] = ()
        busy: DatabaseBusy | None = None
        try:
            with transaction() as session:
                session.connection()  # waits for SQLite's write lock; who comes meanwhile is one of these
                served = self._first(key)
                written = self._write(session, key, [each.item for each in served])
            made = written
        except DatabaseBusy as error:
            busy = error  # by itself each would wait as long again
        except (SQLAlchemyError, PromptmillError) as error:
            log.warning("write_alone", writes=len(served), error=str(error))
        finally:
            served = served or self._first(key)
            for each, result in zip_longest(served, made):
                if busy is None:
                    each.made.set_result(result)
                else:
                    each.made.set_exception(busy)
            self._hand_on(key, served)

    def _first(self, key: Hashable) -> "list[_Waiting]":
        with self._lock:
            return self._waiting[key][:MOST]

    def _hand_on(self, key: Hashable, served: "Sequence[_Waiting]") -> None:
        with self._lock:
            left = self._waiting[key][len(served) :]
            if left:
                self._waiting[key] = left
                left[0].is_writer.set_result(True)
            else:
                del self._waiting[key]
        for each in served[1:]:
            each.is_writer.set_result(False)


class _Waiting:
    def __init__(self, item: Any) -> None:
        self.item = item
        self.is_writer: Future[bool] = Future()
        self.made: Future[Any] = Future()
