"""What projects, labels and the lifecycle keep when their revisions are taken back and made again."""

import pytest
import sqlalchemy as sa

import migrations
from shared import db
from shared.domain import providers, tenants
from shared.models import Role
from tests.migrations.test_migrations import rows
from tests.servers import RedisServer
from tests.support import API_KEY, Api, client, make_prompt


@pytest.fixture
def api(empty_database: str, broker: RedisServer) -> Api:
    migrations.upgrade()
    with db.transaction() as session:
        providers.seed_catalogue(session)
        tenants.create_key(session, workspace="default", user="admin", role=Role.ADMIN, key=API_KEY)
    return Api(client(), API_KEY)


def before(revision: str) -> None:
    """The schema as it was just before a revision."""
    migrations.downgrade(revision)
    migrations.downgrade("-1")


def test_the_history_of_a_label_begins_where_it_was_when_moves_were_first_kept(api: Api) -> None:
    for source in ("one", "two"):
        make_prompt(api, template=source)
    api.expect(200, "PUT", "/v1/prompts/greeter/labels/staging", {"version_number": 1})
    api.expect(200, "PUT", "/v1/prompts/greeter/labels/production/protection", {"approvals": 1})
    labels = api.expect(200, "GET", "/v1/prompts/greeter/labels")["data"]

    before("0019")
    protected = {row["name"]: bool(row["protected"]) for row in rows()["labels"]}
    migrations.upgrade()

    assert protected == {"production": True, "staging": False}
    for label, number in (("production", 2), ("staging", 1)):
        [move] = api.expect(200, "GET", f"/v1/prompts/greeter/labels/{label}/history")["data"]
        [shown] = [each for each in labels if each["label"] == label]
        assert (move["from_version"], move["to_version"], move["moved_by"]) == (None, number, "admin")
        assert (move["moved_at"], move["reason"]) == (shown["moved_at"], "the last move before moves were kept")
        assert api.get(f"/v1/prompts/greeter/labels/{label}").headers["ETag"] == f'"{move["move_id"]}"'
    now = {each["label"]: each["protection"] for each in api.expect(200, "GET", "/v1/prompts/greeter/labels")["data"]}
    assert now == {"production": {"role": "operator", "approvals": None}, "staging": None}


def test_a_deleted_project_comes_back_under_another_name_where_deletes_are_not_known(api: Api) -> None:
    first = api.expect(201, "POST", "/v1/projects", {"name": "atlas", "metadata": {"a": 1}})["project_id"]
    make_prompt(api, project="atlas")
    api.expect(204, "DELETE", "/v1/projects/atlas")
    api.expect(201, "POST", "/v1/projects", {"name": "atlas", "status": "archived"})
    prompts = rows()["prompts"]

    before("0018")
    names = sorted(row["name"] for row in rows()["projects"])
    migrations.upgrade()

    by_id = first.replace("-", "") if db.engine().dialect.name == "sqlite" else first
    assert names == ["atlas", f"atlas.{by_id}", "default"]
    assert rows()["prompts"] == prompts
    assert {(row["status"], row["revision"], row["deleted_at"]) for row in rows()["projects"]} == {("active", 1, None)}
    assert api.expect(200, "GET", f"/v1/projects/{first}")["metadata"] == {}
    api.expect(200, "GET", f"/v1/prompts/greeter?project=atlas.{by_id}")


def test_references_are_enforced_after_a_migration_as_they_were_before(api: Api) -> None:
    before("0018")
    migrations.upgrade()

    with pytest.raises(sa.exc.IntegrityError), db.transaction() as session:
        session.execute(sa.text("DELETE FROM workspaces"))


def test_a_long_name_of_a_deleted_project_still_fits(api: Api) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "a" * 128})
    api.expect(204, "DELETE", f"/v1/projects/{'a' * 128}")

    before("0018")

    assert max(len(row["name"]) for row in rows()["projects"]) <= 128
