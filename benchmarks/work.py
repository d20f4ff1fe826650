"""The call that every contender makes, and the process in which one contender is measured.

    python -m benchmarks.work benchmarks.sdk_loop finish '{"jobs": 3000, "concurrency": 16}'

Servers and stub are named by the environment. The result is one JSON object on stdout.
"""

import importlib
import json
import os
import sys
from typing import Any, TypedDict

MODEL = "gpt-4o-mini"
_INSTRUCTION = (
    "You triage support tickets. Answer with JSON that has the keys category (billing, bug, account, other)"
    " and urgency (low, high). Do not explain. A payment that failed twice is urgent; a question is not."
)


class Measured(TypedDict):
    """What one measurement found. `cpu_seconds` is that of the process that makes the calls."""

    count: int
    seconds: float
    cpu_seconds: float | None


def messages(number: int) -> list[Any]:
    """As the SDK takes them."""
    ticket = f"Ticket {number}: my card was charged twice for the same invoice and nobody answers my mail."
    return [{"role": "system", "content": _INSTRUCTION}, {"role": "user", "content": ticket}]


def database_url() -> str:
    """As psycopg takes it."""
    return os.environ["PROMPTMILL_DATABASE_URL"].replace("postgresql+psycopg://", "postgresql://")


def main() -> None:
    module, function, arguments = sys.argv[1:]
    measured: Any = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
