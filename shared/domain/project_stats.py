"""What is in a project and what it has cost, counted from the rows: one statement per kind of row."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.domain import runs
from shared.models import Dataset, Evaluation, Execution, Optimization, Prompt, TestCase, Version


@dataclass(frozen=True)
class Stats:
    prompts: int = 0
    versions: int = 0
    datasets: int = 0
    cases: int = 0
    golden_cases: int = 0
    evaluations: int = 0
    optimizations: int = 0
    executions: int = 0
    tokens: int = 0
    nano: int = 0


def stats_of(session: Session, project_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Stats]:
    """By project, in seven statements however many projects there are.

    Tokens and cost are charged as batches charge them: what was reported, and the bound of each attempt whose answer
    was never read. Executions are those of evaluations and optimizations too.
    """
    tokens, nano = runs.charged(Execution.ambiguous_attempts)
    is_there = Prompt.deleted_at.is_(None)
    in_dataset = sa.and_(TestCase.dataset_id == Dataset.id, TestCase.removed_in.is_(None), TestCase.golden)
    counted = [
        sa.select(Prompt.project_id, sa.func.count().label("prompts")).where(is_there),
        sa.select(Prompt.project_id, sa.func.count().label("versions"))
        .join(Version, Version.prompt_id == Prompt.id)
        .where(is_there),
        sa.select(
            Dataset.project_id, sa.func.count().label("datasets"), sa.func.sum(Dataset.case_count).label("cases")
        ).where(Dataset.deleted_at.is_(None)),
        sa.select(Dataset.project_id, sa.func.count().label("golden_cases"))
        .join(TestCase, in_dataset)
        .where(Dataset.deleted_at.is_(None)),
        sa.select(Evaluation.project_id, sa.func.count().label("evaluations")),
        sa.select(Optimization.project_id, sa.func.count().label("optimizations")),
        sa.select(
            Execution.project_id,
            sa.func.count().label("executions"),
            sa.func.sum(tokens).label("tokens"),
            sa.func.sum(nano).label("nano"),
        ),
    ]
    found: dict[uuid.UUID, dict[str, int]] = {project_id: {} for project_id in project_ids}
    for query in counted:
        column = query.selected_columns.project_id
        for row in session.execute(query.where(column.in_(project_ids)).group_by(column)).mappings():
            found[row["project_id"]] |= {name: int(row[name]) for name in row if name != "project_id"}
    return {project_id: Stats(**values) for project_id, values in found.items()}
