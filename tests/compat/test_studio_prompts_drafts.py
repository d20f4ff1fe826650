"""POST /prompts/preview and /prompts/convert of Prompt Studio: nothing is stored."""

from typing import Any

import pytest

from tests.compat.studio import Studio
from tests.rows import everything
from tests.support import pointers


def test_a_preview_is_what_a_model_would_be_sent(studio: Studio) -> None:
    example = {"inputs": {"text": "Hello"}, "outputs": {"summary": "Hi"}}
    body = {"system_prompt": "Be brief.", "user_prompt": "{{text}} / {text}", "few_shot_examples": [example]}
    before = everything()

    shown = studio.data(200, "POST", "/prompts/preview", {**body, "variables": {"text": "Hello"}})
    same = studio.data(200, "POST", "/prompts/preview", {**body, "inputs": {"text": "Hello"}})

    assert shown == same
    assert shown == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": '{"text":"Hello"}'},
            {"role": "assistant", "content": '{"summary":"Hi"}'},
            {"role": "user", "content": "Hello / Hello"},  # the original made {Hello} of the first
        ],
        "variables": ["text"],
    }
    assert everything() == before


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"user_prompt": "{text}"}, "/variables/text"),
        ({"user_prompt": "{{ text"}, "/user_prompt"),
        ({}, "/user_prompt"),
        ({"user_prompt": "x", "variables": {}, "inputs": {}}, "/inputs"),
        ({"user_prompt": "x", "signature_id": 1}, "/signature_id"),
    ],
)
def test_a_preview_names_what_is_missing_and_leaves_no_placeholder(
    studio: Studio, fields: dict[str, Any], pointer: str
) -> None:
    answer = studio.request("POST", "/prompts/preview", fields)

    assert (answer.status_code, pointers(answer)) == (422, [pointer])


def test_convert_writes_the_placeholders_of_the_original_as_ours(studio: Studio) -> None:
    body = {"system_prompt": "You are $role.", "user_prompt": 'Reply as {"a": {x}} to {{ y }}'}

    found = studio.data(200, "POST", "/prompts/convert", body)

    assert found == {
        "system_prompt": "You are {{ role }}.",
        "user_prompt": 'Reply as {"a": {{ x }}} to {{ y }}',
        "variables": ["role", "x", "y"],
    }


def test_convert_needs_a_text(studio: Studio) -> None:
    answer = studio.request("POST", "/prompts/convert", {})

    assert (answer.status_code, pointers(answer)) == (422, ["/user_prompt"])
