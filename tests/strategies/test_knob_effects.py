"""No setting is decoration: each changes what a search asks for or what it finds. A new one must show what it does."""

import importlib
import uuid
from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db, knobs
from shared.models import Execution
from tests.strategies import effects
from tests.strategies.effects import Effect
from tests.strategies.world import World, run_search
from tests.support import Api, Drain, make_triage, optimization_body
from worker.strategies.contract import Propose

# A setting of the proposer's calls and not of the search: its test is at the end of this file.
OF_THE_CALLS = {"proposer_temperature"}
# Whether a search begins at all; its tests are in tests/api/test_optimizations_split.py.
OF_THE_START = {"allow_tiny"}
BLOCKS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Effect]]] = {
    "evaluation": (knobs.EVALUATION, effects.EVALUATION),
    "split": (knobs.SPLIT, effects.SPLIT),
    "early_stopping": (knobs.EARLY_STOPPING, effects.EARLY_STOPPING),
}


def effects_of(strategy: str) -> dict[str, Effect]:
    return {**effects.COMMON, **importlib.import_module(f"tests.strategies.test_{strategy}").KNOBS}


@pytest.mark.parametrize(
    ("strategy", "knob"),
    [(strategy, knob) for strategy, known in knobs.STRATEGIES.items() for knob in known if knob not in OF_THE_CALLS],
)
def test_every_knob_of_a_strategy_changes_what_it_does(strategy: str, knob: str) -> None:
    known = effects_of(strategy)

    assert knob in known, f"show what {knob} does in KNOBS of tests/strategies/test_{strategy}.py"
    effect = known[knob]
    assert effect.observed(strategy, "knobs_", knob) == effect.seen
    assert effect.seen[0] != effect.seen[1]


@pytest.mark.parametrize(
    ("block", "knob"),
    [(block, knob) for block, (known, _) in BLOCKS.items() for knob in known if knob not in OF_THE_START],
)
def test_every_shared_setting_changes_what_a_search_does(block: str, knob: str) -> None:
    shown = BLOCKS[block][1]

    assert knob in shown, f"show what {knob} of {block} does in tests/strategies/effects.py"
    effect = shown[knob]
    assert effect.observed("beam_search", block, knob) == effect.seen
    assert effect.seen[0] != effect.seen[1]


def test_shuffled_per_round_gives_each_round_another_order_and_stratified_does_not() -> None:
    def orders(case_order: str) -> list[list[int]]:
        """The cases of the newest child in the first rung of each round."""
        settings = {"knobs_": {"repair_attempts": 0}, "evaluation": {"case_order": case_order}}
        run = run_search("beam_search", World(flat=0.5), **settings)
        after = [i + 1 for i, step in enumerate(run.steps) if any(isinstance(work, Propose) for work in step.work)]
        return [list(run.cases_of(i).values())[-1] for i in after]

    shuffled, stratified = orders("shuffled_per_round"), orders("stratified")

    assert len(shuffled) == len(stratified) == 3
    assert len(set(map(tuple, shuffled))) == 3
    assert len(set(map(tuple, stratified))) == 1


def test_what_a_split_is_stratified_by_orders_the_cases_of_a_rung_too() -> None:
    def odd(split: dict[str, Any]) -> set[int]:
        """Of the cases that children are scored on first, how many are odd."""
        world, evaluation = World(cases=effects.CUSTOMERS), {"min_cases": 6}
        runs = [run_search("beam_search", world, evaluation=evaluation, split=split, seed=seed) for seed in range(4)]
        return {sum(case % 2 for case in cases) for run in runs for cases in effects.first_rung(run).values()}

    assert odd({"stratify_by": "inputs.parity"}) == {3}
    assert odd({}) != {3}


def test_any_gain_counts_when_min_delta_is_zero_and_none_does_not() -> None:
    stopping = {"min_delta": 0.0, "patience": 1}

    flat = run_search("beam_search", World(flat=0.5), early_stopping=stopping)
    rising = run_search("beam_search", effects.RISING, early_stopping=stopping)

    assert flat.state["finish_reason"] == "converged"
    assert rising.state["finish_reason"] == "max_rounds"


def test_the_proposer_is_called_at_the_temperature_of_the_knob(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)

    for temperature in (0.25, 1.5):
        body = optimization_body(strategy="random", knobs={"proposals": 2, "proposer_temperature": temperature})
        started = api.expect(202, "POST", "/v1/optimizations", body)
        drain()
        with db.reading() as session:
            params = session.scalars(
                sa.select(Execution.params)
                .where(Execution.purpose == "proposal")
                .where(Execution.scope_id == uuid.UUID(started["optimization_id"]))
            ).all()

        assert len(params) == 2
        assert {item["temperature"] for item in params} == {temperature}
