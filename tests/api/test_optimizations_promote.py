"""POST /v1/optimizations/{id}/promote: a label moves when the rule holds on the holdout, or openly without it."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.models import Optimization
from tests.rows import event_data, everything
from tests.support import Api, Drain, make_triage, optimization_body, pointers

PRODUCTION = "/v1/prompts/triage/labels/production"


@pytest.fixture
def run(api: Api, drain: Drain) -> str:
    """The address of an optimization whose best version is 2; `production` points at 1."""
    make_triage(api, cases=60)
    started = api.expect(202, "POST", "/v1/optimizations", optimization_body())
    drain()
    path = f"/v1/optimizations/{started['optimization_id']}"
    assert api.expect(200, "GET", path)["best_version_number"] == 2
    return path


def measured(**numbers: Any) -> None:
    """Give the run this holdout, so that a test says what it rests on."""
    with db.transaction() as session:
        row = session.scalars(sa.select(Optimization)).one()
        holdout = {"n": 18, "baseline": 0.6, "candidate": 0.7, "difference": 0.1, "p_value": 0.01} | numbers
        verdict = "improved" if numbers["ci_low"] > 0 else "not_significant"
        row.result = {**row.result, "holdout": holdout, "verdict": verdict}


def serves(api: Api, label: str = "production") -> int:
    number: int = api.expect(200, "GET", f"/v1/prompts/triage/labels/{label}")["version_number"]
    return number


def test_the_label_moves_when_the_interval_lies_above_zero(api: Api, run: str) -> None:
    measured(ci_low=0.02, ci_high=0.2)

    done = api.expect(200, "POST", f"{run}/promote", {})

    assert serves(api) == 2
    assert (done["from_version"], done["to_version"], done["holds"], done["override"]) == (1, 2, True, False)
    (told,) = event_data("optimization.promoted")
    assert (told["label"], told["rule"], told["override"]) == ("production", "ci_excludes_zero", False)
    (kept,) = api.expect(200, "GET", f"{run}/promotions")["data"]
    assert (kept["promoted_by"], kept["to_version"]) == ("admin", 2)
    moves = api.expect(200, "GET", f"{PRODUCTION}/history")["data"]
    assert run.rpartition("/")[2] in moves[0]["reason"]


@pytest.mark.parametrize(
    ("body", "numbers", "named"),
    [
        ({}, {"ci_low": -0.01, "ci_high": 0.2}, "ci_low is -0.0100, and must be above 0"),
        ({}, {"ci_low": 0.0, "ci_high": 0.2}, "ci_low is 0.0000, and must be above 0"),
        (
            {},
            {"n": 5, "ci_low": 0.2, "ci_high": 1.0, "p_value": 0.25},
            "p_value is 0.2500, and must not be above 0.05: on 5 cases too few",
        ),
        ({"rule": "point_estimate"}, {"ci_low": -0.3, "ci_high": 0.2, "difference": 0.0}, "difference is 0.0000"),
        (
            {"rule": "non_inferior", "margin": 0.05},
            {"ci_low": -0.06, "ci_high": 0.2},
            "ci_low is -0.0600, and must not be below -0.05",
        ),
    ],
)
def test_a_rule_that_does_not_hold_is_refused_with_the_number_and_moves_nothing(
    api: Api, run: str, body: dict[str, Any], numbers: dict[str, Any], named: str
) -> None:
    measured(**numbers)
    before = everything()

    answer = api.post(f"{run}/promote", body)

    assert (answer.status_code, answer.get_json()["code"]) == (409, "promotion_refused")
    assert named in answer.get_json()["detail"]
    assert pointers(answer) == ["/rule"]
    assert everything() == before


@pytest.mark.parametrize(
    ("body", "numbers"),
    [
        ({"rule": "point_estimate"}, {"ci_low": -0.05, "ci_high": 0.2, "difference": 0.01}),
        ({"rule": "non_inferior", "margin": 0.05}, {"ci_low": -0.05, "ci_high": 0.2}),
    ],
)
def test_a_weaker_rule_that_was_asked_for_is_enough(
    api: Api, run: str, body: dict[str, Any], numbers: dict[str, float]
) -> None:
    measured(**numbers)

    api.expect(200, "POST", f"{run}/promote", {**body, "label": "staging"})

    assert (serves(api, "staging"), serves(api)) == (2, 1)


def test_a_holdout_that_was_hardly_measured_meets_no_rule(api: Api, run: str) -> None:
    with db.transaction() as session:
        row = session.scalars(sa.select(Optimization)).one()
        row.result = {**row.result, "holdout": None, "verdict": "not_measured"}

    answer = api.post(f"{run}/promote", {"rule": "non_inferior", "margin": 1})

    assert answer.status_code == 409
    assert "n is 0: of 18 holdout cases" in answer.get_json()["detail"]


def test_an_override_moves_it_and_is_recorded_with_its_reason(api: Api, run: str) -> None:
    measured(ci_low=-0.01, ci_high=0.2)

    done = api.expect(200, "POST", f"{run}/promote", {"override": True, "reason": "support asked for it"})

    assert serves(api) == 2
    assert (done["holds"], done["override"]) == (False, True)
    (told,) = event_data("optimization.promoted")
    assert (told["override"], told["reason"]) == (True, "support asked for it")
    assert "ci_low is -0.0100" in told["shortfall"]
    (kept,) = api.expect(200, "GET", f"{run}/promotions")["data"]
    assert (kept["override"], kept["reason"]) == (True, "support asked for it")


def test_an_override_that_was_not_needed_is_not_called_one(api: Api, run: str) -> None:
    measured(ci_low=0.02, ci_high=0.2)

    done = api.expect(200, "POST", f"{run}/promote", {"override": True, "reason": "to be sure"})

    assert (done["holds"], done["override"]) == (True, False)


def test_again_changes_nothing(api: Api, run: str) -> None:
    measured(ci_low=0.02, ci_high=0.2)
    api.expect(200, "POST", f"{run}/promote", {})
    before = everything()

    api.expect(200, "POST", f"{run}/promote", {})

    assert everything() == before


def test_the_same_idempotency_key_answers_the_same_after_the_label_went_elsewhere(api: Api, run: str) -> None:
    measured(ci_low=0.02, ci_high=0.2)
    headers = {"Idempotency-Key": "promote-it"}
    first = api.expect(200, "POST", f"{run}/promote", {}, headers=headers)
    api.expect(200, "PUT", PRODUCTION, {"version_number": 1})

    again = api.expect(200, "POST", f"{run}/promote", {}, headers=headers)

    assert again == first
    assert serves(api) == 1


def test_it_moves_only_the_label_that_was_read(api: Api, run: str) -> None:
    measured(ci_low=0.02, ci_high=0.2)
    read = api.get(PRODUCTION).headers["ETag"]
    api.expect(200, "PUT", PRODUCTION, {"version_number": 2})
    api.expect(200, "PUT", PRODUCTION, {"version_number": 1})

    stale = api.post(f"{run}/promote", {}, headers={"If-Match": read})
    fresh = api.post(f"{run}/promote", {}, headers={"If-Match": stale.headers["ETag"]})

    assert (stale.status_code, fresh.status_code) == (412, 200)
    assert fresh.headers["ETag"] == api.get(PRODUCTION).headers["ETag"]


def test_a_protected_label_takes_its_role(api: Api, run: str, as_user: Callable[..., Api]) -> None:
    measured(ci_low=0.02, ci_high=0.2)
    api.expect(200, "PUT", f"{PRODUCTION}/protection", {"role": "operator"})

    answer = as_user(user="ada").post(f"{run}/promote", {"override": True, "reason": "please"})

    assert answer.status_code == 403
    assert serves(api) == 1
    assert event_data("optimization.promoted") == []


def test_a_label_that_takes_a_second_person_is_asked_for_once_and_moved_by_the_second(
    api: Api, run: str, as_user: Callable[..., Api]
) -> None:
    measured(ci_low=0.02, ci_high=0.2)
    api.expect(200, "PUT", f"{PRODUCTION}/protection", {"approvals": 1})
    ada = as_user(user="ada")

    answer = ada.post(f"{run}/promote", {})
    ada.expect(202, "POST", f"{run}/promote", {})
    serving = serves(api)
    api.expect(200, "POST", f"{answer.headers['Location']}/approve", {})

    assert (answer.status_code, serving, serves(api)) == (202, 1, 2)
    (kept,) = api.expect(200, "GET", f"{run}/promotions")["data"]
    assert answer.headers["Location"].endswith(kept["request_id"])


def test_a_run_without_a_result_promotes_nothing(api: Api) -> None:
    make_triage(api, cases=40)
    started = api.expect(202, "POST", "/v1/optimizations", optimization_body())

    answer = api.post(f"/v1/optimizations/{started['optimization_id']}/promote", {"override": True, "reason": "now"})

    assert answer.status_code == 409
    assert "is queued" in answer.get_json()["detail"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"rule": "luck"}, "/rule"),
        ({"rule": "non_inferior"}, "/margin"),
        ({"margin": 0.1}, "/margin"),
        ({"rule": "non_inferior", "margin": -0.1}, "/margin"),
        ({"rule": "non_inferior", "margin": True}, "/margin"),
        ({"override": True}, "/reason"),
        ({"override": True, "reason": "  "}, "/reason"),
        ({"override": "yes", "reason": "x"}, "/override"),
        ({"label": "latest"}, "/label"),
        ({"labels": "production"}, "/labels"),
    ],
)
def test_bad_input_is_named(api: Api, body: dict[str, Any], pointer: str) -> None:
    answer = api.post(f"/v1/optimizations/{uuid.uuid4()}/promote", body)

    assert answer.status_code == 422, answer.get_data(as_text=True)
    assert pointers(answer) == [pointer]
