"""Where a search looks for model settings: ranges and choices, checked here. Knows no provider."""

import itertools
from collections.abc import Mapping
from typing import Any

MAX_NAME = 128  # characters of a model's name
# Where to look for a model setting that is only named. `max_new_tokens` is what older systems call max_tokens.
RANGES: Mapping[str, Mapping[str, Any]] = {
    "temperature": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.1, "log": False},
    "top_p": {"type": "float", "low": 0.1, "high": 1.0, "step": 0.1, "log": False},
    "top_k": {"type": "int", "low": 1, "high": 64, "step": 1, "log": False},
    "max_new_tokens": {"type": "int", "low": 16, "high": 1024, "step": 1, "log": True},
    "repetition_penalty": {"type": "float", "low": 1.0, "high": 1.5, "step": 0.1, "log": False},
}
# What providers take at most: (lowest, highest).
_LIMITS: Mapping[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0.001, 1),
    "top_k": (1, 1000),
    "max_new_tokens": (1, 100_000),
    "repetition_penalty": (0.001, 2),
}
MAX_GRID = 10_000
SETTINGS = (*RANGES, "model_name")


def problem(value: Any) -> str | None:
    """What is wrong with a space as it was given: an object, or a list of settings that have their usual ranges."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        named = [_own_name(name) for name in value]
        if "model_name" in named:
            return "model_name: give its choices"
        value = {name: {} for name in named}
    if not isinstance(value, Mapping) or not value:
        return f"must be an object of settings with ranges, or a list of settings; there are: {', '.join(SETTINGS)}"
    names = [_own_name(name) for name in value]
    if len({*names}) < len(names):
        return "max_new_tokens is given under two names"
    for name, where in zip(names, value.values(), strict=True):
        if name not in SETTINGS:
            return f"unknown setting {name!r}; there are: {', '.join(SETTINGS)}"
        if wrong := _range_problem(name, where):
            return f"{name}: {wrong}"
    return None


def plain(value: Any) -> dict[str, dict[str, Any]]:
    """Every setting with all that says where to look for it."""
    given = {name: {} for name in value} if isinstance(value, list) else value
    full_space: dict[str, dict[str, Any]] = {}
    for setting, where in given.items():
        name = _own_name(setting)
        if "choices" in where:
            full_space[name] = {"type": "categorical", "choices": list(where["choices"])}
            continue
        full = _completed(name, where)
        if full["type"] == "float":
            full |= {bound: None if full[bound] is None else float(full[bound]) for bound in ("low", "high", "step")}
        full_space[name] = full
    return full_space


def grid(space: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every point of a space whose settings have a step or choices; the last by name changes first."""
    names = sorted(space)
    ranges = [values_of(space[name]) for name in names]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*ranges)]


def values_of(where: Mapping[str, Any]) -> list[Any]:
    """The values of one setting; none where it has neither a step nor choices."""
    if where["type"] == "categorical":
        return list(where["choices"])
    step = where["step"]
    if step is None or where["log"]:
        return []
    count = int((where["high"] - where["low"]) / step + 1e-9) + 1
    if count > MAX_GRID:
        return [None] * count
    values = [where["low"] + i * step for i in range(count)]
    return values if where["type"] == "int" else [round(value, 10) for value in values]


def _range_problem(name: str, where: Any) -> str | None:
    """What is wrong with where to look for one setting."""
    if not isinstance(where, Mapping) or not set(where) <= {"type", "low", "high", "step", "log", "choices"}:
        return "must be an object of type, low, high, step, log and choices"
    if "choices" in where or name == "model_name":
        return _choices_problem(name, where)
    whole = RANGES[name]["type"] == "int"
    full = _completed(name, where)
    if full["type"] != RANGES[name]["type"]:
        return f"type must be {RANGES[name]['type']}, or choices be given"
    if not isinstance(full["log"], bool):
        return "log must be true or false"
    step = full["step"]
    for bound in ("low", "high", *(["step"] if step is not None else [])):
        if (wrong := _number_problem(full[bound], whole)) is not None:
            return f"{bound} {wrong}"
    lowest, highest = _LIMITS[name]
    if not lowest <= full["low"] < full["high"] <= highest:
        return f"low must be below high, both in [{lowest:g}, {highest:g}]"
    if full["log"] and full["low"] <= 0:
        return "log needs a low above 0"
    if full["log"] and step not in (None, 1):
        return "log and step exclude each other"
    if step is not None and not full["log"]:
        count = (full["high"] - full["low"]) / step if step > 0 else 0
        if count < 1 or abs(count - round(count)) > 1e-6:
            return "step must be above 0 and divide high - low"
    return None


def _completed(name: str, where: Mapping[str, Any]) -> dict[str, Any]:
    """With the usual values for what is left out; the usual step belongs to the usual range."""
    usual = dict(RANGES[name])
    if usual["type"] == "float" and (where.get("log") or {"low", "high"} & set(where)):
        usual["step"] = None
    if usual["type"] == "int" and where.get("step", 0) is None:
        where = {**where, "step": 1}
    return {**usual, **where}


def _choices_problem(name: str, where: Mapping[str, Any]) -> str | None:
    choices = where.get("choices")
    if where.get("type", "categorical") != "categorical" or set(where) - {"type", "choices"}:
        return "takes choices and nothing else"
    if not isinstance(choices, list) or not 1 <= len(choices) <= 64:
        return "choices must be a list of 1 to 64 values"
    if name == "model_name":
        fine = all(isinstance(choice, str) and 0 < len(choice) <= MAX_NAME for choice in choices)
        return None if fine and len({*choices}) == len(choices) else "choices must be names of models, each once"
    whole = RANGES[name]["type"] == "int"
    lowest, highest = _LIMITS[name]
    for choice in choices:
        if (wrong := _number_problem(choice, whole)) is not None:
            return f"each choice {wrong}"
        if not lowest <= choice <= highest:
            return f"choices must be in [{lowest:g}, {highest:g}]"
    return None if len({*choices}) == len(choices) else "choices must differ"


def _number_problem(value: Any, whole: bool) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        return "must be a whole number" if whole else "must be a number"
    return None if abs(value) < 1e9 else "must be a finite number"


def _own_name(setting: Any) -> Any:
    return "max_new_tokens" if setting == "max_tokens" else setting
