"""Keeps child processes running: one tidy log, restart with backoff, an end that leaves no orphan.

Each child leads a session of its own, so Ctrl-C reaches only the supervisor, which then ends the
children in order; and a child's own children go with it.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

BACKOFF_SECONDS = (0.5, 1, 2, 5, 10, 30)
STABLE_SECONDS = 30.0  # a child that lived so long starts again without backoff


@dataclass
class Child:
    """One process to keep alive. `stop_signal` and `patience_seconds` say how to end it gently."""

    role: str
    command: Sequence[str]
    environment: Mapping[str, str]
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    patience_seconds: float = 10.0
    is_server: bool = False  # others need it: started first, ended last
    noise: Sequence[str] = ()  # a line with one of these says nothing and is not printed
    files: Sequence[int] = ()  # descriptors that it inherits
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    crashes: int = 0
    start_again_at: float | None = None


@dataclass
class Supervisor:
    """Children in the order of their start."""

    record: Path  # who runs, so that the next start can clear up after a crash of the supervisor itself
    on_change: Callable[[Mapping[str, int]], None] = lambda pids: None
    children: list[Child] = field(default_factory=list)
    quiet: bool = False
    _print_lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, child: Child) -> None:
        self.children.append(child)
        self._launch(child)

    def watch(self) -> None:
        """Restart what died and is due again. Call it several times a second."""
        for child in self.children:
            if child.process is not None and child.process.poll() is not None:
                self._bury(child)
            if child.start_again_at is not None and time.monotonic() >= child.start_again_at:
                self._launch(child)

    def pids(self) -> dict[str, int]:
        return {child.role: child.process.pid for child in self.children if child.process is not None}

    def stop(self) -> None:
        """End every child, gently, then by force: first those that use the servers, all at once."""
        for servers in (False, True):
            group = [child for child in self.children if child.is_server == servers and child.process is not None]
            for child in group:
                assert child.process is not None
                with contextlib.suppress(ProcessLookupError):
                    child.process.send_signal(child.stop_signal)
            for child in group:
                assert child.process is not None
                _await_end(child.process, child.role, child.patience_seconds)
        self.children.clear()
        self.record.unlink(missing_ok=True)

    def say(self, role: str, line: str) -> None:
        if not self.quiet:
            with self._print_lock:
                print(f"{time.strftime('%H:%M:%S')} {role:<9}| {line}", flush=True)

    def _launch(self, child: Child) -> None:
        child.start_again_at = None
        child.started_at = time.monotonic()
        child.process = subprocess.Popen(
            child.command,
            env=dict(child.environment),
            user=child.user,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=child.files,
        )
        assert child.process.stdout is not None
        threading.Thread(target=self._relay, args=(child, child.process.stdout), daemon=True).start()
        self._note()

    def _bury(self, child: Child) -> None:
        assert child.process is not None
        code = child.process.returncode
        _kill_group(child.process.pid)  # whatever it left behind
        lived = time.monotonic() - child.started_at
        child.crashes = 0 if lived > STABLE_SECONDS else child.crashes + 1
        delay = BACKOFF_SECONDS[min(child.crashes, len(BACKOFF_SECONDS) - 1)]
        child.process = None
        child.start_again_at = time.monotonic() + delay
        self._note()  # at once: during a long backoff its pid may become somebody else's
        self.say(child.role, f"ended with {_meaning(code)}; starts again in {delay:g} s")

    def _relay(self, child: Child, stream: IO[bytes]) -> None:
        with stream:
            for raw in stream:
                line = raw.decode(errors="replace").rstrip()
                if line and not any(noise in line for noise in child.noise):
                    self.say(child.role, line)

    def _note(self) -> None:
        running = []
        for role, pid in self.pids().items():
            with contextlib.suppress(psutil.NoSuchProcess):
                running.append({"role": role, "pid": pid, "born": psutil.Process(pid).create_time()})
        write_atomically(self.record, json.dumps(running))
        self.on_change(self.pids())


def end_leftovers(record: Path) -> list[str]:
    """End the children that a crashed supervisor left; their roles. Pids that were reused are spared."""
    try:
        entries = json.loads(record.read_text())
    except (OSError, ValueError):
        return []
    ended = []
    for entry in entries:
        try:
            process = psutil.Process(entry["pid"])
            if abs(process.create_time() - entry["born"]) > 0.01:
                continue
        except psutil.NoSuchProcess:
            continue
        _kill_group(entry["pid"])
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(10)
        ended.append(entry["role"])
    record.unlink(missing_ok=True)
    return ended


def write_atomically(path: Path, text: str) -> None:
    """Readers see the old content or the new, never half of it. Only the owner may read it."""
    temporary = path.with_suffix(".new")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    temporary.replace(path)


def _await_end(process: "subprocess.Popen[bytes]", role: str, patience_seconds: float) -> None:
    try:
        process.wait(patience_seconds)
    except subprocess.TimeoutExpired:
        print(f"{role} did not end in {patience_seconds:g} s and is killed", file=sys.stderr)
    _kill_group(process.pid)
    process.wait()


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _meaning(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
