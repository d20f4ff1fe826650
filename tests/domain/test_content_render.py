"""Rendering content: history spliced in, variables checked against their schema, one limit for all messages."""

import itertools
from typing import Any

import pytest

from shared import templating
from shared.domain.content import MAX_HISTORY, check_content, render_messages
from shared.errors import RenderFailed, Unprocessable

SYSTEM = {"role": "system", "content": "Be {{ tone }}."}
USER = {"role": "user", "content": "{{ question }}"}
HISTORY = {"type": "placeholder", "name": "history"}
EARLIER = [{"role": "user", "content": "Who are {{ you }}?"}, {"role": "assistant", "content": ""}]


def refused(body: Any, variables: Any) -> list[str]:
    with pytest.raises(RenderFailed) as failed:
        render_messages(body, variables)
    return [error.pointer for error in failed.value.errors]


def test_the_history_stands_where_its_placeholder_stood_and_is_not_filled_in() -> None:
    content = check_content(messages=[SYSTEM, HISTORY, USER])

    rendered = render_messages(content.body, {"tone": "kind", "question": "Why?", "history": EARLIER})

    assert rendered == [
        {"role": "system", "content": "Be kind."},
        *EARLIER,
        {"role": "user", "content": "Why?"},
    ]


def test_an_empty_history_leaves_the_other_messages() -> None:
    content = check_content(messages=[HISTORY, USER])

    assert render_messages(content.body, {"question": "Why?", "history": []}) == [{"role": "user", "content": "Why?"}]


def test_a_missing_history_is_an_error_unless_it_is_optional() -> None:
    required = check_content(messages=[HISTORY, USER])
    optional = check_content(messages=[{**HISTORY, "optional": True}, USER])

    assert refused(required.body, {"question": "Why?"}) == ["/variables/history"]
    assert render_messages(optional.body, {"question": "Why?"}) == [{"role": "user", "content": "Why?"}]


def test_nothing_is_sent_when_no_message_is_left() -> None:
    assert refused(check_content(messages=[HISTORY]).body, {"history": []}) == ["/variables"]


@pytest.mark.parametrize(
    ("history", "pointer"),
    [
        (None, "/variables/history"),
        ("Hello", "/variables/history"),
        ({"role": "user", "content": "a"}, "/variables/history"),
        ([EARLIER[0], "a"], "/variables/history/1"),
        ([{"role": "user"}], "/variables/history/0"),
        ([{**EARLIER[0], "name": "Ada"}], "/variables/history/0"),
        ([{"role": "tool", "content": "a"}], "/variables/history/0/role"),
        ([{"role": "user", "content": ["a"]}], "/variables/history/0/content"),
        ([EARLIER[0]] * (MAX_HISTORY + 1), "/variables/history"),
    ],
)
def test_a_history_that_is_none_is_refused_where_it_is_not(history: Any, pointer: str) -> None:
    content = check_content(messages=[{**HISTORY, "optional": True}, USER])
    render_messages(content.body, {"question": "Why?", "history": [EARLIER[0]] * MAX_HISTORY})

    assert refused(content.body, {"question": "Why?", "history": history}) == [pointer]


def test_the_history_counts_in_the_size_of_the_prompt() -> None:
    content = check_content(messages=[HISTORY])
    message = {"role": "user", "content": "x" * 100_000}
    render_messages(content.body, {"history": [message] * 2})

    with pytest.raises(Unprocessable, match="200000 bytes"):
        render_messages(content.body, {"history": [message, message, {"role": "user", "content": "x"}]})


def test_every_variable_that_does_not_fit_its_schema_is_named() -> None:
    schema = {"required": ["tone", "question"], "properties": {"question": {"type": "string"}, "n": {"maximum": 3}}}
    content = check_content(messages=[SYSTEM, USER], variables_schema=schema)

    assert render_messages(content.body, {"tone": "kind", "question": "Why?"})[1]["content"] == "Why?"
    assert refused(content.body, {"question": 5, "n": 4}) == ["/variables/tone", "/variables/question", "/variables/n"]


def test_a_schema_does_not_change_how_a_value_is_printed() -> None:
    schema = {"properties": {"question": {"type": "array"}}}
    typed = check_content(messages=[USER], variables_schema=schema)

    assert render_messages(typed.body, {"question": [1, True]}) == [{"role": "user", "content": "[1, True]"}]
    assert render_messages(check_content(messages=[USER]).body, {"question": [1, True]})[0]["content"] == "[1, True]"


def test_all_messages_of_a_prompt_share_one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a clock that goes on by half a second whenever it is read."""
    content = check_content(messages=[{"role": "user", "content": "Hello {{ 1 }}"}] * 4)
    seconds = iter(range(1_000))
    render_messages(content.body, {})

    monkeypatch.setattr(templating.time, "thread_time", lambda: next(seconds) / 2)

    with pytest.raises(RenderFailed, match="took longer than 1 s"):
        render_messages(content.body, {})


def test_on_a_busy_machine_a_prompt_may_wait_for_longer_than_it_may_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of ten thousand innocent items was refused: its thread had waited for its turn for a second."""
    schema = {"properties": {"question": {"type": "string"}}}
    content = check_content(messages=[SYSTEM, USER], variables_schema=schema)
    minutes = itertools.count()

    monkeypatch.setattr(templating.time, "monotonic", lambda: 60.0 * next(minutes))

    assert render_messages(content.body, {"tone": "kind", "question": "Why?"})[1]["content"] == "Why?"
