"""What the engine asks the database all the time costs nothing more when millions of rows have ended.

The real functions run, the statements that they send are caught on the way, and the database says how it would
answer them: by an index of what is open, and never by reading what has ended.
"""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.metrics import QueueCollector
from shared import db
from shared.config import settings
from shared.domain import (
    batches,
    budgets,
    bulk,
    executions,
    idempotency,
    jobs,
    leases,
    modes,
    retention,
    status,
    tenants,
)
from shared.domain.tenants import Caller
from shared.models import (
    Base,
    BulkItem,
    BulkOperation,
    Call,
    Event,
    Execution,
    IdempotencyRecord,
    Job,
    JobKind,
    Queue,
    Role,
    new_id,
)
from tests.factories import claim, expire_leases, job_of, make_budget, submit, waiting_run
from tests.servers import RedisServer
from tests.support import OWNER
from worker import maintenance

ENDED = 10_000
COUNTS = {"total": 1, "succeeded": 0, "failed": 1, "skipped": 0, "step_no": 1, "alone_until": 0}  # of a bulk operation
BIG = ("jobs", "executions", "events", "idempotency_records", "work_items", "calls", "bulk_operations", "bulk_items")
# Indexes that hold what has ended, or all there is: to read one from end to end is to read the table.
SMALL = {
    index.name
    for table in Base.metadata.sorted_tables
    for index in table.indexes
    if index.dialect_options["postgresql"]["where"] is not None
} - {"ix_jobs_finished", "ix_executions_runs", "ix_calls_of_runs", "ix_work_items_test_case_id"}


@dataclass(frozen=True)
class Sent:
    statement: str
    parameters: Any


@pytest.fixture
def crowded(admin: Caller, broker: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Caller]:
    """Thousands of jobs that have ended, with what they leave behind, and a few of every kind that is open."""
    monkeypatch.setenv("PROMPTMILL_KEEP_EXECUTIONS_DAYS", "30")
    settings.cache_clear()
    empty()
    # Of another workspace: a small one must not pay for a large one either.
    with db.transaction() as session:
        crowd = tenants.create_key(session, workspace="crowd", user="u", role=Role.EDITOR, key=tenants.new_key())
    insert_ended(crowd, ENDED)
    submit(admin, 30)
    submit(admin, 5, queue=Queue.INTERACTIVE)
    waiting_run(admin, 10, name="waiting")
    ended_run = waiting_run(admin, 10, name="ended")
    blocked = submit(admin, 5, budget_id=make_budget(admin, max_tokens=10))
    with db.transaction() as session:
        session.execute(sa.text("UPDATE evaluations SET state = 'canceled' WHERE name = ''"))
        session.execute(
            sa.update(Job).where(Job.subject_id.in_(blocked)).values(blocked_by=job_of(blocked[0]).budget_id)
        )
        session.execute(
            sa.text("UPDATE evaluations SET state = 'running' WHERE id <> :ended"), {"ended": ended_run.hex}
        )
    bulk_operation(admin)
    claim("worker:dead", limit=5)
    expire_leases()
    claim("worker:1", limit=5)
    analyze()
    yield admin
    empty()


def bulk_operation(caller: Caller) -> None:
    """One that waits for its first page."""
    request = bulk.BulkRequest("tag", [("/items/0", {"name": "waiting", "add": ["a"]})])
    with db.transaction() as session:
        bulk.create_operation(session, caller, bulk.plan_operation(session, caller, request))


def empty() -> None:
    """So that neither this test nor the next wades through what others have deleted, in tables and indexes alike."""
    if is_postgres():
        with db.engine().begin() as connection:
            connection.execute(sa.text(f"TRUNCATE {', '.join(BIG)} CASCADE"))
            connection.execute(sa.text(f"ANALYZE {', '.join(BIG)}"))


def insert_ended(caller: Caller, count: int) -> None:
    """Jobs that ended a day ago, one in a hundred failed and one canceled, with execution, call and event."""
    with db.transaction() as session:
        first = (session.scalar(sa.select(sa.func.count()).select_from(Execution)) or 0) + 1_000_000
        number = numbers(first, count)
        id_ = sa.func.printf("%032x", number)
        if is_postgres():
            id_ = sa.cast(sa.func.lpad(sa.func.to_hex(number), 32, "0"), sa.Uuid)  # type: ignore[assignment]
        ended = sa.case((number % 100 == 0, "failed"), (number % 100 == 1, "canceled"), else_="succeeded")
        day_ago, user, workspace = db.db_now(-86_400), caller.user_id, caller.workspace_id
        model = {"provider": "simulated", "model_name": "simulated-small", "messages": sa.literal([], sa.JSON)}
        rows: dict[type[Base], dict[str, Any]] = {
            Execution: {"id": id_, "created_at": day_ago, "completed_at": day_ago, "state": ended, **model},
            Call: {"scope_id": id_, "execution_id": id_, "call_key": "k"},
            Event: {"subject_id": id_, "type": "execution.succeeded", "created_at": day_ago},
            Job: {
                "subject_id": id_,
                "kind": "execution",
                "queue": "executions",
                "state": ended,
                "created_at": day_ago,
                "run_at": day_ago,
                "finished_at": day_ago,
            },
            BulkOperation: {
                "id": id_,
                "created_at": day_ago,
                "completed_at": day_ago,
                "state": ended,
                "operation": "tag",
                "dry_run": sa.false(),
                **{name: sa.literal(number) for name, number in COUNTS.items()},
                "user_id": sa.literal(user, sa.Uuid),
                "role": "editor",
                "created_by": "",
            },
            BulkItem: {
                "operation_id": id_,
                "ordinal": sa.literal(0),
                "payload": sa.literal({}, sa.JSON),
                "state": "failed",
            },
            IdempotencyRecord: {
                "user_id": sa.literal(user, sa.Uuid),
                "route": "POST /",
                "body_hash": "",
                "key_hash": sa.cast(number, sa.String),
                "expires_at": db.db_now(86_400),
            },
        }
        for entity, values in rows.items():
            values = {"workspace_id": sa.literal(workspace, sa.Uuid), **values}
            columns = [sa.literal(value) if isinstance(value, str) else value for value in values.values()]
            session.execute(sa.insert(entity.__table__).from_select(list(values), sa.select(*columns)))  # type: ignore[arg-type]


def numbers(first: int, count: int) -> sa.ColumnElement[int]:
    """A column of so many numbers, in a statement of its own."""
    counted = sa.select(sa.literal(first).label("i")).cte("numbers", recursive=True)
    return counted.union_all(sa.select(counted.c.i + 1).where(counted.c.i < first + count - 1)).c.i


def analyze() -> None:
    with db.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))


def is_postgres() -> bool:
    return db.engine().dialect.name == "postgresql"


def in_transaction(work: Callable[[Session], Any]) -> Callable[[], Any]:
    def run() -> Any:
        with db.transaction() as session:
            return work(session)

    return run


def renew() -> None:
    with db.reading() as session:
        held = [
            leases.Lease(row.job_id, row.fence, JobKind.EXECUTION, new_id(), new_id(), None, Queue.EXECUTIONS, 0, 0)
            for row in session.execute(sa.text("SELECT job_id, fence FROM leases WHERE owner = 'worker:1'"))
        ]
    assert held
    with db.transaction() as session:
        leases.renew(session, "worker:1", held, lease_seconds=60)


def take(session: Session, **options: Any) -> Any:
    return leases.claim(session, OWNER, queue=Queue.EXECUTIONS, limit=5, lease_seconds=60, **options)


def verbs(caller: Caller) -> dict[str, Callable[[], Any]]:
    """Everything that workers, the sweep, monitoring and operators ask again and again."""
    in_turn: dict[str, Callable[[Session], Any]] = {
        "waiting": lambda session: leases.waiting(session, list(Queue)),
        "claim": take,
        "claim named": lambda session: take(session, job_ids=list(range(ENDED, ENDED + 60))),
        "claim quarantined": lambda session: take(session, quarantined=True),
        "sweep": leases.sweep,
        "cancel orphans": leases.cancel_orphans,
        "cancel batches": batches.cancel_left,
        "restart stalled": leases.restart_stalled,
        "unblock": budgets.unblock_stranded,
        "forget workers": leases.forget_dead_workers,
        "prune jobs": retention.prune_jobs,
        "prune events": retention.prune_events,
        "prune executions": retention.prune_executions,
        "prune idempotency records": idempotency.prune,
        "ready": status.problems,
        "status": lambda session: status.snapshot(session, caller, warn_seconds=30),
        "queues": lambda session: status.list_queues(session, caller),
        "runs of versions": lambda session: modes.count_runs(session, [new_id(), new_id()]),
        "answers of others": lambda session: executions.find_answers(session, new_id(), ["one", "two", "three"]),
        "bulk page": lambda session: bulk.next_page(session, open_operation(session)),
        "dead jobs": lambda session: jobs.list_jobs(session, caller, state="failed", limit=50, cursor=None),
    }
    return {
        **{name: in_transaction(work) for name, work in in_turn.items()},
        "heartbeat": renew,
        "metrics": lambda: list(QueueCollector().collect()),
    }


def open_operation(session: Session) -> BulkOperation:
    return session.scalars(sa.select(BulkOperation).where(jobs.is_open(BulkOperation))).one()


@contextlib.contextmanager
def caught() -> Iterator[list[Sent]]:
    sent: list[Sent] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool) -> None:
        if re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", statement):
            sent.append(Sent(statement, parameters[0] if isinstance(parameters, list) else parameters))

    engine = db.engine()
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


def scans(sent: Sent) -> list[str]:
    """How the database would read all of a big table for this statement, or all of an index of it."""
    with db.engine().connect() as connection:
        prefix = "EXPLAIN (FORMAT JSON) " if is_postgres() else "EXPLAIN QUERY PLAN "
        rows = connection.exec_driver_sql(prefix + sent.statement, sent.parameters).fetchall()
    if is_postgres():
        plan = rows[0][0]
        return _scans_of_postgres((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])
    return [row[3] for row in rows if _is_a_scan_of_sqlite(row[3])]


def _scans_of_postgres(node: Any) -> list[str]:
    kind, index = node["Node Type"], node.get("Index Name")
    found = []
    if kind == "Seq Scan" and node["Relation Name"] in BIG:
        found.append(f"Seq Scan on {node['Relation Name']}")
    if index and "Index Cond" not in node and index not in SMALL and _table_of(index) in BIG:
        found.append(f"{kind} of all of {index}")
    return found + [scan for child in node.get("Plans", []) for scan in _scans_of_postgres(child)]


def _table_of(index: str) -> str:
    return next((table for table in BIG if f"_{table}" in index), "")


def _is_a_scan_of_sqlite(detail: str) -> bool:
    match = re.match(r"SCAN (\w+?)(?:_\d+)?(?: USING (?:COVERING )?INDEX (\w+))?(?: |$)", detail)
    return match is not None and match[1] in BIG and match[2] not in SMALL


def test_nothing_that_is_asked_all_the_time_reads_what_has_ended(crowded: Caller) -> None:
    found: dict[str, list[str]] = {}
    asked: dict[str, int] = {}

    for name, work in verbs(crowded).items():
        with caught() as sent:
            work()
        asked[name] = sum(
            any(table in one.statement for table in (*BIG, "leases", "workers", "batches")) for one in sent
        )
        found[name] = [f"{scan}: {' '.join(one.statement.split())}" for one in sent for scan in scans(one)]

    # Of the events the oldest page is read, in the order of their ids.
    (page,) = found.pop("prune events")
    assert re.match(r"(Index Scan of all of pk_events|SCAN events): .* ORDER BY events.id LIMIT", page), page
    assert {name: scans for name, scans in found.items() if scans} == {}
    assert [name for name, number in asked.items() if number == 0] == []


def test_the_test_above_would_see_a_scan(admin: Caller) -> None:
    by_what_no_index_has = sa.select(sa.func.count()).where(Job.attempts == 3)
    by_the_end_of_an_index = sa.select(Execution.id).order_by(Execution.id)

    with caught() as sent:
        in_transaction(lambda session: session.execute(by_what_no_index_has))()
        in_transaction(lambda session: session.execute(by_the_end_of_an_index.limit(10)))()

    assert [bool(scans(one)) for one in sent] == [True, True]


def test_a_sweep_does_the_same_work_after_ten_times_as_many_jobs(admin: Caller) -> None:
    insert_ended(admin, ENDED // 10)
    analyze()
    maintenance.sweep()
    before = work_of_a_sweep()
    insert_ended(admin, ENDED)
    analyze()

    after = work_of_a_sweep()

    assert 0 < after <= before
    empty()


def work_of_a_sweep() -> int:
    """Rows that PostgreSQL read in the sweep's transactions, or instructions of SQLite's virtual machine."""
    db.offset_clock(db._clock_offset_seconds + 60)
    counted = 0
    engine = db.engine()
    engine.dispose()

    def add_rows(connection: sa.Connection) -> None:
        nonlocal counted
        read = "SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0) FROM pg_stat_xact_user_tables"
        counted += int(connection.exec_driver_sql(read).scalar_one())

    def count_instructions(connection: Any, record: Any) -> None:
        connection.set_progress_handler(add_one, 1)

    def add_one() -> None:
        nonlocal counted
        counted += 1

    heard: tuple[str, Any] = ("commit", add_rows) if is_postgres() else ("connect", count_instructions)
    sa.event.listen(engine, *heard)
    try:
        maintenance.sweep()
    finally:
        sa.event.remove(engine, *heard)
        engine.dispose()
    return counted
