"""Connections, transactions and the clock of both databases. Everything that differs between
SQLite and PostgreSQL outside the lease and search modules is here and in `shared/bulk_rows.py`.

Returning from `transaction()` commits, raising rolls back, and what was passed to
`after_commit` runs only then: a message never leaves before its row is durable (I1).
"""

import contextlib
import math
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Dialect, Engine, make_url
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler

from shared.config import settings
from shared.errors import DatabaseBusy
from shared.hashing import dump_json

LOCK_WAIT_SECONDS = 10.0
_PING_AFTER_SECONDS = 1.0
# The option of a statement of which nobody reads more than that it did not fail: neither rows nor their number.
UNREAD = {"promptmill_unread": True}
PIPELINE = "promptmill_pipeline"  # in the info of a connection: the pipeline that its statements go into
_LOOK_SECONDS = 0.001  # between two looks whether SQLite's write lock is free
_MAPPED_BYTES = 0x7FFF0000  # of a SQLite file are read where they lie and not copied; the most that SQLite maps

_engine: Engine | None = None
_clock_offset_seconds = 0.0


def engine() -> Engine:
    """The engine of this process, opened on first use (so a forked child never inherits a socket)."""
    global _engine
    if _engine is None:
        _engine = open_engine(settings().database_url)
    return _engine


def connect(url: str) -> Engine:
    """Point this process at another database. For tests and command lines."""
    global _engine
    disconnect()
    _engine = open_engine(url)
    return _engine


def use(opened: Engine | None) -> None:
    """Point this process at an engine that the caller opens and closes; at none. For tests."""
    global _engine
    _engine = opened


def disconnect() -> None:
    global _engine
    if _engine is not None:
        _engine.dispose()
    _engine = None


def open_engine(url: str) -> Engine:
    if make_url(url).get_backend_name() == "sqlite":
        return _open_sqlite(url)
    opened = sa.create_engine(
        url,
        json_serializer=dump_json,
        **_pool(),
        # The connection that was used last: its statements are prepared, and each learns them for itself.
        pool_use_lifo=True,
        connect_args={
            "connect_timeout": 5,
            # A link that went silent (a failover without a reset) is noticed in about 15 s, not in hours.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 15_000,
            "application_name": "promptmill",
            "options": f"-c lock_timeout={int(LOCK_WAIT_SECONDS * 1000)} -c statement_timeout=60000"
            " -c idle_in_transaction_session_timeout=60000",
        },
    )
    _ping_what_lay_idle(opened)
    event.listen(opened, "after_cursor_execute", _await_answer)
    return opened


@contextlib.contextmanager
def transaction(*, wait_seconds: float = LOCK_WAIT_SECONDS, pipelined: bool = False) -> Iterator[Session]:
    """One transaction that may write. Commits on return, rolls back on any exception.

    `wait_seconds` bounds how long a lock is waited for; past it, and when two wait for each other, `DatabaseBusy` is
    raised.
    On SQLite the transaction begins IMMEDIATE: a read that later writes would fail at once under
    WAL, whatever the timeout.
    `pipelined`: PostgreSQL is sent statements that are `UNREAD` without waiting for what it says to them; what it says
    comes with the answer to the next one that is read, an error as the error of that one, and before the commit.
    """
    milliseconds = int(wait_seconds * 1000)
    callbacks: list[Callable[[], None]] = []
    bind = engine().execution_options(promptmill_writes=True, promptmill_wait_ms=milliseconds)
    with Session(bind, expire_on_commit=False, info={"after_commit": callbacks}) as session:
        try:
            if wait_seconds != LOCK_WAIT_SECONDS and is_postgres(session):
                session.execute(sa.text(f"SET LOCAL lock_timeout = {milliseconds}"))
            with _pipeline(session) if pipelined and is_postgres(session) else contextlib.nullcontext():
                yield session
            session.commit()
        except OperationalError as error:
            if is_busy(error):
                raise DatabaseBusy(f"no lock within {wait_seconds:g} s, or others waited for this one") from error
            raise
    for callback in callbacks:
        callback()


@contextlib.contextmanager
def reading() -> Iterator[Session]:
    """A transaction that only reads; PostgreSQL refuses to write in it. Nothing that is changed in it is kept."""
    bind = engine()
    if bind.dialect.name == "postgresql":
        bind = bind.execution_options(postgresql_readonly=True)
    with Session(bind, expire_on_commit=False, autoflush=False) as session:
        yield session
        if bind.dialect.name == "postgresql":
            # With a rollback the driver forgets every statement that PostgreSQL has prepared for it, and those of
            # whoever has the connection next are planned anew each time.
            session.expunge_all()
            session.commit()


@contextlib.contextmanager
def _pipeline(session: Session) -> Iterator[None]:
    connection = session.connection()
    info, driver = connection.info, connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    try:
        with driver.pipeline() as info[PIPELINE]:
            yield
    except psycopg.Error as error:
        # Of a statement that nobody waited for: as SQLAlchemy says it of those that it reads.
        raise sa.exc.DBAPIError.instance(
            "a statement of a pipeline", None, error, psycopg.Error, dialect=connection.dialect
        ) from error
    finally:
        info.pop(PIPELINE, None)


def after_commit(session: Session, callback: Callable[[], None]) -> None:
    """Run `callback` once the transaction of this session has committed, never otherwise."""
    session.info["after_commit"].append(callback)


def insert_if_absent(session: Session, model: type[Any], **values: Any) -> bool:
    """Insert a row unless one with the same unique key exists. True when it was inserted.

    On PostgreSQL this waits for an uncommitted row with that key; on SQLite writers are serial anyway.
    """
    insert = postgresql.insert if is_postgres(session) else sqlite.insert
    primary_key = sa.inspect(model).primary_key[0]
    statement = insert(model).values(**values).on_conflict_do_nothing().returning(primary_key)
    return session.execute(statement).first() is not None


def holds_item(session: Session, column: Any, item: str) -> sa.ColumnElement[bool]:
    """Whether a JSON column's array of strings holds this one."""
    elements = sa.func.json_array_elements_text if is_postgres(session) else sa.func.json_each
    items = elements(column).table_valued("value")
    return sa.exists().select_from(items).where(items.c.value == item)


def is_postgres(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"


def is_busy(error: BaseException) -> bool:
    """True when a lock was not granted in time (SQLITE_BUSY, or 55P03 on PostgreSQL) or in a circle (40P01)."""
    original = getattr(error, "orig", error)
    if isinstance(original, sqlite3.OperationalError):
        return "locked" in str(original)
    return getattr(original, "sqlstate", None) in ("55P03", "40P01")


def violated_constraint(error: IntegrityError) -> str:
    """The name of the constraint that an insert or update violated, on both databases.

    SQLite names no unique constraint; it lists the columns, from which our naming
    convention (`uq_<table>_<columns>`) gives the name back.
    """
    name = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
    if name:
        return str(name)
    match = re.search(r"UNIQUE constraint failed: (.+)", str(error.orig))
    if match is None:
        return ""
    columns = [part.strip().split(".") for part in match.group(1).split(",")]
    return "uq_" + columns[0][0] + "_" + "_".join(column for _, column in columns)


def offset_clock(seconds: float) -> None:
    """Move `db_now()` of this process. Only tests call this."""
    global _clock_offset_seconds
    _clock_offset_seconds = seconds


class db_now(sa.sql.functions.FunctionElement[datetime]):  # noqa: N801  # reads as the SQL function it is
    """The database's clock plus so many seconds: the one clock of leases, retries and sweeps."""

    inherit_cache = True

    def __init__(self, plus_seconds: float = 0.0) -> None:
        self.type = UtcDateTime()
        # Read when the statement runs, so that column defaults follow the clock of a test too.
        seconds = sa.bindparam(
            "seconds", callable_=lambda: plus_seconds + _clock_offset_seconds, type_=sa.Float, unique=True
        )
        super().__init__(seconds)


@compiles(db_now, "postgresql")
def _postgres_now(element: db_now, compiler: SQLCompiler, **kwargs: Any) -> str:
    return f"(clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **kwargs)}))"


@compiles(db_now, "sqlite")
def _sqlite_now(element: db_now, compiler: SQLCompiler, **kwargs: Any) -> str:
    return f"promptmill_now({compiler.process(element.clauses, **kwargs)})"


class among(sa.sql.functions.FunctionElement[bool]):  # noqa: N801  # reads as an SQL operator
    """Whether a column is one of `ids`, for statements that are built once and run with {"ids": [...]}: to build one
    anew costs more than to run it. For PostgreSQL they are one array, so that a text serves any number of them: a
    text that is new to it is planned anew.
    """

    inherit_cache = True

    def __init__(self, column: Any) -> None:
        self.type = sa.Boolean()
        super().__init__(column)

    def self_group(self, against: Any = None) -> Any:
        return self  # else SQLite is asked whether it `= 1`, for which it uses no index


@compiles(among, "postgresql")
def _postgres_among(element: among, compiler: SQLCompiler, **kwargs: Any) -> str:
    (column,) = element.clauses
    ids = sa.bindparam("ids", type_=postgresql.ARRAY(column.type))
    return compiler.process(column == sa.any_(ids), **kwargs)


@compiles(among, "sqlite")
def _sqlite_among(element: among, compiler: SQLCompiler, **kwargs: Any) -> str:
    (column,) = element.clauses
    return compiler.process(column.in_(sa.bindparam("ids", expanding=True)), **kwargs)


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An aware UTC datetime on both databases. Naive values are refused."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return in_utc(value).replace(tzinfo=None) if dialect.name == "sqlite" else in_utc(value)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def in_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a naive datetime reached the database")
    return value.astimezone(UTC)


class transaction_id(sa.sql.functions.FunctionElement[int]):  # noqa: N801
    """The id of the current transaction on PostgreSQL, 0 on SQLite; orders the events that readers tail."""

    type = sa.BigInteger()
    inherit_cache = True


@compiles(transaction_id, "postgresql")
def _postgres_transaction_id(element: transaction_id, compiler: SQLCompiler, **kwargs: Any) -> str:
    return "((pg_current_xact_id())::text)::bigint"


@compiles(transaction_id, "sqlite")
def _sqlite_transaction_id(element: transaction_id, compiler: SQLCompiler, **kwargs: Any) -> str:
    return "0"


def oldest_transaction() -> sa.ColumnElement[int]:
    """PostgreSQL: the lowest id of a transaction that still runs. All below it have ended."""
    return sa.cast(sa.cast(sa.func.pg_snapshot_xmin(sa.func.pg_current_snapshot()), sa.Text), sa.BigInteger)


class epoch_seconds(sa.sql.functions.FunctionElement[int]):  # noqa: N801  # reads as an SQL function, like db_now
    """The whole seconds of a time since 1970 in UTC; a part of a second is cut off on both databases."""

    type = sa.BigInteger()
    inherit_cache = True


@compiles(epoch_seconds, "postgresql")
def _postgres_epoch(element: epoch_seconds, compiler: SQLCompiler, **kwargs: Any) -> str:
    return f"floor(extract(epoch FROM {compiler.process(element.clauses, **kwargs)}))::bigint"


@compiles(epoch_seconds, "sqlite")
def _sqlite_epoch(element: epoch_seconds, compiler: SQLCompiler, **kwargs: Any) -> str:
    # Its first 19 characters: SQLite rounds what follows, and 59.9996 s would be the next minute.
    return f"CAST(strftime('%s', substr({compiler.process(element.clauses, **kwargs)}, 1, 19)) AS INTEGER)"


def _pool() -> dict[str, int]:
    """A connection for each request thread of the API, and some. A worker needs six, whatever its concurrency:
    its slots touch no database, but for one that reads what a claimed group needs.
    """
    return {"pool_size": 16, "max_overflow": settings().web_threads}


def _await_answer(
    connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
) -> None:
    pipeline = connection.info.get(PIPELINE)
    if pipeline is not None and not context.execution_options.get("promptmill_unread"):
        pipeline.sync()


def _ping_what_lay_idle(opened: Engine) -> None:
    """Ask whether the server is still there before a connection is used that lay idle, and forget all if it is not: to
    ask each time costs every transaction a round trip."""

    @event.listens_for(opened, "checkin")
    def note(connection: Any, record: Any) -> None:
        record.info["used_at"] = time.monotonic()

    @event.listens_for(opened, "checkout")
    def ping(connection: Any, record: Any, fairy: Any) -> None:
        if time.monotonic() - record.info.get("used_at", math.inf) < _PING_AFTER_SECONDS:
            return
        try:
            opened.dialect.do_ping(connection)
        except psycopg.Error as error:
            raise sa.exc.InvalidatePoolError from error


def _open_sqlite(url: str) -> Engine:
    path = make_url(url).database
    if not path or path == ":memory:":
        raise ValueError("Promptmill needs a SQLite file: several processes share it")
    opened = sa.create_engine(url, json_serializer=dump_json, **_pool(), connect_args={"timeout": 10})
    in_turn = Lock()

    @event.listens_for(opened, "connect")
    def prepare(connection: sqlite3.Connection, record: Any) -> None:
        # The driver's own transaction handling would begin only at the first write; ours begins
        # in the "begin" event below.
        connection.isolation_level = None
        for pragma in (
            f"busy_timeout={int(LOCK_WAIT_SECONDS * 1000)}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"mmap_size={_MAPPED_BYTES}",
        ):
            connection.execute(f"PRAGMA {pragma}")
        # Deterministic, as SQLite means it: computed once for a statement, and not anew for each row that it looks at.
        connection.create_function("promptmill_now", 1, _host_now, deterministic=True)

    @event.listens_for(opened, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if not options.get("promptmill_writes"):
            connection.exec_driver_sql("BEGIN")
            return
        # BEGIN takes the one write lock, so the wait is bounded here and nowhere later.
        _begin_writing(connection, options["promptmill_wait_ms"] / 1000, in_turn)

    return opened


def _begin_writing(connection: Connection, wait_seconds: float, in_turn: Lock) -> None:
    """Wait for SQLite's write lock, the threads of this process one after the other.

    SQLite's own way of waiting sleeps for up to 0.1 s between two looks, while those who come later find the lock free.
    """
    driver: Any = connection.connection.driver_connection
    until = time.monotonic() + wait_seconds
    if not in_turn.acquire(timeout=wait_seconds):
        raise OperationalError("BEGIN IMMEDIATE", None, sqlite3.OperationalError("database is locked"))
    try:
        driver.execute("PRAGMA busy_timeout=0")
        while True:
            try:
                driver.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
                if time.monotonic() >= until:
                    raise OperationalError("BEGIN IMMEDIATE", None, error) from error
                time.sleep(_LOOK_SECONDS)
            else:
                return
    finally:
        in_turn.release()  # first: whatever is wrong with this connection, the others go on
        driver.execute(f"PRAGMA busy_timeout={int(LOCK_WAIT_SECONDS * 1000)}")


def _host_now(plus_seconds: float) -> str:
    now = datetime.now(UTC) + timedelta(seconds=plus_seconds)
    return now.isoformat(" ", "microseconds")[:26]  # without the zone
