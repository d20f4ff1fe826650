"""/api/v1/prompts/{id}/relationships and /api/v1/relationships: under the older names of their types."""

import uuid
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay
from app.api import Decimal, Digits, Strict
from app.api.relationships import check_metadata
from app.auth import caller
from app.bodies import json_body
from app.compat.prompt_store import (
    CURL,
    ActorQuery,
    answer,
    blueprint,
    either,
    enveloped,
    find,
    home,
    id_of,
    required,
    wrapped,
)
from shared.db import reading, transaction
from shared.domain import prompts, relationships
from shared.domain.relationships import ALIASES, TYPES, Edge, type_of
from shared.errors import NotFound, PromptmillError, field_error
from shared.models import Prompt, Role

blp = blueprint("relationships", "how prompts hang together.")
OLDER = {ours: theirs for theirs, ours in ALIASES.items()}
DIRECTIONS = {"outgoing": "out", "incoming": "in", "both": "both"}
MOST = 1_000


class StoreRelationIn(ma.Schema):
    target_prompt_id = ma.fields.String(required=True)
    relationship_type = ma.fields.String(required=True)
    strength = Strict(load_default=1.0, validate=ma.validate.Range(0, 1))
    metadata = ma.fields.Dict(keys=ma.fields.String(), load_default=None, allow_none=True)


class StoreRelationOut(ma.Schema):
    id = ma.fields.String()
    relationship_id = ma.fields.String(metadata={"description": "The same"})
    source_prompt_id = ma.fields.String()
    target_prompt_id = ma.fields.String()
    relationship_type = ma.fields.String()
    strength = ma.fields.Float()
    metadata = ma.fields.Raw()
    created_by = ma.fields.String()
    created_at = ma.fields.DateTime()
    updated_at = ma.fields.DateTime()


class StoreDirectionQuery(ma.Schema):
    direction = ma.fields.String(load_default="both", validate=ma.validate.OneOf(list(DIRECTIONS)))


class StoreRelationsOut(ma.Schema):
    prompt_id = ma.fields.String()
    outgoing_relationships = ma.fields.List(ma.fields.Nested(StoreRelationOut))
    incoming_relationships = ma.fields.List(ma.fields.Nested(StoreRelationOut))
    total_relationships = ma.fields.Integer(metadata={"description": "Those shown"})
    has_more = ma.fields.Boolean(metadata={"description": "There are more than the newest 1,000 of a direction"})


class StoreStrengthQuery(ActorQuery):
    strength = Decimal(validate=ma.validate.Range(0, 1))


class StoreStrengthIn(ma.Schema):
    strength = Strict(validate=ma.validate.Range(0, 1))


class StoreStrengthOut(StoreRelationOut):
    new_strength = ma.fields.Float()
    updated_by = ma.fields.String()


class StoreRelationDeletedOut(ma.Schema):
    relationship_id = ma.fields.String()
    deleted = ma.fields.Boolean()
    deleted_by = ma.fields.String()


class StoreDepthQuery(ma.Schema):
    depth = Digits(load_default=2, validate=ma.validate.Range(1, 5))


class StoreNodeOut(ma.Schema):
    id = ma.fields.String()
    name = ma.fields.String()
    category = ma.fields.String()
    lifecycle_status = ma.fields.String()


class StoreEdgeOut(ma.Schema):
    id = ma.fields.String()
    source = ma.fields.String()
    target = ma.fields.String()
    type = ma.fields.String()
    strength = ma.fields.Float()


class StoreGraphOut(ma.Schema):
    root_prompt_id = ma.fields.String()
    nodes = ma.fields.List(ma.fields.Nested(StoreNodeOut))
    edges = ma.fields.List(ma.fields.Nested(StoreEdgeOut), metadata={"description": "Each once"})
    depth = ma.fields.Integer()
    total_nodes = ma.fields.Integer()
    total_edges = ma.fields.Integer()
    is_complete = ma.fields.Boolean(metadata={"description": "False: more is within this depth than is shown"})


class StoreStatsOut(ma.Schema):
    relationship_counts = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.Integer())
    total_relationships = ma.fields.Integer()
    valid_types = ma.fields.List(ma.fields.String())


class StoreRelatedQuery(ma.Schema):
    relationship_types = ma.fields.String(
        metadata={"description": "One, or several between commas; or a list of them as the body"}
    )
    min_strength = Decimal(load_default=0.0, validate=ma.validate.Range(0, 1))


class StoreRelatedPromptOut(ma.Schema):
    prompt_id = ma.fields.String()
    name = ma.fields.String()
    category = ma.fields.String()
    relationship_type = ma.fields.String()
    strength = ma.fields.Float()
    direction = ma.fields.String()


class StoreRelatedOut(ma.Schema):
    source_prompt_id = ma.fields.String()
    related_prompts = ma.fields.List(ma.fields.Nested(StoreRelatedPromptOut))
    total_related = ma.fields.Integer()
    filters = ma.fields.Raw()


class StoreCheckQuery(ma.Schema):
    source_prompt_id = ma.fields.String()
    target_prompt_id = ma.fields.String()
    relationship_type = ma.fields.String()


class StoreCheckIn(StoreCheckQuery):
    """The same as in the query."""


class StoreCheckOut(StoreCheckQuery):
    valid = ma.fields.Boolean()
    issues = ma.fields.List(ma.fields.String())


@blp.post("/prompts/<prompt_id>/relationships")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(StoreRelationIn)
@blp.arguments(ActorQuery, location="query")
@blp.response(201, enveloped(StoreRelationOut))
def store_relate(body: dict[str, Any], query: dict[str, Any], prompt_id: str) -> flask.Response:
    """Relate a prompt to another one; 409 when it is already, or when it would close a circle"""
    author = caller(Role.EDITOR)
    check_metadata(body)

    def make(session: Session, _: Any) -> Any:
        return _edge(_relate(session, prompt_id, body))

    return wrapped(replay.create(author, body, 201, make), "Relationship created successfully")


@blp.get("/prompts/<prompt_id>/relationships")
@blp.arguments(StoreDirectionQuery, location="query")
@blp.response(200, enveloped(StoreRelationsOut))
def store_relations(query: dict[str, Any], prompt_id: str) -> flask.Response:
    """List a prompt's relationships by direction, newest first"""
    wanted, shown, more = DIRECTIONS[query["direction"]], {}, False
    with reading() as session:
        prompt = find(session, caller(), prompt_id)
        for direction in ("out", "in"):
            edges, rest = _edges(session, prompt, direction) if wanted in (direction, "both") else ([], False)
            shown[direction], more = [_edge(edge) for edge in edges], more or rest
    data = {
        "prompt_id": str(prompt.id),
        "outgoing_relationships": shown["out"],
        "incoming_relationships": shown["in"],
        "total_relationships": len(shown["out"]) + len(shown["in"]),
        "has_more": more,
    }
    return answer(data, "Relationships retrieved successfully")


@blp.put("/relationships/<relationship_id>/strength")
@blp.arguments(StoreStrengthIn)
@blp.arguments(StoreStrengthQuery, location="query")
@blp.response(200, enveloped(StoreStrengthOut))
def store_strength(body: dict[str, Any], query: dict[str, Any], relationship_id: str) -> flask.Response:
    """Change the strength of a relationship; 404 when there is none"""
    author = caller(Role.EDITOR)
    given = either({name: value for name, value in query.items() if name == "strength"}, body)
    required(given, "strength")
    wanted = id_of(relationship_id, "relationship")
    with transaction() as session:
        source = _source(session, relationship_id)
        edge = relationships.update(session, author, source, wanted, {"strength": given["strength"]})
        data = {**_edge(edge), "new_strength": edge.relationship.strength, "updated_by": author.user_name}
        return answer(data, "Relationship strength updated successfully")


@blp.delete("/relationships/<relationship_id>")
@blp.arguments(ActorQuery, location="query")
@blp.response(200, enveloped(StoreRelationDeletedOut))
def store_unrelate(query: dict[str, Any], relationship_id: str) -> flask.Response:
    """Delete a relationship; 404 when there is none"""
    author = caller(Role.EDITOR)
    with transaction() as session:
        source = _source(session, relationship_id)
        relationships.delete(session, author, source, id_of(relationship_id, "relationship"))
    data = {"relationship_id": relationship_id, "deleted": True, "deleted_by": author.user_name}
    return answer(data, "Relationship deleted successfully")


@blp.get("/prompts/<prompt_id>/relationships/graph")
@blp.arguments(StoreDepthQuery, location="query")
@blp.response(200, enveloped(StoreGraphOut))
def store_graph(query: dict[str, Any], prompt_id: str) -> flask.Response:
    """Show the prompts around a prompt, to a depth"""
    with reading() as session:
        prompt = find(session, caller(), prompt_id)
        found = relationships.graph(session, caller(), prompt, depth=query["depth"])
    nodes = [_node(node.prompt) for node in found.nodes]
    edges = [_line(edge) for edge in found.edges]
    counts = {"depth": query["depth"], "total_nodes": len(nodes), "total_edges": len(edges)}
    data = {"root_prompt_id": str(prompt.id), "nodes": nodes, "edges": edges, **counts}
    return answer({**data, "is_complete": found.is_complete}, "Relationship graph retrieved successfully")


@blp.get("/relationships/stats")
@blp.response(200, enveloped(StoreStatsOut))
def store_relation_stats() -> flask.Response:
    """How many relationships of each type there are"""
    with reading() as session:
        counts = {_older(kind): n for kind, n in relationships.count_by_type(session, caller()).items()}
    data = {
        "relationship_counts": counts,
        "total_relationships": sum(counts.values()),
        "valid_types": [_older(kind) for kind in TYPES],
    }
    return answer(data, "Relationship statistics retrieved successfully")


@blp.get("/prompts/<prompt_id>/related")
@blp.arguments(StoreRelatedQuery, location="query")
@blp.response(200, enveloped(StoreRelatedOut))
def store_related(query: dict[str, Any], prompt_id: str) -> flask.Response:
    """List the prompts at the other ends of a prompt's relationships"""
    asked = _types(query)
    types = None if asked is None else [type_of(name, "?relationship_types") for name in asked]
    options = {"types": types, "min_strength": query["min_strength"]}
    with reading() as session:
        prompt = find(session, caller(), prompt_id)
        edges = [(way, edge) for way in ("out", "in") for edge in _edges(session, prompt, way, **options)[0]]
        ends = prompts.rows_of(session, [_other(way, edge) for way, edge in edges])
    related = [_related(ends[_other(way, edge)], way, edge) for way, edge in edges]
    data = {
        "source_prompt_id": str(prompt.id),
        "related_prompts": related,
        "total_related": len(related),
        "filters": {"relationship_types": asked, "min_strength": query["min_strength"]},
    }
    return answer(data, "Related prompts retrieved successfully")


@blp.post("/relationships/validate")
@blp.arguments(StoreCheckIn)
@blp.arguments(StoreCheckQuery, location="query")
@blp.response(200, enveloped(StoreCheckOut))
def store_check_relation(body: dict[str, Any], query: dict[str, Any]) -> flask.Response:
    """Say whether a relationship could be created, and if not why; nothing is stored"""
    caller(Role.EDITOR)
    given = either(query, body)
    required(given, "source_prompt_id", "target_prompt_id", "relationship_type")
    issues = []
    wanted = {name: given[name] for name in ("target_prompt_id", "relationship_type")}
    try:
        with transaction() as session:
            _relate(session, given["source_prompt_id"], {**wanted, "strength": 1.0, "metadata": None})
            session.rollback()
    except PromptmillError as error:
        issues.append(error.detail or error.title())
    return answer({"valid": not issues, "issues": issues, **given}, "Relationship validated")


def _relate(session: Session, prompt_id: str, body: dict[str, Any]) -> Edge:
    author = caller(Role.EDITOR)
    source = find(session, author, prompt_id)
    kind = type_of(body["relationship_type"], "/relationship_type")
    try:
        target = find(session, author, body["target_prompt_id"])
    except NotFound as error:
        raise NotFound(error.detail, fields=["target_prompt_id"]) from error
    if target.id == source.id:
        raise field_error("/target_prompt_id", "a prompt has no relationship with itself")
    options = {"type": kind, "strength": body["strength"], "metadata": body["metadata"]}
    return relationships.create(session, author, source, target=target.name, **options)


def _source(session: Session, relationship_id: str) -> Prompt:
    """The prompt that it begins at, which must be one that these addresses show."""
    found = relationships.source_of(session, caller(), id_of(relationship_id, "relationship"))
    return prompts.get_by_id(session, caller(), found.id, project=home())


def _edges(session: Session, prompt: Prompt, direction: str, **options: Any) -> tuple[list[Edge], bool]:
    found = relationships.list_relationships(
        session, caller(), prompt, direction=direction, limit=MOST, cursor=None, **options
    )
    return list(found.data), found.next_cursor is not None


def _types(query: dict[str, Any]) -> list[str] | None:
    if "relationship_types" in query:
        return [name.strip() for name in query["relationship_types"].split(",")]
    given = json_body(flask.request, also=[CURL])
    if given == {}:
        return None
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise field_error("", "must be a list of relationship types")
    return given


def _older(kind: str) -> str:
    return OLDER.get(kind, kind)


def _edge(edge: Edge) -> Any:
    row = edge.relationship
    ends = {"source_prompt_id": row.source_id, "target_prompt_id": row.target_id}
    kept = {name: getattr(row, name) for name in ("strength", "created_by", "created_at", "updated_at")}
    named = {"id": row.id, "relationship_id": row.id, "relationship_type": _older(row.type), "metadata": row.details}
    return StoreRelationOut().dump({**ends, **kept, **named})


def _line(edge: Edge) -> Any:
    row = edge.relationship
    ends = {"source": row.source_id, "target": row.target_id}
    return StoreEdgeOut().dump({"id": row.id, **ends, "type": _older(row.type), "strength": row.strength})


def _node(prompt: Prompt) -> Any:
    fields = {"id": prompt.id, "name": prompt.name, "category": prompt.category}
    return StoreNodeOut().dump({**fields, "lifecycle_status": prompt.lifecycle})


def _other(way: str, edge: Edge) -> uuid.UUID:
    return edge.relationship.target_id if way == "out" else edge.relationship.source_id


def _related(other: Prompt, way: str, edge: Edge) -> dict[str, Any]:
    return {
        "prompt_id": str(other.id),
        "name": other.name,
        "category": other.category,
        "relationship_type": _older(edge.relationship.type),
        "strength": edge.relationship.strength,
        "direction": "outgoing" if way == "out" else "incoming",
    }
