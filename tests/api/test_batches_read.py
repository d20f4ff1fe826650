"""GET /v1/batches: how far a batch is, counted from its executions; and who may see it."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from shared import db
from shared.models import Execution
from tests.support import MODEL, Api, Drain, batch_body, make_prompt, run_body
from worker.recording import record
from worker.steps import Failure
from worker.tasks import STEPS

PATH = "/v1/executions:batch"
NONE = {"queued": 0, "running": 0, "succeeded": 0, "failed": 0, "canceled": 0}
REFUSED = Failure("bad_request", "no", retryable=False)


def submit(api: Api, names: str, **fields: Any) -> str:
    return str(api.expect(202, "POST", PATH, batch_body(names, **fields))["batch_id"])


def read(api: Api, batch_id: str) -> Any:
    return api.expect(200, "GET", f"/v1/batches/{batch_id}")


def test_a_batch_is_followed_from_queued_to_succeeded(api: Api, drain: Drain) -> None:
    make_prompt(api)
    batch_id = submit(api, "abc")

    seen = [read(api, batch_id)]
    (lease,) = drain.claim(limit=1)
    seen.append(read(api, batch_id))
    record(STEPS, [(lease, drain.outcome(lease))])
    seen.append(read(api, batch_id))
    drain()
    seen.append(read(api, batch_id))

    assert [(batch["status"], batch["counts"]) for batch in seen] == [
        ("queued", {**NONE, "queued": 3}),
        ("running", {**NONE, "queued": 2, "running": 1}),
        ("running", {**NONE, "queued": 2, "succeeded": 1}),
        ("succeeded", {**NONE, "succeeded": 3}),
    ]
    assert [batch["completed_at"] is None for batch in seen] == [True, True, True, False]
    assert [batch["eta_at"] is None for batch in seen] == [True, True, False, True]


def test_the_eta_is_the_time_that_the_rest_takes_at_the_rate_so_far(api: Api, drain: Drain) -> None:
    make_prompt(api)
    batch_id = submit(api, "abcd")
    drain(most=1)
    db.offset_clock(600)

    batch = read(api, batch_id)

    total = datetime.fromisoformat(batch["eta_at"]) - datetime.fromisoformat(batch["created_at"])
    assert total.total_seconds() == pytest.approx(4 * 600, abs=60)  # one of four took ten minutes


def test_tokens_and_cost_are_those_of_its_executions(api: Api, drain: Drain) -> None:
    make_prompt(api)
    batch_id = submit(api, "abc")
    drain(most=2)

    batch = read(api, batch_id)

    ended = api.expect(200, "GET", f"/v1/executions?batch_id={batch_id}&status=succeeded")["data"]
    assert len(ended) == 2
    assert batch["cost_usd"] == pytest.approx(sum(one["cost_usd"] for one in ended))
    assert batch["cost_usd"] > 0
    assert batch["tokens"] == sum(
        one["telemetry"]["prompt_tokens"] + one["telemetry"]["response_tokens"] for one in ended
    )


@pytest.mark.parametrize(("failing", "status"), [(1, "succeeded"), (2, "failed")])
def test_a_batch_has_failed_when_none_of_it_has_succeeded(api: Api, drain: Drain, failing: int, status: str) -> None:
    make_prompt(api)
    batch_id = submit(api, "ab")
    claimed = drain.claim()

    record(STEPS, [(lease, REFUSED) for lease in claimed[:failing]])
    record(STEPS, [(lease, drain.outcome(lease)) for lease in claimed[failing:]])

    batch = read(api, batch_id)
    assert batch["status"] == status
    assert batch["counts"] == {**NONE, "failed": failing, "succeeded": 2 - failing}


def test_executions_that_were_canceled_one_by_one_make_no_canceled_batch_while_another_succeeds(
    api: Api, drain: Drain
) -> None:
    make_prompt(api)
    made = api.expect(202, "POST", PATH, batch_body("ab"))
    api.expect(200, "POST", f"/v1/executions/{made['results'][0]['execution_id']}/cancel")
    drain()

    batch = read(api, made["batch_id"])

    assert (batch["status"], batch["counts"]) == ("succeeded", {**NONE, "canceled": 1, "succeeded": 1})


def test_the_list_is_newest_first_and_paged_without_loss(api: Api, drain: Drain) -> None:
    make_prompt(api)
    ids = [submit(api, names) for names in ("a", "ab", "abc")]
    drain(most=1)

    first = api.expect(200, "GET", "/v1/batches?limit=2")
    second = api.expect(200, "GET", f"/v1/batches?limit=2&cursor={first['next_cursor']}")

    listed = [*first["data"], *second["data"]]
    assert [batch["batch_id"] for batch in listed] == ids[::-1]
    assert [batch["accepted"] for batch in listed] == [3, 2, 1]
    assert [batch["counts"]["succeeded"] for batch in listed] == [0, 0, 1]
    assert second["next_cursor"] is None


def test_the_executions_of_a_batch_are_listed_by_its_id(api: Api) -> None:
    make_prompt(api)
    made = api.expect(202, "POST", PATH, batch_body("abc"))
    submit(api, "de")
    api.expect(202, "POST", "/v1/executions:submit", run_body())

    listed = api.expect(200, "GET", f"/v1/executions?batch_id={made['batch_id']}")["data"]

    assert {one["execution_id"] for one in listed} == {one["execution_id"] for one in made["results"]}
    assert {(one["batch_id"], one["batch_index"]) for one in listed} == {(made["batch_id"], n) for n in range(3)}


def test_a_batch_id_that_is_none_is_refused(api: Api) -> None:
    assert api.get("/v1/executions?batch_id=nightly").status_code == 422


def test_a_batch_of_another_workspace_does_not_exist(api: Api, as_user: Callable[..., Api]) -> None:
    make_prompt(api)
    batch_id = submit(api, "a")
    stranger = as_user(workspace="elsewhere")

    answers = [stranger.get(f"/v1/batches/{batch_id}"), stranger.post(f"/v1/batches/{batch_id}/cancel")]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert stranger.expect(200, "GET", "/v1/batches")["data"] == []
    assert stranger.expect(200, "GET", f"/v1/executions?batch_id={batch_id}")["data"] == []
    assert read(api, batch_id)["cancel_requested_at"] is None


def test_a_key_limited_to_projects_sees_the_batches_that_are_of_these_alone(
    api: Api, as_user: Callable[..., Api]
) -> None:
    for project in ("atlas", "vault"):
        api.expect(201, "POST", "/v1/projects", {"name": project})
        make_prompt(api, project=project)
    item = {"prompt_name": "greeter", "model": MODEL, "variables": {"name": "Ada"}}

    def batch_of(*projects: str) -> str:
        items = [{**item, "project": project} for project in projects]
        return str(api.expect(202, "POST", PATH, {"items": items})["batch_id"])

    mine, theirs, mixed = batch_of("atlas", "atlas"), batch_of("vault"), batch_of("atlas", "vault")
    atlas, both = as_user(user="one", projects=["atlas"]), as_user(user="two", projects=["atlas", "vault"])

    def seen(key: Api) -> list[str]:
        return [batch["batch_id"] for batch in key.expect(200, "GET", "/v1/batches")["data"]]

    assert seen(atlas) == [mine]
    assert [atlas.get(f"/v1/batches/{one}").status_code for one in (mine, theirs, mixed)] == [200, 404, 404]
    assert seen(both) == [mixed, theirs, mine]
    assert read(both, mixed)["project_id"] is None
    assert read(both, mine)["project_id"] is not None


def test_an_execution_without_a_batch_says_so(api: Api) -> None:
    make_prompt(api)
    run = api.expect(202, "POST", "/v1/executions:submit", run_body())

    stored = api.expect(200, "GET", f"/v1/executions/{run['execution_id']}")

    assert (stored["batch_id"], stored["batch_index"]) == (None, None)
    with db.reading() as session:
        assert session.query(Execution).one().batch_id is None
