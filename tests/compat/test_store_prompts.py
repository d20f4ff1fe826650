"""/api/v1/prompts: what Prompt Store's clients create, read, list, change and delete."""

import uuid
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from shared import db
from shared.models import Prompt, Version
from tests.compat.store import STORE, at, data, make, refusal
from tests.rows import count, event_data, everything
from tests.support import API_KEY, Api, Drain, evaluation_body, make_triage, run_body

NOBODY = "00000000-0000-0000-0000-000000000000"


def test_a_prompt_is_created_and_read_with_all_fields_of_the_original(api: Api) -> None:
    made = make(
        api, description="d", tags=["a", "b"], content="About {{ topic }}", variables=["topic"], is_template=True
    )

    assert data(api, "GET", at(made)) == made
    times = {name: made.pop(name) for name in ("id", "created_at", "updated_at")}
    assert all(times.values())
    assert made == {
        "name": "blog_intro",
        "category": "writing",
        "description": "d",
        "content": "About {{ topic }}",
        "variables": ["topic"],
        "tags": ["a", "b"],
        "is_active": True,
        "is_template": True,
        "lifecycle_status": "draft",
        "created_by": "admin",
        "version": 1,
        "parent_id": None,
        "performance_score": None,
        "usage_count": 0,
    }


def test_the_curl_example_of_the_document_works_with_a_key_and_nothing_else(
    api: Api, flask_client: FlaskClient
) -> None:
    body = '{"name":"blog_intro","category":"writing","content":"Write a blog introduction"}'
    said = "application/x-www-form-urlencoded"  # what curl -d says

    answer = flask_client.post(f"{STORE}/prompts", data=body, content_type=said, headers={"X-API-Key": API_KEY})

    assert (answer.status_code, answer.get_json()["data"]["name"]) == (201, "blog_intro")


def test_whitespace_is_kept_and_nothing_is_cut(api: Api) -> None:
    content = "First line\n\n  indented\tand tabbed  \n" + "long " * 5_000

    assert data(api, "GET", at(make(api, content=content)))["content"] == content


def test_a_name_that_is_taken_is_a_409_in_any_category_and_changes_nothing(api: Api) -> None:
    make(api)
    before = everything()

    answer = api.post(f"{STORE}/prompts", {"name": "blog_intro", "category": "other", "content": "another"})

    assert refusal(answer) == (409, "ALREADY_EXISTS", [])
    assert everything() == before


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"name": "with spaces"}, "/name"),
        ({"category": ""}, "/category"),
        ({"content": "  "}, "/content"),
        ({"content": "{{ broken"}, "/content"),
        ({"content": "{{ a }} {{ b }}", "variables": ["a"], "is_template": True}, "/variables"),
        ({"content": "{{ a }}", "is_template": True}, "/variables"),
        ({"tags": "a"}, "/tags"),
        ({"is_template": "yes"}, "/is_template"),
        ({"colour": "red"}, "/colour"),
    ],
)
def test_a_field_that_is_wrong_is_a_422_that_names_it_and_nothing_is_stored(
    api: Api, fields: dict[str, Any], pointer: str
) -> None:
    answer = api.post(f"{STORE}/prompts", {"name": "a", "category": "c", "content": "text", **fields})

    assert refusal(answer) == (422, "VALIDATION_ERROR", [pointer])
    assert count(Prompt) == 0


def test_a_variable_that_is_declared_and_not_used_is_no_mistake(api: Api) -> None:
    made = make(api, content="{{ a }}", variables=["a", "b"], is_template=True)

    assert made["variables"] == ["a"]


def test_an_idempotency_key_makes_one_prompt_of_two_requests(api: Api) -> None:
    body = {"name": "once", "category": "c", "content": "text"}
    key = {"Idempotency-Key": "k"}

    first, second = (api.post(f"{STORE}/prompts", body, headers=key) for _ in range(2))

    assert [first.status_code, second.status_code] == [201, 201]
    assert second.get_json()["data"] == first.get_json()["data"]
    assert second.headers["Idempotent-Replayed"] == "true"
    assert count(Prompt) == 1


def test_lists_are_newest_first_with_totals_and_offsets(api: Api) -> None:
    for number in range(5):
        make(api, f"p{number}", category="even" if number % 2 == 0 else "odd", tags=[f"t{number}", "all"])

    page = data(api, "GET", "/prompts?limit=2&offset=1")
    even = data(api, "GET", "/prompts?category=even&limit=2")
    odd = data(api, "GET", "/prompts/category/odd")
    tagged = data(api, "GET", "/prompts/tags/t3")
    beyond = data(api, "GET", "/prompts?offset=5")

    assert [item["name"] for item in page.pop("items")] == ["p3", "p2"]
    assert page == {"total": 5, "has_more": True, "limit": 2, "offset": 1}
    assert ([item["name"] for item in even["items"]], even["total"], even["has_more"]) == (["p4", "p2"], 3, True)
    assert ([item["name"] for item in odd["items"]], odd["has_more"]) == (["p3", "p1"], False)
    assert [item["name"] for item in tagged["items"]] == ["p3"]
    assert (beyond["items"], beyond["total"], beyond["has_more"]) == ([], 5, False)


def test_a_list_shows_the_project_default_and_no_other(api: Api) -> None:
    make(api)
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    made = api.expect(200, "PUT", "/v1/prompts/there", {"template_source": "a", "project": "atlas"})

    assert data(api, "GET", "/prompts")["total"] == 1
    assert api.get(f"{STORE}/prompts/{made['prompt']['prompt_id']}").status_code == 404


def test_a_put_changes_what_is_given_and_makes_a_version_of_content(api: Api) -> None:
    made = make(api, description="old")

    changed = data(api, "PUT", at(made), {"name": "renamed", "tags": ["x"], "content": "Other words"})
    again = data(api, "PUT", at(made), {"content": "Other words"})

    assert {name: changed[name] for name in ("name", "description", "tags", "content", "version")} == {
        "name": "renamed",
        "description": "old",
        "tags": ["x"],
        "content": "Other words",
        "version": 2,
    }
    assert data(api, "GET", at(made))["updated_at"] == changed["updated_at"]
    assert (again["version"], count(Version)) == (2, 2)


def test_a_put_goes_the_ways_of_the_lifecycle_or_changes_nothing(api: Api) -> None:
    made = make(api)
    data(api, "PUT", at(made), {"lifecycle_status": "published"})
    before = everything()

    answer = api.put(STORE + at(made), {"description": "lost", "content": "lost", "lifecycle_status": "draft"})

    assert refusal(answer)[:2] == (409, "CONFLICT")
    assert everything() == before


def test_a_put_with_variables_that_are_not_all_is_refused_whole(api: Api) -> None:
    made = make(api)
    before = everything()

    answer = api.put(STORE + at(made), {"content": "{{ a }} {{ b }}", "variables": ["a"]})

    assert refusal(answer) == (422, "VALIDATION_ERROR", ["/variables"])
    assert everything() == before


def test_is_active_false_deletes_as_delete_does(api: Api) -> None:
    made = make(api)

    assert data(api, "PUT", at(made), {"is_active": True})["is_active"] is True
    assert data(api, "PUT", at(made), {"is_active": False})["is_active"] is False

    assert api.get(STORE + at(made)).status_code == 404


def test_a_deleted_prompt_is_gone_from_reads_and_lists_and_can_be_restored(api: Api) -> None:
    made = make(api)

    deleted = data(api, "DELETE", at(made, "?user_id=somebody"))

    assert deleted == {"prompt_id": made["id"], "deleted": True}
    assert refusal(api.get(STORE + at(made))) == (404, "NOT_FOUND", [])
    assert refusal(api.request("DELETE", STORE + at(made)))[:2] == (404, "NOT_FOUND")
    assert data(api, "GET", "/prompts")["items"] == []
    assert [event["name"] for event in event_data("prompt.deleted")] == ["blog_intro"]
    api.expect(200, "POST", f"/v1/prompts/{made['id']}/restore", {})
    assert data(api, "GET", at(made))["name"] == "blog_intro"


@pytest.mark.parametrize("prompt_id", [NOBODY, "no-id", "1"])
@pytest.mark.parametrize(("method", "body"), [("GET", None), ("PUT", {"description": "a"}), ("DELETE", None)])
def test_a_prompt_that_is_not_there_is_a_404(api: Api, prompt_id: str, method: str, body: Any) -> None:
    assert refusal(api.request(method, f"{STORE}/prompts/{prompt_id}", body))[:2] == (404, "NOT_FOUND")


def test_usage_counts_executions_and_the_score_is_what_people_gave(api: Api, drain: Drain) -> None:
    made = make(api, content="Hello {{ name }}")
    runs = [api.expect(202, "POST", "/v1/executions:submit", run_body("blog_intro")) for _ in range(3)]
    drain()
    for run, score in zip(runs, (0.25, 0.75), strict=False):
        api.expect(200, "POST", f"/v1/executions/{run['execution_id']}/feedback", {"score": score})

    read, listed = data(api, "GET", at(made)), data(api, "GET", "/prompts")["items"][0]

    assert (read["usage_count"], read["performance_score"]) == (3, 0.5)
    assert (listed["usage_count"], listed["performance_score"]) == (3, 0.5)


def test_the_score_of_a_prompt_without_feedback_is_its_newest_evaluation(api: Api, drain: Drain) -> None:
    make_triage(api, cases=4)
    evaluation = api.expect(202, "POST", "/v1/evaluations", evaluation_body())["evaluation_id"]
    (prompt,) = data(api, "GET", "/prompts")["items"]

    drain()

    scored = api.expect(200, "GET", f"/v1/evaluations/{evaluation}")["aggregate"]["score"]
    read = data(api, "GET", at(prompt))
    assert prompt["performance_score"] is None
    assert (read["performance_score"], read["usage_count"]) == (scored, 0)  # calls of an evaluation are no use


def test_each_prompt_of_a_list_has_figures_of_its_own(api: Api) -> None:
    for name, runs in (("one", 1), ("two", 2)):
        make(api, name)
        for _ in range(runs):
            api.expect(202, "POST", "/v1/executions:submit", run_body(name, variables={}))

    counts = {item["name"]: item["usage_count"] for item in data(api, "GET", "/prompts")["items"]}

    assert counts == {"one": 1, "two": 2}


def test_a_prompt_that_is_deleted_while_it_is_being_changed_by_its_id_is_a_404(api: Api) -> None:
    """Between the look at it and its lock; on SQLite nobody else can write then."""
    made = make(api)
    deleted: list[int] = []

    def delete_now(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if "FOR UPDATE" in statement and "FROM prompts" in statement and not deleted:
            deleted.append(0)
            with db.transaction() as session:
                values = {"deleted_at": db.db_now(), "deleted_by": "somebody else"}
                session.execute(sa.update(Prompt).where(Prompt.id == uuid.UUID(made["id"])).values(**values))

    sa.event.listen(db.engine(), "before_cursor_execute", delete_now)
    try:
        answer = api.put(STORE + at(made), {"description": "changed"})
    finally:
        sa.event.remove(db.engine(), "before_cursor_execute", delete_now)

    is_postgres = db.engine().dialect.name == "postgresql"
    assert bool(deleted) == is_postgres
    assert answer.status_code == (404 if is_postgres else 200), answer.get_data(as_text=True)
    with db.reading() as session:
        assert session.scalars(sa.select(Prompt.description)).one() == ("" if is_postgres else "changed")
