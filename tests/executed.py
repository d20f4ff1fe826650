"""Executions that have ended, as rows: for tests of what is counted and compared over many of them."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from shared import db
from shared.bulk_rows import bulk_insert
from shared.domain import prompts, tenants
from shared.domain.content import check_content
from shared.domain.tenants import Caller
from shared.models import Execution, Feedback, Prompt, Role, State, Version, new_id

MONDAY = datetime(2026, 6, 1, tzinfo=UTC)


def make_versions(
    caller: Caller, count: int = 1, *, name: str = "greeter", project: str | None = None
) -> list[Version]:
    """A prompt with so many versions, each with words of its own."""
    made = []
    with db.transaction() as session:
        for number in range(count):
            content = check_content(template_source=f"Say hello number {number} to {{{{ name }}}}.")
            made.append(prompts.upsert(session, caller, name, content, project=project).version)
    return made


def insert_executions(
    caller: Caller, rows: Sequence[Mapping[str, Any]], *, version: Version | None = None
) -> list[uuid.UUID]:
    """One execution for each row, which says what matters: the rest is that of a run that succeeded on a Monday."""
    ids = [new_id() for _ in rows]
    usual: dict[str, Any] = {
        "workspace_id": caller.workspace_id,
        "created_at": MONDAY,
        "state": State.SUCCEEDED,
        "environment": "dev",
        "purpose": "run",
        "provider": "simulated",
        "model_name": "simulated-small",
        "messages": [],
        "created_by": caller.user_name,
        "prompt_id": None,
        "version_id": None,
        "project_id": None,
        "scope_id": None,
        "correlation_id": None,
        "error_type": None,
        "response_text": None,
        "prompt_tokens": None,
        "response_tokens": None,
        "cost_nano": None,
        "latency_ms": None,
    }
    with db.transaction() as session:
        if version is not None:
            prompt = session.get_one(Prompt, version.prompt_id)
            usual |= {"prompt_id": prompt.id, "version_id": version.id, "project_id": prompt.project_id}
        bulk_insert(session, Execution, [{**usual, "id": id_, **row} for id_, row in zip(ids, rows, strict=True)])
    return ids


def insert_feedback(caller: Caller, scores: Mapping[uuid.UUID, float | None]) -> None:
    rows = [
        {
            "id": new_id(),
            "workspace_id": caller.workspace_id,
            "execution_id": execution_id,
            "user_id": caller.user_id,
            "score": score,
        }
        for execution_id, score in scores.items()
    ]
    with db.transaction() as session:
        bulk_insert(session, Feedback, rows)


def insert_stranger(name: str = "elsewhere") -> Caller:
    """An administrator of another workspace."""
    with db.transaction() as session:
        return tenants.create_key(session, workspace=name, user="s", role=Role.ADMIN, key=tenants.new_key())


def analyze() -> None:
    with db.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))
