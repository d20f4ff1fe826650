"""Every command of the README and of the tutorial is run, against the stack that they start."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.stack import ROOT, LocalStack, running_stack
from tests.servers import free_port

# These start or test the whole of it: `make demo` and `make up` are run by the other journeys, and
# `make check` is what is running now. That they exist, and what they would run, is checked below.
MAKE = {"make demo": "-m local demo", "make up": "-m local up", "make check": "-m pytest"}


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    with running_stack(WORKERS="1", PORT=str(free_port()), PROMPTMILL_SIMULATED_LATENCY_MS="0") as running:
        yield running


def blocks(page: str) -> list[str]:
    found = re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert found
    return [block.strip() for block in found]


def shell(stack: LocalStack, directory: Path, script: str) -> str:
    """Run it as a reader would: in a checkout whose .promptmill is the running stack's home."""
    home = directory / ".promptmill"
    if not home.exists():
        home.symlink_to(stack.home)
        (directory / "worker").symlink_to(ROOT / "worker")
    here = script.replace("http://localhost:8000", stack.up["url"])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", here], cwd=directory, capture_output=True, text=True, check=False, timeout=90
    )
    assert done.returncode == 0, (here, done.stdout, done.stderr)
    return done.stdout


def test_every_make_command_of_the_readme_exists_and_runs_what_it_says() -> None:
    commands = [block for block in blocks("README.md") if block.startswith("make")]

    assert set(commands) == set(MAKE)
    for command in commands:
        plan = subprocess.run(
            [*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        assert MAKE[command] in plan


def test_the_curl_example_of_the_readme_works_as_it_stands(stack: LocalStack, tmp_path: Path) -> None:
    (example,) = (block for block in blocks("README.md") if "curl" in block)

    output = shell(stack, tmp_path, example)

    upserted, run = parsed(output)
    assert upserted["version"]["version_number"] == 1
    assert run["status"] == "succeeded"
    assert run["response_text"] == "Rain fell all week."
    assert set(run["telemetry"]) == {"prompt_tokens", "response_tokens", "latency_ms"}


def test_the_tutorial_works_from_top_to_bottom(stack: LocalStack, tmp_path: Path) -> None:
    steps = [block for block in blocks("docs/tutorial/first-optimization.md") if not block.startswith("make")]
    set_up, *calls, release = steps

    output = shell(stack, tmp_path, "\n".join([set_up, *calls]))
    prompt, dataset, imported, evaluation, optimization = parsed(output)
    done = stack.await_end(f"/v1/optimizations/{optimization['optimization_id']}")
    shell(stack, tmp_path, "\n".join([set_up, release]))

    assert prompt["version_change"] is True
    assert dataset["case_count"] == 0
    assert imported["added"] == 420
    assert stack.await_end(f"/v1/evaluations/{evaluation['evaluation_id']}")["status"] == "succeeded"
    assert done["result"]["verdict"] == "improved"
    assert stack.call("GET", "/v1/prompts/triage")["active_version"]["version_number"] == 2


def parsed(output: str) -> list[dict[str, object]]:
    """The JSON objects of an output, one after the other."""
    decoder, found, at = json.JSONDecoder(), [], 0
    text = output.strip()
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        found.append(value)
        at += len(text[at:]) - len(text[at:].lstrip())
    return found
