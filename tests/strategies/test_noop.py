"""noop, the A/A test: what it measures is noise, and it measures it rightly."""

import pytest

from tests.strategies.effects import Effect
from tests.strategies.world import SEED_TEXT, World, make_cases, run_search

KNOBS = {"twins": Effect(see=lambda run: len(run.state["candidates"]) - 1, values=(1, 3), seen=(1, 3))}


def test_a_twin_is_the_seed_with_calls_of_its_own() -> None:
    run = run_search("noop", knobs_={"twins": 2}, evaluation={"repeats": 2})
    seed, *twins = run.state["candidates"]
    repeats = {one["hash"]: {work.repeat for work in run.evaluations if work.candidate == one["hash"]} for one in twins}

    assert [one["components"] for one in twins] == [seed["components"]] * 2
    assert list(repeats.values()) == [{2, 3}, {4, 5}]
    assert set(run.texts.values()) == {SEED_TEXT}


def test_its_noise_is_that_of_the_scores() -> None:
    """Of two coins of chance p the difference has the variance 2 p (1 - p)."""
    run = run_search("noop", World(cases=make_cases(1000), base=0.3), budget={"max_task_calls": 10_000})
    noise = run.result["noise"]

    assert noise["n"] == len(run.state["dev"]) == 400
    assert noise["mean"] == pytest.approx(0, abs=0.1)
    assert noise["standard_deviation"] == pytest.approx((2 * 0.3 * 0.7) ** 0.5, abs=0.05)
    assert run_search("noop", World(flat=0.5)).result["noise"]["standard_deviation"] == 0


def test_the_seed_against_itself_is_rarely_called_better_or_worse() -> None:
    verdicts = [run_search("noop", World(cases=make_cases(60), salt=salt)).result["verdict"] for salt in range(30)]

    assert sum(verdict != "not_significant" for verdict in verdicts) <= 4
