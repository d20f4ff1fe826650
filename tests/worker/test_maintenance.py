"""The periodic duties: each on its own, and silent when there was nothing to do."""

import logging
from collections import Counter
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.domain import leases, retention
from shared.domain.tenants import Caller
from shared.models import Event, Job, State
from tests.factories import claim, do_duties, expire_leases, job_of, submit
from tests.rows import count
from tests.support import Drain
from worker import maintenance


def warnings(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.msg for record in caplog.records if record.name == "maintenance"]  # type: ignore[misc]  # a dict


def test_a_sweep_that_finds_nothing_logs_nothing(admin: Caller, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        do_duties()

    assert warnings(caplog) == []


def test_a_sweep_says_what_it_found(admin: Caller, caplog: pytest.LogCaptureFixture) -> None:
    submit(admin, 2)
    claim()
    expire_leases()

    with caplog.at_level(logging.WARNING):
        do_duties()

    (line,) = warnings(caplog)
    assert (line["event"], line["requeued"], line["failed"], line["canceled"]) == ("leases_swept", 2, 0, 0)


def test_a_duty_that_fails_stops_no_other_and_the_sweep_counts_as_not_done(
    admin: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(session: Any) -> dict[str, int]:
        session.execute(sa.text("SELECT no_such_column FROM jobs"))
        return {}

    monkeypatch.setattr(maintenance, "DUTIES", {"fails": fail, **maintenance.DUTIES})
    (execution_id,) = submit(admin)
    claim()
    expire_leases()
    ended: list[str] = []
    monkeypatch.setattr(leases, "end_turn", lambda session, name: ended.append(name))

    maintenance.sweep()

    assert job_of(execution_id).state == State.QUEUED
    assert {line["event"] for line in warnings(caplog)} == {"leases_swept", "duty_failed"}
    assert ended == []


def test_a_sweep_prunes_batch_after_batch_while_there_is_more(
    admin: Caller, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)
    submit(admin, 10)
    drain()
    db.offset_clock(100 * 86_400)
    asked = batches(monkeypatch)

    maintenance.prune(seconds=600)

    assert (count(Job), count(Event)) == (0, 0)
    # Ten jobs; three events of each, and one of the administrator's key; the last batch of each is not full.
    assert (asked["jobs"], asked["events"]) == (4, 11)


def test_a_sweep_whose_time_is_up_leaves_the_rest_to_the_next_one(
    admin: Caller, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)
    submit(admin, 10)
    drain()
    db.offset_clock(100 * 86_400)

    assert maintenance.prune(seconds=0)

    assert (count(Job), count(Event)) == (7, 28)


def batches(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many batches of each table are asked for from now on."""
    seen: Counter[str] = Counter()

    def counted(name: str, delete_a_batch: Any) -> Any:
        def call(session: Any, *, batch: int) -> int:
            seen[name] += 1
            return int(delete_a_batch(session, batch=batch))

        return call

    pruners = {name: counted(name, pruner) for name, pruner in maintenance.PRUNERS.items()}
    monkeypatch.setattr(maintenance, "PRUNERS", pruners)
    return seen


def test_a_table_that_cannot_be_pruned_stops_no_other_and_the_sweep_counts_as_not_done(
    admin: Caller, drain: Drain, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(session: Any, *, batch: int) -> int:
        session.execute(sa.text("DELETE FROM no_such_table"))
        return batch

    monkeypatch.setattr(maintenance, "PRUNERS", {"fails": fail, **maintenance.PRUNERS})
    submit(admin)
    drain()
    db.offset_clock(8 * 86_400)
    ended: list[str] = []
    monkeypatch.setattr(leases, "end_turn", lambda session, name: ended.append(name))

    maintenance.sweep()

    assert count(Job) == 0
    assert [(line["event"], line["duty"]) for line in warnings(caplog)] == [("duty_failed", "prune fails")]
    assert ended == []
