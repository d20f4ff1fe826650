"""The catalogue of search settings: defaults filled in, each bad knob named with its rule, all of it described."""

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import knobs
from shared.errors import Unprocessable
from shared.knobs import EARLY_STOPPING, EVALUATION, SPLIT, STRATEGIES, Knob, minimum_task_calls, split_shares
from worker.strategies import STRATEGIES as IMPLEMENTED

BLOCKS: Mapping[str, Mapping[str, Knob]] = {
    "/evaluation": EVALUATION,
    "/split": SPLIT,
    "/early_stopping": EARLY_STOPPING,
    **{f"/knobs of {name}": known for name, known in STRATEGIES.items()},
}
EVERY = [(block, name) for block, known in BLOCKS.items() for name in known]
NUMBERS = [
    (block, name) for block, name in EVERY if "int" in BLOCKS[block][name].kind or "float" in BLOCKS[block][name].kind
]
every_knob = pytest.mark.parametrize(("block", "name"), EVERY)
every_number = pytest.mark.parametrize(("block", "name"), NUMBERS)


def refusal(block: str, given_values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(pointer, rule) of each error; fails when the values are accepted."""
    with pytest.raises(Unprocessable) as refused:
        knobs.resolve(BLOCKS[block], given_values, block)
    return [(error.pointer, error.detail) for error in refused.value.errors]


# ---- every knob ----------------------------------------------------------------------------------


@pytest.mark.parametrize("block", sorted(BLOCKS))
def test_nothing_given_resolves_to_the_defaults(block: str) -> None:
    resolved = knobs.resolve(BLOCKS[block], {}, block)

    assert resolved == {name: knob.default for name, knob in BLOCKS[block].items()}
    assert json.loads(json.dumps(resolved, allow_nan=False)) == resolved


@every_knob
def test_the_default_is_within_its_own_rule(block: str, name: str) -> None:
    default = BLOCKS[block][name].default

    assert knobs.resolve(BLOCKS[block], {name: default}, block)[name] == default


@every_number
def test_both_ends_of_a_range_are_accepted_and_what_is_beyond_is_not(block: str, name: str) -> None:
    knob = BLOCKS[block][name]
    step = 1 if knob.kind.endswith("int") else 1e-9
    low, high = (int(knob.low), int(knob.high)) if knob.kind.endswith("int") else (knob.low, knob.high)
    lowest = low + step if knob.open_low else low

    assert knobs.resolve(BLOCKS[block], {name: lowest}, block)[name] == lowest
    assert knobs.resolve(BLOCKS[block], {name: high}, block)[name] == high
    for beyond in (lowest - step, high + step):
        assert refusal(block, {name: beyond}) == [
            (f"{block}/{name}", f"must be in {'(' if knob.open_low else '['}{knob.low:g}, {knob.high:g}]")
        ]


@every_number
@pytest.mark.parametrize("value", [True, False, "1", [1], {"a": 1}])
def test_a_number_is_neither_a_boolean_nor_a_text(block: str, name: str, value: Any) -> None:
    whole = BLOCKS[block][name].kind.endswith("int")

    assert refusal(block, {name: value}) == [
        (f"{block}/{name}", "must be a whole number" if whole else "must be a number")
    ]


@every_number
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_is_finite(block: str, name: str, value: float) -> None:
    whole = BLOCKS[block][name].kind.endswith("int")

    assert refusal(block, {name: value}) == [
        (f"{block}/{name}", "must be a whole number" if whole else "must be a finite number")
    ]


@every_number
def test_a_number_too_large_for_a_float_is_out_of_range_and_no_accident(block: str, name: str) -> None:
    ((pointer, rule),) = refusal(block, {name: 10**400})

    assert pointer == f"{block}/{name}"
    assert rule.startswith("must be in")


@every_knob
def test_null_is_for_the_knobs_that_say_so(block: str, name: str) -> None:
    if BLOCKS[block][name].kind.startswith("optional_"):
        assert knobs.resolve(BLOCKS[block], {name: None}, block)[name] is None
    else:
        assert [pointer for pointer, _ in refusal(block, {name: None})] == [f"{block}/{name}"]


@pytest.mark.parametrize(("block", "name"), [(b, n) for b, n in EVERY if BLOCKS[b][n].kind == "enum"])
@pytest.mark.parametrize("value", ["", "nobody", "FULL", 1, True, None, ["full"], {}])
def test_an_enum_takes_its_choices_only(block: str, name: str, value: Any) -> None:
    knob = BLOCKS[block][name]

    assert all(knobs.resolve(BLOCKS[block], {name: choice}, block)[name] == choice for choice in knob.choices)
    assert refusal(block, {name: value}) == [(f"{block}/{name}", f"must be one of {', '.join(knob.choices)}")]


@pytest.mark.parametrize(("block", "name"), [(b, n) for b, n in EVERY if BLOCKS[b][n].kind == "bool"])
@pytest.mark.parametrize("value", [0, 1, "true", None])
def test_a_switch_is_true_or_false(block: str, name: str, value: Any) -> None:
    assert refusal(block, {name: value}) == [(f"{block}/{name}", "must be true or false")]


@pytest.mark.parametrize("block", sorted(BLOCKS))
def test_an_unknown_knob_is_refused_with_the_known_ones(block: str) -> None:
    assert refusal(block, {"temprature": 1}) == [
        (f"{block}/temprature", f"unknown knob; there are: {', '.join(BLOCKS[block])}")
    ]


def test_every_bad_knob_is_named_at_once() -> None:
    found = refusal("/evaluation", {"eta": 1, "mode": "best", "patience": 3, "repeats": 2})

    assert {pointer for pointer, _ in found} == {"/evaluation/eta", "/evaluation/mode", "/evaluation/patience"}


def test_a_whole_number_given_for_a_share_becomes_a_float() -> None:
    resolved = knobs.resolve(EVALUATION, {"lcb_z": 1}, "/evaluation")

    assert isinstance(resolved["lcb_z"], float)


@settings(max_examples=200, deadline=None)
@given(
    given_values=st.dictionaries(
        st.sampled_from([*STRATEGIES["beam_search"], "unknown"]),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just(10**400)),
            lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(), inner, max_size=2)),
            max_leaves=4,
        ),
        max_size=4,
    )
)
def test_any_json_is_resolved_or_refused_by_name(given_values: dict[str, Any]) -> None:
    named: set[str] = set()
    resolved = {**knobs.resolve_strategy("beam_search", {}), **given_values}
    try:
        resolved = knobs.resolve_strategy("beam_search", given_values)
    except Unprocessable as error:
        named = {problem.pointer.split("/")[2] for problem in error.errors}

    assert named <= {*given_values}
    assert named or json.dumps(resolved, allow_nan=False)
    assert {name: resolved[name] for name in given_values} == given_values


# ---- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "rule"),
    [
        ({}, "must be an object of weights; names: reflect, paraphrase"),
        ([], "must be an object of weights"),
        ("reflect", "must be an object of weights"),
        (None, "must be an object of weights"),
        ({"rewrite": 1}, "unknown name 'rewrite'; there are: reflect, paraphrase"),
        ({"reflect": -0.1}, "the weight of reflect must be a number from 0"),
        ({"reflect": True}, "the weight of reflect must be a number from 0"),
        ({"reflect": "1"}, "the weight of reflect must be a number from 0"),
        ({"reflect": None}, "the weight of reflect must be a number from 0"),
        ({"reflect": math.nan}, "the weight of reflect must be a number from 0"),
        ({"reflect": math.inf}, "the weight of reflect must be a number from 0"),
        ({"reflect": 1e308, "shorten": 1e308}, "the weight of reflect must be a number from 0 to 1,000,000"),
        ({"shorten": 10**400}, "the weight of shorten must be a number from 0 to 1,000,000"),
        ({"reflect": 0, "shorten": 0.0}, "at least one weight must be above 0"),
    ],
)
def test_weights_are_named_numbers_with_a_sum(weights: Any, rule: str) -> None:
    ((pointer, found),) = refusal("/knobs of beam_search", {"operators": weights})

    assert pointer == "/knobs of beam_search/operators"
    assert found.startswith(rule)


def test_the_weights_that_are_given_replace_the_default_ones() -> None:
    assert knobs.resolve_strategy("beam_search", {"operators": {"shorten": 1, "delete": 0}})["operators"] == {
        "shorten": 1,
        "delete": 0,
    }


def test_resolving_does_not_hand_out_the_catalogue_itself() -> None:
    knobs.resolve_strategy("beam_search", {})["operators"]["shorten"] = 5

    assert "shorten" not in knobs.resolve_strategy("beam_search", {})["operators"]


# ---- rules between knobs -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_values", "pointer"),
    [
        ({"beam_width": 4, "max_candidates": 3}, "/knobs/max_candidates"),
        ({"diversity_rate": 0.5}, "/knobs/diversity_rate"),
        ({"diversity_rate": 0.5, "candidate_reranker": "score"}, "/knobs/diversity_rate"),
    ],
)
def test_knobs_of_beam_search_that_contradict_each_other_are_refused(
    given_values: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(Unprocessable) as refused:
        knobs.resolve_strategy("beam_search", given_values)

    assert [error.pointer for error in refused.value.errors] == [pointer]


@pytest.mark.parametrize(
    "given_values",
    [{"beam_width": 4, "max_candidates": 4}, {"diversity_rate": 0.5, "candidate_reranker": "diversity"}],
)
def test_knobs_that_agree_are_accepted(given_values: dict[str, Any]) -> None:
    assert given_values.items() <= knobs.resolve_strategy("beam_search", given_values).items()


def test_an_unknown_strategy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Unprocessable) as refused:
        knobs.resolve_strategy("magic", {})

    assert [error.pointer for error in refused.value.errors] == ["/strategy"]
    assert all(name in refused.value.errors[0].detail for name in STRATEGIES)


@pytest.mark.parametrize(
    ("fractions", "rule"),
    [
        ((0.3, 0.4, 0.4), "must add up to 1; these make 1.1"),
        ((0.3, 0.3, 0.3), "must add up to 1; these make 0.9"),
        ((0.0, 0.0, 1.0), "dev_fraction and holdout_fraction must be above 0"),
        ((0.5, 0.5, 0.0), "dev_fraction and holdout_fraction must be above 0"),
    ],
)
def test_fractions_that_make_no_split_are_refused(fractions: tuple[float, float, float], rule: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        knobs.resolve_split(dict(zip(("train_fraction", "dev_fraction", "holdout_fraction"), fractions, strict=True)))

    assert [error.pointer for error in refused.value.errors] == ["/split"]
    assert rule in refused.value.errors[0].detail


def test_fractions_may_add_up_to_one_but_for_rounding_and_train_may_be_empty() -> None:
    thirds = {"train_fraction": 0.333333, "dev_fraction": 0.333333, "holdout_fraction": 0.333334}
    no_train = {"train_fraction": 0, "dev_fraction": 0.6, "holdout_fraction": 0.4}

    assert knobs.resolve_split(thirds) == {**thirds, "split_seed": 0}
    assert knobs.resolve_split(no_train)["train_fraction"] == 0


# ---- what a run needs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cases", "shares"),
    [
        (10, {"dev": 0.5, "holdout": 0.5}),
        (20, {"dev": 0.7, "holdout": 0.3}),
        (29, {"dev": 0.7, "holdout": 0.3}),
        (30, {"train": 0.3, "dev": 0.4, "holdout": 0.3}),
    ],
)
def test_few_cases_are_divided_in_two_with_five_for_the_holdout(cases: int, shares: dict[str, float]) -> None:
    assert split_shares(knobs.resolve_split({}), cases) == pytest.approx(shares)


@pytest.mark.parametrize(
    ("strategy", "given_knobs", "evaluation", "cases", "calls"),
    [
        # dev 40, evidence 16, three children on 16 cases, holdout 30 twice
        ("beam_search", {}, {}, 100, 40 + 16 + 3 * 16 + 60),
        ("beam_search", {"evidence_cases": 4, "expansions_per_beam": 2}, {"min_cases": 8}, 100, 40 + 4 + 2 * 8 + 60),
        ("beam_search", {"evidence_cases": 200}, {}, 100, 40 + 30 + 3 * 16 + 60),
        ("beam_search", {}, {"mode": "full"}, 100, 40 + 16 + 3 * 40 + 60),
        ("beam_search", {}, {"max_cases": 10}, 100, 10 + 16 + 3 * 10 + 60),
        ("beam_search", {}, {"repeats": 3}, 100, 3 * (40 + 16 + 3 * 16 + 60)),
        # train is dev: the failures of the baseline are the evidence
        ("beam_search", {}, {}, 20, 14 + 0 + 3 * 14 + 12),
        ("beam_search", {}, {"max_cases": 10}, 20, 10 + 4 + 3 * 10 + 12),
        ("random", {}, {}, 100, 40 + 2 * 16 + 60),
        ("random", {"proposals": 1}, {}, 100, 40 + 16 + 60),
        ("random", {}, {}, 10, 5 + 2 * 5 + 10),
    ],
)
def test_the_smallest_useful_run_is_counted(
    strategy: str, given_knobs: dict[str, Any], evaluation: dict[str, Any], cases: int, calls: int
) -> None:
    spec = {
        "knobs": knobs.resolve_strategy(strategy, given_knobs),
        "evaluation": knobs.resolve(EVALUATION, evaluation, "/evaluation"),
        "split": knobs.resolve_split({}),
    }

    assert minimum_task_calls(spec, cases) == calls


# ---- the description -----------------------------------------------------------------------------


def test_every_strategy_that_can_run_is_in_the_catalogue_and_the_other_way_round() -> None:
    assert set(IMPLEMENTED) == set(STRATEGIES)


def test_the_description_lists_every_strategy_with_every_knob() -> None:
    described = {item["name"]: item for item in knobs.describe()}

    assert list(described) == list(STRATEGIES)
    for name, known in STRATEGIES.items():
        assert described[name]["description"]
        assert [knob["name"] for knob in described[name]["knobs"]] == list(known)
    json.dumps(knobs.describe(), allow_nan=False)


def test_a_described_knob_tells_its_type_default_range_and_choices() -> None:
    described = {
        knob["name"]: knob for item in knobs.describe() for knob in item["knobs"] if item["name"] == "beam_search"
    }

    assert described["beam_width"] == {
        "name": "beam_width",
        "type": "int",
        "default": 3,
        "low": 2,
        "high": 64,
        "choices": [],
        "note": "parents kept from round to round",
    }
    assert described["candidate_reranker"]["choices"] == ["score", "diversity"]
    assert (described["candidate_reranker"]["low"], described["candidate_reranker"]["high"]) == (None, None)
