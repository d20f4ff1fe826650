"""Reads of versions that are remembered, answered before Flask is asked: routing, schemas and contexts take ten times
as long as the answer does.

It knows nothing that the route does not know: what it answers is what `GET /v1/prompts/{name}/versions/{version}`
would, with the same key, limits, headers and metrics, and whatever it is unsure of it leaves to the route.
"""

import re
import time
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import Counter, Histogram
from sqlalchemy.exc import SQLAlchemyError

from app import cached, rates
from app.auth import known_caller
from app.requests import ALWAYS, name_request

RULE = "/v1/prompts/<name>/versions/<version>"
_PATH = re.compile(r"/v1/prompts/([A-Za-z0-9._-]+)/versions/([A-Za-z0-9._-]+)")
_ETAG = re.compile(r'"[^",]*"')
# With any of these there is more to know of the request than its path and its key.
_LEFT_TO_THE_ROUTE = ("HTTP_AUTHORIZATION", "HTTP_CACHE_CONTROL", "HTTP_TRANSFER_ENCODING")

StartResponse = Callable[..., Any]
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class FastReads:
    """WSGI in front of the application."""

    def __init__(self, application: Application, seconds: Histogram, total: Counter) -> None:
        self._application = application
        self._seconds = {status: seconds.labels("GET", RULE, status) for status in (200, 304)}
        self._total = {status: total.labels("GET", status) for status in (200, 304)}

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        started = time.perf_counter()
        found = self._find(environ)
        if found is None:
            return self._application(environ, start_response)
        entry, headers = found
        status = 304 if environ.get("HTTP_IF_NONE_MATCH") == f'"{entry.etag}"' else 200
        headers += ALWAYS
        headers.append(("X-Request-Id", name_request(environ.get("HTTP_X_REQUEST_ID", ""))))
        body = [entry.body] if status == 200 else []
        if body:
            headers += [("Content-Type", "application/json"), ("Content-Length", str(len(entry.body)))]
        start_response("200 OK" if status == 200 else "304 Not Modified", headers)
        self._seconds[status].observe(time.perf_counter() - started)
        self._total[status].inc()
        return body

    def _find(self, environ: dict[str, Any]) -> Any:
        """The entry, and the headers that it is answered with; None when the route has to look."""
        if environ["REQUEST_METHOD"] != "GET" or environ.get("QUERY_STRING"):
            return None
        path = _PATH.fullmatch(environ["PATH_INFO"])
        if path is None or environ.get("CONTENT_LENGTH") or any(name in environ for name in _LEFT_TO_THE_ROUTE):
            return None
        if not _ETAG.fullmatch(environ.get("HTTP_IF_NONE_MATCH", '""')):
            return None  # a list of them, or any
        reader = known_caller(environ.get("HTTP_X_API_KEY", ""))
        if reader is None:
            return None
        started, remembered = time.perf_counter(), cached.registry()
        try:
            remembered.refresh()
        except SQLAlchemyError:
            return None  # the route says what is wrong
        entry = remembered.local.get(cached.key_of(reader, ("version", None, path[1], path[2])))
        if entry is None or not cached.may_see(reader, entry):
            return None
        allowance = rates.take(reader)
        if allowance is not None and allowance.left < 0:
            return None  # which the route counts once more, and refuses
        headers = [*cached.headers_of(entry, "local"), *rates.headers_of(allowance)]
        remembered.count(reader.workspace_id, "local", time.perf_counter() - started)
        return entry, headers
