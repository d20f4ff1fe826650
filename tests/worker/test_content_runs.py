"""Evaluations and searches of versions with placeholders and tools: calls carry them, candidates keep them."""

from typing import Any

import sqlalchemy as sa

from shared import db
from shared.domain.content import check_content, components_meant, components_of, content_from
from shared.models import Execution, Version
from tests.support import MODEL, TRIAGE, Api, Drain, evaluation_body, make_triage, optimization_body, run_body
from worker.steps import executions

TOOL = {"type": "function", "function": {"name": "look_up"}}
SCHEMA = {"type": "object"}
CONTENT = {
    "messages": [
        {"role": "system", "content": "Be exact."},
        {"type": "placeholder", "name": "history", "optional": True},
        {"role": "user", "content": TRIAGE},
    ],
    "model": {**MODEL, "params": {"temperature": 0.0, "max_new_tokens": 60}},
    "tools": [TOOL],
    "response_schema": SCHEMA,
    "variables_schema": {"required": ["ticket"]},
}


def make_chat_triage(api: Api, cases: int) -> None:
    make_triage(api, cases=cases)
    api.expect(200, "PUT", "/v1/prompts/triage", {**CONTENT, "set_active": True})


def sent(purpose: str) -> list[tuple[Any, Any]]:
    with db.reading() as session:
        rows = session.execute(
            sa.select(Execution.tools, Execution.response_schema).where(Execution.purpose == purpose)
        )
        return [(row.tools, row.response_schema) for row in rows]


def test_every_call_of_an_evaluation_carries_the_tools_and_the_schema(api: Api, drain: Drain) -> None:
    make_chat_triage(api, cases=3)
    evaluation = api.expect(202, "POST", "/v1/evaluations", evaluation_body())

    drain()

    state = api.expect(200, "GET", f"/v1/evaluations/{evaluation['evaluation_id']}")["status"]
    assert state == "succeeded"
    assert sent("evaluation") == [([TOOL], SCHEMA)] * 3


def test_the_worker_hands_the_tools_and_the_schema_to_the_provider(api: Api, drain: Drain) -> None:
    make_chat_triage(api, cases=1)
    api.expect(202, "POST", "/v1/executions:submit", run_body("triage", variables={"ticket": "it broke"}))
    leases = drain.claim()

    with db.reading() as session:
        ((_, _, request),) = executions.load(session, leases).values()

    assert (request.tools, request.response_schema) == ([TOOL], SCHEMA)


def test_a_search_changes_the_texts_and_keeps_all_else(api: Api, drain: Drain) -> None:
    make_chat_triage(api, cases=40)
    api.expect(202, "POST", "/v1/optimizations", optimization_body())

    drain()

    with db.reading() as session:
        best = session.scalars(sa.select(Version).order_by(Version.number.desc()).limit(1)).one()
    assert best.number > 2
    assert best.content["messages"][1] == CONTENT["messages"][1]
    assert best.content["messages"] != CONTENT["messages"]
    for field in ("model", "tools", "response_schema", "variables_schema"):
        assert best.content[field] == CONTENT[field]
    assert {str(pair) for pair in sent("evaluation")} == {str(([TOOL], SCHEMA))}
    assert {str(pair) for pair in sent("proposal")} == {str((None, None))}


def test_a_role_names_all_its_messages_and_a_number_one() -> None:
    twice = check_content(messages=[*CONTENT["messages"], {"role": "user", "content": "Answer now."}]).body

    assert components_meant(twice, ["user"]) == ["2_user", "3_user"]
    assert components_meant(twice, ["3_user", "system"]) == ["0_system", "3_user"]


def test_content_made_of_its_own_texts_is_the_same_content() -> None:
    content = check_content(**CONTENT)
    components = components_of(content.body)

    assert components == {"0_system": "Be exact.", "2_user": TRIAGE}
    assert check_content(**content_from(content.body, components)) == content
