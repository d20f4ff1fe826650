"""What the simulated model knows: the right answers of one dataset, found again in a rendered prompt."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from shared.config import settings

SHIPPED_ANSWERS = Path(__file__).parent / "support_tickets.jsonl"


@dataclass(frozen=True)
class KnownCase:
    text: str  # the longest input, by which the case is recognised
    expected: Mapping[str, str]  # field → right value; a plain expected text is the field ""
    difficulty: str  # plain, ambiguous, noisy or hard


@dataclass(frozen=True)
class Knowledge:
    cases: tuple[KnownCase, ...]
    values: Mapping[str, tuple[str, ...]]  # field → every value that it takes, sorted


@lru_cache(maxsize=4)
def load(path: Path) -> Knowledge:
    cases = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            row = json.loads(line)
            cases.append(
                KnownCase(
                    max((str(value) for value in row["inputs"].values()), key=len),
                    _fields(row.get("expected")),
                    next(iter(row.get("tags") or ["plain"])),
                )
            )
    names = sorted({name for case in cases for name in case.expected})
    values = {name: tuple(sorted({case.expected[name] for case in cases if name in case.expected})) for name in names}
    return Knowledge(tuple(cases), values)


def known() -> Knowledge:
    return load(settings().simulated_answers or SHIPPED_ANSWERS)


def recognise(text: str) -> tuple[KnownCase | None, str, int]:
    """(the case asked about, the text around every known case, how many others are shown as examples).

    The last known case in the text is the question; earlier ones are examples.
    """
    found = []
    for case in known().cases:
        position = text.rfind(case.text)
        if position >= 0:
            found.append((position, case))
    if not found:
        return None, text, 0
    found.sort(key=lambda item: (item[0], len(item[1].text)))
    instructions = text
    for _, case in found:
        instructions = instructions.replace(case.text, " ")
    return found[-1][1], instructions, len(found) - 1


def _fields(expected: Any) -> Mapping[str, str]:
    if isinstance(expected, Mapping):
        return {str(name): str(value) for name, value in expected.items()}
    return {"": str(expected)}
