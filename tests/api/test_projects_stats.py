"""GET /v1/projects/{project}/stats: counted from the rows, in a number of statements that does not grow."""

from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.domain import project_stats
from shared.models import Execution, Project
from tests.servers import ProviderServer
from tests.support import Api, Drain, evaluation_body, make_prompt, make_triage, run_body

NOTHING = dict.fromkeys(
    "prompts versions datasets cases golden_cases evaluations optimizations executions tokens cost_usd".split(), 0
)


def stats(api: Api, project: str = "default") -> Any:
    return api.expect(200, "GET", f"/v1/projects/{project}/stats")


def test_a_project_without_anything_has_zeros(api: Api) -> None:
    assert stats(api) == NOTHING


def test_everything_in_the_project_is_counted_and_nothing_else(api: Api, drain: Drain) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    make_triage(api, cases=5)
    make_prompt(api, "triage", template="another {{ ticket }}")
    case = {"inputs": {"ticket": "golden"}, "expected": {}, "golden": True}
    api.expect(201, "POST", "/v1/datasets/tickets/cases", [case])
    make_prompt(api, "alone", project="atlas")
    make_prompt(api, template="bare")
    api.expect(202, "POST", "/v1/executions:submit", run_body("alone", project="atlas"))
    api.expect(202, "POST", "/v1/executions:submit", run_body("greeter", variables={}))
    api.expect(202, "POST", "/v1/evaluations", evaluation_body(version_number=1))
    drain()

    found = stats(api)

    counts = {name: found[name] for name in found if name not in ("tokens", "cost_usd")}
    assert counts == {
        "prompts": 2,
        "versions": 3,
        "datasets": 1,
        "cases": 6,
        "golden_cases": 1,
        "evaluations": 1,
        "optimizations": 0,
        "executions": 7,
    }
    assert stats(api, "atlas")["executions"] == 1


def test_tokens_and_cost_are_those_of_the_executions(api: Api, drain: Drain, provider: ProviderServer) -> None:
    make_prompt(api)
    for name in ("Ada", "Bob"):
        api.expect(202, "POST", "/v1/executions:submit", run_body(variables={"name": name}))
    drain()

    found = stats(api)

    with db.reading() as session:
        tokens, nano = session.execute(
            sa.select(
                sa.func.sum(Execution.prompt_tokens + Execution.response_tokens), sa.func.sum(Execution.cost_nano)
            )
        ).one()
    assert (found["tokens"], found["cost_usd"]) == (tokens, pytest.approx(float(nano) / 1e9))
    assert tokens > 0
    assert nano > 0


def test_the_statements_do_not_grow_with_the_projects(api: Api) -> None:
    for name in ("one", "two", "three"):
        api.expect(201, "POST", "/v1/projects", {"name": name})
        make_prompt(api, project=name)
    sent: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        sent.append(statement)

    with db.reading() as session:
        ids = session.scalars(sa.select(Project.id)).all()
        sa.event.listen(db.engine(), "before_cursor_execute", note)
        found = project_stats.stats_of(session, ids)
        sa.event.remove(db.engine(), "before_cursor_execute", note)

    assert len(sent) == 7
    assert sorted(each.prompts for each in found.values()) == [0, 1, 1, 1]
