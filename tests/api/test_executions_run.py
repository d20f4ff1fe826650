"""POST /v1/executions:run: the same queue, and an answer when it is there."""

import threading
from typing import Any

from tests.servers import RedisServer, wait_until
from tests.support import Api, Drain, Worker, make_prompt, pointers, run_body


def test_run_answers_200_with_the_response_and_its_telemetry(api: Api, drain: Drain) -> None:
    make_prompt(api)

    with Worker(drain):
        done = api.expect(200, "POST", "/v1/executions:run", run_body())

    assert (done["status"], done["mode"]) == ("succeeded", "sync")
    assert done["response_text"]
    assert set(done["telemetry"]) == {"prompt_tokens", "response_tokens", "latency_ms"}


def test_run_answers_202_and_a_location_when_the_wait_is_over(api: Api, drain: Drain) -> None:
    make_prompt(api)

    answer = api.post("/v1/executions:run", run_body(), headers={"Prefer": "wait=0"})

    drain()
    done = api.get(answer.headers["Location"]).get_json()
    assert (answer.status_code, answer.get_json()["status"]) == (202, "queued")
    assert done["status"] == "succeeded"
    assert done["created_at"] < done["started_at"] < done["completed_at"]


def test_run_goes_through_the_interactive_lane(api: Api, drain: Drain) -> None:
    make_prompt(api)
    api.post("/v1/executions:run", run_body(), headers={"Prefer": "wait=0"})

    depth = api.expect(200, "GET", "/v1/status")["queue_depth"]

    assert depth == {"interactive": 1, "maintenance": 0, "optimizations": 0, "deliveries": 0, "executions": 0}


def test_an_impossible_wait_is_refused(api: Api) -> None:
    make_prompt(api)

    for wait in ("wait=-1", "wait=soon", "wait=9999"):
        answer = api.post("/v1/executions:run", run_body(), headers={"Prefer": wait})
        assert (answer.status_code, pointers(answer)) == (400, ["Prefer"])


def test_a_failed_run_answers_200_with_the_error_recorded(api: Api, drain: Drain) -> None:
    """A failed call is an outcome with lineage, not a lost request."""
    make_prompt(api)

    with Worker(drain):
        done = api.expect(
            200,
            "POST",
            "/v1/executions:run",
            run_body(model={"provider": "openai", "model_name": "gpt-4o-mini"}),
        )

    assert done["status"] == "failed"
    assert done["error_type"] == "no_credentials"
    assert "OPENAI_API_KEY" in done["error_message"]


def test_a_waiter_is_woken_by_the_announcement_and_not_only_by_its_poll(
    api: Api, drain: Drain, broker: RedisServer, monkeypatch: Any
) -> None:
    from app import waiting

    make_prompt(api)
    monkeypatch.setattr(waiting, "POLL_SECONDS", 20.0)  # so slow that only a wake-up can end the wait in time
    answers: list[Any] = []
    thread = threading.Thread(
        target=lambda: answers.append(api.post("/v1/executions:run", run_body(), headers={"Prefer": "wait=15"}))
    )

    thread.start()
    wait_until(lambda: waiting._waiting and _is_subscribed(), "the request waits")
    drain()
    thread.join(timeout=10)

    assert not thread.is_alive()
    assert answers[0].get_json()["status"] == "succeeded"


def _is_subscribed() -> bool:
    from shared import messages

    return bool(messages.client().pubsub_numsub(messages.WAKE_CHANNEL)[0][1])


def test_more_waiters_than_half_the_threads_are_not_kept(api: Api, monkeypatch: Any) -> None:
    from app import waiting

    make_prompt(api)
    monkeypatch.setattr(waiting, "_slots", threading.BoundedSemaphore(1))
    waiting._slots.acquire()

    answer = api.post("/v1/executions:run", run_body())  # the default wait is 30 s

    assert answer.status_code == 202
