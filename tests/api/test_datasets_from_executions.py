"""POST cases:from-executions: cases from what was run, that remember where they come from."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from shared.models import TestCase
from tests.rows import count, event_data, everything
from tests.support import MODEL, Api, Drain, make_prompt, make_triage, pointers, run_body

COLLECT = "/v1/datasets/seen/cases:from-executions"


@pytest.fixture
def ids(api: Api, drain: Drain) -> list[str]:
    """Two executions of `triage`, which answers in JSON, and one of `greeter`, which does not."""
    api.expect(201, "POST", "/v1/datasets", {"name": "seen"})
    make_triage(api, cases=2)
    make_prompt(api)
    tickets = [case["inputs"] for case in api.expect(200, "GET", "/v1/datasets/tickets/cases")["data"]]
    bodies = [{"prompt_name": "triage", "variables": inputs} for inputs in tickets] + [run_body()]
    made = [api.expect(202, "POST", "/v1/executions:submit", body)["execution_id"] for body in bodies]
    drain()
    return made


def cases(api: Api) -> list[Any]:
    return list(api.expect(200, "GET", "/v1/datasets/seen/cases")["data"])


def execution(api: Api, execution_id: str) -> Any:
    return api.expect(200, "GET", f"/v1/executions/{execution_id}")


def test_the_variables_are_the_inputs_and_the_answer_is_expected(api: Api, ids: list[str]) -> None:
    body = {"execution_ids": ids, "tags": ["seen"], "group": "g", "golden": True}

    result = api.expect(201, "POST", COLLECT, body)

    first, second, third = cases(api)
    assert (result["added"], result["duplicates"], result["skipped"]) == (3, [], [])
    assert [case["source_execution_id"] for case in (first, second, third)] == ids
    assert set(first["expected"]) == {"category", "priority"}
    assert third["expected"] == execution(api, ids[2])["response_text"]
    assert third["inputs"] == {"name": "Ada"}
    assert (third["tags"], third["group"], third["golden"], third["generated"]) == (["seen"], "g", True, False)
    [revision] = api.expect(200, "GET", "/v1/datasets/seen/revisions")["data"]
    assert (revision["action"], revision["added"]) == ("collected", 3)
    assert event_data("dataset.collected") == [{"revision": 1, "added": 3, "duplicates": 0}]


def test_the_newest_that_a_filter_finds_are_taken_in_the_order_of_their_submit(api: Api, ids: list[str]) -> None:
    result = api.expect(201, "POST", COLLECT, {"filter": {"prompt_name": "triage"}, "expected": "none"})
    newest = api.expect(201, "POST", COLLECT, {"filter": {}, "limit": 1, "expected": "none"})

    assert (result["added"], newest["added"]) == (2, 1)
    assert [case["source_execution_id"] for case in cases(api)] == ids
    assert [case["expected"] for case in cases(api)] == [None] * 3


def test_the_label_of_the_newest_feedback_is_what_people_said_is_right(api: Api, ids: list[str]) -> None:
    for user, label in (("a", "wrong"), ("b", "right")):
        api.expect(200, "POST", f"/v1/executions/{ids[0]}/feedback", {"label": label, "user": user})
    api.expect(200, "POST", f"/v1/executions/{ids[1]}/feedback", {"score": 1})

    result = api.expect(201, "POST", COLLECT, {"execution_ids": ids, "expected": "label"})

    assert [case["expected"] for case in cases(api)] == ["right"]
    assert [row["execution_id"] for row in result["skipped"]] == ids[1:]
    assert {row["detail"] for row in result["skipped"]} == {"nobody gave it a label"}


def test_an_execution_without_an_answer_makes_no_case_and_is_told(api: Api, ids: list[str]) -> None:
    waiting = api.expect(202, "POST", "/v1/executions:submit", run_body())["execution_id"]

    result = api.expect(201, "POST", COLLECT, {"execution_ids": [waiting, ids[2]]})

    assert result["added"] == 1
    [skipped] = result["skipped"]
    assert (skipped["execution_id"], skipped["detail"][:12]) == (waiting, "it is queued")


def test_an_execution_without_variables_makes_no_case(api: Api, ids: list[str], drain: Drain) -> None:
    make_prompt(api, "plain", template="Say hello.")
    body = {"prompt_name": "plain", "model": MODEL, "variables": {}}
    made = api.expect(202, "POST", "/v1/executions:submit", body)["execution_id"]
    drain()

    result = api.expect(201, "POST", COLLECT, {"execution_ids": [made]})

    assert (result["added"], result["dataset"]["revision"]) == (0, 0)
    assert "inputs must be an object" in result["skipped"][0]["detail"]


def test_the_same_executions_again_are_duplicates(api: Api, ids: list[str]) -> None:
    api.expect(201, "POST", COLLECT, {"execution_ids": ids})

    again = api.expect(201, "POST", COLLECT, {"execution_ids": [*ids, ids[0]]})

    assert (again["added"], again["duplicates"]) == (0, ids)


def test_what_another_workspace_has_run_is_not_found(api: Api, ids: list[str], as_user: Callable[..., Api]) -> None:
    other = as_user(workspace="other")
    other.expect(201, "POST", "/v1/datasets", {"name": "seen"})
    before = everything()

    theirs = other.post(COLLECT, {"execution_ids": [ids[0]]})
    nobodys = other.post(COLLECT, {"execution_ids": [str(uuid.uuid4())]})

    assert (theirs.status_code, nobodys.status_code) == (404, 404)
    assert pointers(theirs) == pointers(nobodys) == ["/execution_ids"]
    assert everything() == before
    assert other.expect(201, "POST", COLLECT, {"filter": {}})["added"] == 0


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, [""]),
        ({"execution_ids": []}, ["/execution_ids"]),
        ({"execution_ids": ["x"]}, ["/execution_ids/0"]),
        ({"execution_ids": [str(uuid.UUID(int=n)) for n in range(501)]}, ["/execution_ids"]),
        ({"execution_ids": [str(uuid.UUID(int=1))], "filter": {}}, [""]),
        ({"execution_ids": [str(uuid.UUID(int=1))], "limit": 3}, ["/limit"]),
        ({"filter": {"state": "failed"}}, ["/filter/state"]),
        ({"filter": {}, "limit": 501}, ["/limit"]),
        ({"filter": {}, "expected": "guess"}, ["/expected"]),
    ],
)
def test_a_bad_body_is_refused_where_it_is_bad(api: Api, body: Any, named: list[str]) -> None:
    api.expect(201, "POST", "/v1/datasets", {"name": "seen"})

    answer = api.post(COLLECT, body)

    assert (answer.status_code, pointers(answer)) == (422, named)
    assert count(TestCase) == 0
