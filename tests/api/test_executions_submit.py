"""POST /v1/executions:submit and the life of an execution after it."""

from tests.support import Api, Drain, make_prompt, run_body


def test_submit_answers_202_at_once_and_the_execution_is_done_after_the_fleet_ran(api: Api, drain: Drain) -> None:
    make_prompt(api)

    submitted = api.expect(202, "POST", "/v1/executions:submit", run_body())
    queued = api.expect(200, "GET", f"/v1/executions/{submitted['execution_id']}")
    drain()
    done = api.expect(200, "GET", f"/v1/executions/{submitted['execution_id']}")

    assert submitted["status"] == "queued"
    assert submitted["mode"] == "async"
    assert queued["status"] == "queued"
    assert done["status"] == "succeeded"
    assert done["response_text"]
    assert done["telemetry"]["prompt_tokens"] > 0
    assert done["messages"] == [{"role": "user", "content": "Say hello to Ada."}]
    assert done["attempts"] == 1
    assert done["cost_usd"] > 0
