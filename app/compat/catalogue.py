"""One line of the compatibility page: an endpoint of an older prefix, and what answers it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Endpoint:
    """`path` is written as the older documents write it; `successor` is `METHOD /v1/...`, None: the same path."""

    method: str
    path: str
    successor: str | None
    note: str
