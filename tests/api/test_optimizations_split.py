"""/v1/optimizations: what the cases are divided by, and a run on fewer than ten."""

from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.models import Execution, Job, Optimization
from tests.support import Api, Drain, make_triage, optimization_body, pointers, tickets

NO_CALLS: Sequence[Any] = (Optimization, Job, Execution)


def make_customers(api: Api, *, customers: int, cases: int = 40) -> None:
    make_triage(api, cases=1)
    api.expect(201, "POST", "/v1/datasets", {"name": "customers"})
    rows = [
        {**row, "inputs": {**row["inputs"], "customer": f"c{i % customers}"}, "tags": ["odd" if i % 2 else "even"]}
        for i, row in enumerate(tickets(cases))
    ]
    api.expect(201, "POST", "/v1/datasets/customers/cases", rows)


def customers_body(**fields: Any) -> dict[str, Any]:
    return optimization_body(dataset="customers", **fields)


def parts_of() -> dict[str, list[int]]:
    with db.reading() as session:
        state = session.scalars(sa.select(Optimization)).one().search_state
    assert state is not None
    return {part: state[part] for part in ("train", "dev", "holdout")}


def test_the_cases_of_a_customer_stay_in_one_part(api: Api, drain: Drain) -> None:
    make_customers(api, customers=8)
    split = {"group_by": "inputs.customer", "stratify_by": "tags"}
    started = api.expect(202, "POST", "/v1/optimizations", customers_body(split=split))

    drain()

    run = api.expect(200, "GET", f"/v1/optimizations/{started['optimization_id']}")
    assert run["status"] == "succeeded"
    assert {name: run["spec"]["split"][name] for name in split} == split
    parts = parts_of()
    homes = [{ordinal % 8 for ordinal in part} for part in parts.values()]
    assert sum(map(len, homes)) == len(set().union(*homes)) == 8
    assert sorted(ordinal for part in parts.values() for ordinal in part) == list(range(1, 41))


def test_each_part_has_its_share_of_a_tag(api: Api, drain: Drain) -> None:
    make_customers(api, customers=8)
    body = customers_body(split={"stratify_by": "tags"}, budget={"max_task_calls": 200})
    api.expect(202, "POST", "/v1/optimizations", body)

    drain()

    for part in parts_of().values():
        assert len(part) == 2 * sum(ordinal % 2 for ordinal in part)


@pytest.mark.parametrize(
    ("split", "pointer", "rule"),
    [
        ({"group_by": "inputs.nobody"}, "/split/group_by", "no case has inputs.nobody"),
        ({"stratify_by": "expected.nobody"}, "/split/stratify_by", "no case has expected.nobody"),
        ({"stratify_by": "group"}, "/split/stratify_by", "no case has group"),
        (
            {"group_by": "inputs.customer"},
            "/split/group_by",
            "all cases have the same inputs.customer: dev or the holdout would have none",
        ),
        (
            {"group_by": "customer"},
            "/split/group_by",
            "must be expected, tags, group, inputs.<name> or expected.<field>",
        ),
        ({"stratify_by": 3}, "/split/stratify_by", "must be a name of at most 128 characters"),
        ({"allow_tiny": 1}, "/split/allow_tiny", "must be true or false"),
    ],
)
def test_what_tells_no_case_from_another_is_refused(api: Api, split: dict[str, Any], pointer: str, rule: str) -> None:
    make_customers(api, customers=1)

    answer = api.post("/v1/optimizations", customers_body(split=split))

    assert (answer.status_code, pointers(answer)) == (422, [pointer])
    assert answer.get_json()["errors"][0]["detail"] == rule
    with db.reading() as session:
        assert [session.scalar(sa.select(sa.func.count()).select_from(model)) for model in NO_CALLS] == [0, 0, 0]


def test_so_few_cases_need_the_word_of_the_caller(api: Api) -> None:
    make_triage(api, cases=9)

    refused = api.post("/v1/optimizations", optimization_body())

    assert (refused.status_code, pointers(refused)) == (422, ["/dataset"])
    rule = "an optimization needs at least 10 cases; with split.allow_tiny, 2; this has 9"
    assert refused.get_json()["errors"][0]["detail"] == rule
    api.expect(202, "POST", "/v1/optimizations", optimization_body(split={"allow_tiny": True}))


def test_one_case_cannot_be_divided_at_all(api: Api) -> None:
    make_triage(api, cases=1)

    refused = api.post("/v1/optimizations", optimization_body(split={"allow_tiny": True}))

    assert (refused.status_code, pointers(refused)) == (422, ["/dataset"])
    assert refused.get_json()["errors"][0]["detail"] == "an optimization needs at least 2 cases; this has 1"


@pytest.mark.parametrize("cases", [2, 6])
def test_a_tiny_run_ends_with_numbers_and_claims_nothing(api: Api, drain: Drain, cases: int) -> None:
    make_triage(api, cases=cases, template="Sort it.\n{{ ticket }}")
    started = api.expect(202, "POST", "/v1/optimizations", optimization_body(split={"allow_tiny": True}))

    drain()

    run = api.expect(200, "GET", f"/v1/optimizations/{started['optimization_id']}")
    result = run["result"]
    assert (run["status"], result["tiny"], result["indicative"]) == ("succeeded", True, True)
    assert result["cases"] == {"train": cases // 2, "dev": cases // 2, "holdout": cases // 2}
    assert result["verdict"] == "not_significant"
    assert "tiny" in {warning["code"] for warning in result["warnings"]}


def test_a_tiny_run_moves_a_label_by_no_rule_that_asks_for_proof(api: Api, drain: Drain) -> None:
    make_triage(api, cases=6, template="Sort it.\n{{ ticket }}")
    started = api.expect(202, "POST", "/v1/optimizations", optimization_body(split={"allow_tiny": True}))
    drain()
    path = f"/v1/optimizations/{started['optimization_id']}"
    with db.transaction() as session:
        row = session.scalars(sa.select(Optimization)).one()
        numbers = {"n": 3, "baseline": 0.0, "candidate": 1.0, "difference": 1.0, "ci_low": 1.0, "ci_high": 1.0}
        row.result = {**row.result, "holdout": {**numbers, "p_value": 0.25}}

    for body in ({}, {"rule": "non_inferior", "margin": 0.1}):
        refused = api.request("POST", f"{path}/promote", body)
        assert (refused.status_code, pointers(refused)) == (409, ["/rule"])
        assert "fewer than 10 cases" in refused.get_json()["detail"]
    api.expect(200, "POST", f"{path}/promote", {"rule": "point_estimate"})
