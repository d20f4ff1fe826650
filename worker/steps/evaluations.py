"""The steps of an evaluation: fan its cases out over the fleet, ask the judges if there are any, then score."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.db import db_now
from shared.domain import datasets, evaluations, events, judges, providers, runs
from shared.domain.aggregates import Cell, aggregate_of, slices_of
from shared.domain.datasets import RunCase
from shared.domain.evaluations import FAN_OUT, JUDGED, SCORE
from shared.domain.executions import NewExecution
from shared.domain.judges import Quotes
from shared.domain.leases import Lease
from shared.domain.runs import Collected, Reuse, Unit
from shared.models import Evaluation, JobKind, State, Version
from shared.scoring import Ask, Missing
from worker.steps import Done, Failure, Verdict, judging


@dataclass(frozen=True)
class _Loaded:
    evaluation: Evaluation
    cases: Sequence[RunCase]
    version: Version | None = None
    begun: int = 0  # units that were inserted with the evaluation
    quote: providers.Quote | None = None
    collected: Sequence[Collected] = ()
    replies: Sequence[Collected] = ()
    judges: Quotes = field(default_factory=dict)


@dataclass(frozen=True)
class _FannedOut:
    units: Sequence[Unit]
    next_step: int
    begun: int = 0


@dataclass(frozen=True)
class _Scored:
    scores: Sequence[Mapping[str, Any]]
    aggregate: Mapping[str, Any]
    slices: Mapping[str, Any]


def load(session: Session, leases: Sequence[Lease]) -> Mapping[int, Any]:
    loaded = {}
    for lease in leases:
        evaluation = session.get_one(Evaluation, lease.subject_id)
        if evaluation.state not in (State.QUEUED, State.RUNNING):
            continue
        cases = datasets.cases_of(session, evaluation.dataset_id, evaluation.dataset_revision)
        if lease.step_no == FAN_OUT:
            model = evaluation.model
            loaded[lease.job_id] = _Loaded(
                evaluation,
                cases,
                version=session.get_one(Version, evaluation.version_id),
                begun=runs.count_begun(session, evaluation.id, SCORE),
                quote=providers.quote(session, model["provider"], model["model_name"]),
            )
        else:
            loaded[lease.job_id] = _Loaded(
                evaluation,
                cases,
                collected=runs.collect(session, evaluation.id, SCORE),
                replies=runs.collect(session, evaluation.id, JUDGED) if lease.step_no == JUDGED else (),
                judges=judges.quotes_of(session, evaluation.scorers),
            )
    return loaded


def run(lease: Lease, loaded: _Loaded) -> _FannedOut | _Scored:
    if lease.step_no == FAN_OUT:
        return _FannedOut(_answers(loaded), SCORE, loaded.begun)
    if lease.step_no == SCORE and loaded.judges:
        return _FannedOut(_questions(loaded), JUDGED)
    return _score(loaded)


def finish(session: Session, done: Sequence[Done]) -> Mapping[int, Verdict]:
    verdicts = {}
    for item in done:
        job, outcome = item.job, item.outcome
        evaluation = session.get_one(Evaluation, job.subject_id, with_for_update=True)
        if evaluation.state not in (State.QUEUED, State.RUNNING):
            verdicts[job.id] = Verdict(State.CANCELED)
        elif isinstance(outcome, Failure):
            verdicts[job.id] = step_failure(job, outcome)
        elif isinstance(outcome, _FannedOut):
            evaluation.step_no = job.step_no or FAN_OUT
            unmade = runs.fan_out(
                session,
                workspace_id=evaluation.workspace_id,
                kind=JobKind.EVALUATION,
                subject_id=evaluation.id,
                step_no=outcome.next_step,
                units=outcome.units,
                reuse=Reuse(evaluation.project_id, fresh=evaluation.fresh, retry_of=evaluation.retry_of),
                begun=outcome.begun,
            )
            verdicts[job.id] = Verdict(State.SUCCEEDED, unmade=unmade)
        elif isinstance(outcome, _Scored):
            _conclude(session, evaluation, outcome, job.step_no or SCORE)
            verdicts[job.id] = Verdict(State.SUCCEEDED)
        else:
            verdicts[job.id] = Verdict(State.CANCELED)
    return verdicts


def step_failure(job: Any, failure: Failure) -> Verdict:
    """A step that crashed: again in a moment while it has attempts left, else the run fails and says why."""
    if failure.retryable and job.attempts + 1 < job.max_attempts:
        return Verdict(State.QUEUED, failure.code, failure.message, retry_in_seconds=1.0)
    return Verdict(State.FAILED, failure.code, failure.message)


def _answers(loaded: _Loaded) -> list[Unit]:
    assert loaded.version is not None
    assert loaded.quote is not None
    units = evaluations.units_of(loaded.evaluation, loaded.version, loaded.cases, loaded.quote)
    return list(islice(units, loaded.begun, None))


def _questions(loaded: _Loaded) -> list[Unit]:
    evaluation = loaded.evaluation

    def call(ask: Ask) -> NewExecution:
        quote = judges.quote_of(loaded.judges, ask)
        return NewExecution(
            workspace_id=evaluation.workspace_id,
            model=quote,
            params=judges.params_of(quote, ask),
            messages=ask.messages,
            purpose=ask.purpose,
            environment="evaluation",
            project_id=evaluation.project_id,
            prompt_id=evaluation.prompt_id,  # and no version: it is no answer of one
            scope_id=evaluation.id,
            sample=ask.sample,
            budget_id=evaluation.budget_id,
            created_by=evaluation.created_by,
        )

    return judging.questions(evaluation.scorers, _answered(loaded), call)


def _answered(loaded: _Loaded) -> list[judging.Cell]:
    cases = {case.id: case for case in loaded.cases}
    return [
        (item, cases[item.test_case_id])
        for item in loaded.collected
        if item.text is not None and item.test_case_id is not None
    ]


def _score(loaded: _Loaded) -> _Scored:
    """Score each answer. A call that failed is missing, which is not 0; so is a score that could not be had."""
    answered = _answered(loaded)
    results = judging.scored(loaded.evaluation.scorers, answered, loaded.replies)
    rows, cells = [], []
    missing: Counter[str] = Counter(item.error or "unknown" for item in loaded.collected if item.text is None)
    for (item, case), result in zip(answered, results, strict=True):
        rows.append(judging.row(item, result))
        if isinstance(result, Missing):
            missing[result.code] += 1
        else:
            cells.append(Cell(case.id, case.weight, result, tuple(case.tags), case.group))
    aggregate = {
        "cases": len(loaded.collected),
        "scored": len(cells),
        "missing": missing.total(),
        "missing_by_error": dict(sorted(missing.items())),
        "cached": sum(item.cached for item in loaded.collected),
        "judge_calls_cached": len({item.key for item in loaded.replies if item.cached}),
        **aggregate_of(cells),
    }
    return _Scored(rows, aggregate, slices_of(cells))


def _failure(aggregate: Mapping[str, Any]) -> tuple[str, str] | None:
    """(code, message) of an evaluation without a single score; None when it has one."""
    if aggregate["scored"]:
        return None
    missing = aggregate["missing_by_error"]
    if set(missing) == {"budget_exceeded"}:
        return "budget_exceeded", "the budget does not cover a single call"
    reasons = ", ".join(f"{count} {code}" for code, count in missing.items())
    return "scoring_failed", f"no call succeeded: {reasons}" if reasons else "no call succeeded"


def _conclude(session: Session, evaluation: Evaluation, scored: _Scored, step_no: int) -> None:
    runs.record_scores(session, scored.scores)
    failure = _failure(scored.aggregate)
    state = State.FAILED if failure else State.SUCCEEDED
    session.execute(
        sa.update(Evaluation)
        .where(Evaluation.id == evaluation.id)
        .values(
            step_no=step_no,
            state=state,
            error_type=failure[0] if failure else None,
            error_message=failure[1] if failure else None,
            aggregate=dict(scored.aggregate),
            slices=dict(scored.slices),
            completed_at=db_now(),
        )
    )
    events.record(
        session,
        [
            events.Change(
                evaluation.workspace_id,
                f"evaluation.{state}",
                evaluation.id,
                dict(scored.aggregate),
            )
        ],
    )
