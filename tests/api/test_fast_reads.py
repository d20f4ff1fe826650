"""What is answered before Flask is asked is what the route would have answered, and is counted like it."""

import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import cached, rates
from app.fast_reads import RULE
from shared.config import settings
from tests.support import API_KEY, Api, make_prompt

PRODUCTION = "/v1/prompts/greeter/versions/production"
# With the key in both places the route is asked, which takes either.
BY_THE_ROUTE = {"Authorization": f"Bearer {API_KEY}"}


@pytest.fixture(autouse=True)
def remembered(api: Api) -> Iterator[None]:
    cached.use_registry(None)
    make_prompt(api)
    api.expect(200, "GET", PRODUCTION)
    yield
    cached.use_registry(None)


@pytest.fixture
def no_route(flask_client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flask is not there."""

    def refuse(*_: Any) -> NoReturn:
        raise AssertionError("the route was asked")

    monkeypatch.setattr(flask_client.application.wsgi_app, "_application", refuse)


def told(answer: TestResponse) -> dict[str, str]:
    """The headers but the date, which servers add; of what counts down, only that it is there."""
    headers = {name: value for name, value in answer.headers if name not in ("RateLimit", "Date")}
    return {**headers, "RateLimit": re.sub(r"\d+", "n", answer.headers["RateLimit"])}


@pytest.mark.usefixtures("no_route")
def test_a_remembered_read_asks_no_route(api: Api) -> None:
    answer = api.get(PRODUCTION)

    assert (answer.status_code, answer.headers["Cache-Status"]) == (200, "promptmill; hit; detail=local")


@pytest.mark.parametrize("asked", [{}, {"If-None-Match": "current"}, {"If-None-Match": '"old"'}])
def test_it_answers_what_the_route_answers(api: Api, asked: dict[str, str]) -> None:
    headers = {"X-Request-Id": "mine", **asked}
    if asked.get("If-None-Match") == "current":
        headers["If-None-Match"] = api.get(PRODUCTION).headers["ETag"]

    fast = api.request("GET", PRODUCTION, headers=headers)
    slow = api.request("GET", PRODUCTION, headers={**headers, **BY_THE_ROUTE})

    assert (fast.status_code, fast.get_data()) == (slow.status_code, slow.get_data())
    assert told(fast) == told(slow)
    assert fast.headers["X-Request-Id"] == "mine"


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("HEAD", PRODUCTION, {}),
        ("DELETE", PRODUCTION, {}),
        ("GET", f"{PRODUCTION}?project=default", {}),
        ("GET", f"{PRODUCTION}?unknown=1", {}),
        ("GET", f"{PRODUCTION}/", {}),
        ("GET", "/v1/prompts/greeter/versions/produc%74ion", {}),
        ("GET", PRODUCTION, {"Cache-Control": "no-cache"}),
        ("GET", PRODUCTION, {"X-API-Key": "unknown"}),
        ("GET", PRODUCTION, {"If-None-Match": '"a", "b"'}),
        ("GET", PRODUCTION, {"If-None-Match": "*"}),
    ],
)
def test_what_is_out_of_the_ordinary_is_answered_alike(
    api: Api, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = api.request(method, path, headers=headers)
    key = {"Authorization": f"Bearer {headers.get('X-API-Key', API_KEY)}"}
    by_the_route = api.request(method, path, headers={**headers, **key})

    assert (answer.status_code, answer.mimetype) == (by_the_route.status_code, by_the_route.mimetype)
    assert answer.get_data()[:40] == by_the_route.get_data()[:40]


def test_a_key_that_may_not_see_it_hears_so_of_the_route(api: Api, as_user: Callable[..., Api]) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    limited, stranger = as_user(user="limited", projects=["atlas"]), as_user(workspace="elsewhere")
    for reader in (limited, stranger):
        reader.get("/v1/projects")  # so that its key is known

    assert [reader.get(PRODUCTION).status_code for reader in (limited, stranger)] == [404, 404]


def test_a_limit_holds_here_too(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMPTMILL_RATE_LIMIT", "3/day")
    settings.cache_clear()
    rates.reset()

    answers = [api.get(PRODUCTION) for _ in range(5)]
    monkeypatch.undo()
    settings.cache_clear()
    rates.reset()

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[3].get_json()["code"] == "rate_limited"


def test_it_is_counted_as_the_route_is(api: Api) -> None:
    def counts() -> list[float]:
        page = api.get("/metrics").get_data(as_text=True)
        labels = f'{{method="GET",status="200",url_rule="{RULE}"}}'
        found = re.search(rf"^flask_http_request_duration_seconds_count{re.escape(labels)} (\S+)$", page, re.MULTILINE)
        hits = re.search(r'^prompt_studio_cache_requests_total{outcome="local"} (\S+)$', page, re.MULTILINE)
        return [float(match[1]) if match else 0.0 for match in (found, hits)]

    before = counts()
    for _ in range(3):
        api.get(PRODUCTION)
    api.request("GET", PRODUCTION, headers=BY_THE_ROUTE)
    after = counts()

    assert [now - then for now, then in zip(after, before, strict=True)] == [4, 4]
