"""What may stand in a path: numbers that a database holds in plain digits, text that it can store, no empty name."""

import flask
from werkzeug.routing import IntegerConverter, Map

from shared.errors import NotFound

LARGEST_ID = 2**63 - 1


class PlainInteger(IntegerConverter):
    """`<int:…>` in plain digits, where Python's own reads those of every script, and of any length."""

    regex = "[0-9]{1,19}"

    def __init__(self, url_map: Map) -> None:
        super().__init__(url_map, max=LARGEST_ID)


def install(app: flask.Flask) -> None:
    app.url_map.converters["int"] = PlainInteger
    app.url_map.merge_slashes = False  # what an empty name leads to must not be something else's address


def refuse_unstorable() -> None:
    """404 for a name with a NUL, which SQLite would look for and PostgreSQL would not even hear."""
    if any(isinstance(value, str) and "\x00" in value for value in (flask.request.view_args or {}).values()):
        raise NotFound("nothing is at this address")
