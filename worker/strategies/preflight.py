"""The pre-flight of a run: the seed is scored twice, so that chance is known before it is taken for gain.

An A/A probe: both scorings are of the same prompt, so what their means differ by is noise.
"""

from typing import Any

from shared import stats
from worker.strategies.contract import Evaluate
from worker.strategies.record import Record


def probe_of(record: Record) -> list[Evaluate]:
    """The second scoring of the seed on dev: the sample numbers that follow those of the first."""
    repeats = record.evaluation["repeats"]
    return [Evaluate(record.seed, case, repeats + repeat) for case in record.dev for repeat in range(repeats)]


def measured(record: Record) -> dict[str, Any]:
    """What the two scorings say, paired by case; cases without a score in both are left out.

    `noise_floor` is the standard error of the difference of the two means. `headroom`: what the baseline leaves.
    """
    seed, probe = record.seed, record.state["probe"]
    pairs = {}
    for case in record.dev:
        first, second = record.scores(seed, [case]), [one for one in probe.get(str(case), []) if one is not None]
        if first and second:
            pairs[case] = (first[0], sum(second) / len(second))
    deltas = [second - first for first, second in pairs.values()]
    weights = [record.cases[case].weight for case in pairs]
    asked = len(record.dev) * record.evaluation["repeats"]
    answered = sum(value is not None for values in probe.values() for value in values)
    return {
        "cases": len(pairs),
        "difference": stats.mean(deltas, weights) if deltas else None,
        "noise_floor": stats.standard_error(deltas, weights) if deltas else None,
        "headroom": 1 - record.mean(seed, record.dev),
        "missing": 1 - answered / asked,
        "constant": len({score for pair in pairs.values() for score in pair}) == 1,
    }


def has_headroom(found: dict[str, Any]) -> bool:
    """Whether the best that there could be would stand out from chance."""
    return found["noise_floor"] is None or found["headroom"] > found["noise_floor"]
