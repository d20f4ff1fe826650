"""DELETE /v1/prompts/{name} and its restore: the name is free at once, and what was run stays."""

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from shared import db
from shared.models import Label, Prompt, Role, Version
from tests.rows import count, event_data, everything
from tests.support import (
    API_KEY,
    MODEL,
    Api,
    Drain,
    evaluation_body,
    make_prompt,
    make_triage,
    optimization_body,
    pointers,
    run_body,
)

GREETER = "/v1/prompts/greeter"


def delete(api: Api, name: str = "greeter", query: str = "", **options: Any) -> Any:
    return api.request("DELETE", f"/v1/prompts/{name}{query}", **options)


def names(api: Api, query: str = "") -> list[str]:
    return [prompt["name"] for prompt in api.expect(200, "GET", f"/v1/prompts{query}")["data"]]


@pytest.fixture
def prompt_id(api: Api) -> str:
    """The id of a prompt that was deleted, with one version that `production` points at."""
    make_prompt(api, description="greets")
    return str(delete(api).get_json()["prompt_id"])


def test_a_deleted_prompt_is_gone_from_every_read(api: Api, prompt_id: str) -> None:
    below = ("", "/versions", "/versions/1", "/labels", "/history")

    answers = [api.get(GREETER + path) for path in below]
    run = api.post("/v1/executions:run", run_body())

    assert {answer.status_code for answer in answers} == {404}
    assert (run.status_code, pointers(run)) == (404, ["/prompt_name"])
    assert names(api) == []
    assert event_data("prompt.deleted") == [{"name": "greeter", "permanent": False}]


def test_a_deleted_name_is_free_at_once_as_often_as_one_likes(api: Api) -> None:
    """An earlier system had room for one deleted row of a name."""
    made = []
    for number in range(3):
        made.append(make_prompt(api, template=f"text {number}"))
        assert delete(api).status_code == 200

    last = api.expect(201, "POST", "/v1/prompts", {"name": "greeter", "template_source": "the last"})

    assert len({answer["prompt"]["prompt_id"] for answer in made}) == 3
    assert {answer["version"]["version_number"] for answer in made} == {1}
    assert last["version"]["version_number"] == 1
    assert names(api) == ["greeter"]


def test_code_is_registered_anew_under_a_name_that_was_deleted(api: Api) -> None:
    body = {"prompts": [{"name": "greeter", "template_source": "one"}]}
    api.expect(200, "POST", "/v1/prompts/register-code", body)
    delete(api)

    (registered,) = api.expect(200, "POST", "/v1/prompts/register-code", body)["registered"]

    assert (registered["version"], registered["change_detected"]) == (1, True)
    assert count(Prompt) == 2


def test_what_was_submitted_before_runs_and_says_what_it_ran(api: Api, drain: Drain) -> None:
    make_prompt(api)
    run = api.expect(202, "POST", "/v1/executions:submit", run_body())
    delete(api)
    make_prompt(api, template="another")

    drain()

    done = api.expect(200, "GET", f"/v1/executions/{run['execution_id']}")
    assert (done["status"], done["prompt_name"], done["version_number"]) == ("succeeded", "greeter", 1)
    assert done["messages"][0]["content"] == "Say hello to Ada."


def test_an_optimization_of_a_prompt_that_is_deleted_meanwhile_comes_to_its_end(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    run = api.expect(202, "POST", "/v1/optimizations", optimization_body())
    drain(most=3)
    delete(api, "triage")

    drain()

    assert api.expect(200, "GET", f"/v1/optimizations/{run['optimization_id']}")["status"] == "succeeded"


def test_deleting_what_is_not_there_is_a_404(api: Api, prompt_id: str) -> None:
    """An earlier system said that it had deleted it."""
    before = everything()

    answers = [delete(api), delete(api, "nobody"), delete(api, str(uuid.uuid4()))]

    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert everything() == before


def test_a_deleted_prompt_is_listed_for_those_who_may_restore_it(
    api: Api, as_user: Callable[..., Api], prompt_id: str
) -> None:
    make_prompt(api, "other")
    editor, viewer = as_user(role=Role.EDITOR), as_user(role=Role.VIEWER, user="viewer")

    listed = editor.expect(200, "GET", "/v1/prompts?include_deleted=true")["data"]

    assert [(prompt["name"], prompt["deleted_by"]) for prompt in listed] == [("other", None), ("greeter", "admin")]
    assert [bool(prompt["deleted_at"]) for prompt in listed] == [False, True]
    assert names(editor, "?include_deleted=false") == ["other"]
    assert viewer.get("/v1/prompts?include_deleted=true").status_code == 403
    assert names(viewer) == ["other"]


def test_a_restored_prompt_is_as_it_was(api: Api) -> None:
    make_prompt(api, description="greets", tags=["a"])
    before = api.expect(200, "GET", GREETER)
    prompt_id = delete(api).get_json()["prompt_id"]

    restored = api.expect(200, "POST", f"/v1/prompts/{prompt_id}/restore", {})

    after = api.expect(200, "GET", GREETER)
    assert (restored["deleted_at"], restored["deleted_by"]) == (None, None)
    assert {**after, "updated_at": before["updated_at"]} == before
    assert event_data("prompt.restored") == [{"name": "greeter", "deleted_as": "greeter"}]


def test_a_restore_of_what_is_not_deleted_changes_nothing(api: Api) -> None:
    prompt_id = make_prompt(api)["prompt"]["prompt_id"]
    before = everything()

    api.expect(200, "POST", f"/v1/prompts/{prompt_id}/restore", {})
    renaming = api.post(f"/v1/prompts/{prompt_id}/restore", {"name": "welcome"})

    assert (renaming.status_code, "PATCH" in renaming.get_json()["detail"]) == (409, True)
    assert everything() == before


def test_a_restore_to_a_name_that_is_taken_says_the_way_out_and_the_way_works(api: Api, prompt_id: str) -> None:
    make_prompt(api, template="the new one")
    before = everything()

    refused = api.post(f"/v1/prompts/{prompt_id}/restore", {})
    unchanged = everything() == before
    restored = api.expect(200, "POST", f"/v1/prompts/{prompt_id}/restore", {"name": "old-greeter"})

    assert (refused.status_code, refused.get_json()["code"]) == (409, "already_exists")
    assert '"name"' in refused.get_json()["detail"]
    assert unchanged
    assert restored["prompt_id"] == prompt_id
    assert sorted(names(api)) == ["greeter", "old-greeter"]
    assert api.expect(200, "GET", GREETER)["active_version"]["template_source"] == "the new one"
    assert event_data("prompt.restored") == [{"name": "old-greeter", "deleted_as": "greeter"}]


@pytest.mark.parametrize(("body", "named"), [({"name": "a b"}, "/name"), ({"name": 1}, "/name"), ({"as": "x"}, "/as")])
def test_a_restore_under_a_bad_name_is_refused(api: Api, prompt_id: str, body: Any, named: str) -> None:
    answer = api.post(f"/v1/prompts/{prompt_id}/restore", body)

    assert (answer.status_code, pointers(answer)) == (422, [named])


@pytest.mark.parametrize("deleted_before", [False, True])
def test_an_admin_deletes_for_good_what_was_never_run(api: Api, deleted_before: bool) -> None:
    for source in ("one", "two"):
        made = make_prompt(api, template=source)
    name = delete(api).get_json()["prompt_id"] if deleted_before else "greeter"

    answer = delete(api, name, "?permanent=true")

    prompt_id = made["prompt"]["prompt_id"]
    assert (answer.status_code, answer.get_json()["prompt_id"]) == (200, prompt_id)
    assert (count(Prompt), count(Version), count(Label)) == (0, 0, 0)
    assert event_data("prompt.deleted")[-1] == {"name": "greeter", "permanent": True}
    assert api.post(f"/v1/prompts/{prompt_id}/restore", {}).status_code == 404


def test_a_prompt_that_was_run_is_not_deleted_for_good(api: Api) -> None:
    make_prompt(api)
    api.expect(202, "POST", "/v1/executions:submit", run_body())
    before = everything()

    answer = delete(api, query="?permanent=true")

    assert (answer.status_code, answer.get_json()["code"]) == (409, "conflict")
    assert "1 executions" in answer.get_json()["detail"]
    assert everything() == before


def test_a_prompt_that_was_measured_is_not_deleted_for_good(api: Api, drain: Drain) -> None:
    make_triage(api, cases=12)
    api.expect(202, "POST", "/v1/evaluations", evaluation_body())

    answer = delete(api, "triage", "?permanent=true")

    assert answer.status_code == 409
    assert "12 executions, 1 evaluations" in answer.get_json()["detail"]


def test_an_editor_deletes_but_not_for_good_and_a_viewer_not_at_all(api: Api, as_user: Callable[..., Api]) -> None:
    make_prompt(api)
    editor, viewer = as_user(role=Role.EDITOR), as_user(role=Role.VIEWER, user="viewer")

    statuses = [delete(viewer).status_code, delete(editor, query="?permanent=true").status_code]
    deleted = delete(editor)

    assert statuses == [403, 403]
    assert (deleted.status_code, deleted.get_json()["deleted_by"]) == (200, "other")


def test_a_stranger_deletes_and_restores_nothing(api: Api, as_user: Callable[..., Api], prompt_id: str) -> None:
    live = make_prompt(api)["prompt"]["prompt_id"]
    stranger = as_user(workspace="elsewhere", role=Role.ADMIN)

    answers = [
        delete(stranger),
        delete(stranger, live),
        delete(stranger, live, "?permanent=true"),
        delete(stranger, prompt_id, "?permanent=true"),
        stranger.post(f"/v1/prompts/{prompt_id}/restore", {"name": "mine"}),
    ]

    assert {answer.status_code for answer in answers} == {404}
    assert names(stranger, "?include_deleted=true") == []
    assert sorted(names(api, "?include_deleted=true")) == ["greeter", "greeter"]


def test_a_delete_of_what_has_changed_since_is_a_412(api: Api) -> None:
    make_prompt(api)
    tag = api.get(GREETER).headers["ETag"]
    api.expect(200, "PATCH", GREETER, {"description": "changed"})

    late = delete(api, headers={"If-Match": tag})
    now = delete(api, headers={"If-Match": api.get(GREETER).headers["ETag"]})

    assert (late.status_code, now.status_code) == (412, 200)


@pytest.mark.parametrize("query", ["?permanent=yes", "?permanent=1", "?permanent="])
def test_a_flag_is_true_or_false(api: Api, query: str) -> None:
    make_prompt(api, model=MODEL)

    assert pointers(delete(api, query=query)) == ["?permanent"]
    assert names(api) == ["greeter"]


def test_a_deleted_prompt_of_another_project_is_not_found_through_this_one(api: Api) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    prompt_id = make_prompt(api, project="atlas")["prompt"]["prompt_id"]

    assert delete(api).status_code == 404
    assert delete(api, prompt_id, "?project=default").status_code == 404
    assert delete(api, query="?project=atlas").status_code == 200


def test_puts_registrations_and_deletes_at_once_never_meet_a_row_that_is_half_there(
    api: Api, flask_client: FlaskClient
) -> None:
    code = {"prompts": [{"name": name, "template_source": "from code"} for name in ("greeter", "other")]}
    start = threading.Barrier(12)

    def work(number: int) -> list[int]:
        client = Api(flask_client.application.test_client(), API_KEY)
        start.wait(timeout=30)
        requests = [
            ("PUT", GREETER, {"template_source": f"text {number}"}),
            ("DELETE", GREETER, None),
            ("POST", "/v1/prompts/register-code", code),
        ]
        return [client.request(*requests[(number + turn) % 3]).status_code for turn in range(6)]

    with ThreadPoolExecutor(12) as pool:
        statuses = {status for found in pool.map(work, range(12)) for status in found}

    assert statuses <= {200, 404, 409}
    assert 200 in statuses
    with db.reading() as session:
        numbers = session.execute(
            sa.select(Version.prompt_id, sa.func.count(), sa.func.max(Version.number)).group_by(Version.prompt_id)
        )
        lasts = dict(session.execute(sa.select(Prompt.id, Prompt.last_version_number)).all())
        found = {row[0]: row[1:] for row in numbers}
    assert found == {prompt_id: (last, last) for prompt_id, last in lasts.items()}
