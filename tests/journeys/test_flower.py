"""Flower beside a real worker and a real Redis: the workers and the tasks, for those who know the password."""

import base64
import json
import urllib.error
import urllib.request
from typing import Any

from tests.journeys.stack import LocalStack, running_stack
from tests.servers import wait_until

PAGES = ("/api/workers", "/api/tasks", "/api/queues/length", "/workers", "/tasks", "/")


def test_flower_shows_workers_and_tasks_with_the_password_and_nothing_without() -> None:
    with running_stack(WORKERS="1") as stack:
        credentials, address = stack.up["flower_url"].removeprefix("http://").split("@")
        url = f"http://{address}"
        user = credentials.split(":")[0]
        stack.call("PUT", "/v1/prompts/hello", {"template_source": "Say hello to {{ name }}.", "set_active": True})

        execution_id = run(stack)

        wait_until(lambda: shown_workers(url, credentials) == {"worker1"}, "Flower shows the worker", every=0.2)
        wait_until(
            lambda: "promptmill.claim" in {task["name"] for task in tasks(url, credentials)},
            "Flower shows the message that woke the worker",
            every=0.2,
        )
        claims = [task for task in tasks(url, credentials) if task["name"] == "promptmill.claim"]
        assert all(task["worker"].startswith("worker1@") for task in claims)
        assert execution_id not in json.dumps(claims)  # messages hold ids of jobs and nothing else
        assert {status_of(url + page) for page in PAGES} == {401}
        assert {status_of(url + page, f"{user}:wrong") for page in PAGES} == {401}
        # What Flower leaves open whatever it is told; the runbook says to keep it from the world.
        assert status_of(url + "/metrics") == 200


def run(stack: LocalStack) -> str:
    body = {
        "prompt_name": "hello",
        "variables": {"name": "Ada"},
        "model": {"provider": "simulated", "model_name": "simulated-small"},
    }
    return str(stack.call("POST", "/v1/executions:run", body)["execution_id"])


def shown_workers(url: str, credentials: str) -> set[str]:
    found: dict[str, Any] = ask(f"{url}/api/workers?refresh=1", credentials) or {}
    return {name.split("@")[0] for name in found}


def tasks(url: str, credentials: str) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = ask(f"{url}/api/tasks", credentials) or {}
    return [task for task in found.values() if task["worker"]]


def ask(url: str, credentials: str | None = None) -> Any:
    """What Flower answers; None while it does not."""
    try:
        with urllib.request.urlopen(request(url, credentials), timeout=10) as answer:
            return json.load(answer)
    except OSError:
        return None


def status_of(url: str, credentials: str | None = None) -> int:
    try:
        with urllib.request.urlopen(request(url, credentials), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def request(url: str, credentials: str | None) -> urllib.request.Request:
    headers = {"Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"} if credentials else {}
    return urllib.request.Request(url, headers=headers)
