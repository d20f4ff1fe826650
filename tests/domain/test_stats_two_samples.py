"""Tests of two independent samples: the same numbers as the reference implementations give."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from scipy import stats as reference

from shared import stats

few = st.integers(min_value=0, max_value=30)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("tied", [False, True])
def test_mann_whitney_is_that_of_scipy(seed: int, tied: bool) -> None:
    generator = np.random.default_rng(seed)
    n, m = generator.integers(2, 200, 2)
    a, b = generator.normal(0, 1, n), generator.normal(generator.normal(), 1, m)
    if tied:
        a, b = a.round(), b.round()

    found = stats.mann_whitney(a.tolist(), b.tolist())

    expected = reference.mannwhitneyu(b, a, method="asymptotic", use_continuity=True)
    assert found.statistic == expected.statistic
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9, abs=1e-300)


@settings(deadline=None)
@given(a=st.lists(few, min_size=1, max_size=20), b=st.lists(few, min_size=1, max_size=20))
def test_cliffs_delta_is_the_share_of_pairs_that_are_higher_less_that_of_lower(a: list[int], b: list[int]) -> None:
    higher = sum(y > x for x in a for y in b)
    lower = sum(y < x for x in a for y in b)

    found = stats.mann_whitney(a, b)

    assert found.effect == pytest.approx((higher - lower) / (len(a) * len(b)))
    assert 0 <= found.p_value <= 1
    assert stats.mann_whitney(b, a).effect == pytest.approx(-found.effect)
    assert stats.mann_whitney(b, a).p_value == pytest.approx(found.p_value)


def test_values_that_are_all_the_same_are_no_evidence() -> None:
    assert stats.mann_whitney([1.0] * 30, [1.0] * 40) == stats.Comparison(600, 0, 1)
    assert stats.kolmogorov_smirnov([1.0] * 30, [1.0] * 40) == stats.Comparison(0, 0, 1)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("tied", [False, True])
def test_the_distance_of_distributions_is_that_of_scipy_and_the_p_value_is_close(seed: int, tied: bool) -> None:
    generator = np.random.default_rng(seed)
    n, m = generator.integers(20, 300, 2)
    a, b = generator.normal(0, 1, n), generator.normal(generator.normal() / 4, 1 + generator.random(), m)
    if tied:
        a, b = a.round(1), b.round(1)

    found = stats.kolmogorov_smirnov(a.tolist(), b.tolist())

    expected = reference.ks_2samp(a, b, method="exact")
    assert found.effect == pytest.approx(expected.statistic, abs=1e-12)
    assert found.p_value == pytest.approx(expected.pvalue, rel=0.15, abs=0.02)


@pytest.mark.parametrize("x", [0.05, 0.2, 0.3, 0.5, 0.828, 1.0, 1.358, 2.0, 3.0])
def test_the_tail_of_kolmogorovs_distribution_is_that_of_scipy(x: float) -> None:
    assert stats.kolmogorov_tail(x) == pytest.approx(special.kolmogorov(x), rel=1e-9, abs=1e-12)


@settings(deadline=None)
@given(a=few, b=few, n=st.integers(1, 40), m=st.integers(1, 40))
def test_fishers_test_is_that_of_scipy(a: int, b: int, n: int, m: int) -> None:
    a, b = min(a, n), min(b, m)

    found = stats.fisher_exact((a, b), (n, m))

    expected = reference.fisher_exact([[a, n - a], [b, m - b]]).pvalue
    assert found.p_value == pytest.approx(expected, rel=1e-6)
    assert found.effect == pytest.approx(b / m - a / n)


def test_fishers_test_of_thousands_has_a_p_value() -> None:
    found = stats.fisher_exact((50, 150), (5_000, 5_000))

    expected = reference.fisher_exact([[50, 4_950], [150, 4_850]]).pvalue
    assert found.p_value == pytest.approx(expected, rel=1e-6)


@settings(deadline=None)
@given(p_values=st.lists(st.floats(0, 1), max_size=12))
def test_holm_multiplies_the_smallest_by_how_many_there_are_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = stats.holm(p_values)

    assert all(before <= after <= 1 for before, after in zip(p_values, adjusted, strict=True))
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    assert [adjusted[place] for place in order] == sorted(adjusted)
    if p_values:
        assert min(adjusted) == min(1, min(p_values) * len(p_values))


def test_holm_is_that_of_the_worked_example() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_samples_of_the_same_kind_are_called_different_no_more_often_than_said() -> None:
    generator = np.random.default_rng(9)
    trials = 400
    called = {"mann_whitney": 0, "kolmogorov_smirnov": 0}

    for _ in range(trials):
        a, b = generator.exponential(1, (2, 60)).tolist()
        for name in called:
            called[name] += getattr(stats, name)(a, b).p_value < 0.05

    # Three standard deviations of a count of 5 %.
    margin = 3 * math.sqrt(trials * 0.05 * 0.95)
    assert all(0 < count <= trials * 0.05 + margin for count in called.values()), called
