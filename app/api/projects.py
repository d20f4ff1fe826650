"""/v1/projects: they group prompts, datasets and runs."""

from typing import Any

import flask
import marshmallow as ma

from app import preconditions, replay
from app.api import Flag, PageQuery, blueprint, page_of, render_page
from app.auth import caller
from app.preconditions import IF_MATCH
from shared.db import reading, transaction
from shared.domain import project_removal, project_stats, projects, providers
from shared.errors import field_error
from shared.hashing import dump_json
from shared.models import Project, ProjectStatus, Role

blp = blueprint("projects", "Projects group prompts, datasets and runs.")
Length = ma.validate.Length
STATUSES = ma.validate.OneOf([status.value for status in ProjectStatus])
MAX_METADATA_BYTES = 16_000


def check_metadata(metadata: dict[str, Any]) -> None:
    if len(dump_json(metadata).encode()) > MAX_METADATA_BYTES:
        raise ma.ValidationError(f"must not be longer than {MAX_METADATA_BYTES:,} bytes of JSON")


def metadata_field(**kwargs: Any) -> ma.fields.Dict:
    return ma.fields.Dict(keys=ma.fields.String(), validate=check_metadata, **kwargs)


class ProjectIn(ma.Schema):
    name = ma.fields.String(required=True)
    description = ma.fields.String(load_default="", validate=Length(max=2000))
    status = ma.fields.String(load_default=ProjectStatus.ACTIVE.value, validate=STATUSES)
    metadata = metadata_field(load_default=dict)


class ProjectPatch(ma.Schema):
    """Only what is given is changed; `metadata` is replaced as a whole."""

    name = ma.fields.String()
    description = ma.fields.String(validate=Length(max=2000))
    status = ma.fields.String(validate=STATUSES)
    metadata = metadata_field()


class RestoreIn(ma.Schema):
    name = ma.fields.String(metadata={"description": "Another name, when its own is taken"})


class ProjectOut(ma.Schema):
    project_id = ma.fields.UUID(attribute="id")
    name = ma.fields.String()
    description = ma.fields.String()
    status = ma.fields.String()
    metadata = ma.fields.Raw(attribute="details")
    revision = ma.fields.Integer(metadata={"description": "Raised by each change of the project; its ETag"})
    created_by = ma.fields.String()
    created_at = ma.fields.DateTime()
    updated_at = ma.fields.DateTime()
    deleted_at = ma.fields.DateTime(allow_none=True)


class StatsOut(ma.Schema):
    prompts = ma.fields.Integer()
    versions = ma.fields.Integer()
    datasets = ma.fields.Integer()
    cases = ma.fields.Integer(metadata={"description": "In the newest revisions of the datasets"})
    golden_cases = ma.fields.Integer()
    evaluations = ma.fields.Integer()
    optimizations = ma.fields.Integer()
    executions = ma.fields.Integer(metadata={"description": "Those of evaluations and optimizations too"})
    tokens = ma.fields.Integer()
    cost_usd = ma.fields.Function(lambda stats: providers.usd(stats.nano))


class RemovedOut(ma.Schema):
    deleted = ma.fields.Dict(
        keys=ma.fields.String(), values=ma.fields.Integer(), metadata={"description": "Rows by table"}
    )


class ProjectsQuery(PageQuery):
    status = ma.fields.String(load_default=None, validate=STATUSES)
    search = ma.fields.String(
        load_default=None, validate=Length(1, 128), metadata={"description": "A part of the name, in any case"}
    )
    include_deleted = Flag(load_default=False)


class ReadQuery(ma.Schema):
    include_deleted = Flag(load_default=False, metadata={"description": "A deleted one too, by its id"})


class DeleteQuery(ma.Schema):
    permanent = Flag(load_default=False, metadata={"description": "With all that is in it, for good"})


@blp.post("/projects")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(ProjectIn)
@blp.response(201, ProjectOut)
def create_project(body: dict[str, Any]) -> flask.Response:
    """Create a project"""
    author = caller(Role.EDITOR)
    return replay.create(
        author, body, 201, lambda session, _: ProjectOut().dump(projects.create_project(session, author, **body))
    )


@blp.get("/projects")
@blp.arguments(ProjectsQuery, location="query")
@blp.response(200, page_of(ProjectOut))
def list_projects(query: dict[str, Any]) -> flask.Response:
    """List projects, newest first"""
    with reading() as session:
        page = projects.list_projects(session, caller(), **query)
        return flask.jsonify(render_page(ProjectOut(), page))


@blp.get("/projects/<project>")
@blp.arguments(ReadQuery, location="query")
@blp.response(200, ProjectOut)
def get_project(query: dict[str, Any], project: str) -> flask.Response:
    """Read a project by name or id"""
    with reading() as session:
        return _project(projects.get_project(session, caller(), project, **query))


@blp.get("/projects/<project>/stats")
@blp.response(200, StatsOut)
def get_stats(project: str) -> flask.Response:
    """What is in a project, and what its runs have cost"""
    with reading() as session:
        found = projects.get_project(session, caller(), project)
        return flask.jsonify(StatsOut().dump(project_stats.stats_of(session, [found.id])[found.id]))


@blp.patch("/projects/<project>")
@blp.doc(parameters=[IF_MATCH])
@blp.arguments(ProjectPatch)
@blp.response(200, ProjectOut)
def update_project(body: dict[str, Any], project: str) -> flask.Response:
    """Change a project"""
    author = caller(Role.EDITOR)
    if not body:
        raise field_error("", "give at least one of name, description, status, metadata")
    with transaction() as session:
        return _project(projects.update_project(session, author, project, **body, precondition=preconditions.asked()))


@blp.post("/projects/<project>/archive")
@blp.doc(parameters=[IF_MATCH])
@blp.response(200, ProjectOut)
def archive_project(project: str) -> flask.Response:
    """Close a project for changes and runs; it can be read, and what runs goes on to its end"""
    return _archive(project, archived=True)


@blp.post("/projects/<project>/unarchive")
@blp.doc(parameters=[IF_MATCH])
@blp.response(200, ProjectOut)
def unarchive_project(project: str) -> flask.Response:
    """Open an archived project again"""
    return _archive(project, archived=False)


@blp.delete("/projects/<project>")
@blp.doc(parameters=[IF_MATCH])
@blp.arguments(DeleteQuery, location="query")
@blp.response(204)
@blp.alt_response(200, schema=RemovedOut, description="It was deleted for good, with these rows")
def delete_project(query: dict[str, Any], project: str) -> flask.Response:
    """Delete a project, so that it can be restored, or for good

    A deleted project is hidden with all that is in it, and its name is free. `permanent=true` takes the role
    admin, and is refused while a run in it has not ended.
    """
    author = caller(Role.EDITOR)
    with transaction() as session:
        if query["permanent"]:
            removed = project_removal.remove_project(session, author, project, precondition=preconditions.asked())
            return flask.jsonify({"deleted": removed})
        projects.delete_project(session, author, project, precondition=preconditions.asked())
        return flask.Response(status=204)


@blp.post("/projects/<project>/restore")
@blp.doc(parameters=[IF_MATCH])
@blp.arguments(RestoreIn)
@blp.response(200, ProjectOut)
def restore_project(body: dict[str, Any], project: str) -> flask.Response:
    """Bring a deleted project back, by its id or the name that it had; 409 while the name is taken"""
    author = caller(Role.EDITOR)
    with transaction() as session:
        return _project(projects.restore_project(session, author, project, **body, precondition=preconditions.asked()))


def _archive(project: str, *, archived: bool) -> flask.Response:
    author = caller(Role.EDITOR)
    with transaction() as session:
        return _project(
            projects.set_archived(session, author, project, archived=archived, precondition=preconditions.asked())
        )


def _project(project: Project) -> flask.Response:
    return preconditions.tagged(flask.jsonify(ProjectOut().dump(project)), projects.etag_of(project))
