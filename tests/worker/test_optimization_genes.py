"""Searches over more than texts, from POST to the stored version: demonstrations as messages, settings in the model."""

import json
import uuid
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from shared import db
from shared.domain.content import check_content, render_messages
from shared.errors import PromptmillError
from shared.models import Call, Execution
from tests.support import Api, Drain, make_triage, optimization_body, tickets
from worker.steps.genes import demonstrated

FEW: dict[str, dict[str, Any]] = {
    "bootstrap": {"candidate_sets": 4, "max_bootstrapped": 3, "max_labeled": 4},
    "mipro": {"num_instructions": 3, "num_demo_sets": 2, "trials": 6, "minibatch_size": 8, "full_eval_every": 3},
    "hyperparameter": {
        "params_to_optimize": {
            "max_new_tokens": {"choices": [6, 80]},
            "model_name": {"choices": ["simulated-small", "simulated-large"]},
        },
        "max_trials": 6,
    },
    "gepa": {"reflection_minibatch_size": 6, "parents_per_step": 1, "max_rounds": 3},
    "mcts": {"simulations": 3, "candidates_per_node": 3, "evidence_cases": 8},
}


def optimize(api: Api, drain: Drain, strategy: str, **fields: Any) -> Any:
    body = optimization_body(strategy=strategy, **{"knobs": FEW[strategy], "early_stopping": {"patience": 20}} | fields)
    started = api.expect(202, "POST", "/v1/optimizations", body)
    drain()
    done = api.expect(200, "GET", f"/v1/optimizations/{started['optimization_id']}")
    assert done["status"] == "succeeded", done
    return done


def best_of(api: Api, done: Any, prompt: str = "triage") -> tuple[Any, Any]:
    """The winning candidate, and the version that it became."""
    listed = api.expect(200, "GET", f"/v1/optimizations/{done['optimization_id']}/candidates?limit=100")["data"]
    (best,) = (item for item in listed if item["hash"] == done["result"]["best"])
    return best, api.expect(200, "GET", f"/v1/prompts/{prompt}/versions/{done['best_version_number']}")


def executions_of(done: Any) -> list[Execution]:
    with db.reading() as session:
        scope = uuid.UUID(done["optimization_id"])
        return list(session.scalars(sa.select(Execution).where(Execution.scope_id == scope)))


def assert_no_call_was_paid_twice(done: Any) -> None:
    with db.reading() as session:
        keys = session.scalars(
            sa.select(Call.call_key).where(Call.scope_id == uuid.UUID(done["optimization_id"]))
        ).all()
    assert len(keys) == len(set(keys)) == len(executions_of(done))
    assert {execution.attempts for execution in executions_of(done)} == {1}


@pytest.mark.parametrize("strategy", ["bootstrap", "mipro"])
def test_the_demonstrations_of_the_best_are_messages_of_the_new_version(api: Api, drain: Drain, strategy: str) -> None:
    make_triage(api, cases=60)

    done = optimize(api, drain, strategy)

    best, version = best_of(api, done)
    demos, messages = best["demos"], version["messages"]
    cases = dict(enumerate(tickets(60), start=1))
    assert done["result"]["verdict"] == "improved"
    assert demos
    assert [message["role"] for message in messages] == ["user", "assistant"] * len(demos) + ["user"]
    assert messages[-1]["content"] == best["components"]["template"]
    for demo, asked, answered in zip(demos, messages[::2], messages[1::2], strict=False):
        assert cases[demo["case"]]["inputs"]["ticket"] in asked["content"]
        assert answered["content"] == demo["output"]
    assert "template_source" not in version or version["template_source"] is None
    assert_no_call_was_paid_twice(done)


def test_the_stored_version_sends_what_was_measured(api: Api, drain: Drain) -> None:
    make_triage(api, cases=60)
    done = optimize(api, drain, "bootstrap")
    best, version = best_of(api, done)
    sent = [execution.messages for execution in executions_of(done)]

    rendered = [render_messages({"messages": version["messages"]}, case["inputs"]) for case in tickets(60)]

    found = [messages for messages in rendered if messages in sent]
    assert len(found) == done["result"]["cases"]["dev"] + done["result"]["cases"]["holdout"]
    assert best["cases"] == done["result"]["cases"]["dev"]


def test_demonstrations_stand_between_the_system_message_and_the_question(api: Api, drain: Drain) -> None:
    make_triage(api, cases=60)
    system = 'Reply with JSON like {"category": "...", "priority": "..."}.'
    model = {"provider": "simulated", "model_name": "simulated-small", "params": {"temperature": 0.0}}
    chat = [{"role": "system", "content": system}, {"role": "user", "content": "Ticket:\n{{ ticket }}"}]
    api.expect(200, "PUT", "/v1/prompts/chat", {"messages": chat, "set_active": True, "model": model})

    done = optimize(api, drain, "bootstrap", prompt_name="chat")

    best, version = best_of(api, done, "chat")
    assert best["demos"]
    assert version["messages"][0] == chat[0]
    assert version["messages"][-1] == chat[1]
    assert all(message["content"].startswith("Ticket:\n") for message in version["messages"][1::2])


def test_the_settings_of_the_best_stand_in_the_model_of_the_new_version(api: Api, drain: Drain) -> None:
    """Six tokens cut every answer off; the prompt is the same and the settings are not."""
    make_triage(api, cases=60)

    done = optimize(api, drain, "hyperparameter", params={"max_new_tokens": 6})

    best, version = best_of(api, done)
    before = api.expect(200, "GET", "/v1/prompts/triage/versions/1")
    assert done["result"]["verdict"] == "improved"
    assert done["result"]["baseline_dev"] == 0.0
    assert best["params"]["max_new_tokens"] == 80
    assert version["template_source"] == before["template_source"]
    assert version["model"]["params"] == {"temperature": 0.0, "max_new_tokens": 80}
    assert version["model"]["model_name"] == best["params"]["model_name"]
    models = {(execution.model_name, execution.params["max_new_tokens"]) for execution in executions_of(done)}
    assert models == {(model, tokens) for model in ("simulated-small", "simulated-large") for tokens in (6, 80)}
    assert_no_call_was_paid_twice(done)


@pytest.mark.parametrize("strategy", ["gepa", "mcts"])
def test_a_reflective_search_ends_with_a_rewritten_version(api: Api, drain: Drain, strategy: str) -> None:
    make_triage(api, cases=60)

    done = optimize(api, drain, strategy, seed=5)  # whether the gain is significant is luck, which a seed decides

    best, version = best_of(api, done)
    assert done["result"]["verdict"] == "improved"
    assert version["template_source"] == best["components"]["template"]
    assert (best["demos"], best["params"]) == ([], {})
    assert len(done["progress"]["curve"]) == done["progress"]["round"]
    assert_no_call_was_paid_twice(done)


def test_a_teacher_answers_for_the_model_of_the_task(api: Api, drain: Drain) -> None:
    make_triage(api, cases=60)

    done = optimize(api, drain, "bootstrap", knobs={**FEW["bootstrap"], "teacher": "simulated-large"})

    listed = api.expect(200, "GET", f"/v1/optimizations/{done['optimization_id']}/candidates?limit=100")["data"]
    (teacher,) = (item for item in listed if item["operator"] == "teacher")
    by_model = {model: sum(e.model_name == model for e in executions_of(done)) for model in ("simulated-large",)}
    assert teacher["params"] == {"model_name": "simulated-large"}
    assert teacher["hash"] != done["result"]["best"]
    assert by_model == {"simulated-large": 12}  # 4 x max_bootstrapped of the train cases
    assert best_of(api, done)[1]["model"]["model_name"] == "simulated-small"


# ---- how they stand in the content ---------------------------------------------------------------


@given(st.lists(st.sampled_from([*"{}%#'\"\\- \r\nab", "{{", "}}", "{%", "#}"]), min_size=1).map("".join))
def test_an_answer_is_shown_as_it_was_whatever_it_holds(output: str) -> None:
    made = demonstrated({"template_source": "Q"}, [{"case": 1, "output": output}], {1: {}})

    assert render_messages(made, {})[1]["content"] == output


def test_a_shown_case_that_holds_template_syntax_is_shown_and_not_run() -> None:
    content = {"template_source": "Q: {{ ticket }}", "response_schema": {"type": "object"}}

    made = demonstrated(content, [{"case": 1, "output": '{{"a": 1}'}], {1: {"ticket": "{{ secret }} {% if %}"}})

    assert check_content(**made).variables == ("ticket",)
    assert made["response_schema"] == {"type": "object"}
    assert [message["content"] for message in render_messages(made, {"ticket": "now"})] == [
        "Q: {{ secret }} {% if %}",
        '{{"a": 1}',
        "Q: now",
    ]


def test_a_prompt_without_a_user_message_cannot_show_demonstrations() -> None:
    content = {"messages": [{"role": "system", "content": "{{ ticket }}"}]}

    with pytest.raises(PromptmillError, match="no user message"):
        demonstrated(content, [{"case": 1, "output": json.dumps({})}], {1: {"ticket": "a"}})


def test_a_candidate_that_shows_dev_cases_is_weighed_by_the_others(api: Api, drain: Drain) -> None:
    make_triage(api, cases=20)  # so few that dev is train too
    done = optimize(api, drain, "bootstrap")

    at = f"/v1/optimizations/{done['optimization_id']}"
    candidates = api.expect(200, "GET", f"{at}/candidates?limit=100")["data"]
    weighed = {point["ordinal"] for point in api.expect(200, "GET", f"{at}/pareto")["data"]}

    assert weighed & {one["ordinal"] for one in candidates if one["demos"]}
