"""What a prompt tells the model to do, read from its words: the features on which accuracy depends."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from worker.simulator.knowledge import known

# One feature, several ways to say it. `rewrites` writes with the same lexicon; nobody else sees it.
FEATURES: Mapping[str, str] = {
    "strict_format": r"only (the |a |one )?(valid )?json|nothing (else|but|before|after)|no (other|extra|additional|"
    r"surrounding) (text|words|prose)|valid json|without (any )?(comment|explanation|prose)",
    "tie_break": r"(main|primary|first|principal|most important) (request|problem|issue|intent|concern|goal)|"
    r"more than one|several (requests|problems|issues)|two (requests|problems)|what the (customer|writer|sender) "
    r"(really )?(wants|asks|needs)|blocks (the customer|their work)",
    "ignore_noise": r"(ignore|disregard|skip|look past) [^.\n]{0,40}(signature|greeting|quoted|footer|disclaimer|"
    r"boilerplate|forwarded|log)",
    "tone": r"(tone|emotion|anger|angry|polite|sarcas|capital|exclamation|mood)",
    "careful": r"(read|consider) [^.\n]{0,30}(carefully|whole|entire|fully|twice)|step by step|think (first|before|"
    r"about)|before (you )?answer",
    "impact": r"(how many (people|users)|several people|whole team|deadline|cannot work|can't work|blocked|data (is |"
    r"was )?(lost|loss)|security)[^.\n]{0,80}(urgent|high)|(urgent|high)[^.\n]{0,80}(how many (people|users)|several "
    r"people|deadline|cannot work|can't work|blocked|lost|security)",
    "workaround": r"(workaround|work-around|other way)[^.\n]{0,60}(normal|medium)|normal[^.\n]{0,60}(workaround|"
    r"work-around|other way)|(question|idea|cosmetic|curios)[^.\n]{0,60}low|low[^.\n]{0,60}(question|idea|cosmetic|"
    r"curios)",
    "wordy": r"at length|in (great )?detail|explain (your|the) (reasoning|choice|thinking)|long answer|elaborate",
    "creative": r"be (creative|original|playful)|your own words|feel free|surprise",
}


@dataclass(frozen=True)
class Reading:
    features: frozenset[str]
    listed: Mapping[str, frozenset[str]]  # field → the values that the prompt names
    defined: Mapping[str, frozenset[str]]  # field → the values that the prompt describes
    wants_json: bool
    words: int


@lru_cache(maxsize=4096)
def read(instructions: str) -> Reading:
    text = instructions.lower()
    found = {name for name, pattern in FEATURES.items() if re.search(pattern, text)}
    listed, defined = {}, {}
    for field, values in known().values.items():
        listed[field] = frozenset(value for value in values if _names(text, value))
        defined[field] = frozenset(value for value in listed[field] if _describes(text, value))
    return Reading(frozenset(found), listed, defined, "json" in text or "{" in text, len(text.split()))


def _names(text: str, value: str) -> bool:
    return re.search(rf"(?<![\w]){re.escape(value.lower())}(?![\w])", text) is not None


def _describes(text: str, value: str) -> bool:
    """The value followed by a colon, dash, bracket or "means", and at least three words."""
    after = rf"(?<![\w]){re.escape(value.lower())}[\"'`*]*\s*(?::|=|\(|-|–|means|is for|when|if)\s*"
    return re.search(after + r"[\"'`]?[a-z]+(?:['’]\w+)?(?:[ ,/]+(?:or |and )?[a-z]+){2}", text) is not None
