"""Test cases written to a file and read again are the same cases, in every format; and no cell is computed."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.case_files import Columns, NewCase, Parsed, csv_line, read_csv, read_json, read_jsonl, row_of
from shared.hashing import dump_json
from shared.models import TestCase

COMPUTED = ("=", "+", "-", "@", "\t", "\r", "\n")
# What changes its meaning in a file when nobody takes care: marks, separators, and texts that look like other values.
odd = st.sampled_from(
    ["'", "''", "'=1", "=1+1", "-1", "+1", "1", "007", "true", "null", '{"a":1}', "[", '"q"', "", " 1 "]
)
texts = odd | st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
numbers = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
# Few names, so that many files have the same fields in every case and columns for them.
objects = st.dictionaries(st.sampled_from(["a", "b.c", "=d"]) | texts, values, min_size=1, max_size=3)


def cases(inputs: st.SearchStrategy[Any], expected: st.SearchStrategy[Any]) -> st.SearchStrategy[TestCase]:
    return st.builds(
        TestCase,
        inputs=inputs,
        expected=expected,
        name=texts,
        description=texts,
        tags=st.lists(texts | st.sampled_from(["a,b", " x ", "[]"]), max_size=3),
        group=st.none() | texts.filter(bool),
        weight=st.floats(1e-9, 1e6),
        golden=st.booleans(),
        generated=st.booleans(),
    )


alike = st.fixed_dictionaries({"a": texts | values, "b": texts})
files = st.lists(cases(objects, values), min_size=1, max_size=4) | st.lists(
    cases(alike, st.none() | st.fixed_dictionaries({"x": texts, "y": texts | values})), min_size=1, max_size=4
)


def as_csv(stored: Sequence[TestCase]) -> str:
    columns = Columns()
    for case in stored:
        columns.see(case)
    return csv_line(columns.header()) + "".join(csv_line(columns.cells(case)) for case in stored)


def rows(parsed: Parsed) -> list[dict[str, Any]]:
    assert not parsed.bad
    return [_row(case) for case in parsed.cases]


def _row(case: NewCase) -> dict[str, Any]:
    fields = ("inputs", "expected", "name", "description", "group", "weight", "golden", "generated")
    return {**{name: getattr(case, name) for name in fields}, "tags": list(case.tags)}


def typed(value: Any) -> str:
    """Equal for values that are the same JSON: 1, 1.0 and true are three."""
    return json.dumps(value, sort_keys=True)


@given(files)
def test_a_csv_is_read_back_as_the_same_cases(stored: list[TestCase]) -> None:
    again = rows(read_csv(as_csv(stored).encode()))

    assert [typed(row) for row in again] == [typed(row_of(case)) for case in stored]


@given(files)
def test_no_cell_of_a_csv_is_computed_by_a_spreadsheet(stored: list[TestCase]) -> None:
    for line in csv.reader(io.StringIO(as_csv(stored), newline="")):
        for cell in line:
            if cell.startswith(COMPUTED):
                assert isinstance(json.loads(cell), int | float), cell


@given(files)
def test_jsonl_and_json_are_read_back_as_the_same_cases(stored: list[TestCase]) -> None:
    written = [dump_json(row_of(case)) for case in stored]

    for parsed in (read_jsonl("\n".join(written).encode()), read_json(f"[{','.join(written)}]".encode())):
        assert [typed(row) for row in rows(parsed)] == [typed(row_of(case)) for case in stored]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("'=1+1", "=1+1"),
        ("'-x", "-x"),
        ("'1", "1"),
        ("'true", "true"),
        ("'", ""),
        ("''x", "'x"),
        ("'tis", "'tis"),
        ("-x", "-x"),
        ("'007", "'007"),
    ],
)
def test_an_apostrophe_is_taken_off_only_where_it_marks_a_text(cell: str, value: str) -> None:
    (case,) = read_csv(f"input.a,input.b\n{cell},x\n".encode()).cases

    assert case.inputs == {"a": value, "b": "x"}


@pytest.mark.parametrize(("header", "empty"), [("expected", ""), ("expected.a,expected.b", ",")])
def test_where_every_cell_of_what_is_expected_is_empty_nothing_is(header: str, empty: str) -> None:
    (case,) = read_csv(f"input.x,{header}\n1,{empty}\n".encode()).cases

    assert case.expected is None


def test_cases_with_other_fields_than_the_rest_are_written_as_json_in_one_column() -> None:
    given_rows = [{"a": 1}, {"b": 2}]

    written = as_csv([TestCase(**_stored(inputs)) for inputs in given_rows])

    assert written.splitlines()[0] == "name,inputs,expected,tags,group,weight,golden,generated,description"
    assert [row["inputs"] for row in rows(read_csv(written.encode()))] == given_rows


def _stored(inputs: dict[str, Any]) -> dict[str, Any]:
    fields = {"name": "", "description": "", "tags": [], "weight": 1.0, "golden": False, "generated": False}
    return {"inputs": inputs, "expected": None, "group": None, **fields}
