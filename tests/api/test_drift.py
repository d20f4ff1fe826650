"""GET /v1/prompts/{name}/drift: what it says and what it refuses. How it compares: tests/domain/test_drift.py."""

from datetime import timedelta
from typing import Any

import pytest

from shared.domain.tenants import Caller
from tests.executed import MONDAY, insert_executions, make_versions
from tests.support import Api, pointers

BASELINE = "baseline=2026-06-01T00:00:00Z..2026-06-02T00:00:00Z"
CURRENT = "current=2026-06-02T00:00:00Z..2026-06-03T00:00:00Z"


def signal(answer: Any, name: str) -> Any:
    return next(one for one in answer["signals"] if one["signal"] == name)


def test_a_prompt_that_was_never_run_has_not_enough_data(api: Api, admin: Caller) -> None:
    make_versions(admin)

    answer = api.expect(200, "GET", "/v1/prompts/greeter/drift")

    assert answer["verdict"] == "not_enough_data"
    assert {one["verdict"] for one in answer["signals"]} == {"not_enough_data"}
    assert (answer["minimum_n"], answer["alpha"]) == (20, 0.05)
    assert (answer["textual"]["verdict"], answer["textual"]["similarity"]) == ("not_enough_data", None)


def test_a_signal_names_its_test_its_effect_and_how_many_it_is_of(api: Api, admin: Caller) -> None:
    (version,) = make_versions(admin)
    insert_executions(admin, [{"latency_ms": 100 + place} for place in range(40)], version=version)
    later = {"created_at": MONDAY + timedelta(days=1)}
    insert_executions(admin, [{**later, "latency_ms": 300 + place} for place in range(30)], version=version)

    answer = api.expect(200, "GET", f"/v1/prompts/greeter/drift?{BASELINE}&{CURRENT}")

    latency = signal(answer, "latency_ms")
    assert (answer["verdict"], latency["verdict"], latency["test"]) == ("drift", "drift", "Mann-Whitney U")
    assert (latency["n_baseline"], latency["n_current"], latency["effect_name"]) == (40, 30, "Cliff's delta")
    assert (latency["baseline"], latency["current"], latency["effect"]) == (119.5, 314.5, 1)
    assert 0 < latency["p_value"] <= latency["adjusted_p_value"] < 0.001
    assert signal(answer, "feedback_score")["verdict"] == "not_enough_data"
    assert answer["baseline"] == {
        "version_number": None,
        "from": "2026-06-01T00:00:00+00:00",
        "to": "2026-06-02T00:00:00+00:00",
        "executions": 40,
    }


def test_two_versions_are_named_by_their_numbers(api: Api, admin: Caller) -> None:
    make_versions(admin, 3)

    answer = api.expect(200, "GET", "/v1/prompts/greeter/drift?baseline=v1&current=v3")
    newest = api.expect(200, "GET", "/v1/prompts/greeter/drift?current=v3")

    assert (answer["baseline"]["version_number"], answer["current"]["version_number"]) == (1, 3)
    assert (answer["textual"]["version_number"], answer["textual"]["compared_with"]) == (3, 1)
    assert newest["baseline"]["version_number"] == 2
    assert answer["textual"]["threshold"] == 0.7


def test_a_rewritten_text_is_a_signal_of_its_own_and_no_verdict_on_the_answers(api: Api) -> None:
    for text in ("Say hello to everybody", "Translate this letter into French please"):
        api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": text})

    answer = api.expect(200, "GET", "/v1/prompts/greeter/drift")

    textual = answer["textual"]
    assert (textual["signal"], textual["verdict"], textual["similarity"]) == ("textual", "drift", 0)
    assert [one["version_number"] for one in textual["significant_changes"]] == [1]
    assert textual["drift_score"] == 1
    assert answer["verdict"] == "not_enough_data"


@pytest.mark.parametrize(
    ("query", "status", "named"),
    [
        ("baseline=yesterday", 422, ["?baseline"]),
        ("baseline=v0", 422, ["?baseline"]),
        ("current=2026-06-01..2026-06-02", 422, ["?current"]),
        ("current=2026-06-01T00:00:00Z", 422, ["?current"]),
        (f"{BASELINE}&current=2026-06-01T12:00:00Z..2026-06-03T00:00:00Z", 422, ["?baseline"]),
        (f"{BASELINE}&current=v1", 422, ["?baseline"]),
        ("current=v1", 422, ["?baseline"]),
        ("current=v9", 404, []),
        ("current=0001-01-02T00:00:00Z..0001-01-03T00:00:00Z", 422, ["?current"]),
        ("purpose=fun", 422, ["?purpose"]),
        ("project=nope", 404, ["?project"]),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(
    api: Api, admin: Caller, query: str, status: int, named: list[str]
) -> None:
    make_versions(admin)

    answer = api.get(f"/v1/prompts/greeter/drift?{query}")

    assert (answer.status_code, pointers(answer)) == (status, named)
