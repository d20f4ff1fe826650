"""/v1/projects: they group prompts, datasets and runs."""

from typing import Any

import flask
import marshmallow as ma

from app import replay
from app.api import PageQuery, blueprint, page_of, render_page
from app.auth import caller
from shared.db import reading
from shared.domain import projects
from shared.models import Role

blp = blueprint("projects", "Projects group prompts, datasets and runs.")


class ProjectIn(ma.Schema):
    name = ma.fields.String(required=True)
    description = ma.fields.String(load_default="", validate=ma.validate.Length(max=2000))


class ProjectOut(ma.Schema):
    project_id = ma.fields.UUID(attribute="id")
    name = ma.fields.String()
    description = ma.fields.String()
    created_by = ma.fields.String()
    created_at = ma.fields.DateTime()
    updated_at = ma.fields.DateTime()


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
@blp.arguments(PageQuery, location="query")
@blp.response(200, page_of(ProjectOut))
def list_projects(query: dict[str, Any]) -> flask.Response:
    """List projects, newest first"""
    with reading() as session:
        page = projects.list_projects(session, caller(), **query)
        return flask.jsonify(render_page(ProjectOut(), page))


@blp.get("/projects/<project>")
@blp.response(200, ProjectOut)
def get_project(project: str) -> flask.Response:
    """Read a project by name or id"""
    with reading() as session:
        return flask.jsonify(ProjectOut().dump(projects.get_project(session, caller(), project)))
