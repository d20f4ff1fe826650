"""A team forks a prompt, refines it, releases it, rolls it back and undoes that: with two API processes, and readers
that read by label all the time."""

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.journeys.stack import LocalStack, running_stack
from tests.servers import free_port

READ = "/v1/prompts/fork-of-triage/versions/production"
LABEL = "/v1/prompts/fork-of-triage/labels/production"
SECONDS = 1.0  # within which every process shows a change


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def stack(request: pytest.FixtureRequest) -> Iterator[LocalStack]:
    with running_stack(
        DB=request.param, PORT=str(free_port()), WORKERS="1", PROMPTMILL_SIMULATED_LATENCY_MS="0"
    ) as running:
        yield running


def etag_of(stack: LocalStack, path: str) -> str:
    request = urllib.request.Request(stack.up["url"] + path, headers={"X-API-Key": stack.up["api_key"]})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.headers["ETag"])


def refused(stack: LocalStack, method: str, path: str, body: Any, **headers: str) -> str:
    with pytest.raises(AssertionError) as error:
        stack.call(method, path, body, **headers)
    return str(error.value)


def seen(stack: LocalStack) -> set[int]:
    """The versions that readers get; each request is a new connection, so that every process answers some."""
    return {stack.call("GET", READ)["version_number"] for _ in range(12)}


def await_everywhere(stack: LocalStack, version_number: int) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and seen(stack) != {version_number}:
        pass
    assert seen(stack) == {version_number}


def test_fork_refine_release_roll_back_and_undo(stack: LocalStack) -> None:
    original = {"template_source": "Sort this ticket: {{ ticket }}", "set_active": True, "category": "support"}
    stack.call("PUT", "/v1/prompts/triage", original)

    forked = stack.call("POST", "/v1/prompts/triage/fork", {"name": "fork-of-triage", "set_active": True})
    await_everywhere(stack, 1)
    refined = {"template_source": "Sort this ticket by urgency: {{ ticket }}", "message": "asked for by support"}
    second = stack.call("PUT", "/v1/prompts/fork-of-triage", refined)
    unreleased = seen(stack)
    held = etag_of(stack, LABEL)
    stack.call("PUT", LABEL, {"version_number": 2, "reason": "release 7"}, **{"If-Match": held})
    await_everywhere(stack, 2)
    too_late = refused(stack, "PUT", LABEL, {"version_number": 1}, **{"If-Match": held})
    rolled_back = stack.call("POST", "/v1/prompts/fork-of-triage/rollback", {"to": 1, "message": "complaints"})
    await_everywhere(stack, 1)
    stack.call("POST", f"{LABEL}/undo", {"reason": "false alarm"})
    await_everywhere(stack, 2)

    assert forked["forked_from"]["prompt_name"] == "triage"
    assert (second["version"]["version_number"], unreleased) == (2, {1})
    assert "412" in too_late
    assert (rolled_back["version"]["version_number"], rolled_back["moved"]) == (1, True)
    history = stack.call("GET", f"{LABEL}/history")["data"]
    assert [(move["from_version"], move["to_version"]) for move in history] == [(1, 2), (2, 1), (1, 2), (None, 1)]
    assert [bool(move["undoes"]) for move in history] == [True, False, False, False]
    at = history[1]["moved_at"].replace("+", "%2B")
    assert stack.call("GET", f"{LABEL}?at={at}")["version_number"] == 1
    lineage = stack.call("GET", "/v1/prompts/fork-of-triage/lineage")
    assert [ancestor["prompt_name"] for ancestor in lineage["ancestors"]] == ["triage"]
    assert stack.call("GET", "/v1/prompts/triage")["active_version"]["version_number"] == 1


def test_readers_are_answered_from_memory_by_every_process(stack: LocalStack) -> None:
    stack.call("PUT", "/v1/prompts/read-often", {"template_source": "x", "set_active": True})
    for _ in range(40):
        stack.call("GET", "/v1/prompts/read-often/versions/production")

    stats = stack.call("GET", "/v1/cache/stats")

    assert stats["redis_available"] is True
    assert stats["local_hits"] > 30


def test_a_worker_that_makes_a_version_is_noticed_by_every_reader(stack: LocalStack) -> None:
    """A search ends in a process that serves no reader, and `latest` is what it found."""
    stack.prepare_tickets({"provider": "simulated", "model_name": "simulated-small"})
    path = "/v1/prompts/ticket-triage/versions/latest"
    before = {stack.call("GET", path)["version_number"] for _ in range(12)}

    run = stack.optimize(
        strategy="random", knobs={"proposals": 4}, evaluation={"min_cases": 8}, budget={"max_task_calls": 1500}
    )
    found = stack.await_end(run)
    time_of_end = time.monotonic()
    after = {stack.call("GET", path)["version_number"] for _ in range(12)}
    while after != {found["best_version_number"]} and time.monotonic() - time_of_end < SECONDS:
        after = {stack.call("GET", path)["version_number"] for _ in range(12)}

    assert (before, found["status"]) == ({1}, "succeeded")
    assert after == {found["best_version_number"]}
