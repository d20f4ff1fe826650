"""`Prefer: wait=N` on the GET of what takes a while: the answer comes when it has ended."""

import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from app import waiting
from shared import messages
from tests.servers import RedisServer, wait_until
from tests.support import (
    MODEL,
    Api,
    Drain,
    evaluation_body,
    make_prompt,
    make_triage,
    optimization_body,
    pointers,
    run_body,
)


def started(api: Api, kind: str) -> str:
    """The path of one that waits for workers."""
    if kind == "executions":
        make_prompt(api)
        made = api.expect(202, "POST", "/v1/executions:submit", run_body())
        return f"/v1/executions/{made['execution_id']}"
    make_triage(api)
    if kind == "evaluations":
        made = api.expect(202, "POST", "/v1/evaluations", evaluation_body())
        return f"/v1/evaluations/{made['evaluation_id']}"
    if kind == "optimizations":
        made = api.expect(202, "POST", "/v1/optimizations", optimization_body())
        return f"/v1/optimizations/{made['optimization_id']}"
    api.expect(201, "POST", "/v1/datasets", {"name": "written"})
    body = {"prompt_name": "triage", "count": 5, "model": MODEL}
    made = api.expect(202, "POST", "/v1/datasets/written/cases:generate", body)
    return f"/v1/generations/{made['generation_id']}"


@pytest.fixture
def followed(api: Api) -> Callable[[str], Callable[[], Any]]:
    """A GET that waits, in a thread of its own; the call that gives its answer once that has come."""

    def follow(path: str) -> Callable[[], Any]:
        answers: list[Any] = []
        thread = threading.Thread(
            target=lambda: answers.append(api.get(path, headers={"Prefer": "wait=60"}).get_json()), daemon=True
        )
        thread.start()
        wait_until(lambda: path.rsplit("/", 1)[1] in waiting._waiting, "the request waits")

        def answer() -> Any:
            thread.join(timeout=20)
            assert not thread.is_alive()
            return answers[0]

        return answer

    return follow


@pytest.mark.parametrize("kind", ["executions", "evaluations", "optimizations", "generations"])
def test_a_get_that_prefers_to_wait_answers_with_the_end(api: Api, drain: Drain, followed: Any, kind: str) -> None:
    path = started(api, kind)
    assert api.expect(200, "GET", path)["status"] == "queued"  # without the preference: at once
    answer = followed(path)

    drain()

    assert answer()["status"] == "succeeded"


@pytest.mark.parametrize("kind", ["evaluations", "optimizations", "generations"])
@pytest.mark.parametrize("ending", ["succeeded", "canceled"])
def test_who_waits_for_a_run_is_woken_by_its_end_and_not_only_by_the_poll(
    api: Api, drain: Drain, broker: RedisServer, followed: Any, monkeypatch: pytest.MonkeyPatch, kind: str, ending: str
) -> None:
    monkeypatch.setattr(waiting, "POLL_SECONDS", 60.0)  # so slow that only a wake-up can end the wait in time
    path = started(api, kind)
    answer = followed(path)
    wait_until(lambda: messages.client().pubsub_numsub(messages.WAKE_CHANNEL)[0][1], "it listens")

    if ending == "canceled":
        api.post(f"{path}/cancel", {})
    drain()

    assert answer()["status"] == ending


def test_when_the_wait_is_over_it_is_shown_as_it_is(api: Api) -> None:
    path = started(api, "evaluations")

    answer = api.get(path, headers={"Prefer": "wait=1"})

    assert (answer.status_code, answer.get_json()["status"]) == (200, "queued")


def test_nobody_waits_for_what_he_may_not_see(api: Api, as_user: Callable[..., Api]) -> None:
    path = started(api, "evaluations")
    stranger = as_user(workspace="elsewhere")
    seen: list[tuple[str, int]] = []

    def ask(caller: Api, asked: str) -> None:
        seen.append((asked, caller.get(asked, headers={"Prefer": "wait=300"}).status_code))

    missing = f"/v1/evaluations/{uuid.uuid4()}"
    threads = [threading.Thread(target=ask, args=asking, daemon=True) for asking in ((stranger, path), (api, missing))]
    for thread in threads:
        thread.start()
        thread.join(timeout=20)

    assert seen == [(path, 404), (missing, 404)]


def test_an_impossible_wait_is_refused(api: Api) -> None:
    answer = api.get(started(api, "evaluations"), headers={"Prefer": "wait=301"})

    assert (answer.status_code, pointers(answer)) == (400, ["Prefer"])
