"""What makes two calls one call, and what a call may cost at most: tools and the response schema are part of both."""

import uuid
from typing import Any

from shared.domain.executions import NewExecution
from shared.domain.providers import Quote

QUOTE = Quote("simulated", "simulated-small", (), 150_000_000, 600_000_000)
TOOL = {"type": "function", "function": {"name": "get_weather"}}
OTHER = {"type": "function", "function": {"name": "get_time"}}
SCHEMA = {"type": "object"}


def call(**fields: Any) -> NewExecution:
    messages = [{"role": "user", "content": "hi"}]
    return NewExecution(uuid.UUID(int=1), QUOTE, {"max_new_tokens": 10}, messages, **fields)


def test_a_call_of_before_there_were_tools_has_the_key_that_it_had() -> None:
    key = "c6baaf6b319169eaf5434639fd512124684bb91ad3924612f2e7d60b9c491f05"

    assert call().call_key == key
    assert call(tools=None, response_schema=None).call_key == key
    assert call(tools=[], response_schema={}).call_key == key


def test_calls_that_offer_other_tools_or_ask_for_another_form_are_other_calls() -> None:
    beside: list[dict[str, Any]] = [
        {},
        {"tools": [TOOL]},
        {"tools": [OTHER]},
        {"tools": [TOOL, OTHER]},
        {"tools": [OTHER, TOOL]},
        {"response_schema": SCHEMA},
        {"response_schema": {"type": "array"}},
        {"tools": [TOOL], "response_schema": SCHEMA},
    ]

    assert len({call(**fields).call_key for fields in beside}) == len(beside)
    assert call(tools=[TOOL]).call_key == call(tools=[dict(reversed(TOOL.items()))]).call_key


def test_what_is_sent_beside_the_messages_is_in_the_bound_of_the_call() -> None:
    plain = call()
    large = {"type": "function", "function": {"name": "a", "description": "é" * 1_000}}

    tokens, nano = call(tools=[large], response_schema={"title": "x" * 500}).bound

    assert tokens - plain.bound[0] >= 2_500  # a byte may be a token
    assert nano - plain.bound[1] == QUOTE.cost_nano(tokens - plain.bound[0], 0)


def test_what_is_sent_beside_the_messages_is_in_the_size_of_the_call() -> None:
    assert call().size() == 2
    assert call(response_schema={"title": "x" * 500}).size() >= 502
