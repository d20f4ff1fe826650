"""Finished runs in a file, one JSON object a line, so that a long comparison can be broken off and taken up again.

A run is known by what it depends on, the sources among it: where one of them has changed, it is made anew.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.optimizers.outcomes import Outcome
from benchmarks.optimizers.worlds import World
from benchmarks.places import ROOT

# What decides how a world answers and how a run is judged; the rest of this package only arranges runs.
_WORLD = ("formats", "lexicon", "outcomes", "record", "server", "worlds", "writer")


class Runs:
    """The runs of a file, and those that are made and added to it. Without a file nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Outcome] = {}
        self.taken = 0  # from the file, in place of being made
        for line in path.read_text().splitlines() if path and path.exists() else ():
            kept = json.loads(line)
            self._known[_key(kept["identity"])] = Outcome(**kept["outcome"])

    def take(self, identity: Mapping[str, Any], make: Callable[[], Outcome]) -> Outcome:
        """The run of this identity; `make` is called only when the file does not have it."""
        key = _key(identity)
        if key in self._known:
            self.taken += 1
            return self._known[key]
        made = make()
        self._known[key] = made
        if self._path:
            with self._path.open("a") as file:  # one write, so that two processes may add to one file
                file.write(json.dumps({"identity": identity, "outcome": asdict(made)}) + "\n")
        return made


def identity(method: str, world: World, *, seed: int, budget: int, level: str, versions: Any) -> dict[str, Any]:
    """What a run depends on; `versions` are those of the code that searches."""
    return {
        "method": method,
        "versions": versions,
        "world": digest(*(f"benchmarks/optimizers/{name}.py" for name in _WORLD)),
        "world_seed": world.seed,
        "family": world.family,
        "number": world.number,
        "seed": seed,
        "budget": budget,
        "level": level,
    }


def digest(*patterns: str) -> str:
    """Of the files that these patterns name, below the root of the repository."""
    paths = sorted({path for pattern in patterns for path in ROOT.glob(pattern)})
    found = hashlib.sha256()
    for path in paths:
        found.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()[:16]


def _key(identity: Mapping[str, Any]) -> str:
    return json.dumps(identity, sort_keys=True)
