"""Searches over HTTP: ours as it is deployed, each library in a process of its own, ours with its workers killed."""

import contextlib
import itertools
import json
import random
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from benchmarks.optimizers import ours, outcomes, runs, server, worlds
from benchmarks.optimizers.outcomes import Outcome
from benchmarks.optimizers.record import PROPOSER
from benchmarks.optimizers.runs import Runs
from benchmarks.optimizers.worlds import World
from benchmarks.places import ROOT, say
from shared.knobs import DEFAULT
from tests.faults.fleet import Fleet, running_fleet
from tests.servers import free_port, temporary_directory, wait_until

Search = Callable[[World, int], tuple[str | None, bool]]  # world, seed: the prompt that came out; does it claim a gain?
PEERS = ("gepa", "dspy_copro", "dspy_mipro", "dspy_mipro_instructions", "dspy_gepa")
SEEDLESS = ("dspy_copro",)  # it has no seed, so it does the same again: one run in each world
PEERS_PYTHON = ROOT / ".venv-optimizers/bin/python"
TRAIN, DEV = 30, 40  # of the cases; a library is given no holdout, ours spends calls on one
PROPOSALS = 0.1  # share of the budget that may be spent on them where a search has two limits
_PEER_SECONDS = 1800.0


@dataclass
class Bench:
    options: Namespace
    runs: Runs
    port: int
    control_port: int
    started: contextlib.ExitStack  # what is started here ends with it

    @cached_property
    def fleet(self) -> Fleet:
        """Ours as it is deployed. It is started when it is first needed, which the libraries never do."""
        home: Path = self.started.enter_context(temporary_directory())
        # A lease that is long enough for a busy machine: only a killed worker shall lose one.
        settings = {
            "OPENAI_BASE_URL": f"http://127.0.0.1:{self.port}/v1",
            "PROMPTMILL_JOB_LEASE_SECONDS": "10",
            "PROMPTMILL_HEARTBEAT_SECONDS": "2",
            "PROMPTMILL_PROVIDER_TIMEOUT_SECONDS": "60",
        }
        return self.started.enter_context(running_fleet(home, database="sqlite", settings=settings))

    def compared(self, chosen: Sequence[World]) -> list[Outcome]:
        options = self.options
        searches: dict[str, Search] = {name: partial(self._by_ours, name) for name in self._strategies()}
        searches |= {peer: partial(self._by_peer, peer) for peer in options.peers}
        versions = {name: _versions(name) for name in searches}
        found = []
        # All worlds once before any twice: a comparison that is broken off is one of many worlds.
        for seed, (number, world) in itertools.product(range(options.seeds), enumerate(chosen, 1)):
            for method in searches:
                if seed and method in SEEDLESS:
                    continue
                size = {"seed": seed, "budget": options.budget}
                known_by = runs.identity(method, world, **size, level=options.level, versions=versions[method])
                make = partial(self._run, searches[method], world, method=method, **size)
                run = self.runs.take(known_by, make)
                found.append(run)
                say(
                    f"seed {seed}, world {number} of {len(chosen)}, {world.name}: {method} {run.calls} calls,"
                    f" 80 % after {run.calls_to_80}, gain {run.gain}, {run.seconds:.1f} s"
                )
        return found

    def _strategies(self) -> Sequence[str]:
        chosen: list[str] = [DEFAULT] if self.options.strategies is None else self.options.strategies
        return ours.strategies(self.fleet) if "all" in chosen else chosen

    def _run(self, search: Search, world: World, *, method: str, seed: int, budget: int) -> Outcome:
        self._begin(world)
        started = time.monotonic()
        returned, claims = search(world, seed)
        seconds = round(time.monotonic() - started, 2)
        return outcomes.outcome(
            world, self.told(), method=method, seed=seed, budget=budget, returned=returned, claims=claims,
            seconds=seconds,
        )  # fmt: skip

    def killed(self) -> dict[str, Any]:
        """The same run twice: once left alone, once with workers killed under it."""
        world = worlds.world(self.options.world_seed, "additive", 0)
        self._begin(world, latency_ms=self.options.latency_ms)
        self._optimize(world, DEFAULT, 0)
        alone = self.told()["calls"]
        self._begin(world, latency_ms=self.options.latency_ms)
        path = ours.start(self.fleet, world, DEFAULT, seed=0, budget=divided(self.options.budget))
        kills = ours.killed_at_random(
            self.fleet,
            path,
            ours.calls_at(self.control_port),
            kills=self.options.kills,
            expected=len(alone),
            chance=random.Random(self.options.world_seed),
        )
        ours.ended(self.fleet, path)
        told = self.told()["calls"]
        again, unexplained = ours.repeats(told, kills)
        allowed = len(alone) + sum(each["slots_open"] for each in kills)
        say(f"{len(alone)} calls left alone, {len(told)} with {len(kills)} kills, at most {allowed}")
        return {
            "calls_left_alone": len(alone),
            "calls_with_kills": len(told),
            "kills": [{**kill, "task_calls_repeated": count} for kill, count in zip(kills, again, strict=True)],
            "task_calls_repeated_without_a_kill": unexplained,
            "proposer_calls": [sum(call["role"] == PROPOSER for call in calls) for calls in (alone, told)],
            "slots_open_at_kills": sum(each["slots_open"] for each in kills),
            "within": len(told) <= allowed,
        }

    def told(self) -> Any:
        return server.ask(self.control_port, "GET", "/run")

    def _begin(self, world: World, *, latency_ms: float = 0.0) -> None:
        body = {"seed": world.seed, "family": world.family, "number": world.number, "level": self.options.level}
        server.ask(self.control_port, "POST", "/runs", {**body, "latency_ms": latency_ms})

    def _by_ours(self, strategy: str, world: World, seed: int) -> tuple[str, bool]:
        text, optimization = self._optimize(world, strategy, seed)
        return text, optimization["result"]["verdict"] == "improved"

    def _optimize(self, world: World, strategy: str, seed: int) -> tuple[str, dict[str, Any]]:
        path = ours.start(self.fleet, world, strategy, seed=seed, budget=divided(self.options.budget))
        return ours.ended(self.fleet, path)

    def _by_peer(self, peer: str, world: World, seed: int) -> tuple[str | None, bool]:
        """A library claims an improvement by returning another prompt than the seed: it has no other word for it."""
        cases = [{"text": case.text, "answer": case.answer} for case in world.cases]
        given = {
            "peer": peer,
            "base_url": f"http://127.0.0.1:{self.port}/v1",
            "seed_text": world.seed_text,
            "train": cases[:TRAIN],
            "dev": cases[TRAIN : TRAIN + DEV],
            "budget": divided(self.options.budget)["max_task_calls"],
            "seed": seed,
        }
        done = subprocess.run(
            [str(PEERS_PYTHON), "-m", "benchmarks.optimizers.peer", json.dumps(given)],
            cwd=ROOT, capture_output=True, text=True, timeout=_PEER_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode:
            say(f"{peer} failed: {done.stderr[-3000:]}")
            return None, False
        text = str(json.loads(done.stdout.strip().splitlines()[-1])["prompt"])
        return text, text != world.seed_text


@contextlib.contextmanager
def running(options: Namespace, kept: Runs) -> Iterator[Bench]:
    with contextlib.ExitStack() as stack:
        port, control_port = free_port(), free_port()
        command = [sys.executable, "-m", "benchmarks.optimizers.server", str(port), str(control_port)]
        answering = subprocess.Popen(command, cwd=ROOT)
        stack.callback(answering.wait)
        stack.callback(answering.terminate)
        wait_until(lambda: _answers(control_port), "the server of the worlds answers")
        yield Bench(options, kept, port, control_port, stack)


def divided(budget: int) -> dict[str, int]:
    """The budget of one of our searches, which has two limits."""
    proposals = max(1, int(budget * PROPOSALS))
    return {"max_task_calls": budget - proposals, "max_proposer_calls": proposals}


@cache
def peer_versions() -> dict[str, str]:
    code = (
        "import json, importlib.metadata as m; print(json.dumps({n: m.version(n) for n in ('gepa', 'dspy', 'optuna')}))"
    )
    found = subprocess.run([str(PEERS_PYTHON), "-c", code], stdout=subprocess.PIPE, check=True).stdout
    return dict(json.loads(found))


def _versions(method: str) -> Any:
    """Of the code that searches: the libraries and how they are called, or ours."""
    if method in PEERS:
        return {**peer_versions(), "called_by": runs.digest("benchmarks/optimizers/peer.py")}
    return runs.digest("worker/**/*.py", "shared/**/*.py")


def _answers(port: int) -> bool:
    try:
        server.ask(port, "GET", "/nothing")
    except OSError as error:
        return getattr(error, "code", None) == 404
    return True
