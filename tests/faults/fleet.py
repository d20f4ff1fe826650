"""The processes of an installation, each of which can be killed, stopped, replaced or left out alone."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import celery
import httpx2
import psycopg
import redis
import sqlalchemy as sa

from shared.db import open_engine
from shared.models import Queue
from tests.faults import audit
from tests.journeys.stack import ROOT, environment
from tests.servers import PostgresServer, ProviderServer, RedisServer, free_port, wait_until

LEASE_SECONDS = 3.0
SWEEP_SECONDS = 1.0
API_KEY = "pm_key-of-the-fault-suite"
PROVIDER_TIMEOUT_SECONDS = 5.0  # longer than a lease: a hanging call must not lose it
SETTINGS = {
    "PROMPTMILL_JOB_LEASE_SECONDS": str(LEASE_SECONDS),
    "PROMPTMILL_HEARTBEAT_SECONDS": "1",
    "PROMPTMILL_SWEEP_SECONDS": str(SWEEP_SECONDS),
    "PROMPTMILL_POLL_SECONDS": "0.5",
    "PROMPTMILL_DRAIN_SECONDS": "10",
    "PROMPTMILL_PROVIDER_TIMEOUT_SECONDS": str(PROVIDER_TIMEOUT_SECONDS),
    "PROMPTMILL_WEB_PROCESSES": "1",
    "PROMPTMILL_API_KEY": API_KEY,
    "OPENAI_API_KEY": "none",
    "PYTHONPATH": str(ROOT),
    "PYTHONWARNINGS": "ignore",
}


class Process:
    """One of ours, in a process group of its own, with its output in a file."""

    def __init__(self, name: str, command: Sequence[str], env: dict[str, str], log: Path) -> None:
        self.name = name
        self._command, self._env, self._log = command, env, log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def is_like(self, other: "Process") -> bool:
        return (self._command, self._env) == (other._command, other._env)

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._env, stdout=log, stderr=log, start_new_session=True
            )

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def has_died(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def wait(self, seconds: float = 30.0) -> None:
        assert self._process is not None
        self._process.wait(seconds)

    def kill(self) -> None:
        """At once. When this returns, it does nothing any more."""
        if self._process is None:
            return
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGKILL)
        self.wait()


class Fleet:
    """Redis, database, provider stub, API, workers and beats, with the short periods of this suite."""

    def __init__(
        self,
        home: Path,
        *,
        database: str,
        workers: int = 2,
        beats: int = 1,
        slots: int = 8,
        oddities: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,  # in place of those of this suite
    ) -> None:
        self.home, self.database, self.slots = home, database, slots
        self.disk = home / "disk"  # a place of its own for SQLite, so that it can fill up alone
        self.disk.mkdir(exist_ok=True)
        self.redis = RedisServer(home / "redis")
        self.postgres: PostgresServer | None = None
        with contextlib.ExitStack() as servers:  # what was started ends, even if what follows does not start
            if database == "postgresql":
                (home / "postgres").mkdir(mode=0o755)
                self.postgres = PostgresServer(home / "postgres")
                servers.callback(self.postgres.stop)
            self.provider = ProviderServer(threads=256)
            servers.callback(self.provider.stop)
            self._servers = servers.pop_all()
        self.url = self._database_url()
        self.engine = open_engine(self.url)
        self._port = free_port()
        self.api = httpx2.Client(
            base_url=f"http://127.0.0.1:{self._port}", headers={"X-API-Key": API_KEY}, timeout=httpx2.Timeout(30)
        )
        self._env = environment(
            home,
            **{
                **SETTINGS,
                "HOST": "127.0.0.1",
                "PORT": str(self._port),
                "PROMPTMILL_CONCURRENCY": str(slots),
                "PROMPTMILL_DATABASE_URL": self.url,
                "PROMPTMILL_REDIS_URL": self.redis.url,
                "OPENAI_BASE_URL": self.provider.base_url,
                **(settings or {}),
            },
        )
        self._env.pop("PYTHONDONTWRITEBYTECODE", None)  # it would have each process compile our modules anew
        self._web = self._process("web", ["gunicorn", "-c", "deploy/gunicorn.conf.py", "app.wsgi:application"])
        self.workers = [self._worker(number, **(oddities or {})) for number in range(1, workers + 1)]  # type: ignore[arg-type]
        self.beats: list[Process] = []
        self._beats = beats
        self.messages = celery.Celery(broker=self.redis.url)

    def start(self) -> None:
        self.redis.start()
        released = subprocess.run(
            [sys.executable, "-m", "app.admin", "release"], cwd=ROOT, env=self._env, capture_output=True, check=False
        )
        assert released.returncode == 0, released.stderr.decode()
        audit.install(self.engine)
        self._web.start()
        for worker in self.workers:
            worker.start()
        self.set_beats(self._beats)
        wait_until(self._answers, "the API answers")
        for worker in self.workers:
            self.await_worker(worker)

    def stop(self) -> None:
        for process in (*self.beats, *self.workers, self._web):
            process.kill()
        self.api.close()
        self.messages.close()
        self.redis.kill()
        self.engine.dispose()
        self._servers.close()

    # ---- workers ----------------------------------------------------------------------------

    def restart_worker(self, worker: Process) -> None:
        worker.start()
        self.await_worker(worker)

    def await_worker(self, worker: Process) -> None:
        """Until it has said in the database that it consumes."""

        def has_checked_in() -> bool:
            assert not worker.has_died(), self.log_of(worker.name)
            return worker.pid in {audit.pid_of(owner) for owner in self.scalars("SELECT owner FROM workers")}

        wait_until(has_checked_in, f"{worker.name} has checked in", seconds=60, every=0.05)

    def has_finished_a_job(self, worker: Process) -> bool:
        owners = self.scalars("SELECT DISTINCT owner FROM fault_log WHERE what = 'released'")
        return worker.pid in {audit.pid_of(owner) for owner in owners}

    def holding(self, worker: Process) -> list[int]:
        """The jobs whose lease it has."""
        rows = self.rows("SELECT owner, job_id FROM leases")
        return [int(str(job_id)) for owner, job_id in rows if audit.pid_of(owner) == worker.pid]

    def staff(self, *, clock_seconds: Sequence[float] = (), **oddities: str) -> None:
        """See to it that the workers are these: with oddities (tests/faults/odd_worker.py), with wrong clocks.

        One that is as it should be already is left alone; another is killed, so let there be no work.
        """
        others = []
        for number, (worker, seconds) in enumerate(zip_longest(self.workers, clock_seconds, fillvalue=0.0)):
            wanted = self._worker(number + 1, clock_seconds=float(seconds), **oddities)
            if not wanted.is_like(worker):  # type: ignore[arg-type]
                self.workers[number].kill()
                self.workers[number] = wanted
                wanted.start()
                others.append(wanted)
        for other in others:
            self.await_worker(other)

    def _worker(self, number: int, *, clock_seconds: float = 0.0, **oddities: str) -> Process:
        queues = ",".join(Queue)
        arguments = [
            "-q", "-A", "tests.faults.odd_worker" if oddities else "worker.tasks", "worker", "-P", "threads",
            "-n", f"worker{number}@%h", "-Q", queues, "--without-gossip", "--without-mingle",
        ]  # fmt: skip
        if clock_seconds:
            oddities["FAULTS_CLOCK_SECONDS"] = str(clock_seconds)
        module = "tests.faults.skewed_worker" if clock_seconds else "celery"
        return self._process(f"worker{number}", [module, *arguments], **oddities)

    # ---- the others -------------------------------------------------------------------------

    def set_beats(self, count: int) -> None:
        while len(self.beats) > count:
            self.beats.pop().kill()
        while len(self.beats) < count:
            number = len(self.beats) + 1
            schedule = ["-S", "celery.beat:Scheduler"]
            self.beats.append(self._process(f"beat{number}", ["celery", "-q", "-A", "worker.tasks", "beat", *schedule]))
            self.beats[-1].start()

    def terminate_backends(self) -> int:
        """End every connection to PostgreSQL but this one; how many there were."""
        assert self.postgres is not None
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            ended = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchall()
        return len(ended)

    def ring(self, job_ids: Sequence[int], *, lane: str = Queue.EXECUTIONS) -> None:
        """A doorbell, as the API rings it."""
        self.messages.send_task("promptmill.claim", args=[list(job_ids)], queue=str(lane))

    def redis_client(self) -> "redis.Redis":
        return redis.Redis.from_url(self.redis.url)

    def rows(self, statement: str, **values: object) -> list[tuple[object, ...]]:
        """Of the database; waits while it is away."""
        found: list[list[tuple[object, ...]]] = []

        def asked() -> bool:
            with contextlib.suppress(sa.exc.DBAPIError), self.engine.connect() as connection:
                found.append([tuple(row) for row in connection.execute(sa.text(statement), values)])
            return bool(found)

        wait_until(asked, "the database answers", seconds=60, every=0.1)
        return found[-1]

    def scalars(self, statement: str, **values: object) -> list[object]:
        return [row[0] for row in self.rows(statement, **values)]

    def logs(self) -> str:
        return "\n".join(f"---- {worker.name}\n{self.log_of(worker.name)}" for worker in self.workers)

    def log_of(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text()[-4000:]

    def _process(self, name: str, command: Sequence[str], **env: str) -> Process:
        return Process(name, [sys.executable, "-m", *command], {**self._env, **env}, self.home / f"{name}.log")

    def _database_url(self) -> str:
        if self.postgres:
            return self.postgres.url.replace("postgresql://", "postgresql+psycopg://")
        return f"sqlite:///{self.disk}/promptmill.db"

    def _answers(self) -> bool:
        assert not self._web.has_died(), self.log_of("web")
        try:
            return self.api.get("/health").status_code == 200
        except httpx2.TransportError:
            return False


@contextlib.contextmanager
def running_fleet(home: Path, **options: object) -> Iterator[Fleet]:
    fleet = Fleet(home, **options)  # type: ignore[arg-type]
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.stop()
