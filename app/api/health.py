"""/health, /ready and /metrics: for the machines that watch this one. No API key."""

from typing import Any

import flask
import marshmallow as ma
from flask_smorest import Blueprint

from shared import messages
from shared.db import reading
from shared.domain import status

blp = Blueprint("health", "health", description="For load balancers and monitoring; no API key.")


class HealthOut(ma.Schema):
    status = ma.fields.String()


class ReadyOut(ma.Schema):
    status = ma.fields.String(metadata={"description": "ready, degraded (work goes on) or not_ready"})
    reasons = ma.fields.List(ma.fields.String())


@blp.get("/health")
@blp.response(200, HealthOut)
def health() -> Any:
    """Whether this process answers"""
    return {"status": "healthy"}


@blp.get("/ready")
@blp.response(200, ReadyOut)
@blp.alt_response(503, schema=ReadyOut, description="Work would not get done")
def ready() -> flask.Response:
    """Whether work that is submitted here gets done, and why not

    Red when the database is out of reach, a queue has due work that nobody consumes, or the sweep is
    late. When only Redis is out of reach it says `degraded`: work goes on, woken by polling.
    """
    with reading() as session:
        problems = status.problems(session)
    degraded = [] if messages.is_reachable() else ["redis is out of reach; workers poll instead"]
    state = "not_ready" if problems else "degraded" if degraded else "ready"
    answer = flask.jsonify({"status": state, "reasons": problems + degraded})
    answer.status_code = 503 if problems else 200
    return answer
