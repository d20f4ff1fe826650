"""Datasets and test cases: imported whole or not at all, one revision per import that adds a case."""

import csv
import io
import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from shared.db import db_now, insert_if_absent
from shared.domain import events, pages, projects
from shared.domain.names import check_name, is_name
from shared.domain.pages import Page
from shared.domain.tenants import Caller
from shared.errors import AlreadyExists, BadRequest, FieldError, NotFound, Unprocessable, field_error
from shared.hashing import hash_of
from shared.models import Dataset, TestCase, new_id
from shared.strict_json import Repeating, loads

MAX_CASES = 50_000
MAX_CASE_BYTES = 200_000
MAX_DEPTH = 50
csv.field_size_limit(MAX_CASE_BYTES)  # its own limit is lower, and would refuse a case that JSONL may hold
_FIELDS = ("name", "inputs", "expected", "tags", "group", "weight", "golden", "is_golden")


@dataclass(frozen=True)
class NewCase:
    """A checked test case. Its identity is its content: what goes in and what is expected."""

    inputs: Mapping[str, Any]
    expected: Any
    name: str = ""
    tags: tuple[str, ...] = ()
    group: str | None = None
    weight: float = 1.0
    golden: bool = False
    line: int = 0  # where it stands in the file, or its index in the array
    content_hash: str = field(init=False)

    def __post_init__(self) -> None:
        # Here and not when it is asked for, which is inside the transaction that every other writer waits for.
        object.__setattr__(self, "content_hash", hash_of([self.inputs, self.expected]))


@dataclass(frozen=True)
class Imported:
    dataset: Dataset
    added: int
    duplicates: Sequence[int]  # lines whose content the dataset, or the file, had already


def create_dataset(
    session: Session, caller: Caller, *, name: str, description: str = "", project: str | None = None
) -> Dataset:
    home = projects.get_project(session, caller, project, writing=True)
    dataset_id = new_id()
    if not insert_if_absent(
        session,
        Dataset,
        id=dataset_id,
        workspace_id=caller.workspace_id,
        project_id=home.id,
        name=check_name(name),
        description=description,
        created_by=caller.user_name,
    ):
        raise AlreadyExists(f"a dataset named {name} exists in project {home.name}")
    events.record(
        session,
        [events.Change(caller.workspace_id, "dataset.created", dataset_id, {"name": name}, caller.user_name)],
    )
    return session.get_one(Dataset, dataset_id)


def get_dataset(
    session: Session, caller: Caller, name: str, *, project: str | None = None, writing: bool = False
) -> Dataset:
    """`writing`: it is to be changed, which is a 409 in an archived project."""
    home = projects.get_project(session, caller, project, writing=writing)
    query = sa.select(Dataset).where(Dataset.project_id == home.id, Dataset.name == name)
    dataset = session.scalars(query).one_or_none() if is_name(name) else None
    if dataset is None:
        raise NotFound(f"no dataset {name!r} in project {home.name}", fields=["dataset"])
    return dataset


def list_datasets(session: Session, caller: Caller, *, project: str | None, limit: int, cursor: str | None) -> Page:
    query = projects.living_in(session, caller, Dataset, project)
    return pages.newest_first(session, query, Dataset, limit=limit, cursor=cursor)


def list_cases(session: Session, dataset: Dataset, *, limit: int, cursor: str | None) -> Page:
    """The cases of the current revision, in the order of import."""
    query = sa.select(TestCase).where(*_in_revision(dataset.id, dataset.revision))
    return pages.ascending(session, query, TestCase.ordinal, limit=limit, cursor=cursor)


def cases_of(session: Session, dataset_id: uuid.UUID, revision: int) -> Sequence[TestCase]:
    """Every case of a revision, in order."""
    query = sa.select(TestCase).where(*_in_revision(dataset_id, revision)).order_by(TestCase.ordinal)
    return session.scalars(query).all()


def import_cases(session: Session, caller: Caller, dataset: Dataset, rows: Sequence[NewCase]) -> Imported:
    """Add the rows that are new as one new revision; content that is there already is skipped.

    When nothing is new, there is no new revision.
    """
    dataset = session.get_one(Dataset, dataset.id, with_for_update=True, populate_existing=True)
    known = set(
        session.scalars(
            sa.select(TestCase.content_hash).where(TestCase.dataset_id == dataset.id, TestCase.removed_in.is_(None))
        )
    )
    last = session.scalar(sa.select(sa.func.max(TestCase.ordinal)).where(TestCase.dataset_id == dataset.id))
    fresh, duplicates = [], []
    for row in rows:
        if row.content_hash in known:
            duplicates.append(row.line)
        else:
            known.add(row.content_hash)
            fresh.append(row)
    if not fresh:
        return Imported(dataset, 0, duplicates)
    if dataset.case_count + len(fresh) > MAX_CASES:
        raise Unprocessable(f"a dataset holds at most {MAX_CASES:,} cases")
    dataset.revision += 1
    dataset.case_count += len(fresh)
    dataset.updated_at = db_now()
    session.execute(
        sa.insert(TestCase),
        [_row(dataset, ordinal, row) for ordinal, row in enumerate(fresh, start=(last or 0) + 1)],
    )
    session.flush()
    events.record(
        session,
        [
            events.Change(
                dataset.workspace_id,
                "dataset.imported",
                dataset.id,
                {"added": len(fresh), "duplicates": len(duplicates), "revision": dataset.revision},
                caller.user_name,
            )
        ],
    )
    return Imported(dataset, len(fresh), duplicates)


def parse_jsonl(raw: bytes) -> list[NewCase]:
    """One JSON object per line: inputs (object), expected, and name, tags, group, weight, golden."""
    return _checked((line, _json_row(text)) for line, text in numbered_lines(raw))


def numbered_lines(raw: bytes) -> list[tuple[int, str]]:
    """The lines of a JSONL file that hold something, with their numbers from 1."""
    # Only a newline ends a JSONL line; other Unicode line ends may stand inside a string.
    return [(number, line) for number, line in enumerate(_decoded(raw).split("\n"), start=1) if line.strip()]


def parse_csv(raw: bytes) -> list[NewCase]:
    """Columns `input.<field>`, `expected.<field>` or `expected`, name, tags (comma list), group, weight, golden.

    A cell is read as JSON where it is an object, a list, a number, true, false or null, else as text.
    """
    reader = csv.reader(io.StringIO(_decoded(raw), newline=""), strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise _file_error(reader.line_num, f"not CSV: {error}") from error
    if not rows:
        raise _file_error(1, "the file is empty")
    header = [column.strip() for column in rows[0][1]]
    if not any(column.startswith(("input.", "inputs.")) for column in header):
        raise _file_error(1, "needs at least one column named input.<field>")
    clash = _clash(header)
    if clash:
        raise _file_error(1, clash)
    return _checked((line, _csv_row(header, row)) for line, row in rows[1:] if row)


def parse_rows(rows: Sequence[Any]) -> list[NewCase]:
    """The rows of a JSON array. Errors are named by JSON pointer, so the first is /0."""
    if not rows:
        raise field_error("", "the array holds no test case")
    return _checked(enumerate(rows), "element")


def _in_revision(dataset_id: uuid.UUID, revision: int) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        TestCase.dataset_id == dataset_id,
        TestCase.added_in <= revision,
        sa.or_(TestCase.removed_in.is_(None), TestCase.removed_in > revision),
    )


def _row(dataset: Dataset, ordinal: int, case: NewCase) -> dict[str, Any]:
    return {
        "id": new_id(),
        "workspace_id": dataset.workspace_id,
        "dataset_id": dataset.id,
        "ordinal": ordinal,
        "content_hash": case.content_hash,
        "name": case.name,
        "inputs": dict(case.inputs),
        "expected": case.expected,
        "tags": list(case.tags),
        "group": case.group,
        "weight": case.weight,
        "golden": case.golden,
        "added_in": dataset.revision,
    }


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        detail = f"line {line}: invalid UTF-8"
        raise BadRequest(detail, errors=[FieldError(f"/{line}", "invalid UTF-8")]) from error


def _json_row(text: str) -> Any:
    try:
        return loads(text)
    except ValueError as error:
        return _Bad(f"not JSON: {error}")


def _clash(header: Sequence[str]) -> str | None:
    """Which columns would be one field of a case, so that one of them would be lost."""
    columns: dict[str, str] = {}
    for column in filter(None, header):
        field_name = "golden" if column == "is_golden" else re.sub(r"^inputs\.", "input.", column)
        other = columns.setdefault(field_name, column)
        if other == column and list(header).count(column) > 1:
            return f"two columns are named {column}"
        if other != column:
            return f"the columns {other} and {column} are the same field"
    parts = [column for column in columns if column.startswith("expected.")]
    if parts and "expected" in columns:
        return f"the columns expected and {parts[0]} exclude each other"
    return None


def _csv_row(header: Sequence[str], cells: Sequence[str]) -> Any:
    if len(cells) != len(header):
        return _Bad(f"has {len(cells)} cells, the header has {len(header)}")
    row: dict[str, Any] = {"inputs": {}}
    expected: dict[str, Any] = {}
    for column, cell in zip(header, cells, strict=True):
        kind, _, field = column.partition(".")
        if kind in ("input", "inputs") and field:
            row["inputs"][field] = _cell(cell)
        elif kind == "expected" and field:
            expected[field] = _cell(cell)
        elif column == "expected":
            row["expected"] = _cell(cell)
        elif column == "tags":
            row["tags"] = [tag.strip() for tag in cell.split(",") if tag.strip()]
        elif column in ("golden", "is_golden", "weight"):
            row[column] = _cell(cell.lower()) if cell else _DEFAULTS[column]
        elif column:
            row[column] = cell
    if expected:
        row["expected"] = expected
    return row


_DEFAULTS = {"golden": False, "is_golden": False, "weight": 1.0}


def _cell(cell: str) -> Any:
    """Text stays text: only what is plainly JSON is read as JSON, so an id like 007 keeps its zeros."""
    try:
        value = loads(cell, parse_constant=_not_a_number)
    except ValueError:
        return cell
    if isinstance(value, dict | list):
        return value
    return cell if isinstance(value, str) or json.dumps(value) != cell.strip() else value


def _not_a_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


@dataclass(frozen=True)
class _Bad:
    detail: str


def _checked(rows: Iterable[tuple[int, Any]], word: str = "line") -> list[NewCase]:
    """Every row as a case, or one error that names each bad line (the first hundred)."""
    cases, errors = [], []
    for line, row in rows:
        problem = row.detail if isinstance(row, _Bad) else _problem(row)
        if problem:
            errors.append(FieldError(f"/{line}", problem))
        else:
            cases.append(_case(row, line))
    if errors:
        shown = "; ".join(f"{word} {error.pointer[1:]}: {error.detail}" for error in errors[:5])
        raise Unprocessable(f"{len(errors)} bad rows, nothing was imported: {shown}", errors=errors[:100])
    if not cases:
        raise _file_error(1, "the file holds no test case")
    return cases


def _problem(row: Any) -> str | None:
    if not isinstance(row, dict):
        return "must be an object"
    unknown = [name for name in row if name not in _FIELDS]
    if unknown:
        return f"unknown field {unknown[0]!r}; there are: {', '.join(_FIELDS[:-1])}"
    if not isinstance(row.get("inputs"), dict) or not row["inputs"]:
        return "inputs must be an object with at least one field"
    if not isinstance(row.get("tags", []), list) or not all(isinstance(tag, str) for tag in row.get("tags", [])):
        return "tags must be a list of texts"
    weight = row.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 1e6:
        return "weight must be a number above 0"
    if "golden" in row and "is_golden" in row:
        return "golden and is_golden are the same field"
    for name in ("golden", "is_golden"):
        if not isinstance(row.get(name, False), bool):
            return f"{name} must be true or false"
    for name in ("name", "group"):
        if not isinstance(row.get(name, ""), str | None) or len(row.get(name) or "") > 128:
            return f"{name} must be a text of at most 128 characters"
    return _unstorable(row)


def _unstorable(row: Mapping[str, Any]) -> str | None:
    """Why one of the databases could not hold the row."""
    waiting: list[tuple[Any, int]] = [(row, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            return f"is nested deeper than {MAX_DEPTH}"
        if isinstance(value, str) and "\x00" in value:
            return "holds a NUL character"
        if isinstance(value, Repeating):
            return f"gives the key {value.key!r} twice"
        if isinstance(value, dict):
            waiting.extend((inner, depth + 1) for pair in value.items() for inner in pair)
        elif isinstance(value, list):
            waiting.extend((inner, depth + 1) for inner in value)
    try:
        size = len(json.dumps(row, ensure_ascii=False, allow_nan=False).encode())
    except UnicodeEncodeError:
        return "holds half of a surrogate pair"
    except ValueError:
        return "NaN and infinity are not numbers in JSON"
    return f"is larger than {MAX_CASE_BYTES:,} bytes" if size > MAX_CASE_BYTES else None


def _case(row: Mapping[str, Any], line: int) -> NewCase:
    return NewCase(
        inputs=row["inputs"],
        expected=row.get("expected"),
        name=row.get("name") or "",
        tags=tuple(row.get("tags", [])),
        group=row.get("group"),
        weight=float(row.get("weight", 1.0)),
        golden=bool(row.get("golden", row.get("is_golden", False))),
        line=line,
    )


def _file_error(line: int, detail: str) -> Unprocessable:
    return Unprocessable(f"line {line}: {detail}", errors=[FieldError(f"/{line}", detail)])
