"""What every scorer promises: a share, the same each time, feedback where there is a fault, options that are checked.

A scorer that is added fails here until it has an example; all else follows from the catalogue.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import scoring
from shared.errors import Unprocessable
from shared.scoring import SCORERS, Delivered, Facts, Missing, Score, Told
from shared.scoring.catalogue import COMMON

MODEL = {"provider": "simulated", "model_name": "simulated-small"}
CRITERION = {"name": "helpful", "description": "It helps.", "weight": 1.0}


@dataclass(frozen=True)
class Example:
    """Options with which `right` scores 1 and `wrong` less, both beside `expected`; `replies` are what a model says."""

    right: str
    wrong: str
    expected: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    facts: tuple[Facts, Facts] = (Facts(), Facts())  # of the right answer, and of the wrong one
    replies: tuple[str, str] = ("", "")
    is_symmetric: bool = False


EXAMPLES: Mapping[str, Example] = {
    "exact_match": Example("Billing.", "account", "billing", is_symmetric=True),
    "contains": Example("the invoice", "nothing", "invoice"),
    "regex": Example("ticket 42", "ticket", options={"pattern": r"\d+"}),
    "numeric": Example("It is 42.", "It is 24.", 42),
    "json_valid": Example("{}", "none"),
    "json_schema": Example('{"a": 1}', '{"a": "x"}', options={"schema": {"properties": {"a": {"type": "integer"}}}}),
    "json_fields": Example('{"a": "x"}', '{"a": "y"}', {"a": "x"}),
    "f1": Example("the cat sat", "a dog ran", "The cat sat", is_symmetric=True),
    "precision": Example("cat", "cat dog", "the cat sat"),
    "recall": Example("see the cat sit", "cat", "the cat"),
    "levenshtein": Example("kitten", "sitting", "kitten", is_symmetric=True),
    "token_set": Example("sat the cat", "a dog", "the cat sat", is_symmetric=True),
    "rouge_l": Example("the cat sat", "sat dog", "the cat sat", is_symmetric=True),
    "bleu": Example("the cat sat on the mat", "a dog ran far away", "the cat sat on the mat"),
    "chrf": Example("the cat sat on the mat", "12 34 56", "the cat sat on the mat"),
    "length": Example("short", "x" * 30, options={"max": 20}),
    "latency": Example("a", "a", options={"limit_ms": 100}, facts=(Facts(latency_ms=0), Facts(latency_ms=60))),
    "cost": Example("a", "a", options={"limit_usd": 0.1}, facts=(Facts(cost_usd=0.0), Facts(cost_usd=0.06))),
    "embedding_similarity": Example(
        "a", "b", "a", {"model": MODEL}, replies=('{"embedding": [1, 0]}', '{"embedding": [1, 0]}')
    ),
    "llm_judge": Example(
        "a",
        "b",
        options={"model": MODEL, "criteria": [CRITERION]},
        replies=('{"scores": {"helpful": 1}, "reason": "good"}', '{"scores": {"helpful": 0}, "reason": "bad"}'),
    ),
    "composite": Example("billing", "account", "billing", {"parts": [{"type": "exact_match"}, {"type": "contains"}]}),
}
each = pytest.mark.parametrize("kind", sorted(SCORERS))
quick = settings(max_examples=60, deadline=None)
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)
answers = st.one_of(st.text(), plain.map(json.dumps))


def checked(kind: str, **options: Any) -> list[dict[str, Any]]:
    return scoring.check_scorers([{"type": kind, **EXAMPLES[kind].options, **options}])


def scored(kind: str, answer: str, expected: Any, facts: Facts, reply: str, **options: Any) -> Score | Missing:
    scorers = checked(kind, **options)
    bare = Delivered(answer, expected, facts)
    told = {ask.key: Told(reply) for ask in scoring.asks(scorers, bare)}
    if kind == "embedding_similarity" and answer != expected:  # the other text lies across
        told |= {ask.key: Told('{"embedding": [0, 1]}') for ask in scoring.asks(scorers, bare)[:1]}
    return scoring.score_delivered(scorers, Delivered(answer, expected, facts, {}, told))


def of_example(kind: str, which: int) -> Score | Missing:
    example = EXAMPLES[kind]
    answer = (example.right, example.wrong)[which]
    return scored(kind, answer, example.expected, example.facts[which], example.replies[which])


def test_each_scorer_has_an_example() -> None:
    assert set(EXAMPLES) == set(SCORERS)


@each
def test_a_right_answer_scores_one_and_a_wrong_one_less_with_the_reason(kind: str) -> None:
    right, wrong = of_example(kind, 0), of_example(kind, 1)

    assert right == Score(1.0, True)
    assert isinstance(wrong, Score)
    assert wrong.value < 1
    assert not wrong.passed
    assert wrong.feedback


@each
@quick
@given(answer=answers, expected=plain, latency=st.integers(0, 10**9), cost=st.floats(0, 1e6))
def test_any_answer_gets_a_share_that_is_the_same_each_time(
    kind: str, answer: str, expected: Any, latency: int, cost: float
) -> None:
    facts = Facts(latency, cost)

    found = scored(kind, answer, expected, facts, EXAMPLES[kind].replies[1])

    assert isinstance(found, Score)
    assert 0 <= found.value <= 1  # which no NaN is
    assert found == scored(kind, answer, expected, facts, EXAMPLES[kind].replies[1])
    assert bool(found.feedback) is (found.value < 1)
    json.dumps(found.details, allow_nan=False)


@each
@quick
@given(text=st.text())
def test_an_answer_that_is_what_is_expected_scores_one(kind: str, text: str) -> None:
    if not SCORERS[kind].compares(checked(kind)[0]) or kind in ("numeric", "json_fields"):
        return  # nothing is compared, or a value is expected that has another form than the answer

    assert scored(kind, text, text, Facts(), EXAMPLES[kind].replies[0]) == Score(1.0, True)


@pytest.mark.parametrize("kind", sorted(kind for kind, example in EXAMPLES.items() if example.is_symmetric))
@quick
@given(a=st.text(max_size=40), b=st.text(max_size=40))
def test_a_symmetric_scorer_is_symmetric(kind: str, a: str, b: str) -> None:
    there, back = scored(kind, a, b, Facts(), ""), scored(kind, b, a, Facts(), "")

    assert isinstance(there, Score)
    assert isinstance(back, Score)
    assert math.isclose(there.value, back.value, abs_tol=1e-9)


@each
def test_a_long_wrong_answer_is_cut_in_the_feedback(kind: str) -> None:
    example = EXAMPLES[kind]
    expected = "y" * 10_000 if isinstance(example.expected, str) else example.expected

    found = scored(kind, "x" * 10_000, expected, example.facts[1], example.replies[1])

    assert isinstance(found, Score)
    assert 0 < len(found.feedback) < 600


@each
def test_the_threshold_decides_who_has_passed_and_a_required_scorer_decides_the_score(kind: str) -> None:
    example, other = EXAMPLES[kind], {"type": "length", "max": 1_000}
    answer = Delivered(example.wrong, example.expected, example.facts[1])
    told = {ask.key: Told(example.replies[1]) for ask in scoring.asks(checked(kind), answer)}
    answer = Delivered(answer.text, answer.expected, answer.facts, {}, told)
    lenient = {"type": kind, **example.options, "threshold": 0.0}
    required = {"type": kind, **example.options, "required": True, "threshold": 1.0}
    if kind == "embedding_similarity":
        return  # both of its replies are alike here; the example above has what differs

    passed = scoring.score_delivered(scoring.check_scorers([lenient, other]), answer)
    vetoed = scoring.score_delivered(scoring.check_scorers([required, other]), answer)

    assert isinstance(passed, Score)
    assert isinstance(vetoed, Score)
    assert passed.passed
    assert (vetoed.value, vetoed.passed) == (0.0, False)
    assert f"{kind} is required" in vetoed.feedback


@each
def test_what_was_stored_can_be_sent_again_and_has_the_hash_of_its_options(kind: str) -> None:
    first = checked(kind)

    assert scoring.check_scorers(first) == first
    assert first[0]["hash"] != checked(kind, threshold=0.123)[0]["hash"]
    assert first[0]["hash"] == checked(kind, weight=7)[0]["hash"]
    with pytest.raises(Unprocessable) as refused:
        scoring.check_scorers([{**first[0], "hash": "0" * 16}])
    assert refused.value.errors[0].pointer == "/scorers/0/hash"


@each
def test_what_was_stored_before_an_option_was_there_has_its_default(kind: str) -> None:
    example = EXAMPLES[kind]
    old = [{"type": kind, **example.options}]
    answer = Delivered(example.right, example.expected, example.facts[0])
    told = {ask.key: Told(example.replies[0]) for ask in scoring.asks(old, answer)}

    found = scoring.score_delivered(old, Delivered(answer.text, answer.expected, answer.facts, {}, told))

    assert found == Score(1.0, True)


@each
def test_each_option_is_described_and_refused_by_its_name_when_it_is_of_another_kind(kind: str) -> None:
    assert SCORERS[kind].description
    for name, option in SCORERS[kind].all_options.items():
        assert option.note
        for bad in ({"a": {"b": []}}, 10**400, "", [None]):
            if (option.kind, type(bad)) in (("json_schema", dict), ("field_weights", dict)) or bad == option.default:
                continue
            with pytest.raises(Unprocessable) as refused:
                checked(kind, **{name: bad})
            assert refused.value.errors[0].pointer.startswith(f"/scorers/0/{name}"), (name, bad)


@each
def test_openapi_has_each_option_with_its_range_and_default(kind: str) -> None:
    (schema,) = [one for one in scoring.openapi()["oneOf"] if one["properties"]["type"]["enum"] == [kind]]

    for name, option in SCORERS[kind].all_options.items():
        shown = schema["properties"][name]
        assert shown["description"] == option.note
        assert ("default" in shown) is not option.is_required
        assert (name in schema["required"]) is option.is_required
    assert set(COMMON) < set(schema["properties"])


@pytest.mark.parametrize("kind", sorted(kind for kind in SCORERS if SCORERS[kind].asks))
def test_a_reply_that_is_not_there_or_cannot_be_read_is_a_missing_score_and_no_zero(kind: str) -> None:
    scorers = checked(kind)
    answer = Delivered("a", "b")
    asked = scoring.asks(scorers, answer)

    for told, code in (
        ({}, kind.split("_")[0].replace("llm", "judge") + "_failed"),
        ({ask.key: Told(error="rate_limited") for ask in asked}, "rate_limited"),
        (
            {ask.key: Told("I would rather not.") for ask in asked},
            kind.split("_")[0].replace("llm", "judge") + "_unreadable",
        ),
    ):
        found = scoring.score_delivered(scorers, Delivered("a", "b", told=told))

        assert isinstance(found, Missing)
        assert found.code == code
        assert found.feedback
