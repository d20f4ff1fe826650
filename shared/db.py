"""Connections, transactions and the clock of both databases. Everything that differs between
SQLite and PostgreSQL outside the lease and search modules is here.

Returning from `transaction()` commits, raising rolls back, and what was passed to
`after_commit` runs only then: a message never leaves before its row is durable (I1).
"""

import contextlib
import math
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
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
_PIPELINE = "promptmill_pipeline"
_LOOK_SECONDS = 0.001  # between two looks whether SQLite's write lock is free
_MAPPED_BYTES = 0x7FFF0000  # of a SQLite file are read where they lie and not copied; the most that SQLite maps
HANDED_OVER_FROM = {"postgresql": 500, "sqlite": 20}  # so many rows; below, it takes longer than it saves (measured)
NUMBERED_FROM = 20  # the same of asking for keys beforehand

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
        with driver.pipeline() as info[_PIPELINE]:
            yield
    except psycopg.Error as error:
        # Of a statement that nobody waited for: as SQLAlchemy says it of those that it reads.
        raise sa.exc.DBAPIError.instance(
            "a statement of a pipeline", None, error, psycopg.Error, dialect=connection.dialect
        ) from error
    finally:
        info.pop(_PIPELINE, None)


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


def insert_all_absent(session: Session, model: type[Any], rows: Sequence[Mapping[str, Any]]) -> set[Any]:
    """The same for many rows that all give the same columns, in one statement; the keys of those inserted.

    Rows are inserted in the order given: callers that keep to one order never wait for each other in a circle.
    """
    if not rows:
        return set()
    session.flush()
    insert = postgresql.insert if is_postgres(session) else sqlite.insert
    primary_key = model.__table__.primary_key.columns[0]
    statement = insert(model.__table__).on_conflict_do_nothing().returning(primary_key)
    return set(session.connection().execute(statement, rows).scalars())


def bulk_insert(session: Session, model: type[Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that all give the same columns; what they leave out takes the defaults of the model.

    Many rows go to the driver at once, to PostgreSQL through COPY. A default that is an SQL expression, such as the
    time, is then computed once for all rows. Fewer are one statement there, in which they go as JSON: as statements of
    their own each would be sent, planned, run and answered alone.
    """
    session.flush()  # what the rows refer to may still be in the session
    # No way of inserting would say so plainly, and some would lose what only a later row gives.
    if any(row.keys() != rows[0].keys() for row in rows):
        raise ValueError("every row must give the same columns")
    table, connection = model.__table__, session.connection()
    if len(rows) >= HANDED_OVER_FROM[connection.dialect.name] and _PIPELINE not in connection.info:
        _hand_over(connection, table, rows)
    elif len(rows) > 1 and connection.dialect.name == "postgresql":
        _insert_as_json(connection, table, rows)
    elif rows:
        connection.execute(_insert_into(table), rows)


def bulk_update(
    session: Session, model: type[Any], rows: Sequence[Mapping[str, Any]], *, stamped: str | None = None
) -> None:
    """Write the columns that these rows give, the same ones all, to the rows with their keys; the time to `stamped`.

    PostgreSQL is sent one statement, in which values go as JSON: of many each would be planned, run and answered alone.
    """
    session.flush()
    if not rows:
        return
    names, connection = tuple(rows[0]), session.connection()
    if is_postgres(session):
        given = _as_json(model.__table__, names, rows)
        statement = _update_from_json(model.__table__, names, stamped)
        connection.execute(statement, {"rows": given}, execution_options=UNREAD)
    else:
        given = [{f"given_{name}": value for name, value in row.items()} for row in rows]
        connection.execute(_update_each(model.__table__, names, stamped), given)


def bulk_insert_numbered(session: Session, model: type[Any], rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """The same for a table whose key counts up and is never used again; the keys, in the order of the rows."""
    session.flush()
    key: sa.Column[int] = model.__table__.autoincrement_column
    if len(rows) < NUMBERED_FROM:
        returning = _insert_into(model.__table__).returning(key, sort_by_parameter_order=True)
        return list(session.connection().execute(returning, rows).scalars()) if rows else []
    # Asked for beforehand: told with each row, they would cost a statement for each on SQLite, and COPY tells none.
    numbers = _numbers(session, key, len(rows))
    bulk_insert(session, model, [{**row, key.name: number} for row, number in zip(rows, numbers, strict=True)])
    return numbers


def _numbers(session: Session, key: sa.Column[int], count: int) -> list[int]:
    """The next so many keys of a table, lowest first."""
    if is_postgres(session):
        sequence = sa.func.pg_get_serial_sequence(key.table.name, key.name)
        numbers = sa.select(sa.func.nextval(sequence)).select_from(sa.func.generate_series(1, count))
        return sorted(session.scalars(numbers))
    # Whoever may write is alone there, so nobody else counts on from the same number.
    last = session.scalar(sa.text("SELECT seq FROM sqlite_sequence WHERE name = :name"), {"name": key.table.name}) or 0
    return list(range(last + 1, last + count + 1))


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
        return _in_utc(value).replace(tzinfo=None) if dialect.name == "sqlite" else _in_utc(value)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _in_utc(value: datetime) -> datetime:
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


@lru_cache
def _insert_into(table: sa.Table) -> sa.Insert:
    return sa.insert(table)  # without the ORM, which costs more than the rows


def _hand_over(connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Give rows to the driver itself, each value through the type of its column as INSERT would send it: what
    SQLAlchemy does for each row of an INSERT takes three times as long as SQLite needs for it."""
    dialect = connection.dialect
    names = list(rows[0])
    given = [table.columns[name] for name in names]
    made, shared = _left_out(table, rows[0])
    makers = [column.default.arg for column in made]
    processors = [_processor(column.type, dialect) for column in given + made]
    processed = [(place, process) for place, process in enumerate(processors) if process is not None]
    same_in_all = _shared_defaults(connection, shared)
    seen: list[Any] = [object()] * len(processors)  # rows made together share most of their values: the
    ready: list[Any] = [None] * len(processors)  # very object of the row before is not turned into text again

    def values_of(row: Mapping[str, Any]) -> list[Any]:
        values = [*map(row.__getitem__, names), *[make(None) for make in makers]]
        for place, process in processed:
            if values[place] is not seen[place]:
                seen[place], ready[place] = values[place], process(values[place])
            values[place] = ready[place]
        return values + same_in_all

    quote = dialect.identifier_preparer.quote
    into = f"{quote(table.name)} ({', '.join(quote(column.name) for column in given + made + shared)})"
    driver: Any = connection.connection.driver_connection
    write = _copy if dialect.name == "postgresql" else _insert_each
    errors: Any = psycopg.Error if dialect.name == "postgresql" else sqlite3.Error
    try:
        write(driver, into, map(values_of, rows), len(given + made + shared))
    except errors as error:
        # As SQLAlchemy says it of its own statements: callers tell a violated constraint or a lock by it.
        raise sa.exc.DBAPIError.instance(f"INSERT INTO {into}", None, error, errors, dialect=dialect) from error


def _left_out(table: sa.Table, row: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """The columns that such rows leave to defaults: those made anew for each row, and those that all rows share."""
    columns: list[Any] = [column for column in table.columns if column.name not in row and column.default is not None]
    made = [column for column in columns if column.default.is_callable]
    return made, [column for column in columns if not column.default.is_callable]


def _insert_as_json(connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    made, _ = _left_out(table, rows[0])
    whole = [{**row, **{column.name: column.default.arg(None) for column in made}} for row in rows] if made else rows
    names = tuple(whole[0])
    given = _as_json(table, names, whole)
    connection.execute(_insert_from_json(table, names), {"rows": given}, execution_options=UNREAD)


@lru_cache
def _insert_from_json(table: sa.Table, names: tuple[str, ...]) -> sa.Insert:
    given = _given_as_json(table, names)  # what they leave out has its default here too, by `from_select`
    return sa.insert(table).from_select(list(names), sa.select(*(given.c[name] for name in names)))


@lru_cache
def _update_from_json(table: sa.Table, names: tuple[str, ...], stamped: str | None) -> sa.Update:
    (key,) = table.primary_key.columns
    given = _given_as_json(table, names)
    values: dict[str, Any] = {name: given.c[name] for name in names if name != key.name}
    return sa.update(table).where(key == given.c[key.name]).values(values | _stamp(stamped))


@lru_cache
def _update_each(table: sa.Table, names: tuple[str, ...], stamped: str | None) -> sa.Update:
    (key,) = table.primary_key.columns
    values: dict[str, Any] = {name: sa.bindparam(f"given_{name}") for name in names if name != key.name}
    return sa.update(table).where(key == sa.bindparam(f"given_{key.name}")).values(values | _stamp(stamped))


def _stamp(name: str | None) -> dict[str, Any]:
    return {} if name is None else {name: db_now()}


def _given_as_json(table: sa.Table, names: tuple[str, ...]) -> Any:
    """The rows of the parameter `rows`, in their order, as a table with the types of these columns."""
    typed = [sa.column(name, table.c[name].type) for name in names]
    rows = sa.func.json_to_recordset(sa.bindparam("rows", type_=sa.JSON)).table_valued(*typed, name="given")
    return rows.render_derived(with_types=True)


def _as_json(table: sa.Table, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of these columns with values that JSON can say, and that PostgreSQL reads as the types of the columns."""
    writers = [(name, write) for name in names if (write := _json_writer(table.c[name].type)) is not None]
    given = [dict(row) for row in rows]
    for row in given:
        for name, write in writers:
            if row[name] is not None:
                row[name] = write(row[name])
    return given


def _json_writer(of: sa.types.TypeEngine[Any]) -> Callable[[Any], Any] | None:
    """What turns a value of a column into one that JSON can say; None where it is one already."""
    if isinstance(of, UtcDateTime):
        return lambda value: _in_utc(value).isoformat()
    if isinstance(of, sa.Uuid):
        return str
    return repr if isinstance(of, sa.Float) else None  # JSON has no infinity


def _copy(driver: Any, into: str, rows: Iterable[list[Any]], width: int) -> None:
    with driver.cursor() as cursor, cursor.copy(f"COPY {into} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def _insert_each(driver: Any, into: str, rows: Iterable[list[Any]], width: int) -> None:
    statement = f"INSERT INTO {into} VALUES ({', '.join('?' * width)})"  # noqa: S608  # names of our own tables
    driver.executemany(statement, rows)


def _processor(of: sa.types.TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    """What turns a value of a column into one that the driver can write; None where it can as it is."""
    if isinstance(of, sa.JSON):  # text at once: the driver's own object for JSON costs as much again
        as_text: Any = sa.JSON.bind_processor
        return as_text(of, dialect)
    return of.dialect_impl(dialect).bind_processor(dialect)


def _shared_defaults(connection: Connection, columns: Sequence[Any]) -> list[Any]:
    """The defaults of these columns as the driver writes them, which need not be made again for each row."""
    dialect = connection.dialect
    expressions = [column for column in columns if column.default.is_clause_element]
    found = connection.execute(sa.select(*(column.default.arg for column in expressions))).one() if expressions else ()
    computed = dict(zip(expressions, found, strict=True))
    values = [computed.get(column, column.default.arg) for column in columns]
    if dialect.name == "postgresql":  # as text, which COPY reads
        return [None if value is None else str(value) for value in values]
    processors = [_processor(column.type, dialect) for column in columns]
    return [process(value) if process else value for process, value in zip(processors, values, strict=True)]


def _pool() -> dict[str, int]:
    """A connection for each request thread of the API, and some. A worker needs six, whatever its concurrency:
    its slots touch no database, but for one that reads what a claimed group needs.
    """
    return {"pool_size": 16, "max_overflow": settings().web_threads}


def _await_answer(
    connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
) -> None:
    pipeline = connection.info.get(_PIPELINE)
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
