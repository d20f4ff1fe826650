"""POST /v1/executions:submit: what is accepted, what is refused, and that a refusal leaves no row."""

from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.models import Call, Event, Execution, Job
from tests.support import MODEL, Api, Drain, make_prompt, pointers, run_body


def rows() -> dict[str, int]:
    with db.reading() as session:
        return {
            model.__tablename__: session.scalar(sa.select(sa.func.count()).select_from(model)) or 0
            for model in (Execution, Call, Job)
        }


def test_submit_answers_202_and_the_execution_is_done_after_the_fleet_ran(api: Api, drain: Drain) -> None:
    make_prompt(api)

    submitted = api.expect(202, "POST", "/v1/executions:submit", run_body())
    queued = api.expect(200, "GET", f"/v1/executions/{submitted['execution_id']}")
    drain()
    done = api.expect(200, "GET", f"/v1/executions/{submitted['execution_id']}")

    assert set(submitted) == {"execution_id", "status", "mode"}
    assert (submitted["status"], submitted["mode"]) == ("queued", "async")
    assert queued["status"] == "queued"
    assert done["status"] == "succeeded"
    assert done["response_text"]
    assert done["telemetry"]["prompt_tokens"] > 0
    assert done["messages"] == [{"role": "user", "content": "Say hello to Ada."}]
    assert done["attempts"] == 1
    assert done["cost_usd"] > 0
    assert done["request_id"]


def test_the_row_the_ledger_and_the_job_are_one_transaction(api: Api) -> None:
    make_prompt(api)

    api.expect(202, "POST", "/v1/executions:submit", run_body())

    assert rows() == {"executions": 1, "calls": 1, "jobs": 1}


def test_a_number_a_label_or_a_reference_chooses_the_version_and_production_is_the_default(
    api: Api, drain: Drain
) -> None:
    make_prompt(api, template="one {{ name }}")
    make_prompt(api, template="two {{ name }}", set_active=False)
    content_hash = api.expect(200, "GET", "/v1/prompts/greeter/versions/2")["content_hash"]
    api.expect(200, "PUT", "/v1/prompts/greeter/labels/beta", {"version_number": 2})
    choices: list[tuple[dict[str, Any], str]] = [
        ({}, "one Ada"),
        ({"version_number": 2}, "two Ada"),
        ({"label": "beta"}, "two Ada"),
        ({"label": "latest"}, "two Ada"),
        ({"prompt_name": "greeter@beta"}, "two Ada"),
        ({"prompt_name": "greeter@v1"}, "one Ada"),
        ({"prompt_name": f"greeter@sha256:{content_hash[:12]}"}, "two Ada"),
    ]

    for choice, expected in choices:
        submitted = api.expect(202, "POST", "/v1/executions:submit", run_body(**choice))
        sent = api.expect(200, "GET", f"/v1/executions/{submitted['execution_id']}")["messages"]
        assert sent == [{"role": "user", "content": expected}], choice


def test_the_environment_is_recorded_and_never_chooses_a_version(api: Api) -> None:
    make_prompt(api)
    api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": "two {{ name }}"})
    api.expect(200, "PUT", "/v1/prompts/greeter/labels/prod", {"version_number": 2})

    submitted = api.expect(202, "POST", "/v1/executions:submit", run_body(environment="prod"))

    stored = api.expect(200, "GET", f"/v1/executions/{submitted['execution_id']}")
    assert stored["environment"] == "prod"
    assert stored["messages"][0]["content"] == "Say hello to Ada."


def test_model_settings_of_the_version_are_the_default_and_the_request_wins(api: Api) -> None:
    make_prompt(api, model={**MODEL, "params": {"temperature": 0.5, "max_new_tokens": 9}})

    without = api.expect(202, "POST", "/v1/executions:submit", {"prompt_name": "greeter", "variables": {"name": "A"}})
    with_own = api.expect(
        202,
        "POST",
        "/v1/executions:submit",
        {"prompt_name": "greeter", "variables": {"name": "A"}, "params": {"temperature": 0.0}},
    )

    assert params_of(api, without) == {"temperature": 0.5, "max_new_tokens": 9}
    assert params_of(api, with_own) == {"temperature": 0.0, "max_new_tokens": 9}


def params_of(api: Api, submitted: dict[str, str]) -> Any:
    return api.expect(200, "GET", f"/v1/executions/{submitted['execution_id']}")["params"]


@pytest.mark.parametrize(
    ("change", "status", "pointer"),
    [
        ({"prompt_name": "nobody"}, 404, None),
        ({"label": "nowhere"}, 404, None),
        ({"version_number": 99}, 404, None),
        ({"variables": {}}, 422, "/variables/name"),
        ({"variables": {"name": float("nan")}}, 422, "/variables/name"),
        ({"variables": {"name": {"deep": [1, float("inf")]}}}, 422, "/variables/name/deep/1"),
        ({"variables": {"name": "\x00"}}, 422, "/variables/name"),
        ({"variables": {"name": "x" * 300_000}}, 422, "/variables"),
        ({"variables": []}, 422, "/variables"),
        ({"version_number": True}, 422, "/version_number"),
        ({"version_number": "1"}, 422, "/version_number"),
        ({"version_number": 0}, 422, "/version_number"),
        ({"version_number": 1, "label": "production"}, 422, "/version_number"),
        ({"model": {"provider": "nobody", "model_name": "x"}}, 422, "/model/provider"),
        ({"model": {"provider": "simulated"}}, 422, "/model/model_name"),
        ({"model": None}, 422, "/model"),
        ({"params": {"temperature": 3}}, 422, "/params/temperature"),
        ({"params": {"temperature": True}}, 422, "/params/temperature"),
        ({"params": {"temperature": "0.5"}}, 422, "/params/temperature"),
        ({"params": {"max_new_tokens": 1.5}}, 422, "/params/max_new_tokens"),
        ({"params": {"top_k": 5}}, 422, "/params/top_k"),
        ({"params": {"repetition_penalty": 1.1}}, 422, "/params/repetition_penalty"),
        ({"params": {"tempratur": 1}}, 422, "/params/tempratur"),
        ({"promptname": "x"}, 422, "/promptname"),
        ({"environment": ""}, 422, "/environment"),
        ({"prompt_name": "greeter@v0"}, 422, "/prompt_name"),
        ({"prompt_name": "greeter@sha256:zz"}, 422, "/prompt_name"),
    ],
)
def test_bad_input_is_named_and_leaves_no_row(
    api: Api, change: dict[str, Any], status: int, pointer: str | None
) -> None:
    make_prompt(api)

    answer = api.post("/v1/executions:submit", run_body(**change))

    assert answer.status_code == status, answer.get_data(as_text=True)
    if pointer:
        assert pointer in pointers(answer)
    assert rows() == {"executions": 0, "calls": 0, "jobs": 0}


def test_a_missing_label_says_what_to_do(api: Api) -> None:
    api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": "hi {{ name }}"})

    problem = api.expect(404, "POST", "/v1/executions:submit", run_body())

    assert "set_active" in problem["detail"]


def test_a_parameter_that_a_reasoning_model_does_not_take_is_refused_by_name(api: Api) -> None:
    make_prompt(api)

    answer = api.post(
        "/v1/executions:submit",
        run_body(model={"provider": "openai", "model_name": "gpt-5-mini"}, params={"temperature": 0.1}),
    )

    assert answer.status_code == 422
    assert pointers(answer) == ["/params/temperature"]
    assert "it takes: max_new_tokens, seed" in answer.get_json()["detail"]


def test_submitting_writes_one_event(api: Api) -> None:
    make_prompt(api)

    submitted = api.expect(202, "POST", "/v1/executions:submit", run_body())

    with db.reading() as session:
        events = session.execute(sa.select(Event.type, Event.actor).where(Event.type.startswith("execution"))).all()
    assert [tuple(event) for event in events] == [("execution.queued", "admin")]
    assert submitted["status"] == "queued"
