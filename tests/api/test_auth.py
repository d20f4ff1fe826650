"""API keys: who gets in, what a role may do, and what a key limited to a project sees."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from shared import db
from shared.domain.tenants import Caller
from shared.errors import NotFound
from shared.hashing import sha256
from shared.models import ApiKey, Role
from tests.api.routes import (
    ABOVE_EDITORS,
    FORMS,
    OF_THE_FLEET,
    READ_BY_POST,
    REFUSED,
    STORE,
    STUDIO,
    address,
    addresses,
    reads,
    routes,
    seed,
    writes,
)
from tests.rows import everything, rows_of
from tests.servers import wait_until
from tests.support import API_KEY, Api, Drain, make_prompt, make_triage, run_body

NOBODY = "00000000-0000-0000-0000-000000000000"
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def test_a_request_without_a_key_is_a_401_that_says_how(api: Api, flask_client: FlaskClient) -> None:
    answer = flask_client.get("/v1/projects")

    assert (answer.status_code, answer.get_json()["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "X-API-Key" in answer.get_json()["detail"]


def test_no_route_of_the_api_answers_without_a_key(api: Api, flask_client: FlaskClient) -> None:
    make_triage(api, cases=1)
    before = everything()

    answers = {
        (method, rule): flask_client.open(re.sub(r"<[^>]+>", NOBODY, re.sub(r"<int:\w+>", "1", rule)), method=method)
        for method, rule in routes(flask_client.application)
    }

    assert len(answers) > 25
    assert {route: answer.status_code for route, answer in answers.items() if answer.status_code != 401} == {}
    assert everything() == before


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": "pm_unknown"},
        {"X-API-Key": API_KEY[:-1]},
        {"X-API-Key": API_KEY.upper()},
        {"X-API-Key": sha256(API_KEY)},
        {"X-API-Key": "é"},
        {"Authorization": "Bearer pm_unknown"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": API_KEY},
        {"Authorization": f"Basic {API_KEY}"},
        {"X-API-Key": "pm_unknown", "Authorization": f"Bearer {API_KEY}"},
    ],
)
def test_a_key_that_nobody_has_is_a_401(api: Api, flask_client: FlaskClient, headers: dict[str, str]) -> None:
    answer = flask_client.get("/v1/projects", headers=headers)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert API_KEY not in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": API_KEY},
        {"Authorization": f"Bearer {API_KEY}"},
        {"Authorization": f"bearer  {API_KEY} "},
    ],
)
def test_a_key_may_be_sent_in_either_header(api: Api, flask_client: FlaskClient, headers: dict[str, str]) -> None:
    assert flask_client.get("/v1/projects", headers=headers).status_code == 200


def test_a_key_is_stored_as_its_hash_only(api: Api) -> None:
    assert sha256(API_KEY) in repr(everything())
    assert API_KEY not in repr(everything())


def test_a_revoked_key_is_a_401_from_then_on(api: Api, as_user: Callable[..., Api]) -> None:
    other = as_user(name="to be revoked")
    before = other.get("/v1/projects").status_code
    with db.transaction() as session:
        session.execute(sa.update(ApiKey).where(ApiKey.name == "to be revoked").values(revoked_at=db.db_now()))

    wait_until(lambda: other.get("/v1/projects").status_code == 401, "the key is not good any more", seconds=1)

    assert before == 200
    assert api.get("/v1/projects").status_code == 200


def test_a_key_works_until_it_expires(api: Api, as_user: Callable[..., Api]) -> None:
    other = as_user(expires_at=datetime.now(UTC) + timedelta(hours=1))
    before = other.get("/v1/projects").status_code

    db.offset_clock(3601)

    wait_until(lambda: other.get("/v1/projects").status_code == 401, "the key is not good any more", seconds=1)
    assert before == 200
    assert api.get("/v1/projects").status_code == 200


@pytest.mark.parametrize("role", [Role.EDITOR, Role.OPERATOR, Role.ADMIN])
def test_each_role_above_viewer_may_write(as_user: Callable[..., Api], role: Role) -> None:
    as_user(role=role).expect(201, "POST", "/v1/projects", {"name": "atlas"})


@pytest.fixture
def owner(api: Api, drain: Drain) -> Api:
    """The administrator, who has something of every kind."""
    seed(api, drain)
    return api


def test_every_read_works_for_a_viewer_and_every_write_is_a_403(
    owner: Api, as_user: Callable[..., Api], flask_client: FlaskClient
) -> None:
    viewer = as_user(role=Role.VIEWER)
    before = everything()

    at = addresses(owner, {rule for _, rule in routes(flask_client.application)})

    reading = {rule: viewer.get(at[rule]).status_code for rule in reads(flask_client.application)}
    writing = {
        (method, rule): viewer.request(method, at[rule], body).status_code
        for method, rule, body in writes(flask_client.application, owner)
    }

    assert set(reading.values()) == {200}, reading
    assert {route: writing.pop(route) for route in READ_BY_POST} == dict.fromkeys(READ_BY_POST, 200)
    assert set(writing.values()) == {403}, writing
    assert everything() == before


def test_every_write_that_the_other_tests_try_in_vain_works_for_an_editor(
    owner: Api, as_user: Callable[..., Api], flask_client: FlaskClient
) -> None:
    editor = as_user(role=Role.EDITOR)

    statuses = {
        (method, rule): editor.request(method, address(owner, rule), body, headers={"Prefer": "wait=0"}).status_code
        for method, rule, body in writes(flask_client.application, owner)
    }

    # What has ended cannot be canceled, only what has failed requeued, what was deleted restored, …: 409.
    depends = re.compile("/(cancel|continue|promote|replay|requeue|restore|retry|undo|reject)(/<[^/]+>)?$")
    allowed = {
        route: (200, 201, 202, 204, 409) if depends.search(route[1]) else (200, 201, 202, 204) for route in statuses
    }
    allowed |= (
        dict.fromkeys([*OF_THE_FLEET, *ABOVE_EDITORS], (403,))
        | dict.fromkeys(REFUSED, (409,))
        | dict.fromkeys(FORMS, (422,))
    )
    allowed["DELETE", "/v1/prompts/<name>/labels/<label>"] = (409,)  # `production` of what has been published
    assert {route: status for route, status in statuses.items() if status not in allowed[route]} == {}


@pytest.fixture(params=["another workspace", "a key limited to another project"])
def stranger(request: pytest.FixtureRequest, owner: Api, as_user: Callable[..., Api]) -> Api:
    """An administrator who may see nothing of what the owner has; his own project `atlas` is empty."""
    if request.param == "another workspace":
        return as_user(workspace="elsewhere", role=Role.ADMIN)
    return as_user(projects=["atlas"], role=Role.ADMIN)


# Lists that are not empty for a stranger: of his own projects, and of what is the same for all.
NOT_EMPTY = (
    *("/v1/projects", "/v1/evaluations/scorers", "/v1/optimizations/strategies", "/v1/queues", "/v1/events"),
    *(f"{STUDIO}/projects", f"{STUDIO}/projects/", f"{STUDIO}/optimizations/strategies", f"{STUDIO}/status"),
    # An object, that says how few there are.
    *(f"{STORE}/{rest}" for rest in ("prompts", "bulk/operations", "analytics/summary", "analytics/usage")),
    *(f"{STORE}/{rest}" for rest in ("lifecycle/counts", "lifecycle/rules", "relationships/stats")),
)
# What stands in these is no thing of anybody's, and what they list is one's own.
BY_ATTRIBUTE = tuple(f"{STORE}/prompts/{rest}" for rest in ("category/<category>", "tags/<tag>", "lifecycle/<status>"))
# What a key that is limited to projects must say more about: 403.
FOR_WHOLE_WORKSPACES = ("/v1/events",)
# Of these every caller sees the same names, and counts of his own.
SHARED = ("/v1/queues/<name>",)


def test_a_stranger_reads_nothing_of_the_owner(owner: Api, stranger: Api, flask_client: FlaskClient) -> None:
    at = addresses(owner, reads(flask_client.application))
    shown = {rule: owner.get(path) for rule, path in at.items()}
    atlas = owner.expect(200, "GET", "/v1/projects/atlas")["project_id"]
    secrets = {found for answer in shown.values() for found in UUID.findall(answer.get_data(as_text=True))} - {atlas}

    seen = {rule: stranger.get(path) for rule, path in at.items()}

    named = [rule for rule in at if "<" in rule and rule not in BY_ATTRIBUTE]
    lists = [rule for rule in at if "<" not in rule and "data" in (shown[rule].get_json(silent=True) or {})]
    assert (len(named), len(lists), len(secrets)) > (12, 6, 20)
    assert {rule: answer.status_code for rule, answer in shown.items() if answer.status_code != 200} == {}
    assert {rule: seen[rule].status_code for rule in named if seen[rule].status_code != 404} == dict.fromkeys(
        SHARED, 200
    )
    assert [rule for rule in lists if not shown[rule].get_json()["data"]] == []
    assert [rule for rule in lists if seen[rule].get_json().get("data") and rule not in NOT_EMPTY] == []
    for rule in set(at) - set(named):
        assert seen[rule].status_code in ((200, 403) if rule in FOR_WHOLE_WORKSPACES else (200,)), rule
        assert not [secret for secret in secrets if secret in seen[rule].get_data(as_text=True)], rule


def test_a_stranger_lists_nothing_by_naming_the_owners_project(
    owner: Api, stranger: Api, flask_client: FlaskClient
) -> None:
    spec = flask_client.get("/openapi.json").get_json()["paths"]
    lists = [
        path
        for path, operations in spec.items()
        if "{" not in path
        and "get" in operations
        and "project" in [parameter["name"] for parameter in operations["get"].get("parameters", [])]
        and "data" in owner.expect(200, "GET", path)
    ]
    hidden = owner.expect(200, "GET", "/v1/projects/default")["project_id"]

    assert len(lists) >= 2
    for path in lists:
        assert owner.expect(200, "GET", f"{path}?project={hidden}").get("data", "no list"), path
        assert stranger.get(f"{path}?project={hidden}").status_code == 404, path
        assert not stranger.get(f"{path}?project={hidden}").get_json().get("data"), path
        assert owner.expect(200, "GET", f"{path}?project={hidden}").get("data", "figures"), path
        assert stranger.get(f"{path}?project={hidden}").status_code == 404, path
        assert not stranger.get(f"{path}?project=default").get_json().get("data"), path


# What a stranger in a workspace of his own makes there, under the owner's names.
HIS_OWN = {
    ("POST", "/v1/projects"),
    ("POST", "/v1/prompts"),
    ("PUT", "/v1/prompts/<name>"),
    ("POST", "/v1/prompts/register-code"),
    ("POST", "/v1/bulk/prompts"),
    ("POST", "/v1/datasets"),
    ("POST", "/v1/render"),  # nothing is made at all
    ("POST", "/v1/prompts:search"),  # what can be found of his own
    ("POST", "/v1/jobs/requeue"),  # what has died of his own: nothing
    ("POST", "/v1/lifecycle:batch"),  # his own prompts of these names: none
    ("POST", "/v1/suggestions"),  # of a text that he sends
    ("POST", "/v1/cache/invalidate"),  # what is remembered of his own
    ("POST", "/v1/cache/warmup"),
    ("POST", f"{STUDIO}/projects"),
    ("POST", f"{STUDIO}/projects/"),
    ("POST", f"{STUDIO}/prompts/preview"),  # nothing is made at all
    ("POST", f"{STUDIO}/prompts/convert"),
    ("POST", f"{STORE}/prompts"),
    ("POST", f"{STORE}/prompts/search"),
    ("POST", f"{STORE}/relationships/validate"),  # it says that there are no such prompts
    ("POST", f"{STORE}/lifecycle/bulk"),  # so do the results of these
    ("POST", f"{STORE}/bulk/prompts"),
    ("PUT", f"{STORE}/bulk/prompts"),
    ("DELETE", f"{STORE}/bulk/prompts"),
    ("PUT", f"{STORE}/bulk/prompts/tags"),
}
# These know the project by the key that is limited to it; tests/compat has what becomes of them.
IN_HIS_PROJECT = {
    ("POST", f"{STORE}/prompts"),
    *((method, f"{STORE}/bulk/prompts") for method in ("POST", "PUT", "DELETE")),
    ("PUT", f"{STORE}/bulk/prompts/tags"),
}
PROJECTS = [("POST", f"{STUDIO}/projects"), ("POST", f"{STUDIO}/projects/"), ("POST", "/v1/projects")]


def test_a_stranger_changes_nothing_of_the_owner(
    owner: Api, stranger: Api, admin: Caller, flask_client: FlaskClient
) -> None:
    at = addresses(owner, {rule for _, rule in routes(flask_client.application)})
    attempts = [(method, rule, at[rule], body) for method, rule, body in writes(flask_client.application, owner)]
    if stranger.get("/v1/projects/default").status_code == 404:  # what he makes in his own project is a row of theirs
        attempts = [attempt for attempt in attempts if attempt[:2] not in IN_HIS_PROJECT]
    attempts.sort(key=lambda attempt: attempt[:2] in HIS_OWN)  # his own `triage` last: all else would work on it
    before = rows_of(admin.workspace_id)

    statuses = {
        (method, rule): stranger.request(method, path, body).status_code for method, rule, path, body in attempts
    }

    refused = {route: status for route, status in statuses.items() if status in (403, 404)}
    assert set(statuses) - set(refused) <= {*HIS_OWN, *FORMS}
    forbidden = sorted(route for route, status in refused.items() if status == 403)
    assert forbidden in (OF_THE_FLEET, sorted([*OF_THE_FLEET, *PROJECTS]))
    assert rows_of(admin.workspace_id) == before


def test_a_key_limited_to_a_project_sees_and_changes_that_project(api: Api, as_user: Callable[..., Api]) -> None:
    for project in ("atlas", "vault"):
        api.expect(201, "POST", "/v1/projects", {"name": project})
        make_prompt(api, "greeter", template=f"of {project}", project=project)
        api.expect(201, "POST", "/v1/datasets", {"name": "tickets", "project": project})
    limited = as_user(projects=["atlas"])

    lists = {noun: limited.expect(200, "GET", f"/v1/{noun}")["data"] for noun in ("projects", "prompts", "datasets")}
    written = limited.expect(200, "PUT", "/v1/prompts/greeter?project=atlas", {"template_source": "changed"})
    run = limited.expect(202, "POST", "/v1/executions:submit", run_body(variables={}, project="atlas"))

    assert {noun: len(items) for noun, items in lists.items()} == {"projects": 1, "prompts": 1, "datasets": 1}
    assert lists["projects"][0]["name"] == "atlas"
    assert written["version"]["version_number"] == 2
    assert [row["execution_id"] for row in limited.expect(200, "GET", "/v1/executions")["data"]] == [
        run["execution_id"]
    ]
    assert limited.get("/v1/prompts/greeter").status_code == 404  # the default project is not among its projects
    assert limited.get("/v1/prompts/greeter?project=vault").status_code == 404


def test_a_key_cannot_be_limited_to_a_project_that_does_not_exist(api: Api, as_user: Callable[..., Api]) -> None:
    before = everything()

    with pytest.raises(NotFound, match="nowhere"):
        as_user(projects=["nowhere"])

    assert everything() == before
