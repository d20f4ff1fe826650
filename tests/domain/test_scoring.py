"""Scorers: what an answer is worth, what is said about it, and which settings are refused."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import Unprocessable
from shared.scoring import SCORERS, Score, check_scorers, needs_expected, score

RIGHT, WRONG = Score(1.0, True), 0.0
quick = settings(max_examples=150, deadline=None)
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)


def scored(kind: str, answer: str, expected: Any = None, **given_settings: Any) -> Score:
    return score(check_scorers([{"type": kind, **given_settings}]), answer, expected)


# ---- every scorer --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(SCORERS))
@quick
@given(answer=st.one_of(st.text(), plain.map(json.dumps)), expected=plain)
def test_any_answer_gets_a_share_and_only_a_failed_one_gets_feedback(kind: str, answer: str, expected: Any) -> None:
    found = scored(kind, answer, expected)

    assert 0 <= found.value <= 1
    assert found.passed == (found.value == 1)
    assert bool(found.feedback) is not found.passed
    assert found == scored(kind, answer, expected)


@pytest.mark.parametrize("kind", sorted(SCORERS))
def test_a_long_wrong_answer_is_cut_in_the_feedback(kind: str) -> None:
    found = scored(kind, "x" * 10_000, "y" * 10_000)

    assert not found.passed
    assert len(found.feedback) < 500
    assert "..." in found.feedback


@pytest.mark.parametrize("kind", sorted(SCORERS))
def test_each_scorer_is_described_and_says_whether_it_compares(kind: str) -> None:
    assert SCORERS[kind].description
    assert needs_expected(check_scorers([{"type": kind}])) == (None if kind == "json_valid" else kind)


# ---- exact_match ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("billing", "billing"),
        ("  Billing.\n", "billing"),
        ('"billing"', "billing"),
        ("Ｂｉｌｌｉｎｇ", "billing"),
        ("cafe\u0301", "caf\u00e9"),
        ("STRASSE", "straße"),
        ("two\n  words", "two words"),
        ("ﬁne!", "fine"),
        ("42", 42),
        ("true", True),
        ("null", None),
        ('{"a": 2, "b": 1}', {"b": 1, "a": 2}),
        ("", ""),
    ],
)
def test_exact_match_looks_past_case_space_quotes_final_marks_and_unicode_forms(answer: str, expected: Any) -> None:
    assert scored("exact_match", answer, expected) == RIGHT


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("billings", "billing"), ("the billing", "billing"), ("", "billing"), ("4.2", "42"), ("café", "cafe")],
)
def test_exact_match_is_not_a_near_match(answer: str, expected: str) -> None:
    found = scored("exact_match", answer, expected)

    assert (found.value, found.passed) == (WRONG, False)
    assert found.feedback == f"expected {expected!r} got {answer!r}"


@pytest.mark.parametrize("answer", ["Billing", "billing ", '"billing"', "Ｂilling"])
def test_exact_match_without_normalize_wants_every_character(answer: str) -> None:
    assert scored("exact_match", answer, "billing", normalize=False).value == WRONG
    assert scored("exact_match", answer, answer, normalize=False) == RIGHT


# ---- contains ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected", "value", "feedback"),
    [
        ("The invoice and the refund", ["invoice", "refund"], 1.0, ""),
        ("The INVOICE", ["invoice", "refund"], 0.5, "missing: 'refund'"),
        ("nothing", ["invoice", "refund"], 0.0, "missing: 'invoice', 'refund'"),
        ("The invoice", "invoice", 1.0, ""),
        ("It is 42.", 42, 1.0, ""),
        ("It is 42 and 7", [42, 7], 1.0, ""),
        ("anything", [], 1.0, ""),
        ("Die STRASSE", "straße", 1.0, ""),
        ("cafe\u0301", "caf\u00e9", 1.0, ""),
    ],
)
def test_contains_is_the_share_of_the_expected_texts(answer: str, expected: Any, value: float, feedback: str) -> None:
    assert scored("contains", answer, expected) == Score(value, value == 1, feedback)


def test_contains_minds_the_case_when_told_to() -> None:
    assert scored("contains", "The INVOICE", "invoice", case_sensitive=True).value == WRONG
    assert scored("contains", "The invoice", "invoice", case_sensitive=True) == RIGHT


# ---- json_fields ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"category": "billing", "priority": "low"}', {"category": "billing", "priority": "low"}),
        ('\n {"priority": "Low", "category": "Billing.", "why": "…"} \n', {"category": "billing", "priority": "low"}),
        ('{"amount": 1}', {"amount": 1.0}),
        ('{"amount": "5"}', {"amount": 5}),
        ('{"who": {"first": "Ada", "last": "L"}}', {"who": {"last": "L", "first": "Ada"}}),
        ('{"tags": ["a", "b"]}', {"tags": ["a", "b"]}),
        ('{"end": null}', {"end": None}),
        ("{}", {"end": None}),
        ("{}", {}),
        ('{"answer": "yes"}', "yes"),
    ],
)
def test_json_fields_are_right_whatever_their_order_case_and_company(answer: str, expected: Any) -> None:
    assert scored("json_fields", answer, expected) == RIGHT


@pytest.mark.parametrize(
    ("answer", "expected", "value", "feedback"),
    [
        ('{"a": "x", "b": "y"}', {"a": "x", "b": "z"}, 0.5, "b: expected z got 'y'"),
        ('{"a": "x"}', {"a": "x", "b": "z", "c": 1, "d": 2}, 0.25, "b: expected z, the field is missing"),
        ('{"a": ["b", "a"]}', {"a": ["a", "b"]}, 0.0, """a: expected ["a", "b"] got '["b", "a"]'"""),
        ('{"a": true}', {"a": 1}, 0.0, "a: expected 1 got 'true'"),
        ("{}", {"a": "null"}, 0.0, "a: expected null, the field is missing"),
        ('{"a": 1.5}', {"a": 1}, 0.0, "a: expected 1 got '1.5'"),
        ('{"other": "yes"}', "yes", 0.0, "answer: expected yes, the field is missing"),
    ],
)
def test_json_fields_name_each_field_that_is_wrong(answer: str, expected: Any, value: float, feedback: str) -> None:
    found = scored("json_fields", answer, expected)

    assert (found.value, found.passed) == (value, False)
    assert found.feedback.startswith(feedback)


FENCED = 'Here you are:\n```json\n{"category": "billing"}\n```\nAnything else?'
WRAPPED = 'The answer is {"category": "billing"}, I think; not {"category": "account"}.'
TRICKY = 'In {braces}: {"category": "billing", "note": "a } in a text"}'


@pytest.mark.parametrize("answer", [FENCED, WRAPPED, TRICKY, "```\n" + '{"category": "billing"}' + "\n```"])
def test_an_object_inside_other_text_counts_only_when_lenient(answer: str) -> None:
    strict = scored("json_fields", answer, {"category": "billing"})

    assert scored("json_fields", answer, {"category": "billing"}, lenient=True) == RIGHT
    assert strict.value == WRONG
    assert strict.feedback.startswith("not JSON: the answer was ")


@pytest.mark.parametrize(
    "answer", ["", "billing", "{", "{'a': 1}", "[1]", '"a"', "null", "1", "```json\n{\n```", "{" * 500]
)
@pytest.mark.parametrize("lenient", [False, True])
def test_what_holds_no_object_is_not_json(answer: str, lenient: bool) -> None:
    found = scored("json_fields", answer, {"a": 1}, lenient=lenient)

    assert found.value == WRONG
    assert found.feedback.startswith("not JSON")


@pytest.mark.parametrize("depth", [50, 101, *range(900, 1_010, 2), 100_000])
def test_a_deeply_nested_answer_is_scored_and_stops_nobody(depth: int) -> None:
    answer = '{"a":' * depth + "1" + "}" * depth

    assert scored("json_fields", answer, {"a": 1}).value == WRONG
    assert scored("json_valid", answer).passed is (depth <= 50)


# ---- json_valid ----------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["{}", ' {"a": [1, {"b": null}]}\n', '{"a": "ü"}'])
def test_a_json_object_is_valid(answer: str) -> None:
    assert scored("json_valid", answer) == RIGHT


@pytest.mark.parametrize(
    "answer", ["", "{", "[]", '"text"', "{'a': 1}", '{"a": 1,}', '{"a": NaN}', '{"a": 1} more', FENCED]
)
def test_anything_else_is_not_valid(answer: str) -> None:
    found = scored("json_valid", answer)

    assert (found.value, found.passed) == (WRONG, False)
    assert found.feedback.startswith("not JSON")


# ---- several scorers -----------------------------------------------------------------------------


def test_several_scorers_make_a_weighted_mean_and_all_must_pass() -> None:
    scorers = check_scorers([{"type": "json_valid", "weight": 3}, {"type": "contains"}])

    half = score(scorers, '{"a": "x"}', ["x", "y"])
    none = score(scorers, "x", ["z"])

    assert half == Score(0.875, False, "missing: 'y'")
    assert none.value == 0
    assert none.feedback == "not JSON: the answer was 'x'; missing: 'z'"


def test_needs_expected_names_the_first_scorer_that_compares() -> None:
    assert needs_expected(check_scorers([{"type": "json_valid"}, {"type": "contains"}])) == "contains"
    assert needs_expected([]) is None


# ---- settings ------------------------------------------------------------------------------------


def test_defaults_are_filled_in() -> None:
    assert check_scorers([{"type": "exact_match"}, {"type": "json_fields", "weight": 2, "lenient": True}]) == [
        {"type": "exact_match", "weight": 1.0, "normalize": True},
        {"type": "json_fields", "weight": 2.0, "lenient": True},
    ]


@pytest.mark.parametrize(
    ("given_scorers", "pointer", "rule"),
    [
        ([], "/scorers", "at least one scorer is needed"),
        ([{}], "/scorers/0/type", "must be one of exact_match, contains, json_fields, json_valid"),
        ([{"type": "bleu"}], "/scorers/0/type", "must be one of"),
        ([{"type": ["json_valid"]}], "/scorers/0/type", "must be one of"),
        ([{"type": "json_valid"}, {"type": "contains", "weight": 0}], "/scorers/1/weight", "must be a number above 0"),
        ([{"type": "contains", "weight": -1}], "/scorers/0/weight", "must be a number above 0"),
        ([{"type": "contains", "weight": True}], "/scorers/0/weight", "must be a number above 0"),
        ([{"type": "contains", "weight": "1"}], "/scorers/0/weight", "must be a number above 0"),
        ([{"type": "contains", "weight": None}], "/scorers/0/weight", "must be a number above 0"),
        ([{"type": "contains", "weight": float("nan")}], "/scorers/0/weight", "must be a number above 0"),
        ([{"type": "contains", "weight": float("inf")}], "/scorers/0/weight", "must be a number above 0"),
        ([{"type": "contains", "weight": 10**400}], "/scorers/0/weight", "at most 1,000,000"),
        ([{"type": "contains", "weight": 1e308}], "/scorers/0/weight", "at most 1,000,000"),
        ([{"type": "contains", "case_sensitive": 1}], "/scorers/0/case_sensitive", "must be true or false"),
        ([{"type": "exact_match", "normalize": None}], "/scorers/0/normalize", "must be true or false"),
        ([{"type": "exact_match", "lenient": True}], "/scorers/0/lenient", "exact_match takes: normalize"),
        ([{"type": "json_valid", "lenient": True}], "/scorers/0/lenient", "json_valid takes: no settings"),
    ],
)
def test_a_bad_setting_is_named_with_its_rule(given_scorers: list[dict[str, Any]], pointer: str, rule: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        check_scorers(given_scorers)

    assert [error.pointer for error in refused.value.errors] == [pointer]
    assert rule in refused.value.errors[0].detail


def test_the_pointer_starts_where_the_caller_says() -> None:
    with pytest.raises(Unprocessable) as refused:
        check_scorers([{"type": "?"}], "/body/scorers")

    assert refused.value.errors[0].pointer == "/body/scorers/0/type"
