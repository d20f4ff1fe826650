"""Fixtures: both databases for every test that touches one, a real Redis, the API, and a drained queue."""

import gc
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy.engine import Engine

from tests.servers import PostgresServer, ProviderServer, RedisServer, temporary_directory

# Before anything of ours is imported: the Celery application reads its broker when it is made.
_home = temporary_directory()
HOME = _home.__enter__()
REDIS = RedisServer(HOME / "redis")
os.environ.update(
    PROMPTMILL_HOME=str(HOME),
    PROMPTMILL_DATABASE_URL=f"sqlite:///{HOME}/unused.db",
    PROMPTMILL_REDIS_URL=REDIS.url,
    PROMPTMILL_SIMULATED_LATENCY_MS="0",
    PROMPTMILL_LOG_LEVEL="WARNING",
)
os.environ.pop("OPENAI_API_KEY", None)

import migrations  # noqa: E402
from shared import db, logs, messages  # noqa: E402
from shared.config import settings  # noqa: E402
from shared.domain import providers, tenants  # noqa: E402
from shared.domain.tenants import Caller  # noqa: E402
from shared.models import Base, Role  # noqa: E402
from tests.support import API_KEY, Api, Drain, client  # noqa: E402

logs.configure("tests")
CATALOGUE = ("models", "prices")  # seeded once; no test changes it


def _databases(chosen: str) -> list[str]:
    """Those named in PROMPTMILL_TEST_DATABASES, else both. A wrong name ends the run: no test must get lost by it."""
    known = ["sqlite", "postgresql"]
    names = chosen.replace(",", " ").split() or known
    if unknown := sorted(set(names) - set(known)):
        raise pytest.UsageError(f"PROMPTMILL_TEST_DATABASES: {', '.join(unknown)} is none of {', '.join(known)}")
    return names


DATABASES = _databases(os.environ.get("PROMPTMILL_TEST_DATABASES", ""))


# Directories whose tests start whole stacks or compute for seconds, in the order in which they begin.
SLOW = ("journeys", "faults", "benchmarks", "fuzz", "migrations", "strategies")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: no process must wait at the end for another that has begun one of them."""
    tests_in = Counter(item.path for item in items)

    def place(item: pytest.Item) -> tuple[int, int, str]:
        slow = [rank for rank, name in enumerate(SLOW) if name in item.path.parts]
        return (slow[0] if slow else len(SLOW), -tests_in[item.path], str(item.path))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    gc.freeze()  # thousands of collected tests live to the end: no need to visit them at each collection


def pytest_unconfigure(config: pytest.Config) -> None:
    logging.disable()  # of threads that still listen when their Redis goes
    REDIS.kill()
    _home.__exit__(None, None, None)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    REDIS.start()
    yield REDIS
    REDIS.kill()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with temporary_directory() as directory:
        server = PostgresServer(directory)
        yield server
        db.disconnect()
        server.stop()


@pytest.fixture(scope="session")
def engines() -> Iterator[dict[str, Engine]]:
    """The migrated databases of this process, by dialect; made when first asked for.

    Each has one engine for all tests: with a new one every test would compile its statements anew, which took
    a quarter of its time.
    """
    opened: dict[str, Engine] = {}
    yield opened
    for engine in opened.values():
        engine.dispose()


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, engines: dict[str, Engine]) -> Iterator[str]:
    """An empty, migrated database that `shared.db` is connected to; every test runs on both dialects."""
    engine = _fresh_sqlite(engines) if request.param == "sqlite" else _fresh_postgres(request, engines)
    url = engine.url.render_as_string(hide_password=False)
    os.environ["PROMPTMILL_DATABASE_URL"] = url
    settings.cache_clear()
    db.use(engine.execution_options())  # another object to those who remember things for as long as it is the same
    yield url
    db.offset_clock(0)
    db.use(None)
    if request.param == "sqlite" or _has_more_than_one_connection(engine):
        engine.dispose()


@pytest.fixture
def admin(database: str) -> Caller:
    with db.transaction() as session:
        return tenants.create_key(
            session, workspace="default", user="admin", role=Role.ADMIN, key=API_KEY, operates_fleet=True
        )


@pytest.fixture
def broker(redis_server: RedisServer) -> RedisServer:
    """A real Redis, empty."""
    messages.client().flushall()
    return redis_server


@pytest.fixture(scope="session")
def provider_server() -> Iterator[ProviderServer]:
    server = ProviderServer()
    yield server
    server.stop()


@pytest.fixture
def provider(provider_server: ProviderServer) -> ProviderServer:
    """The provider stub, well behaved."""
    provider_server.set_faults()
    provider_server.set_latency(0)
    return provider_server


@pytest.fixture(scope="session")
def flask_client() -> FlaskClient:
    return client()


@pytest.fixture
def api(flask_client: FlaskClient, admin: Caller, broker: RedisServer) -> Api:
    """The HTTP API, as the administrator of the default workspace."""
    return Api(flask_client, API_KEY)


@pytest.fixture
def drain(database: str) -> Drain:
    """Runs queued jobs in this process until none is due."""
    return Drain()


@pytest.fixture
def as_user(flask_client: FlaskClient, admin: Caller, broker: RedisServer) -> Callable[..., Api]:
    """The API as somebody else: another role, user or workspace."""

    def login(*, workspace: str = "default", user: str = "other", role: Role = Role.EDITOR, **fields: Any) -> Api:
        key = tenants.new_key()
        with db.transaction() as session:
            tenants.create_key(session, workspace=workspace, user=user, role=role, key=key, **fields)
        return Api(flask_client, key)

    return login


def _has_more_than_one_connection(engine: Engine) -> bool:
    """Left behind by a test of threads: the next would use all in turns, each of which learns the tables anew."""
    pool: Any = engine.pool
    return bool(pool.checkedout() or pool.checkedin() > 1)


def _fresh_sqlite(engines: dict[str, Engine]) -> Engine:
    """A copy of a file that was migrated once, always in the same place."""
    template, path = HOME / "template.db", HOME / "test.db"
    if "sqlite" not in engines:
        _migrate(f"sqlite:///{template}")
        with db.engine().connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.rollback()
        db.disconnect()
        engines["sqlite"] = db.open_engine(f"sqlite:///{path}")
    for left in ("test.db", "test.db-wal", "test.db-shm"):  # a process that a test left keeps what it has opened
        (HOME / left).unlink(missing_ok=True)
    shutil.copy(template, path)
    return engines["sqlite"]


def _fresh_postgres(request: pytest.FixtureRequest, engines: dict[str, Engine]) -> Engine:
    """Emptied by DELETE: with rows this few, TRUNCATE takes twenty times as long."""
    if "postgresql" not in engines:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.url.replace("postgresql://", "postgresql+psycopg://")
        _migrate(url)
        db.disconnect()
        engines["postgresql"] = db.open_engine(url)
    tables = [table.name for table in reversed(Base.metadata.sorted_tables) if table.name not in CATALOGUE]
    with engines["postgresql"].begin() as connection:
        connection.exec_driver_sql("; ".join(f"DELETE FROM {table}" for table in tables))
    return engines["postgresql"]


def _migrate(url: str) -> None:
    """A new database with the catalogue of models and nothing else."""
    db.connect(url)
    migrations.upgrade()
    with db.transaction() as session:
        providers.seed_catalogue(session)
