"""/health, /ready and /metrics: for the machines that watch this one. No API key."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flask
import marshmallow as ma
import structlog
from flask_smorest import Blueprint
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from shared import messages
from shared.db import reading
from shared.domain import status

DATABASE_SECONDS = 2.0  # a monitor that is left waiting learns nothing
# A connection to a host that swallows packets, or a pool with no free one, hangs for longer than that.
# Threads can be left hanging; there are few, so that an outage does not fill the process with them.
_probes = ThreadPoolExecutor(max_workers=4, thread_name_prefix="ready")
log = structlog.get_logger("health")
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
    looking = _probes.submit(_problems)
    degraded = [] if messages.is_reachable() else ["redis is out of reach; workers poll instead"]
    try:
        problems = looking.result(timeout=DATABASE_SECONDS)
    except TimeoutError:
        problems = [f"the database has not answered within {DATABASE_SECONDS:g} s"]
    state = "not_ready" if problems else "degraded" if degraded else "ready"
    answer = flask.jsonify({"status": state, "reasons": problems + degraded})
    answer.status_code = 503 if problems else 200
    return answer


def _problems() -> list[str]:
    try:
        with reading() as session:
            return status.problems(session)
    except SQLAlchemyError as error:
        log.warning("not_ready", error=str(error).splitlines()[0])  # what it says of hosts and users stays here
        if isinstance(error, OperationalError | InterfaceError | NoConnectionFree):
            return ["the database is out of reach"]
        return ["the database answers with an error; has `python -m app.admin release` been run?"]
