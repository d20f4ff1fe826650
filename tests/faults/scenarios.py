"""The faults, one function each: what is broken, for how long, and what goes on meanwhile.

A scenario gets a fleet in good health and leaves it so. It breaks something `run.times` times under at least
`run.jobs` jobs, and says from when to when (`run.fault`). `rehearse` then counts, and judges.
"""

import contextlib
import random
import signal
import sqlite3
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from shared.models import Execution, Queue
from tests.faults import audit
from tests.faults.audit import Fault, Tally
from tests.faults.fleet import LEASE_SECONDS, SWEEP_SECONDS, Fleet, Process
from tests.faults.work import MODEL, Work
from tests.servers import temporary_directory, wait_until

LIMIT_SECONDS = LEASE_SECONDS + 2 * SWEEP_SECONDS
PATIENCE_SECONDS = 90.0  # three retries may take 35 s and more; what is open then is lost
POSTGRESQL, SQLITE = "postgresql", "sqlite"


@dataclass
class Run:
    """One rehearsal of a fault: the fleet, its work, and what was done to it."""

    fleet: Fleet
    work: Work
    dice: random.Random
    jobs: int
    times: int
    patience_seconds: float = PATIENCE_SECONDS
    oddities: Mapping[str, str] = field(default_factory=dict)  # of every worker
    faults: list[Fault] = field(default_factory=list)
    guilty: set[uuid.UUID] = field(default_factory=set)
    executions: sa.Select[tuple[Execution]] | None = None  # when they are not those that were submitted one by one
    calls_needed: int | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @contextlib.contextmanager
    def fault(self, worker: Process | None = None, *, opens_slots: bool = True) -> Iterator[None]:
        """Something is broken until the end of this block: one worker, or something for all."""
        began, pid = time.time(), worker and worker.pid
        yield
        self.faults.append(Fault(began, time.time(), pid, opens_slots))

    def staff(self, **options: Any) -> None:
        self.fleet.staff(**self.oddities, **options)

    def warm_up(self) -> None:
        """Until each worker has run a job: the first one waits for imports and connections."""

        def is_warm() -> bool:
            cold = [worker for worker in self.fleet.workers if not self.fleet.has_finished_a_job(worker)]
            if cold and not self.work.open():
                self.work.submit(2 * len(self.fleet.workers))
            return not cold

        wait_until(is_warm, "each worker has run a job", seconds=60, every=0.1)
        self.work.drain(PATIENCE_SECONDS)

    def flowing(self) -> contextlib.AbstractContextManager[None]:
        """As many open jobs as batch work may have slots, and a few more."""
        return self.work.flowing(at_most_open=len(self.fleet.workers) * (self.fleet.slots - 1) + 4)

    def pause(self, most_seconds: float = 1.0) -> None:
        time.sleep(self.dice.uniform(0.1, most_seconds))

    def kill_workers(self, most: int) -> None:
        """SIGKILL some at a random moment of their work; the fault lasts until others have taken their place."""
        chosen = self.dice.sample(self.fleet.workers, self.dice.randint(1, min(most, len(self.fleet.workers))))
        # A process that has just started imports and connects: it makes no call that could be lost.
        wait_until(lambda: all(map(self.fleet.has_finished_a_job, chosen)), "they work", seconds=60, every=0.1)
        self.pause()
        with contextlib.ExitStack() as faults:
            for worker in chosen:
                worker.kill()
                faults.enter_context(self.fault(worker))
            for worker in chosen:
                worker.start()
            for worker in chosen:
                self.fleet.await_worker(worker)


Play = Callable[[Run], None]


@dataclass(frozen=True)
class Scenario:
    name: str
    play: Play
    databases: Sequence[str]
    jobs: int  # of the long form, per database
    times: int
    needs_small_disk: bool = False

    @property
    def summary(self) -> str:
        return (self.play.__doc__ or "").splitlines()[0]


SCENARIOS: dict[str, Scenario] = {}


def scenario(*databases: str, **sizes: Any) -> Callable[[Play], Play]:
    """Register it, for both databases when none is named."""

    def register(play: Play) -> Play:
        SCENARIOS[play.__name__] = Scenario(play.__name__, play, databases or (POSTGRESQL, SQLITE), **sizes)
        return play

    return register


def rehearse(
    fleet: Fleet,
    name: str,
    *,
    seed: int,
    jobs: int,
    times: int,
    patience_seconds: float = PATIENCE_SECONDS,
    **oddities: str,
) -> dict[str, Any]:
    """Play a scenario, let the work end, and count. The line that `make faults` prints."""
    fleet.provider.set_faults()
    fleet.provider.set_latency(300)
    run = Run(fleet, Work(fleet, name), random.Random(f"{seed} {name}"), jobs, times, patience_seconds, oddities)
    run.staff()
    run.warm_up()
    SCENARIOS[name].play(run)
    run.work.drain(run.patience_seconds)
    fleet.provider.set_faults()
    tally = audit.count(
        fleet.engine,
        run.executions if run.executions is not None else run.work.executions,
        run.work.accepted,
        fleet.provider.log(),
        run.faults,
        calls_needed=len(run.work.accepted) if run.calls_needed is None else run.calls_needed,
        guilty=run.guilty,
    )
    unmet = [*unmet_requirements(tally), *run.notes.pop("unmet", [])]
    return {
        "fault": name,
        "database": fleet.database,
        "seed": seed,
        "jobs": tally.accepted,
        "faults_injected": run.notes.pop("faults_injected", len(run.faults)),
        "lost": tally.lost,
        "done_twice": tally.done_twice,
        "failed_though_innocent": tally.failed_though_innocent,
        "written_by_former_holders": tally.written_by_former_holders,
        "calls_paid": tally.calls_paid,
        "calls_needed": tally.calls_needed,
        "paid_beyond_needed": tally.paid_beyond_needed,
        "slots_open_at_faults": tally.slots_open_at_faults,
        "provider_errors": tally.provider_errors,
        "seconds_to_recover": None if tally.seconds_to_recover is None else round(tally.seconds_to_recover, 2),
        "seconds_to_recover_alone": round(tally.seconds_to_recover_alone, 2),
        "limit_seconds": LIMIT_SECONDS,
        **run.notes,
        "unmet": unmet,
        "ok": not unmet,
    }


def unmet_requirements(tally: Tally) -> list[str]:
    """By name, those of the suite that this tally does not meet."""
    allowed = tally.slots_open_at_faults + tally.provider_errors
    met = {
        "lost": tally.lost == 0,
        "done_twice": tally.done_twice == 0,
        "failed_though_innocent": tally.failed_though_innocent == 0,
        "written_by_former_holders": tally.written_by_former_holders == 0,
        "events_missing": tally.events_missing == 0,
        "repeats_not_counted": tally.repeats_not_counted == 0,
        "paid_beyond_needed": tally.paid_beyond_needed <= allowed,
        "recovery": tally.seconds_to_recover is not None and tally.seconds_to_recover <= LIMIT_SECONDS,
        "left_behind": not any(tally.left_behind.values()),
    }
    return [name for name, is_met in met.items() if not is_met]


# ---- workers --------------------------------------------------------------------------------


@scenario(jobs=1500, times=80)
def workers_killed(run: Run) -> None:
    """SIGKILL of a worker at a random moment; another process takes its place."""
    with run.flowing():
        _kill_workers(run)
        run.work.until(run.jobs)


def _kill_workers(run: Run) -> None:
    """One, several or all at once, until so many have died."""
    killed = len(run.faults)
    while (left := run.times - len(run.faults) + killed) > 0:
        run.kill_workers(left)


@scenario(POSTGRESQL, jobs=30, times=10)
def workers_stopped(run: Run) -> None:
    """SIGSTOP until another worker runs the same jobs, then SIGCONT: a zombie with paid answers in its hands."""
    # No queue, and calls so long that the second worker still waits for them when the first one wakes.
    run.fleet.provider.set_latency(2500)
    for _ in range(run.times):
        _stop_until_replaced(run, max(1, min(run.jobs // run.times, run.fleet.slots // 2)))
        run.work.drain(run.patience_seconds)


def _stop_until_replaced(run: Run, jobs: int) -> None:
    before = len(run.fleet.provider.log())
    run.work.submit(jobs)
    wait_until(lambda: len(run.fleet.provider.log()) >= before + jobs, "the calls are in flight")
    zombie = max(run.fleet.workers, key=lambda worker: len(run.fleet.holding(worker)))
    held = run.fleet.holding(zombie)
    began = time.time()
    claimed_again = (
        "SELECT count(DISTINCT job_id) FROM fault_log WHERE what = 'claimed' AND at > :began"
        f" AND job_id IN ({', '.join(map(str, held))})"
    )
    with run.fault(zombie):
        zombie.signal(signal.SIGSTOP)
        try:
            with contextlib.suppress(AssertionError):  # if it never comes to that, the count will tell
                wait_until(
                    lambda: run.fleet.scalars(claimed_again, began=began) == [len(held)],
                    "others have them all",
                    seconds=run.patience_seconds,
                )
        finally:
            zombie.signal(signal.SIGCONT)


@scenario(jobs=100, times=5)
def workers_paused(run: Run) -> None:
    """SIGSTOP for a time around the lease, under load, then SIGCONT: some leases are lost, some are not."""
    with run.flowing():
        for _ in range(run.times):
            run.pause()
            worker = run.dice.choice(run.fleet.workers)
            with run.fault(worker):
                worker.signal(signal.SIGSTOP)
                time.sleep(run.dice.uniform(0.5, 2 * LEASE_SECONDS))
                worker.signal(signal.SIGCONT)
        run.work.until(run.jobs)


@scenario(jobs=200, times=5)
def workers_restarted(run: Run) -> None:
    """SIGTERM of one worker after the other under load, as a deploy does: nothing is repeated."""
    with run.flowing():
        for _ in range(run.times):
            for worker in run.fleet.workers:
                run.pause()
                with run.fault(worker, opens_slots=False):
                    worker.signal(signal.SIGTERM)
                    worker.wait()
                    run.fleet.restart_worker(worker)
        run.work.until(run.jobs)


@scenario(jobs=60, times=1)
def worker_dies_on_one_job(run: Run) -> None:
    """A job that kills its worker each time: it ends with `lease_expired`, and takes no innocent with it."""
    marker = f"poison-{run.work.tag}"
    run.staff(FAULTS_DIES_ON=marker)
    with _tended(run):
        for _ in range(run.times):
            run.work.submit(run.jobs // run.times // 2)
            run.guilty.update(run.work.submit(1, marker=marker))
            run.work.submit(run.jobs // run.times // 2)
            run.work.drain(run.patience_seconds)
    ends = run.fleet.rows(
        "SELECT state, error_type FROM executions WHERE correlation_id = :tag AND state <> 'succeeded'",
        tag=run.work.tag,
    )
    run.notes["dead_lettered"] = sum(row == ("failed", "lease_expired") for row in ends)
    if run.notes["dead_lettered"] != len(run.guilty):
        run.notes["unmet"] = ["dead_lettered"]


@scenario(jobs=40, times=2)
def step_killed_in_fan_out(run: Run) -> None:
    """The worker of an evaluation's step dies between inserting its calls and committing them.

    Every second case asks what the one before asked: the ledger knows, so it is not paid for again.
    """
    contents = max(1, run.jobs // 2)
    if not run.times:
        evaluate(run, contents)
        return
    with temporary_directory() as deaths:
        for number in range(run.times):
            (deaths / str(number)).touch()
        run.staff(FAULTS_DIES_IN_FAN_OUT=str(deaths))
        with _tended(run):
            evaluate(run, contents)


def evaluate(run: Run, contents: int) -> None:
    """An evaluation of twice as many cases as there are different contents, until it has ended."""
    name = run.work.tag
    model = {key: MODEL[key] for key in ("provider", "model_name", "params")}
    template = {"template_source": name + " {{ content }}", "set_active": True, "model": model}
    run.work.call("PUT", f"/v1/prompts/{name}", template)
    run.work.call("POST", "/v1/datasets", {"name": name})
    cases = [{"inputs": {"content": f"number {n // 2}", "copy": n % 2}, "expected": "x"} for n in range(2 * contents)]
    run.work.call("POST", f"/v1/datasets/{name}/cases", cases)
    body = {"prompt_name": name, "dataset": name, "scorers": [{"type": "exact_match"}]}
    created = run.work.call("POST", "/v1/evaluations", body, **{"Idempotency-Key": name}).json()
    evaluation_id = uuid.UUID(created["evaluation_id"])
    ended: list[str] = []

    def has_ended() -> bool:
        ended[:] = [run.fleet.api.get(f"/v1/evaluations/{evaluation_id}").json()["status"]]
        return ended[0] not in ("queued", "running")

    with contextlib.suppress(AssertionError):
        wait_until(has_ended, "the evaluation has ended", seconds=run.patience_seconds, every=0.1)
    run.calls_needed = len(run.work.accepted) + contents
    run.executions = sa.select(Execution).where(
        sa.or_(Execution.scope_id == evaluation_id, Execution.correlation_id == run.work.tag)
    )
    with run.fleet.engine.connect() as connection:
        ids = connection.execute(sa.select(Execution.id).where(Execution.scope_id == evaluation_id)).scalars()
        run.work.accepted.update(ids)
    run.notes["evaluation"] = ended[0]
    if ended != ["succeeded"]:
        run.notes["unmet"] = ["evaluation"]


@contextlib.contextmanager
def _tended(run: Run) -> Iterator[None]:
    """Meanwhile a worker that dies by itself is replaced, and its death noted as a fault."""
    done = threading.Event()

    def tend() -> None:
        while not done.wait(0.05):
            for worker in run.fleet.workers:
                if worker.has_died():
                    with run.fault(worker):
                        run.fleet.restart_worker(worker)

    thread = threading.Thread(target=tend, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@scenario(POSTGRESQL, jobs=100, times=6)
def worker_clocks_wrong(run: Run) -> None:
    """One worker an hour ahead, another an hour behind, and one of them killed: the database's clock rules."""
    run.staff(clock_seconds=(3600, -3600))
    with run.flowing():
        _kill_workers(run)
        run.work.until(run.jobs)


# ---- Redis and messages ---------------------------------------------------------------------


@scenario(jobs=100, times=5)
def redis_killed(run: Run) -> None:
    """SIGKILL of Redis under load, and a new, empty one a moment later."""
    with run.flowing():
        for _ in range(run.times):
            run.pause(2)
            with run.fault(opens_slots=False):
                run.fleet.redis.kill()
                run.pause(2)
                run.fleet.redis.start()
        run.work.until(run.jobs)


@scenario(jobs=100, times=20)
def redis_flushed(run: Run) -> None:
    """FLUSHALL under load: every message that waits is gone, and what Celery keeps there."""
    with run.flowing():
        for _ in range(run.times):
            run.pause(0.5)
            with run.fault(opens_slots=False):
                run.fleet.redis_client().flushall()
        run.work.until(run.jobs)


@scenario(jobs=100, times=10)
def redis_dead(run: Run) -> None:
    """No Redis from beginning to end, and workers killed: pulling and the workers' own sweep do it all."""
    with run.fault(opens_slots=False):
        run.fleet.redis.kill()
        try:
            with run.flowing():
                _kill_workers(run)
                run.work.until(run.jobs)
            run.work.drain(run.patience_seconds)
        finally:
            run.fleet.redis.start()


@scenario(jobs=200, times=50)
def messages_duplicated(run: Run) -> None:
    """Each doorbell three times, shuffled, with the ids of jobs that have ended and of none at all."""
    seen: list[int] = []
    with run.flowing():
        for _ in range(run.times):
            run.pause(0.2)
            seen += [int(str(job_id)) for job_id in run.fleet.scalars("SELECT job_id FROM leases")]
            ids = [*run.dice.sample(seen, min(len(seen), 20)), 10**9 + run.dice.randrange(10**6)]
            with run.fault(opens_slots=False):
                for lane in (Queue.EXECUTIONS, Queue.EXECUTIONS, Queue.INTERACTIVE):
                    run.fleet.ring(run.dice.sample(ids, len(ids)), lane=lane)
        run.work.until(run.jobs)
    run.notes["faults_injected"] = 3 * run.times


@scenario(jobs=200, times=30)
def messages_dropped(run: Run) -> None:
    """Somebody else takes doorbells out of Redis: jobs that no message names are found by looking."""
    stolen = 0
    done = threading.Event()

    def steal() -> None:
        nonlocal stolen
        client = run.fleet.redis_client()
        while not done.is_set():
            stolen += client.blpop([Queue.EXECUTIONS.value], timeout=1) is not None

    thieves = [threading.Thread(target=steal, daemon=True) for _ in range(8)]
    with run.fault(opens_slots=False):
        for thief in thieves:
            thief.start()
        with run.flowing():
            wait_until(lambda: stolen >= run.times, f"{run.times} doorbells are stolen", seconds=120)
            run.work.until(run.jobs)
        run.work.drain(run.patience_seconds)
        done.set()
        for thief in thieves:
            thief.join()
    run.notes["faults_injected"] = stolen


# ---- beat -----------------------------------------------------------------------------------


@scenario(jobs=100, times=8)
def two_beats(run: Run) -> None:
    """Two beats ask for each sweep twice, while workers are killed."""
    run.fleet.set_beats(2)
    try:
        workers_killed(run)
    finally:
        run.fleet.set_beats(1)


@scenario(jobs=100, times=8)
def beat_dead(run: Run) -> None:
    """No beat at all, while workers are killed: the other workers sweep."""
    run.fleet.set_beats(0)
    try:
        workers_killed(run)
    finally:
        run.fleet.set_beats(1)


# ---- the database ---------------------------------------------------------------------------


@scenario(POSTGRESQL, jobs=200, times=30)
def postgres_backends_terminated(run: Run) -> None:
    """pg_terminate_backend of every connection, in the middle of whatever it did."""
    ended = 0
    with run.flowing():
        for _ in range(run.times):
            run.pause()
            with run.fault():
                ended += run.fleet.terminate_backends()
        run.work.until(run.jobs)
    run.notes["connections_ended"] = ended


@scenario(POSTGRESQL, jobs=100, times=5)
def postgres_restarted(run: Run) -> None:
    """PostgreSQL aborts (immediate shutdown) under load, starts again and recovers from its log."""
    assert run.fleet.postgres is not None
    with run.flowing():
        for _ in range(run.times):
            run.pause(2)
            with run.fault():
                run.fleet.postgres.crash_and_recover()
        run.work.until(run.jobs)


@scenario(SQLITE, jobs=60, times=3)
def sqlite_busy(run: Run) -> None:
    """Another process holds SQLite's write lock for longer than a lease."""
    with run.flowing():
        for _ in range(run.times):
            run.pause()
            with run.fault(), contextlib.closing(sqlite3.connect(run.fleet.engine.url.database or "")) as other:
                other.isolation_level = None
                other.execute("PRAGMA busy_timeout = 30000")
                other.execute("BEGIN IMMEDIATE")
                time.sleep(LEASE_SECONDS + run.dice.uniform(0.5, 2))
                other.execute("ROLLBACK")
        run.work.until(run.jobs)


@scenario(SQLITE, jobs=60, times=3)
def sqlite_read_only(run: Run) -> None:
    """The files of the database cannot be written for a while, not even by who has them open (chattr +i)."""
    files = [str(path) for path in run.fleet.disk.iterdir() if not path.name.endswith("-shm")]
    with run.flowing():
        for _ in range(run.times):
            run.pause()
            with run.fault():
                _chattr("+i", files)
                try:
                    time.sleep(run.dice.uniform(1, LEASE_SECONDS + 1))
                finally:
                    _chattr("-i", files)
        run.work.until(run.jobs)


def _chattr(flag: str, files: Sequence[str]) -> None:
    """Needs root, and a file system that knows the flag; SQLite keeps its files as long as it is open."""
    subprocess.run(["chattr", flag, *files], check=True)


@scenario(SQLITE, jobs=60, times=3, needs_small_disk=True)
def disk_full(run: Run) -> None:
    """The file system of the database is full for a while."""
    ballast = run.fleet.disk / "ballast"
    with run.flowing():
        for _ in range(run.times):
            run.pause()
            with run.fault():
                try:
                    _fill(ballast)
                    time.sleep(run.dice.uniform(1, LEASE_SECONDS + 1))
                finally:
                    ballast.unlink()
        run.work.until(run.jobs)


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(4096))


@contextlib.contextmanager
def small_disk(directory: Path, *, megabytes: int = 64) -> Iterator[None]:
    """A file system of that size at `directory`. Needs root."""
    options = f"size={megabytes}m,mode=0755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


# ---- the provider ---------------------------------------------------------------------------


@scenario(jobs=100, times=1)
def provider_rate_limits(run: Run) -> None:
    """429 with Retry-After for every first try."""
    _misbehaving(run, rate_limited=1.0)


@scenario(jobs=100, times=1)
def provider_errors(run: Run) -> None:
    """A burst of 5xx: every first try, and the second too."""
    _misbehaving(run, tries=2, server_error=1.0)


@scenario(jobs=28, times=1)
def provider_hangs(run: Run) -> None:
    """Calls that hang for longer than a lease: the lease is kept, the call is given up and made again."""
    _misbehaving(run, timeout=1.0)


@scenario(jobs=100, times=1)
def provider_garbles(run: Run) -> None:
    """Answers that are no JSON, and answers that break off."""
    _misbehaving(run, malformed=0.5, truncated=0.5)


def _misbehaving(run: Run, *, tries: int = 1, **shares: float) -> None:
    """A provider that fails the first tries of every job: fewer than a job has, so that none may fail.

    The fault lasts until the try after them has begun for every job.
    """
    for _ in range(run.times):
        before = len(run.fleet.provider.log())
        jobs = run.jobs // run.times
        run.fleet.provider.set_faults(first_attempts=tries, **shares)
        with run.fault(opens_slots=False):
            run.work.submit(jobs)
            with contextlib.suppress(AssertionError):  # if it never comes to that, the count will tell
                wait_until(
                    lambda before=before, jobs=jobs: len(run.fleet.provider.log()) >= before + jobs * (tries + 1),  # type: ignore[misc]
                    "each has been tried again",
                    seconds=run.patience_seconds,
                    every=0.1,
                )
        run.fleet.provider.set_faults()
    accepted = {str(execution_id) for execution_id in run.work.accepted}
    run.notes["faults_injected"] = sum(
        call["fault"] is not None and call["execution_id"] in accepted for call in run.fleet.provider.log()
    )


# ---- the controls ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Control:
    """Without this safeguard the scenario must go red, for these reasons and no others."""

    scenario: str
    jobs: int
    times: int
    unmet: frozenset[str]
    patience_seconds: float = 8.0

    @property
    def databases(self) -> Sequence[str]:
        return SCENARIOS[self.scenario].databases


CONTROLS: Mapping[str, Control] = {
    "fence": Control("workers_stopped", 3, 1, frozenset({"written_by_former_holders"}), patience_seconds=30),
    "pulling": Control("redis_dead", 6, 0, frozenset({"lost", "left_behind"})),
    "ledger": Control("step_killed_in_fan_out", 40, 0, frozenset({"paid_beyond_needed"}), patience_seconds=60),
    "sweep": Control("workers_killed", 20, 1, frozenset({"lost", "left_behind", "recovery"})),
}


def rehearse_without(fleet: Fleet, safeguard: str, *, seed: int) -> dict[str, Any]:
    """The line of a control: `ok` when the scenario went red for the reason it should."""
    control = CONTROLS[safeguard]
    line = rehearse(
        fleet,
        control.scenario,
        seed=seed,
        jobs=control.jobs,
        times=control.times,
        patience_seconds=control.patience_seconds,
        FAULTS_WITHOUT=safeguard,
    )
    went_red = set(line["unmet"]) == control.unmet
    return {"control": f"without_{safeguard}", "must_be_unmet": sorted(control.unmet), **line, "ok": went_red}
