"""What a scorer is given and what it gives, and how texts are compared and shown. Pure."""

import json
import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_COMPARED = 20_000  # characters of each text that are compared; a distance takes the product of two lengths
MAX_SHOWN = 120  # characters of a text in feedback


@dataclass(frozen=True)
class Score:
    """`value` in [0, 1], 1 is best; `passed` at the scorer's threshold; `feedback` is empty when all is right."""

    value: float
    passed: bool
    feedback: str = ""
    details: Mapping[str, Any] = field(default_factory=dict, compare=False)  # what to keep beside it, as JSON


@dataclass(frozen=True)
class Missing:
    """No score, which is not 0: something else than the answer is at fault. `code` as errors of calls have it."""

    code: str
    feedback: str


@dataclass(frozen=True)
class Facts:
    """What was measured of the call that gave the answer; None where it is not known."""

    latency_ms: int | None = None
    cost_usd: float | None = None


@dataclass(frozen=True)
class Told:
    """What a provider said to an `Ask`: a text, or why there is none."""

    text: str | None = None
    error: str = ""


@dataclass(frozen=True)
class Delivered:
    """An answer with all that it may be judged by. `told`: by the key of an `Ask`."""

    text: str
    expected: Any = None
    facts: Facts = Facts()
    inputs: Mapping[str, Any] = field(default_factory=dict)
    told: Mapping[str, Told] = field(default_factory=dict)


def graded(value: float, feedback: str = "", **details: Any) -> Score:
    """A score in [0, 1], whatever the arithmetic gave; a NaN is a failure. Feedback only where there is a fault."""
    value = min(1.0, max(0.0, value)) if math.isfinite(value) else 0.0
    return Score(value, value == 1.0, "" if value == 1.0 else feedback, details)


def normalized(text: str) -> str:
    """NFKC, casefolded, white space collapsed, without surrounding quotes and final punctuation."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"\s+", " ", folded).strip().strip("\"'`.!").strip()


def words(text: str) -> list[str]:
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text[:MAX_COMPARED]).casefold())


def text_of(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def shown(text: str) -> str:
    return repr(text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "...")


def expected_got(wanted: str, got: str) -> str:
    return f"expected {shown(wanted)} got {shown(got)}"
