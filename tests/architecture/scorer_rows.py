"""The rows of docs/reference/scorers.md, as the catalogue has them."""

import math

from shared.scoring import SCORERS
from shared.scoring.options import Option


def row(name: str) -> str:
    """The sentence about a scorer."""
    kind = SCORERS[name]
    threshold = "" if kind.threshold == 1 else f" Passes from {kind.threshold:g} on."
    return f"{kind.description[0].upper()}{kind.description[1:]}.{threshold}"


def option_row(name: str, option: Option) -> str:
    return f"| `{name}` | {_type(option)} | {_default(option)} | {option.note} |"


def _type(option: Option) -> str:
    if option.choices:
        return ", ".join(f"`{choice}`" for choice in option.choices)
    kind = option.kind.replace("_", " ")
    if math.isfinite(option.low) and math.isfinite(option.high):
        kind += f", {option.low:,.12g} to {option.high:,.12g}"
    return kind + (" or null" if option.nullable else "")


def _default(option: Option) -> str:
    if option.is_required:
        return "required"
    if option.default is None:
        return "null"
    return f"`{str(option.default).lower()}`"
