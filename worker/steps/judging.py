"""What scorers ask models about answers: a second wave of calls, between the answers and the scores.

Nothing is kept between the two waves: the questions are made anew from the same answers, and found by their keys.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from shared import scoring
from shared.domain.datasets import RunCase
from shared.domain.executions import NewExecution
from shared.domain.runs import Collected, Unit
from shared.hashing import hash_of
from shared.scoring import Ask, Delivered, Missing, Score, Told

KINDS = ("judge", "embedding")
Scorers = Sequence[Mapping[str, Any]]
Cell = tuple[Collected, RunCase]  # an answer that was delivered, and the case that it answers


def questions(scorers: Scorers, cells: Sequence[Cell], call: Callable[[Ask], NewExecution]) -> list[Unit]:
    """One unit for each question about each answer; those that are the same share a call."""
    calls: dict[str, NewExecution] = {}
    units = []
    for item, case in cells:
        for ask in scoring.asks(scorers, _delivered(item, case)):
            if ask.key not in calls:
                calls[ask.key] = call(ask)
            units.append(
                Unit(
                    _key(item, ask),
                    ask.purpose,
                    calls[ask.key],
                    item.candidate,
                    case.id,
                    item.repeat,
                    is_usable=ask.is_read,
                )
            )
    return units


def is_about_answers(collected: Sequence[Collected]) -> bool:
    """Whether a step waited for replies, so that what they are about is in the step before."""
    return bool(collected) and all(item.kind in KINDS for item in collected)


def scored(scorers: Scorers, cells: Sequence[Cell], replies: Sequence[Collected]) -> list[Score | Missing]:
    """A score for each answer, by the replies to its questions."""
    told = {reply.key: Told(reply.text, reply.error or "") for reply in replies}
    results = []
    for item, case in cells:
        answer = _delivered(item, case)
        asked = {ask.key: told[_key(item, ask)] for ask in scoring.asks(scorers, answer) if _key(item, ask) in told}
        results.append(scoring.score_delivered(scorers, replace(answer, told=asked)))
    return results


def row(item: Collected, result: Score | Missing) -> dict[str, Any]:
    """What is written to the unit of an answer."""
    if isinstance(result, Missing):
        return {"id": item.item_id, "score": None, "passed": None, "feedback": result.feedback, "details": None}
    return {
        "id": item.item_id,
        "score": result.value,
        "passed": result.passed,
        "feedback": result.feedback or None,
        "details": dict(result.details),
    }


def _delivered(item: Collected, case: RunCase) -> Delivered:
    assert item.text is not None
    return Delivered(item.text, case.expected, item.facts, case.inputs)


def _key(item: Collected, ask: Ask) -> str:
    return hash_of(["ask", item.key, ask.key])
