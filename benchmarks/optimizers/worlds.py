"""Worlds in which the worth of every prompt is known exactly.

A world is drawn from (seed, family, number) and nothing else. It says with which probability a prompt gets a case
right, what a wrong answer looks like, and what the best prompt is worth: by enumeration of all sets of points that
can help, never by a search.
"""

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.optimizers import lexicon

FAMILIES = ("additive", "deceptive", "conflict", "nk", "threshold", "null", "defective")
CASES = 100  # that a search is given; as many more are what prompts are scored on without noise
UNSEEN = 200
LEAST_GAIN = 0.15  # of the best prompt over the seed, where there is anything to gain

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    name: str  # stands in the text, so that a request says which case it asks about
    text: str
    answer: str


@dataclass(frozen=True, eq=False)
class World:
    """Points are numbered: first those that may help (`features`), then those that never do (`burdens`)."""

    seed: int
    family: str
    number: int
    features: tuple[int, ...]  # points of the lexicon
    burdens: tuple[int, ...]
    styles: tuple[int, ...]  # points that change nothing
    base: float
    noise: float  # share of the chance that is a prompt's own; the rest it has in common with all prompts on a case
    weights: Floats  # of a feature
    needs: Bools  # case × feature
    difficulty: Floats  # of a case
    pairs: tuple[tuple[int, int, float], ...]  # two features that are both there: what is added
    table: Floats | None  # NK: feature × states of it and its neighbours
    neighbours: npt.NDArray[np.int64] | None
    required: tuple[int, ...]  # features without all of which nearly everything fails
    costs: Floats  # of a burden
    cancels: tuple[tuple[int, ...], ...]  # the features that a burden takes the effect from
    symptoms: tuple[tuple[str, ...], ...]  # words, by cause: the features, then the burdens
    confusion: Floats  # cause × kind of symptom
    topics: tuple[tuple[str, ...], ...]  # words that stand in cases which need the feature
    seed_points: frozenset[int]
    seed_text: str
    cases: tuple[Case, ...]

    @property
    def name(self) -> str:
        return f"{self.family}-{self.seed}-{self.number}"

    # ---- what a prompt is worth --------------------------------------------------------------

    def logits(self, there: Bools, cases: Sequence[int] | slice = slice(None)) -> Floats:
        """Of sets of points (row × feature and burden): row × case."""
        count = len(self.features)
        held, burdened = there[:, :count].copy(), there[:, count:]
        for burden, canceled in enumerate(self.cancels):
            for feature in canceled:
                held[:, feature] &= ~burdened[:, burden]
        share = np.where(self.needs[cases], 1.5, 0.15)
        found = self.base + self.difficulty[cases][None, :] + self._effects(held) @ share.T
        for first, second, added in self.pairs:
            found = found + (added * (held[:, first] & held[:, second]))[:, None]
        if self.required:
            lacking: Bools = np.logical_not(np.all(held[:, list(self.required)], axis=1))
            found = found - 3.0 * lacking[:, None]
        paid: Floats = burdened @ self.costs + 0.05 * np.maximum(0, there.sum(axis=1) - 8)
        return found - paid[:, None]

    def _effects(self, held: Bools) -> Floats:
        if self.table is None or self.neighbours is None:
            return held * self.weights
        states = held[:, self.neighbours].astype(int)  # row × feature × (itself and its neighbours)
        places = (states * (2 ** np.arange(states.shape[2]))).sum(axis=2)
        return self.table[np.arange(len(self.features))[None, :], places]

    def vector(self, points: frozenset[int]) -> Bools:
        return np.array([[point in points for point in (*self.features, *self.burdens)]])

    def true_score(self, text: str) -> float:
        """The share of unseen cases that this prompt gets right, without noise."""
        return self._score_of(lexicon.points_in(text) & {*self.features, *self.burdens})

    def _score_of(self, points: frozenset[int]) -> float:
        return float(_sigmoid(self.logits(self.vector(points), slice(CASES, None))).mean())

    @property
    def seed_score(self) -> float:
        return self.true_score(self.seed_text)

    @property
    def seed_score_on_given_cases(self) -> float:
        return float(_sigmoid(self.logits(self.vector(self.seed_points), slice(0, CASES))).mean())

    @property
    def best_score(self) -> float:
        return best(self)

    # ---- what it answers ---------------------------------------------------------------------

    def answer(self, prompt: str, case: int, sample: int) -> tuple[str, bool]:
        """What the model says when it is asked, and whether that is right. `sample` is 0 at temperature 0."""
        points = lexicon.points_in(prompt) & {*self.features, *self.burdens}
        there = self.vector(points)
        probability = float(_sigmoid(self.logits(there, [case]))[0, 0])
        normal = NormalDist()
        common = normal.inv_cdf(_fraction(self.name, "case", case))
        own = normal.inv_cdf(_fraction(self.name, "prompt", " ".join(prompt.split()), case, sample))
        luck = normal.cdf(math.sqrt(1 - self.noise) * common + math.sqrt(self.noise) * own)
        if luck < probability:
            return self.cases[case].answer, True
        chance = _draw(self.name, "symptom", " ".join(prompt.split()), case, sample)
        return self._symptom(there, case, chance), False

    def _symptom(self, there: Bools, case: int, chance: random.Random) -> str:
        """A word that tells of a point that is missing or too many, though not for certain of which."""
        flipped = np.logical_xor(np.repeat(there, there.shape[1], axis=0), np.eye(there.shape[1], dtype=bool))
        gains = (self.logits(flipped, [case]) - self.logits(there, [case]))[:, 0]
        count = len(self.features)
        fixable = np.where(np.arange(len(gains)) < count, ~there[0], there[0])
        likely = np.append(np.where(fixable, np.maximum(0.0, gains), 0.0), 0.5)  # the last: bad luck, no cause
        (cause,) = chance.choices(range(len(likely)), likely.tolist())
        if cause == len(gains):
            kind = chance.randrange(len(gains))
        else:
            (kind,) = chance.choices(range(len(gains)), self.confusion[cause].tolist())
        return chance.choice(self.symptoms[kind])


@lru_cache(maxsize=512)
def best(world: World) -> float:
    """The worth of the best of all sets of features: burdens only cost. Exact, by enumeration."""
    count = len(world.features)
    found = 0.0
    numbers = np.arange(2**count)
    for block in np.array_split(numbers, max(1, len(numbers) // 1024)):
        there = np.zeros((len(block), count + len(world.burdens)), dtype=bool)
        there[:, :count] = (block[:, None] >> np.arange(count)) & 1
        found = max(found, float(_sigmoid(world.logits(there, slice(CASES, None))).mean(axis=1).max()))
    return found


@lru_cache(maxsize=512)
def world(seed: int, family: str, number: int) -> World:
    """The first draw in which there is enough to gain; in a null world nothing is."""
    for attempt in range(1000):
        drawn = _drawn(seed, family, number, attempt)
        room = 0.1 < drawn.seed_score < 0.8
        if room and (family == "null" or drawn.best_score - drawn.seed_score >= LEAST_GAIN):
            return drawn
    raise AssertionError(f"no world of {family} has anything to gain")


def many(seed: int, families: Sequence[str], count: int) -> list[World]:
    """`count` worlds, the families in turns."""
    return [world(seed, families[i % len(families)], i // len(families)) for i in range(count)]


def _drawn(seed: int, family: str, number: int, attempt: int) -> World:
    chance = _draw("world", seed, family, number, attempt)
    count, many_burdens = chance.randint(8, 13), chance.randint(6, 10)
    points = chance.sample(range(len(lexicon.POINTS)), count + many_burdens + 4)
    features, burdens = points[:count], points[count : count + many_burdens]
    weights = np.array([chance.uniform(0.3, 1.0) for _ in features])
    costs = np.array([chance.uniform(0.1, 0.6) for _ in burdens])
    cancels: list[tuple[int, ...]] = [() for _ in burdens]
    for burden in chance.sample(range(many_burdens), 2):
        cancels[burden] = (chance.randrange(count),)
    special = _special(family, count, chance)
    for feature in special.pop("deceived", ()):
        weights[feature] = -chance.uniform(0.3, 0.6)
    if family == "null":
        weights = np.array([-chance.uniform(0.0, 0.25) for _ in features])
    seed_points = {*points[-4:-2]}
    if family == "defective":
        for burden in chance.sample(range(many_burdens), chance.randint(1, 2)):
            costs[burden] = chance.uniform(0.8, 1.5)
            cancels[burden] = tuple(chance.sample(range(count), 2))
            seed_points.add(burdens[burden])
    elif family != "null":
        seed_points.add(features[chance.randrange(count)])
    needs = np.zeros((CASES + UNSEEN, count), dtype=bool)
    for row in needs:
        row[chance.sample(range(count), chance.randint(2, 4))] = True
    vocabulary = lexicon.words(3 * (2 * count + many_burdens) + 30, chance)
    groups = [tuple(vocabulary[3 * i : 3 * i + 3]) for i in range(2 * count + many_burdens)]
    topics = groups[count + many_burdens :]
    base = {"null": (-0.5, 0.8), "threshold": (-0.8, 0.2)}.get(family, (-2.0, -0.8))
    return World(
        seed=seed,
        family=family,
        number=number,
        features=tuple(features),
        burdens=tuple(burdens),
        styles=tuple(points[-4:]),
        base=chance.uniform(*base),
        noise=chance.uniform(0.2, 0.6),
        weights=weights,
        needs=needs,
        difficulty=np.array([chance.gauss(0, 0.8) for _ in range(CASES + UNSEEN)]),
        costs=costs,
        cancels=tuple(cancels),
        symptoms=tuple(groups[: count + many_burdens]),
        confusion=_confusion(count + many_burdens, chance),
        topics=tuple(topics),
        seed_points=frozenset(seed_points),
        seed_text=lexicon.seed_text(frozenset(seed_points), chance),
        cases=_cases(needs, topics, vocabulary[-30:], chance),
        **special,
    )


def _special(family: str, count: int, chance: random.Random) -> dict[str, Any]:
    """What makes a family out of a sum of weights."""
    made: dict[str, Any] = {"pairs": (), "table": None, "neighbours": None, "required": ()}
    shuffled = chance.sample(range(count), count)
    couples = [(shuffled[2 * i], shuffled[2 * i + 1]) for i in range(3)]
    if family == "deceptive":
        # Each alone takes away what both together give twice over.
        made["pairs"] = tuple((a, b, chance.uniform(2.0, 3.5)) for a, b in couples[:2])
        made["deceived"] = [feature for couple in couples[:2] for feature in couple]
    elif family == "conflict":
        made["pairs"] = tuple((a, b, -chance.uniform(1.5, 2.5)) for a, b in couples)
    elif family == "nk":
        others = chance.randint(2, 3)
        made["neighbours"] = np.array([[(i + j) % count for j in range(others + 1)] for i in range(count)])
        table = np.array([[chance.gauss(0, 0.6) for _ in range(2 ** (others + 1))] for _ in range(count)])
        made["table"] = table - table[:, :1]  # a prompt that says nothing is at the base
    elif family == "threshold":
        made["required"] = tuple(shuffled[: chance.randint(1, 2)])
    return made


def _confusion(causes: int, chance: random.Random) -> Floats:
    """Three in five symptoms are a cause's own, the others those of three more."""
    made = np.zeros((causes, causes))
    for cause in range(causes):
        made[cause, cause] = 0.6
        for other in chance.sample([each for each in range(causes) if each != cause], 3):
            made[cause, other] = 0.4 / 3
    return made


def _cases(
    needs: Bools, topics: Sequence[tuple[str, ...]], idle: Sequence[str], chance: random.Random
) -> tuple[Case, ...]:
    """Six words each, half of which tell of what the case needs."""
    made = []
    names = chance.sample(range(16**6), CASES)
    for name, row in zip(names, needs, strict=False):
        needed = [word for feature in np.flatnonzero(row) for word in topics[int(feature)]]
        text = [chance.choice(needed) if chance.random() < 0.5 else chance.choice(idle) for _ in range(6)]
        made.append(Case(f"R-{name:06X}", f"R-{name:06X} {' '.join(text)}", chance.choice(lexicon.LABELS)))
    return tuple(made)


def _sigmoid(values: Floats) -> Floats:
    return 1 / (1 + np.exp(-values))


def _draw(*key: Any) -> random.Random:
    return random.Random(int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:16], "big"))


def _fraction(*key: Any) -> float:
    """In (0, 1), decided by the key."""
    number = int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:6], "big")
    return (number + 0.5) / 2**48
