"""Rate limits: how many requests one API key may make in a window of time, counted in Redis over all processes.

Windows are fixed, so a caller may make twice as many around the end of one. Far from a limit a process tells Redis
twenty times a second, not at each request: a caller of many processes may pass a limit by what they take in that time.
With Redis away each process counts for itself, up to its share of the limit.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock

import flask
import structlog
from limits import RateLimitItem, parse_many
from limits.storage import RedisStorage
from redis import RedisError

from shared.config import settings
from shared.errors import TooManyRequests

TIMEOUT_SECONDS = 0.25
SETTLE_SECONDS = 0.05  # so long a process counts by itself, unless fewer than NEAR, or a tenth, are left
NEAR = 100
TALLIES = 10_000
QUIET_SECONDS = 2.0

log = structlog.get_logger("rates")


@dataclass(frozen=True)
class Allowance:
    """What is left of the limit that is nearest to its end."""

    limit: RateLimitItem
    left: int
    seconds: int  # until the window ends

    @property
    def policy(self) -> str:
        return f'"{self.limit.GRANULARITY.name}";q={self.limit.amount};w={self.limit.get_expiry()}'


def check() -> None:
    """Count this request of the caller; 429 when a limit is passed."""
    limits = _limits()
    if not limits:
        return
    now = time.time()
    allowances = [_counter().take(limit, str(flask.g.caller.key_id), now) for limit in limits]
    flask.g.allowance = min(allowances, key=lambda allowance: allowance.left)
    for allowance in allowances:
        if allowance.left < 0:
            flask.g.allowance = allowance
            raise TooManyRequests(
                f"{allowance.limit}; the next begins in {allowance.seconds} s", retry_after_seconds=allowance.seconds
            )


def tell(response: flask.Response) -> flask.Response:
    """The fields RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers)."""
    allowance: Allowance | None = flask.g.get("allowance")
    if allowance is not None:
        response.headers["RateLimit-Policy"] = allowance.policy
        name = allowance.policy.partition(";")[0]
        response.headers["RateLimit"] = f"{name};r={max(0, allowance.left)};t={allowance.seconds}"
    return response


@dataclass
class _Tally:
    """What one process knows of one window of one caller."""

    window: int
    total: int = 0  # of all processes, when they were last asked
    unsent: int = 0  # of this one since then
    told_at: float = 0.0


class _Counter:
    """Counts here and tells Redis in groups, or one by one when a limit is near; here alone after Redis failed."""

    def __init__(self) -> None:
        self._shared = RedisStorage(
            settings().redis_url.get_secret_value(),
            key_prefix="promptmill:rates",
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
        )
        self._tallies: dict[tuple[RateLimitItem, str], _Tally] = {}
        self._lock = Lock()
        self._quiet_until = 0.0

    def take(self, limit: RateLimitItem, caller: str, now: float) -> Allowance:
        length = limit.get_expiry()
        window = int(now // length)
        seconds = math.ceil((window + 1) * length - now)
        with self._lock:
            tally = self._tallies.get((limit, caller))
            if tally is None or tally.window != window:
                if len(self._tallies) >= TALLIES:
                    self._tallies.clear()
                tally = self._tallies[limit, caller] = _Tally(window)
            tally.unsent += 1
            left = limit.amount - tally.total - tally.unsent
            if now - tally.told_at < SETTLE_SECONDS and left > max(NEAR, limit.amount // 10):
                return Allowance(limit, left, seconds)
            if now < self._quiet_until:
                return Allowance(limit, left - limit.amount + self._share(limit), seconds)
            unsent, tally.unsent, tally.told_at = tally.unsent, 0, now
        try:
            total = self._shared.incr(limit.key_for(caller, window), length, unsent)
        except (RedisError, OSError) as error:
            log.warning("rates_unshared", error=str(error))
            self._quiet_until = now + QUIET_SECONDS
            total = tally.total + unsent
        with self._lock:
            tally.total = max(tally.total, total)
        return Allowance(limit, limit.amount - total, seconds)

    def _share(self, limit: RateLimitItem) -> int:
        """What one of several processes that know nothing of each other may use."""
        return max(1, limit.amount // settings().web_processes)


@lru_cache
def _limits() -> Sequence[RateLimitItem]:
    given = settings().rate_limit
    return [] if given == "off" else parse_many(given)


@lru_cache
def _counter() -> _Counter:
    return _Counter()


def reset() -> None:
    """Begin anew, with the settings as they are now. For tests."""
    _limits.cache_clear()
    _counter.cache_clear()
