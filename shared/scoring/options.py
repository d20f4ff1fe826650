"""The options of scorers: one description from which checks, defaults, OpenAPI and the reference are made."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import re2

from shared.errors import field_error
from shared.json_schemas import check_applied_schema

MAX_WEIGHT = 1_000_000  # sums of weights stay finite
MAX_PATTERN = 2_000
MAX_TEXT = 4_000
MAX_CRITERIA = 20
MAX_FIELDS = 200
REQUIRED: Any = object()


@dataclass(frozen=True)
class Option:
    """One option. `kind` is a key of `_CHECKS`; `low` to `high` hold for numbers, `choices` for an enum."""

    kind: str
    default: Any = REQUIRED
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    nullable: bool = False
    note: str = ""

    @property
    def is_required(self) -> bool:
        return self.default is REQUIRED


WEIGHT = Option("weight", 1.0, 0, MAX_WEIGHT, note="how much it counts beside the others")


def check_option(option: Option, value: Any, pointer: str) -> Any:
    """The value as it is kept; `Unprocessable` says what is wrong with it."""
    if value is REQUIRED:
        raise field_error(pointer, "is required")
    if value is None and option.nullable:
        return None
    return _CHECKS[option.kind](option, value, pointer)


def as_json_schema(option: Option) -> dict[str, Any]:
    """The option as OpenAPI shows it."""
    schema: dict[str, Any] = {**_JSON_TYPES[option.kind], "description": option.note}
    if option.choices:
        schema["enum"] = list(option.choices)
    if math.isfinite(option.low):
        schema["minimum"] = option.low
    if math.isfinite(option.high):
        schema["maximum"] = option.high
    if not option.is_required:
        schema["default"] = option.default
    if option.nullable:
        schema["nullable"] = True
    return schema


@lru_cache(maxsize=256)
def compiled(pattern: str, ignore_case: bool, dot_all: bool, multi_line: bool) -> Any:
    """Of RE2, which takes time in proportion to the text, whatever the pattern."""
    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = not ignore_case
    options.dot_nl = dot_all
    return re2.compile(f"(?m){pattern}" if multi_line else pattern, options)


def _bool(option: Option, value: Any, pointer: str) -> bool:
    if not isinstance(value, bool):
        raise field_error(pointer, "must be true or false")
    return value


def _number(option: Option, value: Any, pointer: str) -> float:
    whole = option.kind == "int"
    kinds: Any = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise field_error(pointer, "must be a whole number" if whole else "must be a number")
    if not option.low <= value <= option.high:  # a NaN is in no range
        raise field_error(pointer, f"must be in [{option.low:,.12g}, {option.high:,.12g}]")
    return value if whole else float(value)


def _weight(option: Option, value: Any, pointer: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_WEIGHT:
        raise field_error(pointer, f"must be a number above 0, at most {MAX_WEIGHT:,}")
    return float(value)


def _enum(option: Option, value: Any, pointer: str) -> str:
    if not isinstance(value, str) or value not in option.choices:
        raise field_error(pointer, f"must be one of {', '.join(option.choices)}")
    return value


def _text(option: Option, value: Any, pointer: str) -> str:
    if not isinstance(value, str) or not value or len(value) > MAX_TEXT:
        raise field_error(pointer, f"must be a text of 1 to {MAX_TEXT:,} characters")
    return value


def _pattern(option: Option, value: Any, pointer: str) -> str:
    if not isinstance(value, str) or not value or len(value) > MAX_PATTERN:
        raise field_error(pointer, f"must be a pattern of 1 to {MAX_PATTERN:,} characters")
    try:
        compiled(value, False, False, False)
    except re2.error as error:
        reason = error.args[0]
        said = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise field_error(pointer, f"RE2 does not take it: {said} (no look-around, no back-references)") from error
    return value


def _schema(option: Option, value: Any, pointer: str) -> Any:
    check_applied_schema(value, pointer)
    return value


def _field_weights(option: Option, value: Any, pointer: str) -> dict[str, float]:
    if not isinstance(value, Mapping) or len(value) > MAX_FIELDS:
        raise field_error(pointer, f"must be an object of weights by field, at most {MAX_FIELDS}")
    return {name: _weight(option, weight, f"{pointer}/{name}") for name, weight in value.items()}


def _model(option: Option, value: Any, pointer: str) -> dict[str, str]:
    names = ("provider", "model_name")
    if not isinstance(value, Mapping) or set(value) != set(names):
        raise field_error(pointer, "must be an object with provider and model_name")
    for name in names:
        if not isinstance(value[name], str) or not 0 < len(value[name]) <= 128:
            raise field_error(f"{pointer}/{name}", "must be a text of 1 to 128 characters")
    return {name: value[name] for name in names}


def _criteria(option: Option, value: Any, pointer: str) -> list[dict[str, Any]]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not 0 < len(value) <= MAX_CRITERIA:
        raise field_error(pointer, f"must be a list of 1 to {MAX_CRITERIA} criteria")
    checked = [_criterion(item, f"{pointer}/{index}") for index, item in enumerate(value)]
    names = [criterion["name"] for criterion in checked]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise field_error(f"{pointer}/{index}/name", "is the name of an earlier one")
    return checked


def _criterion(item: Any, pointer: str) -> dict[str, Any]:
    known = {"name": Option("text"), "description": Option("text"), "weight": WEIGHT}
    if not isinstance(item, Mapping):
        raise field_error(pointer, "must be an object with name, description and weight")
    for name in item:
        if name not in known:
            raise field_error(f"{pointer}/{name}", f"is not known; there are: {', '.join(known)}")
    return {
        name: check_option(option, item.get(name, option.default), f"{pointer}/{name}")
        for name, option in known.items()
    }


_CHECKS: Mapping[str, Callable[[Option, Any, str], Any]] = {
    "bool": _bool,
    "int": _number,
    "float": _number,
    "weight": _weight,
    "enum": _enum,
    "text": _text,
    "pattern": _pattern,
    "json_schema": _schema,
    "field_weights": _field_weights,
    "model": _model,
    "criteria": _criteria,
}
_JSON_TYPES: Mapping[str, Mapping[str, Any]] = {
    "bool": {"type": "boolean"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "weight": {"type": "number"},
    "enum": {"type": "string"},
    "text": {"type": "string"},
    "pattern": {"type": "string"},
    "json_schema": {"type": "object"},
    "field_weights": {"type": "object"},
    "model": {"type": "object"},
    "criteria": {"type": "array"},
    "scorers": {"type": "array"},
}
