"""The model that rewrites prompts. It reads the request and nothing else, and does not know who asks.

From wrong answers, examples and scores that it is shown it guesses which points are missing or too many, as well
as its level lets it; it forgets sentences, adds useless ones and now and then answers in a wrong form.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.optimizers import formats, lexicon
from benchmarks.optimizers.formats import Asked
from benchmarks.optimizers.worlds import Floats, World

_PLACEHOLDER = re.compile(r"\{\{.*?\}\}")


@dataclass(frozen=True)
class Level:
    accuracy: float  # how often a change follows the evidence rather than a whim
    forgets: float  # a sentence of the parent
    useless: float  # how often a burden or a matter of style comes with it
    adds: float  # points more than one, in the mean
    broken: float  # how often the form is wrong or a placeholder is lost


LEVELS: Mapping[str, Level] = {
    "weak": Level(accuracy=0.40, forgets=0.15, useless=0.35, adds=0.2, broken=0.15),
    "medium": Level(accuracy=0.65, forgets=0.08, useless=0.20, adds=0.5, broken=0.08),
    "strong": Level(accuracy=0.85, forgets=0.04, useless=0.10, adds=0.8, broken=0.03),
}


def answer(world: World, level: str, messages: Sequence[Mapping[str, str]], chance: random.Random) -> str:
    asked = formats.read(messages)
    evidence = _evidence(world, asked)
    if not asked.wants_prompt:
        told = _told(world, asked, chance)
        return formats.written(asked.kind, asked.fields, lambda _: told)
    text = _rewritten(world, LEVELS[level], asked, evidence, chance)
    kind = asked.kind
    if chance.random() < LEVELS[level].broken:
        if _PLACEHOLDER.search(text) and chance.random() < 0.5:
            text = _PLACEHOLDER.sub("the record", text)
        elif kind not in ("markers", "json"):  # who asks for fields gives up altogether when they are not there
            return f"I would say it like this: {text}"
    return formats.written(kind, asked.fields, lambda field: text if _holds_prompt(field) else "Answer:")


def _holds_prompt(field: str) -> bool:
    return not field or "instruction" in field


# ---- evidence -------------------------------------------------------------------------------


def _evidence(world: World, asked: Asked) -> Floats:
    """By feature and burden: how much speaks for a change there. 1 where nothing is known."""
    count = len(world.features)
    found = np.ones(count + len(world.burdens))
    shown = set(re.findall(r"[a-z]{7}", asked.text))
    repeated = re.findall(r"[a-z]{7}", asked.text)
    for kind, words in enumerate(world.symptoms):
        seen = sum(repeated.count(word) for word in words if word in shown)
        if seen:
            found += 6.0 * seen * world.confusion[:, kind]
    for feature, words in enumerate(world.topics):
        found[feature] += 0.5 * sum(repeated.count(word) for word in words if word in shown)
    return found * np.exp(np.clip(8.0 * _margins(world, asked.scored), -3, 3))


def _margins(world: World, scored: Sequence[tuple[str, float]]) -> Floats:
    """What speaks for a change by earlier scores: for a feature what prompts with it scored more, in the mean,
    than those without it; for a burden what those without it scored more."""
    margins = np.zeros(len(world.features) + len(world.burdens))
    made = [(lexicon.points_in(text), score) for text, score in scored]
    for place, point in enumerate((*world.features, *world.burdens)):
        having = [score for points, score in made if point in points]
        lacking = [score for points, score in made if point not in points]
        if having and lacking:
            margin = float(np.mean(having) - np.mean(lacking))
            margins[place] = margin if place < len(world.features) else -margin
    return margins


def _told(world: World, asked: Asked, chance: random.Random) -> str:
    """What is remarkable in the request: the words that the cases and the wrong answers hold most often."""
    known = {word for words in (*world.symptoms, *world.topics) for word in words}
    found = [word for word in re.findall(r"[a-z]{7}", asked.text) if word in known]
    often = sorted(set(found), key=lambda word: (-found.count(word), word))[:8]
    chance.shuffle(often)
    return f"What stands out: {', '.join(often)}." if often else "A record is sorted into one of five categories."


# ---- the new text ---------------------------------------------------------------------------


def _rewritten(world: World, level: Level, asked: Asked, evidence: Floats, chance: random.Random) -> str:
    parent = asked.parent or lexicon.seed_text(frozenset(), chance)
    opening = asked.text[:200].lower()
    rephrased = "rephrase" in opening or "paraphrase" in opening
    forgets = 0.4 if opening.startswith("shorten") else level.forgets
    kept = _kept(world, parent, forgets, asked, chance)
    points = lexicon.points_in("\n".join(kept))
    changes = _count(level, asked, rephrased, chance)
    added: list[int] = []
    for _ in range(changes):
        place = _chosen(world, level, points | {*added}, evidence, chance)
        point = (*world.features, *world.burdens)[place]
        if point in points:
            kept = [line for line in kept if point not in lexicon.points_in(line)]
            points = lexicon.points_in("\n".join(kept))
        elif point not in added:
            added.append(point)
    if chance.random() < level.useless:
        added.append(chance.choice((*world.burdens, *world.styles)))
    if rephrased:
        kept = [_reworded(line, chance) for line in kept]
    fresh = [lexicon.sentence(point, chance) for point in added if point not in points]
    return _joined(kept, fresh)


def _kept(world: World, parent: str, forgets: float, asked: Asked, chance: random.Random) -> list[str]:
    """The lines of the parent, without sentences that are forgotten, with some of prompts to be combined with."""
    lines = [line for line in parent.split("\n") if not lexicon.points_in(line) or chance.random() >= forgets]
    held = lexicon.points_in("\n".join(lines))
    for other in asked.others:
        for line in other.split("\n"):
            points = lexicon.points_in(line)
            if points and not points & held and chance.random() < 0.5:
                lines.insert(1, line)
                held |= points
    return lines


def _count(level: Level, asked: Asked, rephrased: bool, chance: random.Random) -> int:
    """How many points are changed: few when words alone were to change, more when all is new."""
    if rephrased:
        return int(chance.random() < 0.3)
    extra = level.adds * (2 if asked.parent is None else 1)
    return 1 + sum(chance.random() < extra / 3 for _ in range(3))


def _chosen(world: World, level: Level, there: frozenset[int], evidence: Floats, chance: random.Random) -> int:
    """A feature that is missing or a burden that is there; on a whim, any point that is missing."""
    places = (*world.features, *world.burdens)
    count = len(world.features)
    fits = [(point in there) != (place < count) for place, point in enumerate(places)]
    if chance.random() < level.accuracy and any(fits):
        weights = [float(evidence[place]) ** 1.5 if fit else 0.0 for place, fit in enumerate(fits)]
        return chance.choices(range(len(places)), weights)[0]
    missing = [place for place, point in enumerate(places) if point not in there]
    return chance.choice(missing or range(len(places)))


def _reworded(line: str, chance: random.Random) -> str:
    points = lexicon.points_in(line)
    return lexicon.sentence(min(points), chance) if len(points) == 1 and not _PLACEHOLDER.search(line) else line


def _joined(kept: Sequence[str], fresh: Sequence[str]) -> str:
    """New sentences stand after the first line, so that what ends in the input still does."""
    return "\n".join([*kept[:1], *fresh, *kept[1:]])
