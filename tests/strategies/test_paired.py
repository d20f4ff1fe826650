"""The paired tests of racing: those of scipy, and careful with few or equal differences."""

import itertools
import tracemalloc

import numpy as np
import pytest
from scipy import stats as reference

from worker.strategies import paired


def differences(seed: int, n: int, *, digits: int = 12) -> list[float]:
    return [round(one, digits) for one in np.random.default_rng(seed).normal(0.2, 1.0, n).tolist()]


@pytest.mark.parametrize("n", [2, 3, 8, 20, 100])
@pytest.mark.parametrize("seed", range(5))
def test_students_t_is_that_of_scipy(seed: int, n: int) -> None:
    found = differences(seed, n)

    expected = reference.ttest_1samp(found, 0, alternative="greater").pvalue

    assert paired.p_value("paired_t", found) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("freedom", [1, 2, 7, 30, 400])
@pytest.mark.parametrize("t", [-30.0, -2.5, -0.1, 0.0, 0.3, 1.7, 12.0, 80.0])
def test_the_tail_of_students_distribution_is_that_of_scipy(t: float, freedom: int) -> None:
    assert paired.t_tail(t, freedom) == pytest.approx(reference.t.sf(t, freedom), rel=1e-8, abs=1e-300)


@pytest.mark.parametrize(("n", "digits"), [(5, 12), (12, 12), (25, 12), (60, 12), (40, 1)])
@pytest.mark.parametrize("seed", range(5))
def test_wilcoxon_is_that_of_scipy(seed: int, n: int, digits: int) -> None:
    found = differences(seed, n, digits=digits)
    method = "exact" if n <= 25 else "approx"

    expected = reference.wilcoxon(found, alternative="greater", correction=True, method=method).pvalue

    assert paired.p_value("wilcoxon", found) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("found", [[0.5, 0.5, 0.5], [0.5, -0.5, 0.5, 1.0], [0.2, 0.2, 0.0, -0.1, 0.3, 0.1, 0.2]])
def test_wilcoxon_of_few_differences_with_ties_is_exact_too(found: list[float]) -> None:
    """By the normal approximation three equal gains were significant at 0.08; one sequence of signs in eight is so."""
    sizes = [abs(one) for one in found if one]
    ranks = reference.rankdata(sizes)
    positive = sum(rank for rank, one in zip(ranks, [one for one in found if one], strict=True) if one > 0)
    sums = [sum(chosen) for chosen in itertools.product(*((0.0, rank) for rank in ranks))]

    expected = sum(one >= positive - 1e-9 for one in sums) / len(sums)

    assert paired.p_value("wilcoxon", found) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", [2, 9, 40])
@pytest.mark.parametrize("seed", range(5))
def test_the_sign_test_is_the_binomial_one(seed: int, n: int) -> None:
    found = [*differences(seed, n), 0.0, 0.0]
    above = sum(one > 0 for one in found)

    expected = reference.binomtest(above, n, alternative="greater").pvalue

    assert paired.p_value("sign", found) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", [3, 10])
@pytest.mark.parametrize("seed", range(5))
def test_few_differences_are_flipped_in_every_way(seed: int, n: int) -> None:
    found = differences(seed, n)

    expected = reference.permutation_test(
        (found,), np.mean, permutation_type="samples", alternative="greater", n_resamples=np.inf
    ).pvalue

    assert paired.p_value("permutation", found) == pytest.approx(expected, rel=1e-12)


def test_many_differences_are_flipped_at_random_but_always_in_the_same_way() -> None:
    found = differences(3, 40)
    expected = reference.ttest_1samp(found, 0, alternative="greater").pvalue

    assert paired.p_value("permutation", found) == paired.p_value("permutation", list(found))
    assert paired.p_value("permutation", found) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("test", ["paired_t", "wilcoxon", "sign", "permutation"])
@pytest.mark.parametrize("found", [[], [1.0], [0.0, 0.0, 0.0]])
def test_nothing_is_told_from_nothing(test: str, found: list[float]) -> None:
    assert paired.p_value(test, found) == 1.0


@pytest.mark.parametrize("test", ["paired_t", "wilcoxon", "sign", "permutation"])
def test_a_test_is_of_one_side(test: str) -> None:
    found = [0.3, 0.1, 0.2, 0.4, 0.25, 0.15, 0.35, 0.05]

    assert paired.p_value(test, found) < 0.01
    assert paired.p_value(test, [-one for one in found]) > 0.99


@pytest.mark.parametrize("found", [[0.5, 0.5, 0.5], [1.0, 0.0, 1.0, 1.0, 0.0]])
def test_few_differences_that_are_alike_or_only_signs_go_to_the_sign_test(found: list[float]) -> None:
    """Of no variance t would be infinite, and three cases certain."""
    assert paired.p_value("paired_t", found) == paired.p_value("sign", found) == 0.125


def test_a_race_over_many_cases_keeps_little_in_memory() -> None:
    """The flips of each number of cases were kept as floats, 64 of them: gigabytes for thousands of cases."""
    tracemalloc.start()
    for n in range(1_000, 2_000, 100):
        paired.p_value("permutation", [1.0, -1.0] * (n // 2))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert kept < 30e6
