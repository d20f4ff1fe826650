"""The short form of `make faults`: real processes, few jobs, every requirement of the suite."""

import json

import pytest

from tests.faults.conftest import database_like
from tests.faults.fleet import Fleet
from tests.faults.scenarios import POSTGRESQL, SCENARIOS, rehearse

DATABASE = database_like(POSTGRESQL)
STRIKES = {"workers_killed": 2, "workers_stopped": 1, "redis_killed": 1, "postgres_backends_terminated": 2}


@pytest.mark.parametrize("name", [name for name in STRIKES if DATABASE in SCENARIOS[name].databases])
def test_nothing_is_lost_repeated_or_late_when(fleet: Fleet, name: str) -> None:
    line = rehearse(fleet, name, seed=1, jobs=3 * STRIKES[name], times=STRIKES[name])

    assert line["ok"], f"{json.dumps(line)}\n{fleet.logs()}"
