"""Misbehaviour on request, so that faults are rehearsed. Decided by a hash that includes the attempt,
so that a retry of the same call may succeed and a replay of the same attempt does not change."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from shared.config import settings
from shared.errors import ProviderError
from worker.simulator.chance import Dice

if TYPE_CHECKING:
    from worker.simulator import SimulatedCall

RETRY_AFTER_SECONDS = 1

# What an adapter makes of each fault; the HTTP server produces the real thing instead.
ERRORS: Mapping[str, ProviderError] = {
    "rate_limited": ProviderError("rate_limited", "simulated", retryable=True, retry_after_seconds=RETRY_AFTER_SECONDS),
    "server_error": ProviderError("server_error", "simulated", retryable=True),
    "timeout": ProviderError("timeout", "simulated", retryable=True, possibly_paid=True),
    "malformed": ProviderError("malformed_response", "simulated", retryable=True, possibly_paid=True),
    "truncated": ProviderError("connection_error", "simulated", retryable=True, possibly_paid=True),
    "bad_request": ProviderError("bad_request", "simulated", retryable=False),
}


def parse(text: str) -> dict[str, float]:
    """`rate_limited:0.1,timeout:0.02` as shares of calls, each in [0, 1]."""
    shares = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, share = part.partition(":")
        if name not in ERRORS:
            raise ValueError(f"unknown fault {name!r}; there are: {', '.join(ERRORS)}")
        shares[name] = float(share or 1)
    return shares


def choose(call: "SimulatedCall", shares: Mapping[str, float]) -> str | None:
    """The fault of this call and attempt, if any."""
    if not shares:
        return None
    dice = Dice(settings().simulated_seed, "fault", list(call.messages), call.sample, call.attempt)
    mark = dice.uniform()
    for name, share in shares.items():
        mark -= share
        if mark < 0:
            return name
    return None


def raise_if_any(call: "SimulatedCall") -> None:
    fault = choose(call, parse(settings().simulated_faults))
    if fault:
        error = ERRORS[fault]
        raise ProviderError(
            error.code,
            error.detail,
            retryable=error.retryable,
            possibly_paid=error.possibly_paid,
            retry_after_seconds=error.retry_after_seconds,
        )
