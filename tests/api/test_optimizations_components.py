"""/v1/optimizations with `components`: only the messages that are named are rewritten, and a name must be one."""

from typing import Any

import pytest

from tests.support import MODEL, Api, Drain, make_triage, optimization_body, pointers

MESSAGES = [
    {"role": "system", "content": "Sort tickets of a shop."},
    {"role": "user", "content": "Say billing, technical or account, as JSON with the field category.\n{{ ticket }}"},
]


def make_chat(api: Api) -> None:
    make_triage(api, cases=40)
    model = {**MODEL, "params": {"temperature": 0.0, "max_new_tokens": 60}}
    api.expect(200, "PUT", "/v1/prompts/triage", {"messages": MESSAGES, "model": model, "set_active": True})


@pytest.mark.parametrize("named", [["system"], ["0_system"], ["system", "0_system"]])
def test_a_role_means_its_messages_and_is_answered_by_the_names_that_candidates_have(api: Api, named: Any) -> None:
    make_chat(api)

    started = api.expect(202, "POST", "/v1/optimizations", optimization_body(knobs={"components": named}))

    assert started["spec"]["knobs"]["components"] == ["0_system"]


@pytest.mark.parametrize("strategy", ["beam_search", "merge", "gepa"])
def test_only_the_named_message_is_rewritten(api: Api, drain: Drain, strategy: str) -> None:
    make_chat(api)
    body = optimization_body(strategy=strategy, knobs={"components": ["user"]}, budget={"max_task_calls": 400})
    started = api.expect(202, "POST", "/v1/optimizations", body)

    drain()

    path = f"/v1/optimizations/{started['optimization_id']}"
    candidates = api.expect(200, "GET", f"{path}/candidates?limit=100")["data"]
    assert {item["components"]["0_system"] for item in candidates} == {MESSAGES[0]["content"]}
    assert len({item["components"]["1_user"] for item in candidates}) > 1


@pytest.mark.parametrize(
    ("named", "rule"),
    [
        (["developer"], "there is no developer in this prompt; there are: system, user, 0_system, 1_user"),
        (["system", "2_user"], "there is no 2_user in this prompt; there are: system, user, 0_system, 1_user"),
        ([], "must be a list of names, each once"),
        (["system", "system"], "must be a list of names, each once"),
        ([7], "must be a list of names, each once"),
        ("system", "must be a list of names, each once"),
    ],
)
def test_what_is_no_message_of_the_prompt_is_refused_by_name(api: Api, named: Any, rule: str) -> None:
    make_chat(api)

    answer = api.post("/v1/optimizations", optimization_body(knobs={"components": named}))

    assert (answer.status_code, pointers(answer)) == (422, ["/knobs/components"])
    assert answer.get_json()["errors"][0]["detail"] == rule


def test_a_text_has_one_component(api: Api) -> None:
    make_triage(api, cases=40)

    one = api.expect(202, "POST", "/v1/optimizations", optimization_body(knobs={"components": ["template"]}))
    refused = api.post("/v1/optimizations", optimization_body(knobs={"components": ["system"]}))

    assert one["spec"]["knobs"]["components"] == ["template"]
    assert refused.get_json()["errors"][0]["detail"] == "there is no system in this prompt; there are: template"


def test_what_leaves_the_texts_alone_has_no_such_knob(api: Api) -> None:
    make_chat(api)

    answer = api.post("/v1/optimizations", optimization_body(strategy="bootstrap", knobs={"components": ["system"]}))

    assert (answer.status_code, pointers(answer)) == (422, ["/knobs/components"])


def test_a_merge_of_texts_needs_two_that_may_be_rewritten(api: Api) -> None:
    make_chat(api)
    knobs = {"use_merge": True, "components": ["system"]}

    answer = api.post("/v1/optimizations", optimization_body(strategy="gepa", knobs=knobs, evaluation={}))

    assert (answer.status_code, pointers(answer)) == (422, ["/knobs/use_merge"])


def test_the_arm_of_a_comparison_that_names_no_message_is_named(api: Api) -> None:
    make_chat(api)
    arms = [{"strategy": "random"}, {"strategy": "iterative", "knobs": {"components": ["tool"]}}]
    body = {name: value for name, value in optimization_body().items() if name not in ("strategy", "knobs")}

    answer = api.post("/v1/optimizations:compare", {**body, "strategies": arms, "seeds": [0, 1, 2]})

    assert (answer.status_code, pointers(answer)) == (422, ["/strategies/1/knobs/components"])


def test_a_clone_searches_the_same_messages_or_others(api: Api, drain: Drain) -> None:
    make_chat(api)
    knobs = {"components": ["user"], "max_rounds": 1}
    started = api.expect(202, "POST", "/v1/optimizations", optimization_body(knobs=knobs))
    drain()
    path = f"/v1/optimizations/{started['optimization_id']}/clone"

    same = api.expect(202, "POST", path, {"seed": 1})
    other = api.expect(202, "POST", path, {"seed": 2, "knobs": {"components": ["system"]}})

    assert same["spec"]["knobs"]["components"] == ["1_user"]
    assert other["spec"]["knobs"]["components"] == ["0_system"]
