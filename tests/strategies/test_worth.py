"""What sentences are worth, told from the scores of prompts that hold some of them."""

import math
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest

from worker.strategies import worth

TRUTH = np.array([0.15, 0.1, -0.1, 0.0, 0.12, -0.15])
HARD = [0.25, -0.25, 0.1, -0.1, 0.0, 0.0]  # by case
FREE: dict[str, Any] = {"lengths": np.ones(6), "longest": 6.0}


def prompts(count: int = 150) -> worth.Array:
    chance = Random(3)
    return np.array([[float(chance.random() < 0.5) for _ in TRUTH] for _ in range(count)])


def regression(
    rows: worth.Array, value: Callable[[worth.Array], float], *, cases: int = 6, noise: float = 0.1
) -> worth.Regression:
    chance = Random(5)
    scores = [
        {case: value(row) + HARD[case % 6] + chance.gauss(0, noise) for case in chance.sample(range(6), cases)}
        for row in rows
    ]
    none = np.zeros(rows.shape[1])
    return worth.Regression(rows, scores, middle=none, expected=none, added=none + 1)


def test_the_mean_finds_what_each_sentence_is_worth() -> None:
    found = regression(prompts(), lambda row: 0.4 + row @ TRUTH).mean

    assert np.abs(found.alone - TRUTH).max() < 0.05
    assert found.of(np.array([1.0, 1, 0, 0, 1, 0])) == pytest.approx(0.77, abs=0.06)


def test_cases_of_which_some_are_hard_do_not_mislead_where_each_prompt_had_others() -> None:
    found = regression(prompts(250), lambda row: 0.4 + row @ TRUTH, cases=3).mean

    assert np.abs(found.alone - TRUTH).max() < 0.06


def test_two_that_harm_together_are_told_from_two_that_harm() -> None:
    found = regression(prompts(200), lambda row: 0.4 + 0.1 * row[0] + 0.1 * row[1] - 0.4 * row[0] * row[1]).mean

    assert found.together[0, 1] == found.together.min() < -0.1
    assert np.abs(found.together).sum() - 2 * abs(found.together[0, 1]) < 0.5  # of the other 28
    assert found.of(np.eye(6)[0] + np.eye(6)[1]) < min(found.of(np.eye(6)[0]), found.of(np.eye(6)[1]))


def test_draws_lie_about_the_mean_and_closer_the_more_is_known() -> None:
    def spread(count: int) -> float:
        known = regression(prompts(count), lambda row: 0.4 + row @ TRUTH)
        drawn = np.array([known.draw(Random(seed)).alone for seed in range(200)])
        assert np.abs(drawn.mean(axis=0) - known.mean.alone).max() < 4 * drawn.std(axis=0).max() / math.sqrt(200)
        return float(drawn.std(axis=0).mean())

    assert spread(100) < 0.7 * spread(8)


def test_before_any_difference_was_seen_what_is_expected_decides() -> None:
    expected = np.array([0.05, -0.05])
    known = worth.Regression(
        np.zeros((1, 2)), [{1: 0.5, 2: 0.0}], middle=np.zeros(2), expected=expected, added=np.ones(2)
    )

    assert known.mean.alone == pytest.approx(expected)
    assert known.mean.of(np.zeros(2)) == pytest.approx(0.25)


def test_scores_that_are_all_alike_leave_nothing_to_tell() -> None:
    known = worth.Regression(
        prompts(9), [{1: 1.0, 2: 1.0}] * 9, middle=np.zeros(6), expected=np.zeros(6), added=np.ones(6)
    )

    assert np.abs(known.mean.alone).max() < 1e-9
    assert known.values == pytest.approx(np.ones(9))


def total(alone: list[float], together: dict[tuple[int, int], float] | None = None) -> worth.Worth:
    count = len(alone)
    pairs = np.zeros((count, count))
    for (one, other), value in (together or {}).items():
        pairs[one, other] = pairs[other, one] = value
    return worth.Worth(0.0, np.array(alone), pairs, np.zeros(count))


def test_uphill_takes_what_helps_and_leaves_what_harms() -> None:
    found = total([0.2, -0.1, 0.1, 0, 0.05, -0.3]).best_near(np.array([0.0, 1, 0, 0, 0, 1]), changes=6, **FREE)

    assert found.tolist() == [1, 0, 1, 0, 1, 0]


def test_uphill_goes_so_far_and_no_further() -> None:
    found = total([0.2, 0.1, 0.3, 0, 0.05, 0]).best_near(np.zeros(6), changes=2, **FREE)

    assert found.tolist() == [1, 0, 1, 0, 0, 0]


def test_uphill_finds_two_of_which_each_alone_harms() -> None:
    deceptive = total([-0.1, -0.1, 0, 0, 0, 0], {(0, 1): 0.5})

    assert deceptive.best_near(np.zeros(6), changes=2, **FREE).tolist() == [1, 1, 0, 0, 0, 0]
    assert deceptive.best_near(np.zeros(6), changes=1, **FREE).tolist() == [0] * 6


def test_a_text_that_is_full_may_exchange_a_sentence_for_a_better_one() -> None:
    found = total([0.1, 0.2, 0, 0, 0, 0]).best_near(
        np.array([1.0, 0, 0, 0, 0, 0]), changes=6, lengths=np.ones(6), longest=1.0
    )

    assert found.tolist() == [0, 1, 0, 0, 0, 0]


def test_what_a_sentence_costs_is_taken_away() -> None:
    found = total([0.1, 0.2, 0, 0, 0, 0]).less(np.full(6, 0.15)).best_near(np.zeros(6), changes=6, **FREE)

    assert found.tolist() == [0, 1, 0, 0, 0, 0]


def test_between_the_mean_and_a_draw_lies_what_is_half_as_far() -> None:
    one, other = total([0.1, 0.2, 0, 0, 0, 0]), total([0.3, 0, 0, 0, 0, 0], {(0, 1): 0.4})
    both = np.array([1.0, 1, 0, 0, 0, 0])

    assert one.toward(other, 0).of(both) == pytest.approx(one.of(both))
    assert one.toward(other, 0.5).of(both) == pytest.approx((one.of(both) + other.of(both)) / 2)
    assert one.toward(other, 1).of(both) == pytest.approx(other.of(both))
