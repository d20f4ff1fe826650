"""What the processes count of the engine's work, for Prometheus. What can be read from rows is not counted
here: `app.metrics` asks the database for it.

Every label is bounded: queues, kinds, states, providers, models of the catalogue, our own error codes; never a
workspace, a prompt or a user. Whoever counts a change calls after its commit, once for a group of jobs.
docs/reference/metrics.md lists everything; a test compares.
"""

from collections import Counter as Counts
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, start_http_server

REGISTRY = CollectorRegistry()
OTHER_MODEL = "other"  # a model that is not in the catalogue: callers may name any

_ADVISORY_ATTEMPTS = Counter(
    "prompt_studio_pg_advisory_lock_attempts_total",
    "Advisory locks that a claim asked PostgreSQL for; on SQLite always 0",
    registry=REGISTRY,
)
_ADVISORY_ACQUIRED = Counter(
    "prompt_studio_pg_advisory_locks_acquired_total",
    "Advisory locks that a claim was granted; on SQLite always 0",
    registry=REGISTRY,
)
_IDEMPOTENCY_HITS = Counter(
    "prompt_studio_idempotency_hit_total",
    "Requests answered from the record of an earlier one with the same Idempotency-Key",
    registry=REGISTRY,
)
_IDEMPOTENCY_MISSES = Counter(
    "prompt_studio_idempotency_miss_total",
    "Requests that were the first with their Idempotency-Key",
    registry=REGISTRY,
)
_CACHE = Counter(
    "prompt_studio_cache_requests_total",
    "Reads of a version by where the answer was: local, redis, or miss (the database)",
    ["outcome"],
    registry=REGISTRY,
)
_QUEUE_LATENCY = Histogram(
    "prompt_studio_queue_latency_seconds",
    "From the moment a job was due to its claim",
    ["queue"],
    registry=REGISTRY,
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600),
)
_JOB_DURATION = Histogram(
    "prompt_studio_job_duration_seconds",
    "One try of a job: from the start of its step until its outcome was committed",
    ["kind"],
    registry=REGISTRY,
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
_COMPLETED = Counter(
    "prompt_studio_jobs_completed_total",
    "Jobs that have ended, by whichever way: finish, cancel, sweep, budget",
    ["kind", "state"],
    registry=REGISTRY,
)
_RETRIED = Counter(
    "prompt_studio_jobs_retried_total",
    "Tries that ended in an error after which the job went back to the queue",
    ["kind"],
    registry=REGISTRY,
)
_RENEWED = Counter("prompt_studio_leases_renewed_total", "Leases extended by heartbeats", registry=REGISTRY)
_RECLAIMED = Counter(
    "prompt_studio_leases_reclaimed_total",
    "Expired leases that a sweep took away: each is a job that its worker lost",
    registry=REGISTRY,
)
_DROPPED = Counter(
    "prompt_studio_stale_outcomes_dropped_total",
    "Outcomes that came after somebody else had claimed or ended the job, and were not written",
    registry=REGISTRY,
)
_SALVAGED = Counter(
    "prompt_studio_outcomes_salvaged_total",
    "Late outcomes that were written because nobody had claimed the job since the sweep put it back",
    registry=REGISTRY,
)
_CALLS = Counter(
    "prompt_studio_provider_calls_total",
    "Tries of provider calls that ended in an answer (`succeeded`) or an error (its class)",
    ["provider", "model_name", "outcome"],
    registry=REGISTRY,
)
_TOKENS = Counter(
    "prompt_studio_tokens_used_total",
    "Tokens that providers reported; the direction is prompt or response",
    ["provider", "model_name", "direction"],
    registry=REGISTRY,
)
_COST = Counter(
    "prompt_studio_cost_usd_total",
    "Cost of answers in US dollars, at the price when they were asked for; without those of unknown price",
    ["provider", "model_name"],
    registry=REGISTRY,
)


def serve(address: str, port: int) -> None:
    """Answer GET /metrics on a thread of its own, without a key; raises OSError when the port is taken."""
    start_http_server(port, address, registry=REGISTRY)
    ProcessCollector(registry=REGISTRY)


def advisory_locks(*, attempts: int, acquired: int) -> None:
    """The one exception to "after the commit": an attempt was made, whatever becomes of the claim."""
    _ADVISORY_ATTEMPTS.inc(attempts)
    _ADVISORY_ACQUIRED.inc(acquired)


def idempotency_hit() -> None:
    _IDEMPOTENCY_HITS.inc()


def idempotency_miss() -> None:
    _IDEMPOTENCY_MISSES.inc()


def cache_asked(outcome: str) -> None:
    _CACHE.labels(outcome).inc()


def jobs_claimed(queue: str, waited_seconds: Iterable[float]) -> None:
    histogram = _QUEUE_LATENCY.labels(queue)
    for seconds in waited_seconds:
        histogram.observe(max(0.0, seconds))


def try_ended(kind: str, seconds: float) -> None:
    _JOB_DURATION.labels(kind).observe(seconds)


def outcomes_recorded(*, dropped: int, salvaged: int, retried: Mapping[str, int]) -> None:
    """A group of outcomes was committed; `retried` by kind."""
    if dropped:
        _DROPPED.inc(dropped)
    if salvaged:
        _SALVAGED.inc(salvaged)
    for kind, count in retried.items():
        _RETRIED.labels(kind).inc(count)


def jobs_completed(counts: Mapping[tuple[str, str], int]) -> None:
    """By (kind, state)."""
    for (kind, state), count in counts.items():
        _COMPLETED.labels(kind, state).inc(count)


def leases_renewed(count: int) -> None:
    _RENEWED.inc(count)


def leases_reclaimed(count: int) -> None:
    _RECLAIMED.inc(count)


def calls_ended(tries: Iterable[Mapping[str, Any]]) -> None:
    """A group of tries: provider, model_name, outcome, and of an answer the tokens and the cost as far as known."""
    calls: Counts[tuple[str, str, str]] = Counts()
    tokens: Counts[tuple[str, str, str]] = Counts()
    costs: defaultdict[tuple[str, str], float] = defaultdict(float)
    for item in tries:
        model = (item["provider"], item["model_name"])
        calls[*model, _outcome_class(item["outcome"])] += 1
        for direction in ("prompt", "response"):
            tokens[*model, direction] += item.get(f"{direction}_tokens") or 0
        costs[model] += item.get("cost_usd") or 0.0
    for counter, found in ((_CALLS, calls), (_TOKENS, tokens), (_COST, costs)):
        for labels, amount in found.items():
            counter.labels(*labels).inc(amount)


def _outcome_class(outcome: str) -> str:
    # A provider may answer with any of hundreds of statuses; those that mean something have names of their own.
    return "http_other" if outcome.startswith("http_") else outcome
