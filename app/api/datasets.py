"""/v1/datasets: versioned test cases."""

from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay
from app.api import ListQuery, PageQuery, ProjectQuery, blueprint, page_of, project_field, render_page
from app.auth import caller
from app.bodies import json_body, raw_body, unsupported
from shared.db import reading
from shared.domain import datasets
from shared.domain.datasets import NewCase
from shared.domain.names import is_name
from shared.errors import NotFound, field_error
from shared.hashing import sha256
from shared.models import Role

blp = blueprint("datasets", "Test cases: what goes into a prompt, and what is expected out of it.")
MAX_IMPORT_BYTES = 20_000_000


class DatasetIn(ma.Schema):
    name = ma.fields.String(required=True)
    description = ma.fields.String(validate=ma.validate.Length(max=2000))
    project = project_field()


class DatasetOut(ma.Schema):
    dataset_id = ma.fields.UUID(attribute="id")
    name = ma.fields.String()
    description = ma.fields.String()
    project_id = ma.fields.UUID()
    revision = ma.fields.Integer(metadata={"description": "Rises with every import that adds a case; runs pin one"})
    case_count = ma.fields.Integer()
    created_by = ma.fields.String()
    created_at = ma.fields.DateTime()
    updated_at = ma.fields.DateTime()


class CasesQuery(PageQuery, ProjectQuery):
    """One schema: each of two would refuse the fields of the other."""


class CaseOut(ma.Schema):
    test_case_id = ma.fields.UUID(attribute="id")
    ordinal = ma.fields.Integer()
    name = ma.fields.String()
    inputs = ma.fields.Raw()
    expected = ma.fields.Raw(allow_none=True)
    tags = ma.fields.Raw()
    group = ma.fields.String(allow_none=True)
    weight = ma.fields.Float()
    golden = ma.fields.Boolean()
    content_hash = ma.fields.String()


class ImportOut(ma.Schema):
    dataset = ma.fields.Nested(DatasetOut)
    added = ma.fields.Integer()
    duplicates = ma.fields.List(
        ma.fields.Integer(),
        metadata={"description": "Lines (of an array: indexes) whose content was there already; skipped"},
    )


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
@blp.arguments(ListQuery, location="query")
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
        return flask.jsonify(DatasetOut().dump(datasets.get_dataset(session, caller(), name, **scope)))


@blp.get("/datasets/<name>/cases")
@blp.arguments(CasesQuery, location="query")
@blp.response(200, page_of(CaseOut))
def list_cases(query: dict[str, Any], name: str) -> flask.Response:
    """List the cases of the current revision"""
    with reading() as session:
        dataset = datasets.get_dataset(session, caller(), name, project=query.pop("project"))
        return flask.jsonify(render_page(CaseOut(), datasets.list_cases(session, dataset, **query)))


@blp.post("/datasets/<name>/cases")
@blp.doc(
    parameters=[replay.PARAMETER],
    requestBody={
        "required": True,
        "content": {
            "application/x-ndjson": {"schema": {"type": "string"}},
            "text/csv": {"schema": {"type": "string"}},
            "application/json": {"schema": {"type": "array", "items": {"type": "object"}}},
        },
    },
)
@blp.arguments(ProjectQuery, location="query")
@blp.response(201, ImportOut)
def import_cases(scope: dict[str, Any], name: str) -> flask.Response:
    """Import test cases: JSONL, CSV or a JSON array

    JSONL: one object per line with `inputs` (object), `expected`, and optionally `name`, `tags`, `group`,
    `weight`, `golden`. CSV: columns `input.<field>`, `expected.<field>` or `expected`, and the same names.
    All rows or none, and a new revision if a row is new: an answer with errors names each bad line, or each
    bad element by its JSON pointer.
    """
    author = caller(Role.EDITOR)
    if not is_name(name):
        raise NotFound(f"no dataset {name!r}")
    flask.request.max_content_length = MAX_IMPORT_BYTES
    rows = _rows()

    def make(session: Session, _: Any) -> Any:
        dataset = datasets.get_dataset(session, author, name, **scope, writing=True)
        return ImportOut().dump(datasets.import_cases(session, author, dataset, rows))

    return replay.create(author, sha256(flask.request.get_data(as_text=True)), 201, make)


def _rows() -> list[NewCase]:
    kind = flask.request.mimetype
    if kind == "application/json":
        body = json_body(flask.request)
        if not isinstance(body, list):
            raise field_error("", "must be an array of test cases")
        return datasets.parse_rows(body)
    raw = raw_body(flask.request)
    if kind in ("application/x-ndjson", "application/jsonl", "application/x-jsonlines"):
        return datasets.parse_jsonl(raw)
    if kind == "text/csv":
        return datasets.parse_csv(raw)
    raise unsupported("send application/x-ndjson (JSONL), text/csv or application/json")
