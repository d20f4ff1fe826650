"""Dividing and ordering cases: balanced by what is expected, groups kept together, decided by a seed."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.strategies.contract import Case

SMALL = 30  # below this, train and dev are the same cases and a result is only indicative


@dataclass(frozen=True)
class Split:
    """Ordinals, each list in a balanced order: any prefix has about the shares of the whole."""

    train: list[int]
    dev: list[int]
    holdout: list[int]
    indicative: bool


def draw(*key: Any) -> random.Random:
    """A generator that depends on its key alone: no clock, no process hash, no history."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return random.Random(int.from_bytes(digest[:16], "big"))


def split(cases: Sequence[Case], settings: Mapping[str, Any]) -> Split:
    """Three disjoint lists by the fractions of `settings`; with fewer than 30 cases train is dev."""
    seed = settings["split_seed"]
    if len(cases) < SMALL:
        holdout_share = max(5 / len(cases), settings["holdout_fraction"])
        shares = {"dev": 1 - holdout_share, "holdout": holdout_share}
    else:
        shares = {part: settings[f"{part}_fraction"] for part in ("train", "dev", "holdout")}
    parts = _assign(balanced(cases, seed), shares)
    dev = parts["dev"]
    return Split(parts.get("train", dev), dev, parts["holdout"], len(cases) < SMALL)


def balanced(cases: Sequence[Case], *key: Any) -> list[Case]:
    """The cases shuffled within their strata, and the strata interleaved in proportion."""
    strata: dict[str, list[Case]] = {}
    for case in sorted(cases, key=lambda case: case.ordinal):
        strata.setdefault(case.stratum, []).append(case)
    placed = []
    for name, members in strata.items():
        draw("balanced", name, *key).shuffle(members)
        # A stratum of n sits at (i + u) / n, so that prefixes hold each stratum in proportion.
        offset = draw("offset", name, *key).random()
        placed += [((i + offset) / len(members), name, case) for i, case in enumerate(members)]
    placed.sort(key=lambda item: (item[0], item[1]))
    return [case for _, _, case in placed]


def _assign(ordered: Sequence[Case], shares: Mapping[str, float]) -> dict[str, list[int]]:
    """Deal the cases to the part that is furthest behind its share, a group always to one part."""
    parts: dict[str, list[int]] = {part: [] for part, share in shares.items() if share > 0}
    home: dict[str, str] = {}
    for dealt, case in enumerate(ordered, start=1):
        part = home.get(case.group) if case.group is not None else None
        if part is None:
            part = max(parts, key=lambda name: (shares[name] * dealt - len(parts[name]), name))
        if case.group is not None:
            home[case.group] = part
        parts[part].append(case.ordinal)
    return parts
