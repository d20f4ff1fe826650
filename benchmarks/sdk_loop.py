"""What a user writes without us: the SDK in a pool of threads. No database, no retry, nothing kept."""

import threading
from concurrent.futures import ThreadPoolExecutor

import openai

from benchmarks.work import MODEL, Clock, Measured, messages


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


def _warm_up(pool: ThreadPoolExecutor, concurrency: int, ask: object) -> None:
    """Every thread is there and has its connection."""
    together = threading.Barrier(concurrency)

    def first(number: int) -> None:
        together.wait()
        assert callable(ask)
        ask(number)

    list(pool.map(first, range(concurrency)))
