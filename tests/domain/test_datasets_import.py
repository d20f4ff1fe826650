"""Reading test cases: JSONL, CSV and JSON arrays. Every bad line is named, and one bad line refuses the file."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import db
from shared.domain import datasets
from shared.domain.case_files import (
    MAX_CASE_BYTES,
    MAX_DEPTH,
    NewCase,
    all_or_nothing,
    read_csv,
    read_jsonl,
    read_rows,
)
from shared.domain.tenants import Caller
from shared.domain.test_cases import Imported, import_cases
from shared.errors import BadRequest, Unprocessable
from shared.models import Dataset, TestCase
from tests.rows import count, event_data

GOOD = {"inputs": {"a": 1}, "expected": "x"}


def parse_csv(raw: bytes) -> Any:
    return all_or_nothing(read_csv(raw))


def parse_jsonl(raw: bytes) -> Any:
    return all_or_nothing(read_jsonl(raw))


def parse_rows(rows: Any) -> Any:
    return all_or_nothing(read_rows(rows))


def jsonl(*rows: Any) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def csv(*lines: str) -> bytes:
    return "\n".join(lines).encode()


def refusal(parse: Callable[[Any], Any], raw: Any) -> tuple[list[str], str]:
    """(the lines that the error names, its whole text)"""
    with pytest.raises((Unprocessable, BadRequest)) as refused:
        parse(raw)
    return [error.pointer for error in refused.value.errors], refused.value.detail


def test_a_jsonl_line_is_a_case_with_everything_it_says() -> None:
    row = {"inputs": {"a": 1}, "expected": {"b": [2]}, "name": "n", "tags": ["t", "u"], "group": "g", "weight": 2}

    cases = parse_jsonl(jsonl(row, {**GOOD, "golden": True}))

    assert cases == [
        NewCase({"a": 1}, {"b": [2]}, name="n", tags=("t", "u"), group="g", weight=2.0, line=1),
        NewCase({"a": 1}, "x", golden=True, line=2),
    ]


def test_blank_lines_carriage_returns_and_a_byte_order_mark_are_no_content() -> None:
    raw = b"\xef\xbb\xbf" + jsonl(GOOD) + b"\r\n\r\n\n" + jsonl({"inputs": {"a": 2}}) + b"\r\n"

    cases = parse_jsonl(raw)

    assert [(case.line, case.inputs) for case in cases] == [(1, {"a": 1}), (4, {"a": 2})]


def test_a_line_separator_inside_a_string_does_not_end_the_line() -> None:
    (case,) = parse_jsonl(jsonl({"inputs": {"a": "one\u2028two\x85three"}}))

    assert case.inputs == {"a": "one\u2028two\x85three"}


def test_the_escape_sequence_of_a_nul_as_text_is_text() -> None:
    (case,) = parse_jsonl(rb'{"inputs": {"a": "end with \\u0000"}}')

    assert case.inputs == {"a": r"end with \u0000"}


DEEP: Any = 0
for _ in range(MAX_DEPTH):
    DEEP = [DEEP]

BAD_ROWS: list[tuple[str, Any, str]] = [
    ("a list", ["not an object"], "must be an object"),
    ("null", None, "must be an object"),
    ("no inputs", {"expected": 1}, "inputs must be an object"),
    ("empty inputs", {"inputs": {}}, "inputs must be an object"),
    ("inputs as text", {"inputs": "a"}, "inputs must be an object"),
    ("an unknown field", {**GOOD, "input": 1}, "unknown field 'input'"),
    ("tags as text", {**GOOD, "tags": "a,b"}, "tags must be a list of texts"),
    ("a number as tag", {**GOOD, "tags": [1]}, "tags must be a list of texts"),
    ("weight 0", {**GOOD, "weight": 0}, "weight must be a number above 0"),
    ("a weight below 0", {**GOOD, "weight": -1}, "weight must be a number above 0"),
    ("a weight of true", {**GOOD, "weight": True}, "weight must be a number above 0"),
    ("a weight as text", {**GOOD, "weight": "1"}, "weight must be a number above 0"),
    ("a weight that is too large", {**GOOD, "weight": 10**400}, "weight must be a number above 0"),
    ("golden as 1", {**GOOD, "golden": 1}, "golden must be true or false"),
    ("is_golden as text", {**GOOD, "is_golden": "true"}, "is_golden must be true or false"),
    ("a long name", {**GOOD, "name": "x" * 256}, "name must be a text"),
    ("a number as group", {**GOOD, "group": 5}, "group must be a text"),
    ("a NUL", {"inputs": {"a": ["b\x00"]}}, "NUL"),
    ("a NUL in a key", {"inputs": {"a": {"b\x00": 1}}}, "NUL"),
    ("a NUL in a tag", {**GOOD, "tags": ["b\x00"]}, "NUL"),
    ("a nest of lists", {"inputs": {"a": DEEP}}, "nested deeper than"),
    ("a large case", {"inputs": {"a": "x" * MAX_CASE_BYTES}}, "larger than 200,000 bytes"),
]


@pytest.mark.parametrize(("row", "detail"), [row[1:] for row in BAD_ROWS], ids=[row[0] for row in BAD_ROWS])
def test_a_bad_row_is_named_by_its_line_and_refuses_the_file(row: Any, detail: str) -> None:
    lines, text = refusal(parse_jsonl, jsonl(GOOD, row, {"inputs": {"a": 2}}))

    assert lines == ["/2"]
    assert text.startswith("1 bad rows, nothing was imported: line 2: ")
    assert detail in text


@pytest.mark.parametrize(("row", "detail"), [row[1:] for row in BAD_ROWS], ids=[row[0] for row in BAD_ROWS])
def test_a_bad_element_of_an_array_is_named_by_its_json_pointer(row: Any, detail: str) -> None:
    pointers, text = refusal(parse_rows, [GOOD, row])

    assert pointers == ["/1"]
    assert "element 1: " in text
    assert detail in text


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        (b'{"inputs": {"a": 1}', "not JSON"),
        (b"inputs", "not JSON"),
        (b'{"inputs": {"a": NaN}}', "NaN and infinity"),
        (b'{"inputs": {"a": [-Infinity]}}', "NaN and infinity"),
        (b'{"inputs": {"a": 1e999}}', "NaN and infinity"),
        (b'{"inputs": {"a": "\\ud800"}}', "surrogate"),
        (b'{"inputs": {"\\udfff": 1}}', "surrogate"),
        (b'{"inputs": {"a": ' + b"[" * 5_000 + b"]" * 5_000 + b"}}", "not JSON"),
        (b'{"inputs": {"a": ' + b"9" * 5_000 + b"}}", "not JSON"),
        (b'{"inputs": {"a": "\xff"}}', "invalid UTF-8"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(line: bytes, detail: str) -> None:
    lines, text = refusal(parse_jsonl, jsonl(GOOD) + b"\n\n" + line + b"\n" + jsonl(GOOD))

    assert lines == ["/3"]
    assert detail in text


def test_every_bad_line_is_named_up_to_a_hundred() -> None:
    few, _ = refusal(parse_jsonl, jsonl({}, GOOD, {}))
    many, text = refusal(parse_jsonl, jsonl(*[{}] * 150))

    assert few == ["/1", "/3"]
    assert many == [f"/{line}" for line in range(1, 101)]
    assert text.startswith("150 bad rows")


@pytest.mark.parametrize(
    ("parse", "raw"),
    [(parse_jsonl, b""), (parse_jsonl, b" \n\n"), (parse_csv, b""), (parse_csv, b"input.a\n"), (parse_rows, [])],
)
def test_a_file_without_a_case_is_refused(parse: Callable[[Any], Any], raw: Any) -> None:
    _, text = refusal(parse, raw)

    assert "holds no test case" in text or "the file is empty" in text


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("plain", "plain"),
        ("007", "007"),
        ("1", 1),
        ("-3", -3),
        ("1.5", 1.5),
        (" 1 ", 1),
        ("1.50", "1.50"),
        ("1e5", "1e5"),
        ("+1", "+1"),
        ("true", True),
        ("false", False),
        ("null", None),
        ("TRUE", "TRUE"),
        ("", ""),
        ("NaN", "NaN"),
        ("Infinity", "Infinity"),
        ("[NaN]", "[NaN]"),
        ('"{""b"": [1, null]}"', {"b": [1, None]}),
        ('"[1, ""x""]"', [1, "x"]),
        ('"""quoted"""', '"quoted"'),
        ("{not json", "{not json"),
        ('"two\nlines"', "two\nlines"),
        ("9" * 5_000, "9" * 5_000),
    ],
)
def test_a_csv_cell_is_read_as_json_only_where_it_plainly_is(cell: str, value: Any) -> None:
    (case,) = parse_csv(csv("input.a,input.b", f"{cell},x"))

    assert case.inputs == {"a": value, "b": "x"}
    assert type(case.inputs["a"]) is type(value)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00\r\n"), max_size=30))
def test_no_csv_cell_changes_into_another_text(cell: str) -> None:
    quoted = '"' + cell.replace('"', '""') + '"'

    (case,) = parse_csv(csv("input.a,input.b", f"{quoted},x"))
    value = case.inputs["a"]

    unmarked = cell.removeprefix("'")
    assert value in (cell, unmarked) if isinstance(value, str) else value == json.loads(cell)


def test_csv_columns_are_inputs_expected_and_the_names() -> None:
    raw = csv(
        "input.a,inputs.b,expected.c,expected.d,name,tags,group,weight,golden",
        'x,2,3,z,n,"t, u ,,v",g,0.5,TRUE',
        "y,3,4,z,,,,,",
    )

    cases = parse_csv(raw)

    assert cases == [
        NewCase(
            {"a": "x", "b": 2},
            {"c": 3, "d": "z"},
            name="n",
            tags=("t", "u", "v"),
            group="g",
            weight=0.5,
            golden=True,
            line=2,
        ),
        NewCase({"a": "y", "b": 3}, {"c": 4, "d": "z"}, line=3),
    ]


def test_one_expected_column_is_the_whole_expected_value() -> None:
    (case,) = parse_csv(csv("input.a,expected", "x,positive"))

    assert case.expected == "positive"


def test_a_csv_case_may_be_as_large_as_a_jsonl_case() -> None:
    (case,) = parse_csv(csv("input.a,input.b", "x" * 150_000 + ",y"))

    assert case.inputs["a"] == "x" * 150_000


@pytest.mark.parametrize(
    ("lines", "named", "detail"),
    [
        (("a,b", "1,2"), "/1", "input.<field>"),
        (("input.a,input.a", "1,2"), "/1", "two columns are named input.a"),
        (("input.a,input.b", "1,2", "1"), "/3", "has 1 cells, the header has 2"),
        (("input.a,input.b", "1,2,3"), "/2", "has 3 cells, the header has 2"),
        (("input.a,colour", "1,2"), "/2", "unknown field 'colour'"),
        (("input.a,weight", "1,0"), "/2", "weight must be a number above 0"),
        (("input.a,weight", "1,true"), "/2", "weight must be a number above 0"),
        (("input.a,weight", "1,heavy"), "/2", "weight must be a number above 0"),
        (("input.a,golden", "1,yes"), "/2", "golden must be true or false"),
        (("input.a", "x\x00y"), "/2", "NUL"),
        (("input.a,input.b", "1,2", '"x"y,3'), "/3", "not CSV"),
        (("input.a,input.b", "1,2", '"never closed,3'), "/3", "not CSV"),
        (("input.a,input.b", "1,2", '"two', 'lines",3', "1"), "/5", "has 1 cells"),
        (("input.a,input.b", "x" * 200_001 + ",1"), "/2", "not CSV"),
    ],
)
def test_a_bad_csv_line_is_named(lines: tuple[str, ...], named: str, detail: str) -> None:
    named_lines, text = refusal(parse_csv, csv(*lines))

    assert named_lines == [named]
    assert detail in text


def test_invalid_utf8_in_a_csv_names_its_line() -> None:
    assert refusal(parse_csv, b"input.a\none\ntw\xff\n") == (["/3"], "line 3: invalid UTF-8")


def test_a_case_is_hashed_when_it_is_parsed_and_not_in_the_transaction_that_stores_it() -> None:
    (case,) = parse_jsonl(b'{"inputs": {"a": 1}}')
    hashed = NewCase({"a": 1}, None).content_hash

    case.inputs["a"] = 2  # type: ignore[index]

    assert case.content_hash == hashed


def test_what_goes_in_and_what_is_expected_make_a_case_and_nothing_else_does() -> None:
    case = NewCase({"a": 1, "b": 2}, "x")

    assert (
        case.content_hash == NewCase({"b": 2, "a": 1}, "x", name="n", tags=("t",), weight=2, golden=True).content_hash
    )
    assert case.content_hash != NewCase({"a": 1, "b": 2}, "y").content_hash
    assert case.content_hash != NewCase({"a": 1, "b": "2"}, "x").content_hash


def make_dataset(caller: Caller) -> Dataset:
    with db.transaction() as session:
        return datasets.create_dataset(session, caller, name="tickets")


def add(caller: Caller, dataset: Dataset, *values: int) -> Imported:
    with db.transaction() as session:
        return import_cases(
            session, caller.user_name, dataset, parse_rows([{"inputs": {"a": value}} for value in values])
        )


def test_an_old_revision_keeps_the_cases_that_it_had(admin: Caller) -> None:
    dataset = make_dataset(admin)
    add(admin, dataset, 1, 2)

    add(admin, dataset, 2, 3)

    with db.reading() as session:
        first = [case.inputs["a"] for case in datasets.cases_of(session, dataset.id, 1)]
        second = [(case.ordinal, case.inputs["a"]) for case in datasets.cases_of(session, dataset.id, 2)]
    assert first == [1, 2]
    assert second == [(1, 1), (2, 2), (3, 3)]


def test_an_import_of_nothing_new_makes_no_revision_and_no_event(admin: Caller) -> None:
    dataset = make_dataset(admin)
    add(admin, dataset, 1, 2)

    again = add(admin, dataset, 2, 1, 1)

    assert (again.added, again.duplicates, again.dataset.revision) == (0, [0, 1, 2], 1)
    assert event_data("dataset.imported") == [{"added": 2, "duplicates": 0, "revision": 1}]


def test_a_dataset_never_passes_its_largest_number_of_cases(admin: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "MAX_CASES", 3)
    dataset = make_dataset(admin)
    add(admin, dataset, 1, 2)

    with pytest.raises(Unprocessable, match="at most 3 cases"):
        add(admin, dataset, 3, 4)

    assert count(TestCase) == 2
    assert add(admin, dataset, 2, 3).added == 1
