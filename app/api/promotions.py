"""/v1/optimizations/{id}/promote and …/promotions: the gate between a search and a label."""

import uuid
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import preconditions, replay
from app.api import Strict, blueprint
from app.api.content import Length
from app.auth import caller
from app.preconditions import IF_MATCH, IF_NONE_MATCH
from shared.db import reading
from shared.domain import optimizations, promotions
from shared.domain.names import PRODUCTION
from shared.domain.promotions import RULES, Wanted
from shared.models import Role

blp = blueprint("promotions", "The gate between a search and a label: a rule on the holdout, or an open override.")


class PromoteIn(ma.Schema):
    label = ma.fields.String(load_default=PRODUCTION)
    rule = ma.fields.String(load_default=RULES[0], validate=ma.validate.OneOf(RULES))
    margin = Strict(
        validate=ma.validate.Range(0, 1),
        metadata={"description": "Of `non_inferior`: how much worse the best version may be"},
    )
    override = ma.fields.Boolean(
        load_default=False,
        truthy={True},
        falsy={False},
        metadata={"description": "Move it although the rule does not hold; needs a `reason`, and is recorded"},
    )
    reason = ma.fields.String(load_default="", validate=Length(max=500))


class PromotionOut(ma.Schema):
    label = ma.fields.String()
    from_version = ma.fields.Integer(allow_none=True, metadata={"description": "null: there was no such label"})
    to_version = ma.fields.Integer()
    rule = ma.fields.String()
    margin = ma.fields.Float(allow_none=True)
    holds = ma.fields.Boolean(metadata={"description": "Whether the rule holds on the holdout"})
    shortfall = ma.fields.String(allow_none=True, metadata={"description": "The number that stands against it"})
    override = ma.fields.Boolean(metadata={"description": "It was moved although the rule does not hold"})
    reason = ma.fields.String()
    request_id = ma.fields.UUID(
        allow_none=True, metadata={"description": "The label takes a second person: the request"}
    )
    promoted_by = ma.fields.String()
    promoted_at = ma.fields.DateTime()


class PromotedOut(PromotionOut):
    label_etag = ma.fields.String(
        allow_none=True, metadata={"description": "The label's ETag now; null: it has not moved"}
    )


class PromotionsOut(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(PromotionOut))


@blp.post("/optimizations/<uuid:optimization_id>/promote")
@blp.doc(parameters=[replay.PARAMETER, IF_MATCH, IF_NONE_MATCH])
@blp.arguments(PromoteIn)
@blp.response(200, PromotedOut)
@blp.alt_response(202, schema=PromotedOut, description="It takes a second person; the Location is the request")
def promote_best(body: dict[str, Any], optimization_id: uuid.UUID) -> flask.Response:
    """Point a label at the best version, if the holdout says so

    409 `promotion_refused` names the number that stands against the rule. If-Match holds against the label's ETag.
    """
    author = caller(Role.EDITOR)
    wanted = Wanted(**body)
    promotions.check_wanted(wanted)
    asked = preconditions.asked()

    def make(session: Session, _: Any) -> Any:
        done = promotions.promote(session, author, optimization_id, wanted, precondition=asked)
        return {**done.record, "label_etag": done.etag}

    answer = replay.create(author, body, lambda made: 202 if made["request_id"] else 200, make)
    made = answer.get_json()
    if made["request_id"]:
        answer.headers["Location"] = f"/v1/label-requests/{made['request_id']}"
        return answer
    return preconditions.tagged(answer, made["label_etag"])


@blp.get("/optimizations/<uuid:optimization_id>/promotions")
@blp.response(200, PromotionsOut)
def list_promotions(optimization_id: uuid.UUID) -> flask.Response:
    """List what was promoted by its result, or asked for, oldest first"""
    with reading() as session:
        optimization = optimizations.get_optimization(session, caller(), optimization_id)
        return flask.jsonify({"data": optimization.promotions or []})
