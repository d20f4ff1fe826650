"""Scorers: pure functions from an answer and what was expected to a score in [0, 1].

A delivered answer that fails is 0; a call that failed has no score at all. Feedback says what was wrong,
in words that a prompt writer can act on: it is what reflection reads. A scorer that asks a model says what it would
ask (`asks`), and is told the replies; it calls nothing itself.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from shared.errors import field_error
from shared.hashing import hash_of
from shared.scoring.asked import EMBEDDED_ROLE, JUDGE_MAX_NEW_TOKENS, Ask
from shared.scoring.catalogue import SCORERS
from shared.scoring.options import REQUIRED, as_json_schema, check_option
from shared.scoring.scores import Delivered, Facts, Missing, Score, Told, graded

__all__ = [
    "EMBEDDED_ROLE", "JUDGE_MAX_NEW_TOKENS", "SCORERS", "Ask", "Delivered", "Facts", "Missing", "Score", "Told",
    "asking_models", "asks", "by_objective", "check_scorers", "describe", "facts_needed", "hash_of_scorers",
    "needs_expected", "objectives", "openapi", "problem_with_expected", "score", "score_delivered",
]  # fmt: skip

MAX_SCORERS = 20  # with the parts of composites
MAX_DEPTH = 3  # of composites
Scored = Score | Missing


def check_scorers(
    given: Sequence[Mapping[str, Any]], pointer: str = "/scorers", *, depth: int = 1
) -> list[dict[str, Any]]:
    """The scorers with defaults, version and hash filled in; `Unprocessable` names what is wrong.

    Each is `{"type": …, "weight": 1, …options}`. The hash is that of type, version and options, without the weight.
    """
    if not given:
        raise field_error(pointer, "at least one scorer is needed")
    checked = [_checked(item, f"{pointer}/{index}", depth) for index, item in enumerate(given)]
    if depth == 1 and (number := sum(1 for _ in _leaves(checked))) > MAX_SCORERS:
        raise field_error(pointer, f"{number} scorers, with the parts of composites; at most {MAX_SCORERS}")
    return checked


def _checked(item: Any, pointer: str, depth: int) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        raise field_error(pointer, "must be an object with a type")
    name = str(item.get("type"))
    if name not in SCORERS:
        raise field_error(f"{pointer}/type", f"must be one of {', '.join(SCORERS)}")
    kind = SCORERS[name]
    options = kind.all_options
    pinned = ("type", "version", "hash")  # as they are shown, so that what was read can be sent again
    unknown = [key for key in item if key not in (*pinned, *options)]
    if unknown:
        raise field_error(f"{pointer}/{unknown[0]}", f"{name} takes: {', '.join(options)}")
    complete: dict[str, Any] = {"type": name, "version": kind.version}
    for key, option in options.items():
        value, at = item.get(key, option.default), f"{pointer}/{key}"
        complete[key] = _parts(value, at, depth) if option.kind == "scorers" else check_option(option, value, at)
    kind.rule(complete, pointer)
    content = {key: value for key, value in complete.items() if key not in ("weight", "required")}
    complete["hash"] = hash_of(content)[:16]
    for key in ("version", "hash"):
        if item.get(key, complete[key]) != complete[key]:
            raise field_error(f"{pointer}/{key}", f"is {complete[key]} of this scorer; leave it out")
    return complete


def _parts(value: Any, pointer: str, depth: int) -> list[dict[str, Any]]:
    if value is REQUIRED:
        raise field_error(pointer, "is required")
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise field_error(pointer, "must be a list of scorers")
    if depth >= MAX_DEPTH:
        raise field_error(pointer, f"composites stand in one another at most {MAX_DEPTH - 1} deep")
    return check_scorers(value, pointer, depth=depth + 1)


def hash_of_scorers(scorers: Sequence[Mapping[str, Any]]) -> str:
    """What two evaluations must have in common for their scores to be compared."""
    # Without the hash itself, which what was stored before there was one does not have.
    return hash_of([{key: value for key, value in _complete(item).items() if key != "hash"} for item in scorers])


def needs_expected(scorers: Sequence[Mapping[str, Any]]) -> str | None:
    """The first scorer that compares with an expected value, None when none does."""
    return next((item["type"] for item in _leaves(scorers) if SCORERS[item["type"]].compares(item)), None)


def problem_with_expected(scorers: Sequence[Mapping[str, Any]], expected: Any) -> str | None:
    """Why these scorers cannot compare with it; None if they can, or do not."""
    for item in _leaves(scorers):
        kind = SCORERS[item["type"]]
        if not kind.compares(item):
            continue
        if expected is None:
            return f"has no expected value, which {item['type']} needs"
        problem = kind.expects(expected)
        if problem:
            return f"has an expected value that {problem}, which {item['type']} cannot take"
    return None


def facts_needed(scorers: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """The types among latency and cost that are asked for."""
    return frozenset(item["type"] for item in _leaves(scorers)) & {"latency", "cost"}


def asks(scorers: Sequence[Mapping[str, Any]], answer: Delivered) -> list[Ask]:
    """What providers must be asked before this answer can be scored, each question once."""
    found: dict[str, Ask] = {}
    for item in _leaves(scorers):
        kind = SCORERS[item["type"]]
        if kind.asks is not None:
            found |= {ask.key: ask for ask in kind.asks(answer, _complete(item))}
    return list(found.values())


def asking_models(scorers: Sequence[Mapping[str, Any]], pointer: str = "/scorers") -> list[tuple[str, Any]]:
    """(where it stands, the model) for each scorer that asks one."""
    found: list[tuple[str, Any]] = []
    for index, item in enumerate(scorers):
        if item["type"] == "composite":
            found += asking_models(item["parts"], f"{pointer}/{index}/parts")
        elif SCORERS[item["type"]].asks is not None:
            found.append((f"{pointer}/{index}/model", item["model"]))
    return found


def score(scorers: Sequence[Mapping[str, Any]], answer: str, expected: Any, facts: Facts | None = None) -> Scored:
    """As `score_delivered`, of an answer that no model needs to be asked about."""
    return score_delivered(scorers, Delivered(answer, expected, facts or Facts()))


def score_delivered(scorers: Sequence[Mapping[str, Any]], answer: Delivered) -> Scored:
    """The weighted mean of the scorers, 0 when a required one fails. Passed when every one passed.

    `Missing` when one of them has no score: a mean of the others would be another measure.
    """
    return _combined([(_one(item, answer), item) for item in scorers], "weighted")


def objectives(scorers: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of what an answer is scored by: its scorers, or the parts of the only one where that is a composite."""
    while len(scorers) == 1 and scorers[0]["type"] == "composite":
        scorers = scorers[0]["parts"]
    return [_objective(place, item) for place, item in enumerate(scorers)]


def by_objective(result: Score) -> dict[str, float]:
    """What each of the `objectives` has scored."""
    parts = result.details.get("parts", ())
    while len(parts) == 1 and parts[0]["type"] == "composite":
        parts = parts[0]["parts"]
    return {_objective(place, part): part["score"] for place, part in enumerate(parts)}


def _objective(place: int, item: Mapping[str, Any]) -> str:
    return f"{place}_{item['type']}"


def _one(item: Mapping[str, Any], answer: Delivered) -> Scored:
    settings, kind = _complete(item), SCORERS[item["type"]]
    if kind.function is None:
        found = _combined([(_one(part, answer), part) for part in settings["parts"]], settings["mode"])
    else:
        found = kind.function(answer, settings)
    if isinstance(found, Missing):
        return found
    if settings.get("invert"):
        found = graded(1 - found.value, f"{item['type']} is not wanted, and scored {found.value:.2f}")
    passed = found.passed if settings["threshold"] is None else found.value >= settings["threshold"]
    return replace(found, passed=passed)


def _complete(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was stored, with the defaults of options that there were not yet."""
    if item["type"] not in SCORERS:  # of a version that knew others
        return item
    options = SCORERS[item["type"]].all_options
    return {**{name: option.default for name, option in options.items()}, "version": 1, **item}


def _combined(results: Sequence[tuple[Scored, Mapping[str, Any]]], mode: str) -> Scored:
    parts: list[tuple[Score, Mapping[str, Any]]] = []
    for result, item in results:
        if isinstance(result, Missing):
            return result
        parts.append((result, item))
    values = [part.value for part, _ in parts]
    vetoes = [item["type"] for part, item in parts if item.get("required") and not part.passed]
    all_passed = all(part.passed for part, _ in parts)
    value = 0.0 if vetoes else _MODES[mode](values, [item.get("weight", 1.0) for _, item in parts], all_passed)
    said = [part.feedback for part, _ in parts if part.feedback]
    said += [f"{name} is required" for name in vetoes if len(parts) > 1]
    passed = any(part.passed for part, _ in parts) if mode == "max" else all_passed  # there one is enough
    kept = [_kept(part, item) for part, item in parts]
    return replace(graded(value, "; ".join(said) or "not every part has passed", parts=kept), passed=passed)


def _kept(part: Score, item: Mapping[str, Any]) -> dict[str, Any]:
    kept = {"type": item["type"], "score": part.value, "passed": part.passed, **part.details}
    return (
        kept
        | ({"feedback": part.feedback} if part.feedback else {})
        | ({"hash": item["hash"]} if "hash" in item else {})
    )


def _weighted(values: Sequence[float], weights: Sequence[float], all_passed: bool) -> float:
    if len(set(values)) == 1:
        return values[0]  # a mean of equal numbers is that number, to the last bit
    return math.fsum(v * w for v, w in zip(values, weights, strict=True)) / math.fsum(weights)


_MODES: Mapping[str, Callable[[Sequence[float], Sequence[float], bool], float]] = {
    "weighted": _weighted,
    "min": lambda values, weights, all_passed: min(values),
    "max": lambda values, weights, all_passed: max(values),
    "product": lambda values, weights, all_passed: math.prod(values),
    "all_pass": lambda values, weights, all_passed: float(all_passed),
}


def _leaves(scorers: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for item in scorers:
        if item["type"] == "composite":
            yield from _leaves(item["parts"])
        else:
            yield item


def describe() -> list[dict[str, Any]]:
    """The scorers with their options, for the API and for forms."""
    return [
        {
            "type": name,
            "version": kind.version,
            "description": kind.description,
            "asks_a_model": kind.asks is not None,
            "options": {key: as_json_schema(option) for key, option in kind.all_options.items()},
            "required": [key for key, option in kind.all_options.items() if option.is_required],
        }
        for name, kind in SCORERS.items()
    ]


def openapi() -> dict[str, Any]:
    """The JSON Schema of a scorer: one of them."""
    return {
        "oneOf": [
            {
                "type": "object",
                "description": each["description"],
                "properties": {"type": {"type": "string", "enum": [each["type"]]}, **each["options"]},
                "required": ["type", *each["required"]],
            }
            for each in describe()
        ]
    }
