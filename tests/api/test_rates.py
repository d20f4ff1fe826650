"""Rate limits: counted per key, over processes, told in headers, and honest while Redis is away."""

from collections.abc import Callable, Iterator

import pytest
from pydantic import ValidationError

from app import rates
from shared.config import Settings, settings
from tests.servers import RedisServer
from tests.support import Api

PATH = "/v1/projects"


@pytest.fixture
def limited(api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets the limits, as a process that starts would read them."""

    def limit(text: str) -> None:
        monkeypatch.setenv("PROMPTMILL_RATE_LIMIT", text)
        restart()

    yield limit
    monkeypatch.undo()
    restart()


def restart() -> None:
    settings.cache_clear()
    rates.reset()


def statuses(api: Api, count: int) -> list[int]:
    return [api.get(PATH).status_code for _ in range(count)]


def test_a_request_too_many_is_a_429_that_says_when_to_come_back(api: Api, limited: Callable[[str], None]) -> None:
    limited("3/day")

    answers = [api.get(PATH) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    refused = answers[-1]
    assert (refused.mimetype, refused.get_json()["code"]) == ("application/problem+json", "rate_limited")
    assert 1 <= int(refused.headers["Retry-After"]) <= 86_400
    assert "3 per 1 day" in refused.get_json()["detail"]


def test_every_answer_says_what_is_left(api: Api, limited: Callable[[str], None]) -> None:
    limited("5/day; 1000/year")

    answers = [api.get(PATH) for _ in range(6)]

    assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == [f"r={n}" for n in (4, 3, 2, 1, 0, 0)]
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"day";q=5;w=86400'}
    assert all(1 <= int(answer.headers["RateLimit"].rpartition("t=")[2]) <= 86_400 for answer in answers)


def test_a_request_that_is_refused_changes_nothing(api: Api, limited: Callable[[str], None]) -> None:
    limited("1/day")
    before = api.get(PATH).status_code

    refused = api.post(PATH, {"name": "atlas"})
    limited("off")

    assert (before, refused.status_code) == (200, 429)
    assert [project["name"] for project in api.expect(200, "GET", PATH)["data"]] == ["default"]


def test_each_key_has_its_own(api: Api, as_user: Callable[..., Api], limited: Callable[[str], None]) -> None:
    other = as_user()
    limited("2/day")

    assert [statuses(api, 3), statuses(other, 3)] == [[200, 200, 429]] * 2


def test_processes_count_together(api: Api, limited: Callable[[str], None]) -> None:
    limited("4/day")
    first = statuses(api, 2)

    restart()

    assert (first, statuses(api, 3)) == ([200, 200], [200, 200, 429])


def test_far_from_a_limit_redis_is_told_in_groups_and_near_it_of_each(
    api: Api, broker: RedisServer, limited: Callable[[str], None]
) -> None:
    limited("2000/day")

    answers = [api.get(PATH) for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200] * 5
    assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == [f"r={1999 - n}" for n in range(5)]


def test_while_redis_is_away_each_process_gives_its_share(
    api: Api, redis_server: RedisServer, limited: Callable[[str], None]
) -> None:
    limited("8/day")
    redis_server.kill()
    try:
        found = statuses(api, 6)
    finally:
        redis_server.start()

    assert settings().web_processes == 2
    assert found == [200] * 4 + [429] * 2


def test_without_limits_nothing_is_told(api: Api, limited: Callable[[str], None]) -> None:
    limited("off")

    answer = api.get(PATH)

    assert (answer.status_code, "RateLimit" in answer.headers) == (200, False)


def test_a_limit_that_is_none_stops_the_process_with_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMPTMILL_RATE_LIMIT", "many")

    with pytest.raises(ValidationError, match="rate_limit"):
        Settings()


def test_what_shows_the_health_of_the_service_is_not_limited(api: Api, limited: Callable[[str], None]) -> None:
    limited("1/day")

    assert [api.get(path).status_code for path in ("/health", "/health", PATH, "/health")] == [200] * 4


def test_a_new_window_begins_with_all_of_the_limit(api: Api, limited: Callable[[str], None]) -> None:
    limited("3/day")
    [limit] = rates._limits()

    left = [rates._counter().take(limit, "somebody", now).left for now in (10.0, 20.0, 86_399.0, 86_400.0, 86_401.0)]

    assert left == [2, 1, 0, 2, 1]
