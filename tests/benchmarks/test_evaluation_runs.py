"""The benchmark of evaluations still runs. What it finds is for docs/performance.md, not for a test."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import evaluations, stub

ROOT = Path(__file__).parents[2]


def test_a_small_run_measures_ours_beside_the_bare_loop() -> None:
    """On one database: nothing in it but the address depends on which, and the registry's runs on both."""
    report = run("--smoke", "--database", "postgresql")

    assert set(report["contenders"]) == {"sdk_loop", "promptmill"}
    assert [each["calls"] for each in report["contenders"].values()] == [[12], [12]]
    phases = report["contenders"]["promptmill"]["phases_ms"]
    assert list(phases) == ["post", "claim", "calls", "score"]
    assert phases["calls"]["median"] >= 5  # the provider's latency
    (judged,) = report["targets"]
    assert judged["found"] == report["ratio"]["promptmill / sdk_loop"]["median"]


def test_the_stub_answers_after_its_latency_and_says_how_many_calls_were_in_flight_at_once() -> None:
    counting = stub.Counting()

    async def ask() -> tuple[int, float]:
        server = await asyncio.get_running_loop().create_server(lambda: stub.Connection(counting, 0.05), "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            answered = await asyncio.gather(*(one_call(port) for _ in range(3)))
        return sum(answered), counting.read()["seconds"]

    answers, seconds = asyncio.run(ask())
    after = counting.read()

    assert answers == 3
    assert seconds >= 0.05
    assert after["calls"] == 0


def test_the_tally_counts_calls_and_the_most_at_once_and_begins_anew_when_it_is_read() -> None:
    counting = stub.Counting()
    counting.began()
    counting.began()
    counting.ended()
    counting.ended()
    counting.began()

    first, second = counting.read(), counting.read()

    assert (first["calls"], first["most_in_flight"]) == (2, 2)
    assert (second["calls"], second["most_in_flight"]) == (0, 1)


def test_a_contender_that_makes_another_number_of_calls_fails_the_run() -> None:
    options = evaluations.argparse.Namespace(cases=4, in_flight=2)
    bench = evaluations.Bench(options, Path(), {}, 0, 0, [], {})

    with pytest.raises(AssertionError, match="5 calls and 4 right of 4"):
        bench.measured("twice", lambda first: found(1.0, right=4, calls=5))


def test_ratios_are_taken_within_a_round_and_judged_at_their_median() -> None:
    rounds = [{"sdk_loop": found(1.0), "promptmill": found(ours), "dspy": found(2.0)} for ours in (1.2, 1.5, 1.3)]

    figures = evaluations.figures(rounds)

    assert figures["ratio"]["promptmill / sdk_loop"] == {"median": 1.3, "min": 1.2, "max": 1.5}
    assert figures["ratio"]["promptmill / dspy"]["median"] == 0.65
    (judged,) = evaluations.judged(figures)
    assert judged == {"what": "evaluation_ratio", "target": "at most 1.4", "found": 1.3, "met": True}


def test_every_part_contender_and_target_stands_in_the_documentation() -> None:
    page = (ROOT / "docs/performance.md").read_text().split("## Evaluations")[1]

    named = [*evaluations.PARTS, "sdk_loop", "promptmill", "promptfoo", "dspy"]
    assert [name for name in named if f"| `{name}` |" not in page] == []
    assert "`evaluation_ratio`" in page


async def one_call(port: int) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return head.count(b"200 OK")


def found(seconds: float, *, right: int = 4, calls: int = 4) -> Any:
    tally = {"calls": calls, "most_in_flight": 2, "seconds": seconds}
    return {"seconds": seconds, "right": right, "cpu_seconds": 0.1, "tally": tally, "busy_before_percent": 0.0}


def run(*options: str) -> Any:
    command = [sys.executable, "-m", "benchmarks.evaluations", *options]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=200)
    return json.loads(done.stdout)
