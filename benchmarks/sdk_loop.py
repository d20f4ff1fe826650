"""What a user writes without us: the SDK in a pool of threads. No database, no retry, nothing kept."""

import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai

from benchmarks import stub
from benchmarks.work import MODEL, Clock, Evaluated, Measured, messages


def finish(*, jobs: int, concurrency: int) -> Measured:
    client = openai.OpenAI(max_retries=0)

    def ask(number: int) -> str | None:
        answer = client.chat.completions.create(model=MODEL, messages=messages(number))
        return answer.choices[0].message.content

    with ThreadPoolExecutor(concurrency) as pool:
        _warm_up(pool, concurrency, ask)
        clock = Clock()
        answers = sum(answer is not None for answer in pool.map(ask, range(jobs)))
        measured = clock.measured(jobs)
    assert answers == jobs
    return measured


def evaluate(*, port: int, first: int, cases: int, processes: int, in_flight: int) -> Evaluated:
    """Ask for each case and compare, in as many processes; from their release to the last one's last answer."""
    spawn = multiprocessing.get_context("spawn")
    together, answers = spawn.Barrier(processes + 1), spawn.SimpleQueue()
    shares = [range(first + place, first + cases, processes) for place in range(processes)]
    workers = [
        spawn.Process(target=_evaluate_share, args=(share, in_flight // processes, together, answers), daemon=True)
        for share in shares
    ]
    for worker in workers:
        worker.start()
    together.wait(timeout=60)  # all are warm
    stub.tally(port)
    started = time.monotonic()
    together.wait(timeout=60)
    found = [answers.get() for _ in workers]
    seconds = time.monotonic() - started
    for worker in workers:
        worker.join()
    return {
        "seconds": seconds,
        "right": sum(right for right, _ in found),
        "cpu_seconds": sum(cpu_seconds for _, cpu_seconds in found),
        "tally": stub.tally(port),
    }


def _evaluate_share(numbers: range, in_flight: int, together: Any, answers: Any) -> None:
    client = openai.OpenAI(max_retries=0)

    def is_right(number: int) -> bool:
        answer = client.chat.completions.create(model=MODEL, messages=messages(number))
        return answer.choices[0].message.content == stub.ANSWER

    with ThreadPoolExecutor(in_flight) as pool:
        _warm_up(pool, in_flight, is_right)
        together.wait(timeout=60)
        together.wait(timeout=60)
        used = time.process_time()
        right = sum(pool.map(is_right, numbers))
        answers.put((right, time.process_time() - used))


def _warm_up(pool: ThreadPoolExecutor, concurrency: int, ask: object) -> None:
    """Every thread is there and has its connection."""
    together = threading.Barrier(concurrency)

    def first(number: int) -> None:
        together.wait()
        assert callable(ask)
        ask(number)

    list(pool.map(first, range(concurrency)))
