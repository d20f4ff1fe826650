"""A flood of slow batch work, and somebody who waits for one answer."""

from typing import Any

from tests.journeys.stack import LocalStack, running_stack
from tests.servers import ProviderServer, wait_until

FLOOD = 20_000  # in two batches
SLOTS = 2 * 16


def test_a_run_begins_before_any_call_of_a_flood_of_twenty_thousand_slow_ones_has_ended(
    provider: ProviderServer,
) -> None:
    provider.set_latency(10_000)
    with running_stack(DB="postgres", OPENAI_BASE_URL=provider.base_url) as stack:
        model = {"provider": "openai", "model_name": "simulated-small"}
        prompt = {"template_source": "Say {{ word }}.", "set_active": True, "model": model}
        stack.call("PUT", "/v1/prompts/echo", prompt)
        batches = [submit(stack, first, FLOOD // 2) for first in (0, FLOOD // 2)]
        wait_until(lambda: counts(stack, batches)["running"] == SLOTS - 4, "every slot for batch work is taken")

        body = {"prompt_name": "echo", "variables": {"word": "now"}}
        asked = stack.call("POST", "/v1/executions:run", body, Prefer="wait=0")
        wait_until(lambda: state(stack, asked) == "running", "the run has begun")
        flood = counts(stack, batches)
        answered = stack.await_end(f"/v1/executions/{asked['execution_id']}")
        for path in batches:
            stack.call("POST", f"{path}/cancel")
        stack.kill_everything()

    assert (flood["succeeded"], flood["running"], flood["queued"]) == (0, SLOTS - 4, FLOOD - SLOTS + 4)
    assert answered["status"] == "succeeded"


def submit(stack: LocalStack, first: int, count: int) -> str:
    items = [{"variables": {"word": f"word {first + number}"}} for number in range(count)]
    answer = stack.call("POST", "/v1/executions:batch", {"prompt_name": "echo", "items": items})
    assert answer["accepted"] == count
    return f"/v1/batches/{answer['batch_id']}"


def counts(stack: LocalStack, batches: list[str]) -> dict[str, Any]:
    found = [stack.call("GET", path)["counts"] for path in batches]
    return {name: sum(each[name] for each in found) for name in found[0]}


def state(stack: LocalStack, asked: Any) -> Any:
    return stack.call("GET", f"/v1/executions/{asked['execution_id']}")["status"]
