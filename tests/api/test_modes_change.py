"""POST /v1/prompts/{name}/mode: between code and the API in both directions, and what each mode refuses."""

from typing import Any

import pytest

from tests.rows import event_data, everything
from tests.support import MODEL, Api, Drain, make_prompt, pointers, run_body


@pytest.fixture
def greeter(api: Api) -> str:
    """A prompt that lives in code, with two versions; the second is current."""
    for source in ("one", "two"):
        register(api, source)
    return "/v1/prompts/greeter"


def register(api: Api, source: str) -> Any:
    prompt = {"name": "greeter", "template_source": source, "model": MODEL}
    return api.post("/v1/prompts/register-code", {"prompts": [prompt]})


def move(api: Api, mode: str, **fields: Any) -> Any:
    return api.expect(200, "POST", "/v1/prompts/greeter/mode", {"mode": mode, **fields})


def test_a_prompt_goes_from_code_to_the_api_and_back_with_all_that_it_has(api: Api, greeter: str, drain: Drain) -> None:
    api.expect(202, "POST", f"{greeter}/execute", {"mode": "async"})
    drain()
    history = api.expect(200, "GET", f"{greeter}/history")

    full = move(api, "full", reason="the product team takes over")
    put = api.expect(200, "PUT", greeter, {"template_source": "three", "set_active": True})
    tracking = move(api, "tracking")
    registered = register(api, "one").get_json()["registered"][0]

    assert (full["mode"], tracking["mode"]) == ("full", "tracking")
    assert put["version"]["version_number"] == 3
    assert (registered["version"], registered["change_detected"], registered["previous_version"]) == (1, True, 3)
    after = api.expect(200, "GET", f"{greeter}/history")["versions"]
    assert after[1:] == history["versions"]
    assert event_data("prompt.mode_changed") == [
        {"from": "tracking", "to": "full", "reason": "the product team takes over"},
        {"from": "full", "to": "tracking", "reason": ""},
    ]


def test_a_move_to_the_mode_that_it_has_changes_nothing(api: Api, greeter: str) -> None:
    before = everything()

    assert move(api, "tracking")["mode"] == "tracking"
    assert everything() == before


@pytest.mark.parametrize("set_active", [False, True])
def test_a_put_to_a_prompt_that_lives_in_code_names_both_ways_out(api: Api, greeter: str, set_active: bool) -> None:
    before = everything()

    answer = api.put(greeter, {"template_source": "three", "set_active": set_active})

    assert (answer.status_code, answer.get_json()["code"]) == (409, "conflict")
    assert "POST /v1/prompts/register-code" in answer.get_json()["detail"]
    assert "POST /v1/prompts/greeter/mode" in answer.get_json()["detail"]
    assert everything() == before


def test_every_way_out_that_a_refusal_names_works(api: Api, greeter: str) -> None:
    make_prompt(api, "other", template="one")
    refused = api.post("/v1/prompts/register-code", {"prompts": [{"name": "other", "template_source": "two"}]})

    move(api, "full")
    api.expect(200, "PUT", greeter, {"template_source": "three"})
    api.expect(200, "POST", "/v1/prompts/other/mode", {"mode": "tracking"})
    registered = api.post("/v1/prompts/register-code", {"prompts": [{"name": "other", "template_source": "two"}]})

    assert (refused.status_code, registered.status_code) == (409, 200)


def test_a_prompt_that_lives_in_code_is_read_and_run_like_any_other(api: Api, greeter: str) -> None:
    run = api.expect(202, "POST", "/v1/executions:submit", run_body("greeter@v1", variables={}))

    assert api.expect(200, "GET", f"/v1/executions/{run['execution_id']}")["version_number"] == 1
    assert api.expect(200, "GET", f"{greeter}/versions/production")["version_number"] == 2


@pytest.mark.parametrize(
    ("body", "named"),
    [({}, "/mode"), ({"mode": "code"}, "/mode"), ({"mode": "full", "reason": "x" * 501}, "/reason")],
)
def test_a_mode_that_there_is_not_is_refused(api: Api, greeter: str, body: Any, named: str) -> None:
    answer = api.post(f"{greeter}/mode", body)

    assert (answer.status_code, pointers(answer)) == (422, [named])


def test_a_move_that_others_have_overtaken_is_a_412(api: Api, greeter: str) -> None:
    tag = api.get(greeter).headers["ETag"]
    move(api, "full")

    answer = api.post(f"{greeter}/mode", {"mode": "full"}, headers={"If-Match": tag})

    assert (answer.status_code, pointers(answer)) == (412, ["If-Match"])
