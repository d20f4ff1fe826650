"""The status of Prompt Studio, with what its documents promised and it never gave: the oldest job's age, warnings."""

from typing import Any

import flask
import marshmallow as ma

from app.api.status import StatusQuery
from app.auth import caller
from app.compat.prompt_studio import envelope_of, enveloped, studio_blueprint
from shared.db import reading
from shared.domain import status

blp = studio_blueprint("status", "Prompt Studio: how the queue is doing.")


class StudioLeases(ma.Schema):
    active = ma.fields.Integer()
    expiring_soon = ma.fields.Integer(metadata={"description": "Not renewed yet, and at an end within warn_seconds"})
    stale_processing = ma.fields.Integer(metadata={"description": "Expired, and not yet taken back by the sweep"})


def _counts(text: str) -> ma.fields.Dict:
    return ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.Integer(), metadata={"description": text})


class StudioStatusOut(ma.Schema):
    queue_depth = ma.fields.Integer(metadata={"description": "Queued jobs of every queue"})
    processing = ma.fields.Integer()
    leases = ma.fields.Nested(StudioLeases)
    by_status = _counts("queued and processing now; completed, failed and cancelled executions of the last hour")
    by_type = _counts("Open jobs by kind")
    avg_processing_time_seconds = ma.fields.Float(allow_none=True, metadata={"description": "null: none ended lately"})
    success_rate = ma.fields.Float(
        allow_none=True, metadata={"description": "Percent of completed and failed; null: none ended lately"}
    )
    oldest_job_age_seconds = ma.fields.Float(allow_none=True, metadata={"description": "null: none is queued"})
    warnings = ma.fields.List(ma.fields.String())


@blp.get("/status")
@blp.arguments(StatusQuery, location="query")
@blp.response(200, envelope_of(StudioStatusOut))
def get_status(query: dict[str, Any]) -> flask.Response:
    """Queue depth, leases, rates and warnings of your workspace; what fails inside is never a 200"""
    with reading() as session:
        found = status.snapshot(session, caller(), **query)
    waiting, running, recent = found["queue_depth_by_kind"], found["running_by_kind"], found["recent"]
    leases = found["leases"]
    data = {
        "queue_depth": found["by_status"]["queued"],
        "processing": found["running"],
        "leases": {**leases, "stale_processing": leases["stale"]},
        "by_status": {
            "queued": found["by_status"]["queued"],
            "processing": found["by_status"]["running"],
            "completed": recent["succeeded"],
            "failed": recent["failed"],
            "cancelled": recent["canceled"],
        },
        "by_type": {kind: count + running[kind] for kind, count in waiting.items()},
        "avg_processing_time_seconds": found["avg_processing_time_seconds"],
        "success_rate": found["success_rate"],
        "oldest_job_age_seconds": found["oldest_queued_seconds"],
        "warnings": found["warnings"],
    }
    return flask.jsonify(enveloped(StudioStatusOut().dump(data)))
