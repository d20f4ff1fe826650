"""The two steps of a generation: ask for the cases in a few calls, then keep those that are good and new."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.db import db_now
from shared.domain import case_requests, datasets, events, providers, runs, test_cases
from shared.domain.case_files import NewCase, case_of
from shared.domain.executions import NewExecution
from shared.domain.leases import Lease
from shared.domain.runs import Collected, Unit
from shared.hashing import hash_of
from shared.models import Dataset, Generation, JobKind, State, TestCase, Version
from worker.steps import Done, Failure, Verdict
from worker.steps.evaluations import step_failure

FAN_OUT, COLLECT = 1, 2
MAX_COMPARED = 2_000  # cases of the dataset, the newest, that a new one must not be nearly the same as


@dataclass(frozen=True)
class _Loaded:
    generation: Generation
    version: Version
    quote: providers.Quote
    collected: Sequence[Collected] = ()
    known: Sequence[Mapping[str, Any]] = ()  # inputs of the dataset's cases


@dataclass(frozen=True)
class _Asked:
    units: Sequence[Unit]


@dataclass(frozen=True)
class _Read:
    cases: Sequence[NewCase]  # `line` is the place of its result
    results: Sequence[dict[str, Any]]
    problem: str | None  # of the first call without an answer


def load(session: Session, leases: Sequence[Lease]) -> Mapping[int, Any]:
    loaded = {}
    for lease in leases:
        generation = session.get_one(Generation, lease.subject_id)
        if generation.state not in (State.QUEUED, State.RUNNING):
            continue
        version = session.get_one(Version, generation.version_id)
        quote = providers.quote(session, generation.model["provider"], generation.model["model_name"])
        if lease.step_no == FAN_OUT:
            loaded[lease.job_id] = _Loaded(generation, version, quote)
        else:
            collected = runs.collect(session, generation.id, COLLECT)
            loaded[lease.job_id] = _Loaded(generation, version, quote, collected, _known(session, generation))
    return loaded


def run(lease: Lease, loaded: _Loaded) -> _Asked | _Read:
    return _ask(loaded) if lease.step_no == FAN_OUT else _read(loaded)


def finish(session: Session, done: Sequence[Done]) -> Mapping[int, Verdict]:
    verdicts = {}
    for item in done:
        job, outcome = item.job, item.outcome
        generation = session.get_one(Generation, job.subject_id, with_for_update=True)
        if generation.state not in (State.QUEUED, State.RUNNING) or not isinstance(outcome, _Asked | _Read | Failure):
            verdicts[job.id] = Verdict(State.CANCELED)
        elif isinstance(outcome, Failure):
            verdicts[job.id] = step_failure(job, outcome)
        elif isinstance(outcome, _Asked):
            generation.step_no = FAN_OUT
            runs.fan_out(
                session,
                workspace_id=generation.workspace_id,
                kind=JobKind.GENERATION,
                subject_id=generation.id,
                step_no=COLLECT,
                units=outcome.units,
            )
            verdicts[job.id] = Verdict(State.SUCCEEDED)
        else:
            _conclude(session, generation, outcome)
            verdicts[job.id] = Verdict(State.SUCCEEDED)
    return verdicts


def _known(session: Session, generation: Generation) -> Sequence[Mapping[str, Any]]:
    live = (TestCase.dataset_id == generation.dataset_id, TestCase.removed_in.is_(None))
    newest = sa.select(TestCase.inputs).where(*live).order_by(TestCase.ordinal.desc()).limit(MAX_COMPARED)
    return session.scalars(newest).all()


def _ask(loaded: _Loaded) -> _Asked:
    generation, version = loaded.generation, loaded.version
    units = []
    for place, (kind, count) in enumerate(case_requests.batches_of(generation.strategy, generation.count)):
        call = NewExecution(
            workspace_id=generation.workspace_id,
            model=loaded.quote,
            params=generation.model["params"],
            messages=case_requests.request_for(
                version.content,
                version.variables,
                kind,
                count,
                batch=place + 1,
                description=generation.description,
                with_expected=generation.with_expected,
            ),
            purpose="generation",
            environment="generation",
            project_id=generation.project_id,
            prompt_id=generation.prompt_id,
            version_id=generation.version_id,
            scope_id=generation.id,
            budget_id=generation.budget_id,
            created_by=generation.created_by,
        )
        units.append(Unit(hash_of(["generate", place]), "generate", call, candidate=kind))
    return _Asked(units)


def _read(loaded: _Loaded) -> _Read:
    """The cases of all answers in the order of the calls: good, new, and no more than are wanted."""
    generation, content = loaded.generation, loaded.version.content
    seen = case_requests.Seen(loaded.known)
    cases: list[NewCase] = []
    results: list[dict[str, Any]] = []
    problem = None
    for item in loaded.collected:
        if item.text is None:
            problem = problem or item.error
            continue
        told = {"with_expected": generation.with_expected}
        for case in case_requests.read_answer(item.text, loaded.version.variables, **told):
            status, detail = "invalid", case_requests.check(content, case)
            if not detail and generation.with_expected:
                status, detail = "no_expectation", case_requests.check_expected(content, case["expected"])
            if not detail:
                status = "near_duplicate" if seen.is_near(case["inputs"]) else "added"
            if status == "added" and len(cases) == generation.count:
                status = "surplus"
            result = {"kind": item.candidate, "name": case["name"], "status": status, "detail": detail}
            result["test_case_id"] = None
            if status == "added":
                row = {**case, "tags": [str(item.candidate)], "generated": True}
                cases.append(case_of(row, len(results)))
            results.append(result)
    return _Read(cases, results, problem)


def _conclude(session: Session, generation: Generation, read: _Read) -> None:
    """Add the cases. A dataset that was deleted meanwhile takes none: it fails, and its calls can be read."""
    dataset = session.get(Dataset, generation.dataset_id, with_for_update=True, populate_existing=True)
    failure = _refusal(dataset, read) or _failure(read)
    if dataset is None or failure:
        for result in read.results:
            result["status"] = "not_added" if result["status"] == "added" else result["status"]
    elif read.cases:
        imported = test_cases.import_cases(session, generation.created_by, dataset, read.cases, action="generated")
        for place in imported.duplicates:
            read.results[place]["status"] = "duplicate"
        if imported.added:
            generation.revision = imported.dataset.revision
            ids = iter(case.case_id for case in test_cases.added_in(session, imported.dataset))
            for result in read.results:
                if result["status"] == "added":
                    result["test_case_id"] = str(next(ids))
    state = State.FAILED if failure else State.SUCCEEDED
    generation.step_no, generation.state, generation.completed_at = COLLECT, state, db_now()
    generation.error_type, generation.error_message = failure or (None, None)
    generation.results = list(read.results)
    session.flush()
    added = sum(result["status"] == "added" for result in read.results) if not failure else 0
    said = {"added": added, "written": len(read.results)}
    events.record(session, [events.Change(generation.workspace_id, f"generation.{state}", generation.id, said)])


def _refusal(dataset: Dataset | None, read: _Read) -> tuple[str, str] | None:
    """Why the dataset, as it now is, takes none of them."""
    if dataset is None or dataset.deleted_at is not None:
        return "dataset_deleted", "the dataset was deleted before the cases were written"
    if dataset.case_count + len(read.cases) > datasets.MAX_CASES:
        return (
            "dataset_full",
            f"others have filled the dataset meanwhile; it holds at most {datasets.MAX_CASES:,} cases",
        )
    return None


def _failure(read: _Read) -> tuple[str, str] | None:
    if read.cases or any(result["status"] == "near_duplicate" for result in read.results):
        return None
    if read.results:
        return "no_valid_case", f"none of {len(read.results)} cases can be used: {read.results[0]['detail']}"
    if read.problem:
        return read.problem, f"no call succeeded: {read.problem}"
    return "no_case", "no answer holds a test case"
