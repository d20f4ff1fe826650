"""The seed of a run enters its calls: another seed is another draw, and the same seed the same one."""

import uuid
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.knobs import STRATEGIES
from shared.models import Call, Execution, Optimization
from tests.strategies.world import SMALL
from tests.support import Api, Drain, make_triage, optimization_body

WITHOUT_PROPOSALS = {"noop", "bootstrap", "hyperparameter"}


def optimize(api: Api, drain: Drain, *, seeds: Sequence[int], **fields: Any) -> list[str]:
    """Runs that differ in nothing but their seeds; their ids."""
    found = []
    for seed in seeds:
        body = optimization_body(seed=seed, budget={"max_task_calls": 250}, **fields)
        found.append(str(api.expect(202, "POST", "/v1/optimizations", body)["optimization_id"]))
        drain()
    return found


def calls(run_id: str, purpose: str) -> dict[str, str]:
    """By call key, the answers that a run had."""
    query = (
        sa.select(Call.call_key, Execution.response_text)
        .join(Execution, Execution.id == Call.execution_id)
        .where(Call.scope_id == uuid.UUID(run_id), Execution.purpose == purpose)
    )
    with db.reading() as session:
        return {key: text or "" for key, text in session.execute(query)}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_another_seed_is_proposed_other_texts_and_the_same_seed_the_same(api: Api, drain: Drain, strategy: str) -> None:
    make_triage(api, cases=40)
    fields = {"strategy": strategy, "knobs": SMALL.get(strategy, {})}

    one, other, same = (calls(run, "proposal") for run in optimize(api, drain, seeds=(1, 2, 1), **fields))

    assert bool(one) == (strategy not in WITHOUT_PROPOSALS)
    assert one == same
    assert not one.keys() & other.keys()
    assert not one or set(one.values()) != set(other.values())


def test_a_twin_is_measured_with_other_samples_in_each_run_and_the_seed_with_the_same(api: Api, drain: Drain) -> None:
    """Else the noise that an A/A test finds were the same in any number of runs."""
    make_triage(api, cases=40)

    runs = optimize(api, drain, seeds=(1, 2, 1), strategy="noop", knobs={}, params={"temperature": 1.0})

    one, other, same = (calls(run, "evaluation") for run in runs)
    dev, holdout = 16, 12
    assert one == same
    assert len(one.keys() & other.keys()) in (dev, dev + holdout)
    noise = [api.expect(200, "GET", f"/v1/optimizations/{run}")["result"]["noise"] for run in runs]
    assert noise[0] == noise[2] != noise[1]


def begun_before(run_id: str, *absent: str) -> None:
    """Let a run be one of a release that did not write these into its spec yet."""
    with db.transaction() as session:
        run = session.get_one(Optimization, uuid.UUID(run_id))
        run.spec = {name: value for name, value in run.spec.items() if name not in absent}


def test_a_run_of_an_older_release_goes_on_with_the_calls_that_it_began_with(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    body = optimization_body(seed=7, budget={"max_task_calls": 80})
    first = str(api.expect(202, "POST", "/v1/optimizations", body)["optimization_id"])
    begun_before(first, "seeded_samples")
    drain()

    more = {"budget": {"max_task_calls": 110}}
    second = str(api.expect(202, "POST", f"/v1/optimizations/{first}/continue", more)["optimization_id"])
    begun_before(second, "carried")
    drain()

    numbers = sa.select(Execution.sample).where(Execution.purpose == "proposal")
    with db.reading() as session:
        assert max(session.scalars(numbers)) < 100
    assert not calls(first, "proposal").keys() & calls(second, "proposal").keys()
    for run in (first, second):
        api.expect(202, "POST", f"/v1/optimizations/{run}/replay")
        drain()
        assert api.expect(200, "GET", f"/v1/optimizations/{run}/replay")["identical"]
