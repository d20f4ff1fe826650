"""Judging an answer: by its likeness to the reference, or to what is known of the case, with noise and some faults.

The judge sees only the request. It likes long answers a little, as judges do.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from shared.hashing import dump_json
from worker.simulator.chance import Dice
from worker.simulator.knowledge import recognise

NOISE = 0.12  # standard deviation of a rating, as a share of the scale
UNREADABLE = 0.01  # chance of a reply that is no JSON
LENGTH_BIAS = 0.05  # what an answer gains by being much longer than the reference
UNKNOWN_QUALITY = 0.6  # of an answer to which there is nothing to compare


def is_judge_request(messages: Sequence[Mapping[str, str]]) -> bool:
    """Two messages: rules that ask to grade answers, and JSON with a task of grading or comparing."""
    return len(messages) == 2 and "grade answers" in messages[0]["content"] and _request(messages) is not None


def judge(messages: Sequence[Mapping[str, str]], dice: Dice) -> str:
    request = _request(messages)
    assert request is not None
    if dice.uniform("unreadable") < UNREADABLE:
        return "I would rather not say."
    known = _known(str(request.get("inputs", "")))
    if request["task"] == "compare":
        return _compare(request, known, dice)
    reference = str(request["reference"]) if "reference" in request else known
    quality = _quality(str(request["answer"]), reference)
    scale = int(request["scale"])
    names = [str(one["name"]) for one in request["criteria"]]
    scores = {name: _rating(quality, scale, dice.normal("rating", name)) for name in names}
    faults = [name for name, score in scores.items() if score < scale]
    reason = f"Not fully met: {', '.join(faults)}." if faults else "All criteria are met."
    return dump_json({"reason": reason, "scores": scores})


def _compare(request: Mapping[str, Any], known: str | None, dice: Dice) -> str:
    first, second = (_quality(str(request[name]), known) for name in ("first", "second"))
    if request["first"] == request["second"]:
        return dump_json({"reason": "They are the same.", "winner": "tie"})
    # The one that is read first has a small advantage, which asking in both orders takes away.
    difference = first - second + 0.05 + NOISE * dice.normal("comparison")
    winner = "tie" if abs(difference) < NOISE / 2 else "first" if difference > 0 else "second"
    return dump_json(
        {"reason": "By the criteria." if winner == "tie" else f"The {winner} is better.", "winner": winner}
    )


def _request(messages: Sequence[Mapping[str, str]]) -> Mapping[str, Any] | None:
    try:
        found = json.loads(messages[1]["content"])
    except (ValueError, IndexError):
        return None
    return found if isinstance(found, dict) and found.get("task") in ("grade", "compare") else None


def _known(inputs: str) -> str | None:
    """The right answer of the case that these inputs are of, if it is known."""
    try:
        values = json.loads(inputs)
    except ValueError:
        return None
    case, _, _ = recognise("\n".join(str(value) for value in values.values()) if isinstance(values, dict) else inputs)
    return " ".join(case.expected.values()) if case else None


def _quality(answer: str, reference: str | None) -> float:
    """The share of the reference's words that the answer has, with the bias."""
    if reference is None:
        return UNKNOWN_QUALITY
    wanted, got = (set(re.findall(r"\w+", _values(text).casefold())) for text in (reference, answer))
    share = len(wanted & got) / len(wanted) if wanted else 1.0
    return share + (LENGTH_BIAS if len(answer) > 2 * len(reference) else 0.0)


def _values(text: str) -> str:
    """The text, without the names of fields if it is a JSON object: those are no merit of an answer."""
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return " ".join(map(str, found.values())) if isinstance(found, dict) else text


def _rating(quality: float, scale: int, noise: float) -> int:
    return min(scale, max(0, round((quality + NOISE * noise) * scale)))
