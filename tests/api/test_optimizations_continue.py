"""Going on from a run, again and again: what the search believes it has left is what its ledger has left."""

from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.knobs import STRATEGIES
from shared.models import Budget, Execution
from tests.strategies.world import SMALL
from tests.support import Api, Drain, make_triage, optimization_body

# So few that the search of each strategy stops in the middle of something.
CALLS = {"noop": 60, "anneal": 115, "genetic": 105, "gepa": 95}
KNOBS = {**SMALL, "noop": {"twins": 5}}


def start(api: Api, drain: Drain, calls: int, **fields: Any) -> Any:
    body = optimization_body(budget={"max_task_calls": calls, "max_cost_usd": 1.0}, seed=7, **fields)
    return finished(api, drain, api.expect(202, "POST", "/v1/optimizations", body))


def go_on(api: Api, drain: Drain, run: Any, **ceilings: Any) -> Any:
    path = f"/v1/optimizations/{run['optimization_id']}/continue"
    return finished(api, drain, api.expect(202, "POST", path, {"budget": ceilings}))


def finished(api: Api, drain: Drain, started: Any) -> Any:
    drain()
    return api.expect(200, "GET", f"/v1/optimizations/{started['optimization_id']}")


def replayed(api: Api, drain: Drain, run: Any) -> Any:
    path = f"/v1/optimizations/{run['optimization_id']}/replay"
    api.expect(202, "POST", path)
    drain()
    return api.expect(200, "GET", path)


def refused() -> int:
    """How many calls the ledger did not let begin, although a search had asked for them."""
    query = sa.select(sa.func.count()).where(Execution.error_type == "budget_exceeded")
    with db.reading() as session:
        return session.scalars(query).one()


def ledger_of(run: Any) -> Budget:
    with db.reading() as session:
        return session.scalars(sa.select(Budget).where(Budget.limit_task_calls == calls_of(run))).one()


def calls_of(run: Any) -> int:
    return int(run["spec"]["budget"]["max_task_calls"])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("more", [(1, 2, 40), (13, 14, 15)])
def test_every_continuation_pays_for_its_holdout_and_can_be_continued(
    api: Api, drain: Drain, strategy: str, more: tuple[int, ...]
) -> None:
    make_triage(api, cases=40)
    run = start(api, drain, CALLS.get(strategy, 75), strategy=strategy, knobs=KNOBS.get(strategy, {}))
    assert run["finish_reason"] == "budget_task_calls"
    reached = run["result"]["best_dev"]

    for calls in more:
        run = go_on(api, drain, run, max_task_calls=calls_of(run) + calls)

        assert (run["status"], refused()) == ("succeeded", 0)
        assert ledger_of(run).spent_task_calls <= calls_of(run)
        assert run["result"]["holdout"]["n"] == run["result"]["cases"]["holdout"]
        assert run["result"]["best_dev"] >= reached
        assert replayed(api, drain, run)["identical"]
        reached = run["result"]["best_dev"]
        if run["finish_reason"] != "budget_task_calls":
            break  # it has found all that it looks for
