"""The whole stack on this machine: which servers and processes, with which settings, in which order.

The processes are those of the Procfile, started by the commands that stand there.
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psycopg
import redis
from pydantic import ValidationError
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from local import embedded
from local.supervisor import Child, Supervisor, end_leftovers, write_atomically
from shared.config import Settings

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 60.0


# What suits one machine better than the defaults of the service: a crash is forgiven and an end comes quickly.
DEFAULTS = {"PROMPTMILL_DRAIN_SECONDS": "5", "PROMPTMILL_JOB_LEASE_SECONDS": "15"}
# What PostgreSQL says of each client that asks too early: while it recovers, and while we ask whether it is up.
STILL_STARTING = (
    "FATAL:  the database system is starting up",
    "FATAL:  the database system is not yet accepting connections",
    "FATAL:  the database system is in recovery mode",
    "DETAIL:  Consistent recovery state has not been yet reached.",
)

# Celery's advice on a setting that we set on purpose (docs/why/messages.md), from each worker that loses Redis.
# It cannot be turned off from outside: Celery itself puts the filter that shows it before all others.
CELERYS_ADVICE = (
    "CPendingDeprecationWarning:",
    "In Celery 5.1 we introduced an optional breaking change",
    "on connection loss cancels all currently executed tasks",
    "These tasks cannot be acknowledged as the connection is gone",
    "back to the queue. You can enable this behavior using the worker_cancel_long_running_tasks",
    "setting. In Celery 5.1 it is set to False by default.",
    "  self.on_connection_error_after_connected(exc)",
    "Skipping prefetch count reduction after connection restart",
)


class StackError(Exception):
    """Why the stack cannot start, in words for the person at the terminal."""

    exit_code = 1


class SettingError(StackError):
    """A setting that cannot be. Names it, and says what it may be."""

    exit_code = 2


@dataclass(frozen=True)
class Options:
    """From the environment; see `make help`."""

    home: Path
    port: int
    port_was_chosen: bool  # then a busy one is an error, else the next free one is taken
    workers: int
    concurrency: int  # provider calls in flight per worker
    database: str  # sqlite or postgres
    database_url: str | None
    redis_url: str | None

    @classmethod
    def from_environment(cls) -> "Options":
        read = os.environ.get
        database = read("DB", "sqlite")
        if database not in ("sqlite", "postgres"):
            raise SettingError(f"DB must be sqlite or postgres, not {database!r}")
        found = cls(
            home=Path(read("PROMPTMILL_HOME") or ".promptmill").resolve(),
            port=_whole("PORT", 8000, 1, 65_535),
            port_was_chosen="PORT" in os.environ,
            workers=_whole("WORKERS", 2, 1, 64),
            concurrency=_whole("CONCURRENCY", _whole("PROMPTMILL_CONCURRENCY", 16, 1, 1000), 1, 1000),
            database=database,
            database_url=read("PROMPTMILL_DATABASE_URL") or None,
            redis_url=read("PROMPTMILL_REDIS_URL") or None,
        )
        _check_settings(found)
        return found


def _check_settings(options: Options) -> None:
    """What every process of the stack will read: refused here once, not by each of them in turn."""
    chosen: dict[str, Any] = {
        "concurrency": options.concurrency,
        "database_url": options.database_url or "sqlite://",
        "redis_url": options.redis_url or "redis://",
    }
    for name, value in DEFAULTS.items():
        if name not in os.environ:
            chosen[name.removeprefix("PROMPTMILL_").lower()] = value
    try:
        read = Settings(**chosen)
    except ValidationError as error:
        raise SettingError("; ".join(_in_words(wrong) for wrong in error.errors())) from error
    try:
        make_url(read.database_url)
    except (ArgumentError, ValueError) as error:  # the latter for a port that is no number
        raise SettingError(
            "PROMPTMILL_DATABASE_URL must be like sqlite:///path or postgresql://user:password@host/name"
        ) from error


def _in_words(wrong: Mapping[str, Any]) -> str:
    """`PROMPTMILL_SWEEP_SECONDS must be greater than 0`. The value is left out: it may hold a password."""
    what = wrong["msg"].removeprefix("Value error, ")
    if not wrong["loc"]:
        return str(what)  # a rule about several settings, which it names
    name = str(wrong["loc"][0])
    field = Settings.model_fields.get(name)
    if field is not None:
        name = f"PROMPTMILL_{name.upper()}"
    what = what.replace("Input should be", "must be").split(", unable to")[0]
    return f"{name} {what}"


@dataclass
class Stack:
    """A running stack. `up` is what stands in up.json."""

    options: Options
    supervisor: Supervisor
    up: dict[str, Any] = field(default_factory=dict)
    listener: socket.socket | None = None  # of the API


@contextlib.contextmanager
def running(options: Options, *, quiet: bool = False) -> Iterator[Stack]:
    """Start everything, yield when it is ready, and end everything on the way out."""
    options.home.mkdir(parents=True, exist_ok=True)
    up_file = options.home / "up.json"
    with _only_one(options.home, up_file):
        supervisor = Supervisor(options.home / "processes.json", quiet=quiet)
        stack = Stack(options, supervisor)
        left = end_leftovers(supervisor.record)
        if left:
            supervisor.say("stack", f"ended what an earlier run left behind: {', '.join(left)}")
        up_file.unlink(missing_ok=True)
        for forgotten in options.home.glob("promptmill-metrics-*"):  # of an API process that was killed
            shutil.rmtree(forgotten, ignore_errors=True)
        try:
            _start(stack)
            supervisor.on_change = lambda pids: _write_up(stack, up_file, pids)
            _write_up(stack, up_file, supervisor.pids())
            yield stack
        finally:
            supervisor.on_change = lambda pids: None
            up_file.unlink(missing_ok=True)
            supervisor.stop()
            if stack.listener is not None:
                stack.listener.close()


def _start(stack: Stack) -> None:
    options = stack.options
    host = os.environ.get("HOST", "127.0.0.1")
    stack.listener = listen(options, host)
    port = stack.listener.getsockname()[1]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges",
        "PYTHONPATH": str(ROOT),
        "PROMPTMILL_HOME": str(options.home),
        "PORT": str(port),
        "HOST": host,
        "PROMPTMILL_LOG_FORMAT": "console",
        "PROMPTMILL_API_KEY": _api_key(options.home),
        "FLOWER_BASIC_AUTH": f"admin:{_secret(options.home / 'flower_password')}",
        "FLOWER_PORT": str(_any_port()),
        "FLOWER_ADDRESS": "127.0.0.1",
        "FLOWER_LOGGING": "error",
    }
    environment = {**DEFAULTS, **environment, "PROMPTMILL_CONCURRENCY": str(options.concurrency)}
    environment["PROMPTMILL_REDIS_URL"] = options.redis_url or _start_redis(stack, environment)
    environment["PROMPTMILL_DATABASE_URL"] = options.database_url or _start_database(stack, environment)
    commands = _procfile()
    _run_release(stack, commands["release"], environment)
    metrics_urls = {}
    for number in range(1, options.workers + 1):
        metrics_port = _any_port()
        metrics_urls[f"worker.{number}"] = f"http://127.0.0.1:{metrics_port}/metrics"
        own = {
            "NODE_NAME": f"worker{number}",
            "PROMPTMILL_WORKER_METRICS_PORT": str(metrics_port),
            "PROMPTMILL_WORKER_METRICS_ADDRESS": "127.0.0.1",
        }
        _start_process(stack, f"worker.{number}", commands["worker"], {**environment, **own})
    for role in ("beat", "flower"):
        _start_process(stack, role, commands[role], environment)
    handed_over = stack.listener.fileno()
    _start_process(stack, "web", commands["web"], {**environment, "BIND": f"fd://{handed_over}"}, handed_over)
    stack.up = {
        "url": f"http://127.0.0.1:{port}",
        "api_key": environment["PROMPTMILL_API_KEY"],
        "database_url": environment["PROMPTMILL_DATABASE_URL"],
        "redis_url": environment["PROMPTMILL_REDIS_URL"],
        "flower_url": f"http://{environment['FLOWER_BASIC_AUTH']}@127.0.0.1:{environment['FLOWER_PORT']}",
        "metrics_urls": metrics_urls,
        "home": str(options.home),
    }
    _await(stack, lambda: _is_ready(stack, options.workers), "the API and the workers answer")


def _start_redis(stack: Stack, environment: Mapping[str, str]) -> str:
    password = _secret(stack.options.home / "redis_password")
    server = embedded.redis(stack.options.home / "redis", port=_any_port(), password=password)
    stack.supervisor.start(Child("redis", server.command, environment, is_server=True))
    client = redis.Redis.from_url(server.url, socket_timeout=1)
    _await(stack, lambda: _answers(client.ping, redis.RedisError), "Redis answers")
    return server.url


def _start_database(stack: Stack, environment: Mapping[str, str]) -> str:
    if stack.options.database == "sqlite":
        return f"sqlite:///{stack.options.home / 'promptmill.db'}"
    server = embedded.postgres(stack.options.home / "postgres")
    # SIGINT is PostgreSQL's fast shutdown: it does not wait for clients to leave.
    stack.supervisor.start(
        Child(
            "postgres",
            server.command,
            environment,
            server.user,
            signal.SIGINT,
            20,
            is_server=True,
            noise=STILL_STARTING,
        )
    )
    _await(
        stack,
        lambda: _answers(lambda: embedded.ensure_database(server.url), psycopg.OperationalError),
        "PostgreSQL answers",
    )
    return server.url


def _run_release(stack: Stack, command: str, environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", command], env=dict(environment), cwd=ROOT, capture_output=True, text=True, check=False
    )
    for line in (done.stdout + done.stderr).splitlines():
        stack.supervisor.say("release", line)
    if done.returncode:
        raise StackError(f"`{command}` failed:\n{done.stderr or done.stdout}")


def _start_process(stack: Stack, role: str, command: str, environment: Mapping[str, str], *files: int) -> None:
    # `exec`: the process itself is our child, so signals and its pid are the real ones.
    command = f"cd {shlex.quote(str(ROOT))} && exec {command}"
    stack.supervisor.start(
        Child(role, ["/bin/sh", "-c", command], environment, patience_seconds=15, noise=CELERYS_ADVICE, files=files)
    )


def _procfile() -> dict[str, str]:
    lines = (ROOT / "Procfile").read_text().splitlines()
    return {name.strip(): command.strip() for name, _, command in (line.partition(":") for line in lines if line)}


def _await(stack: Stack, condition: Any, what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        stack.supervisor.watch()
        if time.monotonic() > deadline:
            raise StackError(f"waited {START_SECONDS:g} s in vain until {what}; see the log above")
        time.sleep(0.05)


def _is_ready(stack: Stack, workers: int) -> bool:
    request = urllib.request.Request(stack.up["url"] + "/v1/status", headers={"X-API-Key": stack.up["api_key"]})
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:
            return bool(json.load(answer)["consumers"]["executions"] >= workers)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def _answers(call: Any, error: type[Exception]) -> bool:
    try:
        call()
    except error:
        return False
    return True


@contextlib.contextmanager
def _only_one(home: Path, up_file: Path) -> Iterator[None]:
    """Hold the lock of this home. A lock dies with its process, so a crash is no obstacle."""
    lock: IO[str] = open(home / "lock", "w")  # noqa: SIM115  # held until the stack has ended
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        where = ""
        with contextlib.suppress(OSError, ValueError, KeyError):
            where = f" at {json.loads(up_file.read_text())['url']}"
        raise StackError(f"Promptmill is already running in {home}{where}") from error
    try:
        yield
    finally:
        lock.close()


def _write_up(stack: Stack, up_file: Path, pids: Mapping[str, int]) -> None:
    content = {**stack.up, "pids": {"supervisor": os.getpid(), **pids}}
    write_atomically(up_file, json.dumps(content, indent=2) + "\n")


def _api_key(home: Path) -> str:
    """The same key on every start of this home; PROMPTMILL_API_KEY wins."""
    return os.environ.get("PROMPTMILL_API_KEY") or _secret(home / "api_key", prefix="pm_")


def _secret(path: Path, *, prefix: str = "") -> str:
    if not path.exists():
        write_atomically(path, prefix + secrets.token_urlsafe(32) + "\n")
    return path.read_text().strip()


def listen(options: Options, host: str) -> socket.socket:
    """A socket on the chosen port, else on the next free one. The stack keeps it and hands it to each API process that
    it starts: nobody takes the port before the first one is up, and requests wait while one is started again."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    last = options.port if options.port_was_chosen else options.port + 49
    for port in range(options.port, last + 1):
        try:
            return socket.create_server((host, port), family=family, backlog=2048)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise StackError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    if options.port_was_chosen:
        raise StackError(f"port {options.port} is in use; choose another with PORT=…")
    raise StackError(f"no free port from {options.port} to {last}; choose one with PORT=…")


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _whole(name: str, default: int, low: int, high: int) -> int:
    text = os.environ.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise SettingError(f"{name} must be a whole number from {low} to {high}, not {text!r}")
    return int(text)
