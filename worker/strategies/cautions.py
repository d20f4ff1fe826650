"""What a reader of a result should know before believing it: how far dev flattered, and what speaks against the rest.

Read from the record of a finished search; no part of its state, so that what is said may change and a replay may not.
"""

from collections.abc import Iterator
from typing import Any

from worker.strategies import watch
from worker.strategies.record import Record

_LARGE = 50  # holdout cases; with fewer, only a gain of ten points or more stands out (research on paired tests)
_GAP = ("gap", "ci_low", "ci_high")
_MANY_MISSING = 0.1  # of the scores that were asked for


def told_of(record: Record) -> dict[str, Any]:
    """`overfit` and `warnings`, each of these with a code and a text."""
    overfit = _overfit(record)
    found = [
        *_of_cases(record),
        *_of_scores(record),
        *_of_overfit(record, overfit),
        *_of_checks(record),
        *_of_end(record),
    ]
    return {"overfit": overfit, "warnings": [{"code": code, "text": text} for code, text in found]}


def _overfit(record: Record) -> dict[str, float] | None:
    """Dev minus holdout of the chosen one, with two standard errors either way; None without both."""
    found = watch.gap(record, record.incumbent, record.dev, record.state["holdout"])
    return found and {"dev": found["dev"], "holdout": found["watch"], **{name: found[name] for name in _GAP}}


def _of_cases(record: Record) -> Iterator[tuple[str, str]]:
    if record.state["indicative"]:
        yield "train_is_dev", "too few cases for a split in three: what the proposer saw also decided the search"
    if record.state["result"].get("tiny"):
        yield "tiny", f"{len(record.cases)} cases in all: whatever the numbers are, they prove nothing"
    holdout = record.state["result"]["holdout"]
    cases = holdout["n"] if holdout else len(record.state["holdout"])
    if cases < _LARGE:
        width = (holdout["ci_high"] - holdout["ci_low"]) / 2 if holdout else 0.0
        least = f": a difference below about {width:.2f} cannot be told from chance" if width else ""
        yield "small_holdout", f"the holdout has {cases} scored cases{least}"


def _of_scores(record: Record) -> Iterator[tuple[str, str]]:
    preflight = record.state.get("preflight")
    if preflight and preflight["noise_floor"] is not None and preflight["headroom"] <= preflight["noise_floor"]:
        yield (
            "noise_above_headroom",
            f"the baseline leaves {preflight['headroom']:.3f}, and two scorings of one prompt differ by about"
            f" {preflight['noise_floor']:.3f}",
        )
    on_dev = [record.scores(one, record.dev) for one in record.candidates]
    if sum(map(len, on_dev)) > 1 and len({score for scores in on_dev for score in scores}) == 1:
        yield "constant_scores", f"every answer on dev scored {on_dev[0][0]:g}: the scorers tell no two prompts apart"
    values = [value for by_case in record.state["scores"].values() for one in by_case.values() for value in one]
    missing = sum(value is None for value in values)
    if missing > _MANY_MISSING * len(values):
        yield "many_failed_calls", f"{missing} of {len(values)} scores are missing: their calls failed"


def _of_overfit(record: Record, overfit: dict[str, float] | None) -> Iterator[tuple[str, str]]:
    if overfit and overfit["ci_low"] > 0 and record.incumbent != record.seed:
        yield (
            "overfit",
            f"the best scores {overfit['dev']:.3f} on dev and {overfit['holdout']:.3f} on the holdout, a gap of more"
            " than two standard errors: dev chose it partly by luck",
        )


def _of_checks(record: Record) -> Iterator[tuple[str, str]]:
    """The seed was chosen by nobody: where it is worse than on dev, the cases are harder."""
    checks = [item for item in watch.told(record) if item["candidate"] != record.seed]
    warned = [item for item in checks if item["gap"] is not None and item["ci_low"] > 0]
    if warned:
        first = warned[0]
        yield (
            "generalization",
            f"in {len(warned)} of {len(checks)} checks, first in round {first['round']}, the best was worse on"
            f" {first['cases']} dev cases set aside ({first['watch']:.3f}) than on dev ({first['dev']:.3f}), by more"
            " than two standard errors",
        )


def _of_end(record: Record) -> Iterator[tuple[str, str]]:
    reason = str(record.state["finish_reason"])
    if reason.startswith("budget_"):
        yield "budget_ended", f"the budget ended the search ({reason}); it had not come to its end"
    elif reason in ("scoring_failed", "proposer_failed"):
        yield "calls_ended", f"failed calls ended the search ({reason}); it had not come to its end"
