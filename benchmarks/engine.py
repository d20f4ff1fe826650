"""How fast the engine is, beside what else one could use, in the same run. Prints one JSON document.

    make bench-engine            or            python -m benchmarks.engine --help

It runs alone: PostgreSQL (durable), Redis and the provider stub are its own, in a temporary directory. Each
measurement is a process of its own on a database of its own; contenders take turns, so that whatever else the
machine does hits all of them. How to read it: docs/performance.md.
"""

import argparse
import contextlib
import importlib.util
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg
import redis

from benchmarks import places, stub
from benchmarks.places import ROOT, say, spread
from benchmarks.work import Measured
from tests.servers import PostgresServer, RedisServer, free_port, temporary_directory, wait_until

PARTS = ("submit", "finish", "profile", "claim")
Contenders = Mapping[str, Callable[[], Measured]]


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the servers end with it
    with _servers(options.database) as place:
        report: dict[str, Any] = {"machine": _machine(place)}
        report["stub_ceiling_per_s"] = _stub_ceiling(place, options)
        if "submit" in options.part:
            report["submit"] = _submit(place, options)
        if "finish" in options.part:
            report["finish"] = {f"concurrency {n}": _finish(place, options, n) for n in options.concurrency}
        if "profile" in options.part:
            size = {"jobs": options.jobs, "concurrency": options.concurrency[0]}
            report["profile"] = place.measure("benchmarks.promptmill", "profile", place.database("promptmill"), **size)
        if "claim" in options.part:
            report["claim"] = _claim(place, options)
    print(json.dumps(report, indent=2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engine",
        description=(__doc__ or "").split("\n")[0],
        epilog="See docs/performance.md.",
    )
    add = parser.add_argument
    add("--part", action="append", choices=PARTS, help="only this part; may be repeated (default: submit and finish)")
    add("--jobs", type=int, default=3_000, help="executions per measurement of `finish` (%(default)s)")
    add("--submit-jobs", type=int, default=10_000, help="executions per measurement of `submit` (%(default)s)")
    add("--concurrency", type=int, nargs="+", default=[16, 64], help="calls in flight (16 64)")
    add("--repeat", type=int, default=3, help="how often each contender is measured, in turns (%(default)s)")
    add("--database", choices=("postgresql", "sqlite"), default="postgresql", help="what ours runs on (%(default)s)")
    add("--finished", type=int, default=10_000_000, help="finished jobs of the large table of `claim` (%(default)s)")
    add("--queued", type=int, default=1_000_000, help="queued jobs of the large table of `claim` (%(default)s)")
    add("--claims", type=int, default=200, help="claims per measurement of `claim` (%(default)s)")
    add("--smoke", action="store_true", help="tiny sizes, once: does it run at all?")
    chosen = parser.parse_args()
    chosen.part = chosen.part or ["submit", "finish"]
    if chosen.smoke:
        chosen.jobs, chosen.submit_jobs, chosen.concurrency, chosen.repeat = 40, 40, [4], 1
        chosen.finished, chosen.queued, chosen.claims = 10_000, 5_000, 5
    if "claim" in chosen.part and chosen.database == "sqlite":
        parser.error("claim: its tables are made in PostgreSQL")
    return chosen


# ---- the parts ------------------------------------------------------------------------------


def _submit(place: "Place", options: argparse.Namespace) -> dict[str, Any]:
    size = {"jobs": options.submit_jobs}
    contenders: dict[str, Callable[[], Measured]] = {
        "promptmill_http": lambda: place.ours("submit_over_http", **size),
        "promptmill_database": lambda: place.ours("submit", **size),
        "celery_delay": lambda: place.measure("benchmarks.celery_tasks", "submit", **size),
    }
    if place.has_procrastinate:
        contenders["procrastinate_batch_defer"] = lambda: place.procrastinate("submit", **size)
    others = [name for name in contenders if not name.startswith("promptmill")]
    pairs = [(ours, other) for ours in ("promptmill_http", "promptmill_database") for other in others]
    return _compare(contenders, pairs, options.repeat)


def _finish(place: "Place", options: argparse.Namespace, concurrency: int) -> dict[str, Any]:
    size = {"jobs": options.jobs, "concurrency": concurrency}
    contenders: dict[str, Callable[[], Measured]] = {
        "sdk_loop": lambda: place.measure("benchmarks.sdk_loop", "finish", **size),
        "promptmill": lambda: place.ours("finish", **size),
        "celery": lambda: place.measure("benchmarks.celery_tasks", "finish", **size),
    }
    if place.has_procrastinate:
        contenders["procrastinate_sync"] = lambda: place.procrastinate("finish", sync=True, **size)
        contenders["procrastinate_async"] = lambda: place.procrastinate("finish", sync=False, **size)
    others = [name for name in contenders if name != "promptmill"]
    return _compare(contenders, [("promptmill", other) for other in others], options.repeat)


def _claim(place: "Place", options: argparse.Namespace) -> dict[str, Any]:
    """How long a claim takes in a small and in a large table of jobs, in turns."""
    sizes = {"small": (10_000, 10_000), "large": (options.finished, options.queued)}
    urls = {}
    for name, (finished, queued) in sizes.items():
        urls[name] = place.database(f"claim_{name}")
        size = {"finished": finished, "queued": queued, "claims": options.claims, "rounds": options.repeat}
        took = place.measure("benchmarks.claims", "fill", urls[name], **size)
        say(f"{finished:,} finished and {queued:,} queued jobs inserted in {took['seconds']} s")
    rounds = [
        {name: place.measure("benchmarks.claims", "measure", url, claims=options.claims) for name, url in urls.items()}
        for _ in range(options.repeat)
    ]
    return {
        name: {
            "finished": sizes[name][0],
            "queued": sizes[name][1],
            **{figure: spread([each[name][figure] for each in rounds]) for figure in ("p50_ms", "p95_ms")},
        }
        for name in sizes
    } | {
        f"ratio_{figure}": spread([each["large"][f"{figure}_ms"] / each["small"][f"{figure}_ms"] for each in rounds])
        for figure in ("p50", "p95")
    }


def _compare(contenders: Contenders, pairs: Sequence[tuple[str, str]], repeat: int) -> dict[str, Any]:
    """Medians and spreads of throughputs, and of the ratios within each round."""
    rounds: list[dict[str, Measured]] = []
    busy: list[float] = []
    for number in range(repeat):
        rounds.append({})
        names = list(contenders)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            busy.append(psutil.cpu_percent(interval=0.5))
            found = rounds[-1][name] = contenders[name]()
            say(f"round {number + 1} of {repeat}: {name} {_per_s(found):.0f}/s")
    return {
        "per_s": {name: spread([_per_s(each[name]) for each in rounds]) for name in contenders},
        "ratio": {
            f"{ours} / {other}": spread([_per_s(each[ours]) / _per_s(each[other]) for each in rounds])
            for ours, other in pairs
        },
        **{
            f"{what}_ms_each": {
                name: spread([1000 * each[name][f"{what}_seconds"] / each[name]["count"] for each in rounds])  # type: ignore[literal-required]
                for name in contenders
            }
            for what in ("cpu", "database_cpu")
        },
        # What others used of the machine just before each measurement: figures from a busy one mean little.
        "busy_before_percent": spread(busy),
    }


def _per_s(measured: Measured) -> float:
    return measured["count"] / measured["seconds"]


def _stub_ceiling(place: "Place", options: argparse.Namespace) -> float:
    seconds = 0.2 if options.smoke else 3.0
    measured = place.measure("benchmarks.stub", "ceiling", port=place.stub_port, concurrency=16, seconds=seconds)
    return round(measured["count"] / measured["seconds"])


# ---- where it runs --------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """The servers, and a directory for what is written beside them."""

    directory: Path
    postgres: PostgresServer | None  # None: ours on SQLite, and no Procrastinate
    redis: RedisServer
    stub_port: int

    @property
    def has_procrastinate(self) -> bool:
        """It knows PostgreSQL only, and is installed for this benchmark alone."""
        return self.postgres is not None and importlib.util.find_spec("procrastinate") is not None

    def ours(self, function: str, **arguments: Any) -> Measured:
        return self.measure("benchmarks.promptmill", function, self.database("promptmill"), **arguments)

    def database(self, name: str) -> str:
        """The URL of an empty database of ours; one of that name that was there before is gone."""
        return self._copy("promptmill", name, self._release)

    def procrastinate(self, function: str, **arguments: Any) -> Measured:
        module = "benchmarks.procrastinate_tasks"
        url = self._copy("procrastinate", "procrastinate", lambda url: self.measure(module, "prepare", url))
        return self.measure(module, function, url, **arguments)

    def measure(self, module: str, function: str, url: str = "", **arguments: Any) -> Any:
        """What the function returns, in a process of its own."""
        return places.call(module, function, self._environment(url), **arguments)

    def _release(self, url: str) -> None:
        places.run([sys.executable, "-m", "app.admin", "release"], self._environment(url))

    def _copy(self, kind: str, name: str, prepare: Callable[[str], object]) -> str:
        """The URL of a new database, a copy of one that is prepared once."""
        if self.postgres is None:
            original, file = self.directory / f"{kind}.template.db", self.directory / f"{name}.db"
            if not original.exists():
                prepare(f"sqlite:///{original}")
            for old in self.directory.glob(f"{name}.db*"):
                old.unlink()
            with contextlib.closing(sqlite3.connect(original)) as connection:
                connection.execute("VACUUM INTO ?", (str(file),))
            return f"sqlite:///{file}"
        template, copy = f"{kind}_template", f"{name}_copy"
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            known = connection.execute("SELECT datname FROM pg_database WHERE datname = %s", (template,)).fetchone()
            if known is None:
                connection.execute(f"CREATE DATABASE {template}".encode())
                prepare(_named(self.postgres.url, template))
            connection.execute(f"DROP DATABASE IF EXISTS {copy}".encode())
            connection.execute(f"CREATE DATABASE {copy} TEMPLATE {template}".encode())
            connection.execute("CHECKPOINT")  # not in the middle of a measurement
        return _named(self.postgres.url, copy)

    def _environment(self, url: str) -> dict[str, str]:
        provider = {"OPENAI_BASE_URL": f"http://127.0.0.1:{self.stub_port}/v1", "OPENAI_API_KEY": "none"}
        return places.environment(
            self.directory, url or f"sqlite:///{self.directory}/unused.db", self.redis.url, **provider
        )


@contextlib.contextmanager
def _servers(database: str) -> Iterator[Place]:
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(temporary_directory())
        port = free_port()
        answering = subprocess.Popen([sys.executable, "-m", "benchmarks.stub", str(port)], cwd=ROOT)
        stack.callback(answering.wait)
        stack.callback(answering.terminate)
        broker = RedisServer(directory / "redis")
        stack.callback(broker.kill)
        broker.start()
        postgres = None
        if database == "postgresql":
            postgres = PostgresServer(directory)
            stack.callback(postgres.stop)
        place = Place(directory, postgres, broker, port)
        wait_until(lambda: _answers(port), "the stub answers")
        yield place


def _answers(port: int) -> bool:
    try:
        return stub.ceiling(port, concurrency=1, seconds=0)["count"] == 1
    except OSError:
        return False


def _named(url: str, database: str) -> str:
    return url.replace("/template_of_tests?", f"/{database}?")


def _machine(place: Place) -> dict[str, Any]:
    described: dict[str, Any] = {
        **places.machine("openai", "celery", "procrastinate", "sqlalchemy"),
        "redis": redis.Redis.from_url(place.redis.url).info("server")["redis_version"],
    }
    if place.postgres:
        with psycopg.connect(place.postgres.url) as connection:
            for name in ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers"):
                row = connection.execute(f"SHOW {name}".encode()).fetchone()
                described[f"postgresql_{name}"] = row and row[0]
    return described


if __name__ == "__main__":
    main()
