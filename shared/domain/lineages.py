"""Where a candidate comes from, what it scored, and how candidates stand against each other. Reads only."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared import stats
from shared.domain import datasets, optimizations, pages, providers
from shared.domain.pages import Page
from shared.errors import NotFound
from shared.models import Candidate, Execution, Optimization, State, TestCase, WorkItem

PARTS = ("train", "dev", "holdout", "watch")  # the last only of runs that check generalization
SHOWN_DOMINATORS = 10


@dataclass(frozen=True)
class Lineage:
    """A candidate with all that led to it, and what came of it.

    `ancestors`: the nearest first, up to the seed. `evidence`: the train cases that its proposer was shown.
    `measured`: by part of the split, how many cases have a score, and their weighted mean.
    """

    candidate: Candidate
    ancestors: Sequence[Candidate]
    children: Sequence[int]
    proposals: Sequence[WorkItem]
    evidence: Sequence[TestCase]
    measured: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Point:
    """A candidate by what is weighed: its score, and per dev call its cost (None: unknown) and its tokens sent."""

    ordinal: int
    hash: str
    decision: str
    score: float
    cost_usd: float | None
    prompt_tokens: float
    dominated_by: Sequence[int]


def get_candidate(session: Session, optimization: Optimization, reference: str) -> Candidate:
    """By its ordinal or its hash."""
    is_ordinal = re.fullmatch(r"[0-9]{1,9}", reference) is not None
    match = Candidate.ordinal == int(reference) if is_ordinal else Candidate.hash == reference
    is_hash = re.fullmatch(r"[0-9a-f]{64}", reference) is not None
    query = optimizations.candidates_of(optimization).where(match)
    found = session.scalars(query).one_or_none() if is_ordinal or is_hash else None
    if found is None:
        raise NotFound(f"the optimization has no candidate {reference[:80]}")
    return found


def lineage_of(session: Session, optimization: Optimization, candidate: Candidate) -> Lineage:
    others = {one.hash: one for one in session.scalars(optimizations.candidates_of(optimization))}
    chain: dict[str, Candidate] = {}
    waiting = list(candidate.parents)
    while waiting:
        parent = waiting.pop(0)
        if parent in others and parent not in chain:
            chain[parent] = others[parent]
            waiting += others[parent].parents
    asked = (candidate.lineage.get("asked"), candidate.lineage.get("proposal"))  # at first, and the last repair of it
    keys = [*(key for key in asked if key), *candidate.lineage.get("proposals", [])]
    of_run = sa.select(WorkItem).where(WorkItem.scope_id == optimization.id, WorkItem.work_key.in_(keys))
    shown = set(candidate.lineage.get("evidence", []))
    cases = datasets.rows_of(session, optimization.dataset_id, optimization.dataset_revision)
    return Lineage(
        candidate,
        list(chain.values()),
        sorted(one.ordinal for one in others.values() if candidate.hash in one.parents),
        session.scalars(of_run.order_by(WorkItem.step_no, WorkItem.id)).all(),
        [case for case in cases if case.ordinal in shown],
        _measured(optimization, candidate, cases),
    )


def list_scores(
    session: Session, optimization: Optimization, candidate: Candidate, *, limit: int, cursor: str | None
) -> Page:
    """One row per case and repeat that was asked for, in the order of asking."""
    query = (
        sa.select(
            WorkItem.id.label("id"),
            TestCase.id.label("test_case_id"),
            TestCase.ordinal,
            TestCase.name,
            WorkItem.repeat,
            WorkItem.score,
            WorkItem.passed,
            WorkItem.feedback,
            WorkItem.execution_id,
            Execution.state,
            Execution.error_type,
        )
        .join(TestCase, TestCase.id == WorkItem.test_case_id)
        .join(Execution, Execution.id == WorkItem.execution_id, isouter=True)
        .where(WorkItem.scope_id == optimization.id, WorkItem.candidate == candidate.hash, WorkItem.kind == "evaluate")
    )
    return pages.ascending(session, query, WorkItem.id, limit=limit, cursor=cursor, scalars=False)


def part_of(optimization: Optimization, ordinal: int) -> str:
    """Which part of the split a case is in; with few cases dev is train too."""
    state = optimization.search_state or {}
    return next((part for part in ("holdout", "watch", "dev", "train") if ordinal in state.get(part, [])), "")


def pareto(session: Session, optimization: Optimization) -> tuple[list[Point], int]:
    """The candidates that were tried on the whole dev split, and how many were not, which cannot be weighed.

    One dominates another when it is no worse in score, cost and tokens, and better in one of them. Cost counts
    only where it is known for both.
    """
    state = optimization.search_state
    if state is None:
        return [], 0
    dev = state["dev"][: optimization.spec["evaluation"]["max_cases"]]
    everybody = session.scalars(optimizations.candidates_of(optimization).order_by(Candidate.ordinal)).all()
    usage = _usage(session, optimization, dev)
    measured = [
        one for one in everybody if one.mean is not None and one.hash in usage and _is_complete(state, one, dev)
    ]
    axes = [(float(one.mean or 0.0), *usage[one.hash]) for one in measured]
    points = []
    for one, (score, cost, tokens), better in zip(measured, axes, dominators(axes), strict=True):
        shown = [measured[place].ordinal for place in better]
        points.append(Point(one.ordinal, one.hash, one.decision, score, cost, tokens, shown))
    return points, len(everybody) - len(measured)


def dominators(axes: Sequence[tuple[float, float | None, float]]) -> list[list[int]]:
    """By their places, the first few that dominate each, by (score, USD or None, tokens).

    Each is held against all others: where a cost is not known dominance is not transitive, so no order of the points
    finds it sooner, and who dominates is shown. In numpy 10,000 points take a second.
    """
    scores, costs, tokens = (np.array([one[i] for one in axes], dtype=float) for i in range(3))  # None is NaN
    found = []
    for score, cost, count in zip(scores, costs, tokens, strict=True):
        # What is compared with NaN is neither worse nor better.
        no_worse = (scores >= score) & (tokens <= count) & ~(costs > cost)
        is_better = (scores > score) | (tokens < count) | (costs < cost)
        found.append([int(place) for place in np.flatnonzero(no_worse & is_better)[:SHOWN_DOMINATORS]])
    return found


def _is_complete(state: Mapping[str, Any], candidate: Candidate, dev: Sequence[int]) -> bool:
    """Whether it was tried on all of dev but what it shows as demonstrations: on these no candidate ever is."""
    shown, tried = {demo["case"] for demo in candidate.demos}, state["scores"].get(candidate.hash, {})
    return all(case in shown or str(case) in tried for case in dev)


def _usage(session: Session, optimization: Optimization, dev: Sequence[int]) -> dict[str, tuple[float | None, float]]:
    """By candidate: (USD, prompt tokens) of a call on a dev case, on average; without those that report no usage."""
    rows = session.execute(
        sa.select(
            WorkItem.candidate,
            sa.func.avg(Execution.cost_nano),
            sa.func.avg(Execution.prompt_tokens),
        )
        .join(Execution, Execution.id == WorkItem.execution_id)
        .join(TestCase, TestCase.id == WorkItem.test_case_id)
        .where(
            WorkItem.scope_id == optimization.id,
            WorkItem.kind == "evaluate",
            Execution.state == State.SUCCEEDED,
            Execution.prompt_tokens.is_not(None),
            TestCase.ordinal.in_(dev),
        )
        .group_by(WorkItem.candidate)
    )
    return {
        str(candidate): (None if nano is None else providers.usd(round(nano)), float(tokens))
        for candidate, nano, tokens in rows
    }


def _measured(optimization: Optimization, candidate: Candidate, cases: Sequence[TestCase]) -> dict[str, dict[str, Any]]:
    state = optimization.search_state
    if state is None:
        return {}
    weights = {case.ordinal: case.weight for case in cases}
    known = state["scores"].get(candidate.hash, {})
    found = {}
    for part in (part for part in PARTS if part in state):
        means = {}
        for case in state[part]:
            values = [value for value in known.get(str(case), []) if value is not None]
            if values:
                means[case] = sum(values) / len(values)
        mean = stats.mean(list(means.values()), [weights[case] for case in means]) if means else None
        found[part] = {"cases": len(state[part]), "scored": len(means), "mean": mean}
    return found
