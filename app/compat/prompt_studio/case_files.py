"""Test cases of Prompt Studio as files: bad rows are told and the others imported, as the original did."""

import base64
import binascii
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay
from app.api.case_files import MAX_IMPORT_BYTES, columns_of, template_of
from app.api.content import Length, TrueOrFalse
from app.auth import caller
from app.bodies import raw_body
from app.compat.prompt_studio import envelope_of, enveloped, studio_blueprint
from app.compat.prompt_studio.test_cases import NO_SIGNATURES, OURS, ours, refuse_signature, signature_field
from shared.db import reading
from shared.domain import case_choices, case_files, test_cases, versions
from shared.domain.case_files import Columns, Parsed, row_of
from shared.domain.test_cases import Filter
from shared.errors import BadRequest, FieldError, field_error
from shared.hashing import dump_json, sha256
from shared.models import Dataset, Role
from shared.strict_json import loads

blp = studio_blueprint("test-case files", "Prompt Studio: test cases as files.")
SHOWN_ERRORS = 1_000
THEIRS = {name: theirs for theirs, name in OURS.items()}


class StudioImportIn(ma.Schema):
    project_id = ma.fields.UUID(required=True)
    format = ma.fields.String(required=True, validate=ma.validate.OneOf(["csv", "json"]))
    data = ma.fields.String(required=True, metadata={"description": "The text of the file, or its base64"})
    signature_id = signature_field()
    auto_generate_names = TrueOrFalse(metadata={"description": "true if left out: cases without a name get one"})


class StudioImportedOut(ma.Schema):
    imported = ma.fields.Integer()
    errors = ma.fields.List(
        ma.fields.String(), metadata={"description": f"Rows that are no test cases; the first {SHOWN_ERRORS:,}"}
    )
    duplicates = ma.fields.Integer(metadata={"description": "Rows that were there already; left out"})
    total_test_cases = ma.fields.Integer(metadata={"description": "In the project now"})


class StudioTemplateQuery(ma.Schema):
    signature_id = ma.fields.String(load_default=None, metadata={"description": "None: there are no signatures"})
    prompt_id = ma.fields.UUID(load_default=None, metadata={"description": "Whose variables head the columns"})


class StudioExportIn(ma.Schema):
    format = ma.fields.String(load_default="json", validate=ma.validate.OneOf(["csv", "json"]))
    include_golden_only = TrueOrFalse()
    tag_filter = ma.fields.List(ma.fields.String(), allow_none=True, validate=Length(max=50))


class StudioExportOut(ma.Schema):
    format = ma.fields.String()
    data = ma.fields.String()
    content_type = ma.fields.String()


@blp.post("/test-cases/import")
@blp.fails(404)
@blp.doc(parameters=[replay.PARAMETER])
@blp.arguments(StudioImportIn)
@blp.response(200, envelope_of(StudioImportedOut))
def import_cases(body: dict[str, Any]) -> flask.Response:
    """Import test cases from a CSV or a JSON array; the good rows are imported and the others told"""
    refuse_signature(body)
    parsed = _parsed(body["format"], _decoded(body["data"]))
    return _imported(body["project_id"], parsed, flask.g.body, names=body.get("auto_generate_names", True))


@blp.post("/test-cases/import/csv-upload")
@blp.fails(404)
@blp.doc(
    parameters=[replay.PARAMETER],
    requestBody={
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["project_id", "file"],
                    "properties": {
                        "project_id": {"type": "string", "format": "uuid"},
                        "file": {"type": "string", "format": "binary"},
                        "signature_id": {"type": "string"},
                        "auto_generate_names": {"type": "boolean"},
                    },
                }
            }
        },
    },
)
@blp.response(200, envelope_of(StudioImportedOut))
def upload_cases() -> flask.Response:
    """Import test cases from a CSV file of a form"""
    caller(Role.EDITOR)
    flask.request.max_content_length = MAX_IMPORT_BYTES
    raw_body(flask.request)
    form, upload = flask.request.form, flask.request.files.get("file")
    if upload is None:
        raise field_error("/file", "a form sends the file as its field `file`")
    unknown = [name for name in form if name not in ("project_id", "signature_id", "auto_generate_names")]
    if unknown:
        raise field_error(f"/{unknown[0]}", "is not known here")
    if form.get("signature_id"):
        raise field_error("/signature_id", NO_SIGNATURES)
    names = form.get("auto_generate_names", "true")
    if names not in ("true", "false"):
        raise field_error("/auto_generate_names", "must be true or false")
    try:
        project_id = uuid.UUID(form.get("project_id", ""))
    except ValueError as error:
        raise field_error("/project_id", "must be a UUID") from error
    raw = upload.read()
    digest = [str(project_id), names, sha256(raw.decode(errors="replace"))]
    return _imported(project_id, _parsed("csv", raw), digest, names=names == "true")


@blp.get("/test-cases/import/template")
@blp.fails(404)
@blp.arguments(StudioTemplateQuery, location="query")
@blp.response(200, {"type": "string", "format": "binary"}, description="The file", content_type="text/csv")
def get_template(query: dict[str, Any]) -> flask.Response:
    """Download an empty CSV with the columns that an import takes"""
    author = caller()
    if query["signature_id"] is not None:
        raise field_error("?signature_id", NO_SIGNATURES)
    columns = Columns(inputs=("input",), expected=("output",))
    if query["prompt_id"] is not None:
        with reading() as session:
            version = versions.get_relative(session, author, query["prompt_id"]).version
            columns = template_of(version.variables, version.content.get("response_schema"))
    answer = flask.Response(case_files.csv_line(_header(columns)), mimetype="text/csv")
    answer.headers["Content-Disposition"] = 'attachment; filename="test_cases_template.csv"'
    return answer


@blp.post("/test-cases/export/<uuid:project_id>")
@blp.arguments(StudioExportIn)
@blp.response(200, envelope_of(StudioExportOut))
def export_cases(body: dict[str, Any], project_id: uuid.UUID) -> flask.Response:
    """Write the test cases of a project as a CSV or a JSON array, which an import takes"""
    wanted = Filter(golden=True if body.get("include_golden_only") else None, any_tag=body.get("tag_filter") or ())
    with reading() as session:
        dataset = case_choices.find_studio_dataset(session, caller(), project_id)
    lines = _csv_of(dataset, wanted) if body["format"] == "csv" else _json_of(dataset, wanted)
    kind = "text/csv" if body["format"] == "csv" else "application/json"
    return flask.jsonify(enveloped({"format": body["format"], "data": "".join(lines), "content_type": kind}))


def _imported(project_id: uuid.UUID, parsed: Parsed, digest: Any, *, names: bool) -> flask.Response:
    author = caller(Role.EDITOR)
    rows = [
        replace(case, name=f"Test case {place}") if names and not case.name else case
        for place, case in enumerate(parsed.cases, start=1)
    ]

    def make(session: Session, _: Any) -> Any:
        dataset = case_choices.studio_dataset(session, author, project_id)
        imported = test_cases.import_cases(session, author.user_name, dataset, rows)
        return enveloped(
            {
                "imported": imported.added,
                "errors": [f"{parsed.word} {row.line}: {row.detail}" for row in parsed.bad[:SHOWN_ERRORS]],
                "duplicates": len(imported.duplicates),
                "total_test_cases": imported.dataset.case_count,
            }
        )

    return replay.create(author, digest, 200, make)


def _decoded(data: str) -> bytes:
    """The bytes of the file. Base64 has neither commas nor brackets, which a CSV with two columns and JSON do."""
    compact = re.sub(r"\s+", "", data)
    if compact and re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", compact):
        try:
            return base64.b64decode(compact, validate=True)
        except binascii.Error:
            pass  # a text after all
    return data.encode()


def _parsed(kind: str, raw: bytes) -> Parsed:
    if kind == "csv":
        return case_files.read_csv(raw)
    try:
        rows = loads(raw.decode())
    except ValueError as error:
        raise BadRequest(f"/data: invalid JSON: {error}", errors=[FieldError("/data", str(error))]) from error
    if isinstance(rows, dict):
        rows = rows.get("test_cases")
    if not isinstance(rows, list):
        raise field_error("/data", "must be an array of test cases")
    return case_files.read_rows([_without_signature(row) for row in rows])


def _without_signature(row: Any) -> Any:
    if not isinstance(row, Mapping) or getattr(row, "key", None):  # no object, or one with a key twice: told as it is
        return row
    return ours({name: value for name, value in row.items() if name != "signature_id" or value is not None})


def _header(columns: Columns) -> list[str]:
    return [THEIRS.get(name, name) if name in ("golden", "generated") else name for name in columns.header()]


def _csv_of(dataset: Dataset | None, wanted: Filter) -> Iterator[str]:
    columns = Columns() if dataset is None else columns_of(dataset, wanted)
    yield case_files.csv_line(_header(columns))
    if dataset is not None:
        for case in test_cases.each_case(dataset, wanted):
            yield case_files.csv_line(columns.cells(case))


def _json_of(dataset: Dataset | None, wanted: Filter) -> Iterator[str]:
    before = "["
    for case in test_cases.each_case(dataset, wanted) if dataset is not None else ():
        row = row_of(case)
        yield before + dump_json({THEIRS[name]: row[name] for name in THEIRS})
        before = ","
    yield "[]" if before == "[" else "]"
