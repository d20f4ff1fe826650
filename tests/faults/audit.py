"""What is counted after a fault: from a log that triggers write, from the provider's log, from the events.

Nothing here asks the code under test what it did. Terminal transitions are counted by a trigger, calls by
the provider at their start.
"""

import uuid
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.domain.leases import QUARANTINE_AFTER_LOSSES
from shared.models import OPEN_STATES, Event, Execution, Job, JobLease, State

# `at` is the clock of this host in seconds, which the provider stub and this process read too.
_POSTGRES = """
CREATE TABLE fault_log (
    id bigserial PRIMARY KEY, what text NOT NULL, subject text, job_id bigint, fence bigint, owner text, state text,
    losses integer, at double precision NOT NULL DEFAULT extract(epoch FROM clock_timestamp())
);
CREATE FUNCTION fault_log_lease() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO fault_log (what, job_id, fence, owner) VALUES ('claimed', NEW.job_id, NEW.fence, NEW.owner);
    ELSE
        INSERT INTO fault_log (what, job_id, fence, owner) VALUES ('released', OLD.job_id, OLD.fence, OLD.owner);
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION fault_log_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fault_log (what, subject, job_id, fence, state, losses)
    VALUES (
        CASE WHEN NEW.state IN ('queued', 'running') AND NEW.losses > OLD.losses THEN 'lost' ELSE 'outcome' END,
        NEW.subject_id::text, NEW.id, NEW.fence, NEW.state, NEW.losses
    );
    RETURN NULL;
END $$;
CREATE FUNCTION fault_log_execution() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fault_log (what, subject, state) VALUES ('ended', NEW.id::text, NEW.state);
    RETURN NULL;
END $$;
CREATE TRIGGER fault_log_leases AFTER INSERT OR DELETE ON leases
    FOR EACH ROW EXECUTE FUNCTION fault_log_lease();
CREATE TRIGGER fault_log_jobs AFTER UPDATE ON jobs FOR EACH ROW
    WHEN (
        NEW.attempts <> OLD.attempts OR NEW.losses <> OLD.losses
        OR (NEW.state IN ('failed', 'canceled') AND NEW.state <> OLD.state)
    )
    EXECUTE FUNCTION fault_log_job();
CREATE TRIGGER fault_log_executions AFTER UPDATE OF state ON executions FOR EACH ROW
    WHEN (NEW.state IN ('succeeded', 'failed', 'canceled')) EXECUTE FUNCTION fault_log_execution();
"""
_SQLITE = """
CREATE TABLE fault_log (
    id integer PRIMARY KEY AUTOINCREMENT, what text NOT NULL, subject text, job_id integer, fence integer,
    owner text, state text, losses integer, at real NOT NULL DEFAULT ((julianday('now') - 2440587.5) * 86400.0)
);
CREATE TRIGGER fault_log_claims AFTER INSERT ON leases BEGIN
    INSERT INTO fault_log (what, job_id, fence, owner) VALUES ('claimed', NEW.job_id, NEW.fence, NEW.owner);
END;
CREATE TRIGGER fault_log_releases AFTER DELETE ON leases BEGIN
    INSERT INTO fault_log (what, job_id, fence, owner) VALUES ('released', OLD.job_id, OLD.fence, OLD.owner);
END;
CREATE TRIGGER fault_log_jobs AFTER UPDATE ON jobs
    WHEN NEW.attempts <> OLD.attempts OR NEW.losses <> OLD.losses
        OR (NEW.state IN ('failed', 'canceled') AND NEW.state <> OLD.state) BEGIN
    INSERT INTO fault_log (what, subject, job_id, fence, state, losses)
    VALUES (
        CASE WHEN NEW.state IN ('queued', 'running') AND NEW.losses > OLD.losses THEN 'lost' ELSE 'outcome' END,
        NEW.subject_id, NEW.id, NEW.fence, NEW.state, NEW.losses
    );
END;
CREATE TRIGGER fault_log_executions AFTER UPDATE OF state ON executions
    WHEN NEW.state IN ('succeeded', 'failed', 'canceled') BEGIN
    INSERT INTO fault_log (what, subject, state) VALUES ('ended', NEW.id, NEW.state);
END;
"""


@dataclass(frozen=True)
class Fault:
    """From `began` to `ended` something was broken: for the worker with this pid, or for all of them.

    `opens_slots`: a call that was in flight may have to be made again.
    """

    began: float
    ended: float
    pid: int | None = None
    opens_slots: bool = True


@dataclass(frozen=True)
class Tally:
    """What was wrong, and what it cost. `seconds_to_recover` is None when something never did.

    Jobs that waited to run alone (I11) are apart: `seconds_to_recover_alone` depends on the calls of others.
    """

    accepted: int
    lost: int
    done_twice: int
    failed_though_innocent: int
    written_by_former_holders: int
    events_missing: int
    repeats_not_counted: int
    calls_paid: int
    calls_needed: int
    provider_errors: int
    slots_open_at_faults: int
    seconds_to_recover: float | None
    seconds_to_recover_alone: float = 0.0
    left_behind: Mapping[str, int] = field(default_factory=dict)

    @property
    def paid_beyond_needed(self) -> int:
        return self.calls_paid - self.calls_needed


def install(engine: sa.Engine) -> None:
    """The log and its triggers, in the database under test."""
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            raw = connection.connection.driver_connection
            assert raw is not None
            raw.executescript(_SQLITE)
        return
    with engine.begin() as connection:
        connection.exec_driver_sql(_POSTGRES)


def pid_of(owner: object) -> int:
    """Of the process that a lease names as its owner."""
    return int(str(owner).split(":")[1])


def count(
    engine: sa.Engine,
    executions: sa.Select[Any],
    accepted: Collection[uuid.UUID],
    calls: Iterable[Mapping[str, Any]],
    faults: Sequence[Fault],
    *,
    calls_needed: int,
    guilty: Collection[uuid.UUID] = (),
) -> Tally:
    """Compare what was accepted with what the database, the triggers and the provider say.

    `executions` selects those of this run; `guilty` are meant to fail.
    """
    with Session(engine) as session:
        rows = {row.id: row for row in session.scalars(executions)}
        owned = {job.id: job for job in session.scalars(sa.select(Job)) if job.subject_id in rows}
        leases = [lease for lease in session.scalars(sa.select(JobLease.job_id)) if lease in owned]
        entries = _entries(session, rows, owned)
        events = _ending_events(session, rows)
    mine = [call for call in calls if call["execution_id"] and uuid.UUID(call["execution_id"]) in rows]
    started = Counter(uuid.UUID(call["execution_id"]) for call in mine)
    endings = Counter(entry.subject for entry in entries if entry.what == "ended")
    is_open = {row.id for row in rows.values() if row.state in OPEN_STATES}
    leases_of = _leases(entries)
    struck = [(fault, _struck(leases_of, fault)) for fault in faults]
    recovery = _recovery(struck, entries)
    return Tally(
        accepted=len(accepted),
        lost=len(is_open | (set(accepted) - set(rows))),
        done_twice=sum(max(endings[row_id], events[row_id]) > 1 or (row_id not in accepted) for row_id in rows),
        failed_though_innocent=sum(
            row.state in (State.FAILED, State.CANCELED) for row in rows.values() if row.id not in guilty
        ),
        written_by_former_holders=_written_by_former_holders(rows.values(), mine, entries, owned),
        events_missing=sum(events[row_id] < endings[row_id] for row_id in rows),
        repeats_not_counted=sum(
            max(0, started[row.id] - row.attempts - row.ambiguous_attempts)
            for row in rows.values()
            if row.id not in is_open  # the attempt of one that runs is counted when it ends
        ),
        calls_paid=len(mine),
        calls_needed=calls_needed,
        provider_errors=sum(call["fault"] is not None for call in mine),
        slots_open_at_faults=sum(len(leases) for fault, leases in struck if fault.opens_slots),
        seconds_to_recover=recovery and recovery[0],
        seconds_to_recover_alone=recovery[1] if recovery else 0.0,
        left_behind={"leases": len(leases), "open_jobs": sum(job.state in OPEN_STATES for job in owned.values())},
    )


@dataclass(frozen=True)
class _Entry:
    what: str
    subject: uuid.UUID | None
    job_id: int | None
    fence: int | None
    owner: str | None
    losses: int | None
    at: float


@dataclass(frozen=True)
class _Lease:
    job_id: int
    fence: int
    pid: int
    began: float
    ended: float


def _entries(session: Session, rows: Collection[uuid.UUID], jobs: Collection[int]) -> list[_Entry]:
    found = session.execute(
        sa.text("SELECT what, subject, job_id, fence, owner, losses, at FROM fault_log ORDER BY id")
    )
    entries = [
        _Entry(
            row.what,
            uuid.UUID(row.subject) if row.subject else None,
            row.job_id,
            row.fence,
            row.owner,
            row.losses,
            row.at,
        )
        for row in found
    ]
    return [entry for entry in entries if entry.job_id in jobs or (entry.job_id is None and entry.subject in rows)]


def _ending_events(session: Session, rows: Collection[uuid.UUID]) -> "Counter[uuid.UUID]":
    kinds = [f"execution.{state}" for state in (State.SUCCEEDED, State.FAILED, State.CANCELED)]
    subjects = session.scalars(sa.select(Event.subject_id).where(Event.type.in_(kinds)))
    return Counter(subject for subject in subjects if subject in rows)


def _leases(entries: Iterable[_Entry]) -> list[_Lease]:
    """Each lease with the time from its claim to its release."""
    released = {(entry.job_id, entry.fence): entry.at for entry in entries if entry.what == "released"}
    return [
        _Lease(entry.job_id or 0, entry.fence or 0, pid_of(entry.owner), entry.at, ended)
        for entry in entries
        if entry.what == "claimed"
        for ended in [released.get((entry.job_id, entry.fence), float("inf"))]
    ]


def _struck(leases: Iterable[_Lease], fault: Fault) -> list[_Lease]:
    """Those that were held at any time during the fault."""
    return [
        lease
        for lease in leases
        if lease.began <= fault.ended and lease.ended >= fault.began and fault.pid in (None, lease.pid)
    ]


def _recovery(
    struck: Sequence[tuple[Fault, Sequence[_Lease]]], entries: Sequence[_Entry]
) -> tuple[float, float] | None:
    """From the end of a fault until each job that it struck had an outcome recorded or ran again under a
    newer fence: the longest of all, first without and then with those that were to run alone. None: never."""
    of_job: dict[int, list[_Entry]] = defaultdict(list)
    for entry in entries:
        if entry.job_id is not None:
            of_job[entry.job_id].append(entry)
    longest = {False: 0.0, True: 0.0}
    for fault, leases in struck:
        for lease in leases:
            alone = False
            for entry in of_job[lease.job_id]:
                alone = alone or (entry.losses or 0) >= QUARANTINE_AFTER_LOSSES
                is_newer = entry.what == "claimed" and (entry.fence or 0) > lease.fence
                if is_newer or (entry.what == "outcome" and entry.at >= lease.began):
                    longest[alone] = max(longest[alone], entry.at - fault.ended)
                    break
            else:
                return None
    return longest[False], longest[True]


def _written_by_former_holders(
    rows: Iterable[Execution], calls: Iterable[Mapping[str, Any]], entries: Sequence[_Entry], jobs: Mapping[int, Job]
) -> int:
    """Outcomes of a call after whose start, and before whose writing, somebody else had claimed the job (I2)."""
    started = {call["request_id"]: call["started_at"] for call in calls}
    ended = {entry.subject: entry.at for entry in entries if entry.what == "ended"}
    claims: dict[uuid.UUID, list[float]] = defaultdict(list)
    for entry in entries:
        if entry.what == "claimed" and entry.job_id is not None:
            claims[jobs[entry.job_id].subject_id].append(entry.at)
    return sum(
        any(started[row.provider_request_id] < at < ended[row.id] for at in claims[row.id])
        for row in rows
        if row.provider_request_id in started and row.id in ended
    )
