"""Feedback: what people thought of an answer. One row for each execution and author; its past is in the events."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.db import db_now, insert_if_absent
from shared.domain import events, executions, pages
from shared.domain.events import Change
from shared.domain.pages import Page
from shared.domain.tenants import Caller
from shared.errors import Conflict, NotFound, field_error
from shared.models import OPEN_STATES, Execution, Feedback, new_id

THUMBS: Mapping[str, float] = {"up": 1.0, "down": 0.0}


@dataclass(frozen=True)
class Opinion:
    """What somebody says of an answer. A thumb without a score is a score of 1 or 0."""

    score: float | None = None
    thumb: str | None = None
    label: str | None = None
    comment: str | None = None
    end_user: str = ""

    def values(self) -> dict[str, Any]:
        score = THUMBS[self.thumb] if self.score is None and self.thumb is not None else self.score
        return {"score": score, "thumb": self.thumb, "label": self.label, "comment": self.comment}


def give_feedback(session: Session, caller: Caller, execution_id: uuid.UUID, opinion: Opinion) -> Feedback:
    """Store the author's feedback on an execution that has ended, in place of what he said before."""
    values = opinion.values()
    if all(value is None for value in values.values()):
        raise field_error("", "give at least one of score, thumb, label and comment")
    execution = _held(session, caller, execution_id)
    if execution.state in OPEN_STATES:
        raise Conflict(f"the execution is {execution.state}: there is no answer yet")
    key = {"execution_id": execution_id, "user_id": caller.user_id, "end_user": opinion.end_user}
    own = {"workspace_id": caller.workspace_id, "created_by": caller.user_name}
    created = insert_if_absent(session, Feedback, id=new_id(), **key, **own, **values)
    feedback = session.scalars(
        sa.select(Feedback).filter_by(**key).with_for_update().execution_options(populate_existing=True)
    ).one()
    before = {name: getattr(feedback, name) for name in values}
    if created:
        _record(session, caller, feedback, "feedback_given", {"to": values})
    elif before != values:
        for name, value in values.items():
            setattr(feedback, name, value)
        feedback.updated_at = db_now()
        _record(session, caller, feedback, "feedback_changed", {"from": before, "to": values})
        session.flush()
        session.refresh(feedback)
    return feedback


def list_feedback(session: Session, caller: Caller, execution_id: uuid.UUID, *, limit: int, cursor: str | None) -> Page:
    """What everybody said of an execution, newest first."""
    executions.get_execution(session, caller, execution_id)
    query = sa.select(Feedback).where(Feedback.execution_id == execution_id)
    return pages.newest_first(session, query, Feedback, limit=limit, cursor=cursor)


def withdraw_feedback(session: Session, caller: Caller, execution_id: uuid.UUID, *, end_user: str = "") -> bool:
    """Delete the author's own feedback; whether there was any. What others said stays."""
    _held(session, caller, execution_id)
    feedback = session.scalars(
        sa.select(Feedback)
        .where(
            Feedback.execution_id == execution_id,
            Feedback.user_id == caller.user_id,
            Feedback.end_user == end_user,
        )
        .with_for_update()
    ).one_or_none()
    if feedback is None:
        return False
    before = {name: getattr(feedback, name) for name in Opinion().values()}
    _record(session, caller, feedback, "feedback_withdrawn", {"from": before})
    session.delete(feedback)
    session.flush()
    return True


def _held(session: Session, caller: Caller, execution_id: uuid.UUID) -> Execution:
    """The execution, which is not pruned before this transaction has ended."""
    execution: Execution = executions.get_execution(session, caller, execution_id)
    kept = sa.select(Execution.state).where(Execution.id == execution_id).with_for_update(read=True, key_share=True)
    if session.scalar(kept) is None:
        raise NotFound(f"no execution {execution_id}")
    return execution


def _record(session: Session, caller: Caller, feedback: Feedback, what: str, data: Mapping[str, Any]) -> None:
    data = {"feedback_id": str(feedback.id), "end_user": feedback.end_user, **data}
    subject = feedback.execution_id
    events.record(session, [Change(caller.workspace_id, f"execution.{what}", subject, data, caller.user_name)])
