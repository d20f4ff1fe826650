"""What a name may look like, and what a reference to a version looks like."""

import re
import uuid
from dataclasses import dataclass

from shared.errors import field_error

# Words that are, or may become, the last part of a route where a name could stand.
ROUTE_WORDS = frozenset(
    "analytics batch bulk compare counts events execute export fork generate graph history import "
    "labels latest lifecycle list new register-code related render search stats status strategies "
    "suggestions template versions".split()
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_LABEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,35}")
LATEST = "latest"
PRODUCTION = "production"


@dataclass(frozen=True)
class VersionChoice:
    """Which version: one of a number, a label or a content hash. `latest` is computed."""

    number: int | None = None
    label: str | None = None
    content_hash: str | None = None


def check_name(name: str, pointer: str = "/name") -> str:
    """The name, or a 422: 1 to 128 of letters, digits and `._-`, no UUID and no word of a route."""
    if not _NAME.fullmatch(name):
        raise field_error(pointer, "must be 1 to 128 letters, digits, dots, dashes or underscores")
    if name.lower() in ROUTE_WORDS:
        raise field_error(pointer, f"{name!r} is a word of the API's routes")
    if _is_uuid(name):
        raise field_error(pointer, "must not look like a UUID")
    return name


def is_name(text: str) -> bool:
    """Whether something could have this name. What could not is not even looked up: PostgreSQL takes no NUL."""
    return _NAME.fullmatch(text) is not None


def check_label(label: str, pointer: str = "/label") -> str:
    if not _LABEL.fullmatch(label):
        raise field_error(pointer, "must be 1 to 36 of lowercase letters, digits and `._-`")
    if label == LATEST:
        raise field_error(pointer, "`latest` is computed and cannot be moved")
    if re.fullmatch(r"v?\d+", label) or _is_uuid(label):  # where a version is named, a number is a version's
        raise field_error(pointer, "must not look like a version number or a UUID")
    return label


def parse_reference(reference: str, pointer: str = "/prompt_name") -> tuple[str, VersionChoice | None]:
    """`name`, `name@label`, `name@v12` or `name@sha256:…` as (name, choice)."""
    name, at, rest = reference.partition("@")
    if not at:
        return name, None
    if re.fullmatch(r"v[1-9]\d{0,8}", rest):
        return name, VersionChoice(number=int(rest[1:]))
    if rest.startswith("sha256:"):
        digest = rest.removeprefix("sha256:")
        if not re.fullmatch(r"[0-9a-f]{6,64}", digest):
            raise field_error(pointer, "after `sha256:` come 6 to 64 hex digits")
        return name, VersionChoice(content_hash=digest)
    if rest != LATEST:
        check_label(rest, pointer)
    return name, VersionChoice(label=rest)


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
