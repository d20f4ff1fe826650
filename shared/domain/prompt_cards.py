"""Prompts as a list shows them in one row: what each says now, where it came from, how often it was run, how well.

Read for many at once; the number of statements does not grow with the prompts.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.domain import versions
from shared.domain.names import PRODUCTION
from shared.domain.tenants import Caller
from shared.models import Evaluation, Execution, Feedback, Label, Prompt, State, Version


@dataclass(frozen=True)
class Card:
    prompt: Prompt
    version: Version  # at `production`, else the latest
    parent_id: uuid.UUID | None  # the prompt that it was forked from, if the caller may see that
    runs: int  # executions; not the calls of evaluations and optimizations
    score: float | None  # 0 to 1: what people gave its runs on average, else its newest evaluation; None: neither


def cards_of(session: Session, caller: Caller, prompts: Sequence[Prompt]) -> list[Card]:
    """One for each prompt, in their order."""
    ids = [prompt.id for prompt in prompts]
    current = _current(session, ids)
    parents = versions.origins_of(session, caller, ids)
    runs = _runs(session, ids)
    scores = _ratings(session, ids)
    scores = {**_evaluated(session, [prompt_id for prompt_id in ids if prompt_id not in scores]), **scores}
    return [
        Card(prompt, current[prompt.id], parents.get(prompt.id), runs.get(prompt.id, 0), scores.get(prompt.id))
        for prompt in prompts
    ]


def _current(session: Session, ids: Collection[uuid.UUID]) -> dict[uuid.UUID, Version]:
    is_latest = sa.and_(Label.version_id.is_(None), Version.number == Prompt.last_version_number)
    query = (
        sa.select(Version)
        .join(Prompt, Prompt.id == Version.prompt_id)
        .outerjoin(Label, sa.and_(Label.prompt_id == Prompt.id, Label.name == PRODUCTION))
        .where(Prompt.id.in_(ids), sa.or_(Label.version_id == Version.id, is_latest))
    )
    return {version.prompt_id: version for version in session.scalars(query)}


def _runs(session: Session, ids: Collection[uuid.UUID]) -> dict[uuid.UUID, int]:
    query = sa.select(Execution.prompt_id, sa.func.count()).where(Execution.prompt_id.in_(ids))
    rows = session.execute(query.where(Execution.purpose == "run").group_by(Execution.prompt_id))
    return {row[0]: row[1] for row in rows if row[0]}


def _ratings(session: Session, ids: Collection[uuid.UUID]) -> dict[uuid.UUID, float]:
    query = (
        sa.select(Execution.prompt_id, sa.func.avg(Feedback.score))
        .join(Feedback, sa.and_(Feedback.execution_id == Execution.id, Feedback.workspace_id == Execution.workspace_id))
        .where(Execution.prompt_id.in_(ids), Feedback.score.is_not(None))
    )
    return {row[0]: float(row[1]) for row in session.execute(query.group_by(Execution.prompt_id))}


def _evaluated(session: Session, ids: Collection[uuid.UUID]) -> dict[uuid.UUID, float]:
    """The score of the newest evaluation that succeeded."""
    newest = sa.func.row_number().over(
        partition_by=Evaluation.prompt_id, order_by=(Evaluation.created_at.desc(), Evaluation.id.desc())
    )
    ranked = (
        sa.select(Evaluation.prompt_id, Evaluation.aggregate, newest.label("rank"))
        .where(Evaluation.prompt_id.in_(ids), Evaluation.state == State.SUCCEEDED)
        .subquery()
    )
    rows = session.execute(sa.select(ranked.c.prompt_id, ranked.c.aggregate).where(ranked.c.rank == 1))
    return {row[0]: float(row[1]["score"]) for row in rows}
