"""The simulated model, called in this process: for a first run without a key, and for tests.

It calls no tool and follows no response schema.
"""

import time
from collections.abc import Callable

from worker import simulator
from worker.providers import Answer, Request
from worker.simulator import faults


class SimulatedProvider:
    def generate(self, request: Request) -> Answer:
        return _answer(request, simulator.reply_to)

    def embed(self, request: Request) -> Answer:
        return _answer(request, simulator.embedding_of)


def _answer(request: Request, ask: Callable[[simulator.SimulatedCall], simulator.Reply]) -> Answer:
    started = time.monotonic()
    params = dict(request.params)
    if "max_new_tokens" in params:
        params["max_tokens"] = params.pop("max_new_tokens")
    call = simulator.SimulatedCall(request.model_name, request.messages, params, request.sample, request.attempt)
    faults.raise_if_any(call)
    reply = ask(call)
    simulator.wait(reply)
    return Answer(
        text=reply.text,
        prompt_tokens=reply.prompt_tokens,
        response_tokens=reply.response_tokens,
        latency_ms=round((time.monotonic() - started) * 1000),
        finish_reason=reply.finish_reason,
    )


def connect() -> SimulatedProvider:
    return SimulatedProvider()
