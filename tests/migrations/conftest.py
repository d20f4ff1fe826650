"""A database of its own for each test here: these tests take the schema apart, which no other test must feel."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from local import embedded
from shared import db
from shared.config import settings
from tests.conftest import DATABASES
from tests.servers import PostgresServer

NAME = "migrations_under_test"


@pytest.fixture(params=DATABASES)
def empty_database(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database without a table, that `shared.db` and child processes are connected to."""
    server = request.getfixturevalue("postgres_server") if request.param == "postgresql" else None
    url = _fresh_postgres(server) if server else f"sqlite:///{tmp_path}/test.db"
    monkeypatch.setenv("PROMPTMILL_DATABASE_URL", url)
    settings.cache_clear()
    db.connect(settings().database_url)
    yield url
    db.disconnect()


def _fresh_postgres(server: PostgresServer) -> str:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {NAME} WITH (FORCE)")
    url = make_url(server.url).set(database=NAME).render_as_string(hide_password=False)
    embedded.ensure_database(url)
    return url
