"""Chance without state: every draw is a hash of what it is drawn for."""

import hashlib
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, TypeVar

from shared.hashing import canonical_json

T = TypeVar("T")
_NORMAL = NormalDist()


class Dice:
    """Draws that depend on the key given here and on the name of each draw, and on nothing else."""

    def __init__(self, *key: Any) -> None:
        self._key = hashlib.sha256(canonical_json(key).encode()).digest()

    def uniform(self, *name: Any) -> float:
        """In the open interval (0, 1)."""
        digest = hashlib.sha256(self._key + canonical_json(name).encode()).digest()
        return (int.from_bytes(digest[:7], "big") + 0.5) / (1 << 56)

    def normal(self, *name: Any) -> float:
        return _NORMAL.inv_cdf(self.uniform(*name))

    def lognormal(self, name: str, sigma: float) -> float:
        """Median 1."""
        return math.exp(sigma * self.normal(name))

    def choice(self, options: Sequence[T], *name: Any) -> T:
        return options[int(self.uniform(*name) * len(options))]

    def weighted(self, options: Sequence[tuple[T, float]], *name: Any) -> T:
        mark = self.uniform(*name) * sum(weight for _, weight in options)
        for option, weight in options:
            mark -= weight
            if mark <= 0:
                return option
        return options[-1][0]

    def poisson(self, mean: float, *name: Any) -> int:
        mark, count, chance = self.uniform(*name), 0, math.exp(-mean)
        total = chance
        while mark > total and count < 20:
            count += 1
            chance *= mean / count
            total += chance
        return count


def correlated_uniform(common: float, own: float, share: float) -> float:
    """One uniform of two normals, so that prompts share a case's luck: `share` of the variance is common."""
    return _NORMAL.cdf(math.sqrt(share) * common + math.sqrt(1 - share) * own)
