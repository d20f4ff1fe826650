"""The audit counts what the triggers saw, on both databases."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.domain.leases import Lease
from shared.domain.tenants import Caller
from shared.models import Execution
from tests.factories import claim, expire_leases, submit, sweep
from tests.faults import audit
from tests.faults.audit import Fault, Tally
from worker.providers import Answer
from worker.recording import record
from worker.tasks import STEPS


@pytest.fixture
def audited(admin: Caller) -> Iterator[Caller]:
    audit.install(db.engine())
    yield admin
    if db.engine().dialect.name == "postgresql":  # the tests share this database
        functions = ("fault_log_lease", "fault_log_job", "fault_log_execution")
        with db.engine().begin() as connection:
            connection.exec_driver_sql("DROP TABLE fault_log")
            for function in functions:
                connection.exec_driver_sql(f"DROP FUNCTION {function}() CASCADE")


def tally(
    accepted: list[uuid.UUID], *, calls: list[dict[str, Any]] | None = None, faults: tuple[Fault, ...] = ()
) -> Tally:
    return audit.count(db.engine(), sa.select(Execution), accepted, calls or [], faults, calls_needed=len(accepted))


def call_of(lease: Lease, request_id: str = "req_1") -> dict[str, Any]:
    return {
        "execution_id": str(lease.subject_id),
        "request_id": request_id,
        "started_at": time.time(),
        "fault": None,
    }


def answer(lease: Lease, request_id: str = "req_1") -> None:
    record(STEPS, [(lease, Answer("done", 1, 1, 1, provider_request_id=request_id))])


def claim_one(owner: str) -> Lease:
    (lease,) = claim(owner)
    return lease


def lose(lease: Lease) -> None:
    expire_leases()
    assert sweep().requeued == 1


def test_work_that_ended_once_is_all_well(audited: Caller) -> None:
    accepted = submit(audited)
    lease = claim_one("host:1:a")
    call = call_of(lease)

    answer(lease)

    found = tally(accepted, calls=[call])
    assert (found.lost, found.done_twice, found.events_missing, found.repeats_not_counted) == (0, 0, 0, 0)
    assert (found.calls_paid, found.paid_beyond_needed) == (1, 0)
    assert found.written_by_former_holders == 0


def test_work_that_is_open_and_work_that_has_vanished_is_lost(audited: Caller) -> None:
    accepted = submit(audited)

    assert tally([*accepted, uuid.uuid4()]).lost == 2


def test_a_second_end_is_counted_though_it_changes_nothing(audited: Caller) -> None:
    accepted = submit(audited)
    answer(claim_one("host:1:a"))

    with db.transaction() as session:
        session.execute(sa.update(Execution).values(state="succeeded"))

    assert tally(accepted).done_twice == 1


def test_an_execution_that_nobody_was_promised_is_one_too_many(audited: Caller) -> None:
    accepted = submit(audited, 2)

    assert tally(accepted[:1]).done_twice == 1


def test_an_answer_from_before_the_newest_claim_was_written_by_a_former_holder(audited: Caller) -> None:
    accepted = submit(audited)
    first = claim_one("host:1:a")
    calls = [call_of(first, "req_1")]
    lose(first)
    second = claim_one("host:2:b")
    calls.append(call_of(second, "req_2"))

    answer(second, "req_1")

    assert tally(accepted, calls=calls).written_by_former_holders == 1


def test_a_call_beyond_attempts_and_ambiguous_attempts_is_not_counted_by_the_service(audited: Caller) -> None:
    accepted = submit(audited)
    lease = claim_one("host:1:a")
    answer(lease)

    found = tally(accepted, calls=[call_of(lease), call_of(lease, "req_2")])

    assert (found.repeats_not_counted, found.paid_beyond_needed) == (1, 1)


def test_a_struck_job_has_recovered_when_somebody_has_claimed_it_again(audited: Caller) -> None:
    accepted = submit(audited)
    lease = claim_one("host:1:a")
    fault = Fault(time.time(), time.time(), pid=1)
    lose(lease)
    before = tally(accepted, faults=(fault,))

    claim_one("host:2:b")

    after = tally(accepted, faults=(fault,))
    assert (before.seconds_to_recover, before.slots_open_at_faults) == (None, 1)
    assert after.seconds_to_recover is not None
    assert after.seconds_to_recover > 0


def test_a_fault_strikes_only_the_leases_of_its_worker_at_its_time(audited: Caller) -> None:
    accepted = submit(audited, 3)
    (ended,) = claim("host:1:a", limit=1)
    answer(ended)
    claim("host:1:a", limit=1)
    began = time.time()
    claim("host:2:b", limit=1)

    of_first = tally(accepted, faults=(Fault(began, time.time(), pid=1),))
    of_all = tally(accepted, faults=(Fault(began, time.time()),))
    harmless = tally(accepted, faults=(Fault(began, time.time(), opens_slots=False),))

    assert (of_first.slots_open_at_faults, of_all.slots_open_at_faults) == (1, 2)
    assert harmless.slots_open_at_faults == 0


def test_a_job_that_has_to_run_alone_recovers_at_a_pace_of_its_own(audited: Caller) -> None:
    accepted = submit(audited)
    lose(claim_one("host:1:a"))
    lease = claim_one("host:2:b")
    fault = Fault(time.time(), time.time(), pid=2)
    lose(lease)

    claim("host:3:c", quarantined=True)

    found = tally(accepted, faults=(fault,))
    assert found.seconds_to_recover == 0
    assert found.seconds_to_recover_alone > 0
