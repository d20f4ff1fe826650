"""Scorers that read the answer as something else than text: numbers, JSON, what was measured of the call."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any

from shared.json_schemas import mismatches
from shared.scoring.scores import Delivered, Missing, Score, graded, normalized, shown, text_of

Settings = Mapping[str, Any]
_MOST_LEVELS = 100  # of nesting in an answer
_MOST_STARTS = 100  # places where a lenient reading looks for an object
_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,3}(?:,[0-9]{3}){1,20}|[0-9]{1,60})(?:\.[0-9]{1,60})?(?:[eE][-+]?[0-9]{1,3})?")


@dataclass(frozen=True)
class Parsed:
    """A JSON value that was read; null is one too."""

    value: Any


def numeric(answer: Delivered, settings: Settings) -> Score:
    """1 if a number of the answer is the expected one, within either tolerance."""
    wanted = number_of(answer.expected)
    if wanted is None:
        return graded(0.0, f"the expected value is no number: {shown(text_of(answer.expected))}")
    got = _picked(answer.text, settings["pick"])
    if got is None:
        return graded(0.0, f"expected {text_of(answer.expected)}, got no number: the answer was {shown(answer.text)}")
    with localcontext(prec=200):
        allowed = max(Decimal(settings["abs_tol"]), Decimal(settings["rel_tol"]) * abs(wanted))
        near = abs(Decimal(got.replace(",", "")) - wanted) <= allowed
    return graded(float(near), f"expected {text_of(answer.expected)}, got {got}")


def number_of(value: Any) -> Decimal | None:
    """The number that is expected: a number, or a text that is nothing else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = text_of(value).strip()
    return Decimal(text.replace(",", "")) if _NUMBER.fullmatch(text) else None


def _picked(text: str, which: str) -> str | None:
    if which == "only":
        stripped = text.strip().rstrip(".")
        return stripped if _NUMBER.fullmatch(stripped) else None
    if which == "first":
        found = _NUMBER.search(text)
        return found.group() if found else None
    numbers = _NUMBER.findall(text)
    return numbers[-1] if numbers else None


def json_fields(answer: Delivered, settings: Settings) -> Score:
    """The share of the expected object's fields that the answer's JSON object has right, by their weights."""
    parsed = parse_object(answer.text, lenient=settings["lenient"])
    if parsed is None:
        return graded(0.0, _not_json(answer.text))
    expected = answer.expected
    wanted = expected if isinstance(expected, Mapping) else {"answer": expected}
    wrong, faults = 0.0, []
    weights = {name: settings["weights"].get(name, 1.0) for name in wanted}
    for name, value in wanted.items():
        fault = _fault(name, parsed, value, settings)
        if fault:
            wrong += weights[name]
            faults.append(fault)
    total = sum(weights.values())
    extra = [name for name in parsed if name not in wanted] if settings["no_others"] else []
    if extra:
        faults.append(f"fields that are not expected: {', '.join(map(shown, extra[:10]))}")
        wrong, total = wrong + len(extra), total + len(extra)
    # Not 1 - wrong / total: with weights that are no binary fractions, all wrong would not be 0.
    return graded((total - wrong) / total if total and faults else 1.0, "; ".join(faults))


def _fault(name: str, parsed: Mapping[str, Any], wanted: Any, settings: Settings) -> str | None:
    if name not in parsed and wanted is not None:
        return f"{name}: expected {text_of(wanted)}, the field is missing"
    if _same_value(parsed.get(name), wanted, settings):
        return None
    return f"{name}: expected {text_of(wanted)} got {shown(text_of(parsed.get(name)))}"


def _same_value(got: Any, wanted: Any, settings: Settings) -> bool:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in (got, wanted)):
        return bool(got == wanted or _distance(got, wanted) <= settings["tolerance"])
    if settings["ignore_order"] and isinstance(got, list) and isinstance(wanted, list):
        return sorted(normalized(text_of(item)) for item in got) == sorted(normalized(text_of(item)) for item in wanted)
    return normalized(text_of(got)) == normalized(text_of(wanted))


def _distance(a: float, b: float) -> float:
    try:
        return abs(float(a) - float(b))
    except OverflowError:  # JSON sets no limit to a number
        return math.inf


def json_valid(answer: Delivered, settings: Settings) -> Score:
    return graded(float(parse_object(answer.text, lenient=False) is not None), _not_json(answer.text))


def json_schema(answer: Delivered, settings: Settings) -> Score:
    """1 if the answer is JSON that fits the schema."""
    parsed = parse_json(answer.text, lenient=settings["lenient"])
    if parsed is None:
        return graded(0.0, _not_json(answer.text))
    faults = [
        f"{fault.pointer or 'the answer'}: {fault.detail}" for fault in mismatches(settings["schema"], parsed.value, "")
    ]
    return graded(
        float(not faults), "; ".join(faults[:5]) + (f" and {len(faults) - 5} more" if len(faults) > 5 else "")
    )


def latency(answer: Delivered, settings: Settings) -> Score | Missing:
    """1 up to the target, 0 from the limit on, and a straight line between."""
    took = answer.facts.latency_ms
    if took is None:
        return Missing("no_latency", "how long the call took is not known")
    value = _between(took, settings["target_ms"], settings["limit_ms"])
    return graded(value, f"took {took:,} ms, {settings['target_ms']:,g} ms are wanted")


def cost(answer: Delivered, settings: Settings) -> Score | Missing:
    """Likewise of what the call has cost."""
    paid = answer.facts.cost_usd
    if paid is None:
        return Missing("no_cost", "what the call has cost is not known")
    value = _between(paid, settings["target_usd"], settings["limit_usd"])
    return graded(value, f"cost {paid:.9f} USD, {settings['target_usd']:.9f} USD are wanted")


def _between(value: float, target: float, limit: float) -> float:
    return 1.0 if value <= target else (limit - value) / (limit - target)


def parse_object(answer: str, *, lenient: bool) -> Mapping[str, Any] | None:
    """The answer as a JSON object; lenient also takes the first one in a fence or inside other text."""
    parsed = parse_json(answer, lenient=lenient, openings="{")
    return parsed.value if parsed is not None and isinstance(parsed.value, dict) else None


def parse_json(answer: str, *, lenient: bool, openings: str = "{[") -> Parsed | None:
    """The answer as a JSON value; lenient also takes the first object or list inside other text."""
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    text = answer.strip()
    inside = [at for at, character in enumerate(text) if character in openings][:_MOST_STARTS] if lenient else []
    for start in (0, *inside):
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        whole = start == 0 and end == len(text)
        if (whole or (lenient and start in inside)) and not _is_deep(value):
            return Parsed(value)
    return None


def _not_json(answer: str) -> str:
    return f"not JSON: the answer was {shown(answer)}"


def _is_deep(parsed: Any) -> bool:
    """Whether it is nested so deeply that writing it as text could pass the interpreter's limit."""
    level: Sequence[Any] = [parsed]
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
