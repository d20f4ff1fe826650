"""The query of docs/reference/executions.md leads from every execution to its version, prompt and model."""

import re
from pathlib import Path

import sqlalchemy as sa

from shared import db
from shared.domain.tenants import Caller
from tests.executed import insert_executions, make_versions
from tests.support import Api, Drain, make_prompt, run_body

PAGE = Path(__file__).parents[2] / "docs/reference/executions.md"


def documented_query() -> str:
    (query,) = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(query)


def test_the_documented_query_names_prompt_version_and_model_of_a_real_run(api: Api, drain: Drain) -> None:
    made = [make_prompt(api, template=f"{word} {{{{ name }}}}") for word in ("Hello", "Bye")]
    submitted = api.expect(202, "POST", "/v1/executions:submit", run_body(version_number=1))
    drain()

    with db.reading() as session:
        (row,) = session.execute(sa.text(documented_query())).mappings()

    read = api.expect(200, "GET", f"/v1/executions/{submitted['execution_id']}")
    version = api.expect(200, "GET", "/v1/prompts/greeter/versions/1")
    assert str(row["id"]).replace("-", "") == submitted["execution_id"].replace("-", "")
    assert (row["prompt_name"], row["version_number"]) == ("greeter", 1) != ("greeter", len(made))
    assert row["content_hash"] == version["content_hash"]
    assert (row["provider"], row["model_name"], row["model_context"]) == ("simulated", "simulated-small", 128_000)
    assert (row["state"], row["response_text"]) == ("succeeded", read["response_text"])


def test_the_documented_query_has_one_row_for_each_execution_whatever_it_lacks(admin: Caller) -> None:
    (version,) = make_versions(admin)
    insert_executions(admin, [{}, {"model_name": "not in the catalogue"}], version=version)
    insert_executions(admin, [{}])

    with db.reading() as session:
        rows = session.execute(sa.text(documented_query())).mappings().all()

    assert sorted((row["prompt_name"] or "", row["model_context"] or 0) for row in rows) == [
        ("", 128_000),
        ("greeter", 0),
        ("greeter", 128_000),
    ]
