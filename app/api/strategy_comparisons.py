"""/v1/optimizations:compare and /v1/optimization-comparisons: strategies against each other at equal budget."""

import dataclasses
import uuid
from collections.abc import Sequence
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay
from app.api import ListQuery, WholeNumber, blueprint, page_of
from app.api.content import Length
from app.api.optimizations import OptimizationIn, request_from
from app.auth import caller
from shared.db import reading, transaction
from shared.domain import evaluations, jobs, providers, strategy_comparisons
from shared.domain.evaluations import Target
from shared.domain.strategy_comparisons import Arm, Outcome, Standing
from shared.models import OptimizationComparison, Role

blp = blueprint("strategy_comparisons", "Strategies against each other: same prompt, split and budget, several seeds.")


class ArmIn(ma.Schema):
    strategy = ma.fields.String(required=True)
    knobs = ma.fields.Dict(keys=ma.fields.String(), load_default=dict)


class ComparisonIn(OptimizationIn):
    class Meta:
        exclude = ("strategy", "knobs", "seed")

    strategies = ma.fields.List(
        ma.fields.Nested(ArmIn),
        required=True,
        validate=Length(2, 12),
        metadata={"description": "The first is what the others are compared with; `random` is an honest choice"},
    )
    seeds = ma.fields.List(
        WholeNumber(validate=ma.validate.Range(0, 2**31 - 1)),
        required=True,
        metadata={"description": "Three or more; each strategy runs with each, on the budget that is given"},
    )


class ComparedRunOut(ma.Schema):
    optimization_id = ma.fields.UUID()
    seed = ma.fields.Integer()
    status = ma.fields.String()
    finish_reason = ma.fields.String(allow_none=True)
    verdict = ma.fields.String(allow_none=True)
    difference = ma.fields.Float(allow_none=True, metadata={"description": "On the holdout; null: not measured yet"})
    task_calls = ma.fields.Integer()
    proposer_calls = ma.fields.Integer()
    tokens = ma.fields.Integer()
    cost_usd = ma.fields.Float()


class ArmOut(ma.Schema):
    strategy = ma.fields.String()
    knobs = ma.fields.Raw()
    measured = ma.fields.Integer(metadata={"description": "Runs whose holdout was measured; the means are of these"})
    difference = ma.fields.Float(allow_none=True, metadata={"description": "Mean over seeds, on the holdout"})
    ci_low = ma.fields.Float(allow_none=True, metadata={"description": "95 % bootstrap interval over seeds"})
    ci_high = ma.fields.Float(allow_none=True)
    against_first = ma.fields.Raw(
        allow_none=True,
        metadata={"description": "Paired by seed: n, difference, ci_low, ci_high, p_value; p_adjusted by `correction`"},
    )
    task_calls = ma.fields.Float(metadata={"description": "Of a run, on average; so are the next two"})
    tokens = ma.fields.Float()
    cost_usd = ma.fields.Float()
    runs = ma.fields.List(ma.fields.Nested(ComparedRunOut))


class StrategyComparisonOut(ma.Schema):
    comparison_id = ma.fields.UUID()
    name = ma.fields.String()
    status = ma.fields.String(metadata={"description": "running, succeeded, canceled"})
    correction = ma.fields.String(metadata={"description": "Of p_adjusted, for as many comparisons: holm"})
    strategies = ma.fields.List(ma.fields.Nested(ArmOut))
    created_by = ma.fields.String()
    created_at = ma.fields.DateTime()


@blp.post("/optimizations:compare")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(ComparisonIn)
@blp.response(202, StrategyComparisonOut)
def compare_strategies(body: dict[str, Any]) -> flask.Response:
    """Run several strategies with several seeds on the same split and budget; poll the Location"""
    author = caller(Role.EDITOR)
    fields = dict(body)
    arms, seeds = [Arm(**arm) for arm in fields.pop("strategies")], fields.pop("seeds")
    request = request_from({**fields, "strategy": ""})
    planned = strategy_comparisons.check_requests(request, arms, seeds)

    def plan() -> Target:
        with reading() as session:
            return evaluations.plan_target(session, author, request, planned[0][1]["scorers"])

    def make(session: Session, target: Target) -> Any:
        made = strategy_comparisons.create_comparison(session, author, request.name, planned, seeds, target)
        return _rendered(session, made)

    answer = replay.create(author, body, 202, make, plan=plan)
    answer.headers["Location"] = f"/v1/optimization-comparisons/{answer.get_json()['comparison_id']}"
    return answer


@blp.get("/optimization-comparisons")
@blp.arguments(ListQuery, location="query")
@blp.response(200, page_of(StrategyComparisonOut))
def list_comparisons(query: dict[str, Any]) -> flask.Response:
    """List comparisons of strategies, newest first"""
    with reading() as session:
        page = strategy_comparisons.list_comparisons(session, caller(), **query)
        return flask.jsonify({"data": _all_rendered(session, page.data), "next_cursor": page.next_cursor})


@blp.get("/optimization-comparisons/<uuid:comparison_id>")
@blp.response(200, StrategyComparisonOut)
def get_comparison(comparison_id: uuid.UUID) -> flask.Response:
    """Read a comparison: per strategy the mean holdout difference with its interval, calls and cost"""
    with reading() as session:
        found = strategy_comparisons.get_comparison(session, caller(), comparison_id)
        return flask.jsonify(_rendered(session, found))


@blp.post("/optimization-comparisons/<uuid:comparison_id>/cancel")
@blp.response(200, StrategyComparisonOut)
def cancel_comparison(comparison_id: uuid.UUID) -> flask.Response:
    """Cancel the runs of a comparison that have not ended; what was paid for is kept"""
    author = caller(Role.EDITOR)
    with transaction() as session:
        found = strategy_comparisons.get_comparison(session, author, comparison_id)
        ended = strategy_comparisons.cancel_comparison(session, author, found)
    for run_id in ended:
        left = True
        while left:
            with transaction() as session:
                left = jobs.cancel_scope(session, run_id) > 0
    with reading() as session:
        found = strategy_comparisons.get_comparison(session, author, comparison_id)
        return flask.jsonify(_rendered(session, found))


def _rendered(session: Session, comparison: OptimizationComparison) -> Any:
    return _all_rendered(session, [comparison])[0]


def _all_rendered(session: Session, found: Sequence[OptimizationComparison]) -> list[Any]:
    return list(map(_comparison, found, strategy_comparisons.standings_of(session, found)))


def _comparison(comparison: OptimizationComparison, standings: Sequence[Standing]) -> Any:
    told = {name: getattr(comparison, name) for name in ("name", "created_by", "created_at")}
    return StrategyComparisonOut().dump(
        {
            **told,
            "comparison_id": comparison.id,
            "status": strategy_comparisons.status_of(standings),
            "correction": "holm",
            "strategies": [_arm(standing) for standing in standings],
        }
    )


def _arm(standing: Standing) -> dict[str, Any]:
    low, high = standing.interval or (None, None)
    runs = [_run(outcome) for outcome in standing.outcomes]
    against = standing.against_first
    return {
        "strategy": standing.arm["strategy"],
        "knobs": standing.arm["knobs"],
        "measured": standing.measured,
        "difference": standing.mean,
        "ci_low": low,
        "ci_high": high,
        "against_first": against and {**dataclasses.asdict(against), "p_adjusted": standing.p_adjusted},
        **{name: sum(run[name] for run in runs) / len(runs) for name in ("task_calls", "tokens", "cost_usd")},
        "runs": runs,
    }


def _run(outcome: Outcome) -> dict[str, Any]:
    run, spend = outcome.optimization, outcome.spend
    return {
        "optimization_id": run.id,
        "seed": outcome.seed,
        "status": run.state,
        "finish_reason": run.finish_reason,
        "verdict": (run.result or {}).get("verdict"),
        "difference": outcome.difference,
        "task_calls": spend.task_calls,
        "proposer_calls": spend.proposer_calls,
        "tokens": spend.tokens,
        "cost_usd": providers.usd(spend.nano),
    }
