"""Reading JSON that others wrote: nothing in it is dropped silently, and every refusal says plainly why."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any


class Repeating(dict[str, Any]):
    """An object that gave one key twice. Kept as a mark: only who walks the document knows where it stands."""

    key: str


def loads(text: str, *, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """The value; ValueError when it is no JSON, holds a number of absurd length, or nests too deeply.

    `parse_constant` is given NaN and the infinities, as by `json.loads`.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=parse_constant)
    except json.JSONDecodeError:
        raise
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except ValueError as error:  # of int(), which speaks of a setting of Python's
        raise ValueError("a number has too many digits") from error


def structured(text: str) -> Any:
    """A text that is a JSON object or list, as scorers compare them; any other as it stands."""
    try:
        value = loads(text)
    except ValueError:
        return text
    return value if isinstance(value, dict | list) else text


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    marked = Repeating(made)
    marked.key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
    return marked
