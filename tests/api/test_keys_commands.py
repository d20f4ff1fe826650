"""API keys at the command line: made, listed, revoked."""

import json
import uuid

import sqlalchemy as sa
from click.testing import CliRunner, Result
from flask.testing import FlaskClient

from app.admin import main
from shared import db
from shared.models import ApiKey, Event
from tests.servers import wait_until
from tests.support import API_KEY, Api


def test_a_key_that_was_revoked_is_refused_and_no_other_is(api: Api, flask_client: FlaskClient) -> None:
    made = json.loads(good("create-key", "--user", "ci", "--name", "build", "--json"))
    theirs = Api(flask_client, made["api_key"])
    theirs.expect(200, "GET", "/v1/projects")

    first = good("revoke-key", made["key_id"])
    second = good("revoke-key", made["key_id"])

    wait_until(lambda: theirs.request("GET", "/v1/projects").status_code == 401, "the key is refused")
    api.expect(200, "GET", "/v1/projects")
    assert (first, second) == ("revoked\n", "it was revoked before\n")
    with db.reading() as session:
        (event,) = session.scalars(sa.select(Event).where(Event.type == "api_key.revoked")).all()
    assert (str(event.subject_id), event.data["name"]) == (made["key_id"], "build")
    assert event.actor.endswith("(app.admin)")


def test_the_list_tells_keys_apart_and_holds_none(api: Api) -> None:
    made = json.loads(
        good("create-key", "--user", "ci", "--name", "build", "--role", "viewer", "--days", "3", "--json")
    )
    good("create-key", "--user", "ci", "--workspace", "another")

    listed = good("list-keys", "--workspace", "default")

    keys = [json.loads(line) for line in listed.splitlines()]
    assert keys[0] | {"created_at": 0, "expires_at": 0} == {
        "key_id": made["key_id"],
        "workspace": "default",
        "user": "ci",
        "name": "build",
        "role": "viewer",
        "projects": None,
        "created_at": 0,
        "expires_at": 0,
        "revoked_at": None,
    }
    assert {key["workspace"] for key in keys} == {"default"}
    assert len(good("list-keys").splitlines()) == len(keys) + 1
    assert made["api_key"] not in listed
    assert API_KEY not in listed


def test_days_end_a_key(api: Api) -> None:
    made = json.loads(good("create-key", "--user", "ci", "--days", "3", "--json"))

    with db.reading() as session:
        key = session.get_one(ApiKey, uuid.UUID(made["key_id"]))
        seconds = (key.expires_at - key.created_at).total_seconds() if key.expires_at else 0

    assert abs(seconds - 3 * 86_400) < 60


def test_what_is_wrong_is_said_and_nothing_is_made(api: Api) -> None:
    before = good("list-keys")
    unknown = "00000000-0000-0000-0000-000000000000"

    project = run("create-key", "--user", "ci", "--project", "nowhere")
    key = run("revoke-key", unknown)
    not_an_id = run("revoke-key", "pm_secret")
    nameless = [run("create-key", "--user", user) for user in ("", "  ", "u" * 129)]
    homeless = run("create-key", "--user", "ci", "--workspace", "")

    assert [result.exit_code for result in [*nameless, homeless]] == [1, 1, 1, 1]
    assert [result.output.split(":")[1].strip() for result in [*nameless, homeless]] == ["/user"] * 3 + ["/workspace"]
    assert (project.exit_code, key.exit_code, not_an_id.exit_code) == (1, 1, 2)
    assert "nowhere" in project.output
    assert unknown in key.output
    assert good("list-keys") == before


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def good(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output
