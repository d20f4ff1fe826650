"""GET /api/v1/prompt-studio/status."""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from shared import db
from shared.domain.tenants import Caller
from shared.models import Role
from tests.compat.studio import PREFIX, Studio
from tests.factories import claim, expire_leases, submit
from tests.servers import free_port
from tests.support import Api, Drain, pointers


@contextlib.contextmanager
def without_database(url: str) -> Iterator[None]:
    db.connect(f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/nowhere")
    try:
        yield
    finally:
        db.connect(url)


def test_the_keys_are_those_of_the_original_with_what_it_promised(studio: Studio) -> None:
    assert studio.data(200, "GET", "/status") == {
        "queue_depth": 0,
        "processing": 0,
        "leases": {"active": 0, "expiring_soon": 0, "stale_processing": 0},
        "by_status": {"queued": 0, "processing": 0, "completed": 0, "failed": 0, "cancelled": 0},
        "by_type": dict.fromkeys(studio.api.expect(200, "GET", "/v1/status")["queue_depth_by_kind"], 0),
        "avg_processing_time_seconds": None,
        "success_rate": None,
        "oldest_job_age_seconds": None,
        "warnings": [],
    }


def test_it_counts_what_waits_runs_and_has_ended(studio: Studio, admin: Caller, drain: Drain) -> None:
    submit(admin, 2)
    drain()
    submit(admin, 3)
    claim(limit=1)
    db.offset_clock(45)

    found = studio.data(200, "GET", "/status")

    assert (found["queue_depth"], found["processing"], found["by_type"]["execution"]) == (2, 1, 3)
    assert found["leases"] == {"active": 1, "expiring_soon": 1, "stale_processing": 0}
    assert found["by_status"] == {"queued": 2, "processing": 1, "completed": 2, "failed": 0, "cancelled": 0}
    assert found["success_rate"] == 100
    assert found["avg_processing_time_seconds"] >= 0
    assert 45 <= found["oldest_job_age_seconds"] < 60
    assert [warning for warning in found["warnings"] if "no worker consumes it" in warning]


def test_warn_seconds_decides_which_lease_expires_soon(studio: Studio, admin: Caller) -> None:
    submit(admin, 1)
    claim()

    soon = {seconds: studio.data(200, "GET", f"/status?warn_seconds={seconds}")["leases"] for seconds in (10, 120)}

    assert [soon[seconds]["expiring_soon"] for seconds in (10, 120)] == [0, 1]


def test_an_expired_lease_is_stale_and_warned_of(studio: Studio, admin: Caller) -> None:
    submit(admin, 1)
    claim()
    expire_leases()

    found = studio.data(200, "GET", "/status")

    assert found["leases"]["stale_processing"] == 1
    assert [warning for warning in found["warnings"] if warning.startswith("leases that have expired: 1")]


@pytest.mark.parametrize("value", ["0", "3601", "x", "-1"])
def test_warn_seconds_is_1_to_3600(studio: Studio, value: str) -> None:
    answer = studio.request("GET", f"/status?warn_seconds={value}")

    assert (answer.status_code, pointers(answer)) == (422, ["?warn_seconds"])


def test_a_stranger_sees_none_of_it(studio: Studio, admin: Caller, as_user: Callable[..., Api]) -> None:
    submit(admin, 3)

    found = Studio(as_user(workspace="elsewhere", role=Role.ADMIN)).data(200, "GET", "/status")

    assert (found["queue_depth"], found["oldest_job_age_seconds"], found["by_type"]["execution"]) == (0, None, 0)


def test_a_failure_inside_is_no_200(studio: Studio, database: str) -> None:
    with without_database(database):
        answer = studio.api.get(f"{PREFIX}/status")

    body = answer.get_json()
    assert (answer.status_code, body["success"], body["error_code"]) == (503, False, "database_unavailable")
