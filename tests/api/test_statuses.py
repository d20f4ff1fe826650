"""The statuses that /openapi.json lists for an operation are those that it can answer with.

That it answers with no other is for tests/fuzz to find.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import rates
from shared import db
from shared.config import settings
from shared.models import Role
from tests.api.routes import WRITES, address, routes, seed
from tests.support import API_KEY, Api, Drain

NOBODY = {"uuid": "00000000-0000-0000-0000-000000000000", "int": "999999999", "": "nobody"}
REFERENCES = ("project", "prompt_name", "dataset", "target")


def listed(client: FlaskClient) -> Iterator[tuple[str, str, Any, set[int]]]:
    """(method, rule, its operation, the errors that are listed) of every route below /v1."""
    paths = client.get("/openapi.json").get_json()["paths"]
    for method, rule in (route for route in routes(client.application) if route[1].startswith("/v1/")):
        operation = paths[re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)][method.lower()]
        yield method, rule, operation, {int(s) for s in operation["responses"] if s.startswith(("4", "5"))}


def nobodys(rule: str) -> str:
    return re.sub(r"<(?:(\w+):)?\w+>", lambda match: NOBODY[match[1] or ""], rule)


def provoke(owner: Api, method: str, rule: str, operation: Any, viewer: Api) -> Callable[[int], TestResponse]:
    """By status, the answer to a request that should have it."""
    path, body = address(owner, rule), WRITES.get((method, rule))
    parameters = {(parameter["in"], parameter["name"]) for parameter in operation.get("parameters", [])}

    def wrong_name() -> TestResponse:
        if asked := [name for name in REFERENCES if ("query", name) in parameters]:
            return owner.request(method, f"{path}?{asked[0]}=nobody", body)
        if "<" in rule:
            _, mark, query = path.partition("?")
            return owner.request(method, nobodys(rule) + mark + query, body)
        given = body or {}
        named = [name for name in REFERENCES if name in given] or ["project"]
        return owner.request(method, path, {**given, named[0]: "nobody"})

    def unreadable() -> TestResponse:
        if "requestBody" in operation:
            return owner.request(method, path, data=b"{", content_type="application/json")
        name = "If-None-Match" if ("header", "If-Match") in parameters else "Idempotency-Key"
        return owner.request(method, path, headers={name: "\xff"})

    def changed_meanwhile() -> TestResponse:
        if rule == "/v1/projects/<project>/restore":
            owner.expect(204, "DELETE", path.removesuffix("/restore"))
        return owner.request(method, path, body, headers={"If-Match": '"never"'})

    def ask(status: int) -> TestResponse:
        options: dict[int, Callable[[], TestResponse]] = {
            400: unreadable,
            401: lambda: owner.request(method, path, body, headers={"X-API-Key": "nobody's"}),
            403: lambda: viewer.request(method, path if method != "GET" else f"{path}?include_deleted=true", body),
            404: wrong_name,
            412: changed_meanwhile,
            413: lambda: owner.request(method, path, body, environ_overrides={"CONTENT_LENGTH": str(10**9)}),
            415: lambda: owner.request(method, path, data=b"{}", content_type="image/png"),
            422: lambda: owner.request(method, f"{path}?nobody=reads", body),
        }
        return options[status]()

    return ask


def test_each_error_that_is_listed_can_be_had(
    api: Api, drain: Drain, flask_client: FlaskClient, as_user: Callable[..., Api]
) -> None:
    seed(api, drain)
    viewer = as_user(role=Role.VIEWER)
    cannot = {}

    for method, rule, operation, statuses in listed(flask_client):
        ask = provoke(api, method, rule, operation, viewer)
        # 409 takes a state of its own each time, which the tests of the route set up; for 429 and 503 see below.
        for status in sorted(statuses - {409, 429, 503}):
            answer = ask(status)
            if answer.status_code != status:
                cannot[method, rule, status] = (answer.status_code, answer.get_data(as_text=True)[:200])

    assert cannot == {}, "declare with @blp.fails(never=...), or teach app/statuses.py, what these cannot answer"


def test_every_route_behind_a_key_lists_503_and_answers_so_without_a_database(
    flask_client: FlaskClient, tmp_path: Path
) -> None:
    db.connect(f"sqlite:///{tmp_path}/no-such-directory/db")

    for method, rule, _, statuses in listed(flask_client):
        answer = flask_client.open(nobodys(rule), method=method, headers={"X-API-Key": API_KEY})
        assert (answer.status_code, 503 in statuses) == (503, True), (method, rule)

    db.disconnect()


@pytest.fixture
def one_a_day(api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PROMPTMILL_RATE_LIMIT", "1/day")
    settings.cache_clear()
    rates.reset()
    yield
    monkeypatch.undo()
    settings.cache_clear()
    rates.reset()


def test_every_route_behind_a_key_lists_429_and_answers_so_past_the_limit(
    api: Api, flask_client: FlaskClient, one_a_day: None
) -> None:
    api.get("/v1/projects")

    for method, rule, _, statuses in listed(flask_client):
        assert (api.request(method, nobodys(rule)).status_code, 429 in statuses) == (429, True), (method, rule)


def test_an_operation_that_only_reads_lists_neither_403_nor_409_unless_it_says_so(flask_client: FlaskClient) -> None:
    found = {
        (rule, status)
        for method, rule, _, statuses in listed(flask_client)
        if method == "GET"
        for status in statuses & {403, 409}
    }

    assert ("/v1/prompts", 403) in found  # deleted ones are for editors
    assert ("/v1/prompts/<name>/history", 409) in found  # of a prompt in another mode
    unfinished = {f"/v1/evaluations/<uuid:evaluation_id>/{what}" for what in ("compare", "gate")}
    assert not {rule for rule, _ in found} - {"/v1/prompts", "/v1/prompts/<name>/history", "/v1/events", *unfinished}


@pytest.mark.parametrize("rule", ["/v1/render", "/v1/prompts:search"])
def test_a_post_that_only_reads_is_no_write(flask_client: FlaskClient, rule: str) -> None:
    (statuses,) = (found for method, wanted, _, found in listed(flask_client) if (method, wanted) == ("POST", rule))

    assert not statuses & {403, 409}
