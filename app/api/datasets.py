"""/v1/datasets: versioned sets of test cases, and their revisions. The cases are in `test_cases`."""

import uuid
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import preconditions, replay
from app.api import Flag, ListQuery, PageQuery, ProjectQuery, blueprint, page_of, project_field, render_page
from app.api.content import Length
from app.auth import caller
from shared.db import reading, transaction
from shared.domain import datasets
from shared.domain.tenants import Caller
from shared.errors import field_error
from shared.hashing import hash_of
from shared.models import Dataset, Role

blp = blueprint("datasets", "Test cases: what goes into a prompt, and what is expected out of it.")


class DatasetIn(ma.Schema):
    name = ma.fields.String(required=True)
    description = ma.fields.String(validate=Length(max=2000))
    project = project_field()


class DatasetPatch(ma.Schema):
    name = ma.fields.String(metadata={"description": "Renames it; cases, revisions and evaluations come along"})
    description = ma.fields.String(validate=Length(max=2000))


class DatasetOut(ma.Schema):
    dataset_id = ma.fields.UUID(attribute="id")
    name = ma.fields.String()
    description = ma.fields.String()
    project_id = ma.fields.UUID()
    revision = ma.fields.Integer(metadata={"description": "Rises with every change of a case; runs pin one"})
    case_count = ma.fields.Integer()
    created_by = ma.fields.String()
    created_at = ma.fields.DateTime()
    updated_at = ma.fields.DateTime()
    deleted_at = ma.fields.DateTime(allow_none=True)


class DatasetsQuery(ListQuery):
    include_deleted = Flag(load_default=False)


class DeleteDatasetQuery(ProjectQuery):
    permanent = Flag(load_default=False, metadata={"description": "With all cases, for good; needs the role admin"})


class RestoreDatasetIn(ma.Schema):
    name = ma.fields.String(load_default=None, metadata={"description": "Another one, when its own is taken"})


class RevisionsQuery(PageQuery, ProjectQuery):
    """One schema: each of two would refuse the fields of the other."""


class DatasetRevisionOut(ma.Schema):
    revision = ma.fields.Integer(attribute="number")
    action = ma.fields.String(metadata={"description": "imported, changed, removed, restored, collected, generated"})
    added = ma.fields.Integer(metadata={"description": "A changed case is one added and one removed"})
    removed = ma.fields.Integer()
    case_count = ma.fields.Integer()
    created_by = ma.fields.String()
    created_at = ma.fields.DateTime()


@blp.post("/datasets")
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(DatasetIn)
@blp.response(201, DatasetOut)
def create_dataset(body: dict[str, Any]) -> flask.Response:
    """Create an empty dataset"""
    author = caller(Role.EDITOR)
    return replay.create(
        author, body, 201, lambda session, _: DatasetOut().dump(datasets.create_dataset(session, author, **body))
    )


@blp.get("/datasets")
@blp.arguments(DatasetsQuery, location="query")
@blp.response(200, page_of(DatasetOut))
def list_datasets(query: dict[str, Any]) -> flask.Response:
    """List datasets, newest first"""
    with reading() as session:
        page = datasets.list_datasets(session, caller(), **query)
        return flask.jsonify(render_page(DatasetOut(), page))


@blp.get("/datasets/<name>")
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, DatasetOut)
def get_dataset(scope: dict[str, Any], name: str) -> flask.Response:
    """Read a dataset"""
    with reading() as session:
        return render(datasets.get_dataset(session, caller(), name, **scope))


@blp.patch("/datasets/<name>")
@blp.doc(parameters=[preconditions.IF_MATCH])
@blp.arguments(DatasetPatch)
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, DatasetOut)
def update_dataset(body: dict[str, Any], scope: dict[str, Any], name: str) -> flask.Response:
    """Rename or describe a dataset; this makes no revision"""
    author = caller(Role.EDITOR)
    if not body:
        raise field_error("", "give at least one of name, description")
    with transaction() as session:
        dataset = datasets.lock_dataset(session, author, name, **scope)
        preconditions.asked().check(etag_of(dataset), f"the dataset {dataset.name}")
        datasets.update_dataset(session, author, dataset, **body)
        return render(dataset)


@blp.delete("/datasets/<name>")
@blp.doc(parameters=[preconditions.IF_MATCH])
@blp.arguments(DeleteDatasetQuery, location="query")
@blp.response(200, DatasetOut)
def delete_dataset(query: dict[str, Any], name: str) -> flask.Response:
    """Delete a dataset: its name is free at once, and it can be restored by its dataset_id

    What was evaluated on it stays, and what runs goes on. With `permanent=true` it is gone for good, which is refused
    while an evaluation, optimization, batch or generation refers to it; in place of the name its dataset_id may stand.
    """
    permanent = query["permanent"]
    author = caller(Role.ADMIN if permanent else Role.EDITOR)
    with transaction() as session:
        if permanent:
            return render(datasets.destroy_dataset(session, author, _id_of(session, author, name, query["project"])))
        dataset = datasets.lock_dataset(session, author, name, project=query["project"])
        preconditions.asked().check(etag_of(dataset), f"the dataset {dataset.name}")
        datasets.delete_dataset(session, author, dataset)
        return render(dataset)


@blp.post("/datasets/<uuid:dataset_id>/restore")
@blp.arguments(RestoreDatasetIn)
@blp.response(200, DatasetOut)
def restore_dataset(body: dict[str, Any], dataset_id: uuid.UUID) -> flask.Response:
    """Bring a deleted dataset back as it was, under another name if its own is taken"""
    author = caller(Role.EDITOR)
    with transaction() as session:
        return render(datasets.restore_dataset(session, author, dataset_id, name=body["name"]))


@blp.get("/datasets/<name>/revisions")
@blp.arguments(RevisionsQuery, location="query")
@blp.response(200, page_of(DatasetRevisionOut))
def list_revisions(query: dict[str, Any], name: str) -> flask.Response:
    """List what made each revision of a dataset, newest first"""
    with reading() as session:
        dataset = datasets.get_dataset(session, caller(), name, project=query.pop("project"))
        return flask.jsonify(render_page(DatasetRevisionOut(), datasets.list_revisions(session, dataset, **query)))


def _id_of(session: Session, author: Caller, name: str, project: str | None) -> uuid.UUID:
    try:
        return uuid.UUID(name)  # never a name: those that look like one are refused
    except ValueError:
        return datasets.get_dataset(session, author, name, project=project, writing=True).id


def etag_of(dataset: Dataset) -> str:
    """Changes with the row's own fields, and not with the cases: those have their own."""
    return hash_of([str(dataset.id), dataset.name, dataset.description, dataset.deleted_at is None])[:32]


def render(dataset: Dataset) -> flask.Response:
    return preconditions.tagged(flask.jsonify(DatasetOut().dump(dataset)), etag_of(dataset))
