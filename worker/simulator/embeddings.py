"""A text as numbers: texts that share words, or parts of words, point in like directions. No meaning is known."""

import hashlib
import math
import re
from collections import defaultdict

DIMENSIONS = 64
_PART_WEIGHT = 0.3  # of three letters in a row, beside 1 for a word


def embed(text: str, seed: int) -> list[float]:
    """A unit vector of the words and their parts, by the hash of each (Weinberger et al. 2009)."""
    weights: dict[str, float] = defaultdict(float)
    for word in re.findall(r"\w+", text.casefold()) or [text or " "]:
        weights[word] += 1
        padded = f" {word} "
        for at in range(len(padded) - 2):
            weights[padded[at : at + 3]] += _PART_WEIGHT
    vector = [0.0] * DIMENSIONS
    for feature in sorted(weights):
        digest = hashlib.sha256(f"{seed}/{feature}".encode()).digest()
        vector[digest[0] % DIMENSIONS] += weights[feature] * (1 if digest[1] & 1 else -1)
    length = math.sqrt(math.fsum(value * value for value in vector)) or 1.0
    return [round(value / length, 6) for value in vector]
