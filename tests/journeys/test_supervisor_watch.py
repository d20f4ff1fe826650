"""The supervisor alone, with children that are one command each."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.supervisor import Child, Supervisor
from tests.journeys.stack import ROOT, environment
from tests.servers import temporary_directory, wait_until


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor(tmp_path / "processes.json")
    yield made
    made.stop()


def test_the_pid_of_a_dead_child_is_dropped_before_it_is_started_again(supervisor: Supervisor) -> None:
    told: list[dict[str, int]] = []
    supervisor.on_change = lambda pids: told.append(dict(pids))
    child = Child("sleeper", ["sleep", "60"], os.environ)
    supervisor.start(child)
    assert child.process is not None
    assert told == [{"sleeper": child.process.pid}]

    os.kill(child.process.pid, signal.SIGKILL)
    child.process.wait()
    supervisor.watch()

    assert told[1:] == [{}]
    assert json.loads(supervisor.record.read_text()) == []
    assert child.start_again_at is not None


def test_a_line_that_says_nothing_is_left_out_of_the_log(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    script = "echo first; echo '12:00 FATAL: not yet'; echo last; exec sleep 60"
    shown = ""

    def last_is_shown() -> bool:
        nonlocal shown
        shown += capsys.readouterr().out
        return "last" in shown

    supervisor.start(Child("talker", ["/bin/sh", "-c", script], os.environ, noise=["FATAL: not"]))
    wait_until(last_is_shown, "the child has spoken")

    assert [line.split("| ")[1] for line in shown.splitlines()] == ["first", "last"]


def test_a_checkout_in_a_path_with_a_space_starts_its_processes_there() -> None:
    with temporary_directory() as directory:
        checkout = directory / "a b"
        checkout.mkdir()
        for package in ("local", "shared", "worker"):
            (checkout / package).mkdir()
            for source in (ROOT / package).rglob("*.py"):
                target = checkout / source.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())
        speak = 'sh -c "pwd; exec sleep 60"'
        (checkout / "Procfile").write_text(
            f"release: true\nworker: {speak}\nbeat: sleep 60\nflower: sleep 60\nweb: sleep 60\n"
        )
        log = directory / "log"
        with log.open("wb") as output:
            up = subprocess.Popen(
                [sys.executable, "-m", "local", "up"],
                cwd=checkout,
                env=environment(directory / "home", WORKERS="1", PROMPTMILL_REDIS_URL="redis://127.0.0.1:1/0"),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

        wait_until(lambda: "worker.1" in log.read_text() or up.poll() is not None, "the worker has spoken")
        up.terminate()
        up.wait()

        assert f"worker.1 | {checkout.resolve()}\n" in log.read_text()
