"""A pool of the sentences that rewrites of a prompt have brought, and prompts that hold any of them.

A prompt is a set of numbers: the places in the pool of the sentences that it holds. What no edit may touch
(placeholders, code) belongs to every prompt and is not in the pool. What a sentence is, `edit_level` says.
"""

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from rapidfuzz import fuzz, utils

from worker.strategies import edits

_ALIKE = 85  # of 100: so alike, by their words in any order, are two sentences that say the same
Pool = list[dict[str, Any]]


def first_pool(components: Mapping[str, str], *, level: str) -> Pool:
    """The sentences of the seed."""
    pool = []
    for name, text in sorted(components.items()):
        units = edits.cut(text, level)
        pool += [_sentence(name, units.parts[place].strip(), place, is_seed=True) for place in units.free]
    return pool


def _sentence(component: str, text: str, place: int, *, is_seed: bool = False) -> dict[str, Any]:
    """`place` is where it stands in the seed, or before which part of the seed. The rest is what rewrites did:
    in which batches one added it, how often it was there to be left out, and how often it was."""
    return {
        "component": component,
        "text": text,
        "place": place,
        "is_seed": is_seed,
        "told": [],
        "shown": 0,
        "left_out": 0,
    }


def read(pool: Pool, seed: Mapping[str, str], components: Mapping[str, str], *, level: str) -> list[int]:
    """The numbers of the sentences that a rewrite holds. New ones join the pool; what says nearly the same is one."""
    held: set[int] = set()
    for name, text in components.items():
        own = {item["place"]: number for number, item in enumerate(pool) if _is_of(item, name) and item["is_seed"]}
        theirs = edits.cut(text, level)
        stripped = [part.strip() for part in theirs.parts]
        before = [part.strip() for part in edits.cut(seed[name], level).parts]
        matcher = SequenceMatcher(None, before, stripped, autojunk=False)
        for code, start, end, first, last in matcher.get_opcodes():
            if code == "equal":
                held.update(own[place] for place in range(start, end) if place in own)
                continue
            for at in (at for at in range(first, last) if at in theirs.free):
                held.add(_number(pool, name, stripped[at], start))
    return sorted(held)


def _is_of(item: Mapping[str, Any], component: str) -> bool:
    return bool(item["component"] == component)


def _number(pool: Pool, component: str, text: str, place: int) -> int:
    for number, item in enumerate(pool):
        alike = fuzz.token_set_ratio(item["text"], text, processor=utils.default_process)
        if _is_of(item, component) and (item["text"] == text or alike >= _ALIKE):
            return number
    pool.append(_sentence(component, text, place))
    return len(pool) - 1


def written(pool: Pool, seed: Mapping[str, str], held: Sequence[int], *, level: str) -> dict[str, str]:
    """The texts with these sentences: those of the seed where they stood, each other one on a line of its own."""
    texts = {}
    for name, text in seed.items():
        own = [pool[number] for number in held if _is_of(pool[number], name)]
        kept = {item["place"] for item in own if item["is_seed"]}
        units = edits.cut(text, level)
        made = ""
        for place in range(len(units.parts) + 1):
            for item in own:
                if item["place"] == place and not item["is_seed"]:
                    made = f"{_ended(made)}{item['text']}\n"
            if place < len(units.parts):
                if place in kept or place not in units.free:
                    made += units.parts[place] + units.gaps[place]
                elif "\n" in units.gaps[place]:
                    made = _ended(made)
        texts[name] = made if text.endswith("\n") else made.removesuffix("\n")
    return texts


def _ended(text: str) -> str:
    """The text with its last line ended."""
    return text if not text or text.endswith("\n") else text.rstrip(" \t") + "\n"
