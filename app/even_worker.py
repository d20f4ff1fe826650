"""gunicorn's threaded worker, with the connections spread evenly over the processes.

A connection that is kept open stays with the process that accepted it. When many clients begin at once, the process
that wakes first would accept nearly all of them, and the other cores had nothing to do for as long as they stay.
"""

import time
from multiprocessing.sharedctypes import RawArray
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

GRACE_SECONDS = 0.01
LOOK_SECONDS = 0.0005
AWAY = -1
# The connections of each process, or AWAY where none is that accepts them; shared, since it is made before they fork.
# Two processes would share a place only if 64 more had begun between them.
_held = RawArray("l", [AWAY] * 64)


class EvenWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Leaves a new connection for a moment to the process that has the fewest; what nobody takes then, it takes."""

    _connections = 0
    _accepting = False

    @property
    def nr_conns(self) -> int:
        return self._connections

    @nr_conns.setter
    def nr_conns(self, connections: int) -> None:
        self._connections = connections
        self._tell()

    def set_accept_enabled(self, enabled: bool) -> None:
        super().set_accept_enabled(enabled)
        self._tell()

    def accept(self, listener: Any) -> None:
        until = time.monotonic() + GRACE_SECONDS
        while self._connections > self._fewest() and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)  # nothing announces that another process has accepted
        super().accept(listener)

    def leave(self) -> None:
        """Say, in its parent, that this process has ended, however it did."""
        _held[self._place] = AWAY

    def _tell(self) -> None:
        _held[self._place] = self._connections if self._accepting else AWAY

    @property
    def _place(self) -> int:
        return int(self.age) % len(_held)

    def _fewest(self) -> int:
        return min((held for held in _held if held != AWAY), default=0)
