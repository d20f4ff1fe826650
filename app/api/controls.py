"""/v1/optimizations/{id}/pause, resume, budget, continue and clone: steering a run, and what is made from one."""

import uuid
from collections.abc import Callable
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay
from app.api import WholeNumber, blueprint
from app.api.content import Length
from app.api.optimizations import OptimizationBudget, OptimizationOut, rendered
from app.auth import caller
from shared.db import transaction
from shared.domain import controls
from shared.domain.budgets import Limits
from shared.domain.controls import CloneRequest
from shared.domain.tenants import Caller
from shared.models import Optimization, Role

blp = blueprint("controls", "Steering an optimization: pause, resume, budget; and others made from it.")


class ContinueIn(ma.Schema):
    name = ma.fields.String(validate=Length(max=255), metadata={"description": "That of the source if left out"})
    budget = ma.fields.Nested(
        OptimizationBudget,
        load_default=dict,
        metadata={
            "description": "Ceilings of both runs together; what is left out stays. One is raised, if one stopped it"
        },
    )


class CloneIn(ma.Schema):
    seed = WholeNumber(required=True, validate=ma.validate.Range(0, 2**31 - 1))
    name = ma.fields.String(validate=Length(max=255), metadata={"description": "That of the source if left out"})
    budget = ma.fields.Nested(OptimizationBudget, metadata={"description": "In place of the source's"})
    knobs = ma.fields.Dict(keys=ma.fields.String(), metadata={"description": "Those that differ"})
    evaluation = ma.fields.Dict(keys=ma.fields.String(), metadata={"description": "Those that differ"})
    early_stopping = ma.fields.Dict(keys=ma.fields.String(), metadata={"description": "Those that differ"})


@blp.post("/optimizations/<uuid:optimization_id>/pause")
@blp.response(200, OptimizationOut)
def pause_optimization(optimization_id: uuid.UUID) -> flask.Response:
    """Pause an optimization: what is in flight ends and is kept, and nothing new begins"""
    return _steered(lambda session, author: controls.pause(session, author, optimization_id))


@blp.post("/optimizations/<uuid:optimization_id>/resume")
@blp.response(200, OptimizationOut)
def resume_optimization(optimization_id: uuid.UUID) -> flask.Response:
    """Go on with a paused optimization; nothing is paid for twice"""
    return _steered(lambda session, author: controls.resume(session, author, optimization_id))


@blp.post("/optimizations/<uuid:optimization_id>/budget")
@blp.arguments(OptimizationBudget)
@blp.response(200, OptimizationOut)
def raise_budget(body: dict[str, Any], optimization_id: uuid.UUID) -> flask.Response:
    """Raise ceilings of an optimization that has not ended

    It holds for the steps that are still to be decided. One that has stopped for its budget is continued instead.
    """
    limits = Limits(**body)
    return _steered(lambda session, author: controls.raise_budget(session, author, optimization_id, limits))


@blp.post("/optimizations/<uuid:optimization_id>/continue")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(ContinueIn)
@blp.response(202, OptimizationOut)
def continue_optimization(body: dict[str, Any], optimization_id: uuid.UUID) -> flask.Response:
    """Go on from a run that stopped for its budget, or was canceled, as a new one; poll the Location

    It repeats the first one from its records, for nothing, and pays from where that stopped.
    """
    author = caller(Role.EDITOR)
    limits = Limits(**body["budget"])

    def make(session: Session, _: Any) -> Any:
        return rendered(session, controls.continue_run(session, author, optimization_id, limits, name=body.get("name")))

    return _accepted(replay.create(author, body, 202, make))


@blp.post("/optimizations/<uuid:optimization_id>/clone")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(CloneIn)
@blp.response(202, OptimizationOut)
def clone_optimization(body: dict[str, Any], optimization_id: uuid.UUID) -> flask.Response:
    """Run the same search with another seed, on the same version and cases; poll the Location"""
    author = caller(Role.EDITOR)
    budget = {"budget": Limits(**body["budget"])} if "budget" in body else {}
    request = CloneRequest(**{**body, **budget})

    def make(session: Session, _: Any) -> Any:
        return rendered(session, controls.clone_run(session, author, optimization_id, request))

    return _accepted(replay.create(author, body, 202, make))


def _steered(steer: Callable[[Session, Caller], Optimization]) -> flask.Response:
    author = caller(Role.EDITOR)
    with transaction() as session:
        return flask.jsonify(rendered(session, steer(session, author)))


def _accepted(answer: flask.Response) -> flask.Response:
    answer.headers["Location"] = f"/v1/optimizations/{answer.get_json()['optimization_id']}"
    return answer
