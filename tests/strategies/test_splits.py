"""Dividing cases: the fractions that were asked for, each stratum in proportion, groups whole, a seed decides."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from shared.knobs import SMALL, resolve_split
from shared.splits import Split, balanced, draw, split, stratum_of, value_at
from worker.strategies.contract import Case

PARTS = ("train", "dev", "holdout")
DEFAULT = {"train_fraction": 0.3, "dev_fraction": 0.4, "holdout_fraction": 0.3, "split_seed": 0}
# Of 36 cases and the seed 7, as it was before there was `stratify_by` and `group_by`.
TRAIN_OF_A_STORED_RUN = [16, 15, 11, 1, 17, 18, 19, 2, 4, 3, 5]
DEV_OF_A_STORED_RUN = [14, 34, 24, 31, 29, 30, 28, 12, 8, 25, 36, 26, 13, 9]
HOLDOUT_OF_A_STORED_RUN = [32, 10, 33, 23, 27, 22, 35, 6, 7, 20, 21]
quick = settings(max_examples=100, deadline=None)
labels = st.lists(st.sampled_from("abcde"), min_size=SMALL, max_size=150)


@quick
@given(expected=labels, fractions=st.tuples(st.integers(0, 10), st.integers(1, 10), st.integers(1, 10)))
@example(expected=list("ab" * 20), fractions=(0, 1, 1))  # once dealt all of a to one part and all of b to the other
@example(expected=list("abcde" * 20), fractions=(3, 4, 3))
def test_each_part_gets_its_share_of_each_stratum_within_one_case(
    expected: list[str], fractions: tuple[int, int, int]
) -> None:
    shares = {part: count / sum(fractions) for part, count in zip(PARTS, fractions, strict=True)}

    parts = split(make_cases(expected), settings_of(shares))

    for stratum, size in Counter(expected).items():
        for part in (part for part in PARTS if shares[part]):
            got = sum(expected[ordinal - 1] == stratum for ordinal in getattr(parts, part))
            assert abs(got - shares[part] * size) < 1, (stratum, part, got, shares[part] * size)


@quick
@given(expected=st.one_of(labels, st.integers(SMALL, 150).map(lambda count: list(map(str, range(count))))))
def test_the_parts_are_disjoint_complete_and_of_the_fractions_that_were_asked_for(expected: list[str]) -> None:
    parts = split(make_cases(expected), DEFAULT)

    everything = [*parts.train, *parts.dev, *parts.holdout]
    assert sorted(everything) == list(range(1, len(expected) + 1))
    for part in PARTS:
        assert abs(len(getattr(parts, part)) - DEFAULT[f"{part}_fraction"] * len(expected)) < 2
    assert not parts.indicative


@quick
@given(
    groups=st.lists(st.one_of(st.none(), st.integers(0, 12)), min_size=10, max_size=120),
    seed=st.integers(0, 5),
)
def test_a_group_is_never_divided(groups: list[int | None], seed: int) -> None:
    cases = [Case(i, {}, str(i % 3), None if g is None else f"g{g}") for i, g in enumerate(groups, start=1)]

    parts = split(cases, {**DEFAULT, "split_seed": seed})

    homes: dict[str, set[str]] = {}
    for part in ("dev", "holdout") if parts.indicative else PARTS:
        for ordinal in getattr(parts, part):
            group = cases[ordinal - 1].group
            if group is not None:
                homes.setdefault(group, set()).add(part)
    assert all(len(home) == 1 for home in homes.values())
    assert len(set(parts.dev) | set(parts.holdout) | set(parts.train)) == len(cases)


def test_small_groups_leave_the_fractions_nearly_as_they_were_asked_for() -> None:
    cases = [Case(i, {}, str(i % 3), f"g{i // 4}") for i in range(1, 201)]

    parts = split(cases, DEFAULT)

    for part in PARTS:
        assert abs(len(getattr(parts, part)) - DEFAULT[f"{part}_fraction"] * 200) <= 4


@pytest.mark.parametrize("count", [10, 12, 17, 29])
def test_below_thirty_cases_train_is_dev_and_the_result_is_indicative(count: int) -> None:
    parts = split(make_cases(["a", "b"] * count)[:count], DEFAULT)

    assert parts.train == parts.dev
    assert parts.indicative
    assert sorted([*parts.dev, *parts.holdout]) == list(range(1, count + 1))
    assert len(parts.holdout) >= max(5, math.floor(0.3 * count))


def test_from_thirty_cases_on_train_is_its_own() -> None:
    parts = split(make_cases(["a"] * 30), DEFAULT)

    assert not set(parts.train) & set(parts.dev)
    assert not parts.indicative


def test_without_a_train_share_the_dev_cases_are_shown_to_the_proposer() -> None:
    parts = split(make_cases(["a", "b"] * 20), settings_of({"train": 0.0, "dev": 0.5, "holdout": 0.5}))

    assert parts.train == parts.dev


@quick
@given(
    count=st.integers(10, 60),
    shares=st.sampled_from([(0.98, 0.01, 0.01), (0.0, 0.99, 0.01), (0.0, 0.01, 0.99), (0.01, 0.98, 0.01)]),
    grouped=st.booleans(),
)
def test_dev_and_holdout_are_never_empty(count: int, shares: tuple[float, float, float], grouped: bool) -> None:
    cases = [Case(i, {}, "a", f"g{i % 3}" if grouped else None) for i in range(1, count + 1)]

    parts = split(cases, settings_of(dict(zip(PARTS, shares, strict=True))))

    assert parts.train
    assert parts.dev
    assert parts.holdout


@quick
@given(expected=labels, seed=st.integers(0, 2**31 - 1), shuffle=st.randoms(use_true_random=False))
def test_the_seed_decides_and_the_order_of_the_rows_does_not(expected: list[str], seed: int, shuffle: Any) -> None:
    cases = make_cases(expected)
    shuffled = list(cases)
    shuffle.shuffle(shuffled)

    assert split(shuffled, {**DEFAULT, "split_seed": seed}) == split(cases, {**DEFAULT, "split_seed": seed})


def test_another_seed_gives_another_split() -> None:
    cases = make_cases(["a", "b", "c"] * 20)

    splits = [split(cases, {**DEFAULT, "split_seed": seed}) for seed in range(5)]

    assert len({tuple(sorted(one.holdout)) for one in splits}) == 5


def test_a_stratum_is_the_expected_value_or_its_first_field() -> None:
    assert stratum_of(Case(1, {}, "billing")) == "billing"
    assert stratum_of(Case(1, {}, {"category": "billing", "priority": "low"})) == "billing"
    assert stratum_of(Case(1, {}, {})) == ""
    assert stratum_of(Case(1, {}, None)) == "None"
    assert stratum_of(Case(1, {}, ["x", 1])) == "['x', 1]"


@quick
@given(expected=labels, size=st.integers(1, 60))
def test_any_prefix_of_a_balanced_order_holds_each_stratum_in_proportion(expected: list[str], size: int) -> None:
    assume(size <= len(expected))

    prefix = [case.expected for case in balanced(make_cases(expected), 0)[:size]]

    for stratum, count in Counter(expected).items():
        # Each of the other strata may be early or late by one case, as this one may.
        assert abs(prefix.count(stratum) - count * size / len(expected)) <= len(set(expected))


def test_the_parts_keep_a_balanced_order_so_that_a_cut_is_balanced_too() -> None:
    expected = ["a"] * 60 + ["b"] * 60

    parts = split(make_cases(expected), DEFAULT)

    for part in PARTS:
        first = [expected[ordinal - 1] for ordinal in getattr(parts, part)[:10]]
        assert 4 <= first.count("a") <= 6


def test_a_split_that_is_told_nothing_new_is_the_one_of_stored_runs() -> None:
    """A replay divides again, by the settings that the run had."""
    cases = [
        Case(i, {}, {"category": "abc"[i % 3]}, f"g{i // 2}" if i % 4 < 2 else None, tags=["x"]) for i in range(1, 37)
    ]
    stored = {**DEFAULT, "split_seed": 7}

    parts = split(cases, stored)

    assert parts == split(cases, resolve_split({"split_seed": 7}))
    assert parts.train == TRAIN_OF_A_STORED_RUN
    assert parts.dev == DEV_OF_A_STORED_RUN
    assert parts.holdout == HOLDOUT_OF_A_STORED_RUN


@quick
@given(
    countries=st.lists(st.sampled_from(["de", "fr", "it", None]), min_size=SMALL, max_size=120),
    path=st.sampled_from(["inputs.country", "expected.meta.country", "tags", "group"]),
)
def test_each_part_has_its_share_of_what_the_split_is_told_to_stratify_by(
    countries: list[str | None], path: str
) -> None:
    cases = [told_apart(i, path, country) for i, country in enumerate(countries, start=1)]
    # A group would hold its cases together; here it is only what they are told by.
    by = {"stratify_by": path, **({"group_by": "inputs.nothing"} if path == "group" else {})}

    parts = split(cases, {**DEFAULT, **by})

    for country, size in Counter(countries).items():
        for part in PARTS:
            got = sum(countries[ordinal - 1] == country for ordinal in getattr(parts, part))
            assert abs(got - DEFAULT[f"{part}_fraction"] * size) < 1, (country, part)


@quick
@given(
    customers=st.lists(st.one_of(st.none(), st.just(""), st.sampled_from("abcdefgh")), min_size=12, max_size=100),
    path=st.sampled_from(["inputs.country", "expected.meta.country", "tags"]),
    seed=st.integers(0, 5),
)
def test_what_the_split_is_told_to_group_by_never_straddles_parts(
    customers: list[str | None], path: str, seed: int
) -> None:
    cases = [told_apart(i, path, customer) for i, customer in enumerate(customers, start=1)]

    parts = split(cases, {**DEFAULT, "group_by": path, "split_seed": seed})

    homes: dict[str, set[str]] = {}
    for part in ("dev", "holdout") if parts.indicative else PARTS:
        for ordinal in getattr(parts, part):
            if customer := customers[ordinal - 1]:
                homes.setdefault(customer, set()).add(part)
    assert all(len(home) == 1 for home in homes.values())
    assert {*parts.train, *parts.dev, *parts.holdout} == set(range(1, len(cases) + 1))
    assert split(list(reversed(cases)), {**DEFAULT, "group_by": path, "split_seed": seed}) == parts


def test_a_group_that_is_told_by_a_path_stands_in_place_of_the_case_s_own() -> None:
    cases = [Case(i, {"country": f"c{i % 4}"}, "a", "all of them") for i in range(1, 41)]

    own, told = split(cases, DEFAULT), split(cases, {**DEFAULT, "group_by": "inputs.country"})

    assert sorted(sizes(own)) == [0, 0, 40]
    assert sorted(sizes(told)) == [10, 10, 20]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("expected", '{"kind":"bug","meta":{"n":1}}'),
        ("expected.kind", "bug"),
        ("expected.meta", '{"n":1}'),
        ("expected.meta.n", "1"),
        ("expected.kind.deeper", None),
        ("inputs.text", "hello"),
        ("inputs.empty", None),
        ("inputs.nobody", None),
        ("tags", '["a","b"]'),
        ("group", "g1"),
    ],
)
def test_a_path_tells_what_a_case_has_there(path: str, value: str | None) -> None:
    case = Case(1, {"text": "hello", "empty": ""}, {"kind": "bug", "meta": {"n": 1}}, "g1", tags=["b", "a"])

    assert value_at(case, path) == value
    assert value_at(Case(2, {}, None), path) is None


@pytest.mark.parametrize("count", range(2, 10))
def test_fewer_than_ten_cases_are_halved(count: int) -> None:
    parts = split(make_cases([str(i) for i in range(count)]), DEFAULT)

    assert parts.train == parts.dev
    assert parts.indicative
    assert sorted([*parts.dev, *parts.holdout]) == list(range(1, count + 1))
    assert abs(len(parts.dev) - len(parts.holdout)) <= 1


def told_apart(ordinal: int, path: str, value: str | None) -> Case:
    """A case with this value at the path, and nothing that tells it elsewhere."""
    return Case(
        ordinal,
        {"country": value} if path.startswith("inputs") else {},
        {"n": ordinal, "meta": {"country": value}} if path.startswith("expected") else None,
        value if path == "group" else None,
        tags=[value] if path == "tags" and value else [],
    )


def test_draws_depend_on_their_key_alone() -> None:
    numbers = [draw(0, "a", 1).random(), draw(0, "a", 1).random(), draw(0, "a", 2).random(), draw("0", "a", 1).random()]

    assert numbers[0] == numbers[1]
    assert len(set(numbers)) == 3


def make_cases(expected: Sequence[str]) -> list[Case]:
    return [Case(i, {"text": f"case {i}"}, value) for i, value in enumerate(expected, start=1)]


def settings_of(shares: dict[str, float]) -> dict[str, Any]:
    return {"split_seed": 0, **{f"{part}_fraction": share for part, share in shares.items()}}


def sizes(parts: Split) -> list[int]:
    return [len(getattr(parts, part)) for part in PARTS]
