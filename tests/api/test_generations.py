"""cases:generate and /v1/generations: a model writes test cases, which are checked, and paid for once."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.domain import leases
from shared.models import Dataset, Event, Execution, Generation
from tests.rows import count, event_data
from tests.support import LEASE_SECONDS, MODEL, Api, Drain, make_prompt, pointers

GENERATE = "/v1/datasets/tickets/cases:generate"
SCHEMA = {
    "type": "object",
    "properties": {"ticket": {"type": "string"}, "level": {"type": "integer", "minimum": 1, "maximum": 5}},
    "required": ["ticket", "level"],
}


@pytest.fixture(autouse=True)
def dataset(api: Api) -> None:
    api.expect(201, "POST", "/v1/datasets", {"name": "tickets"})
    make_prompt(api, "triage", template="{{ ticket }} of level {{ level }}", model=MODEL, variables_schema=SCHEMA)


def generated(api: Api, drain: Drain, **fields: Any) -> Any:
    started = api.expect(202, "POST", GENERATE, {"prompt_name": "triage", "count": 12, **fields})
    drain()
    return api.expect(200, "GET", f"/v1/generations/{started['generation_id']}")


def cases(api: Api) -> list[Any]:
    return list(api.expect(200, "GET", "/v1/datasets/tickets/cases?limit=100")["data"])


def test_a_generation_writes_cases_that_fit_the_prompt(api: Api, drain: Drain) -> None:
    done = generated(api, drain)

    stored = cases(api)
    added = [result for result in done["results"] if result["status"] == "added"]
    assert (done["status"], done["revision"], done["progress"]) == ("succeeded", 1, {"done": 5, "total": 5})
    assert 6 <= len(stored) <= 12
    assert [case["test_case_id"] for case in stored] == [result["test_case_id"] for result in added]
    assert {case["tags"][0] for case in stored} == {"edge_case", "typical", "complex", "minimal", "maximal"}
    for case in stored:
        assert isinstance(case["inputs"]["ticket"], str)
        assert case["inputs"]["level"] in range(1, 6)
        assert (case["generated"], case["expected"]) == (True, None)
    [revision] = api.expect(200, "GET", "/v1/datasets/tickets/revisions")["data"]
    assert (revision["action"], revision["added"]) == ("generated", len(stored))
    assert event_data("generation.succeeded") == [{"added": len(stored), "written": len(done["results"])}]


def test_each_case_that_was_written_has_a_result_that_says_why_it_is_not_there(api: Api, drain: Drain) -> None:
    done = generated(api, drain, count=50)

    by_status: dict[str, list[Any]] = {}
    for result in done["results"]:
        by_status.setdefault(result["status"], []).append(result)
    assert len(done["results"]) == 50
    assert len(by_status["added"]) == len(cases(api))
    assert all(result["detail"] for result in by_status["invalid"])
    assert by_status["near_duplicate"]


def test_every_call_is_an_execution_of_this_purpose(api: Api, drain: Drain) -> None:
    done = generated(api, drain)

    listed = api.expect(200, "GET", "/v1/executions?purpose=generation")["data"]
    assert len(listed) == done["spent"]["task_calls"] == 5
    assert {row["prompt_name"] for row in listed} == {"triage"}


def test_the_same_request_writes_the_same_cases(api: Api, drain: Drain) -> None:
    api.expect(201, "POST", "/v1/datasets", {"name": "other"})
    generated(api, drain)

    api.expect(202, "POST", "/v1/datasets/other/cases:generate", {"prompt_name": "triage", "count": 12})
    drain()

    other = api.expect(200, "GET", "/v1/datasets/other/cases?limit=100")["data"]
    assert [case["inputs"] for case in other] == [case["inputs"] for case in cases(api)]


def test_what_is_there_already_is_not_written_again(api: Api, drain: Drain) -> None:
    generated(api, drain)
    before = cases(api)

    again = generated(api, drain)

    assert cases(api) == before
    assert (again["status"], again["revision"]) == ("succeeded", None)
    assert {result["status"] for result in again["results"]} <= {"near_duplicate", "invalid"}


@pytest.mark.parametrize("step", [1, 2])
def test_a_worker_that_is_lost_between_its_work_and_its_record_repeats_no_call(
    api: Api, drain: Drain, step: int
) -> None:
    started = api.expect(202, "POST", GENERATE, {"prompt_name": "triage", "count": 12})
    if step == 2:
        drain(most=6)  # the fan-out and its five calls
    [lost] = drain.claim()
    drain.outcome(lost)
    try:
        db.offset_clock(LEASE_SECONDS + 1)
        with db.transaction() as session:
            leases.sweep(session)
        drain()
    finally:
        db.offset_clock(0)

    done = api.expect(200, "GET", f"/v1/generations/{started['generation_id']}")
    assert (done["status"], done["revision"]) == ("succeeded", 1)
    with db.reading() as session:
        tried = session.scalars(sa.select(Execution.attempts)).all()
    assert tried == [1] * 5
    assert len(event_data("generation.succeeded")) == 1


def test_a_generation_is_canceled_and_adds_nothing(api: Api, drain: Drain) -> None:
    started = api.expect(202, "POST", GENERATE, {"prompt_name": "triage", "count": 12})
    drain(most=1)

    canceled = api.expect(200, "POST", f"/v1/generations/{started['generation_id']}/cancel")
    drain()

    assert (canceled["status"], cases(api)) == ("canceled", [])
    again = api.post(f"/v1/generations/{started['generation_id']}/cancel")
    assert again.get_json()["status"] == "canceled"


def test_a_budget_that_is_too_small_for_the_calls_is_refused_before_any(api: Api) -> None:
    answer = api.post(GENERATE, {"prompt_name": "triage", "count": 12, "budget": {"max_task_calls": 4}})

    assert (answer.status_code, answer.get_json()["code"]) == (422, "budget_too_small")
    assert count(Generation) == 0


def test_a_budget_that_covers_no_call_fails_it_with_that_reason(api: Api, drain: Drain) -> None:
    started = generated(api, drain, budget={"max_tokens": 10})
    drain()  # the claim ended the calls, and had none to give back

    done = api.expect(200, "GET", f"/v1/generations/{started['generation_id']}")

    assert (done["status"], done["error_type"], done["results"]) == ("failed", "budget_exceeded", [])
    assert done["spent"]["task_calls"] == 0


def test_a_dataset_that_is_deleted_meanwhile_takes_no_case(api: Api, drain: Drain) -> None:
    started = api.expect(202, "POST", GENERATE, {"prompt_name": "triage", "count": 3})
    deleted = api.expect(200, "DELETE", "/v1/datasets/tickets")
    drain()

    done = api.expect(200, "GET", f"/v1/generations/{started['generation_id']}")

    assert (done["status"], done["error_type"]) == ("failed", "dataset_deleted")
    assert "added" not in {result["status"] for result in done["results"]}
    restored = api.expect(200, "POST", f"/v1/datasets/{deleted['dataset_id']}/restore", {})
    assert restored["case_count"] == 0
    answer = api.request("DELETE", "/v1/datasets/tickets?permanent=true")
    assert (answer.status_code, answer.get_json()["detail"][:13]) == (409, "1 generations")


def fill(cases: int) -> None:
    """Make the dataset say that it has so many."""
    with db.transaction() as session:
        session.execute(sa.update(Dataset).values(case_count=cases))


def test_cases_that_the_dataset_has_no_room_for_are_refused_before_anything_is_paid(api: Api) -> None:
    fill(99_995)

    answer = api.post(GENERATE, {"prompt_name": "triage", "count": 6})

    assert (answer.status_code, pointers(answer)) == (422, ["/count"])
    assert "99,995 cases, and holds at most 100,000" in answer.get_json()["detail"]
    assert (count(Generation), count(Execution)) == (0, 0)
    assert api.post(GENERATE, {"prompt_name": "triage", "count": 5}).status_code == 202


def test_a_dataset_that_others_fill_meanwhile_takes_no_case_and_says_so(api: Api, drain: Drain) -> None:
    """It ended as unstorable_outcome, as if the worker were at fault."""
    started = api.expect(202, "POST", GENERATE, {"prompt_name": "triage", "count": 6})
    fill(99_999)
    drain()

    done = api.expect(200, "GET", f"/v1/generations/{started['generation_id']}")

    assert (done["status"], done["error_type"]) == ("failed", "dataset_full")
    assert "at most 100,000 cases" in done["error_message"]
    assert "not_added" in {result["status"] for result in done["results"]}
    assert (cases(api), done["revision"]) == ([], None)


def test_generated_cases_get_what_is_right_from_a_model_that_is_trusted(api: Api, drain: Drain) -> None:
    """The way that the refusal and the how-to name."""
    generated(api, drain)
    body = {"prompt_name": "triage", "dataset": "tickets", "scorers": [{"type": "exact_match"}]}
    refused = api.post("/v1/evaluations", body)
    assert (refused.status_code, pointers(refused)) == (422, ["/dataset"])
    assert "cases:from-executions" in refused.get_json()["detail"]

    trusted = {"provider": "simulated", "model_name": "simulated-large"}
    api.expect(202, "POST", "/v1/executions:batch", {"prompt_name": "triage", "dataset": "tickets", "model": trusted})
    drain()
    api.expect(201, "POST", "/v1/datasets", {"name": "labelled"})
    collected = {"filter": {"model_name": "simulated-large"}, "expected": "response"}
    api.expect(201, "POST", "/v1/datasets/labelled/cases:from-executions", collected)
    started = api.expect(202, "POST", "/v1/evaluations", {**body, "dataset": "labelled"})
    drain()

    done = api.expect(200, "GET", f"/v1/evaluations/{started['evaluation_id']}")
    assert (done["status"], done["aggregate"]["missing"]) == ("succeeded", 0)


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({"count": 0}, 422, "/count"),
        ({"count": 51}, 422, "/count"),
        ({"strategy": "wild"}, 422, "/strategy"),
        ({"description": "x" * 2001}, 422, "/description"),
        ({"prompt_name": "nobody"}, 404, "/prompt_name"),
        ({"prompt_name": "plain"}, 422, "/prompt_name"),
        ({"model": {"provider": "nobody", "model_name": "x"}}, 422, "/model/provider"),
        ({"params": {"temperature": 9}}, 422, "/params/temperature"),
        ({"prompt_name": "bare"}, 422, "/model"),
    ],
)
def test_a_bad_request_is_refused_where_it_is_bad(api: Api, body: Any, status: int, named: str) -> None:
    make_prompt(api, "plain", template="No variable.", model=MODEL)
    make_prompt(api, "bare", template="{{ a }}")

    answer = api.post(GENERATE, {"prompt_name": "triage", "count": 2, **body})

    assert (answer.status_code, pointers(answer)) == (status, [named])
    assert count(Generation) == 0


def test_nobody_of_another_workspace_sees_or_stops_it(api: Api, as_user: Callable[..., Api]) -> None:
    started = api.expect(202, "POST", GENERATE, {"prompt_name": "triage", "count": 2})
    other, path = as_user(workspace="other"), f"/v1/generations/{started['generation_id']}"

    assert other.get(path).status_code == other.post(f"{path}/cancel").status_code == 404
    assert other.expect(200, "GET", "/v1/generations")["data"] == []
    assert other.get(f"/v1/generations/{uuid.uuid4()}").status_code == 404
    assert [row["generation_id"] for row in api.expect(200, "GET", "/v1/generations")["data"]] == [
        started["generation_id"]
    ]


def test_a_project_is_deleted_for_good_with_its_generations(api: Api, drain: Drain) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    api.expect(201, "POST", "/v1/datasets", {"name": "tickets", "project": "atlas"})
    make_prompt(api, "triage", template="{{ ticket }}", model=MODEL, project="atlas")
    body = {"prompt_name": "triage", "count": 2, "budget": {"max_task_calls": 5}}
    api.expect(202, "POST", f"{GENERATE}?project=atlas", body)
    refused = api.request("DELETE", "/v1/projects/atlas?permanent=true")
    drain()

    api.expect(200, "DELETE", "/v1/projects/atlas?permanent=true")

    assert refused.status_code == 409
    assert (count(Generation), count(Execution)) == (0, 0)
    assert count(Event) > 0


ANSWER = {
    "type": "object",
    "properties": {"category": {"type": "string", "enum": ["billing", "bug"]}},
    "required": ["category"],
}


def test_cases_with_what_they_expect_can_be_scored_against_it(api: Api, drain: Drain) -> None:
    make_prompt(
        api,
        "triage",
        template="{{ ticket }} of level {{ level }}",
        model=MODEL,
        variables_schema=SCHEMA,
        response_schema=ANSWER,
    )

    done = generated(api, drain, count=30, with_expected=True)

    stored = cases(api)
    assert (done["status"], done["with_expected"]) == ("succeeded", True)
    assert len(stored) >= 10
    assert {case["expected"]["category"] for case in stored} == {"billing", "bug"}
    body = {"prompt_name": "triage", "dataset": "tickets", "scorers": [{"type": "json_fields"}]}
    started = api.expect(202, "POST", "/v1/evaluations", body)
    drain()
    assert api.expect(200, "GET", f"/v1/evaluations/{started['evaluation_id']}")["status"] == "succeeded"


def test_a_case_whose_expectation_is_missing_is_told_and_not_stored(api: Api, drain: Drain) -> None:
    done = generated(api, drain, count=50, with_expected=True)

    silent = [result for result in done["results"] if result["status"] == "no_expectation"]
    assert silent
    assert {result["detail"] for result in silent} == {"the answer does not say what is expected"}
    assert {result["test_case_id"] for result in silent} == {None}
    stored = cases(api)
    assert stored
    assert all(case["expected"] is not None for case in stored)
    assert len(stored) == sum(result["status"] == "added" for result in done["results"])


def test_an_expectation_that_no_answer_could_meet_is_told_and_not_stored(api: Api, drain: Drain) -> None:
    never = {"type": "object", "properties": {"category": {"type": "string", "enum": ["bug"]}}, "required": ["nobody"]}
    make_prompt(api, "triage", template="{{ ticket }}", model=MODEL, response_schema=never)

    done = generated(api, drain, with_expected=True)

    assert (done["status"], done["error_type"], cases(api)) == ("failed", "no_valid_case", [])
    assert {result["status"] for result in done["results"]} <= {"no_expectation", "invalid"}
    assert any("nobody" in str(result["detail"]) for result in done["results"])


def test_without_being_asked_nothing_is_expected(api: Api, drain: Drain) -> None:
    done = generated(api, drain)

    assert done["with_expected"] is False
    assert {case["expected"] for case in cases(api)} == {None}
    assert "no_expectation" not in {result["status"] for result in done["results"]}


@pytest.mark.parametrize("value", ["true", 2, None, {}])
def test_whether_to_expect_is_true_or_false(api: Api, value: Any) -> None:
    answer = api.post(GENERATE, {"prompt_name": "triage", "count": 3, "with_expected": value})

    assert (answer.status_code, pointers(answer)) == (422, ["/with_expected"])
    assert count(Generation) == 0
