"""/v1/status: what waits, what runs, who works."""

from typing import Any

import flask
import marshmallow as ma

from app.api import Decimal, blueprint
from app.auth import caller
from shared.db import reading
from shared.domain import status

blp = blueprint("status", "Queues, leases and workers.")


class StatusQuery(ma.Schema):
    warn_seconds = Decimal(load_default=30.0, validate=ma.validate.Range(1, 3600))


class Leases(ma.Schema):
    active = ma.fields.Integer()
    expiring_soon = ma.fields.Integer()
    stale = ma.fields.Integer()


class StatusOut(ma.Schema):
    queue_depth = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.Integer())
    running = ma.fields.Integer()
    blocked_by_budget = ma.fields.Integer()
    oldest_due_seconds = ma.fields.Float(allow_none=True)
    leases = ma.fields.Nested(Leases)
    consumers = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.Integer())
    last_sweep_seconds_ago = ma.fields.Float(allow_none=True)
    warnings = ma.fields.List(ma.fields.String())


@blp.get("/status")
@blp.arguments(StatusQuery, location="query")
@blp.response(200, StatusOut)
def get_status(query: dict[str, Any]) -> flask.Response:
    """Queue depth, leases, consumers and warnings

    Counts of jobs are your workspace's; leases and workers are the whole fleet's.
    """
    with reading() as session:
        found = status.snapshot(session, caller().workspace_id, **query)
        return flask.jsonify(StatusOut().dump(found))
