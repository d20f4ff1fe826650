"""Strategies against each other: the same prompt, cases, split and budget, and several seeds of each."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared import stats
from shared.domain import evaluations, events, openings, optimizations, pages, projects, runs
from shared.domain.evaluations import Target
from shared.domain.events import Change
from shared.domain.optimizations import OptimizationRequest
from shared.domain.pages import Page
from shared.domain.runs import Spend
from shared.domain.tenants import Caller, get_visible
from shared.errors import FieldError, Unprocessable, field_error
from shared.models import LIVE_STATES, JobKind, Optimization, OptimizationComparison, State, new_id

MIN_SEEDS = 3  # with fewer, luck and skill look the same
MAX_RUNS = 60
COMPARISON = "comparison"  # the relation of its runs to it


@dataclass(frozen=True)
class Arm:
    strategy: str
    knobs: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What one run came to. `difference` is None while it runs, and when its holdout was not measured."""

    optimization: Optimization
    seed: int
    difference: float | None
    spend: Spend


@dataclass(frozen=True)
class Standing:
    """An arm by its runs: means over seeds with 95 % bootstrap intervals over them; None until there is one.

    `against_first` is the difference to the first arm, paired by seed.
    """

    arm: Mapping[str, Any]
    outcomes: Sequence[Outcome]
    measured: int
    mean: float | None
    interval: tuple[float, float] | None
    against_first: stats.Difference | None
    p_adjusted: float | None = None  # of `against_first`, as one of the questions that are asked at once


def check_requests(request: OptimizationRequest, arms: Sequence[Arm], seeds: Sequence[int]) -> list[Any]:
    """[(request, spec)] of every run, arm by arm; `Unprocessable` names the arm. Pure."""
    if len(set(seeds)) < MIN_SEEDS or len(set(seeds)) != len(seeds):
        raise field_error("/seeds", f"at least {MIN_SEEDS} seeds, each another")
    if len(arms) * len(seeds) > MAX_RUNS:
        raise field_error("/seeds", f"{len(arms)} strategies x {len(seeds)} seeds are more than {MAX_RUNS} runs")
    made = []
    for i, arm in enumerate(arms):
        for seed in seeds:
            one = replace(request, strategy=arm.strategy, knobs=arm.knobs, seed=seed)
            with _of_arm(i):
                made.append((one, optimizations.check_request(one)))
    return made


def create_comparison(
    session: Session,
    caller: Caller,
    name: str,
    planned: Sequence[tuple[OptimizationRequest, Mapping[str, Any]]],
    seeds: Sequence[int],
    target: Target,
) -> OptimizationComparison:
    """Start all runs, or none."""
    comparison = OptimizationComparison(
        id=new_id(),
        workspace_id=caller.workspace_id,
        project_id=target.prompt.project_id,
        name=name,
        arms=[],
        created_by=caller.user_name,
    )
    made_from = {"source_id": comparison.id, "relation": COMPARISON}
    arms: list[dict[str, Any]] = []
    request, spec = planned[0]
    with _of_arm(0):
        optimizations.check_target(request, spec, target)
    # Every case is rendered for it, and all runs have the same: once for all of them.
    opening = openings.opening_of(session, spec, target, evaluations.capped(target.model, request.budget))
    for i, (request, spec) in enumerate(planned):
        arm, turn = divmod(i, len(seeds))
        with _of_arm(arm):
            run = optimizations.create_optimization(
                session, caller, request, spec, target, made_from=made_from, opening=opening
            )
        if turn == 0:
            arms.append({"strategy": run.strategy, "knobs": run.spec["knobs"], "runs": []})
        arms[-1]["runs"].append(str(run.id))
    comparison.arms = arms
    session.add(comparison)
    session.flush()
    data = {"strategies": [arm["strategy"] for arm in arms], "seeds": list(seeds)}
    change = Change(caller.workspace_id, "optimization_comparison.created", comparison.id, data, caller.user_name)
    events.record(session, [change])
    return comparison


def get_comparison(session: Session, caller: Caller, comparison_id: uuid.UUID) -> OptimizationComparison:
    found: OptimizationComparison = get_visible(session, caller, OptimizationComparison, comparison_id)
    return found


def list_comparisons(
    session: Session, caller: Caller, *, project: str | None = None, limit: int, cursor: str | None
) -> Page:
    query = projects.visible_in(session, caller, OptimizationComparison, project)
    return pages.newest_first(session, query, OptimizationComparison, limit=limit, cursor=cursor)


def standings_of(session: Session, comparisons: Sequence[OptimizationComparison]) -> list[list[Standing]]:
    """Of each comparison one for each arm, in the order given; in two statements."""
    rows = {run.id: run for run in session.scalars(_runs_of(*comparisons))}
    spends = runs.spends_of(session, list(rows))
    outcomes = {str(run.id): Outcome(run, run.spec["seed"], _difference(run), spends[run.id]) for run in rows.values()}
    return [_standings(comparison, outcomes) for comparison in comparisons]


def _adjusted(standings: Sequence[Standing]) -> list[Standing]:
    """With the p-values as they are when all these strategies are held against the first at once."""
    asked = [one.against_first.p_value for one in standings if one.against_first is not None]
    adjusted = iter(stats.holm(asked))
    return [one if one.against_first is None else replace(one, p_adjusted=next(adjusted)) for one in standings]


def status_of(standings: Sequence[Standing]) -> str:
    """`running` until every run has ended; `canceled` when one was canceled, `failed` when all failed."""
    states = {outcome.optimization.state for standing in standings for outcome in standing.outcomes}
    if states & {*LIVE_STATES}:
        return State.RUNNING
    if State.CANCELED in states:
        return State.CANCELED
    return State.FAILED if states == {State.FAILED} else State.SUCCEEDED


def cancel_comparison(session: Session, caller: Caller, comparison: OptimizationComparison) -> list[uuid.UUID]:
    """End its runs that have not ended. Follow it with `jobs.cancel_scope` for each of these."""
    live = session.scalars(_runs_of(comparison).where(Optimization.state.in_(LIVE_STATES)).with_for_update()).all()
    for run in live:
        runs.cancel_run(session, caller, run, kind=JobKind.OPTIMIZATION, reason=f"comparison {comparison.id}")
    return [run.id for run in live]


def _runs_of(*comparisons: OptimizationComparison) -> sa.Select[Optimization]:
    ids = [uuid.UUID(one) for comparison in comparisons for arm in comparison.arms for one in arm["runs"]]
    query = sa.select(Optimization).where(Optimization.id.in_(ids)).order_by(Optimization.id)
    return query.options(optimizations.WITHOUT_STATE)


def _standings(comparison: OptimizationComparison, outcomes: Mapping[str, Outcome]) -> list[Standing]:
    by_arm = [[outcomes[one] for one in arm["runs"]] for arm in comparison.arms]
    standings = [
        _standing(arm, found, by_arm[0] if i else None)
        for i, (arm, found) in enumerate(zip(comparison.arms, by_arm, strict=True))
    ]
    return _adjusted(standings)


def _difference(run: Optimization) -> float | None:
    if run.state != State.SUCCEEDED or run.result["verdict"] == "not_measured":
        return None
    if run.best_version_id == run.version_id:
        return 0.0  # the same prompt, measured or not
    return float(run.result["holdout"]["difference"])


def _standing(arm: Mapping[str, Any], outcomes: Sequence[Outcome], first: Sequence[Outcome] | None) -> Standing:
    values = [outcome.difference for outcome in outcomes if outcome.difference is not None]
    enough = len(values) >= MIN_SEEDS
    pairs = [
        (a.difference, b.difference)
        for a, b in zip(first or (), outcomes, strict=False)
        if a.difference is not None and b.difference is not None
    ]
    against = None
    if len(pairs) >= MIN_SEEDS:
        against = stats.compare_paired([a for a, _ in pairs], [b for _, b in pairs], seed=0)
    return Standing(
        arm,
        outcomes,
        len(values),
        stats.mean(values) if values else None,
        stats.mean_interval(values, seed=0) if enough else None,
        against,
    )


@contextmanager
def _of_arm(arm: int) -> Iterator[None]:
    """Errors of knobs and of the strategy are named by the arm that has them."""
    try:
        yield
    except Unprocessable as error:
        moved = [
            FieldError(f"/strategies/{arm}{one.pointer}", one.detail)
            if one.pointer.startswith(("/knobs", "/strategy"))
            else one
            for one in error.errors
        ]
        raise type(error)("; ".join(map(str, moved)), errors=moved) from error
