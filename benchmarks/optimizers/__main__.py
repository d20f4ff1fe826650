"""How many calls searches for better prompts need: ours beside gepa and dspy, in simulated worlds. Prints JSON.

    make bench-optimizers            or            python -m benchmarks.optimizers --help

The server that answers and counts, Redis and the whole stack of ours are its own. How to read it: docs/performance.md.
"""

import argparse
import json
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import places
from benchmarks.optimizers import bench, figures, plot, reducer, targets, worlds, writer
from benchmarks.optimizers.bench import DEV, PEERS, PEERS_PYTHON, TRAIN
from benchmarks.optimizers.outcomes import Outcome
from benchmarks.optimizers.runs import Runs
from benchmarks.optimizers.worlds import World
from benchmarks.places import say
from shared.knobs import DEFAULT
from worker.strategies import STRATEGIES

TIERS = ("reducer", "http", "kills")


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the servers end with it
    kept = Runs(options.runs)
    report: dict[str, Any] = {
        "machine": places.machine("gepa", "optuna"),
        "peers": bench.peer_versions() if options.peers else {},
        "method": {
            **{
                name: getattr(options, name)
                for name in ("worlds", "fresh_worlds", "seeds", "families", "budget", "level")
            },
            "world_seed": options.world_seed,
            "fresh_world_seed": options.fresh_world_seed,
            "cases": {"train": TRAIN, "dev": DEV, "all": worlds.CASES, "unseen": worlds.UNSEEN},
            "censored": "a run that never reaches 80 % counts with the whole budget",
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    }
    if "reducer" in options.tier:
        report["reducer"] = _two_sets(options, partial(_reduced, options), options.reducer_worlds, None)
    if "http" in options.tier or "kills" in options.tier:
        with bench.running(options, kept) as running:
            if "http" in options.tier:
                report["http"] = _two_sets(options, running.compared, options.worlds, options.fresh_worlds)
            if "kills" in options.tier:
                report["kills"] = running.killed()
    report["runs_from_the_file"] = kept.taken
    report["targets"] = targets.judged(report)
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
    add("--fresh-worlds", type=int, help="of the second set over HTTP (default: as many)")
    add("--budget", type=int, default=2000, help="calls of a run, task and proposer (%(default)s)")
    add("--level", choices=tuple(writer.LEVELS), default="medium", help="of the model that rewrites (%(default)s)")
    add("--strategies", nargs="*", help=f"of ours; `all`: each that there is (over HTTP {DEFAULT}, else all)")
    add("--peers", nargs="*", choices=PEERS, default=list(PEERS), help="libraries; none for ours alone")
    add("--runs", type=Path, help="a file that keeps finished runs over HTTP; what it has is not run again")
    add(
        "--plot",
        type=Path,
        help="an SVG file: share of runs with 80 %% of the gain, against calls, in the named worlds",
    )
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
    options: argparse.Namespace, compare: Callable[[Sequence[World]], list[Outcome]], count: int, fresh: int | None
) -> dict[str, Any]:
    """The same comparison in worlds of the named seed and of a fresh one."""
    made: dict[str, Any] = {}
    sizes = {"named": (options.world_seed, count), "fresh": (options.fresh_world_seed, fresh or count)}
    for which, (world_seed, size) in sizes.items():
        if world_seed < 0:
            continue
        found = compare(worlds.many(world_seed, options.families, size))
        if which == "named" and options.plot:
            plot.save(found, options.plot, budget=options.budget)
        made[which] = {
            "ranking": figures.ranking(found),
            "figures": figures.figures(found, seed=world_seed),
            "ratio_to": figures.ratios(found, DEFAULT, seed=world_seed),
            **({"runs": figures.plain(found)} if options.keep else {}),
        }
    if len(made) == 2:
        made["same_ranking"] = made["named"]["ranking"] == made["fresh"]["ranking"]
    return made


def _reduced(options: argparse.Namespace, chosen: Sequence[World]) -> list[Outcome]:
    strategies = list(STRATEGIES) if "all" in (options.strategies or ["all"]) else options.strategies
    size = {"budget": bench.divided(options.budget), "total": options.budget, "level": options.level}
    found = []
    for number, world in enumerate(chosen, 1):
        for strategy in strategies:
            found += [reducer.run(strategy, world, seed=seed, **size) for seed in range(options.seeds)]
        say(f"in one process: world {number} of {len(chosen)}, {world.name}")
    return found


if __name__ == "__main__":
    main()
