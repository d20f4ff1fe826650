"""Test cases as files: CSV, JSONL and JSON, read and written. What is written is read back as the same cases.

A spreadsheet computes a cell that begins with `=`, `+`, `-` or `@`, whoever wrote it. So such a text is written with an
apostrophe before it, which a spreadsheet takes as the mark of text; and so is a text that would be read as something
else, such as `1`. The mark is taken off again only where it is needed: `'tis` is no marked text.
"""

import csv
import io
import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.errors import BadRequest, FieldError, Unprocessable
from shared.hashing import dump_json, hash_of
from shared.models import TestCase
from shared.strict_json import Repeating, loads

MAX_CASE_BYTES = 200_000
MAX_DEPTH = 50
MAX_NAME = 255
MAX_GROUP = 128
MAX_DESCRIPTION = 1_000
MAX_WEIGHT = 1e6
csv.field_size_limit(MAX_CASE_BYTES)  # its own limit is lower, and would refuse a case that JSONL may hold
_TEXTS = {"name": MAX_NAME, "description": MAX_DESCRIPTION, "group": MAX_GROUP}
_FLAGS = {"golden": "is_golden", "generated": "is_generated"}  # and what the older systems call them
_FIELDS = (*("inputs", "expected", "name", "description", "tags", "group", "weight"), *_FLAGS)
_MARK = "'"
_COMPUTED = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True)
class NewCase:
    """A checked test case. Its identity is its content: what goes in and what is expected."""

    inputs: Mapping[str, Any]
    expected: Any
    name: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    group: str | None = None
    weight: float = 1.0
    golden: bool = False
    generated: bool = False
    source_execution_id: uuid.UUID | None = None
    line: int = 0  # where it stands in the file, or its index in the array
    content_hash: str = field(init=False)

    def __post_init__(self) -> None:
        # Here and not when it is asked for, which is inside the transaction that every other writer waits for.
        object.__setattr__(self, "content_hash", hash_of([self.inputs, self.expected]))


@dataclass(frozen=True)
class BadRow:
    """A row that is no test case, and why. `line` as in `NewCase`."""

    line: int
    detail: str


@dataclass(frozen=True)
class Parsed:
    """All that a file holds; `word` is what its rows are called."""

    cases: Sequence[NewCase]
    bad: Sequence[BadRow]
    word: str = "line"


def all_or_nothing(parsed: Parsed) -> Sequence[NewCase]:
    """The cases of a file without a bad row; else one error that names each bad row (the first hundred)."""
    if not parsed.bad:
        return parsed.cases
    shown = "; ".join(f"{parsed.word} {row.line}: {row.detail}" for row in parsed.bad[:5])
    errors = [FieldError(f"/{row.line}", row.detail) for row in parsed.bad[:100]]
    raise Unprocessable(f"{len(parsed.bad)} bad rows, nothing was imported: {shown}", errors=errors)


def read_jsonl(raw: bytes) -> Parsed:
    """One JSON object per line: inputs (object), expected, and name, description, tags, group, weight, golden."""
    return _checked((line, _json_row(text)) for line, text in numbered_lines(raw))


def numbered_lines(raw: bytes) -> Iterator[tuple[int, str]]:
    """The lines of a JSONL file that hold something, with their numbers from 1."""
    # Only a newline ends a JSONL line; other Unicode line ends may stand inside a string.
    for number, line in enumerate(_decoded(raw).split("\n"), start=1):
        if line.strip():
            yield number, line


def read_csv(raw: bytes) -> Parsed:
    """Columns `input.<field>` or `inputs` (JSON), `expected.<field>` or `expected`, and the other fields.

    A cell is read as JSON where it is an object, a list, a number, true, false or null, else as text. Where every
    cell of what is expected is empty, nothing is.
    """
    return _checked(_csv_rows(raw))


def read_rows(rows: Sequence[Any]) -> Parsed:
    """The rows of a JSON array. Errors are named by JSON pointer, so the first is /0."""
    if not rows:
        raise Unprocessable("the array holds no test case", errors=[FieldError("", "the array holds no test case")])
    return _checked(enumerate(rows), "element")


def read_json(raw: bytes) -> Parsed:
    """A JSON array of rows, as a file."""
    try:
        rows = loads(_decoded(raw))
    except ValueError as error:
        raise BadRequest(f"invalid JSON: {error}", errors=[FieldError("", str(error))]) from error
    if not isinstance(rows, list):
        raise Unprocessable("must be an array of test cases", errors=[FieldError("", "must be an array of test cases")])
    return read_rows(rows)


def problem_of(row: Any) -> str | None:
    """Why this is no test case."""
    if not isinstance(row, dict):
        return "must be an object"
    known = (*_FIELDS, *_FLAGS.values())
    unknown = [name for name in row if name not in known]
    if unknown:
        return f"unknown field {unknown[0]!r}; there are: {', '.join(_FIELDS)}"
    if not isinstance(row.get("inputs"), dict) or not row["inputs"]:
        return "inputs must be an object with at least one field"
    if not isinstance(row.get("tags", []), list) or not all(isinstance(tag, str) for tag in row.get("tags", [])):
        return "tags must be a list of texts"
    weight = row.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= MAX_WEIGHT:
        return "weight must be a number above 0"
    for name, alias in _FLAGS.items():
        if name in row and alias in row:
            return f"{name} and {alias} are the same field"
        for written in (name, alias):
            if not isinstance(row.get(written, False), bool):
                return f"{written} must be true or false"
    for name, limit in _TEXTS.items():
        if not isinstance(row.get(name, ""), str | None) or len(row.get(name) or "") > limit:
            return f"{name} must be a text of at most {limit} characters"
    return _unstorable(row)


def case_of(row: Mapping[str, Any], line: int = 0) -> NewCase:
    """A row without a problem as a case."""
    return NewCase(
        inputs=row["inputs"],
        expected=row.get("expected"),
        name=row.get("name") or "",
        description=row.get("description") or "",
        tags=tuple(row.get("tags", [])),
        group=row.get("group") or None,  # an empty cell is no group that all such cases are in
        weight=float(row.get("weight", 1.0)),
        golden=bool(row.get("golden", row.get("is_golden", False))),
        generated=bool(row.get("generated", row.get("is_generated", False))),
        line=line,
    )


def row_of(case: TestCase) -> dict[str, Any]:
    """A stored case as an import takes it. Where it came from is known to its dataset alone."""
    return {name: getattr(case, name) for name in _FIELDS}


@dataclass
class Columns:
    """Which columns a CSV of these cases needs: `see` all of them first.

    Fields have columns of their own when every case has the same ones; else one column holds all of them as JSON.
    """

    inputs: tuple[str, ...] | None = None
    expected: tuple[str, ...] | None = None
    inputs_differ: bool = False
    expected_differ: bool = False

    def see(self, case: TestCase) -> None:
        fields = _columns_for(case.inputs)
        self.inputs_differ |= fields is None or self.inputs not in (None, fields)
        self.inputs = fields
        if case.expected is not None:
            fields = _columns_for(case.expected)
            self.expected_differ |= fields is None or self.expected not in (None, fields)
            self.expected = fields

    def header(self) -> list[str]:
        inputs = [f"input.{name}" for name in self._inputs()] or ["inputs"]
        expected = [f"expected.{name}" for name in self._expected()] or ["expected"]
        return ["name", *inputs, *expected, "tags", "group", "weight", *_FLAGS, "description"]

    def cells(self, case: TestCase) -> list[str]:
        inputs = [_written(case.inputs[name]) for name in self._inputs()] or [dump_json(case.inputs)]
        flags = ["true" if getattr(case, name) else "false" for name in _FLAGS]
        tags, weight = _written_tags(case.tags), json.dumps(case.weight)
        rest = [tags, _written_text(case.group or ""), weight, *flags, _written_text(case.description)]
        return [_written_text(case.name), *inputs, *self._expected_cells(case.expected), *rest]

    def _expected_cells(self, expected: Any) -> list[str]:
        names = self._expected()
        if expected is None:
            return [""] * max(1, len(names))
        values = [expected[name] for name in names] if names else [expected]
        if all(value == "" for value in values):  # for empty cells would say that nothing is expected
            return [_MARK] * len(values)
        return [_written(value) for value in values]

    def _inputs(self) -> tuple[str, ...]:
        return () if self.inputs_differ else self.inputs or ()

    def _expected(self) -> tuple[str, ...]:
        return () if self.expected_differ else self.expected or ()


def csv_line(cells: Sequence[str]) -> str:
    written = io.StringIO()
    csv.writer(written).writerow(cells)
    return written.getvalue()


def _columns_for(value: Any) -> tuple[str, ...] | None:
    """The names of an object's fields, sorted, where each can head a column."""
    if not isinstance(value, Mapping) or not value or any(not name or name != name.strip() for name in value):
        return None
    return tuple(sorted(value))


def _csv_rows(raw: bytes) -> Iterator[tuple[int, Any]]:
    reader = csv.reader(io.StringIO(_decoded(raw), newline=""), strict=True)
    header: list[str] | None = None
    try:
        for row in reader:
            if header is None:
                header = [column.strip() for column in row]
                _check_header(header)
            elif row:
                yield reader.line_num, _csv_row(header, row)
    except csv.Error as error:
        raise file_error(reader.line_num, f"not CSV: {error}") from error
    if header is None:
        raise file_error(1, "the file is empty")


def _check_header(header: Sequence[str]) -> None:
    if len(header) == 1 and (other := re.search(r"[;\t|]", header[0])):  # else all columns would be one field
        raise file_error(1, f"commas separate the columns of a CSV; here it seems to be {other[0]!r}")
    if not any(column.startswith(("input.", "inputs.")) or column == "inputs" for column in header):
        raise file_error(1, "needs at least one column named input.<field>")
    if clash := _clash(header):
        raise file_error(1, clash)


def _clash(header: Sequence[str]) -> str | None:
    """Which columns would be one field of a case, so that one of them would be lost."""
    same = {alias: name for name, alias in _FLAGS.items()}
    columns: dict[str, str] = {}
    for column in filter(None, header):
        field_name = same.get(column, re.sub(r"^inputs\.", "input.", column))
        other = columns.setdefault(field_name, column)
        if other == column and list(header).count(column) > 1:
            return f"two columns are named {column}"
        if other != column:
            return f"the columns {other} and {column} are the same field"
    for whole, part in (("expected", "expected."), ("inputs", "input.")):
        parts = [column for name, column in columns.items() if name.startswith(part)]
        if parts and whole in columns:
            return f"the columns {whole} and {parts[0]} exclude each other"
    return None


def _csv_row(header: Sequence[str], cells: Sequence[str]) -> Any:
    if len(cells) != len(header):
        return _Bad(f"has {len(cells)} cells, the header has {len(header)}")
    row: dict[str, Any] = {"inputs": {}}
    expected: dict[str, Any] = {}
    for column, cell in zip(header, cells, strict=True):
        kind, _, name = column.partition(".")
        if kind in ("input", "inputs") and name:
            row["inputs"][name] = _read(cell)
        elif kind == "expected" and name:
            expected[name] = cell
        elif column == "inputs":
            row["inputs"] = _read(cell)
        elif column == "expected":
            row["expected"] = _read(cell) if cell else None
        elif column == "tags":
            row["tags"] = _read_tags(cell)
        elif column == "weight" or column in _FLAGS or column in _FLAGS.values():
            if cell:  # else it is what it is without the column
                row[column] = _value(cell.lower())
        elif column in _TEXTS:
            row[column] = _read_text(cell)
        elif column:
            row[column] = cell
    if any(expected.values()):
        row["expected"] = {name: _read(cell) for name, cell in expected.items()}
    return row


def _read(cell: str) -> Any:
    marked = cell.startswith(_MARK) and _needs_mark(cell[1:])
    return cell[1:] if marked else _value(cell)


def _written(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    is_read_otherwise = not isinstance(_read(value), str) or _read(value) != value
    return _MARK + value if value.startswith(_COMPUTED) or is_read_otherwise else value


def _needs_mark(text: str) -> bool:
    return not text or text.startswith((*_COMPUTED, _MARK)) or not isinstance(_value(text), str)


def _read_text(cell: str) -> str:
    return cell[1:] if cell.startswith(_MARK) and cell[1:].startswith((*_COMPUTED, _MARK)) else cell


def _written_text(text: str) -> str:
    return _MARK + text if text.startswith(_COMPUTED) or _read_text(text) != text else text


def _read_tags(cell: str) -> Any:
    value = _value(cell)
    return value if isinstance(value, list) else [tag.strip() for tag in cell.split(",") if tag.strip()]


def _written_tags(tags: Sequence[str]) -> str:
    joined = ",".join(tags)
    is_plain = not joined.startswith(_COMPUTED) and _read_tags(joined) == list(tags)
    return joined if is_plain else json.dumps(list(tags), ensure_ascii=False)


def _value(cell: str) -> Any:
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


def _checked(rows: Iterable[tuple[int, Any]], word: str = "line") -> Parsed:
    cases, bad = [], []
    for line, row in rows:
        problem = row.detail if isinstance(row, _Bad) else problem_of(row)
        if problem:
            bad.append(BadRow(line, problem))
        else:
            cases.append(case_of(row, line))
    if not cases and not bad:
        raise file_error(1, "the file holds no test case")
    return Parsed(cases, bad, word)


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


def file_error(line: int, detail: str) -> Unprocessable:
    return Unprocessable(f"line {line}: {detail}", errors=[FieldError(f"/{line}", detail)])
