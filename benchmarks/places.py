"""What the benchmarks share: the machine, processes of their own, figures of several rounds, progress."""

import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KEY = "pm_the_key_of_the_benchmark"


def environment(directory: Path, url: str, redis_url: str, **others: str) -> dict[str, str]:
    """Of a process of ours: none of the settings of whoever started the benchmark."""
    ours = ("PROMPTMILL_", "OPENAI_", "MLFLOW_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {
        **inherited,
        "PYTHONPATH": str(ROOT),
        "PROMPTMILL_HOME": str(directory),
        "PROMPTMILL_DATABASE_URL": url,
        "PROMPTMILL_REDIS_URL": redis_url,
        "PROMPTMILL_API_KEY": KEY,
        **others,
    }


def run(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """What it prints. In a session of its own, so that nothing that it started outlives a run that is broken off."""
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, start_new_session=True)
    try:
        text, _ = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return text.decode()


def call(module: str, function: str, environment: Mapping[str, str], **arguments: Any) -> Any:
    """What the function returns, in a process of its own."""
    return json.loads(
        run([sys.executable, "-m", "benchmarks.work", module, function, json.dumps(arguments)], environment)
    )


def spread(values: Sequence[float]) -> dict[str, float]:
    figures = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.4g}") for name, value in figures.items()}


def machine(*libraries: str) -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": _processor(),
        "python": platform.python_version(),
        **{name: _version(name) for name in libraries},
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
