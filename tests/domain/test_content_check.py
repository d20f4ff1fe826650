"""What content may say besides its text: placeholders, tools and schemas. What a hash covers, and never changes by."""

from collections.abc import Mapping
from typing import Any

import pytest

from shared.domain.content import MAX_TOOLS, check_content
from shared.errors import Unprocessable

MODEL = {"provider": "simulated", "model_name": "simulated-small", "params": {"temperature": 0.5}}
SYSTEM = {"role": "system", "content": "Be {{ tone }}."}
USER = {"role": "user", "content": "Hello {{ name }}."}
HISTORY = {"type": "placeholder", "name": "history"}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}}


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "get_weather", **function}}


@pytest.mark.parametrize(
    ("fields", "content_hash"),
    [
        (
            {"template_source": "Hello {{ name }}.\n"},
            "573b82d532ab016c968ab9e9ad7eff242df88dc841242f11a9a9424097ca44e7",
        ),
        ({"messages": [SYSTEM, USER]}, "c786f1f97084b00305b2a8049c243ad2534fb92e7028afaf329edafb9285aca0"),
        (
            {"template_source": "Hello {{ name }}.\n", "model": MODEL},
            "00ce0118a93b8b399bddd49e4d3e48fb2821c0a5a5a6589bc4951b9372eed8f4",
        ),
    ],
)
def test_content_of_before_there_were_tools_and_schemas_has_the_hash_that_it_had(
    fields: Mapping[str, Any], content_hash: str
) -> None:
    none: dict[str, Any] = {"tools": None, "response_schema": None, "variables_schema": None}

    assert check_content(**fields, **none).content_hash == content_hash
    assert check_content(**fields, tools=[], response_schema={}, variables_schema={}).content_hash == content_hash


@pytest.mark.parametrize(
    "beside",
    [
        {"tools": [WEATHER]},
        {"tools": [tool(description="of a town", parameters={"type": "object"})]},
        {"tools": [WEATHER, {"type": "function", "function": {"name": "other"}}]},
        {"tools": [{"type": "function", "function": {"name": "other"}}, WEATHER]},
        {"response_schema": SCHEMA},
        {"variables_schema": SCHEMA},
        {"response_schema": SCHEMA, "variables_schema": SCHEMA},
    ],
)
def test_tools_and_schemas_are_in_the_content_hash_and_not_in_the_template_hash(beside: Mapping[str, Any]) -> None:
    plain = check_content(messages=[USER])
    made = check_content(messages=[USER], **beside)

    assert made.template_hash == plain.template_hash
    assert made.content_hash != plain.content_hash
    assert made.body == {"messages": [USER], **beside}


def test_contents_that_differ_in_one_of_their_fields_differ_in_the_hash() -> None:
    contents = [
        check_content(messages=[USER]),
        check_content(messages=[HISTORY, USER]),
        check_content(messages=[USER, HISTORY]),
        check_content(messages=[{**HISTORY, "optional": True}, USER]),
        check_content(messages=[{**HISTORY, "name": "earlier"}, USER]),
        check_content(messages=[USER], tools=[WEATHER]),
        check_content(messages=[USER], tools=[tool(parameters={"type": "object", "title": "x"})]),
        check_content(messages=[USER], response_schema=SCHEMA),
        check_content(messages=[USER], variables_schema=SCHEMA),
    ]

    assert len({content.content_hash for content in contents}) == len(contents)
    assert len({content.template_hash for content in contents}) == 5  # the five lists of messages


def test_a_placeholder_that_says_it_is_not_optional_is_one_that_does_not_say_so() -> None:
    assert check_content(messages=[{**HISTORY, "optional": False}]).body == {"messages": [HISTORY]}


def test_a_placeholder_is_a_variable() -> None:
    assert check_content(messages=[SYSTEM, HISTORY, USER]).variables == ("history", "name", "tone")


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"messages": [{**HISTORY, "type": "text"}]}, "/messages/0/type"),
        ({"messages": [USER, {"type": "placeholder"}]}, "/messages/1/name"),
        ({"messages": [{**HISTORY, "role": "user"}]}, "/messages/0/role"),
        ({"messages": [{**HISTORY, "name": "my history"}]}, "/messages/0/name"),
        ({"messages": [{**HISTORY, "name": "_history"}]}, "/messages/0/name"),
        ({"messages": [{**HISTORY, "name": "h" * 65}]}, "/messages/0/name"),
        ({"messages": [{**USER, "name": "Ada"}]}, "/messages/0/name"),
        ({"messages": [{"role": "user"}]}, "/messages/0/content"),
        ({"messages": [{"content": "a"}]}, "/messages/0/role"),
        ({"tools": [{"type": "web_search", "function": {"name": "a"}}]}, "/tools/0/type"),
        ({"tools": [{"function": {"name": "a"}}]}, "/tools/0/type"),
        ({"tools": [{**WEATHER, "strict": True}]}, "/tools/0/strict"),
        ({"tools": [{"type": "function"}]}, "/tools/0/function"),
        ({"tools": [{"type": "function", "function": "a"}]}, "/tools/0/function"),
        ({"tools": [{"type": "function", "function": {}}]}, "/tools/0/function/name"),
        ({"tools": [tool(name="get weather")]}, "/tools/0/function/name"),
        ({"tools": [tool(name=5)]}, "/tools/0/function/name"),
        ({"tools": [tool(), tool(description="again")]}, "/tools/1/function/name"),
        ({"tools": [tool(description=5)]}, "/tools/0/function/description"),
        ({"tools": [tool(strict="yes")]}, "/tools/0/function/strict"),
        ({"tools": [tool(arguments={})]}, "/tools/0/function/arguments"),
        ({"tools": [tool(parameters=[])]}, "/tools/0/function/parameters"),
        ({"tools": [tool(parameters={"type": "x"})]}, "/tools/0/function/parameters/type"),
        ({"tools": [tool(name=f"tool_{number}") for number in range(MAX_TOOLS + 1)]}, "/tools"),
        ({"response_schema": {"type": 5}}, "/response_schema/type"),
        ({"variables_schema": {"required": "name"}}, "/variables_schema/required"),
        ({"variables_schema": {"properties": {"a": {"pattern": "a"}}}}, "/variables_schema/properties/a/pattern"),
        ({"variables_schema": {"type": "array"}}, "/variables_schema/type"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_stands(fields: Mapping[str, Any], pointer: str) -> None:
    text = {} if "messages" in fields else {"template_source": "Hello"}

    with pytest.raises(Unprocessable) as refused:
        check_content(**text, **fields)

    assert [error.pointer for error in refused.value.errors] == [pointer]
