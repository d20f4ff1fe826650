"""Clients of PromptLedger keep working: every curl command of its README, with the bodies that it promised."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.stack import LocalStack, running_stack
from tests.servers import ProviderServer, free_port

COMMANDS = Path(__file__).with_name("prompt_ledger_commands.sh")


@pytest.fixture(params=["sqlite", "postgres"])
def stack(request: pytest.FixtureRequest, provider: ProviderServer) -> Iterator[LocalStack]:
    with running_stack(
        DB=request.param,
        PORT=str(free_port()),
        WORKERS="1",
        PROMPTMILL_API_KEY="dev-key-change-in-production",
        OPENAI_BASE_URL=provider.base_url,
    ) as running:
        yield running


def curl(stack: LocalStack, command: str) -> Any:
    here = command.replace("http://localhost:8000", stack.up["url"]).replace("curl ", "curl -sSf ", 1)
    done = subprocess.run(["bash", "-c", here], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, (here, done.stdout, done.stderr)
    return json.loads(done.stdout)


def test_every_curl_command_of_the_prompt_ledger_readme_answers_as_it_said(stack: LocalStack) -> None:
    put, get, versions, run, submit, poll = COMMANDS.read_text().split("\n\n")[1:]

    upserted = curl(stack, put)
    prompt = curl(stack, get)
    listed = curl(stack, versions)
    done = curl(stack, run)
    submitted = curl(stack, submit)
    stack.await_end(f"/v1/executions/{submitted['execution_id']}")
    polled = curl(stack, poll.replace("{execution_id}", submitted["execution_id"]))

    assert set(upserted) == {"prompt", "version", "version_change"}
    assert upserted["prompt"] == {"prompt_id": prompt["prompt_id"], "name": "doc_summarizer"}
    assert upserted["version"] == {"version_id": listed["data"][0]["version_id"], "version_number": 1}
    assert (prompt["owner_team"], prompt["active_version"]["version_number"]) == ("AI-Platform", 1)
    assert [version["version_number"] for version in listed["data"]] == [1]
    assert listed["data"][0]["created_by"] == "martin"
    assert (done["status"], done["mode"], done["environment"]) == ("succeeded", "sync", "dev")
    assert done["response_text"]
    assert set(done["telemetry"]) == {"prompt_tokens", "response_tokens", "latency_ms"}
    assert set(submitted) == {"execution_id", "status", "mode"}
    assert (submitted["status"], submitted["mode"]) == ("queued", "async")
    assert polled["status"] == "succeeded"
    assert polled["provider_request_id"].startswith("req_")
    assert polled["params"] == {"max_new_tokens": 800, "temperature": 0.2}
    assert polled["cost_usd"] > 0
    assert curl(stack, put)["version_change"] is False
