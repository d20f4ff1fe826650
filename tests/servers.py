"""Real servers for the tests: one Redis and one PostgreSQL per test process, from the embedded wheels."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

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
        self._process = embedded.start(self._server, stderr=self._log, stdout=self._log)
        wait_until(self._is_up, "PostgreSQL answers")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()

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
