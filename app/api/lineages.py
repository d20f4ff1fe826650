"""/v1/optimizations/{id}/candidates/{candidate} and /pareto: where a candidate comes from, and how it stands."""

import dataclasses
import uuid
from typing import Any

import flask
import marshmallow as ma

from app.api import PageQuery, blueprint, page_of, render_page
from app.api.optimizations import CandidateOut
from app.auth import caller
from shared.db import reading
from shared.domain import lineages, optimizations

blp = blueprint("lineages", "Candidates of a search: where each comes from, its scores, and how they weigh up.")


class AncestorOut(ma.Schema):
    ordinal = ma.fields.Integer()
    hash = ma.fields.String()
    operator = ma.fields.String()
    round = ma.fields.Integer()
    decision = ma.fields.String()
    reason = ma.fields.String()
    mean = ma.fields.Float(allow_none=True)
    parents = ma.fields.Raw()


class ProposalOut(ma.Schema):
    work_key = ma.fields.String()
    execution_id = ma.fields.UUID(allow_none=True, metadata={"description": "Its prompt, answer, tokens and cost"})


class EvidenceOut(ma.Schema):
    ordinal = ma.fields.Integer()
    test_case_id = ma.fields.UUID(attribute="id")
    name = ma.fields.String()


class CandidateLineageOut(CandidateOut):
    ancestors = ma.fields.List(ma.fields.Nested(AncestorOut), metadata={"description": "Nearest first, to the seed"})
    children = ma.fields.List(ma.fields.Integer(), metadata={"description": "Ordinals of those made from it"})
    proposals = ma.fields.List(
        ma.fields.Nested(ProposalOut), metadata={"description": "The calls that wrote it; an edit takes none"}
    )
    evidence = ma.fields.List(
        ma.fields.Nested(EvidenceOut), metadata={"description": "The train cases whose failures its proposer was shown"}
    )
    measured = ma.fields.Raw(metadata={"description": "train, dev, holdout: {cases, scored, mean}"})


class CandidateScoreOut(ma.Schema):
    ordinal = ma.fields.Integer()
    test_case_id = ma.fields.UUID()
    name = ma.fields.String()
    part = ma.fields.String(metadata={"description": "train, dev, watch or holdout"})
    repeat = ma.fields.Integer()
    score = ma.fields.Float(allow_none=True, metadata={"description": "null: missing, or still to come"})
    passed = ma.fields.Boolean(allow_none=True)
    feedback = ma.fields.String(allow_none=True)
    execution_id = ma.fields.UUID(allow_none=True)
    status = ma.fields.String(attribute="state", allow_none=True)
    error_type = ma.fields.String(allow_none=True)


class PointOut(ma.Schema):
    ordinal = ma.fields.Integer()
    hash = ma.fields.String()
    decision = ma.fields.String()
    score = ma.fields.Float(metadata={"description": "Weighted mean on dev"})
    cost_usd = ma.fields.Float(allow_none=True, metadata={"description": "Of a dev call; null: no price is known"})
    prompt_tokens = ma.fields.Float(metadata={"description": "Sent in a dev call, on average"})
    on_front = ma.fields.Boolean()
    dominated_by = ma.fields.List(ma.fields.Integer(), metadata={"description": "Ordinals; the first ten"})


class ParetoOut(ma.Schema):
    data = ma.fields.List(ma.fields.Nested(PointOut))
    left_out = ma.fields.Integer(metadata={"description": "Candidates that were not tried on the whole dev split"})


@blp.get("/optimizations/<uuid:optimization_id>/candidates/<candidate>")
@blp.response(200, CandidateLineageOut)
def get_candidate(optimization_id: uuid.UUID, candidate: str) -> flask.Response:
    """Read a candidate, by ordinal or hash: ancestors, the call that wrote it, what became of it and why"""
    with reading() as session:
        optimization = optimizations.get_optimization(session, caller(), optimization_id)
        found = lineages.get_candidate(session, optimization, candidate)
        lineage = lineages.lineage_of(session, optimization, found)
        beside = {field.name: getattr(lineage, field.name) for field in dataclasses.fields(lineage)}
        del beside["candidate"]
        rendered = CandidateLineageOut(only=list(beside)).dump(beside)
        return flask.jsonify({**CandidateOut().dump(found), **rendered})


@blp.get("/optimizations/<uuid:optimization_id>/candidates/<candidate>/scores")
@blp.arguments(PageQuery, location="query")
@blp.response(200, page_of(CandidateScoreOut))
def list_scores(query: dict[str, Any], optimization_id: uuid.UUID, candidate: str) -> flask.Response:
    """List what a candidate scored, by case and repeat"""
    with reading() as session:
        optimization = optimizations.get_optimization(session, caller(), optimization_id)
        found = lineages.get_candidate(session, optimization, candidate)
        page = lineages.list_scores(session, optimization, found, **query)
        rows = [{**row._mapping, "part": lineages.part_of(optimization, row.ordinal)} for row in page.data]
        return flask.jsonify(render_page(CandidateScoreOut(), page, rows))


@blp.get("/optimizations/<uuid:optimization_id>/pareto")
@blp.response(200, ParetoOut)
def get_pareto(optimization_id: uuid.UUID) -> flask.Response:
    """Weigh the candidates by score, cost and length: who is on the front, and who is beaten by whom"""
    with reading() as session:
        optimization = optimizations.get_optimization(session, caller(), optimization_id)
        points, left_out = lineages.pareto(session, optimization)
    rows = [{**dataclasses.asdict(point), "on_front": not point.dominated_by} for point in points]
    return flask.jsonify({"data": PointOut().dump(rows, many=True), "left_out": left_out})
