"""The code-first and the mixed-mode workflow of the PromptLedger list, on the whole stack and both databases."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.hashing import sha256
from tests.journeys.stack import ROOT, LocalStack, running_stack
from tests.servers import free_port

MODEL = {"provider": "simulated", "model_name": "simulated-small"}


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def stack(request: pytest.FixtureRequest) -> Iterator[LocalStack]:
    with running_stack(
        DB=request.param, PORT=str(free_port()), WORKERS="1", PROMPTMILL_SIMULATED_LATENCY_MS="0"
    ) as running:
        yield running


def example() -> str:
    """The program of the how-to."""
    page = (ROOT / "docs/how-to/keep-prompts-in-code.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    return block


def run(stack: LocalStack, directory: Path, program: str) -> list[str]:
    """The lines that a program prints, as its author would start it."""
    path = directory / "program.py"
    path.write_text(program)
    done = subprocess.run(
        [sys.executable, str(path)],
        env={**os.environ, "PROMPTMILL_URL": stack.up["url"], "PROMPTMILL_KEY": stack.up["api_key"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def register(stack: LocalStack, project: str, **sources: str) -> dict[str, Any]:
    prompts = [
        {"name": name, "template_source": source, "template_hash": sha256(source), "model": MODEL}
        for name, source in sources.items()
    ]
    answer = stack.call("POST", "/v1/prompts/register-code", {"prompts": prompts, "project": project})
    return {item["name"]: (item["version"], item["change_detected"]) for item in answer["registered"]}


def refused(stack: LocalStack, method: str, path: str, body: Any) -> str:
    """What the 409 says."""
    with pytest.raises(AssertionError, match=f"{re.escape(path)}: 409") as caught:
        stack.call(method, path, body)
    return str(json.loads(str(caught.value).partition(": 409 ")[2])["detail"])


def test_the_program_of_the_how_to_works_as_it_stands_and_after_each_change(stack: LocalStack, tmp_path: Path) -> None:
    program = example()

    first = run(stack, tmp_path, program)
    again = run(stack, tmp_path, program)
    changed = run(stack, tmp_path, program.replace("three bullet points", "one line"))
    rolled_back = run(stack, tmp_path, program)

    assert [lines[:2] for lines in (first, again, changed, rolled_back)] == [
        ["WELCOME 1 changed", "SUMMARY 1 changed"],
        ["WELCOME 1 unchanged", "SUMMARY 1 unchanged"],
        ["WELCOME 1 unchanged", "SUMMARY 2 changed"],
        ["WELCOME 1 unchanged", "SUMMARY 1 changed"],
    ]
    assert all(lines[2] for lines in (first, again, changed, rolled_back))


def test_the_code_first_workflow(stack: LocalStack) -> None:
    """4.6 and 11.2 of the list: register many, execute sync and async, change, register again, analytics, history."""
    stack.call("POST", "/v1/projects", {"name": "code-first"})
    here = "?project=code-first"
    sources = {name: f"Say {name} to {{{{ name }}}}" for name in ("HELLO", "BYE", "THANKS")}

    assert register(stack, "code-first", **sources) == dict.fromkeys(sources, (1, True))
    waited = {
        name: stack.call("POST", f"/v1/prompts/{name}/execute{here}", {"variables": {"name": "Ada"}})
        for name in sources
    }
    submitted = {
        name: stack.call("POST", f"/v1/prompts/{name}/execute{here}", {"variables": {"name": "Bob"}, "mode": "async"})
        for name in sources
    }
    ended = [stack.await_end(f"/v1/executions/{item['execution_id']}") for item in submitted.values()]
    assert register(stack, "code-first", **sources) == dict.fromkeys(sources, (1, False))
    sources["HELLO"] += "!"
    assert register(stack, "code-first", **sources) == {"HELLO": (2, True), "BYE": (1, False), "THANKS": (1, False)}
    pinned = stack.call("POST", f"/v1/prompts/HELLO/execute{here}", {"variables": {"name": "Cleo"}, "version": 1})

    assert {item["status"] for item in [*waited.values(), *ended, pinned]} == {"succeeded"}
    assert {item["prompt_mode"] for item in waited.values()} == {"tracking"}
    assert all(item["response_text"] and item["telemetry"]["prompt_tokens"] for item in waited.values())
    assert pinned["version_used"] == 1
    usage = stack.call("GET", f"/v1/analytics/prompts{here}&mode=tracking")
    assert usage["summary"]["total_executions"] == usage["by_mode"]["tracking"]["succeeded"] == 7
    assert usage["by_mode"]["tracking"]["prompt_count"] == 3
    assert usage["by_mode"]["tracking"]["total_cost_usd"] > 0
    history = stack.call("GET", f"/v1/prompts/HELLO/history{here}&mode=tracking")
    assert history["current_version"] == 2
    assert [(item["version"], item["execution_count"]) for item in history["versions"]] == [(2, 0), (1, 3)]
    assert history["versions"][0]["template_hash"] == sha256(sources["HELLO"])


def test_the_mixed_mode_workflow(stack: LocalStack) -> None:
    """4.6 and 11.3: both modes side by side, one analytics, no way across but the one that is there for it."""
    stack.call("POST", "/v1/projects", {"name": "mixed"})
    here = "?project=mixed"
    managed = {"template_source": "Summarize: {{ text }}", "set_active": True, "model": MODEL}
    stack.call("PUT", f"/v1/prompts/summarizer{here}", managed)
    register(stack, "mixed", GREETING="Greet {{ name }}")

    run = {"prompt_name": "summarizer", "project": "mixed", "variables": {"text": "It rained."}}
    done = stack.call("POST", "/v1/executions:run", run)
    submitted = stack.call("POST", "/v1/executions:submit", run)
    stack.await_end(f"/v1/executions/{submitted['execution_id']}")
    executed = stack.call("POST", f"/v1/prompts/GREETING/execute{here}", {"variables": {"name": "Ada"}})
    code = {"prompts": [{"name": "summarizer", "template_source": "x"}], "project": "mixed"}
    refusals = [
        refused(stack, "POST", f"/v1/prompts/summarizer/execute{here}", {"variables": {"text": "x"}}),
        refused(stack, "POST", "/v1/prompts/register-code", code),
        refused(stack, "PUT", f"/v1/prompts/GREETING{here}", managed),
    ]
    usage = stack.call("GET", f"/v1/analytics/prompts{here}")
    stack.call("POST", f"/v1/prompts/GREETING/mode{here}", {"mode": "full", "reason": "handed over"})
    put = stack.call("PUT", f"/v1/prompts/GREETING{here}", managed)
    after = stack.call("GET", f"/v1/analytics/prompts{here}")

    assert (done["status"], executed["status"]) == ("succeeded", "succeeded")
    assert [
        word in text for word, text in zip(("executions:run", "/mode", "register-code"), refusals, strict=True)
    ] == [True] * 3
    assert {mode: (shown["prompt_count"], shown["succeeded"]) for mode, shown in usage["by_mode"].items()} == {
        "full": (1, 2),
        "tracking": (1, 1),
    }
    assert put["version"]["version_number"] == 2
    assert (after["summary"]["total_executions"], after["by_mode"]["full"]["execution_count"]) == (3, 3)
    assert stack.call("GET", f"/v1/prompts/summarizer/history{here}")["versions"][0]["execution_count"] == 2
