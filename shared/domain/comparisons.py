"""Two evaluations of the same cases: how much better one is, and whether it may pass a gate.

Cases are paired by their content, so that evaluations of two revisions of a dataset, or of two datasets, are compared
on what they have in common. Scores that were made by other scorers are not compared at all.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared import stats
from shared.errors import Conflict, field_error
from shared.models import Evaluation, State, TestCase, WorkItem
from shared.scoring import hash_of_scorers
from shared.stats import Difference

MOST_FLIPS = 100  # that are listed, each way
MOST_CASES = 20_000  # whose difference is worked out while somebody waits
MIN_PAIRED = 5  # cases on which an interval can be believed


@dataclass(frozen=True)
class Case:
    """A case with its mean score over the repeats, and whether more than half of them passed."""

    content_hash: str
    ordinal: int
    name: str
    weight: float
    score: float
    passed: bool


@dataclass(frozen=True)
class Flip:
    content_hash: str
    ordinal: int
    name: str
    baseline: float
    candidate: float


@dataclass(frozen=True)
class Compared:
    """`candidate` minus `baseline`. `effect` is Cohen's d_z; flips are of passing, in the order of the dataset."""

    difference: Difference
    effect: float | None
    verdict: str  # better, worse or not_significant: whether the interval leaves out 0, and the test rejects it
    gained: Sequence[Flip]
    lost: Sequence[Flip]
    only_in_baseline: int
    only_in_candidate: int
    differs: Sequence[str] = field(default_factory=tuple)  # of prompt, version, model, dataset, dataset_revision


@dataclass(frozen=True)
class Check:
    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a gate asks for. `margin`: how much worse than the other it may be, with 95 % confidence."""

    min_score: float | None = None
    non_inferior_to: uuid.UUID | None = None
    margin: float | None = None
    max_missing: float = 0.0  # share of the cells


def compare(session: Session, candidate: Evaluation, baseline: Evaluation, *, pointer: str) -> Compared:
    """The candidate against the baseline; `Conflict` unless both have succeeded, on scorers that are the same."""
    for evaluation in (candidate, baseline):
        if evaluation.state != State.SUCCEEDED:
            raise Conflict(f"evaluation {evaluation.id} is {evaluation.state}; only what has succeeded is compared")
    if hash_of_scorers(candidate.scorers) != hash_of_scorers(baseline.scorers):
        raise field_error(pointer, "was scored by other scorers, or with other options")
    before, after = _cases(session, baseline), _cases(session, candidate)
    shared = [key for key in after if key in before]
    if not shared:
        raise field_error(pointer, "has no case in common with this evaluation")
    if len(shared) > MOST_CASES:
        raise field_error(pointer, f"{len(shared):,} cases in common; at most {MOST_CASES:,} are compared")
    scores = [before[key].score for key in shared], [after[key].score for key in shared]
    weights = [after[key].weight for key in shared]
    difference = stats.compare_paired(*scores, seed=0, weights=weights)
    return Compared(
        difference,
        stats.paired_effect(*scores, weights),
        {1: "better", -1: "worse", 0: "not_significant"}[difference.direction],
        [_flip(before[key], after[key]) for key in shared if after[key].passed and not before[key].passed],
        [_flip(before[key], after[key]) for key in shared if before[key].passed and not after[key].passed],
        len(before) - len(shared),
        len(after) - len(shared),
        [name for name, attribute in _FACTS.items() if getattr(candidate, attribute) != getattr(baseline, attribute)],
    )


_FACTS = {
    "prompt": "prompt_id",
    "version": "version_id",
    "model": "model",
    "dataset": "dataset_id",
    "dataset_revision": "dataset_revision",
}


def gate(session: Session, evaluation: Evaluation, wanted: Wanted, baseline: Evaluation | None) -> list[Check]:
    """Each thing that was asked for, and whether it holds; the gate is passed when all do.

    `Conflict` while the evaluation is open: a gate that does not know must not say yes, nor no.
    """
    if evaluation.state in (State.QUEUED, State.RUNNING):
        raise Conflict(f"the evaluation is {evaluation.state}; ask again when it has ended")
    if evaluation.state != State.SUCCEEDED:
        reason = evaluation.error_message or evaluation.error_type or "somebody stopped it"
        return [Check("succeeded", False, f"the evaluation has {evaluation.state}: {reason}")]
    checks = [_complete(evaluation, wanted.max_missing)]
    if wanted.min_score is not None:
        score = evaluation.aggregate["score"]
        detail = f"score {score:.4f}, at least {wanted.min_score:g} is wanted"
        checks.append(Check("min_score", stats.reaches(score, wanted.min_score), detail))
    if baseline is not None:
        checks.append(_non_inferior(session, evaluation, baseline, wanted.margin or 0.0))
    return checks


def _complete(evaluation: Evaluation, max_missing: float) -> Check:
    missing, cells = evaluation.aggregate["missing"], evaluation.aggregate["cases"]
    detail = f"{missing} of {cells} answers have no score"
    return Check("complete", stats.reaches(max_missing * cells, missing), detail)


def _non_inferior(session: Session, evaluation: Evaluation, baseline: Evaluation, margin: float) -> Check:
    """By the lower end of the interval of the difference: not inferior where that is above minus the margin."""
    compared = compare(session, evaluation, baseline, pointer="?non_inferior_to")
    difference = compared.difference
    detail = (
        f"difference {difference.difference:+.4f} (95 % {difference.ci_low:+.4f} to {difference.ci_high:+.4f}) on"
        f" {difference.n} cases, {compared.only_in_baseline} of the baseline left out; the margin is {margin:g}"
    )
    if difference.n < MIN_PAIRED:
        return Check("non_inferior", False, f"only {difference.n} cases in common, at least {MIN_PAIRED} are needed")
    return Check("non_inferior", stats.reaches(difference.ci_low, -margin), detail)


def _cases(session: Session, evaluation: Evaluation) -> dict[str, Case]:
    """The cases that have a score, by their content, in the order of the dataset."""
    rows = session.execute(
        sa.select(
            TestCase.content_hash,
            sa.func.min(TestCase.ordinal).label("ordinal"),
            sa.func.min(TestCase.name).label("name"),
            sa.func.max(TestCase.weight).label("weight"),
            sa.func.avg(WorkItem.score).label("score"),
            sa.func.avg(sa.case((WorkItem.passed.is_(True), 1.0), else_=0.0)).label("passed"),
        )
        .join(TestCase, TestCase.id == WorkItem.test_case_id)
        .where(WorkItem.scope_id == evaluation.id, WorkItem.kind == "evaluate", WorkItem.score.is_not(None))
        .group_by(TestCase.content_hash)
        .order_by(sa.func.min(TestCase.ordinal))
    )
    return {
        row.content_hash: Case(
            row.content_hash, row.ordinal, row.name, row.weight, float(row.score), float(row.passed) > 0.5
        )
        for row in rows
    }


def _flip(before: Case, after: Case) -> Flip:
    return Flip(after.content_hash, after.ordinal, after.name, before.score, after.score)


def failed_cases(session: Session, evaluation: Evaluation, *, limit: int) -> list[Mapping[str, Any]]:
    """The answers with the lowest scores that did not pass: ordinal, name, repeat, score and feedback."""
    rows = session.execute(
        sa.select(TestCase.ordinal, TestCase.name, WorkItem.repeat, WorkItem.score, WorkItem.feedback)
        .join(TestCase, TestCase.id == WorkItem.test_case_id)
        .where(WorkItem.scope_id == evaluation.id, WorkItem.kind == "evaluate", WorkItem.passed.is_(False))
        .order_by(WorkItem.score, TestCase.ordinal, WorkItem.repeat)
        .limit(limit)
    )
    return [dict(row._mapping) for row in rows]
