"""Dividing and ordering the cases of a search: balanced by what is expected, groups kept together, by a seed."""

import hashlib
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from shared.hashing import canonical_json
from shared.knobs import SMALL, WATCHED, split_shares


class Case(Protocol):
    """What is looked at of a test case."""

    @property
    def ordinal(self) -> int: ...

    @property
    def inputs(self) -> Mapping[str, Any]: ...

    @property
    def expected(self) -> Any: ...

    @property
    def tags(self) -> Sequence[str]: ...

    @property
    def group(self) -> str | None: ...


OneCase = TypeVar("OneCase", bound=Case)
Stratum = Callable[[Any], str]


@dataclass(frozen=True)
class Split:
    """Ordinals, each list in a balanced order: any prefix has about the shares of the whole."""

    train: list[int]
    dev: list[int]
    holdout: list[int]
    indicative: bool
    watch: list[int] = field(default_factory=list)  # taken from dev, when asked for


def draw(*key: Any) -> random.Random:
    """A generator that depends on its key alone: no clock, no process hash, no history."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return random.Random(int.from_bytes(digest[:16], "big"))


def split(cases: Sequence[Case], settings: Mapping[str, Any], *, watched: bool = False) -> Split:
    """Three disjoint lists by the fractions of `settings`; with fewer than 30 cases train is dev.

    `watched`: a part of dev is set aside, and is then neither in dev nor in train.
    """
    seed, stratum = settings["split_seed"], stratum_by(settings)
    ordered = balanced(cases, seed, stratum=stratum)
    dealt = _dealt(ordered, split_shares(settings, len(cases)), stratum, settings.get("group_by"))
    if watched:
        of_dev = balanced(dealt["dev"], seed, "watch", stratum=stratum)
        dealt |= _dealt(of_dev, {"dev": 1 - WATCHED, "watch": WATCHED}, stratum, settings.get("group_by"))
    parts = {part: [case.ordinal for case in balanced(own, seed, part, stratum=stratum)] for part, own in dealt.items()}
    dev = parts["dev"]
    return Split(parts.get("train", dev), dev, parts["holdout"], len(cases) < SMALL, parts.get("watch", []))


def stratum_of(case: Case) -> str:
    """What a split is balanced by: the expected value, or its first field."""
    value = next(iter(case.expected.values()), "") if isinstance(case.expected, Mapping) else case.expected
    return str(value)


def stratum_by(settings: Mapping[str, Any]) -> Stratum:
    """What these settings balance a split by; what a case does not have is a stratum too."""
    path = settings.get("stratify_by")
    return stratum_of if path is None else lambda case: value_at(case, path) or ""


def value_at(case: Case, path: str) -> str | None:
    """What a case has at `expected`, `tags`, `group`, `inputs.<name>` or `expected.<field>`; None where nothing is."""
    where, *fields = path.split(".")
    value = getattr(case, where)
    for name in fields:
        value = value.get(name) if isinstance(value, Mapping) else None
    if where == "tags":
        value = sorted(value)
    if value in (None, "", []):
        return None
    return value if isinstance(value, str) else canonical_json(value)


def balanced(cases: Sequence[OneCase], *key: Any, stratum: Stratum = stratum_of) -> list[OneCase]:
    """The cases shuffled within their strata, and the strata interleaved in proportion."""
    strata: dict[str, list[OneCase]] = {}
    for case in sorted(cases, key=lambda case: case.ordinal):
        strata.setdefault(stratum(case), []).append(case)
    placed = []
    for name, members in strata.items():
        draw("balanced", name, *key).shuffle(members)
        # A stratum of n sits at (i + u) / n, so that prefixes hold each stratum in proportion.
        offset = draw("offset", name, *key).random()
        placed += [((i + offset) / len(members), name, case) for i, case in enumerate(members)]
    placed.sort(key=lambda item: (item[0], item[1]))
    return [case for _, _, case in placed]


def _dealt(
    ordered: Sequence[OneCase], shares: Mapping[str, float], stratum: Stratum, group_by: str | None
) -> dict[str, list[OneCase]]:
    """The cases of each part. Large groups choose first, so that single cases even out what they leave."""
    left = _quotas(Counter(stratum(case) for case in ordered), shares)
    units: dict[tuple[str, object], list[OneCase]] = {}
    for case in ordered:
        group = case.group if group_by is None else value_at(case, group_by)
        units.setdefault(("case", case.ordinal) if group is None else ("group", group), []).append(case)
    dealt: dict[str, list[list[OneCase]]] = {part: [] for part in shares}
    for unit in sorted(units.values(), key=lambda unit: -len(unit)):
        part = max(shares, key=lambda name: sum(left[stratum(case)][name] for case in unit))
        dealt[part].append(unit)
        for case in unit:
            left[stratum(case)][part] -= 1
    _fill_empty(dealt)
    return {part: [case for unit in own for case in unit] for part, own in dealt.items()}


def _quotas(sizes: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, dict[str, int]]:
    """How many cases of each stratum a part gets: its share of the stratum, rounded up or down.

    What rounding down leaves goes to the parts that are furthest behind over all strata so far.
    """
    quotas: dict[str, dict[str, int]] = {}
    behind = dict.fromkeys(shares, 0.0)
    for stratum, size in sizes.items():
        quota = {part: math.floor(share * size + 1e-9) for part, share in shares.items()}
        for part, share in shares.items():
            behind[part] += share * size - quota[part]
        fractional = [part for part, share in shares.items() if share * size - quota[part] > 1e-9]
        for part in sorted(fractional, key=lambda name: -behind[name])[: size - sum(quota.values())]:
            quota[part] += 1
            behind[part] -= 1
        quotas[stratum] = quota
    return quotas


def _fill_empty(dealt: Mapping[str, list[list[OneCase]]]) -> None:
    """A part that rounding left empty takes one unit of the largest; dev and holdout come before train."""
    for part in ("dev", "holdout", "watch", "train"):
        donors = [own for own in dealt.values() if len(own) > 1]
        if part in dealt and not dealt[part] and donors:
            largest = max(donors, key=lambda own: sum(map(len, own)))
            dealt[part].append(largest.pop())  # the last is the smallest
