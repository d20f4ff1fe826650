"""/v1/optimizations/{id}/replay: an ended search repeated from its records, without a call."""

import uuid
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay
from app.api import blueprint
from app.auth import caller
from shared.db import reading
from shared.domain import optimizations, replays
from shared.models import Role

blp = blueprint("replays", "An ended search repeated from its records: does it come to the same?")


class ReplayOut(ma.Schema):
    optimization_id = ma.fields.UUID()
    status = ma.fields.String(metadata={"description": "queued, running, succeeded, failed, canceled"})
    job_id = ma.fields.Integer()
    identical = ma.fields.Boolean(
        allow_none=True, metadata={"description": "Candidates, decisions, scores and verdict; null until it is done"}
    )
    steps = ma.fields.Integer(metadata={"description": "How many steps were repeated"})
    candidates = ma.fields.Integer()
    verdict = ma.fields.String(allow_none=True)
    difference = ma.fields.Raw(
        allow_none=True, metadata={"description": "The first one: {at, recorded, replayed}; null: there is none"}
    )
    asked_by = ma.fields.String()
    asked_at = ma.fields.DateTime()
    replayed_at = ma.fields.DateTime()


@blp.post("/optimizations/<uuid:optimization_id>/replay")
@blp.doc(parameters=[replay.PARAMETER])
@blp.response(202, ReplayOut)
def start_replay(optimization_id: uuid.UUID) -> flask.Response:
    """Repeat an ended optimization from its records and compare; no provider is called; poll the Location"""
    author = caller(Role.EDITOR)

    def make(session: Session, _: Any) -> Any:
        return _shown(replays.start_replay(session, author, optimization_id))

    answer = replay.create(author, None, 202, make)
    answer.headers["Location"] = f"/v1/optimizations/{optimization_id}/replay"
    return answer


@blp.get("/optimizations/<uuid:optimization_id>/replay")
@blp.response(200, ReplayOut)
def get_replay(optimization_id: uuid.UUID) -> flask.Response:
    """Read the newest replay"""
    with reading() as session:
        run = optimizations.get_optimization(session, caller(), optimization_id)
        return flask.jsonify(_shown(replays.show_replay(session, run)))


def _shown(found: dict[str, Any]) -> Any:
    times = {name: found[name] for name in ("asked_at", "replayed_at") if name in found}
    return {**ReplayOut(exclude=("asked_at", "replayed_at")).dump(found), **times}
