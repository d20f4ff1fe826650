"""/v1/queues: what each queue holds, and its pause, drain and limit. They steer the whole fleet."""

from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app.api import WholeNumber, blueprint
from app.auth import caller
from shared.db import reading, transaction
from shared.domain import queues, status, tenants
from shared.models import Queue, Role

blp = blueprint("queues", "Queues: one for each kind of work, shared by all workspaces.")


class LimitIn(ma.Schema):
    max_running = WholeNumber(
        required=True,
        allow_none=True,
        validate=ma.validate.Range(1, 1_000_000),
        metadata={"description": "Jobs of this queue that may run at once in the whole fleet; null: no limit"},
    )


class QueueOut(ma.Schema):
    name = ma.fields.String()
    paused = ma.fields.Boolean(metadata={"description": "Nothing is claimed from it; submits are accepted"})
    draining = ma.fields.Boolean(metadata={"description": "Nothing new is accepted; what is queued is worked off"})
    max_running = ma.fields.Integer(allow_none=True)
    queued = ma.fields.Integer()
    running = ma.fields.Integer()
    dead = ma.fields.Integer(metadata={"description": "Jobs that failed for good and are still kept"})
    oldest_due_seconds = ma.fields.Float(allow_none=True)
    consumers = ma.fields.Integer(allow_none=True, metadata={"description": "Live worker processes"})
    updated_at = ma.fields.DateTime(allow_none=True)
    updated_by = ma.fields.String(allow_none=True)


class QueuesOut(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(QueueOut))


@blp.get("/queues")
@blp.response(200, QueuesOut)
def list_queues() -> flask.Response:
    """List the queues, in the order in which workers serve them

    Operators of a workspace that operates the fleet see the counts of all workspaces, the consumers and who
    changed a queue last; others see what is theirs.
    """
    with reading() as session:
        return flask.jsonify({"data": QueueOut().dump(status.list_queues(session, caller()), many=True)})


@blp.get("/queues/<name>")
@blp.response(200, QueueOut)
def get_queue(name: str) -> flask.Response:
    """Read a queue"""
    with reading() as session:
        return _queue(session, queues.find_queue(name))


@blp.patch("/queues/<name>")
@blp.fails(never=(409,))
@blp.arguments(LimitIn)
@blp.response(200, QueueOut)
def limit_queue(body: dict[str, Any], name: str) -> flask.Response:
    """Limit how many of its jobs run at once in the whole fleet"""
    author = caller(Role.OPERATOR)
    with transaction() as session:
        tenants.require_fleet(session, author)
        queue = queues.find_queue(name)
        queues.limit(session, queue, workspace_id=author.workspace_id, actor=author.user_name, **body)
        return _queue(session, queue)


@blp.post("/queues/<name>/pause")
@blp.fails(never=(409,))
@blp.response(200, QueueOut)
def pause_queue(name: str) -> flask.Response:
    """Claim nothing from it until it is resumed; submits are accepted, and what runs goes on"""
    return _act(name, "pause")


@blp.post("/queues/<name>/resume")
@blp.fails(never=(409,))
@blp.response(200, QueueOut)
def resume_queue(name: str) -> flask.Response:
    """End its pause and its drain"""
    return _act(name, "resume")


@blp.post("/queues/<name>/drain")
@blp.fails(never=(409,))
@blp.response(200, QueueOut)
def drain_queue(name: str) -> flask.Response:
    """Accept nothing new into it until it is resumed, and work off what is queued"""
    return _act(name, "drain")


def _act(name: str, action: str) -> flask.Response:
    author = caller(Role.OPERATOR)
    with transaction() as session:
        tenants.require_fleet(session, author)
        queue = queues.find_queue(name)
        queues.act(session, queue, action, workspace_id=author.workspace_id, actor=author.user_name)
        return _queue(session, queue)


def _queue(session: Session, queue: Queue) -> flask.Response:
    return flask.jsonify(QueueOut().dump(status.get_queue(session, caller(), queue)))
