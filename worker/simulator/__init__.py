"""A stand-in for a language model: offline, free, deterministic. It ranks mechanics, not writing.

A hash of the world's seed, the model, the settings, the content and the sample number decides every
answer; an injected fault also hashes the attempt. Nothing is counted or remembered, so any process
gives the same answer to the same call. What it models, and what it does not: docs/why/simulated-provider.md.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.config import settings
from worker.simulator import cases, chance, rewrites, tasks


@dataclass(frozen=True)
class SimulatedCall:
    model_name: str
    messages: Sequence[Mapping[str, str]]
    params: Mapping[str, Any]  # temperature, max_tokens, seed, stop: the protocol's names
    sample: int = 0
    attempt: int = 0


@dataclass(frozen=True)
class Reply:
    text: str
    prompt_tokens: int
    response_tokens: int
    finish_reason: str
    latency_seconds: float  # how long the caller should be kept waiting


def reply_to(call: SimulatedCall) -> Reply:
    """The model's answer, with its token counts and the time that it takes."""
    dice = chance.Dice(
        settings().simulated_seed,
        call.model_name,
        call.params.get("seed", 0),
        list(call.messages),
        call.sample,
    )
    temperature = float(call.params.get("temperature", 1.0))
    if cases.is_case_request(call.messages):
        text = cases.think_of(call.messages, dice)
    elif rewrites.is_rewrite_request(call.messages):
        text = rewrites.rewrite(call.messages, dice)
    else:
        text = tasks.perform(call.messages, call.model_name, temperature, call.sample)
    text, finish_reason = _cut(text, call.params)
    prompt_tokens = sum(count_tokens(message["content"]) + 4 for message in call.messages) + 3
    response_tokens = count_tokens(text)
    median_seconds = settings().simulated_latency_ms / 1000
    latency = median_seconds * dice.lognormal("latency", 0.35) * (1 + response_tokens / 400)
    return Reply(text, prompt_tokens, response_tokens, finish_reason, latency)


def count_tokens(text: str) -> int:
    """About four bytes make a token; never more tokens than bytes."""
    return -(-len(text.encode()) // 4)


def wait(reply: Reply) -> None:
    """Take the time that a real call would take."""
    if reply.latency_seconds > 0:
        time.sleep(reply.latency_seconds)


def _cut(text: str, params: Mapping[str, Any]) -> tuple[str, str]:
    stops = params.get("stop") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.split(stop, 1)[0]
    limit = params.get("max_tokens") or params.get("max_completion_tokens")
    if limit is not None and count_tokens(text) > int(limit):
        return text.encode()[: int(limit) * 4].decode(errors="ignore"), "length"
    return text, "stop"
