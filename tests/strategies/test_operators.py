"""Operators: what a proposer is asked, how its answer is read, and edits that keep every placeholder."""

import random
import re
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared import templating
from shared.knobs import LLM_OPERATORS, OPERATORS
from worker.strategies import operators
from worker.strategies.operators import PHRASES, PLACEHOLDER, Failure

EDITS = tuple(name for name in OPERATORS if name not in LLM_OPERATORS)
LINES = (
    *("Sort the ticket.", "Answer with one word.", "", "Known labels:", "  - billing"),
    *("Ticket: {{ ticket }}", "{{ ticket }}", "{% if vip %}", "{% endif %}"),
    *("{{", "ticket", "}}", "{# a note", "over two lines #}", "Notes: {{ ticket", "| upper }}"),
)
FAILURE = Failure(7, {"ticket": "My card was charged twice."}, "technical", "expected billing got technical")
EXAMPLE = Failure(9, {"ticket": "I cannot log in."}, "", "expected account")


@settings(max_examples=300, deadline=None)
@given(
    operator=st.sampled_from(EDITS),
    lines=st.lists(st.sampled_from(LINES), min_size=1, max_size=12),
    seed=st.integers(0, 1000),
)
@example(operator="delete", lines=["Sort it:", "{{", "ticket", "}}"], seed=1)
@example(operator="delete", lines=["{# a note", "{{", "over two lines #}", "One.", "Two.", "| upper }}"], seed=0)
def test_every_placeholder_survives_every_edit_in_its_order(operator: str, lines: list[str], seed: int) -> None:
    text = "\n".join(lines)

    edited = operators.edit(operator, text, random.Random(seed))

    assert placeholders(edited) == placeholders(text)


def placeholders(text: str) -> list[str]:
    """Those that stand outside of comments."""
    return PLACEHOLDER.findall(re.sub(r"\{#.*?#\}", "", text, flags=re.DOTALL))


@pytest.mark.parametrize("operator", EDITS)
@pytest.mark.parametrize("seed", range(20))
def test_an_edit_leaves_a_template_that_compiles_with_the_same_variables(operator: str, seed: int) -> None:
    text = "Sort it.\n{% if vip %}\nBe quick.\nBe kind.\n{% endif %}\nTicket:\n{{\n  ticket\n}}\nAnswer in one word."

    edited = operators.edit(operator, text, random.Random(seed))

    templating.check(edited)
    assert templating.variable_names(edited) == ["ticket", "vip"]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_each_edit_does_what_it_is_called(seed: int) -> None:
    text = "One.\nTwo.\n\nThree.\n{{ ticket }}"
    lines = text.split("\n")

    deleted, swapped, inserted = (operators.edit(name, text, random.Random(seed)).split("\n") for name in EDITS)

    assert EDITS == ("delete", "swap", "insert_phrase")
    assert len(Counter(lines) - Counter(deleted)) == 1
    assert not Counter(deleted) - Counter(lines)
    assert sorted(swapped) == sorted(lines)
    assert sum(one != other for one, other in zip(swapped, lines, strict=True)) == 2
    assert (Counter(inserted) - Counter(lines)).keys() <= set(PHRASES)
    assert len(inserted) == len(lines) + 1


def test_an_edit_depends_on_its_draw_alone() -> None:
    text = "\n".join(f"Rule {i}." for i in range(50))

    edited = [operators.edit("delete", text, random.Random(seed)) for seed in (1, 1, 2)]

    assert edited[0] == edited[1]
    assert edited[0] != edited[2]


@pytest.mark.parametrize("operator", ["delete", "swap"])
def test_the_last_movable_line_is_not_deleted_nor_swapped(operator: str) -> None:
    assert operators.edit(operator, "Sort it.\n{{ ticket }}", random.Random(0)) == "Sort it.\n{{ ticket }}"


def test_a_phrase_goes_to_the_top_when_the_last_line_introduces_the_input() -> None:
    edited = operators.edit("insert_phrase", "Sort it.\nThe ticket is:\n{{ ticket }}", random.Random(0))

    assert edited.split("\n")[0] in PHRASES
    assert edited.split("\n")[1:] == ["Sort it.", "The ticket is:", "{{ ticket }}"]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("<prompt>\nSort it.\n</prompt>", "Sort it."),
        ("<prompt>Sort it.</prompt>", "Sort it."),
        ("Sure!\n\n<prompt>\nSort it.\n\nNow.\n</prompt>\nI hope it helps.", "Sort it.\n\nNow."),
        ("I give it between <prompt> and </prompt>:\n<prompt>\nSort it.\n</prompt>", "Sort it."),
        ("<prompt>\nFirst try.\n</prompt>\nBetter:\n<prompt>\nSort it.\n</prompt>", "Sort it."),
        ("<prompt>\nAnswer so:\n```json\n{}\n```\n</prompt>", "Answer so:\n```json\n{}\n```"),
        ("Here:\n```\nSort it.\n```", "Sort it."),
        ("Here:\n```text\nSort it.\nNow.\n```\nDone.", "Sort it.\nNow."),
        ("Sort it.", None),
        ("", None),
        ("<prompt>\n\n</prompt>", None),
        ("<prompt>   </prompt>", None),
        ("```\n```", None),
        ("<prompt>\nSort it, and never an end", None),
    ],
)
def test_the_prompt_is_read_from_the_last_tags_else_from_a_fence(answer: str, text: str | None) -> None:
    assert operators.parse(answer) == text


@settings(max_examples=100, deadline=None)
@given(
    text=st.text(st.characters(exclude_characters="<`"), min_size=1).filter(lambda t: t.strip() and t == t.strip("\n"))
)
def test_a_text_between_tags_comes_back_as_it_was(text: str) -> None:
    assert operators.parse(f"Here you are:\n<prompt>\n{text}\n</prompt>\n") == text


@pytest.mark.parametrize("operator", LLM_OPERATORS)
def test_a_request_shows_the_prompt_and_asks_to_keep_its_placeholders(operator: str) -> None:
    text = "Sort {{ ticket }} for {{ name }}."

    messages = operators.request(operator, text, [FAILURE], [EXAMPLE])

    content = messages[-1]["content"]
    assert [message["role"] for message in messages] == ["system", "user"]
    assert f"<prompt>\n{text}\n</prompt>" in content
    assert "Keep these placeholders exactly as they are: {{ name }}, {{ ticket }}" in content


@pytest.mark.parametrize(
    ("operator", "failure_shown", "example_shown"),
    [("reflect", True, False), ("fresh_start", False, True), ("paraphrase", False, False), ("shorten", False, False)],
)
def test_only_reflection_shows_failures_and_only_a_fresh_start_shows_examples(
    operator: str, failure_shown: bool, example_shown: bool
) -> None:
    content = operators.request(operator, "Sort {{ ticket }}.", [FAILURE], [EXAMPLE])[-1]["content"]

    assert ("My card was charged twice." in content) is failure_shown
    assert ("Feedback: expected billing got technical" in content) is failure_shown
    assert ("I cannot log in." in content) is example_shown


def test_every_llm_operator_asks_something_else() -> None:
    asked = {
        name: operators.request(name, "Sort {{ ticket }}.", [FAILURE], [EXAMPLE])[1]["content"]
        for name in LLM_OPERATORS
    }

    assert len(set(asked.values())) == len(LLM_OPERATORS)


def test_a_prompt_without_placeholders_is_not_told_to_keep_any() -> None:
    content = operators.request("paraphrase", "Sort it.", [], [])[-1]["content"]

    assert "placeholder" not in content


def test_long_inputs_are_cut_where_they_are_shown() -> None:
    failure = Failure(1, {"ticket": "x" * 5_000}, "y" * 5_000, "z" * 5_000)

    content = operators.request("reflect", "Sort {{ ticket }}.", [failure], [])[-1]["content"]

    assert len(content) < 3_000
    assert "x" * 600 + " […]" in content
