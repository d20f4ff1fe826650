"""What one setting is, and whether a value is one of its values."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared import spaces
from shared.errors import FieldError, Unprocessable

MAX_WEIGHT = 1_000_000  # sums of weights stay finite
MAX_NAME = 128  # characters
MAX_TEXTS, MAX_TEXT_CHARACTERS = 512, 100_000


@dataclass(frozen=True)
class Knob:
    """One setting. `kind` is int, float, bool, enum, weights (name → number ≥ 0), texts, text (a name), names (a list
    of choices, or of any names) or space (model setting → where to look for its value); optional_ ones take null."""

    kind: str
    default: Any
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    open_low: bool = False  # the lower bound itself is not allowed
    note: str = ""
    # It may differ from its default only where these knobs have one of these values: else it would do nothing.
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


def problem(knob: Knob, value: Any) -> str | None:
    """The rule that the value breaks; None when it is good."""
    if knob.kind.startswith("optional_") and value is None:
        return None
    kind = knob.kind.removeprefix("optional_")
    if kind == "bool":
        return None if isinstance(value, bool) else "must be true or false"
    if kind == "enum":
        return None if value in knob.choices else f"must be one of {', '.join(knob.choices)}"
    if kind == "space":
        return spaces.problem(value)
    if kind in _BY_KIND:
        return _BY_KIND[kind](knob, value)
    if isinstance(value, bool) or not isinstance(value, int if kind == "int" else (int, float)):
        return "must be a whole number" if kind == "int" else "must be a number"
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    below = value <= knob.low if knob.open_low else value < knob.low
    if below or value > knob.high:
        left = "(" if knob.open_low else "["
        return f"must be in {left}{knob.low:g}, {knob.high:g}]"
    return None


def _weights_problem(knob: Knob, value: Any) -> str | None:
    if not isinstance(value, Mapping) or not value:
        return f"must be an object of weights; names: {', '.join(knob.choices)}"
    for name, weight in value.items():
        if name not in knob.choices:
            return f"unknown name {name!r}; there are: {', '.join(knob.choices)}"
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= MAX_WEIGHT:
            return f"the weight of {name} must be a number from 0 to {MAX_WEIGHT:,}"
    return None if sum(value.values()) > 0 else "at least one weight must be above 0"


def _texts_problem(knob: Knob, value: Any) -> str | None:
    if not isinstance(value, list | tuple) or len(value) > MAX_TEXTS:
        return f"must be a list of at most {MAX_TEXTS} texts"
    good = all(isinstance(one, str) and one.strip() and len(one) <= MAX_TEXT_CHARACTERS for one in value)
    return None if good else f"each text must have 1 to {MAX_TEXT_CHARACTERS:,} characters that are not all blank"


def _name_problem(knob: Knob, value: Any) -> str | None:
    is_name = isinstance(value, str) and value.strip() == value and 0 < len(value) <= MAX_NAME
    return None if is_name else f"must be a name of at most {MAX_NAME} characters"


def _names_problem(knob: Knob, value: Any) -> str | None:
    is_list = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    if knob.choices:
        is_list = is_list and all(name in knob.choices for name in value)
    else:
        is_list = is_list and 0 < len(value) <= MAX_TEXTS and all(_name_problem(knob, name) is None for name in value)
    if is_list and len({*value}) == len(value):
        return None
    return f"must be a list out of {', '.join(knob.choices)}" if knob.choices else "must be a list of names, each once"


_BY_KIND: Mapping[str, Callable[[Knob, Any], str | None]] = {
    "weights": _weights_problem,
    "texts": _texts_problem,
    "text": _name_problem,
    "names": _names_problem,
}


def plain(knob: Knob, value: Any) -> Any:
    """A good value as JSON holds it, no longer the caller's own object."""
    if knob.kind in ("float", "optional_float") and value is not None:
        return float(value)
    if knob.kind == "space":
        return spaces.plain(value)
    if isinstance(value, list | tuple):
        return list(value)
    return dict(value) if knob.kind == "weights" else value


def refuse(errors: Sequence[FieldError]) -> None:
    if errors:
        raise Unprocessable("; ".join(f"{e.pointer}: {e.detail}" for e in errors), errors=errors)
