"""/v1/cache: figures of the caller's workspace, forgetting and warming up."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from app import cached
from shared import db
from shared.models import Role, Version
from tests.support import Api, Drain, make_prompt, pointers, run_body

STATS, FORGET, WARM_UP = "/v1/cache/stats", "/v1/cache/invalidate", "/v1/cache/warmup"


@pytest.fixture(autouse=True)
def process(api: Api) -> Iterator[None]:
    cached.use_registry(None)
    yield
    cached.use_registry(None)


def read(api: Api, name: str = "greeter", query: str = "") -> str:
    answer = api.request("GET", f"/v1/prompts/{name}/versions/production{query}")
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return answer.headers["Cache-Status"].removeprefix("promptmill; ")


def stats(api: Api) -> Any:
    return api.expect(200, "GET", STATS)


def change_behind_the_back(name: str) -> None:
    """A row that somebody changes by hand: no event says so."""
    with db.transaction() as session:
        session.execute(sa.update(Version).values(message=name))


def test_figures_before_anything_was_asked(api: Api) -> None:
    found = stats(api)

    assert [found[name] for name in ("total_hits", "total_misses", "hit_ratio", "avg_response_time_ms")] == [
        0,
        0,
        None,
        None,
    ]
    assert found["redis_available"] is True


def test_figures_are_counted_over_processes(api: Api) -> None:
    make_prompt(api)
    for _ in range(4):
        read(api)
    before = stats(api)
    cached.use_registry(None)
    read(api)

    after = stats(api)

    assert (before["total_hits"], before["total_misses"], before["hit_ratio"]) == (3, 1, 0.75)
    assert (after["total_hits"], after["local_hits"], after["redis_hits"], after["total_misses"]) == (3, 3, 0, 2)
    assert (after["local_cache_entries"], after["max_size_bytes"]) == (1, 256_000_000)
    assert after["total_size_bytes"] > 600
    assert 0 < after["avg_response_time_ms"] < 1_000


def test_figures_tell_nothing_of_another_workspace(api: Api, as_user: Callable[..., Api]) -> None:
    make_prompt(api)
    read(api)

    other = stats(as_user(workspace="elsewhere"))

    assert [other[name] for name in ("total_misses", "local_cache_entries", "total_size_bytes")] == [0, 0, 0]


@pytest.mark.parametrize(
    ("pattern", "count", "then"),
    [
        ("*", 3, ["fwd=miss"] * 3),
        ("greet*", 2, ["fwd=miss", "fwd=miss", "hit; detail=local"]),
        ("greeter", 1, ["fwd=miss", "hit; detail=local", "hit; detail=local"]),
        ("nobody", 0, ["hit; detail=local"] * 3),
    ],
)
def test_what_a_pattern_names_is_forgotten(api: Api, pattern: str, count: int, then: list[str]) -> None:
    names = ["greeter", "greetings", "waver"]
    for name in names:
        make_prompt(api, name)
    before = [read(api, name) for name in names * 2]

    answer = api.expect(200, "POST", FORGET, {"pattern": pattern})

    assert before == ["fwd=miss"] * 3 + ["hit; detail=local"] * 3
    assert answer == {"prompts": count}
    assert [read(api, name) for name in names] == then


def test_forgetting_shows_what_was_changed_behind_everybodys_back(api: Api) -> None:
    make_prompt(api)
    read(api)
    change_behind_the_back("changed")
    path = "/v1/prompts/greeter/versions/production"
    before = api.expect(200, "GET", path)["message"]

    api.expect(200, "POST", FORGET, {})

    assert (before, api.expect(200, "GET", path)["message"]) == ("", "changed")


def test_forgetting_reaches_only_what_the_key_may_see(api: Api, as_user: Callable[..., Api]) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    make_prompt(api, "outside")
    make_prompt(api, "inside", project="atlas")
    for name, query in (("outside", ""), ("inside", "?project=atlas")):
        read(api, name, query)
    limited = as_user(user="limited", projects=["atlas"])

    answers = [limited.expect(200, "POST", FORGET, {"pattern": pattern}) for pattern in ("outside", "*")]

    assert answers == [{"prompts": 0}, {"prompts": 1}]
    assert [read(api, "outside"), read(api, "inside", "?project=atlas")] == ["hit; detail=local", "fwd=miss"]


def test_a_pattern_that_is_none_is_refused(api: Api) -> None:
    answer = api.request("POST", FORGET, {"pattern": "*eeter"})

    assert (answer.status_code, pointers(answer)) == (422, ["/pattern"])


def test_a_warm_up_makes_the_most_used_ready_for_every_process(api: Api, drain: Drain) -> None:
    for name in ("used", "older", "newer"):
        make_prompt(api, name)
    api.expect(202, "POST", "/v1/executions:submit", run_body("used"))
    drain()
    reader = cached.registry()
    reader.refresh()
    cached.use_registry(None)

    answer = api.expect(200, "POST", WARM_UP, {"limit": 2})

    assert answer == {"prompts": 2, "redis_available": True}
    assert [read(api, name) for name in ("used", "newer", "older")] == ["hit; detail=local"] * 2 + ["fwd=miss"]
    other = cached.registry()
    other.refresh(now=True)
    cached.use_registry(reader)
    reader.refresh(now=True)
    # `other` began after `reader` and so trusted nothing that was in Redis; what it put there since is for both.
    assert read(api, "used") == "hit; detail=redis"


def test_a_warm_up_is_of_a_label_and_of_every_project(api: Api) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    make_prompt(api, "inside", project="atlas")
    api.expect(200, "PUT", "/v1/prompts/inside/labels/canary?project=atlas", {"version_number": 1})

    answers = [api.expect(200, "POST", WARM_UP, {"label": label})["prompts"] for label in ("canary", "staging")]

    assert answers == [1, 0]
    answer = api.request("GET", "/v1/prompts/inside/versions/canary?project=atlas")
    assert answer.headers["Cache-Status"] == "promptmill; hit; detail=local"


def test_a_warm_up_of_the_latest_takes_the_newest_version_of_each_prompt(api: Api) -> None:
    make_prompt(api, "greeter")
    api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": "newer, and no label points at it"})

    answer = api.expect(200, "POST", WARM_UP, {"label": "latest"})

    assert answer["prompts"] == 1
    read_next = api.request("GET", "/v1/prompts/greeter/versions/latest")
    assert read_next.headers["Cache-Status"] == "promptmill; hit; detail=local"
    assert read_next.get_json()["version_number"] == 2


@pytest.mark.parametrize(
    ("body", "pointer"),
    [({"limit": 0}, "/limit"), ({"limit": 10_001}, "/limit"), ({"label": "NO"}, "/label"), ({"latest": 1}, "/latest")],
)
def test_a_warm_up_of_nothing_is_refused(api: Api, body: Any, pointer: str) -> None:
    answer = api.request("POST", WARM_UP, body)

    assert (answer.status_code, pointers(answer)) == (422, [pointer])


def test_a_viewer_may_look_and_no_more(as_user: Callable[..., Api]) -> None:
    viewer = as_user(role=Role.VIEWER)

    assert viewer.request("GET", STATS).status_code == 200
    assert [viewer.request("POST", path, {}).status_code for path in (FORGET, WARM_UP)] == [403, 403]
