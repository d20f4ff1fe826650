"""The two steps of an evaluation: fan its cases out over the fleet, then score what came back."""

import uuid
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared import scoring, stats
from shared.db import db_now
from shared.domain import datasets, events, providers, runs
from shared.domain.content import render_messages
from shared.domain.executions import NewExecution
from shared.domain.leases import Lease
from shared.domain.runs import Collected, Unit
from shared.hashing import hash_of
from shared.models import Evaluation, JobKind, State, TestCase, Version
from worker.steps import Done, Failure, Verdict

FAN_OUT, SCORE = 1, 2


@dataclass(frozen=True)
class _Loaded:
    evaluation: Evaluation
    cases: Sequence[TestCase]
    version: Version | None = None
    quote: providers.Quote | None = None
    collected: Sequence[Collected] = ()


@dataclass(frozen=True)
class _FannedOut:
    units: Sequence[Unit]


@dataclass(frozen=True)
class _Scored:
    scores: Sequence[Mapping[str, Any]]
    aggregate: Mapping[str, Any]


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
                quote=providers.quote(session, model["provider"], model["model_name"]),
            )
        else:
            loaded[lease.job_id] = _Loaded(evaluation, cases, collected=runs.collect(session, evaluation.id, SCORE))
    return loaded


def run(lease: Lease, loaded: _Loaded) -> _FannedOut | _Scored:
    return _fan_out(loaded) if lease.step_no == FAN_OUT else _score(loaded)


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
            evaluation.step_no = FAN_OUT
            runs.fan_out(
                session,
                workspace_id=evaluation.workspace_id,
                kind=JobKind.EVALUATION,
                subject_id=evaluation.id,
                step_no=SCORE,
                units=outcome.units,
            )
            verdicts[job.id] = Verdict(State.SUCCEEDED)
        elif isinstance(outcome, _Scored):
            _conclude(session, evaluation, outcome)
            verdicts[job.id] = Verdict(State.SUCCEEDED)
        else:
            verdicts[job.id] = Verdict(State.CANCELED)
    return verdicts


def step_failure(job: Any, failure: Failure) -> Verdict:
    """A step that crashed: again in a moment while it has attempts left, else the run fails and says why."""
    if failure.retryable and job.attempts + 1 < job.max_attempts:
        return Verdict(State.QUEUED, failure.code, failure.message, retry_in_seconds=1.0)
    return Verdict(State.FAILED, failure.code, failure.message)


def _fan_out(loaded: _Loaded) -> _FannedOut:
    evaluation, version, quote = loaded.evaluation, loaded.version, loaded.quote
    assert version is not None
    assert quote is not None
    units = []
    for case in loaded.cases:
        messages = render_messages(version.content, case.inputs)
        for repeat in range(evaluation.repeats):
            call = NewExecution(
                workspace_id=evaluation.workspace_id,
                model=quote,
                params=evaluation.model["params"],
                messages=messages,
                tools=version.content.get("tools"),
                response_schema=version.content.get("response_schema"),
                purpose="evaluation",
                environment="evaluation",
                project_id=evaluation.project_id,
                prompt_id=evaluation.prompt_id,
                version_id=evaluation.version_id,
                scope_id=evaluation.id,
                variables=case.inputs,
                sample=repeat,
                budget_id=evaluation.budget_id,
                created_by=evaluation.created_by,
            )
            units.append(
                Unit(
                    hash_of(["case", case.ordinal, repeat]),
                    "evaluate",
                    call,
                    test_case_id=case.id,
                    repeat=repeat,
                )
            )
    return _FannedOut(units)


def _score(loaded: _Loaded) -> _Scored:
    """Score each answer. A call that failed is missing, which is not 0.

    Repeats of a case are averaged before anything else, for they are no independent cases; then score, standard
    error and interval are of the mean by the weights of the cases. `passed` and `pass_rate` count answers.
    """
    cases = {case.id: case for case in loaded.cases}
    rows, passed = [], 0
    by_case: dict[uuid.UUID, list[float]] = defaultdict(list)
    missing: Counter[str] = Counter()
    for item in loaded.collected:
        if item.text is None or item.test_case_id is None:
            missing[item.error or "unknown"] += 1
            continue
        result = scoring.score(loaded.evaluation.scorers, item.text, cases[item.test_case_id].expected)
        rows.append(
            {
                "id": item.item_id,
                "score": result.value,
                "passed": result.passed,
                "feedback": result.feedback or None,
            }
        )
        by_case[item.test_case_id].append(result.value)
        passed += result.passed
    aggregate: dict[str, Any] = {
        "cases": len(loaded.collected),
        "scored": len(rows),
        "missing": missing.total(),
        "missing_by_error": dict(sorted(missing.items())),
        "passed": passed,
    }
    if rows:
        values = [sum(scores) / len(scores) for scores in by_case.values()]
        weights = [cases[case_id].weight for case_id in by_case]
        low, high = stats.mean_interval(values, seed=0, weights=weights)
        aggregate |= {
            "score": sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights),
            "pass_rate": passed / len(rows),
            "standard_error": stats.standard_error(values, weights),
            "ci_low": low,
            "ci_high": high,
        }
    return _Scored(rows, aggregate)


def _failure(aggregate: Mapping[str, Any]) -> tuple[str, str] | None:
    """(code, message) of an evaluation without a single score; None when it has one."""
    if aggregate["scored"]:
        return None
    missing = aggregate["missing_by_error"]
    if set(missing) == {"budget_exceeded"}:
        return "budget_exceeded", "the budget does not cover a single call"
    reasons = ", ".join(f"{count} {code}" for code, count in missing.items())
    return "scoring_failed", f"no call succeeded: {reasons}" if reasons else "no call succeeded"


def _conclude(session: Session, evaluation: Evaluation, scored: _Scored) -> None:
    runs.record_scores(session, scored.scores)
    failure = _failure(scored.aggregate)
    state = State.FAILED if failure else State.SUCCEEDED
    session.execute(
        sa.update(Evaluation)
        .where(Evaluation.id == evaluation.id)
        .values(
            step_no=SCORE,
            state=state,
            error_type=failure[0] if failure else None,
            error_message=failure[1] if failure else None,
            aggregate=dict(scored.aggregate),
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
