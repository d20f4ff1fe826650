"""Temperatures and acceptance of annealing: the formulas, at their ends and against what they promise."""

import math
from random import Random

import pytest

from shared import knobs
from worker.strategies import schedules


def settings(**given: object) -> dict[str, object]:
    return knobs.resolve_strategy("anneal", given)


@pytest.mark.parametrize(
    ("given", "temperatures"),
    [
        ({"cooling_rate": 0.5}, [0.4, 0.2, 0.1, 0.05, 0.025]),
        ({"cooling_rate": 0.5, "min_temp": 0.06}, [0.4, 0.2, 0.1, 0.06, 0.06]),
        ({"cooling_rate": 1.0}, [0.4] * 5),
        ({"schedule": "linear", "min_temp": 0.0}, [0.4, 0.3, 0.2, 0.1, 0.0]),
        ({"schedule": "linear", "step_size": 0.05}, [0.4, 0.35, 0.3, 0.25, 0.2]),
        (
            {"schedule": "cosine", "min_temp": 0.0},
            [0.4, 0.2 * (1 + math.sqrt(0.5)), 0.2, 0.2 * (1 - math.sqrt(0.5)), 0.0],
        ),
        ({"schedule": "logarithmic"}, [0.4 / math.log(k + math.e) for k in range(5)]),
    ],
)
def test_each_schedule_falls_as_its_formula_says(given: dict[str, object], temperatures: list[float]) -> None:
    known = settings(epochs=5, initial_temp=0.4, **given)

    assert [schedules.temperature(known, 0.4, k) for k in range(5)] == pytest.approx(temperatures)


def test_the_first_temperature_accepts_the_share_of_worsening_moves_that_is_wanted() -> None:
    found = [-0.1, -0.2, 0.3, 0.0, -0.3]

    temp = schedules.initial_temperature(found, 0.4)

    assert math.exp(-0.2 / temp) == pytest.approx(0.4)
    assert schedules.initial_temperature([0.1, 0.0], 0.5) == 0.01
    assert schedules.initial_temperature([-0.9], 0.95) == 1.0
    assert schedules.initial_temperature([-0.001], 0.05) == 0.01


def test_the_adaptive_schedule_warms_what_accepts_too_little_and_cools_what_accepts_too_much() -> None:
    known = settings(schedule="adaptive", target_acceptance=0.5)

    assert schedules.adapted(known, 0.1, [0, 0, 1, 0], 0.0) == pytest.approx(0.12)
    assert schedules.adapted(known, 0.1, [1, 1, 1, 0], 0.0) == pytest.approx(0.08)
    assert schedules.adapted(known, 0.1, [0, 0, 1, 0], 1.0) == pytest.approx(0.08)  # at the end 2 % are wanted
    assert schedules.adapted(known, 0.002, [1], 0.0) == 0.002


def test_a_colder_round_is_scored_on_more_cases() -> None:
    counts = [schedules.cases_for(temp, 0.5, 8, 100) for temp in (1.0, 0.2, 0.15, 0.1, 0.01, 0.0)]

    assert counts == [8, 25, 45, 100, 100, 100]


def accepted_share(rule: str, delta: float, deviation: float = 0.0, **given: object) -> float:
    """Of many decisions about a move that truly gains `delta`, read with noise of this deviation."""
    known, chance = settings(acceptance=rule, **given), Random(5)
    n = 20_000
    accepted = 0
    for _ in range(n):
        accepted += schedules.accepts(
            known,
            delta=chance.gauss(delta, deviation) if deviation else delta,
            variance=deviation**2,
            temp=0.1,
            uniform=chance.random(),
            progress=0.5,
            value=0.5,
            before=0.6,
        )
    return accepted / n


def test_metropolis_accepts_a_loss_with_the_chance_of_boltzmann() -> None:
    assert accepted_share("metropolis", -0.1) == pytest.approx(math.exp(-1), abs=0.01)
    assert accepted_share("metropolis", 0.05) == 1.0


def test_the_penalty_keeps_the_balance_of_moves_there_and_back_under_noise() -> None:
    """Detailed balance: accept(delta) / accept(-delta) = exp(delta / T), which plain Metropolis loses under noise."""
    balance = {}
    for rule in ("metropolis", "noisy_metropolis"):
        there, back = accepted_share(rule, 0.1, deviation=0.1), accepted_share(rule, -0.1, deviation=0.1)
        balance[rule] = there / back

    assert balance["noisy_metropolis"] == pytest.approx(math.e, rel=0.08)
    assert balance["metropolis"] < 2.2


@pytest.mark.parametrize(
    ("rule", "delta", "given", "accepted"),
    [
        ("greedy", 0.001, {}, True),
        ("greedy", 0.0, {}, False),
        ("threshold", -0.04, {"threshold": 0.1}, True),  # half of the way it is 0.05
        ("threshold", -0.05, {"threshold": 0.1}, False),
        ("late_acceptance", 0.0, {}, True),
        ("late_acceptance", -0.01, {}, False),
    ],
)
def test_rules_without_a_temperature_leave_nothing_to_chance(
    rule: str, delta: float, given: dict[str, object], accepted: bool
) -> None:
    assert accepted_share(rule, delta, **given) == float(accepted)


def test_late_acceptance_takes_what_is_no_worse_than_some_moves_ago() -> None:
    known = settings(acceptance="late_acceptance")
    common = {"delta": -0.1, "variance": 0.0, "temp": 0.0, "uniform": 0.5, "progress": 0.5, "value": 0.5}

    assert schedules.accepts(known, before=0.5, **common)  # type: ignore[arg-type]
    assert not schedules.accepts(known, before=0.51, **common)  # type: ignore[arg-type]


def test_of_several_children_the_better_are_drawn_more_often_the_colder_it_is() -> None:
    assert schedules.draw_weights([0.5, 0.6, 0.4], 0.1) == pytest.approx([math.exp(-1), 1.0, math.exp(-2)])
    assert schedules.draw_weights([0.5, 0.6, 0.4], 0.0) == [0.0, 1.0, 0.0]
