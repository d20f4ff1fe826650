"""The periodic duties: each on its own, and silent when there was nothing to do."""

import logging
from typing import Any

import pytest
import sqlalchemy as sa

from shared.domain import leases
from shared.domain.tenants import Caller
from shared.models import State
from tests.factories import claim, do_duties, expire_leases, job_of, submit
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
