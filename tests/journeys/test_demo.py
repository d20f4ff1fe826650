"""`make demo` on an empty home, and what survives when the fleet is killed under the same search.

One process runs these in order: the demo's result is what the others must arrive at.
"""

import json
import re
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.journeys.stack import ROOT, LocalStack, environment, is_alive, running_stack
from tests.servers import ProviderServer, temporary_directory, wait_until

CONCURRENCY, WORKERS = 16, 2


@dataclass(frozen=True)
class Demo:
    output: str
    summary: dict[str, Any]
    run: dict[str, Any]  # the optimization's row
    seconds: float


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """One uninterrupted `make demo`, as the README says it."""
    with temporary_directory() as home:
        before = {process.pid for process in psutil.process_iter()}
        started = time.monotonic()
        done = subprocess.run(
            ["make", "demo"], cwd=ROOT, env=environment(home), capture_output=True, text=True, check=False, timeout=170
        )
        seconds = time.monotonic() - started
        assert done.returncode == 0, done.stdout + done.stderr
        left = [
            process
            for process in psutil.process_iter(["cmdline"])
            if process.pid not in before and str(home) in " ".join(process.info["cmdline"] or [])
        ]
        assert left == []
        yield Demo(done.stdout, json.loads(done.stdout.splitlines()[-1]), optimization_row(home), seconds)


def optimization_row(home: Path) -> dict[str, Any]:
    with sqlite3.connect(home / "promptmill.db") as connection:
        row = connection.execute("SELECT result, finish_reason FROM optimizations").fetchone()
    connection.close()
    return {**json.loads(row[0]), "finish_reason": row[1]}


def test_the_demo_improves_the_prompt_and_the_held_out_cases_confirm_it(demo: Demo) -> None:
    summary = demo.summary

    assert set(summary) == {"baseline_dev", "best_dev", "holdout", "provider_calls", "cost_usd", "seconds"}
    assert set(summary["holdout"]) == {"baseline", "best", "difference", "ci_low", "ci_high", "verdict"}
    assert summary["holdout"]["verdict"] == "improved"
    assert summary["best_dev"] - summary["baseline_dev"] >= 0.20
    assert summary["holdout"]["difference"] >= 0.20
    assert summary["holdout"]["ci_low"] > 0
    assert 0 < summary["cost_usd"] <= 1.0
    assert summary["provider_calls"] > 1000
    assert demo.seconds < 90


def test_the_demo_says_who_answered_what_changed_and_where_the_run_is(demo: Demo) -> None:
    assert "simulated" in demo.output
    assert "verdict: improved" in demo.output
    assert "--- baseline" in demo.output
    assert "+++ best" in demo.output
    assert "/v1/optimizations/" in demo.output
    assert "95 % interval" in demo.output


def test_the_demo_leaves_a_plot_of_its_search(demo: Demo) -> None:
    (plot,) = re.findall(r"^how the search went, as a plot: (.*\.svg)$", demo.output, re.MULTILINE)

    assert "best so far" in Path(plot).read_text(encoding="utf-8")


def test_the_printed_parts_of_the_bill_add_up_to_the_last_line(demo: Demo) -> None:
    calls = re.findall(r"(\d+) (?:task |proposer )?calls", bill := demo.output.split("baseline on all cases: ")[1])
    usd = [Decimal(amount) for amount in re.findall(r"([\d.]+) USD", bill)]

    scored, searched, proposed, together = map(int, calls)
    assert scored + searched + proposed == together == demo.summary["provider_calls"]
    assert usd[0] + usd[1] == usd[2] == Decimal(str(demo.summary["cost_usd"]))


def test_killing_every_worker_three_times_on_postgresql_changes_neither_result_nor_bill(
    demo: Demo, provider: ProviderServer
) -> None:
    """Over the real SDK and a provider that counts: what is repeated is what was in flight."""
    provider.set_latency(40)
    before = provider.calls()
    with running_stack(
        DB="postgres",
        OPENAI_BASE_URL=provider.base_url,
        PROMPTMILL_JOB_LEASE_SECONDS="3",
        PROMPTMILL_SWEEP_SECONDS="1",
        WORKERS=str(WORKERS),
        CONCURRENCY=str(CONCURRENCY),
    ) as stack:
        stack.prepare_tickets({"provider": "openai", "model_name": "simulated-small"})
        path = stack.optimize()

        for calls in (150, 700, 1300):
            await_calls(stack, path, calls)
            stack.kill_workers()
        done = stack.await_end(path)

    assert_same_run(demo, done)
    counted = {key: count - before.get(key, 0) for key, count in provider.calls().items()}
    made, needed = sum(counted.values()), sum(1 for count in counted.values() if count)
    logical = done["spent"]["task_calls"] + done["spent"]["proposer_calls"]
    slots_open = 3 * WORKERS * CONCURRENCY
    assert needed == logical
    assert made <= logical + slots_open
    assert done["spent"]["ambiguous_attempts"] <= slots_open
    assert made - needed <= done["spent"]["ambiguous_attempts"]


def test_killing_workers_and_then_everything_on_sqlite_changes_nothing_and_it_goes_on_by_itself(demo: Demo) -> None:
    with running_stack(PROMPTMILL_JOB_LEASE_SECONDS="3", PROMPTMILL_SWEEP_SECONDS="1") as stack:
        stack.prepare_tickets({"provider": "simulated", "model_name": "simulated-small"})
        path = stack.optimize(budget={"max_task_calls": 4000, "max_cost_usd": 1.0})

        await_calls(stack, path, 400)
        stack.kill_workers()
        await_calls(stack, path, 1000)
        dead = stack.kill_everything()
        assert stack.up_file.exists()  # stale: nobody could remove it
        stack.start()
        done = stack.await_end(path)

    assert not any(is_alive(pid) for pid in dead)
    assert_same_run(demo, done)
    assert done["spent"]["ambiguous_attempts"] <= 2 * WORKERS * CONCURRENCY


def await_calls(stack: LocalStack, path: str, calls: int) -> None:
    """Wait until the run has made so many calls and is in the middle of more."""

    def far_enough() -> bool:
        state = stack.call("GET", path)
        step = state["progress"]["step"]
        return state["spent"]["task_calls"] >= calls and step["done"] < step["total"]

    wait_until(far_enough, f"{calls} calls were made", seconds=90)


def assert_same_run(demo: Demo, done: dict[str, Any]) -> None:
    assert done["status"] == "succeeded", done
    assert {**done["result"], "finish_reason": done["finish_reason"]} == demo.run
    evaluation_calls = 420  # the demo scores its baseline on every case first
    calls = done["spent"]["task_calls"] + done["spent"]["proposer_calls"]
    assert calls == demo.summary["provider_calls"] - evaluation_calls
