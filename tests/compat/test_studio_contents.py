"""A prompt's content in the words of Prompt Studio and in ours, and back. Pure."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.compat.prompt_studio.contents import converted, dollars_in, from_content, to_content
from shared import templating
from shared.domain.content import render_messages
from shared.errors import InvalidTemplate, Unprocessable

EXAMPLE = {"inputs": {"ticket": "it {{ broke }} {%"}, "outputs": {"label": "bug", "score": 0.5}}
TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=40)
OBJECTS = st.dictionaries(TEXT, TEXT | st.integers(-(2**53), 2**53) | st.booleans() | st.none(), max_size=4)


def test_system_examples_and_user_become_messages_in_that_order() -> None:
    fields = {"system_prompt": "Be brief.", "user_prompt": "Ticket: {{ ticket }}", "few_shot_examples": [EXAMPLE]}

    content = to_content(fields)

    assert render_messages(content.body, {"ticket": "help"}) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": '{"ticket":"it {{ broke }} {%"}'},
        {"role": "assistant", "content": '{"label":"bug","score":0.5}'},
        {"role": "user", "content": "Ticket: help"},
    ]
    assert content.variables == ("ticket",)
    assert from_content(content.body) == fields


@given(
    st.lists(st.fixed_dictionaries({"inputs": OBJECTS, "outputs": OBJECTS}, optional={"explanation": TEXT}), max_size=3)
)
def test_examples_come_back_as_they_were(examples: list[dict[str, Any]]) -> None:
    body = to_content({"user_prompt": "x", "few_shot_examples": examples}).body

    without_empty = [{key: value for key, value in example.items() if value != ""} for example in examples]
    assert from_content(body) == {"system_prompt": None, "user_prompt": "x", "few_shot_examples": without_empty}


@given(st.text(alphabet="{%#}\r\n x\"'-raw", max_size=30))
def test_a_literal_renders_to_itself(text: str) -> None:
    assert templating.render(templating.literal(text), {}) == text


@pytest.mark.parametrize(
    ("given_text", "wanted"),
    [
        ("{name}", "{{ name }}"),
        ("a {x1} b {y_2}", "a {{ x1 }} b {{ y_2 }}"),
        ("{{name}}", "{{name}}"),
        ("{{ name }} and {name}", "{{ name }} and {{ name }}"),
        ("{% if name %}{name}{% endif %}", "{% if name %}{{ name }}{% endif %}"),
        ("{# {name} #}", "{# {name} #}"),
        ("{% raw %}{name}{% endraw %}", "{% raw %}{name}{% endraw %}"),
        ('{"name": 1}', '{"name": 1}'),
        ("{ name }", "{ name }"),
        ("{}", "{}"),
        ("{0}", "{0}"),
        ("{if}", "{if}"),
        ("${name}", "${name}"),
        ("$name <name>", "$name <name>"),
    ],
)
def test_only_a_plain_name_in_single_braces_is_a_placeholder(given_text: str, wanted: str) -> None:
    assert converted(given_text) == wanted


def test_dollars_are_placeholders_only_where_that_is_asked_for() -> None:
    text = "$name owes $5, US$total, {{ x }} $$y"

    assert converted(text, dollars=True) == "{{ name }} owes $5, US$total, {{ x }} $$y"
    assert dollars_in(text) == ["name"]


@given(
    st.lists(st.sampled_from(["{a}", "{{ a }}", "{", "}", "{%", "%}", "{#", "#}", "$a", "a", " ", "\n"]), max_size=12)
)
def test_what_was_converted_once_stays_as_it_is(pieces: list[str]) -> None:
    once = converted("".join(pieces))

    assert converted(once) == once


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"system_prompt": "ok", "user_prompt": "{{ x"}, "/user_prompt"),
        ({"system_prompt": "{{ x", "user_prompt": "ok"}, "/system_prompt"),
        ({"few_shot_examples": [EXAMPLE], "user_prompt": "{% y %}"}, "/user_prompt"),
    ],
)
def test_a_bad_template_is_named_by_its_own_field(fields: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InvalidTemplate) as caught:
        to_content(fields)

    assert [error.pointer for error in caught.value.errors] == [pointer]


@pytest.mark.parametrize("fields", [{}, {"system_prompt": "", "user_prompt": None}])
def test_a_prompt_without_any_text_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Unprocessable, match="/user_prompt"):
        to_content(fields)


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        [
            {"role": "user", "content": "{{ a }}"},
            {"role": "assistant", "content": "{}"},
            {"role": "user", "content": "c"},
        ],
        [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
        [{"role": "assistant", "content": "a"}],
        [{"type": "placeholder", "name": "history"}],
        [{"role": "user", "content": "[1]"}, {"role": "assistant", "content": "{}"}, {"role": "user", "content": "c"}],
    ],
)
def test_content_that_has_no_place_in_the_fields_is_not_forced_into_them(messages: list[dict[str, Any]]) -> None:
    assert from_content({"messages": messages}) is None


def test_a_text_template_is_a_user_prompt() -> None:
    found = from_content({"template_source": "Hi {{ name }}"})

    assert found == {"system_prompt": None, "user_prompt": "Hi {{ name }}", "few_shot_examples": []}


def test_what_else_a_version_carries_stays() -> None:
    base = {"template_source": "old", "model": {"provider": "simulated", "model_name": "simulated-small", "params": {}}}

    content = to_content({"user_prompt": "new"}, base)

    assert content.body == {"messages": [{"role": "user", "content": "new"}], "model": base["model"]}
