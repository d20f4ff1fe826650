"""The real stack as a stranger starts it: `python -m local up` in a process of its own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from local.demo import DATASET, PROMPT
from local.stack import Options, Stack
from local.supervisor import Supervisor
from tests.servers import free_port, temporary_directory, wait_until

ROOT = Path(__file__).resolve().parents[2]


class LocalStack:
    """A running `make up`, seen through up.json, its API and its processes."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.home / "stack.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "local", "up"],
                cwd=ROOT,
                env=environment(self.home, **self._settings),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(lambda: self._is_up() or self._has_ended(), "up.json is there", seconds=90)
        assert not self._has_ended(), self.log_text()

    @property
    def up_file(self) -> Path:
        return self.home / "up.json"

    @property
    def up(self) -> Any:
        return json.loads(self.up_file.read_text())

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def workers(self) -> dict[str, int]:
        return {role: pid for role, pid in self.up["pids"].items() if role.startswith("worker.")}

    def kill_workers(self) -> dict[str, int]:
        """SIGKILL every worker process, and wait until the supervisor has started others."""
        killed = self.workers()
        for pid in killed.values():
            os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: set(self.workers()) == set(killed) and not set(self.workers().values()) & set(killed.values()),
            "new workers are up",
        )
        return killed

    def kill_everything(self) -> list[int]:
        """SIGKILL the supervisor and every process that it started, as a power cut would."""
        pids = list(self.up["pids"].values())
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        wait_until(lambda: not any(is_alive(pid) for pid in pids), "nothing is left")
        return pids

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it gently; its exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(number)
        code = self._process.wait(timeout=60)
        self._process = None
        return code

    def call(self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str) -> Any:
        up = self.up
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        sent = {"X-API-Key": up["api_key"], "Content-Type": "application/json", **headers}
        request = urllib.request.Request(up["url"] + path, data=data, method=method, headers=sent)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()}") from error

    def await_end(self, path: str, *, seconds: float = 120.0) -> Any:
        """The resource when it has ended. Polls through restarts of the API."""
        found: list[Any] = []

        def ended() -> bool:
            with contextlib.suppress(urllib.error.URLError, ConnectionError, FileNotFoundError, ValueError):
                found.append(self.call("GET", path))
            return bool(found) and found[-1]["status"] not in ("queued", "running")

        wait_until(ended, f"{path} has ended", seconds=seconds, every=0.1)
        return found[-1]

    def prepare_tickets(self, model: dict[str, str]) -> None:
        """The prompt and the dataset of the demo."""
        settings = {**model, "params": {"temperature": 0.0, "max_new_tokens": 60}}
        self.call(
            "PUT", "/v1/prompts/ticket-triage", {"template_source": PROMPT, "set_active": True, "model": settings}
        )
        self.call("POST", "/v1/datasets", {"name": "support-tickets"})
        self.call(
            "POST",
            "/v1/datasets/support-tickets/cases",
            raw=DATASET.read_bytes(),
            **{"Content-Type": "application/x-ndjson"},
        )

    def optimize(self, **fields: Any) -> str:
        """Start the demo's optimization; the path of the run."""
        body = {
            "prompt_name": "ticket-triage",
            "dataset": "support-tickets",
            "scorers": [{"type": "json_fields"}],
            "strategy": "beam_search",
            "budget": {"max_task_calls": 4000},
            "seed": 0,
            **fields,
        }
        return f"/v1/optimizations/{self.call('POST', '/v1/optimizations', body)['optimization_id']}"

    def log_text(self) -> str:
        return (self.home / "stack.log").read_text()[-5000:]

    def _is_up(self) -> bool:
        """Whether up.json is that of the process which was just started: after a crash an old one lies there."""
        with contextlib.suppress(OSError, ValueError):
            return bool(self.up["pids"]["supervisor"] == self.pid)
        return False

    def _has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None


@contextlib.contextmanager
def running_stack(**settings: str) -> Iterator[LocalStack]:
    with temporary_directory() as home:
        stack = LocalStack(home, **settings)
        stack.start()
        try:
            yield stack
        finally:
            stack.stop()


def environment(home: Path, **settings: str) -> dict[str, str]:
    """A stranger's environment: none of the settings of this test run."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PROMPTMILL_", "OPENAI_", "FLOWER_", "PYTEST_", "MAKE", "MFLAGS"))
        and name not in ("PORT", "WORKERS", "CONCURRENCY", "DB", "SEED", "DATABASE_URL", "REDIS_URL", "API_KEY")
    }
    return {**inherited, "PROMPTMILL_HOME": str(home), **settings}


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def api_alone(home: Path, **settings: str) -> Iterator[Stack]:
    """The API on SQLite, one process of it unless told otherwise, and nothing else: what is submitted waits."""
    port, key = free_port(), "pm_the_key_of_this_test"
    variables = environment(
        home,
        PROMPTMILL_DATABASE_URL=f"sqlite:///{home}/promptmill.db",
        PROMPTMILL_REDIS_URL="redis://127.0.0.1:1/0",
        PROMPTMILL_API_KEY=key,
        PYTHONPATH=str(ROOT),
        PORT=str(port),
        **{"PROMPTMILL_WEB_PROCESSES": "1", **settings},
    )
    subprocess.run([sys.executable, "-m", "app.admin", "release"], cwd=ROOT, env=variables, check=True, timeout=60)
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-c", "deploy/gunicorn.conf.py", "app.wsgi:application"],
        cwd=ROOT,
        env=variables,
    )
    stack = Stack(
        Options(home, port, True, 2, 16, "sqlite", None, None),
        Supervisor(home / "processes.json"),
        {"url": f"http://127.0.0.1:{port}", "api_key": key, "database_url": variables["PROMPTMILL_DATABASE_URL"]},
    )
    wait_until(lambda: _answers(stack.up["url"] + "/health"), "the API answers")
    try:
        yield stack
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
