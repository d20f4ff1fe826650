"""/v1/status: what waits, what runs, who works."""

from typing import Any

import flask
import marshmallow as ma

from app.api import Decimal, blueprint
from app.auth import caller
from shared.db import reading
from shared.domain import status

blp = blueprint("status", "Queues, leases and workers.")


def _described(text: str) -> dict[str, str]:
    return {"description": text}


def _counts(text: str) -> ma.fields.Dict:
    return ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.Integer(), metadata=_described(text))


class StatusQuery(ma.Schema):
    warn_seconds = Decimal(
        load_default=30.0,
        validate=ma.validate.Range(1, 3600),
        metadata=_described("A lease that ends within this time expires soon; work due for longer is warned of"),
    )


class Leases(ma.Schema):
    active = ma.fields.Integer(metadata=_described("Jobs that run, the two below included"))
    expiring_soon = ma.fields.Integer(metadata=_described("Not renewed yet, and at an end within `warn_seconds`"))
    stale = ma.fields.Integer(metadata=_described("Expired, and not yet taken back by the sweep"))


class StatusOut(ma.Schema):
    queue_depth = _counts("Queued jobs by queue, those not yet due and those blocked by a budget included")
    queue_depth_by_kind = _counts("The same by kind of job")
    running = ma.fields.Integer(metadata=_described("Jobs in flight"))
    running_by_kind = _counts("The same by kind of job")
    by_status = _counts("Open jobs: `queued` and `running`")
    blocked_by_budget = ma.fields.Integer(metadata=_described("Queued jobs that their budget cannot afford now"))
    oldest_due_seconds = ma.fields.Float(
        allow_none=True, metadata=_described("How long the first due job has waited since it was due; null: none is")
    )
    oldest_queued_seconds = ma.fields.Float(
        allow_none=True, metadata=_described("How long ago the oldest queued job was submitted; null: none is queued")
    )
    leases = ma.fields.Nested(Leases)
    recent = _counts(
        "Executions that ended within the last hour, by state. Read from your newest 5,000 events, so when more"
        " happened in that hour it is the newest part of it"
    )
    avg_processing_time_seconds = ma.fields.Float(
        allow_none=True, metadata=_described("Of those in `recent`: from the first claim to the end; null: none ended")
    )
    success_rate = ma.fields.Float(
        allow_none=True,
        metadata=_described("Of those in `recent`: 100 · succeeded / (succeeded + failed), a percentage"),
    )
    consumers = _counts("Live worker processes by queue, of the whole fleet")
    last_sweep_seconds_ago = ma.fields.Float(
        allow_none=True, metadata=_described("Since the last sweep of the fleet ended; null: there was none")
    )
    warnings = ma.fields.List(ma.fields.String(), metadata=_described("What is wrong, and what to do about it"))


@blp.get("/status")
@blp.arguments(StatusQuery, location="query")
@blp.response(200, StatusOut)
def get_status(query: dict[str, Any]) -> flask.Response:
    """Queue depth, leases, rates, consumers and warnings

    Every figure about jobs is of your workspace and, if your key is limited to projects, of those; consumers and
    the sweep are the whole fleet's.
    """
    with reading() as session:
        found = status.snapshot(session, caller(), **query)
        return flask.jsonify(StatusOut().dump(found))
