"""Reading request bodies: strict UTF-8 JSON without NaN, NUL or half characters, and who may send it."""

import json
import math
from collections.abc import Iterator
from typing import Any

import flask
import marshmallow as ma
from webargs.flaskparser import FlaskParser

from shared.errors import BadRequest, FieldError, Unprocessable

MAX_DEPTH = 50


class StrictParser(FlaskParser):
    """Loads JSON through `json_body`, and refuses unknown fields and unknown query parameters alike."""

    DEFAULT_UNKNOWN_BY_LOCATION = {**FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION, "query": ma.RAISE}  # noqa: RUF012

    def load_json(self, req: flask.Request, schema: ma.Schema) -> Any:
        return json_body(req)

    def load_querystring(self, req: flask.Request, schema: ma.Schema) -> Any:
        for name, value in req.args.items():
            if "\x00" in value or "\ufffd" in value:
                raise Unprocessable(errors=[FieldError(f"?{name}", "is not valid text")])
        return super().load_querystring(req, schema)


def json_body(request: flask.Request) -> Any:
    """The parsed body. Every value in it can be stored by both databases."""
    if request.mimetype not in ("application/json", "") and not request.mimetype.endswith("+json"):
        raise BadRequest("the body must be sent as Content-Type: application/json")
    raw = request.get_data(cache=True)
    try:
        value = json.loads(raw.decode("utf-8")) if raw.strip() else {}
    except UnicodeDecodeError as error:
        detail = f"invalid UTF-8 at byte {error.start}"
        raise BadRequest(detail, errors=[FieldError("/", detail)]) from error
    except RecursionError as error:
        raise BadRequest("the JSON is nested too deeply") from error
    except ValueError as error:
        raise BadRequest(f"invalid JSON: {error}", errors=[FieldError("/", str(error))]) from error
    refuse_unstorable(value)
    return value


def refuse_unstorable(value: Any) -> None:
    """422 that names each number that is not finite and each text that no database can hold."""
    errors = list(_problems(value, "", 0))[:20]
    if errors:
        raise Unprocessable("; ".join(f"{e.pointer}: {e.detail}" for e in errors), errors=errors)


def _problems(value: Any, pointer: str, depth: int) -> Iterator[FieldError]:
    if depth > MAX_DEPTH:
        yield FieldError(pointer, f"nested deeper than {MAX_DEPTH}")
    elif isinstance(value, dict):
        for key, inner in value.items():
            problem = _text_problem(key)
            if problem:
                yield FieldError(pointer or "/", f"a key {problem}")
            else:
                escaped = key.replace("~", "~0").replace("/", "~1")
                yield from _problems(inner, f"{pointer}/{escaped}", depth + 1)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _problems(inner, f"{pointer}/{index}", depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        yield FieldError(pointer or "/", "NaN and infinity are not numbers in JSON")
    elif isinstance(value, str):
        problem = _text_problem(value)
        if problem:
            yield FieldError(pointer or "/", problem)


def _text_problem(text: str) -> str | None:
    if "\x00" in text:
        return "holds a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds half of a surrogate pair"
    return None
