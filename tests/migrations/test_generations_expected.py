"""0036: generations that are older ask for no expectation, and taking it back touches nothing else of them."""

import migrations
from app.factory import create_app
from shared import db
from shared.domain import providers, tenants
from shared.models import Role
from tests.migrations.test_migrations import only, rows
from tests.servers import RedisServer
from tests.support import API_KEY, MODEL, Api, Drain, make_prompt


def test_generations_stay_what_they_were_on_both_ways(empty_database: str, broker: RedisServer) -> None:
    migrations.upgrade()
    with db.transaction() as session:
        providers.seed_catalogue(session)
        tenants.create_key(session, workspace="default", user="admin", role=Role.ADMIN, key=API_KEY)
    api, drain = Api(create_app().test_client(), API_KEY), Drain()
    make_prompt(api, model=MODEL)
    api.expect(201, "POST", "/v1/datasets", {"name": "names"})
    body = {"prompt_name": "greeter", "count": 3, "with_expected": True}
    done = api.expect(202, "POST", "/v1/datasets/names/cases:generate", body)
    drain()
    api.expect(202, "POST", "/v1/datasets/names/cases:generate", body)  # is waiting
    before, stored = rows()["generations"], rows()["test_cases"]

    migrations.downgrade("0035")
    without = rows()["generations"]
    migrations.upgrade()
    after = rows()["generations"]

    assert [row["with_expected"] for row in before] == [True, True]
    assert without == only([name for name in before[0] if name != "with_expected"], before)
    assert only(list(without[0]), after) == without
    assert [row["with_expected"] for row in after] == [False, False]
    assert rows()["test_cases"] == stored
    drain()
    newest = api.expect(200, "GET", "/v1/generations?limit=1")["data"][0]
    assert newest["status"] in ("succeeded", "failed")
    assert newest["with_expected"] is False
    assert api.expect(200, "GET", f"/v1/generations/{done['generation_id']}")["status"] == "succeeded"
