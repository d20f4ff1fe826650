"""What the scores of an evaluation come to: as a whole, and by tag, group and scorer. Pure."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from shared import stats
from shared.scoring import Score

MOST_SLICES = 100  # of each kind, those with the most cases
MAX_SLICE_CELLS = 500_000  # whose intervals are worked out; beyond, a dataset of many tags would take minutes


@dataclass(frozen=True)
class Cell:
    """A case's answer with its score."""

    case_id: UUID
    weight: float
    score: Score
    tags: tuple[str, ...] = ()
    group: str | None = None


def aggregate_of(
    cells: Sequence[Cell], value: Callable[[Cell], float] = lambda cell: cell.score.value
) -> dict[str, Any]:
    """Score, standard error and 95 % interval of the mean by the weights of the cases; empty without a cell.

    Repeats of a case are averaged before anything else, for they are no independent cases: the interval is of cases
    drawn again, each with all of its repeats. `passed` and `pass_rate` count answers.
    """
    passed = sum(cell.score.passed for cell in cells)
    if not cells:
        return {"passed": passed}
    by_case: dict[UUID, list[float]] = defaultdict(list)
    weights: dict[UUID, float] = {}
    for cell in cells:
        by_case[cell.case_id].append(value(cell))
        weights[cell.case_id] = cell.weight
    values = [sum(scores) / len(scores) for scores in by_case.values()]
    shares = [weights[case_id] for case_id in by_case]
    low, high = stats.mean_interval(values, seed=0, weights=shares)
    return {
        "passed": passed,
        "score": sum(v * w for v, w in zip(values, shares, strict=True)) / sum(shares),
        "pass_rate": passed / len(cells),
        "standard_error": stats.standard_error(values, shares),
        "ci_low": low,
        "ci_high": high,
    }


def slices_of(cells: Sequence[Cell]) -> dict[str, Any]:
    """The same for the cells of each tag, of each group, and for the part of each scorer, largest first.

    {"tag": [{"name", "cases", …}], "group": …, "scorer": …}; `left_out` counts those beyond the first hundred.
    """
    found = {
        "tag": _sliced((tag, cell) for cell in cells for tag in dict.fromkeys(cell.tags)),
        "group": _sliced((cell.group, cell) for cell in cells if cell.group is not None),
        "scorer": _by_scorer(cells),
    }
    return {kind: rows[:MOST_SLICES] for kind, rows in found.items()} | {
        "left_out": {kind: max(0, len(rows) - MOST_SLICES) for kind, rows in found.items()}
    }


def _sliced(named: Iterable[tuple[str, Cell]]) -> list[dict[str, Any]]:
    cells: dict[str, list[Cell]] = defaultdict(list)
    for name, cell in named:
        cells[name].append(cell)
    ordered = sorted(cells.items(), key=lambda item: (-len(item[1]), item[0]))
    rows: list[dict[str, Any]] = []
    done = 0
    for name, members in ordered:
        done += len(members)
        counted = len(rows) < MOST_SLICES and done <= MAX_SLICE_CELLS
        rows.append({"name": name, "cases": len(members), **(aggregate_of(members) if counted else {})})
    return rows


def _by_scorer(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """In the order in which the scorers are listed."""
    rows = []
    for place, part in enumerate(cells[0].score.details["parts"] if cells else ()):
        parts: list[Mapping[str, Any]] = [cell.score.details["parts"][place] for cell in cells]
        values = {id(cell): each["score"] for cell, each in zip(cells, parts, strict=True)}
        whole = aggregate_of(cells, lambda cell, values=values: values[id(cell)])  # type: ignore[misc]
        passed = sum(each["passed"] for each in parts)
        rows.append(
            {"name": part["type"], "cases": len(cells), **whole, "passed": passed, "pass_rate": passed / len(cells)}
        )
    return rows
