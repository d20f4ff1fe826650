"""/v1/optimizations with `generalization_check_every`: what a check says is in progress, events, result and lineage."""

from typing import Any

import pytest

from tests.support import Api, Drain, make_triage, optimization_body, pointers


def start(api: Api, every: int, **fields: Any) -> str:
    evaluation = {"min_cases": 6, "generalization_check_every": every}
    started = api.expect(202, "POST", "/v1/optimizations", optimization_body(evaluation=evaluation, **fields))
    return f"/v1/optimizations/{started['optimization_id']}"


def test_each_check_is_told_while_the_search_goes_on_and_in_its_result(api: Api, drain: Drain) -> None:
    make_triage(api, cases=60)
    path = start(api, 1)

    drain()

    run = api.expect(200, "GET", path)
    checks = run["result"]["generalization"]
    events = api.expect(200, "GET", f"/v1/events?subject={run['optimization_id']}&limit=100")["data"]
    assert [item["round"] for item in checks] == [1, 2]
    assert run["progress"]["generalization"] == checks
    assert [event["data"] for event in events if event["type"] == "optimization.generalization"] == checks
    assert run["result"]["cases"] == {"train": 18, "dev": 18, "holdout": 18, "watch": 6}
    assert all(item["gap"] == pytest.approx(item["dev"] - item["watch"]) for item in checks)
    best = api.expect(200, "GET", f"{path}/candidates/{checks[-1]['candidate']}")
    assert best["measured"]["watch"] == {"cases": 6, "scored": 6, "mean": pytest.approx(checks[-1]["watch"])}
    scores = api.expect(200, "GET", f"{path}/candidates/{checks[-1]['candidate']}/scores?limit=100")["data"]
    assert sum(row["part"] == "watch" for row in scores) == 6


def test_without_it_a_run_sets_nothing_aside(api: Api, drain: Drain) -> None:
    make_triage(api, cases=60)
    path = start(api, 0)

    drain()

    run = api.expect(200, "GET", path)
    assert "generalization" not in run["result"]
    assert "generalization" not in run["progress"]
    assert run["result"]["cases"] == {"train": 18, "dev": 24, "holdout": 18}


def test_a_replay_of_a_run_that_checked_comes_to_the_same(api: Api, drain: Drain) -> None:
    make_triage(api, cases=60)
    path = start(api, 1)
    drain()

    api.expect(202, "POST", f"{path}/replay")
    drain()

    replayed = api.expect(200, "GET", f"{path}/replay")
    assert (replayed["status"], replayed["identical"]) == ("succeeded", True)


@pytest.mark.parametrize("value", [-1, 1001, 1.5, True, None])
def test_how_often_is_a_whole_number(api: Api, value: Any) -> None:
    make_triage(api, cases=60)

    answer = api.post("/v1/optimizations", optimization_body(evaluation={"generalization_check_every": value}))

    assert (answer.status_code, pointers(answer)) == (422, ["/evaluation/generalization_check_every"])


def test_the_tokens_that_a_search_begins_with_leave_out_the_cases_set_aside(api: Api) -> None:
    make_triage(api, cases=60)

    def needed(every: int) -> int:
        evaluation = {"min_cases": 6, "generalization_check_every": every}
        refused = api.post("/v1/optimizations", optimization_body(evaluation=evaluation, budget={"max_tokens": 1}))
        assert pointers(refused) == ["/budget/max_tokens"]
        return int(refused.get_json()["detail"].split()[-2])

    # 24 dev cases and 18 of the holdout twice; then 18, 18 twice.
    assert needed(1) / needed(0) == pytest.approx(54 / 60, rel=0.02)


def test_the_smallest_budget_that_begins_covers_the_cases_set_aside(api: Api, drain: Drain) -> None:
    make_triage(api, cases=60)
    evaluation = {"min_cases": 6, "generalization_check_every": 1}
    body = optimization_body(evaluation=evaluation, budget={"max_task_calls": 1})
    needed = int(api.post("/v1/optimizations", body).get_json()["detail"].split("needs ")[1].split()[0])

    path = start(api, 1, budget={"max_task_calls": needed})
    drain()

    run = api.expect(200, "GET", path)
    assert run["status"] == "succeeded"
    assert run["spent"]["task_calls"] <= needed
    assert run["result"]["verdict"] != "not_measured"
