"""Where the time of a worker process goes, sampled by py-spy while it works off a full queue.

Only the thread that holds the interpreter counts: of that there is one, whatever the number of slots.
"""

import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

RATE = 200  # samples per second
_FRAME = re.compile(r"^(?P<function>\S+) \((?P<file>[^:)]+)(:\d+)?\)$")


def sampled(pid: int, work: Callable[[], object], output: Path) -> dict[str, Any]:
    """Do the work while the process is sampled. Needs the right to trace it (root, or ptrace_scope 0)."""
    sampler = Path(sys.executable).with_name("py-spy")
    options = ["--gil", "--threads", "--format", "raw", "--duration", "600", "--output", str(output)]
    started = time.monotonic()
    sampling = subprocess.Popen(
        [sampler, "record", "--pid", str(pid), "--rate", str(RATE), *options], stdout=subprocess.DEVNULL
    )
    try:
        work()
    finally:
        sampling.send_signal(signal.SIGINT)
        sampling.wait()
    found = summary(output.read_text().splitlines())
    return {"interpreter_busy_percent": round(100 * found["samples"] / RATE / (time.monotonic() - started)), **found}


def summary(lines: Iterable[str], *, top: int = 30) -> dict[str, Any]:
    """Percent of all samples, by thread, by package, by function alone and with what it called."""
    threads: Counter[str] = Counter()
    packages: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    inclusive: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        thread, *frames = stack.split(";")
        samples = int(count)
        threads[re.sub(r"-?\d+$", "", thread.rsplit(": ", 1)[-1].rstrip(")"))] += samples
        packages[_package(frames[-1])] += samples
        alone[_function(frames[-1])] += samples
        for function in {_function(frame) for frame in frames}:
            inclusive[function] += samples
    total = sum(alone.values())
    return {
        "samples": total,
        "by_thread_percent": _shares(threads, total, top),
        "by_package_percent": _shares(packages, total, top),
        "self_percent": _shares(alone, total, top),
        "cumulative_percent": _shares(inclusive, total, 3 * top),
    }


def _shares(counts: Counter[str], total: int, top: int) -> dict[str, float]:
    return {name: round(100 * count / total, 1) for name, count in counts.most_common(top)}


def _function(frame: str) -> str:
    """`claim (shared/domain/leases.py)`: the lines of one function are one."""
    found = _FRAME.match(frame)
    return f"{found['function']} ({found['file']})" if found else frame


def _package(frame: str) -> str:
    found = _FRAME.match(frame)
    return found["file"].split("/")[0] if found else "?"
