"""The short form of `make faults` on one machine's database, and the job that kills its workers."""

import json

import pytest

from tests.faults.conftest import database_like
from tests.faults.fleet import Fleet
from tests.faults.scenarios import SCENARIOS, SQLITE, rehearse

DATABASE = database_like(SQLITE)
JOBS = {"sqlite_busy": 20, "worker_dies_on_one_job": 6}


@pytest.mark.parametrize("name", [name for name in JOBS if DATABASE in SCENARIOS[name].databases])
def test_nothing_is_lost_repeated_or_late_when(fleet: Fleet, name: str) -> None:
    line = rehearse(fleet, name, seed=1, jobs=JOBS[name], times=1)

    assert line["ok"], f"{json.dumps(line)}\n{fleet.logs()}"
