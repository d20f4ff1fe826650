"""Doing the task of a prompt: classify a known case, or say something plausible about an unknown text."""

import json
import math
import re
from collections.abc import Mapping, Sequence

from shared.config import settings
from worker.simulator import chance
from worker.simulator.instructions import Reading, read
from worker.simulator.knowledge import KnownCase, known, recognise

COMMON_LUCK = 0.6  # share of an answer's luck that belongs to the case and not to the prompt

# How the chance of the right value grows, in logits. Two families of fields: what a text is about
# (the first field) and how much it matters (the others). Rows: start by difficulty, then features.
_START = {
    "first": {"plain": 1.45, "ambiguous": -0.75, "noisy": 0.0, "hard": -0.7},
    "other": {"plain": 0.25, "ambiguous": -0.35, "noisy": -0.2, "hard": -0.6},
}
_GAIN: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "first": {
        "defined": {"plain": 0.9, "ambiguous": 0.8, "noisy": 0.5, "hard": 0.5},
        "tie_break": {"ambiguous": 1.7, "hard": 0.5, "noisy": 0.1},
        "ignore_noise": {"noisy": 1.7, "hard": 0.1},
        "tone": {"hard": 0.9},
        "careful": {"hard": 0.8, "ambiguous": 0.3, "noisy": 0.2},
    },
    "other": {
        "defined": {"plain": 0.8, "ambiguous": 0.5, "noisy": 0.6, "hard": 0.4},
        "impact": {"plain": 0.9, "ambiguous": 0.7, "noisy": 0.6, "hard": 0.9},
        "workaround": {"plain": 0.7, "ambiguous": 0.8, "noisy": 0.5, "hard": 0.4},
        "tone": {"hard": 1.0, "noisy": 0.4, "plain": 0.1},
        "ignore_noise": {"noisy": 0.5},
        "careful": {"hard": 0.3, "plain": 0.1},
    },
}
_EXAMPLE_GAIN, _EXAMPLES_THAT_HELP = 0.2, 4
_LARGE_MODEL_GAIN = 0.6
_WORDS_WITHOUT_COST, _LENGTH_COST_PER_100_WORDS = 260, 0.22


def perform(messages: Sequence[Mapping[str, str]], model_name: str, temperature: float, sample: int) -> str:
    """The answer to a task prompt."""
    text = "\n".join(message["content"] for message in messages)
    case, around, examples = recognise(text)
    # Digits and white space left by the case itself must not look like another prompt.
    instructions = re.sub(r"\s+", " ", around).strip()
    dice = chance.Dice(settings().simulated_seed, model_name, instructions, case.text if case else text)
    # At temperature 0 every sample of a call is the same; above it, each sample has its own luck.
    draw = sample if temperature > 0 else 0
    if case is None:
        return _improvise(text, dice)
    reading = read(instructions)
    values = {field: _value(case, field, reading, examples, model_name, dice, draw) for field in case.expected}
    return _formatted(values, reading, dice, draw)


def _value(
    case: KnownCase,
    field: str,
    reading: Reading,
    examples: int,
    model_name: str,
    dice: chance.Dice,
    draw: int,
) -> str:
    right = case.expected[field]
    place = list(case.expected).index(field)
    logit = _logit(case, field, place, reading, examples, model_name)
    luck = chance.correlated_uniform(
        chance.Dice(settings().simulated_seed, case.text).normal("luck", place),
        dice.normal("luck", place, draw),
        COMMON_LUCK,
    )
    values = known().values[field]
    if luck > 1 / (1 + math.exp(-logit)):
        others = [value for value in values if value != right]
        right = dice.weighted([(value, 1.0 / (1 + i)) for i, value in enumerate(_near(others, right))], "wrong", place)
    drift = 0.03 if right in reading.listed[field] else 0.5
    if "creative" in reading.features:
        drift += 0.12
    if dice.uniform("drift", place, draw) < drift:
        return _synonym(right, dice, place)
    return right


def _logit(case: KnownCase, field: str, place: int, reading: Reading, examples: int, model_name: str) -> float:
    family = "first" if place == 0 else "other"
    gains = _GAIN[family]
    logit = _START[family].get(case.difficulty, 0.5)
    for feature, by_difficulty in gains.items():
        present = (
            case.expected[field] in reading.defined[field] if feature == "defined" else feature in reading.features
        )
        if present:
            logit += by_difficulty.get(case.difficulty, 0.0)
    logit += _EXAMPLE_GAIN * min(examples, _EXAMPLES_THAT_HELP)
    logit -= _LENGTH_COST_PER_100_WORDS * max(0, reading.words - _WORDS_WITHOUT_COST) / 100
    if "wordy" in reading.features:
        logit -= 0.35
    if model_name.endswith("large"):
        logit += _LARGE_MODEL_GAIN
    return logit


def _formatted(values: Mapping[str, str], reading: Reading, dice: chance.Dice, draw: int) -> str:
    if list(values) == [""]:
        answer = values[""]
    elif reading.wants_json:
        answer = json.dumps(values, ensure_ascii=False)
    else:
        answer = ", ".join(f"{field}: {value}" for field, value in values.items())
    chatter = 0.01 if "strict_format" in reading.features else 0.12
    chatter += 0.25 if "wordy" in reading.features else 0.0
    chatter += 0.05 if "creative" in reading.features else 0.0
    if dice.uniform("chatter", draw) >= chatter:
        return answer
    if list(values) == [""] or not reading.wants_json:
        return f"Sure! I would say: {answer}. Let me know if you need anything else."
    described = " and ".join(f"its {field} is {value}" for field, value in values.items())
    return f"I have read the text. In my view {described}, given what it says."


def _near(others: Sequence[str], right: str) -> list[str]:
    """The other values, those that share letters with the right one first: confusions are not uniform."""
    return sorted(others, key=lambda value: (-len(set(value) & set(right)), value))


def _synonym(value: str, dice: chance.Dice, place: int) -> str:
    """The value in words that no list names."""
    plain = value.replace("_", " ")
    return dice.choice([plain.title(), f"{plain} issue", f"{plain}-related", f"general {plain}"], "synonym", place)


def _improvise(text: str, dice: chance.Dice) -> str:
    """A text that the model does not know: name one of the labels offered, else give the gist of it."""
    separator = r"\s*(?:,|/|\||\bor\b)\s*"
    opening = r"(?:one of|labels?|categories|classes|options)\s*(?:are|is|:)?\s*[:\-]?\s*"
    offered = re.search(rf"{opening}((?:[\w-]+{separator})+[\w-]+)", text, re.IGNORECASE)
    if offered:
        labels = re.split(separator, offered.group(1))
        return dice.choice([label for label in labels if label], "label")
    body = text.split(":", 1)[-1].strip() or text.strip()
    first = re.split(r"(?<=[.!?])\s", body, maxsplit=1)[0]
    words = first.split()
    return " ".join(words[:30]) + ("…" if len(words) > 30 else "")
