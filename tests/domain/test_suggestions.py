"""Every rule finds what it is for, at its place, and lets be what is sound."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from shared.domain import prompts, suggestions
from shared.domain.suggestions import RULES, Draft, Suggestion, suggest

SOUND = (
    'Classify the ticket. Reply with JSON like {"category": "…", "priority": "…"}.\n'
    "Categories: billing, bug. Priorities: low, high.\n\n<ticket>\n{{ ticket }}\n</ticket>"
)
SOUND_CHAT = [
    {"role": "system", "content": "You are a support agent. Answer in two sentences."},
    {"role": "user", "content": "{{ question }}"},
]


def draft(template: str | None = None, messages: Any = None, **fields: Any) -> Draft:
    body = {"template_source": template} if messages is None else {"messages": messages}
    parts = [suggestions._part(body, place, message) for place, message in enumerate(prompts.message_templates(body))]
    return Draft(parts, messages is not None, frozenset(prompts.variables_of(body)), **fields)


def found(rule: str, *args: Any, **fields: Any) -> list[Suggestion]:
    return [one for one in suggest(draft(*args, **fields)) if one.rule == rule]


def chat(*messages: tuple[str, str]) -> list[Mapping[str, str]]:
    return [{"role": role, "content": content} for role, content in messages]


# rule, text, the line of the finding, fields of the draft
FAULTY: list[tuple[str, Any, int, dict[str, Any]]] = [
    ("undeclared_variable", "Reply in one word:\n{{ mood }}", 2, {"declared": frozenset({"other"})}),
    ("unused_variable", "Reply in one word:\n{{ mood }}", 1, {"declared": frozenset({"mood", "other"})}),
    ("no_output_format", "Tell me about the sea.", 1, {}),
    ("contradictory_instructions", "Be brief.\nExplain it in detail.", 2, {}),
    ("contradictory_instructions", "Answer in one word.\nExplain why.", 2, {}),
    ("contradictory_instructions", "Reply with only JSON.\nWrite plain text.", 2, {}),
    ("contradictory_instructions", "Be formal.\nUse slang.", 2, {}),
    ("contradictory_instructions", "Do not explain.\nThen give your reasons.", 2, {}),
    ("contradictory_instructions", "Always cite sources.\nNever cite sources.", 2, {}),
    ("undelimited_variable", "Translate.\nThe text {{ text }} is to be translated.", 2, {}),
    ("example_format", "Reply with JSON.\nInput: a\nOutput: billing", 3, {}),
    ("example_format", chat(("user", "Reply with JSON: a"), ("assistant", "billing"), ("user", "b")), 1, {}),
    ("long_prompt", "Reply with one word. " + "x" * 4_000, 1, {"context_tokens": 1_500, "model_name": "small"}),
    ("long_prompt", "Reply with one word. " + "x" * 4_000, 1, {"context_tokens": 1_500, "output_tokens": 10}),
    ("long_prompt", "Reply with one word. " + "x" * 40_000, 1, {}),
    ("repeated_sentence", "Answer the question in one sentence.\nanswer the question in  one sentence!", 2, {}),
    ("placeholder_leftover", "Reply in one word.\nTODO: more", 2, {}),
    ("placeholder_leftover", "Reply in one word.\n[insert the tone here]", 2, {}),
    ("placeholder_leftover", "Lorem ipsum dolor.", 1, {}),
    ("only_negative", "Do not be rude.\nNever mention prices.", 1, {}),
    ("unbalanced_delimiters", "Reply with (one word.", 1, {}),
    ("unbalanced_delimiters", "Reply.\nWith one word).", 2, {}),
    ("unbalanced_delimiters", 'Reply with the word "yes.', 1, {}),
    ("unbalanced_delimiters", "Reply:\n```\nyes", 2, {}),
    ("unbalanced_delimiters", "<ticket>\n{{ ticket }}", 1, {}),
    ("unbalanced_delimiters", "<a>\n<b>\n</a></b>", 3, {}),
    ("json_without_schema", "Classify.\nReply with JSON.", 2, {}),
    ("role_confusion", chat(("user", "Say one word."), ("system", "You are kind.")), 1, {}),
    ("role_confusion", chat(("user", "Say one word.\nAssistant: yes")), 2, {}),
    ("role_confusion", chat(("user", "Say one word."), ("assistant", "yes")), 1, {}),
    ("role_confusion", chat(("system", "Say one word.")), 1, {}),
    ("vague_wording", "List the dates,\nnames, etc.", 2, {}),
    ("no_instructions", "{{ text }}", 1, {}),
    ("hidden_characters", "Reply in one word.\n\u202eno\u202c", 2, {}),
    ("secret", "Reply in one word.\nThe key is sk-abcdefghijklmnopqrstuvwx.", 2, {}),
    ("single_brace_variable", "Reply in one word to\n{name}", 2, {}),
]


@pytest.mark.parametrize(("rule", "text", "line", "fields"), FAULTY, ids=lambda value: str(value)[:50])
def test_a_rule_finds_what_it_is_for_and_says_where(rule: str, text: Any, line: int, fields: dict[str, Any]) -> None:
    args = {"template": text} if isinstance(text, str) else {"messages": text}

    one = found(rule, **args, **fields)[0]

    assert one.line == line
    assert one.pointer.startswith("/template_source" if isinstance(text, str) else "/messages/")
    assert (one.rule, len(one.reason) > 20, len(one.example) > 5) == (rule, True, True)


# rule, a text that is close to what the rule is for and sound
HARMLESS: list[tuple[str, Any, dict[str, Any]]] = [
    ("undeclared_variable", "Reply in one word: {{ mood }}", {}),
    ("undeclared_variable", "{% for a in items %}{{ a }}{% endfor %}", {"declared": frozenset({"items"})}),
    ("unused_variable", "{% if mood %}Reply in one word.{% endif %}", {"declared": frozenset({"mood"})}),
    ("no_output_format", "Tell me about the sea in three sentences.", {}),
    ("no_output_format", "Tell me about the sea.", {"has_schema": True}),
    ("contradictory_instructions", "Be brief. Do not explain it in detail.", {}),
    ("contradictory_instructions", "Always cite sources. Never invent sources.", {}),
    (
        "undelimited_variable",
        'Translate "{{ text }}" and <b>{{ other }}</b>.\nTicket:\n{{ ticket }}\nName: {{ name }}',
        {},
    ),
    ("example_format", 'Reply with JSON.\nOutput: {"a": 1}\nOutput: ["a"]', {}),
    ("example_format", "Reply with one word.\nOutput: billing", {}),
    ("long_prompt", "Reply with one word. " + "x" * 4_000, {"context_tokens": 128_000}),
    ("repeated_sentence", "Answer the question in one sentence. Answer the question in two words. Yes. Yes.", {}),
    ("placeholder_leftover", "List every todo of the user, and <b>your</b> name.", {}),
    ("only_negative", "Do not be rude. Never mention prices. Answer politely.", {}),
    ("only_negative", "Do not be rude.", {}),
    ("unbalanced_delimiters", 'Reply (once) with ["a"] and {"b": 1}. :-)\n1) one\na) two\nCategory: <category>', {}),
    ("unbalanced_delimiters", "{% if a %}<b>{{ a }}</b><br>{% endif %}```\nx\n```", {}),
    ("json_without_schema", 'Reply with JSON like {"category": "bug"}.', {}),
    ("json_without_schema", "Reply with JSON.", {"has_schema": True}),
    ("json_without_schema", "Do not reply with JSON.", {}),
    ("role_confusion", SOUND_CHAT, {}),
    ("role_confusion", "System: reply in one word.", {}),
    ("vague_wording", "List the dates and the names, as the fetch said.", {}),
    ("no_instructions", "Summarize: {{ text }}", {}),
    ("hidden_characters", "Reply with 👩\u200d💻 or an é.", {}),
    ("secret", "Never print a key such as sk-… or an ask-for-details-immediately-please.", {}),
    ("single_brace_variable", 'Reply with {"name": 1}, ${HOME} or {{ name }} and {a b}.', {}),
]


@pytest.mark.parametrize(("rule", "text", "fields"), HARMLESS, ids=lambda value: str(value)[:50])
def test_a_rule_lets_be_what_is_sound(rule: str, text: Any, fields: dict[str, Any]) -> None:
    args = {"template": text} if isinstance(text, str) else {"messages": text}

    assert found(rule, **args, **fields) == []


def test_every_rule_is_tried_with_something_faulty_and_something_sound() -> None:
    assert {rule for rule, *_ in FAULTY} == {rule for rule, *_ in HARMLESS} == set(RULES)
    assert len(RULES) >= 12


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("a {{ b }} c", "a         c"),
        ("a {% if\nb %} c", "a      \n     c"),
        ("a {# b #} {{ c", "a         {{ c"),
        ('{{ "}}{%{%" }}', '      {%{%" }}'),
        ("{{{{ a }}", "         "),
    ],
)
def test_expressions_are_blanked_and_places_stay(source: str, words: str) -> None:
    assert suggestions._without_expressions(source) == words


def test_a_template_full_of_openings_is_looked_at_like_any_other() -> None:
    """Each opening was once followed to the end of the text: minutes for one request."""
    source = '{{ "}}' + "{%" * 90_000 + '" }}'

    (part,) = draft(source).parts

    assert len(part.words) == len(source)
    assert part.words.count("{%") == 90_000


def test_a_sound_prompt_gets_no_suggestion() -> None:
    assert suggest(draft(SOUND, declared=frozenset({"ticket"}), context_tokens=128_000)) == []
    assert suggest(draft(messages=SOUND_CHAT)) == []


def test_the_gravest_come_first_and_one_rule_says_no_more_than_twenty_things() -> None:
    listed = suggest(draft("Write as needed.\n" * 30 + "TODO"))

    assert [one.severity for one in listed] == sorted(
        (one.severity for one in listed), key=suggestions.SEVERITIES.index
    )
    assert listed[0].rule == "placeholder_leftover"
    assert len([one for one in listed if one.rule == "vague_wording"]) == 20


def test_a_prompt_too_long_for_its_model_is_an_error_and_one_that_fills_half_a_warning() -> None:
    text = "Reply with one word. " + "x" * 4_000

    # About 1,005 tokens, and 1,024 of answer.
    severities = [found("long_prompt", text, context_tokens=limit)[0].severity for limit in (1_500, 2_028)]

    assert severities == ["error", "error"]
    assert found("long_prompt", text, context_tokens=1_900, output_tokens=100)[0].severity == "warning"
    assert found("long_prompt", text, context_tokens=2_029) == []


def test_every_rule_stands_in_the_reference_with_its_severity() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/suggestions.md").read_text()

    rows = [line for line in page.splitlines() if re.match(r"\| `\w+` \|", line)]

    assert [row.split("`")[1] for row in rows] == list(RULES)
    for row, rule in zip(rows, RULES.values(), strict=True):
        assert f"| {rule.severity} |" in row
