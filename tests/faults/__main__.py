"""The long form: `make faults`, or `python -m tests.faults --help`."""

import argparse
import contextlib
import json
import random
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from tests.faults.fleet import Fleet, running_fleet
from tests.faults.scenarios import (
    CONTROLS,
    POSTGRESQL,
    SCENARIOS,
    SQLITE,
    Scenario,
    rehearse,
    rehearse_without,
    small_disk,
)
from tests.servers import temporary_directory

WORKERS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """The number of lines that are not as they must be, at most 1: the exit code."""
    options = parse(arguments)
    if options.list:
        print(catalogue())
        return 0
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    say(f"seed {seed}: the same command with --seed {seed} draws the same moments")
    lines: list[dict[str, Any]] = []
    for database in options.databases:
        lines += rehearse_all(database, options, seed)
    failed = [line for line in lines if not line["ok"]]
    say(
        f"{len(lines)} lines, {sum(line.get('jobs', 0) for line in lines)} jobs,"
        f" {sum(line.get('faults_injected', 0) for line in lines)} faults, {len(failed)} not ok"
    )
    return 1 if failed else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--list", action="store_true", help="print the faults and the controls, and end")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this one; may be repeated")
    parser.add_argument("--database", action="append", dest="databases", choices=(POSTGRESQL, SQLITE))
    parser.add_argument("--seed", type=int, help="of the random moments; drawn and printed when left out")
    parser.add_argument("--jobs", type=int, help="at least so many per fault; each has a number of its own")
    parser.add_argument("--kills", type=int, help="how often each fault strikes; each has a number of its own")
    parser.add_argument("--controls", action="store_true", help="only prove that the suite bites")
    options = parser.parse_args(arguments)
    options.databases = options.databases or [POSTGRESQL, SQLITE]
    known = [*SCENARIOS, *(f"without_{name}" for name in CONTROLS)]
    if unknown := sorted(set(options.only) - set(known)):
        parser.error(f"--only: {', '.join(unknown)} is none of {', '.join(known)}")
    return options


def catalogue() -> str:
    faults = [f"{one.name:32} {'+'.join(one.databases):18} {one.summary}" for one in SCENARIOS.values()]
    controls = [f"without_{name:24} {'control':18} {one.scenario} must go red" for name, one in CONTROLS.items()]
    return "\n".join(faults + controls)


def rehearse_all(database: str, options: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    chosen = [one for one in SCENARIOS.values() if database in one.databases and is_wanted(one.name, options)]
    if options.controls:
        chosen = []
    controls = [name for name in CONTROLS if database == POSTGRESQL and is_wanted(f"without_{name}", options)]
    if not chosen and not controls:
        return []
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(temporary_directory())
        if any(one.needs_small_disk for one in chosen):
            (home / "disk").mkdir()
            stack.enter_context(small_disk(home / "disk"))
        say(f"{database}: starting a fleet of {WORKERS} workers")
        fleet = stack.enter_context(running_fleet(home, database=database, workers=WORKERS))
        return [
            *(line_of(one.name, fleet, lambda one=one: play(one, fleet, options, seed)) for one in chosen),  # type: ignore[misc]
            *(
                line_of(f"without_{name}", fleet, lambda name=name: rehearse_without(fleet, name, seed=seed))  # type: ignore[misc]
                for name in controls
            ),
        ]


def is_wanted(name: str, options: argparse.Namespace) -> bool:
    return not options.only or name in options.only


def play(one: Scenario, fleet: Fleet, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    jobs = one.jobs if options.jobs is None else options.jobs
    times = one.times if options.kills is None else options.kills
    return rehearse(fleet, one.name, seed=seed, jobs=jobs, times=times)


def line_of(name: str, fleet: Fleet, rehearsal: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The line, printed. What could not be rehearsed to its end is not ok either."""
    say(f"{fleet.database}: {name} …")
    began = time.monotonic()
    try:
        line = rehearsal()
    except (AssertionError, OSError) as error:
        traceback.print_exc()
        line = {"fault": name, "database": fleet.database, "error": f"{type(error).__name__}: {error}", "ok": False}
    if not line["ok"]:
        say(fleet.logs())
    line["seconds"] = round(time.monotonic() - began, 1)
    print(json.dumps(line), flush=True)
    return line


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
