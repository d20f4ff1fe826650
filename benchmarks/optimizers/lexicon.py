"""What can be said in a prompt, and how: each point in two wordings, each wording in several sentences.

Which points help in a world is drawn anew for each world, so a sentence means nothing in itself.
"""

import itertools
import random
import re
from collections.abc import Mapping
from functools import lru_cache

POINTS = (
    ("check the unit of every amount", "verify units before comparing amounts"),
    ("read the whole record twice", "go through the record a second time"),
    ("treat missing fields as unknown", "regard empty fields as unknown"),
    ("prefer the latest date", "go by the most recent date"),
    ("ignore quoted replies", "disregard text that was quoted"),
    ("resolve abbreviations first", "expand short forms at the start"),
    ("count negations carefully", "watch for double negatives"),
    ("compare against the listed labels", "hold the result against the list of labels"),
    ("name the main subject", "identify the central subject"),
    ("separate facts from opinions", "tell claims from facts"),
    ("convert numbers to digits", "write numbers as digits"),
    ("look at the last line first", "begin with the final line"),
    ("weigh rare words more", "give uncommon words more weight"),
    ("discount greetings", "pay no heed to salutations"),
    ("merge duplicate mentions", "join repeated mentions"),
    ("keep the order of events", "follow the sequence of events"),
    ("ask who is responsible", "find out who is in charge"),
    ("note the place of each event", "register where things happened"),
    ("translate foreign terms", "render foreign words in English"),
    ("distrust round numbers", "be wary of rounded figures"),
    ("consider the opposite label", "think of the contrary label"),
    ("drop the decimal part", "cut off decimals"),
    ("mind the plural forms", "notice plurals"),
    ("rank the candidates by evidence", "order the options by their support"),
    ("explain every step at length", "describe each step in great detail"),
    ("answer in a single word", "reply with one word only"),
    ("mention possible exceptions", "point out exceptions"),
    ("use a formal tone", "write formally"),
    ("assume the worst case", "suppose the worst"),
    ("decide quickly", "settle on the first idea"),
    ("restate the question", "repeat what was asked"),
    ("group related items", "put similar items together"),
    ("skip technical terms", "leave jargon aside"),
    ("verify the sender", "make certain who wrote it"),
    ("trust the headline", "rely on the title"),
    ("split long sentences", "break up lengthy sentences"),
    ("treat questions as statements", "read questions as if they were claims"),
    ("look for hidden conditions", "search for implicit conditions"),
    ("respect the given order of labels", "stick to the order in which labels are listed"),
    ("average conflicting values", "take the mean of values that conflict"),
    ("highlight uncertainty", "state how sure you are"),
    ("remove markup", "strip formatting marks"),
)
FRAMES = ("Always {}.", "Make sure to {}.", "Remember to {}.", "Be sure to {} before you answer.", "Take care to {}.",
          "It is essential to {}.")  # fmt: skip
LABELS = ("amber", "cobalt", "ivory", "olive", "scarlet")


@lru_cache(maxsize=1)
def _patterns() -> Mapping[int, re.Pattern[str]]:
    return {
        point: re.compile("|".join(r"\s+".join(map(re.escape, wording.split())) for wording in wordings), re.IGNORECASE)
        for point, wordings in enumerate(POINTS)
    }


@lru_cache(maxsize=4096)
def points_in(text: str) -> frozenset[int]:
    """The points that a text makes, in whatever sentence."""
    return frozenset(point for point, pattern in _patterns().items() if pattern.search(text))


def sentence(point: int, chance: random.Random) -> str:
    return chance.choice(FRAMES).format(chance.choice(POINTS[point]))


def words(count: int, chance: random.Random) -> list[str]:
    """Different words that mean nothing and that no sentence holds."""
    made: dict[str, None] = {}
    while len(made) < count:
        made["".join(chance.choice("bdfgklmnprstvz") + chance.choice("aeiou") for _ in range(3)) + "x"] = None
    return list(made)


def seed_text(points: frozenset[int], chance: random.Random) -> str:
    """The prompt that a search starts from: a task, the labels, and the sentences of these points."""
    made = [sentence(point, chance) for point in sorted(points)]
    task = f"Sort the record into one of the five categories {', '.join(LABELS)}."
    return "\n".join(itertools.chain([task], made, ["Answer with the category alone."]))
