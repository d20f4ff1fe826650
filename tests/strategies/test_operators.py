"""Operators: what a proposer is asked, how its answer is read, and edits that keep every placeholder."""

import random
import re
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared import templating
from shared.knobs import EDITS, LLM_OPERATORS
from worker.strategies import edits, operators
from worker.strategies.edits import PHRASES
from worker.strategies.operators import Failure, Shown
from worker.strategies.placeholders import PLACEHOLDER

LEVELS = ("sentence", "line", "section")
REQUESTS = (*LLM_OPERATORS, "de_llm", "apply_gradient", "gradient")
LINES = (
    *("Sort the ticket.", "Answer with one word.", "", "Known labels:", "  - billing"),
    *("Ticket: {{ ticket }}", "{{ ticket }}", "{% if vip %}", "{% endif %}"),
    *("{{", "ticket", "}}", "{# a note", "over two lines #}", "Notes: {{ ticket", "| upper }}"),
)
FAILURE = Failure(7, {"ticket": "My card was charged twice."}, "technical", "expected billing got technical")
EXAMPLE = Failure(9, {"ticket": "I cannot log in."}, "", "expected account")
SHOWN = Shown([FAILURE], [EXAMPLE], ["Another {{ ticket }}."], [("An earlier {{ ticket }}.", 0.25)], "It is too short.")


@settings(max_examples=300, deadline=None)
@given(
    operator=st.sampled_from(EDITS),
    level=st.sampled_from(LEVELS),
    lines=st.lists(st.sampled_from(LINES), min_size=1, max_size=12),
    seed=st.integers(0, 1000),
)
@example(operator="delete", level="line", lines=["Sort it:", "{{", "ticket", "}}"], seed=1)
@example(
    operator="delete",
    level="line",
    lines=["{# a note", "{{", "over two lines #}", "One.", "Two.", "| upper }}"],
    seed=0,
)
def test_every_placeholder_survives_every_edit_in_its_order(
    operator: str, level: str, lines: list[str], seed: int
) -> None:
    text = "\n".join(lines)

    edited = edits.edit(operator, text, random.Random(seed), level=level, deleted=["Old rule.\n{{ other }}"])

    assert placeholders(edited) == placeholders(text)


def placeholders(text: str) -> list[str]:
    """Those that stand outside of comments."""
    return PLACEHOLDER.findall(re.sub(r"\{#.*?#\}", "", text, flags=re.DOTALL))


@pytest.mark.parametrize("operator", EDITS)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("seed", range(20))
def test_an_edit_leaves_a_template_that_compiles_with_the_same_variables(operator: str, level: str, seed: int) -> None:
    text = "Sort it.\n{% if vip %}\nBe quick.\nBe kind.\n{% endif %}\nTicket:\n{{\n  ticket\n}}\nAnswer in one word."

    edited = edits.edit(operator, text, random.Random(seed), level=level, deleted=["Be exact. {{ no }}"])

    templating.check(edited)
    assert templating.variable_names(edited) == ["ticket", "vip"]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_each_edit_does_what_it_is_called(seed: int) -> None:
    text = "One.\nTwo.\n\nThree.\nFour.\n{{ ticket }}"
    lines = text.split("\n")
    made = {
        name: edits.edit(name, text, random.Random(seed), deleted=["Zero.\nOne.\n{{ ticket }}"]).split("\n")
        for name in EDITS
    }

    assert len(Counter(lines) - Counter(made["delete"])) == 1
    assert not Counter(made["delete"]) - Counter(lines)
    assert sorted(made["swap"]) == sorted(made["move"]) == sorted(lines)
    assert sum(one != other for one, other in zip(made["swap"], lines, strict=True)) == 2
    assert made["move"] != lines
    assert (made["move"][-1], made["move"][2]) == ("{{ ticket }}", "")
    ((copied, times),) = (Counter(made["duplicate"]) - Counter(lines)).items()
    assert times == 1
    assert copied in lines
    assert Counter(made["add_back"]) - Counter(lines) == {"Zero.": 1}
    assert (Counter(made["insert_phrase"]) - Counter(lines)).keys() <= set(PHRASES)
    assert len(made["insert_phrase"]) == len(lines) + 1
    assert made["format_toggle"] != lines


def test_bullets_begin_lines_and_stand_in_none() -> None:
    """Of sentences, each had one: "- Be brief. - Be kind."."""
    text = "Sort it. Be brief.\nGo on. Be kind."
    made = {edits.edit("format_toggle", text, random.Random(seed), level="sentence") for seed in range(40)}

    assert "- Sort it. Be brief.\n- Go on. Be kind." in made
    assert not [one for one in made if " - " in one]
    assert text in {
        edits.edit("format_toggle", "- Sort it. Be brief.\n- Go on. Be kind.", random.Random(seed), level="sentence")
        for seed in range(40)
    }


def test_the_heading_of_a_section_is_a_heading_whatever_follows_it() -> None:
    text = "# Rules\nOne.\n\n## More rules\nTwo."
    made = {edits.edit("format_toggle", text, random.Random(seed), level="section") for seed in range(40)}

    assert "RULES:\nOne.\n\nMORE RULES:\nTwo." in made


def test_a_move_takes_one_unit_past_others_which_keep_their_order() -> None:
    text = "A.\nB.\nC.\nD."
    moved = {edits.edit("move", text, random.Random(seed)) for seed in range(60)}

    assert "B.\nC.\nD.\nA." in moved
    assert "D.\nA.\nB.\nC." in moved
    assert all(sorted(one.split("\n")) == ["A.", "B.", "C.", "D."] for one in moved)


def test_what_was_deleted_comes_back_only_if_it_is_gone() -> None:
    here = "One.\n{{ ticket }}"

    assert edits.edit("add_back", here, random.Random(0), deleted=[here]) == here
    assert edits.edit("add_back", here, random.Random(0), deleted=[]) == here


@pytest.mark.parametrize(
    ("text", "level", "free"),
    [
        ("Sort it. Be brief.\nGo.", "sentence", ["Sort it.", "Be brief.", "Go."]),
        (
            "Use labels, e.g. Billing or i.e. Money. Stop.",
            "sentence",
            ["Use labels, e.g. Billing or i.e. Money.", "Stop."],
        ),
        ("Ask Dr. Who. Then v. 2.5 is it! Yes?", "sentence", ["Ask Dr. Who.", "Then v. 2.5 is it!", "Yes?"]),
        ("Keep. Sort {{ ticket }}. Go.\nEnd. Now.", "sentence", ["End.", "Now."]),
        ("One. Two.\nThree.", "line", ["One. Two.", "Three."]),
        ("```\nGo on. Do.\n```\nBe quick. Go.", "sentence", ["Be quick.", "Go."]),
        ("# Rules\nOne.\n\nTwo.\n{{ ticket }}\n\nThree.", "section", ["# Rules\nOne.", "Three."]),
    ],
)
def test_a_text_is_cut_into_the_units_of_its_level(text: str, level: str, free: list[str]) -> None:
    units = edits.cut(text, level)

    assert [units.parts[i] for i in units.free] == free
    assert units.text == text


@settings(max_examples=200, deadline=None)
@given(
    level=st.sampled_from(LEVELS),
    lines=st.lists(st.sampled_from((*LINES, "One. Two! Three?", "```", "# Head")), min_size=1, max_size=12),
)
def test_the_units_of_a_text_are_the_text(level: str, lines: list[str]) -> None:
    text = "\n".join(lines)

    assert edits.cut(text, level).text == text


def test_deleting_a_sentence_leaves_the_lines_as_they_were() -> None:
    text = "One. Two. Three.\nFour.\nFive."

    made = {edits.edit("delete", text, random.Random(seed), level="sentence") for seed in range(60)}

    assert made == {
        "Two. Three.\nFour.\nFive.",
        "One. Three.\nFour.\nFive.",
        "One. Two.\nFour.\nFive.",
        "One. Two. Three.\nFive.",
        "One. Two. Three.\nFour.",
    }


@pytest.mark.parametrize("operator", ["one_point", "two_point", "uniform"])
@pytest.mark.parametrize("seed", range(10))
def test_a_crossover_mixes_the_free_units_and_keeps_the_rest_of_the_first(operator: str, seed: int) -> None:
    mine, theirs = "A.\nB.\nTicket: {{ ticket }}\nC.\nD.", "W.\n{{ ticket }} is it.\nX.\nY.\nZ."

    mixed = edits.mix(operator, mine, theirs, random.Random(seed), level="line")

    lines = mixed.split("\n")
    assert "Ticket: {{ ticket }}" in lines
    assert set(lines) <= {*mine.split("\n"), *theirs.split("\n")} - {"{{ ticket }} is it."}
    assert len(set(lines)) == len(lines)


def test_each_crossover_exchanges_what_it_is_called() -> None:
    mine, theirs = "\n".join("ABCDEFGH"), "\n".join("abcdefgh")
    made = {
        name: {edits.mix(name, mine, theirs, random.Random(seed), level="line").replace("\n", "") for seed in range(40)}
        for name in ("one_point", "two_point", "uniform")
    }

    assert all(re.fullmatch("[A-Z]+[a-z]+", one) for one in made["one_point"])
    assert all(re.fullmatch("[A-Z]+[a-z]*[A-Z]+", one) for one in made["two_point"])
    assert any(re.search("[a-z]", one) for one in made["two_point"])
    assert any(re.search("[a-z][A-Z]+[a-z]", one) for one in made["uniform"])
    assert edits.mix("uniform", mine, theirs, random.Random(0), level="line", share=0.0) == mine
    assert edits.mix("uniform", mine, theirs, random.Random(0), level="line", share=1.0) == theirs


def test_a_crossover_of_too_few_units_is_uniform() -> None:
    pairs = [("one_point", "A.", "X."), ("two_point", "A.\nB.", "X.\nY.")]

    for operator, mine, theirs in pairs:
        made = {edits.mix(operator, mine, theirs, random.Random(seed), level="line") for seed in range(40)}
        assert made == {edits.mix("uniform", mine, theirs, random.Random(seed), level="line") for seed in range(40)}


def test_an_edit_depends_on_its_draw_alone() -> None:
    text = "\n".join(f"Rule {i}." for i in range(50))

    edited = [edits.edit("delete", text, random.Random(seed)) for seed in (1, 1, 2)]

    assert edited[0] == edited[1]
    assert edited[0] != edited[2]


@pytest.mark.parametrize("operator", ["delete", "swap", "move"])
def test_the_last_movable_line_is_not_deleted_nor_swapped(operator: str) -> None:
    assert edits.edit(operator, "Sort it.\n{{ ticket }}", random.Random(0)) == "Sort it.\n{{ ticket }}"


def test_a_phrase_goes_to_the_top_when_the_last_line_introduces_the_input() -> None:
    edited = edits.edit("insert_phrase", "Sort it.\nThe ticket is:\n{{ ticket }}", random.Random(0))

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


@pytest.mark.parametrize("operator", [name for name in REQUESTS if name != "gradient"])
def test_a_request_shows_the_prompt_and_asks_to_keep_its_placeholders(operator: str) -> None:
    text = "Sort {{ ticket }} for {{ name }}."

    messages = operators.request(operator, text, SHOWN)

    content = messages[-1]["content"]
    assert [message["role"] for message in messages] == ["system", "user"]
    assert f"<prompt>\n{text}\n</prompt>" in content
    assert "Keep these placeholders exactly as they are: {{ name }}, {{ ticket }}" in content


@pytest.mark.parametrize("operator", REQUESTS)
def test_a_request_shows_what_its_operator_works_with_and_nothing_else(operator: str) -> None:
    content = operators.request(operator, "Sort {{ ticket }}.", SHOWN)[-1]["content"]

    assert ("My card was charged twice." in content) is (operator in ("reflect", "gradient"))
    assert ("Feedback: expected billing got technical" in content) is (operator in ("reflect", "gradient"))
    assert ("I cannot log in." in content) is (operator in ("fresh_start", "induce_rules"))
    assert ("Another {{ ticket }}." in content) is (operator in ("crossover_llm", "de_llm"))
    assert ("Score 0.25:\n<earlier>\nAn earlier {{ ticket }}." in content) is (operator == "opro")
    assert ("It is too short." in content) is (operator == "apply_gradient")


def test_every_operator_asks_something_else() -> None:
    asked = {name: operators.request(name, "Sort {{ ticket }}.", SHOWN)[1]["content"] for name in REQUESTS}

    assert len(set(asked.values())) == len(REQUESTS)


def test_a_repair_is_asked_with_what_is_wrong() -> None:
    content = operators.request("repair", "Sort it.", Shown(note="it lost {{ ticket }}"))[-1]["content"]

    assert "<prompt>\nSort it.\n</prompt>" in content
    assert "it lost {{ ticket }}" in content


@pytest.mark.parametrize(
    ("answer", "note"),
    [
        ("Well:\n<reasons>\n- One.\n- Two.\n</reasons>\nBye.", "- One.\n- Two."),
        ("It says too little.", "It says too little."),
        ("x" * 5_000, "x" * 2_000),
    ],
)
def test_a_critique_is_read_from_its_tags_else_whole_and_cut(answer: str, note: str) -> None:
    assert operators.parse_note(answer) == note


def test_a_prompt_without_placeholders_is_not_told_to_keep_any() -> None:
    content = operators.request("paraphrase", "Sort it.", Shown())[-1]["content"]

    assert "placeholder" not in content


def test_long_inputs_are_cut_where_they_are_shown() -> None:
    failure = Failure(1, {"ticket": "x" * 5_000}, "y" * 5_000, "z" * 5_000)

    content = operators.request("reflect", "Sort {{ ticket }}.", Shown([failure]))[-1]["content"]

    assert len(content) < 3_000
    assert "x" * 600 + " […]" in content
