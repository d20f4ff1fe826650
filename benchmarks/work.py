"""The call that every contender makes, and the process in which one contender is measured.

    python -m benchmarks.work benchmarks.sdk_loop finish '{"jobs": 3000, "concurrency": 16}'

Servers and stub are named by the environment. The result is one JSON object on stdout.
"""

import importlib
import json
import os
import sys
import time
from typing import Any, TypedDict

import psutil

from benchmarks.stub import Tally

MODEL = "gpt-4o-mini"
INSTRUCTION = (
    "You triage support tickets. Answer with JSON that has the keys category (billing, bug, account, other)"
    " and urgency (low, high). Do not explain. A payment that failed twice is urgent; a question is not."
)


class Measured(TypedDict):
    """What one measurement found. `cpu_seconds` is that of the process that does the work."""

    count: int
    seconds: float
    cpu_seconds: float
    database_cpu_seconds: float


class Evaluated(TypedDict):
    """What one evaluation found: how many cases were answered as expected, and what the stub saw of it."""

    seconds: float
    right: int
    cpu_seconds: float
    tally: Tally


def messages(number: int) -> list[Any]:
    """As the SDK takes them."""
    return [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": ticket(number)}]


def ticket(number: int) -> str:
    return f"Ticket {number}: my card was charged twice for the same invoice and nobody answers my mail."


def database_url() -> str:
    """As psycopg takes it."""
    return os.environ["PROMPTMILL_DATABASE_URL"].replace("postgresql+psycopg://", "postgresql://")


class Clock:
    """Wall and CPU time since it was made: of this process or another with its children, and of PostgreSQL."""

    def __init__(self, pid: int | None = None) -> None:
        self._process = psutil.Process(pid)
        self._started = self._read()

    def measured(self, count: int, *, seconds: float | None = None) -> Measured:
        """`seconds`, where the work was timed more exactly elsewhere."""
        wall, cpu, database = (now - then for now, then in zip(self._read(), self._started, strict=True))
        return {
            "count": count,
            "seconds": wall if seconds is None else seconds,
            "cpu_seconds": cpu,
            "database_cpu_seconds": database,
        }

    def _read(self) -> tuple[float, float, float]:
        # Children that have ended are in the times of the server that was their parent.
        relatives = psutil.Process(os.getppid()).children(recursive=True)
        database = sum(sum(each.cpu_times()[:4]) for each in relatives if each.name() == "postgres")
        own = [self._process, *self._process.children(recursive=True)]
        return time.monotonic(), sum(sum(each.cpu_times()[:2]) for each in own), database


def main() -> None:
    module, function, arguments = sys.argv[1:]
    measured: Any = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
