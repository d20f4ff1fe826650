"""Idempotency-Key (I7): same key, caller, route and body → same answer, one entity, one job."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from shared import db
from shared.models import Dataset, Execution, Job, Project, Prompt
from tests.support import API_KEY, Api, Drain, make_prompt, run_body

KEY = {"Idempotency-Key": "order-42"}


def count(model: Any) -> int:
    with db.reading() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(model)) or 0


@pytest.mark.parametrize(
    ("method", "path", "body", "model"),
    [
        ("POST", "/v1/projects", {"name": "atlas"}, Project),
        ("POST", "/v1/prompts", {"name": "p", "template_source": "x {{ a }}"}, Prompt),
        ("PUT", "/v1/prompts/p", {"template_source": "x {{ a }}"}, Prompt),
        ("POST", "/v1/datasets", {"name": "d"}, Dataset),
    ],
)
def test_a_repeated_create_replays_status_and_body_and_makes_one_entity(
    api: Api, method: str, path: str, body: Any, model: Any
) -> None:
    before = count(model)
    first = api.request(method, path, body, headers=KEY)

    second = api.request(method, path, body, headers=KEY)

    assert first.status_code == second.status_code < 300
    assert first.get_json() == second.get_json()
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert count(model) == before + 1


def test_a_repeated_run_replays_the_same_execution_as_it_stands(api: Api, drain: Drain) -> None:
    make_prompt(api)
    first = api.post("/v1/executions:submit", run_body(), headers=KEY)
    drain()

    second = api.post("/v1/executions:submit", run_body(), headers=KEY)

    assert first.get_json()["status"] == "queued"
    assert second.status_code == 202
    assert second.get_json()["execution_id"] == first.get_json()["execution_id"]
    assert second.get_json()["status"] == "succeeded"
    assert second.headers["Idempotent-Replayed"] == "true"
    assert count(Job) == 1


def test_the_same_key_with_another_body_is_refused(api: Api) -> None:
    make_prompt(api)
    api.post("/v1/executions:submit", run_body(), headers=KEY)

    answer = api.post("/v1/executions:submit", run_body(variables={"name": "Bob"}), headers=KEY)

    assert answer.status_code == 422
    assert answer.get_json()["code"] == "idempotency_mismatch"
    assert count(Execution) == 1


def test_the_same_body_with_its_fields_in_another_order_is_the_same_body(api: Api) -> None:
    make_prompt(api)
    body = run_body()
    api.post("/v1/executions:submit", body, headers=KEY)

    again = api.post("/v1/executions:submit", dict(reversed(list(body.items()))), headers=KEY)

    assert again.headers["Idempotent-Replayed"] == "true"


def test_another_route_or_another_caller_may_use_the_same_key(api: Api, as_user: Callable[..., Api]) -> None:
    make_prompt(api)
    colleague = as_user(user="colleague")

    answers = [
        api.post("/v1/executions:submit", run_body(), headers=KEY),
        colleague.post("/v1/executions:submit", run_body(), headers=KEY),
        api.post("/v1/executions:run", run_body(), headers={**KEY, "Prefer": "wait=0"}),
    ]

    assert all("Idempotent-Replayed" not in answer.headers for answer in answers)
    assert len({answer.get_json()["execution_id"] for answer in answers}) == 3


def test_a_refused_request_does_not_use_the_key_up(api: Api) -> None:
    make_prompt(api)
    assert api.post("/v1/executions:submit", run_body(variables={}), headers=KEY).status_code == 422

    answer = api.post("/v1/executions:submit", run_body(), headers=KEY)

    assert answer.status_code == 202
    assert "Idempotent-Replayed" not in answer.headers


def test_a_key_expires_and_then_makes_a_new_entity(api: Api) -> None:
    make_prompt(api)
    first = api.post("/v1/executions:submit", run_body(), headers=KEY).get_json()
    db.offset_clock(24 * 3600 + 1)

    second = api.post("/v1/executions:submit", run_body(), headers=KEY)

    assert "Idempotent-Replayed" not in second.headers
    assert second.get_json()["execution_id"] != first["execution_id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "with space", "ümlaut"])
def test_a_malformed_key_is_refused(api: Api, key: str) -> None:
    answer = api.post("/v1/projects", {"name": "atlas"}, headers={"Idempotency-Key": key})

    assert answer.status_code == 400
    assert count(Project) == 1  # the default project


def test_a_replay_needs_nothing_that_has_gone_since(api: Api) -> None:
    """The answer is remembered, so it does not matter that the name is taken by now."""
    first = api.post("/v1/projects", {"name": "atlas"}, headers=KEY)

    second = api.post("/v1/projects", {"name": "atlas"}, headers=KEY)
    other = api.post("/v1/projects", {"name": "atlas"})

    assert (first.status_code, second.status_code, other.status_code) == (201, 201, 409)


def test_fifty_simultaneous_first_requests_make_one_entity_one_job_and_never_a_500(
    api: Api, flask_client: FlaskClient
) -> None:
    make_prompt(api)
    start = threading.Barrier(50)
    answers: list[Any] = []
    guard = threading.Lock()

    def request() -> None:
        client = Api(flask_client.application.test_client(), API_KEY)
        start.wait()
        answer = client.post("/v1/executions:submit", run_body(), headers=KEY)
        with guard:
            answers.append(answer)

    threads = [threading.Thread(target=request) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    statuses = Counter(answer.status_code for answer in answers)
    fresh = [answer for answer in answers if answer.status_code == 202 and "Idempotent-Replayed" not in answer.headers]
    ids = {answer.get_json()["execution_id"] for answer in answers if answer.status_code == 202}
    assert set(statuses) <= {202, 409}
    assert len(fresh) == 1
    assert len(ids) == 1
    assert count(Execution) == count(Job) == 1


def test_a_caller_whose_first_request_hangs_gets_409_after_two_seconds(api: Api, admin: Any) -> None:
    from shared.domain import idempotency

    make_prompt(api)
    held = idempotency.attempt(admin, "POST /v1/executions:submit", KEY["Idempotency-Key"], [{}, run_body()])

    with db.transaction() as session:
        assert idempotency.begin(session, held) is None
        answer = api.post("/v1/executions:submit", run_body(), headers=KEY)

    assert answer.status_code == 409
    assert answer.get_json()["code"] == "idempotency_in_progress"
    assert answer.headers["Retry-After"] == "1"
    assert count(Execution) == 0
