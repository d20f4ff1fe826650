"""Scorers: pure functions from an answer and what was expected to a score in [0, 1].

A delivered answer that fails is 0; a call that failed has no score at all. Feedback says what was wrong,
in words that a prompt writer can act on: it is what reflection reads.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import field_error

MAX_WEIGHT = 1_000_000  # sums of weights stay finite
_MOST_LEVELS = 100  # of nesting in an answer
_MOST_STARTS = 100  # places where a lenient reading looks for an object


@dataclass(frozen=True)
class Score:
    """`value` in [0, 1], 1 is best; `passed` at the scorer's threshold; `feedback` is empty when all is right."""

    value: float
    passed: bool
    feedback: str = ""


def check_scorers(given: Sequence[Mapping[str, Any]], pointer: str = "/scorers") -> list[dict[str, Any]]:
    """The scorers with defaults filled in; `Unprocessable` names what is wrong.

    Each is `{"type": …, "weight": 1, …settings}`.
    """
    if not given:
        raise field_error(pointer, "at least one scorer is needed")
    checked = []
    for index, item in enumerate(given):
        where = f"{pointer}/{index}"
        kind = str(item.get("type"))
        if kind not in SCORERS:
            raise field_error(f"{where}/type", f"must be one of {', '.join(SCORERS)}")
        weight = item.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= MAX_WEIGHT:
            raise field_error(f"{where}/weight", f"must be a number above 0, at most {MAX_WEIGHT:,}")
        known = SCORERS[kind].settings
        unknown = [name for name in item if name not in ("type", "weight", *known)]
        if unknown:
            raise field_error(f"{where}/{unknown[0]}", f"{kind} takes: {', '.join(known) or 'no settings'}")
        complete = {name: item.get(name, default) for name, default in known.items()}
        for name, default in known.items():
            if not _same_kind(complete[name], default):
                raise field_error(f"{where}/{name}", f"must be {_kind_name(default)}")
        checked.append({"type": kind, "weight": float(weight), **complete})
    return checked


def needs_expected(scorers: Sequence[Mapping[str, Any]]) -> str | None:
    """The first scorer that compares with an expected value, None when none does."""
    return next((item["type"] for item in scorers if SCORERS[item["type"]].compares), None)


def score(scorers: Sequence[Mapping[str, Any]], answer: str, expected: Any) -> Score:
    """The weighted mean of the scorers. Passed when every one passed."""
    results = [(SCORERS[item["type"]].function(answer, expected, item), item["weight"]) for item in scorers]
    total = sum(weight for _, weight in results)
    value = sum(result.value * weight for result, weight in results) / total
    feedback = "; ".join(result.feedback for result, _ in results if result.feedback)
    return Score(value, all(result.passed for result, _ in results), feedback)


def _exact_match(answer: str, expected: Any, settings: Mapping[str, Any]) -> Score:
    wanted, got = _text_of(expected), answer
    if settings["normalize"]:
        wanted, got = _normalized(wanted), _normalized(got)
    if wanted == got:
        return Score(1.0, True)
    return Score(0.0, False, f"expected {_shown(_text_of(expected))} got {_shown(answer)}")


def _contains(answer: str, expected: Any, settings: Mapping[str, Any]) -> Score:
    """The share of the expected texts that the answer holds."""
    wanted = [str(item) for item in expected] if isinstance(expected, list) else [_text_of(expected)]
    fold = str if settings["case_sensitive"] else str.casefold
    text = fold(unicodedata.normalize("NFC", answer))
    missing = [item for item in wanted if fold(unicodedata.normalize("NFC", item)) not in text]
    value = 1 - len(missing) / len(wanted) if wanted else 1.0
    return Score(value, not missing, f"missing: {', '.join(map(_shown, missing))}" if missing else "")


def _json_fields(answer: str, expected: Any, settings: Mapping[str, Any]) -> Score:
    """The share of the expected object's fields that the answer's JSON object has right."""
    parsed = _parse_object(answer, lenient=settings["lenient"])
    if parsed is None:
        return Score(0.0, False, f"not JSON: the answer was {_shown(answer)}")
    wanted = expected if isinstance(expected, Mapping) else {"answer": expected}
    wrong = []
    for name, value in wanted.items():
        if name not in parsed and value is not None:
            wrong.append(f"{name}: expected {_text_of(value)}, the field is missing")
        elif not _same_value(parsed.get(name), value):
            wrong.append(f"{name}: expected {_text_of(value)} got {_shown(_text_of(parsed.get(name)))}")
    value = 1 - len(wrong) / len(wanted) if wanted else 1.0
    return Score(value, not wrong, "; ".join(wrong))


def _json_valid(answer: str, expected: Any, settings: Mapping[str, Any]) -> Score:
    if _parse_object(answer, lenient=False) is not None:
        return Score(1.0, True)
    return Score(0.0, False, f"not JSON: the answer was {_shown(answer)}")


@dataclass(frozen=True)
class _Kind:
    function: Callable[[str, Any, Mapping[str, Any]], Score]
    settings: Mapping[str, Any]  # name → default
    description: str
    compares: bool = True  # with an expected value


SCORERS: Mapping[str, _Kind] = {
    "exact_match": _Kind(_exact_match, {"normalize": True}, "1 if the answer equals the expected text"),
    "contains": _Kind(_contains, {"case_sensitive": False}, "share of the expected texts that the answer holds"),
    "json_fields": _Kind(_json_fields, {"lenient": False}, "share of the expected fields that are right"),
    "json_valid": _Kind(_json_valid, {}, "1 if the answer is a JSON object", compares=False),
}


def _parse_object(answer: str, *, lenient: bool) -> Mapping[str, Any] | None:
    """The answer as a JSON object; lenient also takes the first one in a fence or inside other text."""
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    text = answer.strip()
    starts = [at for at, character in enumerate(text) if character == "{"][:_MOST_STARTS] if lenient else [0]
    for start in starts:
        try:
            parsed, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(parsed, dict) and (lenient or end == len(text)) and not _is_deep(parsed):
            return parsed
    return None


def _is_deep(parsed: Any) -> bool:
    """Whether it is nested so deeply that writing it as text could pass the interpreter's limit."""
    level = [parsed]
    for _ in range(_MOST_LEVELS):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return False
    return True


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _same_value(got: Any, wanted: Any) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (got, wanted))
    return bool(got == wanted) if numbers else _normalized(_text_of(got)) == _normalized(_text_of(wanted))


def _normalized(text: str) -> str:
    """NFKC, casefolded, white space collapsed, without surrounding quotes and final punctuation."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"\s+", " ", folded).strip().strip("\"'`.!").strip()


def _text_of(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 120 else text[:117] + "...")


def _same_kind(value: Any, default: Any) -> bool:
    if isinstance(default, bool):
        return isinstance(value, bool)
    return isinstance(value, type(default))


def _kind_name(default: Any) -> str:
    return "true or false" if isinstance(default, bool) else f"a {type(default).__name__}"
