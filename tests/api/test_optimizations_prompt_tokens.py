"""/v1/optimizations with `max_prompt_tokens`: what may be longer is no candidate, and no call is made for it."""

from typing import Any

import pytest

from shared.domain.providers import prompt_bound
from tests.support import TRIAGE, Api, Drain, make_triage, optimization_body, pointers

SEED = prompt_bound([{"role": "user", "content": TRIAGE}])


def test_a_longer_candidate_is_told_with_its_reason_and_never_paid_for(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    knobs = {"max_prompt_tokens": SEED + 40, "proposals": 8}
    started = api.expect(202, "POST", "/v1/optimizations", optimization_body(strategy="random", knobs=knobs))

    drain()

    path = f"/v1/optimizations/{started['optimization_id']}"
    run = api.expect(200, "GET", path)
    candidates = api.expect(200, "GET", f"{path}/candidates?limit=100")["data"]
    events = api.expect(200, "GET", f"/v1/events?subject={started['optimization_id']}&limit=100")["data"]
    told = [event["data"]["reason"] for event in events if event["type"] == "candidate.rejected"]
    refused = [reason for reason in told if f"max_prompt_tokens is {SEED + 40}" in reason]
    assert refused
    assert run["progress"]["rejected"] == len(told)
    assert all(prompt_bound([{"content": item["components"]["template"]}]) <= SEED + 40 for item in candidates)
    # The seed, and each candidate, on dev at most, and two on the holdout.
    cases = run["result"]["cases"]
    assert run["spent"]["task_calls"] <= len(candidates) * cases["dev"] + 2 * cases["holdout"]


def test_demonstrations_count(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    knobs = {"max_prompt_tokens": SEED, "candidate_sets": 3}
    started = api.expect(202, "POST", "/v1/optimizations", optimization_body(strategy="bootstrap", knobs=knobs))

    drain()

    run = api.expect(200, "GET", f"/v1/optimizations/{started['optimization_id']}")
    assert (run["progress"]["candidates"], run["status"]) == (1, "succeeded")
    assert run["progress"]["rejected"] > 0


def test_a_prompt_of_just_so_many_may_be_searched_and_a_longer_one_not(api: Api) -> None:
    make_triage(api, cases=40)
    body: dict[str, Any] = optimization_body(knobs={"max_prompt_tokens": SEED - 1})

    refused = api.post("/v1/optimizations", body)

    assert (refused.status_code, pointers(refused)) == (422, ["/knobs/max_prompt_tokens"])
    assert refused.get_json()["errors"][0]["detail"] == f"the prompt itself may take {SEED} tokens"
    api.expect(202, "POST", "/v1/optimizations", optimization_body(knobs={"max_prompt_tokens": SEED}))


@pytest.mark.parametrize("strategy", ["noop", "hyperparameter"])
def test_what_makes_no_longer_prompt_has_no_such_knob(api: Api, strategy: str) -> None:
    make_triage(api, cases=40)

    answer = api.post("/v1/optimizations", optimization_body(strategy=strategy, knobs={"max_prompt_tokens": 9_999}))

    assert (answer.status_code, pointers(answer)) == (422, ["/knobs/max_prompt_tokens"])


def test_what_a_case_fills_in_and_a_placeholder_do_not_count() -> None:
    history = {"type": "placeholder", "name": "history"}

    assert prompt_bound([{"role": "system", "content": "ä"}, history]) == 8 + 8 + 2
