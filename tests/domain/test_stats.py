"""The statistics behind a verdict, against closed forms, SciPy and simulated data whose truth is known."""

import math
import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, permutation_test

from shared import stats
from shared.stats import compare_paired

shares = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=30)
TRIALS = 300
MARGIN = 3 * math.sqrt(0.05 * 0.95 / TRIALS)  # three standard errors of a share of 5 %


def mean_difference(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
    return np.mean(x - y, axis=axis)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("size", [6, 15, 60])
def test_the_p_value_is_that_of_scipy(seed: int, size: int) -> None:
    generator = np.random.default_rng(seed)
    baseline = generator.choice([0.0, 0.5, 1.0], size)
    candidate = np.clip(baseline + generator.choice([-0.5, 0.0, 0.5], size, p=[0.2, 0.4, 0.4]), 0, 1)

    found = compare_paired(baseline.tolist(), candidate.tolist(), seed=seed)

    reference = permutation_test(
        (candidate, baseline),
        mean_difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(seed + 1_000),
    )
    assert found.p_value == pytest.approx(reference.pvalue, abs=0.02)


@pytest.mark.parametrize("size", [1, 2, 5, 8, 10])
def test_the_p_value_of_unanimous_cases_is_two_over_two_to_the_n(size: int) -> None:
    found = compare_paired([0.0] * size, [1.0] * size, seed=0)

    assert found.p_value == pytest.approx(2 / 2**size, abs=0.015)


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_is_that_of_a_percentile_bootstrap(seed: int) -> None:
    generator = np.random.default_rng(seed)
    baseline, candidate = generator.random(40), generator.random(40)

    found = compare_paired(baseline.tolist(), candidate.tolist(), seed=seed)

    reference = bootstrap(
        (candidate - baseline,),
        np.mean,
        method="percentile",
        n_resamples=10_000,
        rng=np.random.default_rng(seed + 1_000),
    ).confidence_interval
    assert found.ci_low == pytest.approx(reference.low, abs=0.01)
    assert found.ci_high == pytest.approx(reference.high, abs=0.01)


@pytest.mark.parametrize("weights", [None, [1.0, 3.0] * 200])
def test_the_interval_of_few_different_scores_is_that_of_drawing_each(
    monkeypatch: pytest.MonkeyPatch, weights: list[float] | None
) -> None:
    scores = np.random.default_rng(3).choice([0.0, 0.5, 1.0], 400).tolist()

    by_counts = stats.mean_interval(scores, seed=0, weights=weights)
    monkeypatch.setattr(stats, "_CHEAPER_BY_COUNTS", math.inf)
    one_by_one = stats.mean_interval(scores, seed=0, weights=weights)

    assert by_counts != one_by_one
    assert by_counts == pytest.approx(one_by_one, abs=0.004)


def test_the_interval_covers_the_true_difference_about_95_times_in_100() -> None:
    generator = np.random.default_rng(1)
    size, covered = 80, 0

    for trial in range(TRIALS):
        # Paired coins: a candidate that turns a fifth of the wrong answers right. The truth is 0.4 x 0.2 = 0.08.
        baseline = generator.random(size) < 0.6
        candidate = baseline | (generator.random(size) < 0.2)
        found = compare_paired(baseline.astype(float).tolist(), candidate.astype(float).tolist(), seed=trial)
        covered += found.ci_low <= 0.08 <= found.ci_high

    assert 0.95 - MARGIN < covered / TRIALS <= 0.95 + MARGIN


def test_equal_candidates_are_called_different_no_more_often_than_said() -> None:
    generator = np.random.default_rng(2)
    claimed, significant = 0, 0

    for trial in range(TRIALS):
        baseline, candidate = generator.random((2, 60)) < 0.6
        found = compare_paired(baseline.astype(float).tolist(), candidate.astype(float).tolist(), seed=trial)
        claimed += found.ci_low > 0
        significant += found.p_value <= 0.05

    assert claimed / TRIALS < 0.025 + MARGIN
    assert significant / TRIALS < 0.05 + MARGIN
    assert significant > 0, "a test that never errs has no power either"


def test_a_real_gain_is_found() -> None:
    generator = np.random.default_rng(3)
    baseline = generator.random(200) < 0.5
    candidate = baseline | (generator.random(200) < 0.3)

    found = compare_paired(baseline.astype(float).tolist(), candidate.astype(float).tolist(), seed=0)

    assert found.ci_low > 0.05
    assert found.p_value < 0.001


@settings(max_examples=40, deadline=None)
@given(scores=shares, shift=st.randoms(use_true_random=False))
def test_the_means_and_their_difference_are_exact_and_lie_in_the_interval(
    scores: list[float], shift: random.Random
) -> None:
    candidate = list(scores)
    shift.shuffle(candidate)

    found = compare_paired(scores, candidate, seed=0)

    assert found.n == len(scores)
    assert found.baseline == pytest.approx(sum(scores) / len(scores))
    assert found.candidate == pytest.approx(sum(candidate) / len(candidate))
    assert found.difference == pytest.approx(found.candidate - found.baseline, abs=1e-12)
    assert found.ci_low - 1e-12 <= found.difference <= found.ci_high + 1e-12
    assert 0 < found.p_value <= 1


@settings(max_examples=20, deadline=None)
@given(scores=st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0])), min_size=2))
def test_the_other_way_round_turns_the_sign_and_keeps_the_p_value(scores: list[tuple[float, float]]) -> None:
    one, other = [a for a, _ in scores], [b for _, b in scores]

    there, back = compare_paired(one, other, seed=4), compare_paired(other, one, seed=4)

    assert back.difference == pytest.approx(-there.difference)
    assert back.p_value == there.p_value
    assert (back.ci_low, back.ci_high) == (
        pytest.approx(-there.ci_high, abs=0.08),
        pytest.approx(-there.ci_low, abs=0.08),
    )


def test_pairs_are_compared_and_not_two_groups() -> None:
    """Hard and easy cases differ by far more than the candidates do; the pairing takes that out."""
    easy_and_hard = [0.0, 1.0] * 20

    found = compare_paired(easy_and_hard, [score * 0.9 + 0.1 for score in easy_and_hard], seed=0)

    assert found.ci_low > 0
    assert found.p_value < 0.01


def test_the_same_seed_gives_the_same_numbers_and_another_seed_other_ones() -> None:
    generator = np.random.default_rng(5)
    baseline, candidate = generator.random(30).tolist(), generator.random(30).tolist()

    one, again, other = (compare_paired(baseline, candidate, seed=seed) for seed in (1, 1, 2))

    assert one == again
    assert (one.ci_low, one.p_value) != (other.ci_low, other.p_value)
    assert one.difference == other.difference
    assert stats.mean_interval(baseline, seed=1) == stats.mean_interval(baseline, seed=1)
    assert stats.mean_interval(baseline, seed=1) != stats.mean_interval(baseline, seed=2)


def test_no_difference_at_all_is_no_evidence() -> None:
    found = compare_paired([0.0, 0.5, 1.0], [0.0, 0.5, 1.0], seed=0)

    assert (found.difference, found.ci_low, found.ci_high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(("baseline", "candidate"), [([], []), ([1.0], []), ([1.0, 0.0], [1.0])])
def test_lists_that_do_not_pair_are_refused(baseline: list[float], candidate: list[float]) -> None:
    with pytest.raises(ValueError, match="same, positive length"):
        compare_paired(baseline, candidate, seed=0)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_the_interval_of_a_mean_is_the_normal_one_for_many_values(level: float) -> None:
    values = np.random.default_rng(6).random(400)
    z = {0.5: 0.6745, 0.9: 1.6449, 0.95: 1.96}[level]

    low, high = stats.mean_interval(values.tolist(), seed=0, level=level)

    half = z * stats.standard_error(values.tolist())
    assert (low, high) == (
        pytest.approx(values.mean() - half, abs=0.004),
        pytest.approx(values.mean() + half, abs=0.004),
    )


def test_the_interval_of_few_values() -> None:
    assert all(math.isnan(end) for end in stats.mean_interval([], seed=0))
    assert stats.mean_interval([0.25], seed=0) == (0.25, 0.25)
    assert stats.mean_interval([0.5, 0.5, 0.5], seed=0) == (0.5, 0.5)


def test_the_mean_and_its_standard_error() -> None:
    assert math.isnan(stats.mean([]))
    assert stats.mean([0.0, 1.0, 0.5]) == 0.5
    assert stats.standard_error([]) == 0
    assert stats.standard_error([0.7]) == 0
    assert stats.standard_error([0.0, 1.0]) == pytest.approx(0.5)
    assert stats.standard_error([0.0, 0.0, 1.0, 1.0]) == pytest.approx(math.sqrt(1 / 3 / 4))


def test_the_memory_does_not_grow_with_the_number_of_cases() -> None:
    """A block of resamples at a time: at once, 20,000 cases would take 3 GB."""
    values = np.random.default_rng(7).random(20_000).tolist()
    tracemalloc.start()

    stats.mean_interval(values, seed=0)
    compare_paired(values[:5_000], values[5_000:10_000], seed=0)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64_000_000


# ---- weights -------------------------------------------------------------------------------------

HEAVY_FAILURE = ([1.0] * 39 + [0.0], [1.0] * 39 + [1000.0])  # the score is 39 / 1039 = 0.0375


def test_a_heavy_case_that_failed_lies_in_the_interval_of_the_weighted_mean() -> None:
    """The interval was once that of the plain mean: 0.925 to 1 for a score of 0.0375."""
    scores, weights = HEAVY_FAILURE

    low, high = stats.mean_interval(scores, seed=0, weights=weights)

    assert stats.mean(scores, weights) == pytest.approx(39 / 1039)
    assert low <= 39 / 1039 <= high
    assert high == 1.0, "a third of the resamples are without the heavy case"
    assert stats.standard_error(scores, weights) == pytest.approx(0.037, abs=0.001)


def test_a_comparison_of_weighted_cases_is_of_the_weighted_means() -> None:
    """A candidate that wins 39 cases and loses the one that matters is worse, though not proved to be."""
    scores, weights = HEAVY_FAILURE

    found = compare_paired([1.0 - score for score in scores], scores, seed=0, weights=weights)

    assert (found.baseline, found.candidate) == (pytest.approx(1000 / 1039), pytest.approx(39 / 1039))
    assert found.difference == pytest.approx(-961 / 1039)
    assert found.ci_low <= found.difference <= found.ci_high
    assert found.p_value == 1.0, "the heavy case alone decides every flip"


@pytest.mark.parametrize("seed", range(4))
def test_the_weighted_interval_and_p_value_are_those_of_scipy(seed: int) -> None:
    generator = np.random.default_rng(seed)
    size = 40
    baseline, weights = generator.choice([0.0, 0.5, 1.0], size), generator.choice([0.5, 1.0, 4.0], size)
    candidate = np.clip(baseline + generator.choice([-0.5, 0.0, 0.5], size, p=[0.15, 0.5, 0.35]), 0, 1)

    found = compare_paired(baseline.tolist(), candidate.tolist(), seed=seed, weights=weights.tolist())

    interval = bootstrap(
        (candidate - baseline, weights),
        lambda deltas, drawn, axis: (deltas * drawn).sum(axis=axis) / drawn.sum(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=10_000,
        rng=np.random.default_rng(seed + 1_000),
    ).confidence_interval
    flips = permutation_test(
        (candidate * weights, baseline * weights),
        mean_difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(seed + 1_000),
    )
    assert (found.ci_low, found.ci_high) == (
        pytest.approx(interval.low, abs=0.015),
        pytest.approx(interval.high, abs=0.015),
    )
    assert found.p_value == pytest.approx(flips.pvalue, abs=0.02)


@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_the_weighted_standard_error_is_the_spread_of_the_weighted_mean(spread: float) -> None:
    generator = np.random.default_rng(8)
    weights = generator.uniform(1.0, spread, 200)
    draws = (generator.random((4_000, 200)) < 0.7).astype(float)

    errors = [stats.standard_error(row.tolist(), weights.tolist()) for row in draws[:200]]

    assert np.mean(errors) == pytest.approx(float(np.std((draws * weights).sum(axis=1) / weights.sum())), rel=0.05)


@settings(max_examples=15, deadline=None)
@given(scores=shares, weight=st.sampled_from([0.1, 1.0, 7.0, 1e6]))
def test_equal_weights_change_no_bit(scores: list[float], weight: float) -> None:
    weights, other = [weight] * len(scores), scores[::-1]

    assert stats.mean(scores, weights) == stats.mean(scores)
    assert stats.standard_error(scores, weights) == stats.standard_error(scores)
    assert stats.mean_interval(scores, seed=1, weights=weights) == stats.mean_interval(scores, seed=1)
    assert compare_paired(scores, other, seed=1, weights=weights) == compare_paired(scores, other, seed=1)


def test_only_the_proportion_of_weights_counts() -> None:
    scores, weights = HEAVY_FAILURE

    larger = stats.mean_interval(scores, seed=0, weights=[weight * 1024 for weight in weights])

    assert larger == stats.mean_interval(scores, seed=0, weights=weights)


def test_the_paired_effect_is_the_mean_difference_in_standard_deviations() -> None:
    before, after = [0.1, 0.4, 0.5, 0.9], [0.3, 0.5, 0.9, 0.8]
    deltas = np.array(after) - np.array(before)

    assert stats.paired_effect(before, after) == pytest.approx(deltas.mean() / deltas.std(ddof=1))
    assert stats.paired_effect(after, before) == pytest.approx(-deltas.mean() / deltas.std(ddof=1))
    doubled = stats.paired_effect(before, after, [2.0] * 4)
    assert doubled == stats.paired_effect(before, after)


def test_the_paired_effect_counts_a_heavy_case_more() -> None:
    light, heavy = (
        stats.paired_effect([0, 0, 0], [1, 0, 0], [1, 1, 1]),
        stats.paired_effect([0, 0, 0], [1, 0, 0], [9, 1, 1]),
    )

    assert light is not None
    assert heavy is not None
    assert heavy > light


@pytest.mark.parametrize(("before", "after"), [([0.5], [0.9]), ([0.1, 0.2], [0.1, 0.2]), ([0.25, 0.5], [0.5, 0.75])])
def test_without_a_spread_of_differences_there_is_no_effect_to_tell(before: list[float], after: list[float]) -> None:
    assert stats.paired_effect(before, after) is None


def test_the_same_scores_over_other_repeats_are_no_difference() -> None:
    once, thrice = [0.8] * 20, [(0.8 + 0.8 + 0.8) / 3] * 20
    assert once != thrice  # in the last bit

    found = stats.compare_paired(once, thrice, seed=0)

    assert (found.ci_low, found.ci_high, found.p_value, found.direction) == (0.0, 0.0, 1.0, 0)


@pytest.mark.parametrize(("wins", "equal", "direction"), [(3, 2, 0), (5, 0, 0), (4, 5, 0), (6, 0, 1), (9, 21, 1)])
def test_a_direction_takes_the_interval_and_the_test(wins: int, equal: int, direction: int) -> None:
    """Of five cases three that got better give an interval above 0, and happen by chance one time in four."""
    better = stats.compare_paired([0.0] * (wins + equal), [1.0] * wins + [0.0] * equal, seed=0)
    worse = stats.compare_paired([1.0] * wins + [0.0] * equal, [0.0] * (wins + equal), seed=0)

    assert better.ci_low > 0 > worse.ci_high
    assert (better.direction, worse.direction) == (direction, -direction)


def test_on_a_small_holdout_equal_prompts_are_called_better_at_most_one_time_in_forty() -> None:
    draw = random.Random(5)
    pairs = [[draw.choice((-1, 0, 0, 1)) for _ in range(6)] for _ in range(1_500)]

    found = [
        stats.compare_paired([float(d < 0) for d in pair], [float(d > 0) for d in pair], seed=0).direction
        for pair in pairs
    ]

    assert found.count(1) / len(found) <= 0.025
    assert found.count(-1) / len(found) <= 0.025


def test_a_mean_reaches_what_it_is_but_for_rounding() -> None:
    mean = sum([0.8] * 10) / 10
    assert mean < 0.8

    assert stats.reaches(mean, 0.8)
    assert not stats.reaches(0.799, 0.8)
