"""Edits that cost nothing: a text is taken as units, and units are moved about. No placeholder is ever touched."""

import math
import random
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from rapidfuzz import fuzz

from worker.strategies.placeholders import TAG

PHRASES = (
    "Answer with valid JSON and nothing else.",
    "Read the whole input carefully before you answer.",
    "Think about what is asked, step by step, then give only the final answer.",
    "If more than one answer could fit, choose by the main request.",
    "Use exactly the labels that are given.",
    "Ignore greetings, signatures and quoted text.",
    "Keep the answer short.",
    "Pay attention to rare and ambiguous cases.",
)
_ALIKE = 85  # of 100: so alike, by their words in any order, are two units that say the same
_FENCE = re.compile(r"^```.*?(?:^```|\Z)", re.DOTALL | re.MULTILINE)
_SENTENCE_END = re.compile(r"(?<=[.!?])([ \t]+)(?=[\"'(\[]?[A-Z0-9])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|cf|vs|approx|no|nos|fig|mr|mrs|ms|dr|prof|st|inc|ltd|co)|\b[A-Z])\.$", re.I
)
_HEADING = re.compile(r"^(#{1,6})[ \t]+(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Units:
    """A text cut up: `parts[i] + gaps[i]` one after another is the text. Only the parts in `free` may be edited."""

    parts: Sequence[str]
    gaps: Sequence[str]
    free: Sequence[int]

    @property
    def text(self) -> str:
        return "".join(part + gap for part, gap in zip(self.parts, self.gaps, strict=True))


def cut(text: str, level: str) -> Units:
    """The units of a text: sentences, lines, or sections (what stands between empty lines).

    A line that any part of a placeholder or of a code block touches is one unit that stays as and where it is.
    """
    fixed = _fixed_lines(text)
    parts: list[str] = []
    gaps: list[str] = []
    free: list[int] = []
    lines = text.split("\n")
    block: list[int] = []

    def close(gap: str) -> None:
        if block:
            parts.append("\n".join(lines[i] for i in block))
            gaps.append(gap)
            if fixed.isdisjoint(block):
                free.append(len(parts) - 1)
            block.clear()

    for i, line in enumerate(lines):
        end = "\n" if i < len(lines) - 1 else ""
        if level == "section" and line.strip():
            block.append(i)
            if i == len(lines) - 1 or not lines[i + 1].strip():
                close(end)
            continue
        pieces = _sentences(line) if level == "sentence" and i not in fixed else [(line, "")]
        for part, gap in pieces:
            parts.append(part)
            gaps.append(gap)
            if part.strip() and i not in fixed:
                free.append(len(parts) - 1)
        gaps[-1] += end
    return Units(parts, gaps, free)


def edit(operator: str, text: str, chance: random.Random, *, level: str = "line", deleted: Collection[str] = ()) -> str:
    """The text after one edit; the same text where the edit finds nothing to do.

    `deleted` are texts that this one descends from: `add_back` takes from them what is not here any more.
    """
    units = cut(text, level)
    parts, gaps = list(units.parts), list(units.gaps)
    free = list(units.free)
    if operator == "delete" and len(free) > 1:
        at = chance.choice(free)
        _delete(parts, gaps, at)
    elif operator == "swap" and len(free) > 1:
        one, other = chance.sample(free, 2)
        parts[one], parts[other] = parts[other], parts[one]
    elif operator == "move" and len(free) > 1:
        _move(parts, free, chance)
    elif operator == "duplicate" and free:
        at = chance.choice(free)
        _insert(parts, gaps, at, parts[at], level)
    elif operator == "add_back":
        lost = _lost(units, deleted, level)
        if lost:
            _insert(parts, gaps, chance.choice(free) if free else -1, chance.choice(lost), level)
    elif operator == "insert_phrase":
        phrase = chance.choice(PHRASES)
        last = free[-1] if free and not parts[free[-1]].rstrip().endswith(":") else -1
        _insert(parts, gaps, last, phrase, level)
    elif operator == "format_toggle" and free:
        begin_a_line = [i for i in free if i == 0 or gaps[i - 1].endswith("\n")]
        parts = _reformatted(parts, free, begin_a_line, chance)
    return "".join(part + gap for part, gap in zip(parts, gaps, strict=True))


def mix(operator: str, text: str, other: str, chance: random.Random, *, level: str, share: float = 0.5) -> str:
    """A crossover of two texts by their free units; what is fixed is that of the first.

    one_point and two_point (Holland 1975) exchange a tail or a middle, uniform (Syswerda 1989) takes each unit of
    the second with probability `share`. With fewer than two (three) units on either side it is uniform.
    """
    first, second = cut(text, level), cut(other, level)
    mine, theirs = [first.parts[i] for i in first.free], [second.parts[i] for i in second.free]
    needed = {"one_point": 2, "two_point": 3}.get(operator, 1)
    if min(len(mine), len(theirs)) < needed:
        operator = "uniform"
    if operator == "uniform":
        places = range(max(len(mine), len(theirs)))
        mixed = [
            source[i] for i in places for source in [theirs if chance.random() < share else mine] if i < len(source)
        ]
    else:
        cuts = sorted(chance.uniform(0.0, 1.0) for _ in range(2 if operator == "two_point" else 1))
        here = [1 + round(at * (len(mine) - 2)) for at in cuts]
        there = [1 + round(at * (len(theirs) - 2)) for at in cuts]
        middle = theirs[there[0] : there[1] if len(cuts) > 1 else None]
        mixed = [*mine[: here[0]], *middle, *(mine[here[1] :] if len(cuts) > 1 else [])]
    return _refilled(first, list(dict.fromkeys(mixed)), level)


def merged(text: str, others: Sequence[str], *, level: str) -> str:
    """The text with what any of the others adds to it. They were made from it: a merge against the common ancestor.

    What several add in nearly the same words is added once, on a line of its own. A free unit goes where a third of
    the others, and at least two, are without it: one rewrite often loses a sentence by accident.
    """
    units = cut(text, level)
    parts = [part.strip() for part in units.parts]
    lost: Counter[int] = Counter()
    added: dict[int, list[str]] = {}
    for other in others:
        theirs = cut(other, level)
        matcher = SequenceMatcher(None, parts, [part.strip() for part in theirs.parts], autojunk=False)
        for _, start, end, first, last in (code for code in matcher.get_opcodes() if code[0] != "equal"):
            lost.update(range(start, end))
            added.setdefault(start, []).extend(theirs.parts[i].strip() for i in range(first, last) if i in theirs.free)
    gone = {place for place in units.free if lost[place] >= max(2, math.ceil(len(others) / 3))}
    said = [parts[place] for place in units.free if place not in gone]
    made = ""
    for place in range(len(parts) + 1):
        for new in added.get(place, ()):
            if all(fuzz.token_set_ratio(new, old) < _ALIKE for old in said):
                said.append(new)
                made = f"{_ended(made)}{new}\n"
        if place < len(parts) and place not in gone:
            made += units.parts[place] + units.gaps[place]
        elif place in gone and "\n" in units.gaps[place]:
            made = _ended(made)
    return made if text.endswith("\n") else made.removesuffix("\n")


def _ended(text: str) -> str:
    """The text with its last line ended."""
    return text if not text or text.endswith("\n") else text.rstrip(" \t") + "\n"


def _refilled(units: Units, wanted: Sequence[str], level: str) -> str:
    """The first text with other parts in its free places; too few leave places out, too many follow the last."""
    out: list[str] = []
    waiting = list(wanted)
    last = units.free[-1] if units.free else -1
    joint = " " if level == "sentence" else "\n"
    for i, (part, gap) in enumerate(zip(units.parts, units.gaps, strict=True)):
        if i not in units.free:
            out.append(part + gap)
            continue
        chosen = waiting if i == last else waiting[:1]
        waiting = [] if i == last else waiting[1:]
        if chosen:
            out.append(joint.join(chosen) + gap)
        elif "\n" in gap and out and not out[-1].endswith("\n"):
            out.append("\n")
    return "".join(out)


def _fixed_lines(text: str) -> set[int]:
    fixed: set[int] = set()
    for pattern in (TAG, _FENCE):
        for found in pattern.finditer(text):
            fixed.update(range(text.count("\n", 0, found.start()), text.count("\n", 0, found.end()) + 1))
    return fixed


def _sentences(line: str) -> list[tuple[str, str]]:
    """The sentences of a line, each with the space behind it."""
    pieces, start = [], 0
    for end in _SENTENCE_END.finditer(line):
        if not _ABBREVIATION.search(line[start : end.start()]):
            pieces.append((line[start : end.start()], end.group(1)))
            start = end.end()
    return [*pieces, (line[start:], "")]


def _delete(parts: list[str], gaps: list[str], at: int) -> None:
    """The line that the unit ended still ends; a line that is left empty goes."""
    if at and ("\n" not in gaps[at - 1] or not gaps[at]):
        gaps[at - 1] = gaps[at]
    del parts[at], gaps[at]


def _move(parts: list[str], free: Sequence[int], chance: random.Random) -> None:
    """One free unit to the place of another; those between close up. Fixed ones keep their places."""
    come_from, go_to = chance.sample(range(len(free)), 2)
    order = [parts[i] for i in free]
    order.insert(go_to, order.pop(come_from))
    for place, part in zip(free, order, strict=True):
        parts[place] = part


def _insert(parts: list[str], gaps: list[str], after: int, new: str, level: str) -> None:
    """A new unit behind the one at `after`; at -1, before all."""
    if after < 0:
        parts.insert(0, new)
        gaps.insert(0, "\n")
        return
    # Behind a sentence that ends its line the new one goes on in that line.
    joint = " " if level == "sentence" and not parts[after].lstrip().startswith(("-", "*", "#")) else "\n"
    parts.insert(after + 1, new)
    gaps.insert(after + 1, gaps[after])
    gaps[after] = joint


def _lost(units: Units, deleted: Collection[str], level: str) -> list[str]:
    here = set(units.parts)
    found: dict[str, None] = {}
    for text in deleted:
        before = cut(text, level)
        found.update(dict.fromkeys(before.parts[i] for i in before.free if before.parts[i] not in here))
    return list(found)


def _reformatted(
    parts: Sequence[str], free: Sequence[int], begin_a_line: Sequence[int], chance: random.Random
) -> list[str]:
    """Bullets or none, headings with # or in capitals, one unit in tags or without them: one of the three."""
    changed = list(parts)
    kind = chance.choice(("bullets", "headings", "tags"))
    if kind == "headings" and any(_HEADING.match(parts[i]) for i in free):
        for i in free:
            changed[i] = _HEADING.sub(lambda found: found.group(2).upper() + ":", parts[i])
    elif kind == "tags":
        at = chance.choice(list(free))
        inner = re.fullmatch(r"<instruction>(.*)</instruction>", parts[at], re.DOTALL)
        changed[at] = inner.group(1) if inner else f"<instruction>{parts[at]}</instruction>"
    elif any(parts[i].startswith("- ") for i in begin_a_line):
        for i in begin_a_line:
            changed[i] = parts[i].removeprefix("- ")
    else:
        for i in begin_a_line:
            changed[i] = parts[i] if parts[i].rstrip().endswith(":") else f"- {parts[i]}"
    return changed
