"""What the library GEPA leaves to whoever calls it: who becomes a parent, and which child goes on."""

import hashlib
import math
from collections.abc import Mapping
from random import Random
from statistics import fmean, stdev
from typing import Any

from gepa.strategies.candidate_selector import EpsilonGreedyCandidateSelector, TopKParetoCandidateSelector


class Gate:
    """Whether a child goes on to the whole front, by its scores and its parent's on the same minibatch."""

    def __init__(self, rule: str, tolerance: float, z: float) -> None:
        self._rule = rule
        self._tolerance = tolerance
        self._z = z

    def should_accept(self, proposal: Any, state: Any) -> bool:
        before, after = proposal.subsample_scores_before or [], proposal.subsample_scores_after or []
        differences = [new - old for old, new in zip(before, after, strict=True)]
        gain = fmean(differences)
        if self._rule == "at_least":
            return gain >= 0
        if self._rule == "tolerance":
            return gain >= -self._tolerance
        if self._rule == "paired" and len(differences) > 1:
            return gain > self._z * stdev(differences) / math.sqrt(len(differences))
        return gain > 0


def selection(
    knobs: Mapping[str, Any], seed: int
) -> EpsilonGreedyCandidateSelector | TopKParetoCandidateSelector | str:
    """What draws the parents; of a run that began before these knobs, by its name alone."""
    rule = knobs["candidate_selection"]
    chance = Random(seed_of(seed))
    if rule == "epsilon_greedy" and "epsilon" in knobs:
        return EpsilonGreedyCandidateSelector(knobs["epsilon"], chance)
    if rule == "top_k_pareto" and "top_k" in knobs:
        return TopKParetoCandidateSelector(knobs["top_k"], chance)
    return str(rule)


def seed_of(seed: int) -> int:
    return int.from_bytes(hashlib.sha256(repr(("gepa", seed)).encode()).digest()[:4], "big")
