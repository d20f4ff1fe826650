"""What the OpenAI adapter sends beside the messages, and what it makes of an answer that is no text. On the wire."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai
import pytest

from shared.errors import ProviderError
from worker.providers import Answer, Request
from worker.providers.openai import OpenAIProvider

TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
SCHEMA = {"type": "object", "properties": {"town": {"type": "string"}}}
CALLS = [{"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"town":"Bonn"}'}}]


class Recorder:
    """A server that answers every request with `message`, and keeps what it was sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.message: dict[str, Any] = {"role": "assistant", "content": "Hello."}
        self.finish_reason = "stop"
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                recorder.sent.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                choice = {"index": 0, "message": recorder.message, "finish_reason": recorder.finish_reason}
                body = json.dumps({"id": "1", "object": "chat.completion", "choices": [choice]}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def generate(self, **fields: Any) -> Answer:
        with openai.OpenAI(
            api_key="none", base_url=f"http://127.0.0.1:{self.server.server_port}/v1", max_retries=0
        ) as client:
            request = Request(
                execution_id="01a",
                model_name="gpt-4o-mini",
                messages=[{"role": "user", "content": "How is the weather?"}],
                params={},
                sample=0,
                attempt=0,
                timeout_seconds=5.0,
                **fields,
            )
            return OpenAIProvider(client).generate(request)


@pytest.fixture
def provider() -> Iterator[Recorder]:
    recorder = Recorder()
    thread = threading.Thread(target=recorder.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield recorder
    recorder.server.shutdown()
    thread.join()
    recorder.server.server_close()


def test_tools_and_the_response_schema_are_sent_as_the_protocol_has_them(provider: Recorder) -> None:
    provider.generate(tools=[TOOL], response_schema=SCHEMA)

    (sent,) = provider.sent
    assert sent["tools"] == [TOOL]
    assert sent["response_format"] == {"type": "json_schema", "json_schema": {"name": "response", "schema": SCHEMA}}


@pytest.mark.parametrize("nothing", [{}, {"tools": None, "response_schema": None}, {"tools": []}])
def test_what_there_is_not_is_not_sent(provider: Recorder, nothing: Any) -> None:
    provider.generate(**nothing)

    assert set(provider.sent[0]) == {"model", "messages"}


@pytest.mark.parametrize("content", [None, "One moment."])
def test_an_answer_that_calls_tools_is_json_with_the_calls(provider: Recorder, content: str | None) -> None:
    provider.message = {"role": "assistant", "content": content, "tool_calls": CALLS}
    provider.finish_reason = "tool_calls"

    answer = provider.generate(tools=[TOOL])

    assert json.loads(answer.text) == {"content": content, "tool_calls": CALLS}
    assert answer.finish_reason == "tool_calls"


def test_a_refusal_is_an_answer_and_is_not_asked_for_again(provider: Recorder) -> None:
    provider.message = {"role": "assistant", "content": None, "refusal": "I will not."}

    answer = provider.generate(response_schema=SCHEMA)

    assert (answer.text, answer.finish_reason) == ("I will not.", "refusal")


@pytest.mark.parametrize("message", [{"content": None}, {}, {"content": 5}, {"content": None, "tool_calls": []}])
def test_an_answer_that_says_nothing_at_all_is_malformed(provider: Recorder, message: Any) -> None:
    provider.message = message

    with pytest.raises(ProviderError) as caught:
        provider.generate()

    assert (caught.value.code, caught.value.possibly_paid) == ("malformed_response", True)
