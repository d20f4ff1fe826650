"""How long an evaluation takes, beside what else one could use, in the same run. Prints one JSON document.

    make bench-evaluations            or            python -m benchmarks.evaluations --help

Redis, the database, the API, its workers and the provider stub are its own. Contenders take turns over new cases;
the stub counts the calls of each. How to read it: docs/performance.md.
"""

import argparse
import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import redis

from benchmarks import fleet, places, profiles, stub
from benchmarks.places import ROOT, say, spread
from benchmarks.work import INSTRUCTION, MODEL, Evaluated, ticket
from tests.servers import PostgresServer, RedisServer, free_port, temporary_directory, wait_until

DSPY_PYTHON = ROOT / ".venv-optimizers/bin/python"
PROMPTFOO = ROOT / "benchmarks/promptfoo/node_modules/promptfoo/dist/src/entrypoint.js"
PARTS = ("evaluate", "profile")
TARGET = 1.4  # times the bare loop, at most
Contenders = Mapping[str, Callable[[int], Evaluated]]  # of the number of the first case


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the servers end with it
    with _bench(options) as bench:
        report = bench.described()
        contenders = bench.contenders()
        for name in ("sdk_loop", "promptmill"):  # the others warm up by themselves, or begin anew each time
            bench.measured(name, contenders[name])
        if "evaluate" in options.part:
            report |= figures(bench.rounds(contenders))
            report["targets"] = judged(report)
        if "profile" in options.part:
            report["profile"] = bench.profile()
    print(json.dumps(report, indent=2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evaluations",
        description=(__doc__ or "").split("\n")[0],
        epilog="See docs/performance.md.",
    )
    add = parser.add_argument
    add("--part", action="append", choices=PARTS, help="only this part; may be repeated (default: evaluate)")
    add("--cases", type=int, default=400, help="of each evaluation (%(default)s)")
    add("--latency-ms", type=float, default=100, help="of the provider (%(default)s)")
    add("--in-flight", type=int, default=64, help="calls at once, over all processes (%(default)s)")
    add("--processes", type=int, default=2, help="workers of ours, and processes of the bare loop (%(default)s)")
    add("--database", choices=("sqlite", "postgresql"), default="sqlite", help="what ours runs on (%(default)s)")
    add("--rounds", type=int, default=3, help="how often each is measured, in turns (%(default)s)")
    add("--without", action="append", default=[], choices=("promptfoo", "dspy"), help="leave it out; may be repeated")
    add("--smoke", action="store_true", help="few cases, once, ours and the bare loop alone: does it run at all?")
    chosen = parser.parse_args()
    chosen.part = chosen.part or ["evaluate"]
    if chosen.smoke:
        chosen.cases, chosen.latency_ms, chosen.in_flight, chosen.rounds = 12, 5, 4, 1
        chosen.without = ["promptfoo", "dspy"]
    if chosen.in_flight % chosen.processes:
        parser.error("--in-flight: must be a multiple of --processes")
    if "dspy" not in chosen.without and not DSPY_PYTHON.exists():
        parser.error("DSPy is not installed: make .venv-optimizers/.installed, or --without dspy")
    if "promptfoo" not in chosen.without and not PROMPTFOO.exists():
        parser.error("promptfoo is not installed: npm ci in benchmarks/promptfoo, or --without promptfoo")
    return chosen


@dataclass
class Bench:
    """The servers, and how each contender is measured against the same stub."""

    options: argparse.Namespace
    directory: Path
    environment: Mapping[str, str]
    stub_port: int
    api_port: int
    workers: Sequence[int]
    facts: Mapping[str, Any]
    used: int = 0  # cases that were asked for: no two measurements ask for the same

    def described(self) -> dict[str, Any]:
        named = ("cases", "latency_ms", "in_flight", "processes", "database", "rounds")
        return {**self.facts, **{name: getattr(self.options, name) for name in named}}

    def contenders(self) -> Contenders:
        known: dict[str, Callable[[int], Evaluated]] = {
            "sdk_loop": self._sdk_loop,
            "promptmill": self._promptmill,
            "promptfoo": self._promptfoo,
            "dspy": self._dspy,
        }
        return {name: measure for name, measure in known.items() if name not in self.options.without}

    def rounds(self, contenders: Contenders) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        names = list(contenders)
        for number in range(self.options.rounds):
            turn = number % len(names)
            found.append({name: self.measured(name, contenders[name]) for name in names[turn:] + names[:turn]})
        return found

    def measured(self, name: str, measure: Callable[[int], Evaluated]) -> dict[str, Any]:
        """One evaluation. Whoever makes more or fewer calls than there are cases has done something else."""
        busy = psutil.cpu_percent(interval=0.5)
        self.used += self.options.cases
        found = measure(self.used)
        tally = found["tally"]
        say(f"{name}: {found['seconds']:.3f} s, {found['right']} right, {tally}; {busy} % busy before")
        if (found["right"], tally["calls"]) != (self.options.cases, self.options.cases):
            raise AssertionError(f"{name}: {tally['calls']} calls and {found['right']} right of {self.options.cases}")
        if tally["most_in_flight"] > self.options.in_flight:
            raise AssertionError(f"{name}: {tally['most_in_flight']} calls in flight")
        return {**found, "busy_before_percent": busy}

    def profile(self) -> dict[str, Any]:
        """What the first worker does with its interpreter while evaluations follow one another."""
        return profiles.sampled(
            self.workers[0],
            lambda: [self.measured("promptmill", self._promptmill) for _ in range(self.options.rounds)],
            self.directory / "worker.profile",
        )

    def _sdk_loop(self, first: int) -> Evaluated:
        sizes = {"processes": self.options.processes, "in_flight": self.options.in_flight}
        return self._call("benchmarks.sdk_loop", port=self.stub_port, first=first, cases=self.options.cases, **sizes)

    def _promptmill(self, first: int) -> Evaluated:
        where = {"port": self.api_port, "stub_port": self.stub_port, "workers": list(self.workers)}
        return self._call("benchmarks.fleet", first=first, cases=self.options.cases, **where)

    def _call(self, module: str, **arguments: Any) -> Evaluated:
        found: Evaluated = places.call(module, "evaluate", self.environment, **arguments)
        return found

    def _dspy(self, first: int) -> Evaluated:
        warm = self.options.in_flight
        told = {
            "port": self.stub_port,
            "model": MODEL,
            "instruction": INSTRUCTION,
            "tickets": [ticket(number) for number in range(first - warm, first + self.options.cases)],
            "warm": warm,
            "answer": stub.ANSWER,
            "in_flight": self.options.in_flight,
        }
        offline = {"HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "DSPY_CACHEDIR": str(self.directory)}
        command = [str(DSPY_PYTHON), "benchmarks/dspy_evaluate.py", json.dumps(told)]
        found: Evaluated = json.loads(places.run(command, {**_plain_environment(), **offline}))
        return found

    def _promptfoo(self, first: int) -> Evaluated:
        """`seconds` is what it says itself of the evaluation; `command_seconds` has node's start with it."""
        place = self.directory / f"promptfoo-{first}"
        place.mkdir()
        (place / "config.json").write_text(json.dumps(self._promptfoo_config(first)))
        command = ["node", str(PROMPTFOO), "eval", "-c", str(place / "config.json"), "-o", str(place / "out.json")]
        options = ["--no-cache", "--no-table", "--no-progress-bar", "--max-concurrency", str(self.options.in_flight)]
        quiet = {
            "PROMPTFOO_CONFIG_DIR": str(self.directory / "promptfoo"),
            "PROMPTFOO_DISABLE_TELEMETRY": "1",
            "PROMPTFOO_DISABLE_UPDATE": "1",
            "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
            "PROMPTFOO_CACHE_ENABLED": "false",
        }
        stub.tally(self.stub_port)
        started, used = time.monotonic(), _cpu_of_children()
        places.run([*command, *options], {**_plain_environment(), **quiet})
        command_seconds = time.monotonic() - started
        stats = json.loads((place / "out.json").read_text())["results"]["stats"]
        return PromptfooEvaluated(
            seconds=stats["evaluationDurationMs"] / 1000,
            command_seconds=command_seconds,
            right=stats["successes"],
            cpu_seconds=_cpu_of_children() - used,
            tally=stub.tally(self.stub_port),
        )

    def _promptfoo_config(self, first: int) -> dict[str, Any]:
        asked = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": "{{ ticket }}"}]
        provider = {"apiBaseUrl": f"http://127.0.0.1:{self.stub_port}/v1", "apiKey": "none"}
        return {
            "prompts": [{"label": "triage", "raw": json.dumps(asked)}],
            "providers": [{"id": f"openai:chat:{MODEL}", "config": provider}],
            "defaultTest": {"assert": [{"type": "equals", "value": stub.ANSWER}]},
            "tests": [{"vars": {"ticket": ticket(number)}} for number in range(first, first + self.options.cases)],
        }


class PromptfooEvaluated(Evaluated):
    command_seconds: float


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _plain_environment() -> dict[str, str]:
    ours = ("PROMPTMILL_", "OPENAI_", "PROMPTFOO_", "DSPY_", "LITELLM_", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


# ---- figures --------------------------------------------------------------------------------


def figures(rounds: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Of each contender medians and ranges over the rounds; ratios of ours are taken within each round."""
    return {
        "contenders": {name: _summary([each[name] for each in rounds]) for name in rounds[0]},
        "ratio": {
            f"promptmill / {name}": spread([each["promptmill"]["seconds"] / each[name]["seconds"] for each in rounds])
            for name in rounds[0]
            if name != "promptmill"
        },
    }


def _summary(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    summary: dict[str, Any] = {
        name: spread([each[name] for each in found])
        for name in ("seconds", "command_seconds", "busy_before_percent")
        if name in found[0]
    }
    summary |= {
        "cpu_ms_each": spread([1000 * each["cpu_seconds"] / each["right"] for each in found]),
        "calls": sorted({each["tally"]["calls"] for each in found}),
        "most_in_flight": spread([each["tally"]["most_in_flight"] for each in found]),
        "calls_seconds": spread([each["tally"]["seconds"] for each in found]),
    }
    if "phases_ms" in found[0]:
        phases = [each["phases_ms"] for each in found]
        summary["phases_ms"] = {name: spread([each[name] for each in phases]) for name in phases[0]}
    return summary


def judged(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = report["ratio"]["promptmill / sdk_loop"]["median"]
    return [{"what": "evaluation_ratio", "target": f"at most {TARGET:g}", "found": found, "met": found <= TARGET}]


# ---- where it runs --------------------------------------------------------------------------


@contextlib.contextmanager
def _bench(options: argparse.Namespace) -> Iterator[Bench]:
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(temporary_directory())
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.stub", str(port), str(options.latency_ms)]
        answering = subprocess.Popen(command, cwd=ROOT)
        stack.callback(answering.wait)
        stack.callback(answering.terminate)
        broker = RedisServer(work / "redis")
        stack.callback(broker.kill)
        broker.start()
        url = f"sqlite:///{work}/promptmill.db"
        if options.database == "postgresql":
            postgres = PostgresServer(work)
            stack.callback(postgres.stop)
            url = postgres.url
        provider = {"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "OPENAI_API_KEY": "none"}
        environment = places.environment(work, url, broker.url, **provider)
        sizes = {"processes": options.processes, "in_flight": options.in_flight}
        api_port, workers = stack.enter_context(fleet.serving(environment, work, **sizes))
        wait_until(lambda: _answers(port), "the stub answers")
        told = redis.Redis.from_url(broker.url).info("server")["redis_version"]
        facts = {"machine": {**places.machine("openai", "sqlalchemy", "psycopg"), "redis": told}, **_others(options)}
        yield Bench(options, work, environment, port, api_port, workers, facts)


def _others(options: argparse.Namespace) -> dict[str, Any]:
    """The versions of what ours is measured beside."""
    found: dict[str, Any] = {}
    if "promptfoo" not in options.without:
        manifest = PROMPTFOO.parents[2] / "package.json"
        found["promptfoo"] = json.loads(manifest.read_text())["version"]
        found["node"] = places.run([shutil.which("node") or "node", "--version"], os.environ).strip()
    if "dspy" not in options.without:
        code = "import importlib.metadata as m; print(m.version('dspy'))"
        found["dspy"] = places.run([str(DSPY_PYTHON), "-c", code], _plain_environment()).strip()
    return found


def _answers(port: int) -> bool:
    try:
        stub.tally(port)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
