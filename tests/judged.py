"""What tests of evaluations with judges, retries and comparisons have in common."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from shared import db
from shared.models import Execution
from tests.support import Api, Drain, evaluation_body
from worker.recording import record
from worker.steps import Failure
from worker.tasks import STEPS

JUDGE = {
    "type": "llm_judge",
    "model": {"provider": "simulated", "model_name": "simulated-large"},
    "criteria": [{"name": "right", "description": "Category and priority are right."}],
    "reference": True,
}
EMBEDDING = {
    "type": "embedding_similarity",
    "model": {"provider": "simulated", "model_name": "simulated-embedding"},
    "threshold": 0.5,
}


def evaluate(api: Api, drain: Drain, **fields: Any) -> Any:
    """Start an evaluation, run it to its end, and read it."""
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body(**fields))
    drain()
    return read(api, started)


def read(api: Api, evaluation: Mapping[str, Any]) -> Any:
    return api.expect(200, "GET", f"/v1/evaluations/{evaluation['evaluation_id']}")


def results(api: Api, evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(api.expect(200, "GET", f"/v1/evaluations/{evaluation['evaluation_id']}/results?limit=100")["data"])


def fail_some(drain: Drain, number: int, *, error: str = "bad_request") -> None:
    """Let so many of the calls that wait fail for good, and run the rest and what follows."""
    claimed = drain.claim(limit=number)
    assert len(claimed) == number
    record(STEPS, [(lease, Failure(error, "", retryable=False)) for lease in claimed])
    drain()


def calls_by_purpose() -> dict[str, int]:
    with db.reading() as session:
        rows = session.execute(sa.select(Execution.purpose, sa.func.count()).group_by(Execution.purpose)).all()
    return {row[0]: row[1] for row in rows}
