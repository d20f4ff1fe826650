"""/v1/executions/{id}/feedback: what people thought of an answer."""

import uuid
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay
from app.api import PageQuery, Strict, blueprint, page_of, render_page
from app.api.content import Length
from app.auth import caller
from shared.db import reading, transaction
from shared.domain import feedback
from shared.domain.feedback import THUMBS, Opinion
from shared.models import Role

blp = blueprint("feedback", "What people thought of an answer: one for each execution and author.")
_END_USER = "The one of your own users for whom you speak; each has feedback of his own"


class FeedbackIn(ma.Schema):
    """At least one of `score`, `thumb`, `label` and `comment`. What was said before is replaced as a whole."""

    score = Strict(allow_none=True, validate=ma.validate.Range(0, 1), metadata={"description": "1 is best"})
    thumb = ma.fields.String(
        allow_none=True,
        validate=ma.validate.OneOf(list(THUMBS)),
        metadata={"description": "Without a score, `up` is a score of 1 and `down` of 0"},
    )
    label = ma.fields.String(allow_none=True, validate=Length(1, 64))
    comment = ma.fields.String(allow_none=True, validate=Length(1, 4_000))
    user = ma.fields.String(validate=Length(1, 128), attribute="end_user", metadata={"description": _END_USER})


class FeedbackOut(ma.Schema):
    feedback_id = ma.fields.UUID(attribute="id")
    execution_id = ma.fields.UUID()
    score = ma.fields.Float(allow_none=True)
    thumb = ma.fields.String(allow_none=True)
    label = ma.fields.String(allow_none=True)
    comment = ma.fields.String(allow_none=True)
    user = ma.fields.Function(lambda given: given.end_user or None, metadata={"description": _END_USER})
    created_by = ma.fields.String()
    created_at = ma.fields.DateTime()
    updated_at = ma.fields.DateTime()


class WithdrawQuery(ma.Schema):
    user = ma.fields.String(load_default="", validate=Length(1, 128), metadata={"description": _END_USER})


class WithdrawnOut(ma.Schema):
    deleted = ma.fields.Boolean(metadata={"description": "Whether there was any"})


@blp.post("/executions/<uuid:execution_id>/feedback")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(FeedbackIn)
@blp.response(200, FeedbackOut)
def give_feedback(body: dict[str, Any], execution_id: uuid.UUID) -> flask.Response:
    """Say what you think of an answer, in place of what you said before"""
    author = caller(Role.EDITOR)

    def make(session: Session, _: Any) -> Any:
        return FeedbackOut().dump(feedback.give_feedback(session, author, execution_id, Opinion(**body)))

    return replay.create(author, body, 200, make)


@blp.get("/executions/<uuid:execution_id>/feedback")
@blp.arguments(PageQuery, location="query")
@blp.response(200, page_of(FeedbackOut))
def list_feedback(query: dict[str, Any], execution_id: uuid.UUID) -> flask.Response:
    """List what everybody said of an execution, newest first"""
    with reading() as session:
        page = feedback.list_feedback(session, caller(), execution_id, **query)
        return flask.jsonify(render_page(FeedbackOut(), page))


@blp.delete("/executions/<uuid:execution_id>/feedback")
@blp.fails(never=(409,))
@blp.arguments(WithdrawQuery, location="query")
@blp.response(200, WithdrawnOut)
def withdraw_feedback(query: dict[str, Any], execution_id: uuid.UUID) -> flask.Response:
    """Take your own feedback back; what others said stays"""
    author = caller(Role.EDITOR)
    with transaction() as session:
        deleted = feedback.withdraw_feedback(session, author, execution_id, end_user=query["user"])
    return flask.jsonify({"deleted": deleted})
