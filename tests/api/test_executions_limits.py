"""A prompt that is too large once rendered is refused before anything is queued: cut, it would say something else."""

from typing import Any

import pytest

from tests.rows import everything
from tests.support import Api, Drain, make_prompt, pointers, run_body

LIMIT = 200_000


@pytest.mark.parametrize("path", ["/v1/executions:run", "/v1/executions:submit"])
def test_a_prompt_that_is_too_large_once_rendered_is_a_422_and_leaves_no_row(api: Api, path: str) -> None:
    make_prompt(api, template="{{ name }}")
    before = everything()

    answer = api.post(path, run_body(variables={"name": "x" * (LIMIT + 1)}))

    assert (answer.status_code, pointers(answer)) == (422, ["/variables"])
    assert "200000 bytes" in answer.get_json()["detail"]
    assert everything() == before


def test_the_messages_of_a_chat_share_the_limit(api: Api) -> None:
    messages = [{"role": "user", "content": "{{ name }}"}] * 2
    api.expect(200, "PUT", "/v1/prompts/greeter", {"messages": messages, "set_active": True})
    before = everything()

    answer = api.post("/v1/executions:submit", run_body(variables={"name": "é" * (LIMIT // 4) + "x"}))

    assert (answer.status_code, pointers(answer)) == (422, ["/variables"])
    assert everything() == before


def test_a_prompt_of_the_largest_size_is_sent_whole(api: Api, drain: Drain) -> None:
    make_prompt(api, template="{{ name }}")
    largest = "é" * (LIMIT // 2)
    submitted = api.expect(202, "POST", "/v1/executions:submit", run_body(variables={"name": largest}))

    drain()

    done: Any = api.expect(200, "GET", f"/v1/executions/{submitted['execution_id']}")
    assert (done["status"], done["truncated"]) == ("succeeded", False)
    assert done["messages"][0]["content"] == largest
    assert done["response_bytes"] == len(done["response_text"].encode())
