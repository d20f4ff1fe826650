"""A project is deleted so that it can come back, or for good with all that is in it."""

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from shared import db
from shared.domain import executions
from shared.domain.executions import RunRequest
from shared.domain.tenants import Caller
from shared.errors import NotFound
from shared.models import Base, Event, Execution, IdempotencyRecord, Project, Role, Version, table_of
from tests.rows import count, event_data, everything
from tests.support import (
    API_KEY,
    MODEL,
    Api,
    Drain,
    evaluation_body,
    make_prompt,
    optimization_body,
    pointers,
    run_body,
)

ATLAS = "/v1/projects/atlas"


@pytest.fixture(autouse=True)
def atlas(api: Api) -> str:
    """The id of a project that has a prompt and a dataset."""
    project_id: str = api.expect(201, "POST", "/v1/projects", {"name": "atlas"})["project_id"]
    make_prompt(api, project="atlas")
    api.expect(201, "POST", "/v1/datasets", {"name": "tickets", "project": "atlas"})
    return project_id


def listed(api: Api, query: str = "") -> list[str]:
    return [project["name"] for project in api.expect(200, "GET", f"/v1/projects{query}")["data"]]


def test_a_deleted_project_is_hidden_with_all_that_is_in_it(api: Api, atlas: str) -> None:
    api.expect(204, "DELETE", ATLAS)

    for path in (
        ATLAS,
        f"/v1/projects/{atlas}",
        f"{ATLAS}/stats",
        "/v1/prompts/greeter?project=atlas",
        f"/v1/prompts/greeter?project={atlas}",
        "/v1/datasets/tickets?project=atlas",
        "/v1/prompts?project=atlas",
    ):
        assert api.get(path).status_code == 404, path
    for path in ("/v1/prompts", "/v1/datasets", "/v1/labels"):
        assert api.expect(200, "GET", path)["data"] == [], path
    assert listed(api) == ["default"]
    assert listed(api, "?include_deleted=true") == ["atlas", "default"]
    assert api.expect(200, "GET", f"/v1/projects/{atlas}?include_deleted=true")["deleted_at"] is not None
    assert event_data("project.deleted") == [{"name": "atlas"}]


def test_nothing_in_a_deleted_project_is_written_or_run(api: Api, atlas: str) -> None:
    api.expect(204, "DELETE", ATLAS)
    before = everything()

    for path, body in (
        ("/v1/executions:submit", run_body(project=atlas)),
        ("/v1/prompts", {"name": "a", "template_source": "a", "project": atlas}),
        ("/v1/datasets", {"name": "a", "project": atlas}),
    ):
        answer = api.post(path, body)
        assert (answer.status_code, pointers(answer)) == (404, ["/project"]), path

    assert everything() == before


def test_the_name_of_a_deleted_project_is_free_again_and_again(api: Api, atlas: str) -> None:
    ids = {atlas}
    for _ in range(2):
        api.expect(204, "DELETE", ATLAS)
        ids.add(api.expect(201, "POST", "/v1/projects", {"name": "atlas"})["project_id"])

    assert len(ids) == 3
    assert api.get("/v1/prompts/greeter?project=atlas").status_code == 404
    assert listed(api, "?include_deleted=true") == ["atlas", "atlas", "atlas", "default"]


def test_the_default_project_cannot_be_deleted(api: Api) -> None:
    before = everything()

    for path in ("/v1/projects/default", "/v1/projects/default?permanent=true"):
        assert api.request("DELETE", path).status_code == 409, path

    assert everything() == before


def test_deleting_twice_is_a_404(api: Api) -> None:
    api.expect(204, "DELETE", ATLAS)

    assert api.request("DELETE", ATLAS).status_code == 404


def test_a_restored_project_is_as_it_was(api: Api, atlas: str) -> None:
    before = api.expect(200, "GET", ATLAS)
    api.expect(204, "DELETE", ATLAS)

    restored = api.expect(200, "POST", f"{ATLAS}/restore")

    changes = {"revision": before["revision"] + 2, "updated_at": restored["updated_at"]}
    assert restored == {**before, **changes}
    assert api.expect(200, "GET", "/v1/prompts/greeter?project=atlas")["active_version"]["version_number"] == 1
    assert event_data("project.restored") == [{"name": "atlas"}]


def test_a_taken_name_keeps_a_project_from_coming_back_under_it(api: Api, atlas: str) -> None:
    api.expect(204, "DELETE", ATLAS)
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    before = everything()

    refused = api.post(f"/v1/projects/{atlas}/restore")
    unchanged = everything() == before
    restored = api.expect(200, "POST", f"/v1/projects/{atlas}/restore", {"name": "atlas-1"})

    assert (refused.status_code, refused.get_json()["code"], unchanged) == (409, "already_exists", True)
    assert (restored["project_id"], restored["name"]) == (atlas, "atlas-1")
    api.expect(200, "GET", "/v1/prompts/greeter?project=atlas-1")


def test_a_name_that_several_deleted_projects_had_is_ambiguous(api: Api, atlas: str) -> None:
    api.expect(204, "DELETE", ATLAS)
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    api.expect(204, "DELETE", ATLAS)

    assert api.post(f"{ATLAS}/restore").status_code == 409
    assert api.expect(200, "POST", f"/v1/projects/{atlas}/restore")["project_id"] == atlas


def test_what_is_not_deleted_is_not_restored(api: Api) -> None:
    assert api.post(f"{ATLAS}/restore").status_code == 409
    assert api.post("/v1/projects/nowhere/restore").status_code == 404
    assert pointers(api.post(f"{ATLAS}/restore", {"id": 1})) == ["/id"]


def test_of_those_who_take_a_name_at_once_one_gets_it(api: Api, atlas: str, flask_client: FlaskClient) -> None:
    api.expect(204, "DELETE", ATLAS)
    start = threading.Barrier(6)

    def one(number: int) -> int:
        client = Api(flask_client.application.test_client(), API_KEY)
        start.wait(timeout=30)
        if number % 2:
            return client.post(f"/v1/projects/{atlas}/restore").status_code
        return client.post("/v1/projects", {"name": "atlas"}).status_code

    with ThreadPoolExecutor(6) as pool:
        statuses = sorted(pool.map(one, range(6)))

    assert statuses[0] in (200, 201)
    assert statuses[1:] == [409] * 5
    assert listed(api) == ["atlas", "default"]


def test_a_key_can_be_limited_to_a_project_whose_name_a_deleted_one_had(
    api: Api, atlas: str, as_user: Callable[..., Api]
) -> None:
    api.expect(204, "DELETE", ATLAS)
    with pytest.raises(NotFound, match="atlas"):
        as_user(projects=["atlas"])
    new = api.expect(201, "POST", "/v1/projects", {"name": "atlas"})["project_id"]

    limited = as_user(projects=["atlas"])

    assert [project["project_id"] for project in limited.expect(200, "GET", "/v1/projects")["data"]] == [new]
    assert limited.post(f"/v1/projects/{atlas}/restore").status_code == 404


@pytest.fixture
def full(api: Api, drain: Drain) -> None:
    """`atlas` and the default project both have something of every kind, all of it ended."""
    for project in ("atlas", "default"):
        path = f"?project={project}"
        template = "Classify: {{ ticket }}"
        make_prompt(
            api, "triage", template=template, model={**MODEL, "params": {"max_new_tokens": 60}}, project=project
        )
        if project == "default":
            api.expect(201, "POST", "/v1/datasets", {"name": "tickets"})
        cases = [{"inputs": {"ticket": f"t{n}"}, "expected": {"category": "bug"}, "golden": n < 3} for n in range(12)]
        api.expect(201, "POST", f"/v1/datasets/tickets/cases{path}", cases)
        api.expect(200, "PUT", f"/v1/prompts/triage/labels/eu/protection{path}", {"approvals": 1})
        api.expect(202, "PUT", f"/v1/prompts/triage/labels/eu{path}", {"version_number": 1})
        api.expect(200, "PUT", f"/v1/prompts/triage/lifecycle{path}", {"state": "published"})
        api.expect(202, "POST", "/v1/evaluations", evaluation_body(project=project, budget={"max_tokens": 100_000}))
        api.expect(202, "POST", "/v1/optimizations", optimization_body(project=project))
        body = {"prompt_name": "triage", "dataset": "tickets", "project": project}
        api.expect(202, "POST", "/v1/executions:batch", body)
    drain()


def rows_by_table() -> dict[str, int]:
    with db.reading() as session:
        return {
            table.name: session.scalar(sa.select(sa.func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
        }


# What tells of the project, and what is nobody's.
KEPT = {"events", "idempotency_records", "workspaces", "users", "api_keys", "models", "prices"}


@pytest.mark.usefixtures("full")
def test_a_permanent_delete_leaves_no_row_of_the_project_and_every_row_of_the_others(api: Api, atlas: str) -> None:
    api.expect(204, "DELETE", ATLAS)
    of_default = {**rows_by_table()}
    removed = api.expect(200, "DELETE", f"/v1/projects/{atlas}?permanent=true")["deleted"]
    after = rows_by_table()

    assert {name: of_default[name] - after[name] for name in after if name not in KEPT} == {
        name: removed.get(name, 0) for name in after if name not in KEPT
    }
    assert {name for name, rows in removed.items() if rows} >= set(
        "barriers batches budgets calls candidates datasets evaluations executions jobs label_moves label_protections"
        " label_requests labels lifecycle_changes optimizations projects prompts test_cases versions work_items".split()
    )
    assert (removed["projects"], removed["prompts"], removed["test_cases"]) == (1, 2, 12)
    assert event_data("project.deleted")[-1] == {"name": "atlas", "permanent": True, "rows": removed}
    api.expect(200, "GET", "/v1/prompts/triage")
    assert len(api.expect(200, "GET", "/v1/executions?limit=100")["data"]) == after["executions"] > 12
    with db.reading() as session:
        for name, column in (("jobs", "subject_id"), ("barriers", "subject_id"), ("work_items", "scope_id")):
            assert orphans(session, name, column) == 0, name


def orphans(session: Any, name: str, column: str) -> int:
    """Rows that are for a run which is no longer there."""
    tables = Base.metadata.tables
    found = tables[name].c[column]
    runs = [sa.select(tables[run].c.id) for run in ("executions", "evaluations", "optimizations")]
    query = sa.select(sa.func.count()).where(*(found.not_in(run) for run in runs))
    number: int = session.scalar(query)
    return number


def test_a_permanent_delete_takes_an_administrator(api: Api, as_user: Callable[..., Api]) -> None:
    before = everything()

    for role in (Role.EDITOR, Role.OPERATOR):
        assert as_user(role=role, user=role).request("DELETE", f"{ATLAS}?permanent=true").status_code == 403

    kept = everything()
    assert {name for name in before if before[name] != kept[name]} == {"users", "api_keys", "events"}
    api.expect(200, "DELETE", f"{ATLAS}?permanent=true")


def test_a_permanent_delete_is_refused_while_something_runs(api: Api, drain: Drain) -> None:
    waiting = api.expect(202, "POST", "/v1/executions:submit", run_body(project="atlas"))
    before = everything()

    refused = api.request("DELETE", f"{ATLAS}?permanent=true")
    unchanged = everything() == before
    api.expect(200, "POST", f"/v1/executions/{waiting['execution_id']}/cancel")

    assert (refused.status_code, unchanged) == (409, True)
    assert "1 executions" in refused.get_json()["detail"]
    api.expect(200, "DELETE", f"{ATLAS}?permanent=true")


def test_a_living_project_is_meant_before_a_deleted_one_of_its_name(api: Api, atlas: str) -> None:
    api.expect(204, "DELETE", ATLAS)
    living = api.expect(201, "POST", "/v1/projects", {"name": "atlas"})["project_id"]

    api.expect(200, "DELETE", f"{ATLAS}?permanent=true")

    assert api.get(f"/v1/projects/{living}?include_deleted=true").status_code == 404
    assert api.get(f"/v1/projects/{atlas}?include_deleted=true").status_code == 200


def test_what_was_planned_in_a_project_that_is_then_deleted_for_good_is_not_stored(
    api: Api, admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planned outside any transaction, so the rows that it refers to may be gone when it is written."""
    with db.reading() as session:
        planned = executions.plan(session, admin, RunRequest("greeter", "atlas", variables={"name": "a"}, **AS_MODEL))
    api.expect(200, "DELETE", f"{ATLAS}?permanent=true")
    monkeypatch.setattr(executions, "plan", lambda *_: planned)
    before = everything()

    answer = api.post("/v1/executions:submit", run_body())

    assert (answer.status_code, answer.get_json()["code"]) == (409, "conflict")
    assert everything() == before


def test_what_only_points_into_the_project_stays_and_points_nowhere(api: Api) -> None:
    make_prompt(api)
    run = api.expect(202, "POST", "/v1/executions:submit", run_body())["execution_id"]
    foreign = api.expect(200, "GET", "/v1/prompts/greeter/versions/1?project=atlas")["version_id"]
    with db.transaction() as session:
        session.execute(sa.update(Execution).values(version_id=uuid.UUID(foreign)))

    removed = api.expect(200, "DELETE", f"{ATLAS}?permanent=true")["deleted"]

    assert "executions" not in removed
    assert api.expect(200, "GET", f"/v1/executions/{run}")["version_id"] is None


AS_MODEL = {"provider": "simulated", "model_name": "simulated-small"}


def test_what_an_idempotency_key_stood_for_is_gone_with_the_project(api: Api) -> None:
    key = {"Idempotency-Key": "once"}
    run = api.expect(202, "POST", "/v1/executions:submit", run_body(project="atlas"), headers=key)
    api.expect(200, "POST", f"/v1/executions/{run['execution_id']}/cancel")
    api.expect(200, "DELETE", f"{ATLAS}?permanent=true")

    answer = api.post("/v1/executions:submit", run_body(project="atlas"), headers=key)

    assert answer.status_code == 404
    assert count(IdempotencyRecord) == 1


def test_every_table_of_a_project_is_one_that_a_permanent_delete_knows() -> None:
    """A table that names a project, or what is in one, must be reached; else its rows would outlive it or forbid it."""
    from shared.domain.project_removal import OF_A_RUN, _owned

    reached = {table.name for table in _owned(uuid.uuid4())} | {column.class_.__tablename__ for column in OF_A_RUN}
    named = {
        table.name
        for table in Base.metadata.sorted_tables
        if {"project_id", "prompt_id", "version_id", "dataset_id", "execution_id"} & set(table.c.keys())
    }

    assert named <= reached
    assert table_of(Version).name in reached
    assert not reached & {table_of(Event).name, "workspaces", "users", "api_keys", "budgets"}
    assert table_of(Project).name in reached
