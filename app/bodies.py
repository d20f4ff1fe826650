"""Reading requests: whole bodies, strict UTF-8 JSON without NaN, NUL or half characters, known query parameters."""

import contextlib
import itertools
import math
import time
from collections.abc import Collection, Iterator
from typing import Any

import flask
import marshmallow as ma
from gunicorn.http.errors import ParseException
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import RequestEntityTooLarge

from shared.errors import BadRequest, FieldError, Unprocessable, UnsupportedMediaType
from shared.strict_json import Repeating, loads

MAX_DEPTH = 50
DRAIN_BYTES = 64_000_000
DRAIN_SECONDS = 2.0


class StrictParser(FlaskParser):
    """Loads JSON through `json_body`, which refuses unknown fields; `check_query` has refused unknown parameters."""

    def load_json(self, req: flask.Request, schema: ma.Schema) -> Any:
        return json_body(req)


def check_query(request: flask.Request, known: Collection[str]) -> None:
    """422 that names each query parameter that the route does not read, or cannot."""
    errors = []
    for name, values in request.args.lists():
        if name not in known:
            errors.append(FieldError(f"?{name}", f"is not known here; there are: {', '.join(known) or 'none'}"))
        elif len(values) > 1:
            errors.append(FieldError(f"?{name}", "is given twice"))
        elif "\x00" in values[0] or "\ufffd" in values[0]:
            errors.append(FieldError(f"?{name}", "is not valid text"))
    if errors:
        raise Unprocessable("; ".join(map(str, errors[:5])), errors=errors[:20])


def raw_body(request: flask.Request) -> bytes:
    """The whole body, or 413: never the part of it that fits.

    Werkzeug stops at the limit without a word when the length was not announced (a chunked body), so one byte
    more is asked for. Only a server that ends the stream itself can be asked; others announce every length.
    """
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() != "identity":
        detail = f"{encoding} is not decoded here; send the body as it is"
        raise UnsupportedMediaType(detail, errors=[FieldError("Content-Encoding", detail)])
    try:
        raw = request.get_data(cache=True)
    except (OSError, ParseException) as error:  # of gunicorn: chunks that are none, or that end too soon
        detail = "the body is not properly chunked, or it ended too soon"
        raise BadRequest(detail, errors=[FieldError("", detail)]) from error
    is_full = len(raw) == request.max_content_length and request.environ.get("wsgi.input_terminated")
    if is_full and request.environ["wsgi.input"].read(1):
        raise RequestEntityTooLarge
    return raw


def drain(response: flask.Response) -> flask.Response:
    """Read what is left of the body, within reason, before the answer is sent.

    Many clients read no answer before they have sent all of their request; to them a connection that closes
    halfway is a broken pipe and not the 413, 401 or 404 that was the answer.
    """
    environ = flask.request.environ
    has_body = "CONTENT_LENGTH" in environ or "HTTP_TRANSFER_ENCODING" in environ
    if not has_body or not environ.get("wsgi.input_terminated"):
        return response
    connection = environ.get("gunicorn.socket")
    deadline, left = time.monotonic() + DRAIN_SECONDS, DRAIN_BYTES
    before = connection.gettimeout() if connection else None
    with contextlib.suppress(
        OSError, ValueError, ParseException
    ):  # the client is gone, too slow, or sends no proper chunks
        while left > 0 and (remaining := deadline - time.monotonic()) > 0:
            if connection:
                connection.settimeout(remaining)
            piece = environ["wsgi.input"].read(65_536)
            if not piece:
                break
            left -= len(piece)
    if connection:
        connection.settimeout(before)
    return response


def json_body(request: flask.Request, *, also: Collection[str] = ()) -> Any:
    """The parsed body. Every value in it can be stored by both databases. `also`: other types that JSON is sent as."""
    value = parsed_body(request, also=also)
    refuse_unstorable(value)
    flask.g.body = value
    return value


def parsed_body(request: flask.Request, *, also: Collection[str] = ()) -> Any:
    """The JSON of the body, as it came: whoever takes it looks for what no database can hold (`unstorable`)."""
    if request.mimetype not in ("application/json", "", *also) and not request.mimetype.endswith("+json"):
        raise unsupported("the body must be sent as Content-Type: application/json")
    raw = raw_body(request)
    try:
        value = loads(raw.decode("utf-8")) if raw else {}
    except UnicodeDecodeError as error:
        detail = f"invalid UTF-8 at byte {error.start}"
        raise BadRequest(detail, errors=[FieldError("", detail)]) from error
    except ValueError as error:
        raise BadRequest(f"invalid JSON: {error}", errors=[FieldError("", str(error))]) from error
    return value


def unsupported(detail: str) -> UnsupportedMediaType:
    return UnsupportedMediaType(detail, errors=[FieldError("Content-Type", detail)])


def refuse_unstorable(value: Any) -> None:
    """422 that names each number that is not finite and each text that no database can hold."""
    errors = unstorable(value)
    if errors:
        raise Unprocessable("; ".join(map(str, errors)), errors=errors)


def unstorable(value: Any) -> list[FieldError]:
    """What no database can hold: the first twenty, and where in the value each stands."""
    return list(itertools.islice(_problems(value, "", 0), 20))


def _problems(value: Any, pointer: str, depth: int) -> Iterator[FieldError]:
    if depth > MAX_DEPTH:
        yield FieldError(pointer, f"nested deeper than {MAX_DEPTH}")
    elif isinstance(value, dict):
        for key, inner in value.items():
            problem = _text_problem(key)
            if problem:
                yield FieldError(pointer, f"a key {problem}")
                continue
            inside = pointer + "/" + key.replace("~", "~0").replace("/", "~1")
            if isinstance(value, Repeating) and key == value.key:
                yield FieldError(inside, f"the key {key!r} is given twice")
            yield from _problems(inner, inside, depth + 1)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _problems(inner, f"{pointer}/{index}", depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        yield FieldError(pointer, "NaN and infinity are not numbers in JSON")
    elif isinstance(value, str):
        problem = _text_problem(value)
        if problem:
            yield FieldError(pointer, problem)


def _text_problem(text: str) -> str | None:
    if "\x00" in text:
        return "holds a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds half of a surrogate pair"
    return None
