"""Going on from a run, again and again: what the search believes it has left is what its ledger has left."""

import uuid
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.knobs import STRATEGIES
from shared.models import Budget, Execution, State
from tests.strategies.world import SMALL
from tests.support import Api, Drain, make_triage, optimization_body

# So few that the search of each strategy stops in the middle of something.
CALLS = {"noop": 60, "anneal": 115, "genetic": 105, "gepa": 95}
KNOBS = {**SMALL, "noop": {"twins": 5}}


def start(api: Api, drain: Drain, calls: int, **fields: Any) -> Any:
    budget = {"max_task_calls": calls, "max_cost_usd": 1.0}
    body = optimization_body(**{"budget": budget, "seed": 7, **fields})
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


@pytest.mark.parametrize("before", [5, 40, 70, 80])
def test_a_run_canceled_near_the_end_of_its_budget_comes_to_what_it_would_have_come_to(
    api: Api, drain: Drain, before: int
) -> None:
    make_triage(api, cases=40)
    body = optimization_body(budget={"max_task_calls": 80}, seed=7)
    path = f"/v1/optimizations/{api.expect(202, 'POST', '/v1/optimizations', body)['optimization_id']}"
    drain(most=before)
    api.expect(200, "POST", f"{path}/cancel")

    done = finished(api, drain, api.expect(202, "POST", f"{path}/continue", {}))

    whole = finished(api, drain, api.expect(202, "POST", "/v1/optimizations", body))
    assert (done["finish_reason"], done["result"]) == (whole["finish_reason"], whole["result"])
    assert (done["progress"]["curve"], refused()) == (whole["progress"]["curve"], 0)


def test_calls_that_had_failed_are_made_again_only_where_the_holdout_is_paid_for_besides(
    api: Api, drain: Drain
) -> None:
    """With less it ends there; with more it goes on, and no call is refused in either case."""
    make_triage(api, cases=40)
    run = start(api, drain, 80)
    fail_an_answer(run)
    assert run["finish_reason"] == "budget_task_calls"

    for calls in (1, 40):
        run = go_on(api, drain, run, max_task_calls=calls_of(run) + calls)

        assert (run["status"], run["finish_reason"], refused()) == ("succeeded", "budget_task_calls", 0)
        assert ledger_of(run).spent_task_calls <= calls_of(run)
        assert replayed(api, drain, run)["identical"]
    assert run["result"]["holdout"]["n"] == run["result"]["cases"]["holdout"]


def test_a_run_whose_holdout_was_refused_can_be_continued(api: Api, drain: Drain) -> None:
    """Calls that a worker lost are paid from the same budget, and may leave too little for the holdout."""
    make_triage(api, cases=40)
    body = optimization_body(budget={"max_task_calls": 80}, seed=7)
    path = f"/v1/optimizations/{api.expect(202, 'POST', '/v1/optimizations', body)['optimization_id']}"
    drain(most=5)
    with db.transaction() as session:  # as if so many had been lost
        session.execute(sa.update(Budget).values(spent_task_calls=Budget.spent_task_calls + 20))
    for _ in range(30):  # each refused claim ends a drain
        drain()
    run = api.expect(200, "GET", path)
    assert (run["status"], run["finish_reason"], run["result"]["verdict"]) == (
        "succeeded",
        "scoring_failed",
        "not_measured",
    )

    more = go_on(api, drain, run, max_task_calls=140)

    assert more["status"] == "succeeded"
    assert more["result"]["holdout"]["n"] == more["result"]["cases"]["holdout"]


def fail_an_answer(run: Any) -> None:
    """Let a call of the search have failed, as the ledger and the rows would show it."""
    of_run = sa.select(Execution.id).where(
        Execution.scope_id == uuid.UUID(run["optimization_id"]), Execution.purpose == "evaluation"
    )
    with db.transaction() as session:
        failed = session.get_one(Execution, session.scalars(of_run.order_by(Execution.id).offset(30).limit(1)).one())
        failed.state, failed.error_type, failed.response_text = State.FAILED, "provider_error", None
