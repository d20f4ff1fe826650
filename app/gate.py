"""`python -m app.gate`: waits for an evaluation and asks its gate, for a build: exit 0 passed, 1 not, 2 no answer.

It speaks HTTP only, with the standard library and click, and knows nothing of the server it runs beside.
"""

import json
import math
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

import click

PASSED, NOT_PASSED, NO_ANSWER = 0, 1, 2
WAIT_SECONDS = 20  # in one request: no proxy ends it
POLL_SECONDS = 2.0  # of a server with whom too many wait already


@click.command()
@click.argument("evaluation_id", required=False)
@click.option("--url", envvar="PROMPTMILL_URL", required=True, help="Where the API is, as http://host:port.")
@click.option("--api-key", envvar="PROMPTMILL_API_KEY", required=True)
@click.option("--start", type=click.File(), help="Start the evaluation in this JSON file, the body of the POST.")
@click.option("--min-score", type=click.FloatRange(0, 1))
@click.option("--non-inferior-to", help="An evaluation that this one must not be worse than.")
@click.option("--margin", type=click.FloatRange(0, 1), help="By how much it may be worse; 0 if left out.")
@click.option("--max-missing", type=click.FloatRange(0, 1), help="Share of answers that may have no score; 0.")
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Write the verdict there too.")
@click.option("--timeout", default=1800.0, show_default=True, help="Seconds to wait for the evaluation to end.")
def main(
    evaluation_id: str | None, url: str, api_key: str, start: Any, junit: Path | None, timeout: float, **asked: Any
) -> None:
    """Ask whether EVALUATION_ID, or the one that is started, is good enough."""
    if (evaluation_id is None) == (start is None):
        raise click.UsageError("give an evaluation's id, or --start")
    server = _Server(url.rstrip("/"), api_key)
    try:
        if start is not None:
            evaluation_id = server.ask("POST", "/v1/evaluations", json.load(start)).get("evaluation_id")
            if evaluation_id is None:
                raise ValueError("none was started; does the body ask for a dry_run?")
            click.echo(f"evaluation {evaluation_id} started")
        server.wait(f"/v1/evaluations/{evaluation_id}", timeout)
        query = urllib.parse.urlencode({name: value for name, value in asked.items() if value is not None})
        path = f"/v1/evaluations/{evaluation_id}/gate?{query}"
        verdict = server.ask("GET", path)
        if junit is not None:
            junit.write_bytes(server.read("GET", path, accept="application/xml"))
    except (OSError, ValueError, HTTPException) as error:  # an answer that is none; a URLError is an OSError
        click.echo(f"no verdict: {error}", err=True)
        sys.exit(NO_ANSWER)
    for check in verdict["checks"]:
        click.echo(f"{'pass' if check['passed'] else 'FAIL'}  {check['name']}: {check['detail']}")
    sys.exit(PASSED if verdict["passed"] else NOT_PASSED)


class _Server:
    def __init__(self, url: str, api_key: str) -> None:
        self._url = url
        self._api_key = api_key

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        return json.loads(self.read(method, path, body, **headers))

    def read(self, method: str, path: str, body: Any = None, accept: str = "application/json", **others: str) -> bytes:
        headers = {"X-API-Key": self._api_key, "Accept": accept, "Content-Type": "application/json", **others}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, headers, method=method)  # noqa: S310  # theirs to choose
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            raise OSError(f"{method} {path} answered {error.code}: {error.read().decode(errors='replace')}") from error

    def wait(self, path: str, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while True:
            left = max(0, math.ceil(deadline - time.monotonic()))
            status = self.ask("GET", path, Prefer=f"wait={min(left, WAIT_SECONDS)}")["status"]
            if status not in ("queued", "running"):
                return
            if time.monotonic() >= deadline:
                raise OSError(f"the evaluation is still {status} after {timeout_seconds:g} s")
            threading.Event().wait(POLL_SECONDS)


if __name__ == "__main__":
    main()
