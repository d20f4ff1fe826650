"""Evaluations of Prompt Studio: measured by the fleet, never made up."""

from collections.abc import Callable
from typing import Any

import pytest

from shared.models import Evaluation, Role
from tests.compat.studio import NOBODY, Studio, triage
from tests.rows import count, everything
from tests.support import Api, Drain, Worker, make_prompt, pointers

NOW: dict[str, Any] = {"headers": {"Prefer": "wait=0"}}


def start(studio: Studio, **fields: Any) -> Any:
    project_id, prompt_id = triage(studio)
    body = {"project_id": project_id, "prompt_id": prompt_id, "run_async": True, **fields}
    return studio.data(202, "POST", "/evaluations", body)


def cases(studio: Studio) -> list[str]:
    return [row["test_case_id"] for row in studio.api.expect(200, "GET", "/v1/datasets/tickets/cases")["data"]]


def test_an_evaluation_has_the_fields_of_the_original_and_what_was_measured(studio: Studio, drain: Drain) -> None:
    made = start(studio, name="nightly", config={"model_name": "simulated-small", "temperature": 0.5, "max_tokens": 50})
    drain()

    found = studio.data(200, "GET", f"/evaluations/{made['id']}")

    ours = studio.api.expect(200, "GET", f"/v1/evaluations/{made['id']}")
    assert (made["status"], made["metrics"], made["completed_at"]) == ("pending", None, None)
    assert (found["status"], found["name"], found["tags"], found["error_message"]) == ("completed", "nightly", [], None)
    assert (found["id"], found["prompt_id"]) == (found["uuid"], ours["version_id"])
    assert found["config"] == {
        "provider": "simulated",
        "model_name": "simulated-small",
        "temperature": 0.5,
        "max_tokens": 50,
    }
    assert found["metrics"] == {
        **ours["aggregate"],
        "total_tests": 12,
        "failed": 12 - ours["aggregate"]["passed"],
        "average_score": ours["aggregate"]["score"],
    }
    assert found["total_tokens"] == ours["spent"]["tokens"] > 0
    assert found["total_cost"] == ours["spent"]["cost_usd"]
    assert found["completed_at"] > found["started_at"] >= found["created_at"]


def test_without_run_async_the_end_is_waited_for(studio: Studio, drain: Drain) -> None:
    project_id, prompt_id = triage(studio)

    with Worker(drain):
        data = studio.data(200, "POST", "/evaluations", {"project_id": project_id, "prompt_id": prompt_id})

    assert (data["status"], data["metrics"]["total_tests"]) == ("completed", 12)


def test_what_takes_longer_is_a_202_to_poll(studio: Studio) -> None:
    project_id, prompt_id = triage(studio)

    answer = studio.request("POST", "/evaluations", {"project_id": project_id, "prompt_id": prompt_id}, **NOW)

    data = answer.get_json()["data"]
    assert (answer.status_code, data["status"]) == (202, "pending")
    assert studio.api.expect(200, "GET", answer.headers["Location"])["data"]["id"] == data["id"]


def test_the_test_cases_may_be_named_if_they_are_all_of_a_dataset(studio: Studio) -> None:
    project_id, prompt_id = triage(studio)
    studio.api.expect(201, "POST", "/v1/datasets", {"name": "other"})
    studio.api.expect(201, "POST", "/v1/datasets/other/cases", [{"inputs": {"ticket": "x"}, "expected": "y"}])
    body = {"project_id": project_id, "prompt_id": prompt_id, "run_async": True}

    made = studio.data(202, "POST", "/evaluations", {**body, "test_case_ids": cases(studio)})
    without = studio.request("POST", "/evaluations", body)
    part = studio.request("POST", "/evaluations", {**body, "test_case_ids": cases(studio)[:3]})
    unknown = studio.request("POST", "/evaluations", {**body, "test_case_ids": [NOBODY]})

    datasets = studio.api.expect(200, "GET", "/v1/datasets")["data"]
    assert [row["name"] for row in datasets if row["dataset_id"] == made["dataset_id"]] == ["tickets"]
    assert [(answer.status_code, pointers(answer)) for answer in (without, part, unknown)] == [
        (422, ["/test_case_ids"]),
        (422, ["/test_case_ids"]),
        (422, ["/test_case_ids/0"]),
    ]
    assert count(Evaluation) == 1


def test_the_cases_of_another_project_are_none(studio: Studio) -> None:
    triage(studio)
    project = studio.project()
    prompt = studio.prompt(project)
    body = {"project_id": project["id"], "prompt_id": prompt["id"], "test_case_ids": cases(studio)}

    answer = studio.request("POST", "/evaluations", {**body, "config": {"model_name": "simulated-small"}})

    assert (answer.status_code, pointers(answer)[0]) == (422, "/test_case_ids/0")


def test_what_has_no_effect_is_said_in_a_warning(studio: Studio) -> None:
    project_id, prompt_id = triage(studio)
    config = {"retry_count": 3, "timeout_seconds": 30, "parallel_requests": 5, "frequency_penalty": 0}
    body = {"project_id": project_id, "prompt_id": prompt_id, "config": config, "tags": ["a"], "description": "b"}

    answer = studio.expect(202, "POST", "/evaluations", {**body, "run_async": True})

    warned = [warning.partition(":")[0] for warning in answer["metadata"]["warnings"]]
    assert warned == ["config/timeout_seconds", "config/retry_count", "config/parallel_requests", "description", "tags"]


def test_the_expected_objects_are_compared_field_by_field(studio: Studio) -> None:
    assert [scorer["type"] for scorer in start(studio)["scorers"]] == ["json_fields"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"metrics": {"accuracy": 1.0}}, "/metrics"),
        ({"config": {"presence_penalty": 0.5}}, "/config/presence_penalty"),
        ({"config": {"temperature": 3}}, "/config/temperature"),
        ({"config": {"top_p": 0}}, "/config/top_p"),
        ({"config": {"max_tokens": 0}}, "/config/max_tokens"),
        ({"config": {"retry_count": 11}}, "/config/retry_count"),
        ({"config": {"colour": 1}}, "/config/colour"),
        ({"model_configs": [{"frequency_penalty": 1}]}, "/model_configs/0/frequency_penalty"),
        ({"model_configs": [{}, {}]}, "/model_configs"),
        ({"model_configs": [{"model_name": "a"}], "config": {"model_name": "b"}}, "/model_configs"),
        ({"scorers": [{"type": "vibes"}]}, "/scorers/0/type"),
        ({"name": "a" * 201}, "/name"),
        ({"tags": ["a"] * 21}, "/tags"),
        ({"run_async": "yes"}, "/run_async"),
        ({"prompt_id": 7}, "/prompt_id"),
    ],
)
def test_a_field_that_cannot_be_is_named(studio: Studio, fields: dict[str, Any], pointer: str) -> None:
    project_id, prompt_id = triage(studio)
    before = everything()

    answer = studio.request("POST", "/evaluations", {"project_id": project_id, "prompt_id": prompt_id, **fields})

    assert (answer.status_code, pointers(answer)) == (422, [pointer])
    assert everything() == before


def test_a_prompt_without_a_model_needs_one(studio: Studio) -> None:
    project_id, _ = triage(studio)
    make_prompt(studio.api, "bare", template="{{ ticket }}")
    prompt_id = studio.api.expect(200, "GET", "/v1/prompts/bare/versions/1")["version_id"]

    answer = studio.request("POST", "/evaluations", {"project_id": project_id, "prompt_id": prompt_id})

    assert (answer.status_code, pointers(answer)) == (422, ["/config/model_name"])


def test_cases_that_do_not_fit_the_prompt_are_named_before_it_starts(studio: Studio) -> None:
    project_id, _ = triage(studio)
    other = studio.prompt({"id": project_id}, "other", user_prompt="{subject}")
    body = {"project_id": project_id, "prompt_id": other["id"], "config": {"model_name": "simulated-small"}}

    answer = studio.request("POST", "/evaluations", body)

    assert (answer.status_code, pointers(answer)) == (422, ["/test_case_ids"])
    assert "subject" in answer.get_json()["error"]


def test_the_prompt_must_be_of_the_project(studio: Studio) -> None:
    _, prompt_id = triage(studio)
    project = studio.project()

    answer = studio.request("POST", "/evaluations", {"project_id": project["id"], "prompt_id": prompt_id})

    assert (answer.status_code, pointers(answer)) == (404, ["/prompt_id"])


def test_the_same_idempotency_key_makes_one_evaluation(studio: Studio) -> None:
    project_id, prompt_id = triage(studio)
    body = {"project_id": project_id, "prompt_id": prompt_id, "run_async": True}
    options: dict[str, Any] = {"headers": {"Idempotency-Key": "one"}}

    ids = {studio.expect(202, "POST", "/evaluations", body, **options)["data"]["id"] for _ in range(2)}

    assert (len(ids), count(Evaluation)) == (1, 1)


def test_the_list_goes_by_offset_and_can_be_narrowed(studio: Studio) -> None:
    project_id, prompt_id = triage(studio)
    body = {"project_id": project_id, "prompt_id": prompt_id, "run_async": True}
    ids = [studio.data(202, "POST", "/evaluations", {**body, "name": f"e{index}"})["id"] for index in range(3)]
    other = studio.project()

    page = studio.expect(200, "GET", "/evaluations?limit=2&offset=2")

    assert [row["id"] for row in page["data"]] == [ids[0]]
    assert page["metadata"] == {"page": 2, "per_page": 2, "total": 3, "total_pages": 2}
    assert len(studio.data(200, "GET", f"/evaluations?prompt_id={prompt_id}&project_id={project_id}")) == 3
    assert studio.data(200, "GET", f"/evaluations?project_id={other['id']}") == []
    assert studio.data(200, "GET", f"/evaluations?prompt_id={NOBODY}") == []
    assert studio.request("GET", f"/evaluations?project_id={NOBODY}").status_code == 404
    for query in ("limit=0", "limit=1001", "offset=-1", "page=1"):
        assert pointers(studio.request("GET", f"/evaluations?{query}")) == [f"?{query.partition('=')[0]}"]


def test_a_stranger_neither_lists_reads_nor_deletes_it(studio: Studio, as_user: Callable[..., Api]) -> None:
    made = start(studio)
    stranger = Studio(as_user(workspace="elsewhere", role=Role.ADMIN))

    assert stranger.expect(200, "GET", "/evaluations")["metadata"]["total"] == 0
    assert stranger.request("GET", f"/evaluations/{made['id']}").status_code == 404
    assert stranger.request("DELETE", f"/evaluations/{made['id']}").status_code == 404


def test_an_evaluation_is_not_deleted_and_the_answer_says_what_to_do(studio: Studio) -> None:
    made = start(studio)
    before = everything()

    answer = studio.expect(409, "DELETE", f"/evaluations/{made['id']}")

    assert f"POST /v1/evaluations/{made['id']}/cancel" in answer["error"]
    assert everything() == before
