"""/v1/prompts/{name}/relationships, graph and impact: how prompts hang together."""

from typing import Any

import flask
import marshmallow as ma

from app import replay
from app.api import Decimal, Digits, PageQuery, ProjectQuery, Strict, blueprint, page_of, project_field, render_page
from app.api.content import Length
from app.api.labels import LabelOut, rendered
from app.auth import caller
from shared.db import reading, transaction
from shared.domain import prompts, relationships
from shared.domain.relationships import DIRECTIONS, Edge, Impact, InFlight, type_of
from shared.errors import field_error
from shared.hashing import dump_json
from shared.models import Prompt, Role

blp = blueprint("relationships", "How prompts hang together, and who is touched when one changes.")
MOST_METADATA_BYTES = 10_000


class RelationshipChange(ma.Schema):
    strength = Strict(validate=ma.validate.Range(0, 1), metadata={"description": "From 0 to 1; 1 if left out"})
    note = ma.fields.String(validate=Length(max=2_000))
    metadata = ma.fields.Dict(keys=ma.fields.String(), metadata={"description": "Up to 10,000 bytes of JSON"})


class RelationshipIn(RelationshipChange):
    target = ma.fields.String(required=True, validate=Length(1, 128), metadata={"description": "Name of a prompt"})
    target_project = project_field(metadata={"description": "Name or id; the project of the prompt if left out"})
    type = ma.fields.String(
        required=True, metadata={"description": f"{', '.join(relationships.TYPES)}; or an older name of one"}
    )


class RelationshipOut(ma.Schema):
    relationship_id = ma.fields.UUID()
    source = ma.fields.String(metadata={"description": "Name of the prompt that extends, references…"})
    source_id = ma.fields.UUID()
    target = ma.fields.String(metadata={"description": "Name of the prompt that is extended, referenced…"})
    target_id = ma.fields.UUID()
    type = ma.fields.String()
    strength = ma.fields.Float()
    note = ma.fields.String()
    metadata = ma.fields.Raw()
    created_by = ma.fields.String()
    created_at = ma.fields.DateTime()
    updated_at = ma.fields.DateTime()


class RelationshipsQuery(PageQuery, ProjectQuery):
    direction = ma.fields.String(load_default="both", validate=ma.validate.OneOf(DIRECTIONS))
    type = ma.fields.String(load_default=None, metadata={"description": "One, or several between commas"})
    min_strength = Decimal(load_default=0.0, validate=ma.validate.Range(0, 1))


class GraphQuery(ProjectQuery):
    depth = Digits(load_default=2, validate=ma.validate.Range(1, 5))
    type = ma.fields.String(load_default=None, metadata={"description": "One, or several between commas"})


class NodeOut(ma.Schema):
    prompt_id = ma.fields.UUID()
    name = ma.fields.String()
    project_id = ma.fields.UUID()
    category = ma.fields.String()
    lifecycle = ma.fields.String()
    depth = ma.fields.Integer(metadata={"description": "Fewest steps from the prompt that was asked about"})


class GraphOut(ma.Schema):
    nodes = ma.fields.List(ma.fields.Nested(NodeOut))
    edges = ma.fields.List(ma.fields.Nested(RelationshipOut))
    is_complete = ma.fields.Boolean(metadata={"description": "False: more is within this depth than is shown"})


class StepOut(ma.Schema):
    type = ma.fields.String()
    name = ma.fields.String(metadata={"description": "The prompt that this step reaches"})


class DependentOut(NodeOut):
    path = ma.fields.List(ma.fields.Nested(StepOut), metadata={"description": "From the prompt that changes"})
    strength = ma.fields.Float(metadata={"description": "The product of the strengths on the path"})


class InFlightOut(ma.Schema):
    total = ma.fields.Integer()
    ids = ma.fields.List(ma.fields.UUID(), metadata={"description": "The newest twenty"})


class RecentUseOut(ma.Schema):
    since = ma.fields.DateTime()
    total = ma.fields.Integer()
    open = ma.fields.Integer(metadata={"description": "Queued or running"})
    by_environment = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.Integer())
    is_complete = ma.fields.Boolean(metadata={"description": "False: only the newest `total` are counted"})


class ImpactOut(ma.Schema):
    dependents = ma.fields.List(ma.fields.Nested(DependentOut), metadata={"description": "Most touched first"})
    is_complete = ma.fields.Boolean(metadata={"description": "False: there are more dependents than are shown"})
    labels = ma.fields.List(ma.fields.Nested(LabelOut))
    evaluations = ma.fields.Nested(InFlightOut)
    optimizations = ma.fields.Nested(InFlightOut)
    batches = ma.fields.Nested(InFlightOut)
    executions = ma.fields.Nested(RecentUseOut)


@blp.post("/prompts/<name>/relationships")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(RelationshipIn)
@blp.arguments(ProjectQuery, location="query")
@blp.response(201, RelationshipOut)
def create_relationship(body: dict[str, Any], scope: dict[str, Any], name: str) -> flask.Response:
    """Relate a prompt to another one"""
    author = caller(Role.EDITOR)
    check_metadata(body)

    def make(session: Any, _: Any) -> Any:
        prompt = prompts.get_prompt(session, author, name, **scope)
        return _edge(relationships.create(session, author, prompt, **body))

    return replay.create(author, body, 201, make)


@blp.get("/prompts/<name>/relationships")
@blp.arguments(RelationshipsQuery, location="query")
@blp.response(200, page_of(RelationshipOut))
def list_relationships(query: dict[str, Any], name: str) -> flask.Response:
    """List a prompt's relationships, newest first"""
    types = _types(query.pop("type"))
    with reading() as session:
        prompt = prompts.get_prompt(session, caller(), name, project=query.pop("project"))
        page = relationships.list_relationships(session, caller(), prompt, types=types, **query)
        return flask.jsonify(render_page(RelationshipOut(), page, [_row(edge) for edge in page.data]))


@blp.get("/prompts/<name>/relationships/<uuid:relationship_id>")
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, RelationshipOut)
def get_relationship(scope: dict[str, Any], name: str, relationship_id: Any) -> flask.Response:
    """Read one relationship, from either end"""
    with reading() as session:
        prompt = prompts.get_prompt(session, caller(), name, **scope)
        return flask.jsonify(_edge(relationships.get_relationship(session, caller(), prompt, relationship_id)))


@blp.patch("/prompts/<name>/relationships/<uuid:relationship_id>")
@blp.arguments(RelationshipChange)
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, RelationshipOut)
def update_relationship(body: dict[str, Any], scope: dict[str, Any], name: str, relationship_id: Any) -> flask.Response:
    """Change strength, note or metadata; what is left out stays"""
    author = caller(Role.EDITOR)
    check_metadata(body)
    with transaction() as session:
        prompt = prompts.get_prompt(session, author, name, **scope)
        return flask.jsonify(_edge(relationships.update(session, author, prompt, relationship_id, body)))


@blp.delete("/prompts/<name>/relationships/<uuid:relationship_id>")
@blp.arguments(ProjectQuery, location="query")
@blp.response(204)
def delete_relationship(scope: dict[str, Any], name: str, relationship_id: Any) -> flask.Response:
    """Delete a relationship"""
    author = caller(Role.EDITOR)
    with transaction() as session:
        prompt = prompts.get_prompt(session, author, name, **scope)
        relationships.delete(session, author, prompt, relationship_id)
    return flask.Response(status=204)


@blp.get("/prompts/<name>/graph")
@blp.arguments(GraphQuery, location="query")
@blp.response(200, GraphOut)
def get_graph(query: dict[str, Any], name: str) -> flask.Response:
    """Show the prompts around a prompt, to a depth"""
    types = _types(query["type"])
    with reading() as session:
        prompt = prompts.get_prompt(session, caller(), name, project=query["project"])
        found = relationships.graph(session, caller(), prompt, depth=query["depth"], types=types)
    return flask.jsonify(
        {
            "nodes": [_node(node.prompt, node.depth) for node in found.nodes],
            "edges": [_edge(edge) for edge in found.edges],
            "is_complete": found.is_complete,
        }
    )


@blp.get("/prompts/<name>/impact")
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, ImpactOut)
def get_impact(scope: dict[str, Any], name: str) -> flask.Response:
    """Show who breaks if a prompt changes"""
    with reading() as session:
        prompt = prompts.get_prompt(session, caller(), name, **scope)
        return flask.jsonify(_impact(relationships.impact(session, caller(), prompt)))


def _types(given: str | None) -> list[str] | None:
    if given is None:
        return None
    return [type_of(name.strip(), "?type") for name in given.split(",")]


def check_metadata(body: dict[str, Any]) -> None:
    if len(dump_json(body.get("metadata") or {}).encode()) > MOST_METADATA_BYTES:
        raise field_error("/metadata", f"is larger than {MOST_METADATA_BYTES:,} bytes")


def _row(edge: Edge) -> dict[str, Any]:
    row = edge.relationship
    return {
        "relationship_id": row.id,
        "source": edge.source,
        "source_id": row.source_id,
        "target": edge.target,
        "target_id": row.target_id,
        "type": row.type,
        "strength": row.strength,
        "note": row.note,
        "metadata": row.details,
        "created_by": row.created_by,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def _edge(edge: Edge) -> Any:
    return RelationshipOut().dump(_row(edge))


def _node(prompt: Prompt, depth: int) -> dict[str, Any]:
    fields = {"prompt_id": prompt.id, "project_id": prompt.project_id, "category": prompt.category}
    return NodeOut().dump({**fields, "name": prompt.name, "lifecycle": prompt.lifecycle, "depth": depth})


def _impact(found: Impact) -> Any:
    def in_flight(work: InFlight) -> Any:
        return {"total": work.total, "ids": [str(work_id) for work_id in work.ids]}

    usage = RecentUseOut().dump(found.usage)
    return {
        "dependents": [
            {
                **_node(one.prompt, one.depth),
                "path": [{"type": kind, "name": name} for kind, name in one.path],
                "strength": one.strength,
            }
            for one in found.dependents
        ],
        "is_complete": found.is_complete,
        "labels": rendered(found.labels),
        "evaluations": in_flight(found.evaluations),
        "optimizations": in_flight(found.optimizations),
        "batches": in_flight(found.batches),
        "executions": usage,
    }
