"""One log line per execution, with everything that an operator asks for first."""

import logging
from typing import Any

import pytest

from tests.support import Api, Drain, make_prompt, run_body


def test_each_execution_logs_one_line_when_it_has_ended(
    api: Api, drain: Drain, caplog: pytest.LogCaptureFixture
) -> None:
    make_prompt(api)
    submitted = api.expect(
        202, "POST", "/v1/executions:submit", run_body(), headers={"X-Request-Id": "from-the-caller"}
    )

    with caplog.at_level(logging.INFO):
        drain()

    (line,) = execution_lines(caplog)
    assert line["execution_id"] == submitted["execution_id"]
    assert line["request_id"] == "from-the-caller"
    assert (line["provider"], line["model_name"]) == ("simulated", "simulated-small")
    assert (line["status"], line["attempts"]) == ("succeeded", 1)
    assert line["prompt_tokens"] > 0
    assert line["response_tokens"] > 0
    assert line["cost_usd"] > 0
    assert line["latency_ms"] >= 0


def test_a_failed_execution_logs_its_error_class(api: Api, drain: Drain, caplog: pytest.LogCaptureFixture) -> None:
    make_prompt(api)
    api.expect(
        202,
        "POST",
        "/v1/executions:submit",
        run_body(model={"provider": "openai", "model_name": "gpt-4o-mini"}),
    )

    with caplog.at_level(logging.INFO):
        drain()

    (line,) = execution_lines(caplog)
    assert (line["status"], line["error_type"]) == ("failed", "no_credentials")


def execution_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    events: list[Any] = [record.msg for record in caplog.records]
    return [event for event in events if isinstance(event, dict) and event["event"] == "execution"]
