"""Many rows written at once on both databases, faster than the ORM or a statement for each would."""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.orm import Session

from shared.db import PIPELINE, UNREAD, UtcDateTime, db_now, in_utc, is_postgres

HANDED_OVER_FROM = {"postgresql": 500, "sqlite": 20}  # so many rows; below, it takes longer than it saves (measured)
NUMBERED_FROM = 20  # the same of asking for keys beforehand


def insert_all_absent(session: Session, model: type[Any], rows: Sequence[Mapping[str, Any]]) -> set[Any]:
    """`insert_if_absent` for many rows that all give the same columns, in one statement; the keys of those inserted.

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
    if len(rows) >= HANDED_OVER_FROM[connection.dialect.name] and PIPELINE not in connection.info:
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
        return lambda value: in_utc(value).isoformat()
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
