"""How many calls searches for better prompts need: ours beside gepa and dspy, in simulated worlds. Prints JSON.

    make bench-optimizers            or            python -m benchmarks.optimizers --help

The server that answers and counts, Redis and the whole stack of ours are its own. How to read it: docs/performance.md.
"""

import argparse
import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import places
from benchmarks.optimizers import ours, outcomes, reducer, server, worlds, writer
from benchmarks.optimizers.outcomes import Outcome
from benchmarks.optimizers.worlds import World
from benchmarks.places import ROOT, say
from tests.faults.fleet import Fleet, running_fleet
from tests.servers import free_port, temporary_directory, wait_until
from worker.strategies import STRATEGIES

TIERS = ("reducer", "http", "kills")
PEERS = ("gepa", "dspy_copro", "dspy_mipro", "dspy_mipro_instructions", "dspy_gepa")
PEERS_PYTHON = ROOT / ".venv-optimizers/bin/python"
DEFAULT = "beam_search"
TRAIN, DEV = 30, 40  # of the cases; a library is given no holdout, ours spends calls on one
PROPOSALS = 0.1  # share of the budget that may be spent on them where a search has two limits
_PEER_SECONDS = 1800.0


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the servers end with it
    report: dict[str, Any] = {
        "machine": places.machine("gepa", "optuna"),
        "peers": _peer_versions() if options.peers else {},
        "method": {
            **{name: getattr(options, name) for name in ("worlds", "seeds", "families", "budget", "level")},
            "world_seed": options.world_seed,
            "fresh_world_seed": options.fresh_world_seed,
            "cases": {"train": TRAIN, "dev": DEV, "all": worlds.CASES, "unseen": worlds.UNSEEN},
            "censored": "a run that never reaches 80 % counts with the whole budget",
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    }
    if "reducer" in options.tier:
        report["reducer"] = _two_sets(options, partial(_reduced, options), options.reducer_worlds)
    if "http" in options.tier or "kills" in options.tier:
        with _bench(options) as bench:
            if "http" in options.tier:
                report["http"] = _two_sets(options, bench.compared, options.worlds)
            if "kills" in options.tier:
                report["kills"] = bench.killed()
    report["targets"] = judged(report)
    print(json.dumps(report, indent=2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.optimizers",
        description=(__doc__ or "").split("\n")[0],
        epilog="See docs/performance.md.",
    )
    add = parser.add_argument
    add("--tier", action="append", choices=TIERS, help="only this one; may be repeated (default: all)")
    add("--worlds", type=int, default=35, help="of the HTTP tier (%(default)s)")
    add("--reducer-worlds", type=int, default=210, help="of the tier in one process (%(default)s)")
    add("--seeds", type=int, default=3, help="runs of each method in each world (%(default)s)")
    add("--families", nargs="+", choices=worlds.FAMILIES, default=list(worlds.FAMILIES), help="of worlds, in turns")
    add("--world-seed", type=int, default=1, help="from which the worlds are drawn (%(default)s)")
    add(
        "--fresh-world-seed", type=int, default=2, help="of a second set, which must rank alike; -1: none (%(default)s)"
    )
    add("--budget", type=int, default=3000, help="calls of a run, task and proposer (%(default)s)")
    add("--level", choices=tuple(writer.LEVELS), default="medium", help="of the model that rewrites (%(default)s)")
    add("--strategies", nargs="+", help=f"of ours; `all`: each that there is (over HTTP {DEFAULT}, else all)")
    add("--peers", nargs="*", choices=PEERS, default=list(PEERS), help="libraries; none for ours alone")
    add("--kills", type=int, default=10, help="of workers, at random (%(default)s)")
    add("--latency-ms", type=float, default=60, help="of an answer while workers are killed (%(default)s)")
    add("--keep", action="store_true", help="with every run in the document")
    add("--smoke", action="store_true", help="two worlds, once, ours alone: does it run at all?")
    chosen = parser.parse_args()
    chosen.tier = chosen.tier or list(TIERS)
    if chosen.strategies and (unknown := {*chosen.strategies} - {*STRATEGIES, "all"}):
        parser.error(f"--strategies: there is no {', '.join(sorted(unknown))}; there are: {', '.join(STRATEGIES)}")
    if chosen.smoke:
        chosen.worlds, chosen.reducer_worlds, chosen.seeds, chosen.kills = 1, 2, 1, 2
        chosen.families, chosen.budget, chosen.peers, chosen.fresh_world_seed = ["additive", "null"], 400, [], -1
    if "http" in chosen.tier and chosen.peers and not PEERS_PYTHON.exists():
        parser.error("the libraries are not installed: make .venv-optimizers/.installed, or --peers with no name")
    return chosen


def _two_sets(
    options: argparse.Namespace, compare: Callable[[Sequence[World]], list[Outcome]], count: int
) -> dict[str, Any]:
    """The same comparison in worlds of the named seed and of a fresh one."""
    made: dict[str, Any] = {}
    seeds = {"named": options.world_seed, "fresh": options.fresh_world_seed}
    for which, world_seed in seeds.items():
        if world_seed < 0:
            continue
        found = compare(worlds.many(world_seed, options.families, count))
        made[which] = {
            "ranking": outcomes.ranking(found),
            "figures": outcomes.figures(found, seed=world_seed),
            "ratio_to": outcomes.ratios(found, DEFAULT, seed=world_seed),
            **({"runs": outcomes.plain(found)} if options.keep else {}),
        }
    if len(made) == 2:
        made["same_ranking"] = made["named"]["ranking"] == made["fresh"]["ranking"]
    return made


def _strategies(chosen: Sequence[str], known: Sequence[str]) -> list[str]:
    return list(known if "all" in chosen else chosen)


def _budget(options: argparse.Namespace) -> dict[str, int]:
    proposals = max(1, int(options.budget * PROPOSALS))
    return {"max_task_calls": options.budget - proposals, "max_proposer_calls": proposals}


def _reduced(options: argparse.Namespace, chosen: Sequence[World]) -> list[Outcome]:
    found = []
    for number, world in enumerate(chosen, 1):
        for strategy in _strategies(options.strategies or ["all"], list(STRATEGIES)):
            for seed in range(options.seeds):
                size = {"budget": _budget(options), "total": options.budget, "level": options.level}
                found.append(reducer.run(strategy, world, seed=seed, **size))
        say(f"in one process: world {number} of {len(chosen)}, {world.name}")
    return found


# ---- over HTTP ------------------------------------------------------------------------------


@dataclass
class Bench:
    options: argparse.Namespace
    fleet: Fleet
    port: int
    control_port: int

    def compared(self, chosen: Sequence[World]) -> list[Outcome]:
        found = []
        methods: dict[str, Callable[[World, int], tuple[str | None, bool]]] = {
            strategy: partial(self._by_ours, strategy)
            for strategy in _strategies(self.options.strategies or [DEFAULT], ours.strategies(self.fleet))
        } | {peer: partial(self._by_peer, peer) for peer in self.options.peers}
        for number, world in enumerate(chosen, 1):
            for seed in range(self.options.seeds):
                for method, search in methods.items():
                    self._begin(world)
                    started = time.monotonic()
                    returned, claims = search(world, seed)
                    told = self.told()
                    found.append(
                        outcomes.outcome(
                            world, told, method=method, seed=seed, budget=self.options.budget,
                            returned=returned, claims=claims,
                        )
                    )  # fmt: skip
                    say(
                        f"world {number} of {len(chosen)}, {world.name}, seed {seed}: {method} {found[-1].calls} calls,"
                        f" 80 % after {found[-1].calls_to_80}, gain {found[-1].gain},"
                        f" {time.monotonic() - started:.1f} s"
                    )
        return found

    def killed(self) -> dict[str, Any]:
        """The same run twice: once left alone, once with workers killed under it."""
        world = worlds.world(self.options.world_seed, "additive", 0)
        self._begin(world, latency_ms=self.options.latency_ms)
        self._optimize(world, DEFAULT, 0)
        alone = self.told()["calls"]
        self._begin(world, latency_ms=self.options.latency_ms)
        path = ours.start(self.fleet, world, DEFAULT, seed=0, budget=_budget(self.options))
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
        allowed = len(alone) + sum(each["slots_open"] for each in kills)
        say(f"{len(alone)} calls left alone, {len(told)} with {len(kills)} kills, at most {allowed}")
        return {
            "calls_left_alone": len(alone),
            "calls_with_kills": len(told),
            "kills": kills,
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
        path = ours.start(self.fleet, world, strategy, seed=seed, budget=_budget(self.options))
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
            "budget": _budget(self.options)["max_task_calls"],
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
def _bench(options: argparse.Namespace) -> Iterator[Bench]:
    with contextlib.ExitStack() as stack:
        home: Path = stack.enter_context(temporary_directory())
        port, control_port = free_port(), free_port()
        command = [sys.executable, "-m", "benchmarks.optimizers.server", str(port), str(control_port)]
        answering = subprocess.Popen(command, cwd=ROOT)
        stack.callback(answering.wait)
        stack.callback(answering.terminate)
        wait_until(lambda: _answers(control_port), "the server of the worlds answers")
        # A lease that is long enough for a busy machine: only a killed worker shall lose one.
        settings = {
            "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1",
            "PROMPTMILL_JOB_LEASE_SECONDS": "10",
            "PROMPTMILL_HEARTBEAT_SECONDS": "2",
            "PROMPTMILL_PROVIDER_TIMEOUT_SECONDS": "60",
        }
        fleet = stack.enter_context(running_fleet(home, database="sqlite", settings=settings))
        yield Bench(options, fleet, port, control_port)


def _answers(port: int) -> bool:
    try:
        server.ask(port, "GET", "/nothing")
    except OSError as error:
        return getattr(error, "code", None) == 404
    return True


def _peer_versions() -> dict[str, str]:
    code = (
        "import json, importlib.metadata as m; print(json.dumps({n: m.version(n) for n in ('gepa', 'dspy', 'optuna')}))"
    )
    found = subprocess.run([str(PEERS_PYTHON), "-c", code], stdout=subprocess.PIPE, check=True).stdout
    return dict(json.loads(found))


# ---- targets --------------------------------------------------------------------------------


def judged(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each target that this run measured; of the two sets of worlds the worse one counts."""
    made: list[dict[str, Any]] = []

    def judge(what: str, target: str, found: Any, met: bool) -> None:
        made.append({"what": what, "target": target, "found": found, "met": met})

    compared = report.get("http", {})
    sets = [compared[which] for which in ("named", "fresh") if which in compared]
    to_peers = [[found["value"] for name, found in each["ratio_to"].items() if name in PEERS] for each in sets]
    ratios = [max(values) for values in to_peers if values]
    if ratios:
        judge("calls_to_80_ratio", "at most 0.5 of the best library's", max(ratios), max(ratios) <= 0.5)
    rates = [each["figures"][DEFAULT]["false_improvements"] for each in sets if DEFAULT in each["figures"]]
    values = [rate["value"] for rate in rates if rate]
    if values:
        judge("false_improvements", "at most 0.05", max(values), max(values) <= 0.05)
    if "kills" in report:
        kills = report["kills"]
        allowed = kills["calls_left_alone"] + kills["slots_open_at_kills"]
        judge("paid_calls_under_kills", f"at most {allowed}", kills["calls_with_kills"], kills["within"])
    if "same_ranking" in compared:
        judge("same_ranking_on_a_fresh_seed", "yes", compared["same_ranking"], compared["same_ranking"])
    return made


if __name__ == "__main__":
    main()
