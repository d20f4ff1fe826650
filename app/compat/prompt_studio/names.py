"""Names: the original took any text of 255 characters, ours are 128 letters, digits, dots, dashes and underscores.

A name that is not one of ours is kept beside the one that is made of it, and shown again in its place.
"""

import re
import unicodedata

from shared.domain.names import ROUTE_WORDS, is_name
from shared.hashing import sha256

LONGEST = 255
_LONGEST_OF_OURS = 128


def ours(name: str) -> str:
    """The name that we store: the same if it can be, else its letters and digits with dashes between.

    Two names may become one, which is then taken: a 409, never another thing of that name.
    """
    if is_name(name) and name.lower() not in ROUTE_WORDS:
        return name
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    made = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._")
    if not made or made.lower() in ROUTE_WORDS:
        return f"studio-{sha256(name)[:12]}"
    return made if len(made) <= _LONGEST_OF_OURS else f"{made[:115]}-{sha256(name)[:12]}"


def shown(name: str, kept: object) -> str:
    """What the client called it, as long as nobody has renamed it since."""
    return kept if isinstance(kept, str) and ours(kept) == name else name


def part(text: str) -> str:
    """A part of a name, as it stands in ours."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)
