"""Projects of Prompt Studio. `/projects/` answers the envelope, `/projects` the bare object, as the original did."""

import uuid
from collections.abc import Mapping
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay
from app.api import Flag
from app.api.projects import STATUSES, Length, metadata_field
from app.auth import caller
from app.compat.prompt_studio import Identified, StudioPageQuery, envelope_of, enveloped, names, paged, studio_blueprint
from shared.db import reading, transaction
from shared.domain import pages, project_removal, project_stats, projects, providers
from shared.domain.project_stats import Stats
from shared.domain.tenants import Caller
from shared.errors import field_error
from shared.models import Project, ProjectStatus, Role

blp = studio_blueprint("projects", "Prompt Studio: projects.")
NAME = "prompt_studio_name"  # in a project's metadata: what the client called it, when we cannot


class StudioProjectIn(ma.Schema):
    name = ma.fields.String(required=True, validate=Length(1, names.LONGEST))
    description = ma.fields.String(allow_none=True, validate=Length(max=2000))
    status = ma.fields.String(load_default=ProjectStatus.DRAFT.value, validate=STATUSES)
    metadata = metadata_field(allow_none=True)


class StudioProjectChange(ma.Schema):
    """Only what is given is changed; `metadata` is replaced as a whole."""

    name = ma.fields.String(validate=Length(1, names.LONGEST))
    description = ma.fields.String(validate=Length(max=2000))
    status = ma.fields.String(validate=STATUSES)
    metadata = metadata_field()


class StudioProjectOut(Identified):
    name = ma.fields.Function(lambda project: names.shown(project.name, project.details.get(NAME)))
    description = ma.fields.String()
    status = ma.fields.String()
    metadata = ma.fields.Function(lambda project: _without_name(project.details))
    user_id = ma.fields.String(attribute="created_by", metadata={"description": "The name of who made it"})
    version = ma.fields.Integer(attribute="revision")
    deleted = ma.fields.Function(lambda project: project.deleted_at is not None)
    deleted_at = ma.fields.DateTime(allow_none=True)
    created_at = ma.fields.DateTime()
    updated_at = ma.fields.DateTime()
    last_modified = ma.fields.Function(lambda project: project.updated_at.isoformat())


class ListedStudioProjectOut(StudioProjectOut):
    prompt_count = ma.fields.Integer(metadata={"description": "Version rows, as /prompts/list counts them"})
    test_case_count = ma.fields.Integer()


class StudioStatsOut(ma.Schema):
    prompt_count = ma.fields.Integer(attribute="versions", metadata={"description": "Version rows"})
    signature_count = ma.fields.Constant(0, metadata={"description": "There are no signatures"})
    test_case_count = ma.fields.Integer(attribute="cases")
    golden_test_count = ma.fields.Integer(attribute="golden_cases")
    evaluation_count = ma.fields.Integer(attribute="evaluations")
    optimization_count = ma.fields.Integer(attribute="optimizations")
    total_test_runs = ma.fields.Integer(attribute="executions", metadata={"description": "Provider calls of any kind"})
    total_tokens_used = ma.fields.Integer(attribute="tokens")
    total_cost = ma.fields.Function(lambda stats: providers.usd(stats.nano), metadata={"description": "USD"})


class StudioRemovedProjectOut(ma.Schema):
    id = ma.fields.String()
    uuid = ma.fields.String()
    deleted = ma.fields.Boolean()
    permanent = ma.fields.Boolean()
    rows = ma.fields.Raw(metadata={"description": "For good: how many rows of which table"})


class StudioProjectsQuery(StudioPageQuery):
    status = ma.fields.String(load_default=None, validate=STATUSES)
    search = ma.fields.String(load_default=None, validate=Length(1, 128))
    include_deleted = Flag(load_default=False)


class StudioDeleteQuery(ma.Schema):
    permanent = Flag(load_default=False, metadata={"description": "For good, with all that is in it; role admin"})


@blp.post("/projects/")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(StudioProjectIn)
@blp.response(201, envelope_of(StudioProjectOut))
def create_project(body: dict[str, Any]) -> flask.Response:
    """Create a project; a name that is taken is a 409, never the project that has it"""
    author = caller(Role.EDITOR)
    return replay.create(author, body, 201, lambda session, _: enveloped(_create(session, author, body)))


@blp.post("/projects")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(StudioProjectIn)
@blp.response(201, StudioProjectOut)
def create_bare_project(body: dict[str, Any]) -> flask.Response:
    """Create a project, answered without the envelope"""
    author = caller(Role.EDITOR)
    return replay.create(author, body, 201, lambda session, _: _create(session, author, body))


@blp.get("/projects/")
@blp.get("/projects")
@blp.arguments(StudioProjectsQuery, location="query")
@blp.response(200, envelope_of(ListedStudioProjectOut, many=True))
def list_projects(query: dict[str, Any]) -> flask.Response:
    """List projects, newest first, with what is in each"""
    page, size, search = query.pop("page"), query.pop("per_page"), query.pop("search")
    with reading() as session:
        wanted = projects.matching(caller(), **query, search=search and names.part(search))
        found = pages.numbered(session, wanted, Project, page=page, per_page=size)
        stats = project_stats.stats_of(session, [project.id for project in found.data])
        rows = [_listed(project, stats[project.id]) for project in found.data]
    return paged(rows, page=page, per_page=size, total=found.total)


@blp.get("/projects/<uuid:project_id>")
@blp.get("/projects/get/<uuid:project_id>")
@blp.response(200, envelope_of(StudioProjectOut))
def get_project(project_id: uuid.UUID) -> flask.Response:
    """Read a project"""
    with reading() as session:
        return _answer(projects.get_project(session, caller(), str(project_id)))


@blp.put("/projects/update/<uuid:project_id>")
@blp.arguments(StudioProjectChange)
@blp.response(200, envelope_of(StudioProjectOut))
def update_project(body: dict[str, Any], project_id: uuid.UUID) -> flask.Response:
    """Change a project"""
    author = caller(Role.EDITOR)
    if not body:
        raise field_error("", "give at least one of name, description, status, metadata")
    with transaction() as session:
        project = projects.get_project(session, author, str(project_id))
        return _answer(projects.update_project(session, author, str(project_id), **_changes(project, body)))


@blp.post("/projects/archive/<uuid:project_id>")
@blp.response(200, envelope_of(StudioProjectOut))
def archive_project(project_id: uuid.UUID) -> flask.Response:
    """Close a project for changes and runs"""
    return _set_archived(project_id, archived=True)


@blp.post("/projects/unarchive/<uuid:project_id>")
@blp.response(200, envelope_of(StudioProjectOut))
def unarchive_project(project_id: uuid.UUID) -> flask.Response:
    """Open an archived project again"""
    return _set_archived(project_id, archived=False)


@blp.delete("/projects/delete/<uuid:project_id>")
@blp.arguments(StudioDeleteQuery, location="query")
@blp.response(200, envelope_of(StudioRemovedProjectOut))
def delete_project(query: dict[str, Any], project_id: uuid.UUID) -> flask.Response:
    """Hide a project, so that it can be restored, or delete it for good"""
    author, wanted = caller(Role.EDITOR), str(project_id)
    rows = None
    with transaction() as session:
        if query["permanent"]:
            rows = project_removal.remove_project(session, author, wanted)
        else:
            projects.delete_project(session, author, wanted)
    return flask.jsonify(enveloped({"id": wanted, "uuid": wanted, "deleted": True, **query, "rows": rows}))


@blp.get("/projects/stats/<uuid:project_id>")
@blp.response(200, envelope_of(StudioStatsOut))
def get_stats(project_id: uuid.UUID) -> flask.Response:
    """What is in a project, and what its runs have cost"""
    with reading() as session:
        found = projects.get_project(session, caller(), str(project_id))
        stats = project_stats.stats_of(session, [found.id])[found.id]
    return flask.jsonify(enveloped(StudioStatsOut().dump(stats)))


def _create(session: Session, author: Caller, body: Mapping[str, Any]) -> Any:
    name, details = body["name"], _without_name(body.get("metadata") or {})
    project = projects.create_project(
        session,
        author,
        name=names.ours(name),
        description=body.get("description") or "",
        status=body["status"],
        metadata=_with_name(details, name),
    )
    return StudioProjectOut().dump(project)


def _changes(project: Project, body: Mapping[str, Any]) -> dict[str, Any]:
    changes = dict(body)
    name = body.get("name", names.shown(project.name, project.details.get(NAME)))
    if "name" in body:
        changes["name"] = names.ours(name)
    if "name" in body or "metadata" in body:
        changes["metadata"] = _with_name(_without_name(body.get("metadata", project.details)), name)
    return changes


def _with_name(details: Mapping[str, Any], name: str) -> dict[str, Any]:
    return dict(details) if names.ours(name) == name else {**details, NAME: name}


def _without_name(details: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in details.items() if key != NAME}


def _set_archived(project_id: uuid.UUID, *, archived: bool) -> flask.Response:
    author = caller(Role.EDITOR)
    with transaction() as session:
        return _answer(projects.set_archived(session, author, str(project_id), archived=archived))


def _listed(project: Project, stats: Stats) -> Any:
    row = StudioProjectOut().dump(project)
    return {**row, "prompt_count": stats.versions, "test_case_count": stats.cases}


def _answer(project: Project) -> flask.Response:
    return flask.jsonify(enveloped(StudioProjectOut().dump(project)))
