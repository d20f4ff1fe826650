"""The two registries that are compared: how each is filled, started and asked.

Both hold the same prompts, versions and texts: those of `app.seeds.plant_many`. What is filled is kept, and each run
works on a copy of it.
"""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from app import seeds
from benchmarks import places
from benchmarks.load import Request
from benchmarks.places import KEY, ROOT, say
from shared.db import transaction
from shared.domain import search_index, tenants
from shared.domain.names import PRODUCTION
from tests.servers import PostgresServer, free_port, wait_until

MLFLOW_PYTHON = ROOT / ".venv-mlflow/bin/python"
SERVERS = ("gunicorn", "granian")
KINDS = ("rare", "middle", "common")  # of searches: one prompt, one in ninety, one in ten
LABELS = {PRODUCTION: -1, "staging": 0}  # places in the versions of a prompt, as `plant_many` sets them
BATCH = 100
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Registry:
    """A server that answers, and how it is asked. In a request, @name@ is a prompt's name or the words to search."""

    name: str
    pid: int
    port: int
    read: Request
    create: Request
    searches: Mapping[str, Request]
    words: Callable[[int], Mapping[str, str]]  # of a prompt's number: what finds it, by kind of search
    template_of: Callable[[Any], str]  # of an answer to `read`
    create_many: Request | None = None  # BATCH new versions in one request; None: it cannot
    create_as_client: Sequence[Request] = ()  # what its own client sends for one new version, when that is not `create`

    def check(self, numbers: Sequence[int], versions: int) -> None:
        """That it answers with the texts that were planted."""
        for number in numbers:
            path = self.read["path"].replace("@name@", seeds.large_name(number))
            request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=self.read["headers"])
            with urllib.request.urlopen(request, timeout=30) as answer:
                found = self.template_of(json.load(answer))
            if found != seeds.large_contents(number, versions)[LABELS[PRODUCTION]].body["template_source"]:
                raise AssertionError(f"{self.name} answers with another text than was planted in prompt {number}")


# ---- Promptmill -----------------------------------------------------------------------------


def plant(*, prompts: int, versions: int) -> int:
    """Fill the database that the environment names, search index included."""
    with transaction() as session:
        caller = tenants.at_command_line(session, tenants.DEFAULT_WORKSPACE, "benchmark")
    made = sum(seeds.plant_many(caller, project=tenants.DEFAULT_PROJECT, count=prompts, versions=versions))
    search_index.fill()
    return made


@contextlib.contextmanager
def our_database(
    data: Path, work: Path, postgres: PostgresServer | None, prompts: int, versions: int
) -> Iterator[tuple[str, float | None]]:
    """The URL of a filled database for this run, and the seconds that filling took; None: it was there."""
    size = {"prompts": prompts, "versions": versions}
    filled = f"promptmill_{prompts}x{versions}"
    if postgres is None:
        seconds = _kept(data / f"{filled}.db", lambda file: _plant(f"sqlite:///{file}", work, size))
        shutil.copyfile(data / f"{filled}.db", work / "promptmill.db")
        yield f"sqlite:///{work}/promptmill.db", seconds
        return
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        names = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
        seconds = None
        if filled not in names:
            connection.execute("DROP DATABASE IF EXISTS half_filled")
            connection.execute("CREATE DATABASE half_filled")
            seconds = _plant(_named(postgres.url, "half_filled"), work, size)
            connection.execute(f"ALTER DATABASE half_filled RENAME TO {filled}".encode())
        connection.execute("DROP DATABASE IF EXISTS this_run")
        connection.execute(f"CREATE DATABASE this_run TEMPLATE {filled}".encode())
        connection.execute("CHECKPOINT")
        yield _named(postgres.url, "this_run"), seconds
        connection.execute("DROP DATABASE this_run WITH (FORCE)")


@contextlib.contextmanager
def promptmill(environment: Mapping[str, str], work: Path, server: str) -> Iterator[Registry]:
    """Our API as it is deployed, or under another server with as many processes and threads."""
    places.run([sys.executable, "-m", "app.admin", "release"], environment)  # this schema, this key
    with serving("app.wsgi:application", environment, work, server) as (pid, port):
        key = {"X-API-Key": KEY}
        create = {"template_source": template("@name@.@number@"), "message": "Measured"}
        coded = [
            {"name": f"in-code-{place}", "template_source": template(f"{place}.@number@")} for place in range(BATCH)
        ]
        search_path = "/v1/prompts/search?q=@name@&limit=50"
        yield Registry(
            "promptmill",
            pid,
            port,
            Request(method="GET", path=f"/v1/prompts/@name@/versions/{PRODUCTION}", headers=key, body=None),
            Request(method="PUT", path="/v1/prompts/@name@", headers={**key, **_JSON}, body=json.dumps(create)),
            dict.fromkeys(KINDS, Request(method="GET", path=search_path, headers=key, body=None)),
            lambda number: dict(zip(KINDS, words_of(number), strict=True)),
            lambda answer: str(answer["template_source"]),
            Request(
                method="POST",
                path="/v1/prompts/register-code",
                headers={**key, **_JSON},
                body=json.dumps({"prompts": coded}),
            ),
        )


@contextlib.contextmanager
def serving(application: str, environment: Mapping[str, str], work: Path, server: str) -> Iterator[tuple[int, int]]:
    """Process id and port of a WSGI application under gunicorn as we deploy it, or under granian in the same sizes."""
    port = free_port()
    metrics = work / "metrics"
    shutil.rmtree(metrics, ignore_errors=True)
    metrics.mkdir()
    given = {**environment, "PORT": str(port), "PROMETHEUS_MULTIPROC_DIR": str(metrics)}
    command = [sys.executable, "-m", "gunicorn", "-c", "deploy/gunicorn.conf.py", application]
    if server == "granian":
        sizes = [
            *("--workers", environment.get("PROMPTMILL_WEB_PROCESSES", "2")),
            *("--blocking-threads", environment.get("PROMPTMILL_WEB_THREADS", "16")),
        ]
        listening = ["--host", "127.0.0.1", "--port", str(port), "--http", "1", "--no-ws", "--log-level", "error"]
        command = [sys.executable, "-m", "granian", "--interface", "wsgi", *listening, *sizes, application]
    with _server(command, given, work / "server.log", port) as pid:
        yield pid, port


# ---- MLflow ---------------------------------------------------------------------------------


def mlflow_database(data: Path, work: Path, prompts: int, versions: int) -> tuple[Path, float | None]:
    """A filled database file for this run, and the seconds that filling took; None: it was there."""
    kept = data / f"mlflow_{mlflow_version()}_{prompts}x{versions}.db"
    seconds = _kept(kept, lambda file: _plant_mlflow(file, prompts, versions))
    shutil.copyfile(kept, work / "mlflow.db")
    return work / "mlflow.db", seconds


@contextlib.contextmanager
def mlflow(file: Path, work: Path, workers: int) -> Iterator[Registry]:
    """Its tracking server as its documentation starts it, without what else costs time: authentication, jobs."""
    port = free_port()
    command = [str(MLFLOW_PYTHON), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    stores = ["--backend-store-uri", f"sqlite:///{file}", "--default-artifact-root", str(work / "artifacts")]
    options = [*stores, "--workers", str(workers)]
    with _server([*command, *options], _mlflow_environment(), work / "mlflow.log", port) as pid:
        base = "/api/2.0/mlflow"
        tags = {
            "mlflow.prompt.is_prompt": "true",
            "_mlflow_prompt_type": "text",
            "mlflow.prompt.text": template("@name@.@number@"),
        }
        create = {
            "name": "@name@",
            "source": "dummy-source",
            "description": "Measured",
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }
        creating = Request(method="POST", path=f"{base}/model-versions/create", headers=_JSON, body=json.dumps(create))
        get = Request(method="GET", path=f"{base}/registered-models/get?name=@name@", headers={}, body=None)
        by_alias = f"{base}/registered-models/alias?name=@name@&alias={PRODUCTION}"
        yield Registry(
            "mlflow",
            pid,
            port,
            Request(method="GET", path=by_alias, headers={}, body=None),
            creating,
            {kind: _mlflow_search(base, "name" if kind == "rare" else "tags.tags") for kind in KINDS},
            lambda number: dict(zip(KINDS, (word.replace("%20", "%2C") for word in words_of(number)), strict=True)),
            lambda answer: next(
                str(tag["value"]) for tag in answer["model_version"]["tags"] if tag["key"] == "mlflow.prompt.text"
            ),
            create_as_client=(get, creating, get),  # `MlflowClient.register_prompt` of a prompt that exists
        )


def mlflow_version() -> str:
    code = "import importlib.metadata as m; print(m.version('mlflow'))"
    return places.run([str(MLFLOW_PYTHON), "-c", code], _mlflow_environment()).strip()


def _mlflow_search(base: str, field: str) -> Request:
    wanted = urllib.parse.quote(f"{field} LIKE '%@name@%' AND tags.`mlflow.prompt.is_prompt` = 'true'", safe="@")
    path = f"{base}/registered-models/search?max_results=50&filter={wanted}"
    return Request(method="GET", path=path, headers={}, body=None)


def _mlflow_environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PROMPTMILL_", "MLFLOW_"))}
    return {**inherited, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def _plant_mlflow(file: Path, prompts: int, versions: int) -> float:
    started = time.monotonic()
    command = [str(MLFLOW_PYTHON), "benchmarks/mlflow_plant.py", str(file)]
    with subprocess.Popen(
        command, cwd=ROOT, env=_mlflow_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as filling:
        assert filling.stdin is not None
        assert filling.stdout is not None
        for number in range(1, prompts + 1):
            filling.stdin.write(json.dumps(mlflow_prompt(number, versions)).encode() + b"\n")
        filling.stdin.close()
        told = json.loads(filling.stdout.read())
    if filling.wait() or told["prompts"] != prompts:
        raise AssertionError("MLflow's registry was not filled")
    say(f"{told['rows_compared']} rows are those that MLflow's client writes")
    return time.monotonic() - started


def mlflow_prompt(number: int, versions: int) -> dict[str, Any]:
    """A prompt of a large load as `benchmarks/mlflow_plant.py` reads it."""
    fields = seeds.large_fields(number)
    contents = [content.body["template_source"] for content in seeds.large_contents(number, versions)]
    return {
        "name": seeds.large_name(number),
        "tags": {
            "category": fields["category"],
            "owner_team": fields["owner_team"],
            "tags": ",".join(fields["tags"]),
        },
        "versions": [
            {"template": template, "message": f"Version {place}"} for place, template in enumerate(contents, start=1)
        ],
        "aliases": {label: range(1, versions + 1)[place] for label, place in LABELS.items()},
    }


# ---- both -----------------------------------------------------------------------------------


def words_of(number: int) -> tuple[str, str, str]:
    """What finds a prompt of a large load, as it stands in an address: one of each of the KINDS."""
    deed, subject = seeds.large_fields(number)["tags"]
    return f"{number:07}", f"{deed}%20{subject}", deed


def template(mark: str) -> str:
    """A new text like those that were planted."""
    planted: str = seeds.large_contents(1, 1)[0].body["template_source"]
    return planted.replace("1.1", mark)


def _plant(url: str, work: Path, size: Mapping[str, int]) -> float:
    started = time.monotonic()
    environment = places.environment(work, url, "redis://127.0.0.1:1/0")
    places.run([sys.executable, "-m", "app.admin", "release"], environment)
    made = places.call("benchmarks.registries", "plant", environment, **size)
    assert made == size["prompts"], made
    return time.monotonic() - started


def _kept(file: Path, fill: Callable[[Path], float]) -> float | None:
    """Fill a SQLite file unless it is there; a half-filled one has another name."""
    if file.exists():
        return None
    half = file.with_suffix(".half")
    for old in file.parent.glob(f"{half.name}*"):
        old.unlink()
    seconds = fill(half)
    with contextlib.closing(sqlite3.connect(half)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    half.rename(file)
    return seconds


def _named(url: str, database: str) -> str:
    return url.replace("/template_of_tests?", f"/{database}?")


@contextlib.contextmanager
def _server(command: Sequence[str], environment: Mapping[str, str], log: Path, port: int) -> Iterator[int]:
    """Its process id, once it answers /health. In a session of its own, that ends with all that it started."""
    with log.open("ab") as written:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=written, stderr=written, start_new_session=True
        )
        try:
            wait_until(lambda: process.poll() is not None or _is_up(port), f"{command[2]} answers", seconds=120)
            if process.poll() is not None:
                raise AssertionError(f"{command[2]} did not start:\n{log.read_text()[-3_000:]}")
            yield process.pid
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=40)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
