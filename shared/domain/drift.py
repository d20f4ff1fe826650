"""Drift of a prompt: does what it says, or what comes back, differ from before?

Each signal names its test, its effect and how many executions it is of; with too few it says so and nothing else.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared import stats
from shared.db import db_now
from shared.domain import executions, prompts
from shared.domain.content import is_placeholder, message_templates
from shared.domain.executions import Filter
from shared.domain.names import VersionChoice
from shared.domain.tenants import Caller
from shared.errors import FieldError, Unprocessable
from shared.hashing import canonical_json
from shared.models import Evaluation, Execution, Feedback, Prompt, State, Version, WorkItem
from shared.scoring import hash_of_scorers

SIMILARITY = 0.7  # below it two texts are said to differ
COMPARED_VERSIONS = 50
SAMPLE = 5_000  # the newest executions of a side
ENOUGH = 20  # values on each side
ALPHA = 0.05
CURRENT_DAYS, BASELINE_DAYS, VERSION_DAYS = 7, 28, 90
MAX_DAYS = 366

DRIFT, NOTHING_FOUND, NOT_ENOUGH_DATA = "drift", "no_drift_found", "not_enough_data"


@dataclass(frozen=True)
class Span:
    """What one side of the comparison is of: a version, or a period."""

    version_number: int | None = None
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True)
class Similarity:
    version_number: int
    similarity: float
    created_at: datetime


@dataclass(frozen=True)
class Textual:
    """The words of a version beside those of earlier ones. Says nothing of order, meaning or answers."""

    version_number: int
    compared_with: int | None  # the version before it, or that of the baseline; None: there is no other
    similarity: float | None
    earlier: Sequence[Similarity]

    @property
    def has_drifted(self) -> bool:
        return self.similarity is not None and self.similarity < SIMILARITY

    @property
    def significant(self) -> Sequence[Similarity]:
        return [one for one in self.earlier if one.similarity < SIMILARITY]

    @property
    def score(self) -> float:
        """1 less the mean similarity of the earlier versions that differ; 0 when none does."""
        return 1 - stats.mean([one.similarity for one in self.significant]) if self.significant else 0.0


@dataclass(frozen=True)
class Side:
    span: Span
    executions: int
    values: Mapping[str, list[float]]
    scores: Mapping[str, list[float]]  # of evaluations, by what they can be compared with


@dataclass(frozen=True)
class Signal:
    """One question about the answers. `effect` says how large, `p_value` how surprising if nothing had changed."""

    name: str
    test: str
    effect_name: str
    minimum_effect: float
    n: tuple[int, int]  # baseline, current
    middle: tuple[float | None, float | None]  # the medians, or the rates
    effect: float | None = None
    p_value: float | None = None
    adjusted_p_value: float | None = None

    @property
    def verdict(self) -> str:
        if self.adjusted_p_value is None or self.effect is None:
            return NOT_ENOUGH_DATA
        found = self.adjusted_p_value < ALPHA and abs(self.effect) >= self.minimum_effect
        return DRIFT if found else NOTHING_FOUND


@dataclass(frozen=True)
class Report:
    textual: Textual
    baseline: Side
    current: Side
    signals: Sequence[Signal]

    @property
    def verdict(self) -> str:
        """Of the answers. What the text says is a signal of its own."""
        verdicts = {signal.verdict for signal in self.signals}
        return next((one for one in (DRIFT, NOTHING_FOUND) if one in verdicts), NOT_ENOUGH_DATA)


# (test, name of its effect, the smallest effect that is worth a word)
_MANN_WHITNEY = ("Mann-Whitney U", "Cliff's delta", 0.147)  # "negligible" below: Romano et al. 2006
_SIGNALS = {
    "latency_ms": _MANN_WHITNEY,
    "response_length": ("Kolmogorov-Smirnov", "D", 0.1),
    "error_rate": ("Fisher's exact", "difference of rates", 0.01),
    "feedback_score": _MANN_WHITNEY,
    "evaluation_score": _MANN_WHITNEY,
}


def report(
    session: Session, caller: Caller, prompt: Prompt, wanted: Filter, *, baseline: Span | None, current: Span | None
) -> Report:
    """Compare two versions, or two periods: by default the last 7 days with the 28 before.

    `wanted` says which executions count, beside those of the prompt.
    """
    before, now = _spans(session, prompt, baseline, current)
    old, new = (_side(session, caller, prompt, wanted, span) for span in (before, now))
    return Report(textual(session, prompt, before, now), old, new, _signals(old, new))


def textual(session: Session, prompt: Prompt, baseline: Span, current: Span) -> Textual:
    """Jaccard similarity (1901) of the sets of words, in lower case, with each of up to 50 earlier versions."""
    number = current.version_number or prompt.last_version_number
    version = prompts.get_version(session, prompt, VersionChoice(number=number))
    earlier = session.scalars(
        sa.select(Version)
        .where(Version.prompt_id == prompt.id, Version.number < number)
        .order_by(Version.number.desc())
        .limit(COMPARED_VERSIONS)
    ).all()
    other = earlier[0] if earlier else None
    if baseline.version_number is not None:
        other = prompts.get_version(session, prompt, VersionChoice(number=baseline.version_number))
    return Textual(
        number,
        other.number if other else None,
        jaccard(text_of(version), text_of(other)) if other else None,
        [Similarity(one.number, jaccard(text_of(version), text_of(one)), one.created_at) for one in earlier],
    )


def text_of(version: Version) -> str:
    messages = message_templates(version.content)
    return "\n".join(message["content"] for message in messages if not is_placeholder(message))


def jaccard(one: str, other: str) -> float:
    """How many of the words that stand in either stand in both; 1 for two texts without words."""
    a, b = set(one.lower().split()), set(other.lower().split())
    return len(a & b) / len(a | b) if a | b else 1.0


def _spans(session: Session, prompt: Prompt, baseline: Span | None, current: Span | None) -> tuple[Span, Span]:
    """Both sides in full, or a 422 that says why they cannot be compared."""
    if any(span is not None and span.version_number is not None for span in (baseline, current)):
        return _versions(session, prompt, baseline, current)
    now = session.scalars(sa.select(db_now())).one()
    try:
        if current is None:
            current = Span(start=now - timedelta(days=CURRENT_DAYS), end=now)
        assert current.start is not None
        if baseline is None:
            baseline = Span(start=current.start - timedelta(days=BASELINE_DAYS), end=current.start)
    except OverflowError as error:
        raise _refused("?current", "is too early") from error
    for name, span in (("?baseline", baseline), ("?current", current)):
        assert span.start is not None
        assert span.end is not None
        if span.start >= span.end:
            raise _refused(name, "its end must be after its start")
        if span.end - span.start > timedelta(days=MAX_DAYS):
            raise _refused(name, f"may be {MAX_DAYS} days long")
    assert baseline.start is not None
    assert baseline.end is not None
    assert current.start is not None
    assert current.end is not None
    if baseline.start < current.end and current.start < baseline.end:
        raise _refused("?baseline", "overlaps with `current`: some executions would stand on both sides")
    return baseline, current


def _versions(session: Session, prompt: Prompt, baseline: Span | None, current: Span | None) -> tuple[Span, Span]:
    for name, span in (("?baseline", baseline), ("?current", current)):
        if span is not None and span.version_number is None:
            raise _refused(name, "must be a version as the other side is: compare two versions, or two periods")
    new = current.version_number if current else prompt.last_version_number
    assert new is not None
    old = baseline.version_number if baseline else new - 1
    if not old:
        raise _refused("?baseline", "required: there is no version before that one")
    if old == new:
        raise _refused("?baseline", f"version {new} stands on both sides")
    for number in (old, new):
        prompts.get_version(session, prompt, VersionChoice(number=number))
    now = session.scalars(sa.select(db_now())).one()
    start = now - timedelta(days=VERSION_DAYS)
    return Span(old, start, now), Span(new, start, now)


def _side(session: Session, caller: Caller, prompt: Prompt, wanted: Filter, span: Span) -> Side:
    wanted = replace(wanted, prompt_id=prompt.id, created_from=span.start, created_before=span.end)
    if span.version_number is not None:
        version = prompts.get_version(session, prompt, VersionChoice(number=span.version_number))
        wanted = replace(wanted, version_id=version.id)
    # Without a version are the calls of a search: they are not the prompt's own text.
    query = executions.matching(session, caller, wanted).where(Execution.version_id.is_not(None))
    ended = session.execute(
        _newest(
            query.where(Execution.state.in_([State.SUCCEEDED, State.FAILED])),
            Execution.state,
            Execution.latency_ms,
            sa.func.length(Execution.response_text).label("length"),
        )
    ).all()
    answered = [row for row in ended if row.state == State.SUCCEEDED]
    on_execution = sa.and_(Feedback.execution_id == Execution.id, Feedback.workspace_id == Execution.workspace_id)
    rated = query.join(Feedback, on_execution).where(Feedback.score.is_not(None))
    values = {
        "latency_ms": [float(row.latency_ms) for row in answered if row.latency_ms is not None],
        "response_length": [float(row.length) for row in answered if row.length is not None],
        "error_rate": [float(row.state == State.FAILED) for row in ended],
        "feedback_score": list(session.scalars(_newest(rated, Feedback.score))),
    }
    return Side(span, len(ended), values, _scores(session, caller, wanted))


def _scores(session: Session, caller: Caller, wanted: Filter) -> dict[str, list[float]]:
    """Scores by what they can be compared with: the same dataset, scorers and model. A repeat is no case of its own."""
    wanted = replace(wanted, purpose="evaluation", environment=None, provider=None, model_name=None)
    query = (
        executions.matching(session, caller, wanted)
        .join(WorkItem, WorkItem.execution_id == Execution.id)
        .join(Evaluation, Evaluation.id == WorkItem.scope_id)
        .where(WorkItem.score.is_not(None), WorkItem.repeat == 0)
    )
    found: dict[str, dict[uuid.UUID, float]] = {}
    columns = (Execution.id, WorkItem.score, Evaluation.dataset_id, Evaluation.scorers, Evaluation.model)
    for execution_id, score, dataset_id, scorers, model in session.execute(_newest(query, *columns)):
        like = canonical_json([str(dataset_id), hash_of_scorers(scorers), model])
        # An answer that several evaluations had is one observation.
        found.setdefault(like, {})[execution_id] = score
    return {like: list(scores.values()) for like, scores in found.items()}


def _newest(query: sa.Select[Any], *columns: Any) -> sa.Select[Any]:
    return query.with_only_columns(*columns).order_by(Execution.created_at.desc(), Execution.id.desc()).limit(SAMPLE)


def _signals(baseline: Side, current: Side) -> list[Signal]:
    # Of those evaluations that both sides had, the ones that say most.
    shared = sorted(set(baseline.scores) & set(current.scores))
    like = max(shared, key=lambda one: min(len(baseline.scores[one]), len(current.scores[one])), default="")
    found = []
    for name, (test, effect_name, minimum) in _SIGNALS.items():
        before, now = (
            side.scores.get(like, []) if name == "evaluation_score" else side.values[name]
            for side in (baseline, current)
        )
        middle = (_middle(name, before), _middle(name, now))
        signal = Signal(name, test, effect_name, minimum, (len(before), len(now)), middle)
        if min(signal.n) >= ENOUGH:
            compared = _compare(test, before, now)
            signal = replace(signal, effect=compared.effect, p_value=compared.p_value)
        found.append(signal)
    asked = [signal.p_value for signal in found if signal.p_value is not None]
    adjusted = iter(stats.holm(asked))
    return [signal if signal.p_value is None else replace(signal, adjusted_p_value=next(adjusted)) for signal in found]


def _compare(test: str, before: Sequence[float], now: Sequence[float]) -> stats.Comparison:
    if test == "Fisher's exact":
        return stats.fisher_exact((int(sum(before)), int(sum(now))), (len(before), len(now)))
    if test == "Kolmogorov-Smirnov":
        return stats.kolmogorov_smirnov(before, now)
    return stats.mann_whitney(before, now)


def _middle(name: str, values: Sequence[float]) -> float | None:
    if not values:
        return None
    return stats.mean(values) if name == "error_rate" else stats.median(values)


def _refused(pointer: str, detail: str) -> Unprocessable:
    error = FieldError(pointer, detail)
    return Unprocessable(str(error), errors=[error])
