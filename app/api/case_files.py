"""/v1/datasets/{name}/cases: test cases imported from files, and exported to files."""

from collections.abc import Iterator
from typing import Any

import flask
import marshmallow as ma
from sqlalchemy.orm import Session

from app import replay
from app.api import Flag, ProjectQuery, blueprint
from app.api.datasets import DatasetOut
from app.api.test_cases import CaseFilter
from app.auth import caller
from app.bodies import json_body, parsed_body, raw_body, unsupported
from shared.db import reading
from shared.domain import case_files, datasets, prompts, test_cases
from shared.domain.case_files import Columns, Parsed
from shared.domain.names import VersionChoice, is_name, parse_reference
from shared.domain.test_cases import Filter
from shared.errors import NotFound, field_error
from shared.hashing import dump_json, sha256
from shared.models import Dataset, Role

blp = blueprint("case_files", "Test cases as files: CSV, JSONL and JSON. What is exported imports as the same cases.")
MAX_IMPORT_BYTES = 20_000_000
SHOWN_ROWS = 1_000
_JSONL = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines")
_ENDINGS = {"csv": "text/csv", "jsonl": _JSONL[0], "ndjson": _JSONL[0], "json": "application/json"}
_FILE = {"type": "string", "format": "binary"}
FORMATS = {"csv": "text/csv", "json": "application/json", "jsonl": _JSONL[0]}


class ImportQuery(ProjectQuery):
    on_error = ma.fields.String(
        load_default="abort",
        validate=ma.validate.OneOf(["abort", "skip"]),
        metadata={"description": "`abort`: a bad row refuses all; `skip`: the others are imported"},
    )
    dry_run = Flag(load_default=False, metadata={"description": "Only say what would be done, with 200"})


class BadRowOut(ma.Schema):
    line = ma.fields.Integer(metadata={"description": "Of an array: the index"})
    detail = ma.fields.String()


class ImportOut(ma.Schema):
    dataset = ma.fields.Nested(DatasetOut)
    added = ma.fields.Integer()
    duplicates = ma.fields.List(
        ma.fields.Integer(),
        metadata={"description": "Lines (of an array: indexes) whose content was there already; skipped"},
    )
    rejected = ma.fields.Integer(metadata={"description": "How many rows are no test cases"})
    errors = ma.fields.List(
        ma.fields.Nested(BadRowOut), metadata={"description": f"What is wrong with them; the first {SHOWN_ROWS:,}"}
    )
    dry_run = ma.fields.Boolean()


class ExportQuery(CaseFilter):
    format = ma.fields.String(load_default="csv", validate=ma.validate.OneOf(list(FORMATS)))


class TemplateQuery(ProjectQuery):
    prompt_name = ma.fields.String(
        load_default=None,
        metadata={"description": "Whose variables head the columns (a reference); else those of the dataset's cases"},
    )


@blp.post("/datasets/<name>/cases")
@blp.doc(
    parameters=[replay.PARAMETER],
    requestBody={
        "required": True,
        "content": {
            "application/x-ndjson": {"schema": {"type": "string"}},
            "text/csv": {"schema": {"type": "string"}},
            "application/json": {"schema": {"type": "array", "items": {"type": "object"}}},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}
            },
        },
    },
)
@blp.arguments(ImportQuery, location="query")
@blp.response(201, ImportOut)
@blp.alt_response(200, schema=ImportOut, description="A dry run: nothing was written")
def import_cases(query: dict[str, Any], name: str) -> flask.Response:
    """Import test cases: JSONL, CSV or a JSON array, as the body or as the file of a form

    JSONL: one object per line with `inputs` (object), `expected`, and optionally `name`, `description`, `tags`,
    `group`, `weight`, `golden`, `generated`. CSV: columns `input.<field>`, `expected.<field>` or `expected`, and the
    same names. All rows or none, unless `on_error=skip`, and a new revision if a row is new: an answer with errors
    names each bad line, or each bad element by its JSON pointer.
    """
    author = caller(Role.EDITOR)
    if not is_name(name):
        raise NotFound(f"no dataset {name!r}")
    flask.request.max_content_length = MAX_IMPORT_BYTES
    skips, is_dry = query["on_error"] == "skip", query["dry_run"]
    parsed, digest = _parsed(reports=skips or is_dry)
    rows = parsed.cases if skips or is_dry else case_files.all_or_nothing(parsed)
    if is_dry:
        with reading() as session:
            dataset = datasets.get_dataset(session, author, name, project=query["project"], writing=True)
            fresh, known = test_cases.find_new(session, dataset, rows)
            added = 0 if parsed.bad and not skips else len(fresh)
            return flask.jsonify(_report(dataset, added, [row.line for row in known], parsed, dry_run=True))

    def make(session: Session, _: Any) -> Any:
        dataset = datasets.get_dataset(session, author, name, project=query["project"], writing=True)
        imported = test_cases.import_cases(session, author.user_name, dataset, rows)
        return _report(imported.dataset, imported.added, imported.duplicates, parsed, dry_run=False)

    return replay.create(author, digest, 201, make)


@blp.get("/datasets/<name>/cases:export")
@blp.doc(responses={200: {"content": {kind: {"schema": {}} for kind in ("application/json", "application/x-ndjson")}}})
@blp.arguments(ExportQuery, location="query")
@blp.response(200, _FILE, description="The file", content_type="text/csv")
def export_cases(query: dict[str, Any], name: str) -> flask.Response:
    """Download the cases of a revision as a file that an import takes"""
    kind, project = query.pop("format"), query.pop("project")
    wanted = Filter(**query)
    with reading() as session:
        dataset = datasets.get_dataset(session, caller(), name, project=project)
        number = datasets.check_revision(dataset, wanted.revision)
    lines = {"csv": csv_of, "json": json_of, "jsonl": jsonl_of}[kind](dataset, wanted)
    return _file(lines, kind, f"{dataset.name}-{number}.{kind}")


@blp.get("/datasets/<name>/cases:template")
@blp.arguments(TemplateQuery, location="query")
@blp.response(200, _FILE, description="The file", content_type="text/csv")
def get_template(query: dict[str, Any], name: str) -> flask.Response:
    """Download an empty CSV with the columns that the prompt's cases need"""
    with reading() as session:
        author = caller()
        dataset = datasets.get_dataset(session, author, name, project=query["project"])
        if query["prompt_name"] is None:
            columns = columns_of(dataset, Filter())
        else:
            prompt_name, choice = parse_reference(query["prompt_name"], "?prompt_name")
            prompt = prompts.get_prompt(session, author, prompt_name, project=str(dataset.project_id))
            version = prompts.get_version(session, prompt, choice or VersionChoice(label="latest"))
            columns = template_of(version.variables, version.content.get("response_schema"))
    return _file(iter([case_files.csv_line(columns.header())]), "csv", f"{dataset.name}-template.csv")


def template_of(variables: Any, response_schema: Any = None) -> Columns:
    """The columns of a prompt's cases: its variables, and the fields of the answer where a schema names them."""
    fields = (response_schema or {}).get("properties")
    expected = tuple(fields) if isinstance(fields, dict) and fields else None
    return Columns(inputs=tuple(variables) or None, expected=expected)


def columns_of(dataset: Dataset, wanted: Filter) -> Columns:
    columns = Columns()
    for case in test_cases.each_case(dataset, wanted):
        columns.see(case)
    return columns


def csv_of(dataset: Dataset, wanted: Filter) -> Iterator[str]:
    columns = columns_of(dataset, wanted)
    yield case_files.csv_line(columns.header())
    for case in test_cases.each_case(dataset, wanted):
        yield case_files.csv_line(columns.cells(case))


def jsonl_of(dataset: Dataset, wanted: Filter) -> Iterator[str]:
    for case in test_cases.each_case(dataset, wanted):
        yield dump_json(case_files.row_of(case)) + "\n"


def json_of(dataset: Dataset, wanted: Filter) -> Iterator[str]:
    before = "[\n"
    for case in test_cases.each_case(dataset, wanted):
        yield before + dump_json(case_files.row_of(case))
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


def _file(lines: Iterator[str], kind: str, name: str) -> flask.Response:
    answer = flask.Response(_in_pieces(lines), mimetype=FORMATS[kind])
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer


def _in_pieces(lines: Iterator[str], size: int = 65_536) -> Iterator[str]:
    """Some lines at a time: each piece is a system call of the server."""
    waiting: list[str] = []
    length = 0
    for line in lines:
        waiting.append(line)
        length += len(line)
        if length >= size:
            yield "".join(waiting)
            waiting, length = [], 0
    yield "".join(waiting)


def _parsed(*, reports: bool) -> tuple[Parsed, str]:
    """(what the body holds, its digest). `reports`: what no database can hold is told of its row, not of the body."""
    kind = flask.request.mimetype
    if kind == "application/json":
        body = parsed_body(flask.request) if reports else json_body(flask.request)
        return _rows(body), sha256(flask.request.get_data(as_text=True))
    raw = raw_body(flask.request)
    if kind == "multipart/form-data":
        kind, raw = _uploaded()
    return parse(kind, raw), sha256(raw.decode(errors="replace"))


def _uploaded() -> tuple[str, bytes]:
    upload = flask.request.files.get("file")
    if upload is None:
        raise field_error("/file", "a form sends the file as its field `file`")
    kind = _ENDINGS.get((upload.filename or "").rpartition(".")[2].lower(), upload.mimetype)
    return kind, upload.read()


def parse(kind: str, raw: bytes) -> Parsed:
    if kind in _JSONL:
        return case_files.read_jsonl(raw)
    if kind == "text/csv":
        return case_files.read_csv(raw)
    if kind == "application/json":
        return case_files.read_json(raw)
    raise unsupported("send application/x-ndjson (JSONL), text/csv or application/json")


def _rows(body: Any) -> Parsed:
    if not isinstance(body, list):
        raise field_error("", "must be an array of test cases")
    return case_files.read_rows(body)


def _report(dataset: Dataset, added: int, duplicates: Any, parsed: Parsed, *, dry_run: bool) -> Any:
    return ImportOut().dump(
        {
            "dataset": dataset,
            "added": added,
            "duplicates": duplicates,
            "rejected": len(parsed.bad),
            "errors": parsed.bad[:SHOWN_ROWS],
            "dry_run": dry_run,
        }
    )
