"""The suite bites: without a safeguard it goes red, and each requirement can fail."""

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.faults.audit import Tally
from tests.faults.conftest import database_like
from tests.faults.fleet import Fleet
from tests.faults.scenarios import CONTROLS, LIMIT_SECONDS, POSTGRESQL, rehearse_without, unmet_requirements

DATABASE = database_like(POSTGRESQL)
IN_SHORT = ("fence", "pulling", "ledger")
ODDITIES = {"FAULTS_WITHOUT": IN_SHORT[0]}
ALL_WELL = Tally(
    accepted=10,
    lost=0,
    done_twice=0,
    failed_though_innocent=0,
    written_by_former_holders=0,
    events_missing=0,
    repeats_not_counted=0,
    calls_paid=15,
    calls_needed=10,
    provider_errors=2,
    slots_open_at_faults=3,
    seconds_to_recover=LIMIT_SECONDS,
)


@pytest.mark.parametrize("safeguard", [name for name in IN_SHORT if DATABASE in CONTROLS[name].databases])
def test_the_suite_goes_red_without_the(fleet: Fleet, safeguard: str) -> None:
    line = rehearse_without(fleet, safeguard, seed=1)

    assert line["ok"], f"{json.dumps(line)}\n{fleet.logs()}"


def test_what_meets_every_requirement_is_green() -> None:
    assert unmet_requirements(ALL_WELL) == []


@pytest.mark.parametrize(
    ("wrong", "unmet"),
    [
        ({"lost": 1}, "lost"),
        ({"done_twice": 1}, "done_twice"),
        ({"failed_though_innocent": 1}, "failed_though_innocent"),
        ({"written_by_former_holders": 1}, "written_by_former_holders"),
        ({"events_missing": 1}, "events_missing"),
        ({"repeats_not_counted": 1}, "repeats_not_counted"),
        ({"calls_paid": 16}, "paid_beyond_needed"),
        ({"seconds_to_recover": LIMIT_SECONDS + 0.01}, "recovery"),
        ({"seconds_to_recover": None}, "recovery"),
        ({"left_behind": {"leases": 1}}, "left_behind"),
    ],
)
def test_what_misses_one_requirement_is_red(wrong: dict[str, Any], unmet: str) -> None:
    assert unmet_requirements(replace(ALL_WELL, **wrong)) == [unmet]
