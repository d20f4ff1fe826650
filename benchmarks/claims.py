"""What a claim costs in a table of jobs of a given size. PostgreSQL only.

The jobs that are claimed come with their executions, through the domain. The rest are bare rows, as the queue
sees them: the finished ones before, the queued ones (due too, but later) behind.
"""

import statistics
import time

import psycopg

from benchmarks.promptmill import caller, enqueue, planned
from benchmarks.work import database_url
from shared import db
from shared.config import settings
from shared.domain import leases
from shared.models import Queue

AT_ONCE = 16
WARM = 10  # claims before those that count: the connection, the compiled statements, the first pages
_ROWS_AT_ONCE = 1_000_000
_FILL = """
INSERT INTO jobs (workspace_id, kind, queue, subject_id, priority, state, run_at, attempts, losses, deferrals,
                  max_attempts, fence, cancel_requested, created_at, finished_at)
SELECT %(workspace_id)s, 'execution', 'executions', uuidv7(), 5, %(state)s::text, clock_timestamp(), 0, 0, 0, 4, 0,
       false, clock_timestamp(), CASE WHEN %(state)s::text = 'queued' THEN NULL ELSE clock_timestamp() END
FROM generate_series(1, %(count)s)
"""


def fill(*, finished: int, queued: int, claims: int, rounds: int) -> dict[str, float]:
    """Make the table, with what `claims` in `rounds` measurements will take besides; the seconds that it took."""
    started = time.monotonic()
    _insert("succeeded", finished)
    for _ in range(rounds):
        enqueue(planned((WARM + claims) * AT_ONCE))
    _insert("queued", queued)
    with psycopg.connect(database_url(), autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")
    return {"seconds": round(time.monotonic() - started)}


def measure(*, claims: int) -> dict[str, float]:
    """Milliseconds of a claim of 16 jobs in its own transaction, commit included."""
    for _ in range(WARM):
        _claim()
    taken = sorted(_claim() for _ in range(claims))
    return {"p50_ms": statistics.median(taken), "p95_ms": statistics.quantiles(taken, n=20)[-1]}


def _claim() -> float:
    started = time.monotonic()
    with db.transaction() as session:
        claim = leases.claim(
            session, "bench:1", queue=Queue.EXECUTIONS, limit=AT_ONCE, lease_seconds=settings().job_lease_seconds
        )
    took = time.monotonic() - started
    assert len(claim.leases) == AT_ONCE
    return 1000 * took


def _insert(state: str, count: int) -> None:
    workspace_id = caller().workspace_id
    with psycopg.connect(database_url(), autocommit=True) as connection:
        for first in range(0, count, _ROWS_AT_ONCE):
            rows = min(_ROWS_AT_ONCE, count - first)
            connection.execute(_FILL, {"workspace_id": workspace_id, "state": state, "count": rows})
