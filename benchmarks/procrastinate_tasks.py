"""The same call as Procrastinate jobs, on the same PostgreSQL.

Its best configuration is used: one worker with our concurrency, a pool of connections to match, deferring in
one batch, finished jobs kept (as we keep ours). Both kinds of task that it knows are measured.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import procrastinate
import psycopg

from benchmarks.work import MODEL, Clock, Measured, database_url, messages

# As long as the first counted job began, and the last was finished: its own rows say when.
_SPAN = """
SELECT extract(epoch FROM max(at) FILTER (WHERE type = 'succeeded') - min(at) FILTER (WHERE type = 'started')),
       count(*) FILTER (WHERE type = 'succeeded')
FROM procrastinate_events JOIN procrastinate_jobs AS job ON job.id = job_id WHERE queue_name = 'bench'
"""


def prepare() -> None:
    """Its tables, in an empty database."""
    with _app(1).open() as app:
        app.schema_manager.apply_schema()


def finish(*, jobs: int, concurrency: int, sync: bool) -> Measured:
    measured = asyncio.run(_finish(jobs, concurrency, sync))
    with psycopg.connect(database_url()) as connection:
        row = connection.execute(_SPAN).fetchone()
    assert row is not None
    seconds, count = row
    assert count == jobs
    return {**measured, "seconds": float(seconds)}


def submit(*, jobs: int) -> Measured:
    """One `batch_defer`; the arguments are made before."""
    app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=database_url()))

    @app.task(queue="bench")
    def ask(content: list[Any]) -> None:
        pass

    arguments = [{"content": messages(number)} for number in range(jobs)]
    with app.open():
        ask.batch_defer(*arguments[:10])
        clock = Clock()
        ask.batch_defer(*arguments)
        return clock.measured(jobs)


def _app(connections: int) -> procrastinate.App:
    connector = procrastinate.PsycopgConnector(conninfo=database_url(), min_size=1, max_size=connections)
    return procrastinate.App(connector=connector)


async def _finish(jobs: int, concurrency: int, sync: bool) -> Measured:
    """Run warm-up jobs, then the counted ones."""
    # The loop's own pool has few threads; a synchronous task would wait for one.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(concurrency))
    app = _app(min(concurrency, 32) + 2)
    task = _sync_task(app) if sync else _async_task(app)
    async with app.open_async():
        options = {"concurrency": concurrency, "wait": False, "install_signal_handlers": False}
        await task.configure(queue="warm").batch_defer_async(*_arguments(4 * concurrency))
        await app.run_worker_async(queues=["warm"], **options)
        await task.configure(queue="bench").batch_defer_async(*_arguments(jobs))
        clock = Clock()
        await app.run_worker_async(queues=["bench"], **options)
        return clock.measured(jobs)


def _sync_task(app: procrastinate.App) -> procrastinate.tasks.Task:
    client = openai.OpenAI(max_retries=0)

    @app.task
    def ask(content: list[Any]) -> None:
        answer = client.chat.completions.create(model=MODEL, messages=content)
        assert answer.choices[0].message.content is not None

    return ask


def _async_task(app: procrastinate.App) -> procrastinate.tasks.Task:
    client = openai.AsyncOpenAI(max_retries=0)

    @app.task
    async def ask(content: list[Any]) -> None:
        answer = await client.chat.completions.create(model=MODEL, messages=content)
        assert answer.choices[0].message.content is not None

    return ask


def _arguments(jobs: int) -> list[dict[str, object]]:
    return [{"content": messages(number)} for number in range(jobs)]
