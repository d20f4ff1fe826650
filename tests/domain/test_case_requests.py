"""Asking a model for test cases, and reading what it answers, however it is wrapped, cut off or wrong."""

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.case_requests import (
    KINDS,
    STRATEGIES,
    Seen,
    batches_of,
    check,
    check_expected,
    read_answer,
    request_for,
)

CASE = {"name": "one", "inputs": {"a": "x"}}
TWO = json.dumps([CASE, {"inputs": {"a": "y"}}])
CONTENT = {"template_source": "Say {{ a }}", "variables_schema": {"properties": {"a": {"type": "string"}}}}


@given(st.sampled_from(STRATEGIES), st.integers(1, 50))
def test_the_calls_ask_for_as_many_cases_as_are_wanted_at_most_ten_each(strategy: str, count: int) -> None:
    batches = batches_of(strategy, count)

    assert sum(size for _, size in batches) == count
    assert all(1 <= size <= 10 for _, size in batches)


def test_diverse_takes_every_kind_in_turn() -> None:
    sizes: Counter[str] = Counter()
    for kind, size in batches_of("diverse", 12):
        sizes[kind] += size

    assert list(sizes) == list(KINDS)
    assert list(sizes.values()) == [3, 3, 2, 2, 2]


@pytest.mark.parametrize(
    "text",
    [
        TWO,
        f"Here they are:\n```json\n{TWO}\n```\nMore?",
        json.dumps({"test_cases": json.loads(TWO)}),
        TWO[:-1] + ', {"name": "cut o',
        '{"inputs": {"a": "x"}, "name": "one"}\n{"inputs": {"a": "y"}}',
        "{not this} " + TWO,
        json.dumps([{"a": "x", "name": "one"}, {"a": "y"}]),
    ],
    ids=["plain", "fenced", "wrapped", "cut off", "lines", "after a brace", "bare values"],
)
def test_the_cases_of_an_answer_are_found_whatever_stands_around_them(text: str) -> None:
    assert read_answer(text, ["a"]) == [CASE, {"name": "", "inputs": {"a": "y"}}]


@pytest.mark.parametrize("text", ["", "I cannot do that.", "[1, 2]", '{"b": 1}', "{" * 5_000, '{"a":' * 5_000])
def test_an_answer_without_a_case_has_none(text: str) -> None:
    assert read_answer(text, ["a"]) == []


@given(st.text())
def test_no_answer_is_too_odd_to_be_read(text: str) -> None:
    assert isinstance(read_answer(text, ["a"]), list)


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({"a": "x"}, None),
        ({}, "inputs must be an object"),
        ("x", "inputs must be an object"),
        ({"b": "x"}, "a"),
        ({"a": 5}, "string"),
        ({"a": "\x00"}, "NUL"),
    ],
)
def test_a_case_must_fit_the_variables_and_their_schema(inputs: Any, problem: str | None) -> None:
    found = check(CONTENT, {"name": "", "inputs": inputs})

    assert found is None if problem is None else problem in str(found)


def test_a_case_that_is_nearly_the_same_as_an_earlier_one_is_known() -> None:
    seen = Seen([{"a": "The invoice 1234 arrived twice this morning."}])

    assert seen.is_near({"a": "the invoice 1234 arrived twice this morning!!"})
    assert not seen.is_near({"a": "Who decides about the meeting in Lisbon?"})
    assert seen.is_near({"a": "who decides about the meeting in Lisbon"})


def test_two_requests_for_the_same_kind_differ_and_hold_the_task_and_the_variables() -> None:
    first, second = (request_for(CONTENT, ["a"], "minimal", 10, batch=batch, description="cats") for batch in (1, 2))

    assert first != second
    for part in ("Say {{ a }}", '<variables>["a"]</variables>', "<schema>", "<about>cats</about>", "<count>10</count>"):
        assert part in first[-1]["content"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("billing", "billing"),
        ('{"category": "bug"}', {"category": "bug"}),
        ('["a"]', ["a"]),
        ("17", "17"),
        ({"category": "bug"}, {"category": "bug"}),
        (0, 0),
        (False, False),
        (None, None),
    ],
)
def test_what_is_expected_is_read_as_scorers_compare_it(written: Any, expected: Any) -> None:
    text = json.dumps([{**CASE, "expected": written}])

    assert read_answer(text, ["a"], with_expected=True) == [{**CASE, "expected": expected}]
    assert read_answer(text, ["a"]) == [CASE]


def test_a_case_that_says_nothing_of_it_expects_nothing() -> None:
    assert read_answer(TWO, ["a"], with_expected=True)[0] == {**CASE, "expected": None}


@pytest.mark.parametrize("expected", [None, "", "  \n"])
def test_nothing_is_no_expectation(expected: Any) -> None:
    assert check_expected(CONTENT, expected) == "the answer does not say what is expected"


@pytest.mark.parametrize("expected", ["x", 0, False, [], {}, {"a": 1}])
def test_any_other_value_is_one(expected: Any) -> None:
    assert check_expected(CONTENT, expected) is None


def test_an_expectation_fits_the_schema_of_the_answer() -> None:
    content = {**CONTENT, "response_schema": {"type": "object", "required": ["category"]}}

    assert check_expected(content, {"category": "bug"}) is None
    assert "category" in str(check_expected(content, {}))
    assert "/expected" in str(check_expected(content, "bug"))


def test_a_request_asks_for_what_is_expected_only_if_it_is_wanted() -> None:
    content = {**CONTENT, "response_schema": {"type": "object"}}
    plain, told = (
        request_for(content, ["a"], "minimal", 2, batch=1, description="", with_expected=wanted)[-1]["content"]
        for wanted in (False, True)
    )

    assert "expected" not in plain
    assert '<expected_schema>{"type":"object"}</expected_schema>' in told
    assert '"expected": …' in told
