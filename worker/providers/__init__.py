"""What every provider adapter takes and gives, and where an adapter is found by name.

One file per provider, and that file is the only place that imports its SDK.
"""

import importlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

MODULES = {"openai": "worker.providers.openai", "simulated": "worker.providers.simulated"}


@dataclass(frozen=True)
class Request:
    """One provider call. `params` have our names (`max_new_tokens`); the adapter maps them."""

    execution_id: str
    model_name: str
    messages: Sequence[Mapping[str, str]]
    params: Mapping[str, Any]
    sample: int  # which of several wanted answers to the same request
    attempt: int  # how many tries have ended before this one
    timeout_seconds: float
    tools: Sequence[Mapping[str, Any]] | None = None  # function tools, as OpenAI spells them
    response_schema: Mapping[str, Any] | None = None  # the JSON Schema that the answer is to fit


@dataclass(frozen=True)
class Answer:
    """What came back. Token counts are None when the provider sent no usage.

    `text` of an answer that calls tools is JSON: {"content": text or null, "tool_calls": [...]}.
    """

    text: str
    prompt_tokens: int | None
    response_tokens: int | None
    latency_ms: int
    provider_request_id: str | None = None
    finish_reason: str | None = None


class Provider(Protocol):
    def generate(self, request: Request) -> Answer:
        """Make the call once. Raises `shared.errors.ProviderError`, classified; never retries."""

    def embed(self, request: Request) -> Answer:
        """The same, for the embedding of the one message: the text of the answer is {"embedding": [numbers]}."""


_adapters: dict[str, Provider] = {}
_lock = threading.Lock()


def get_provider(name: str) -> Provider:
    """The adapter of this process, made on first use. An SDK is imported only where it is called."""
    with _lock:
        if name not in _adapters:
            module = importlib.import_module(MODULES[name])
            _adapters[name] = cast("Provider", module.connect())
        return _adapters[name]
