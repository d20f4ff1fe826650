"""Real servers for the tests: one Redis and one PostgreSQL per test process, from the embedded wheels."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import redis

from local import embedded

PASSWORD = "test-password"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def temporary_directory() -> Iterator[Path]:
    """Short, so that a Unix socket in it has a legal name, and readable by the user PostgreSQL runs as."""
    path = Path(tempfile.mkdtemp(prefix="pm-", dir="/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class RedisServer:
    """A Redis that can be killed and started again on the same port."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._server = embedded.redis(directory, port=self.port, password=PASSWORD)
        self.url = self._server.url
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = embedded.start(self._server, stdout=subprocess.DEVNULL)
        client = redis.Redis.from_url(self.url)
        wait_until(lambda: _answers(client), "redis answers")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class PostgresServer:
    def __init__(self, directory: Path) -> None:
        self._log = (directory / "postgres.log").open("wb")
        self._server = embedded.postgres(directory / "data", database="template_of_tests")
        self.url = self._server.url
        self._start()

    def crash_and_recover(self) -> None:
        """PostgreSQL's immediate shutdown: it aborts, and the next start replays the log."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()
        self._start()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)  # a fast shutdown: it waits for no client
        self._process.wait()
        self._log.close()

    def _start(self) -> None:
        self._process = embedded.start(self._server, stderr=self._log, stdout=self._log)
        wait_until(self._is_up, "PostgreSQL answers")

    def _is_up(self) -> bool:
        try:
            embedded.ensure_database(self.url)
        except psycopg.OperationalError:
            return False
        return True


def wait_until(condition: object, what: str, *, seconds: float = 30.0, every: float = 0.02) -> None:
    """Poll a condition; fail with what was awaited. Never a fixed sleep."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain until {what}")
        time.sleep(every)


def _answers(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


class ProviderServer:
    """The simulated model behind real HTTP, with fault modes and a count of every call."""

    def __init__(self, *, latency_ms: float = 0.0, threads: int = 64) -> None:
        self.port = free_port()
        self.root = f"http://127.0.0.1:{self.port}"
        self.base_url = f"{self.root}/v1"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{self.port}", "--threads", str(threads),
             "--graceful-timeout", "1", "--log-level", "critical", "worker.simulator.server:application"],
            env={**os.environ, "PROMPTMILL_SIMULATED_LATENCY_MS": str(latency_ms)},
        )  # fmt: skip
        wait_until(self._is_up, "the provider stub answers")

    def calls(self) -> dict[str, int]:
        """How often each request was made, by its content and sample."""
        return dict(self._ask("GET", "/calls")["calls"])

    def log(self) -> list[dict[str, Any]]:
        """Every call in the order in which they began: key, execution, request id, time, fault."""
        return list(self._ask("GET", "/log"))

    def set_faults(self, **shares: float) -> None:
        """Shares of the calls by fault; `first_attempts=1` spares the retries. Ends every hang."""
        self._ask("PUT", "/faults", shares)

    def set_latency(self, ms: float) -> None:
        self._ask("PUT", "/latency", {"ms": ms})

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.root + path, data=data, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def _is_up(self) -> bool:
        try:
            self._ask("GET", "/calls")
        except (urllib.error.URLError, OSError):
            return False
        return True
