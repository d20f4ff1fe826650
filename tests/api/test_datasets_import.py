"""POST /v1/datasets/{name}/cases: all rows or none, what is there already is skipped, one revision per import."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared.models import TestCase
from tests.rows import count, event_data, everything
from tests.support import API_KEY, Api, pointers

CASES = "/v1/datasets/tickets/cases"
ROWS = [
    {"inputs": {"ticket": "it broke"}, "expected": {"category": "bug"}, "name": "first", "tags": ["a", "b"]},
    {"inputs": {"ticket": "thanks"}, "expected": None, "weight": 2.5, "golden": True, "group": "kind"},
]


@pytest.fixture(autouse=True)
def dataset(api: Api) -> None:
    """An empty dataset."""
    api.expect(201, "POST", "/v1/datasets", {"name": "tickets"})


def send(api: Api, raw: bytes | str, kind: str = "application/x-ndjson", **options: Any) -> TestResponse:
    return api.post(CASES, data=raw, content_type=kind, **options)


def imported(answer: TestResponse) -> tuple[int, list[int], int, int]:
    """(added, duplicates, revision, cases)"""
    assert answer.status_code == 201, answer.get_data(as_text=True)
    body = answer.get_json()
    return body["added"], body["duplicates"], body["dataset"]["revision"], body["dataset"]["case_count"]


def cases(api: Api) -> list[Any]:
    return list(api.expect(200, "GET", f"{CASES}?limit=100")["data"])


def jsonl(*rows: Any) -> str:
    return "\n".join(json.dumps(row) for row in rows) + "\n"


def test_jsonl_is_imported_with_all_it_says(api: Api) -> None:
    answer = send(api, jsonl(*ROWS))

    first, second = cases(api)
    assert imported(answer) == (2, [], 1, 2)
    assert (first["ordinal"], first["inputs"], first["expected"]) == (1, {"ticket": "it broke"}, {"category": "bug"})
    assert (first["name"], first["tags"], first["weight"], first["golden"]) == ("first", ["a", "b"], 1.0, False)
    assert (second["ordinal"], second["expected"], second["weight"]) == (2, None, 2.5)
    assert (second["golden"], second["group"], second["name"]) == (True, "kind", "")


def test_a_json_array_is_imported_as_its_jsonl_would_be(api: Api) -> None:
    api.expect(201, "POST", "/v1/datasets", {"name": "other"})
    send(api, jsonl(*ROWS))

    api.expect(201, "POST", "/v1/datasets/other/cases", ROWS)

    others = api.expect(200, "GET", "/v1/datasets/other/cases")["data"]
    assert [{**case, "test_case_id": ""} for case in others] == [{**case, "test_case_id": ""} for case in cases(api)]


def test_csv_cells_become_numbers_booleans_objects_tags_and_text(api: Api) -> None:
    rows = [
        "input.id,input.count,input.paid,input.meta,expected.category,tags,weight,golden,name",
        '007,1,true,"{""a"": [1]}",bug,"x, y",2,TRUE,first',
        "abc,1.5,false,null,1,,,,",
    ]

    answer = send(api, "\r\n".join(rows), "text/csv")

    first, second = cases(api)
    assert imported(answer) == (2, [], 1, 2)
    assert first["inputs"] == {"id": "007", "count": 1, "paid": True, "meta": {"a": [1]}}
    assert (first["expected"], first["tags"], first["weight"]) == ({"category": "bug"}, ["x", "y"], 2.0)
    assert (first["golden"], first["name"]) == (True, "first")
    assert second["inputs"] == {"id": "abc", "count": 1.5, "paid": False, "meta": None}
    assert (second["expected"], second["tags"], second["weight"]) == ({"category": 1}, [], 1.0)


@pytest.mark.parametrize(
    "kind", ["application/x-ndjson", "application/jsonl", "application/x-jsonlines; charset=utf-8"]
)
def test_jsonl_has_three_names(api: Api, kind: str) -> None:
    assert imported(send(api, jsonl(*ROWS), kind)) == (2, [], 1, 2)


def test_the_revision_rises_with_every_import_that_adds_something(api: Api) -> None:
    imports = [imported(send(api, jsonl({"inputs": {"n": n}}))) for n in (1, 2, 3)]

    assert imports == [(1, [], 1, 1), (1, [], 2, 2), (1, [], 3, 3)]
    assert [case["ordinal"] for case in cases(api)] == [1, 2, 3]
    assert event_data("dataset.imported") == [
        {"added": 1, "duplicates": 0, "revision": revision} for revision in (1, 2, 3)
    ]


def test_the_same_import_again_adds_nothing(api: Api) -> None:
    send(api, jsonl(*ROWS))
    before = everything()

    again = send(api, jsonl(*ROWS))

    assert imported(again) == (0, [1, 2], 1, 2)
    assert everything() == before


def test_duplicates_are_skipped_and_reported_by_their_line(api: Api) -> None:
    one, two, three = ({"inputs": {"n": n}} for n in (1, 2, 3))
    send(api, jsonl(one))

    answer = send(api, jsonl(two) + "\n\n" + jsonl({**one, "name": "again"}, three, two))

    assert imported(answer) == (2, [4, 6], 2, 3)
    assert [case["inputs"]["n"] for case in cases(api)] == [1, 2, 3]


def test_duplicates_of_a_csv_are_reported_by_their_line_and_of_an_array_by_their_index(api: Api) -> None:
    csv = send(api, "input.n\n1\n2\n1\n", "text/csv")
    array = api.post(CASES, [{"inputs": {"n": 3}}, {"inputs": {"n": 2}}])

    assert imported(csv) == (2, [4], 1, 2)
    assert imported(array) == (1, [1], 2, 3)


BAD_LINES = {
    "bad JSON": b'{"inputs": {"a": 1}',
    "no inputs": b'{"expected": 1}',
    "empty inputs": b'{"inputs": {}}',
    "not an object": b"[1]",
    "an unknown field": b'{"inputs": {"a": 1}, "expectd": 1}',
    "NaN": b'{"inputs": {"a": {"b": [NaN]}}}',
    "infinity": b'{"inputs": {"a": 1e999}}',
    "NUL": b'{"inputs": {"a": "\\u0000"}}',
    "half a surrogate": b'{"inputs": {"a": "\\ud800"}}',
    "invalid UTF-8": b'{"inputs": {"a": "\xff"}}',
    "weight 0": b'{"inputs": {"a": 1}, "weight": 0}',
    "a boolean weight": b'{"inputs": {"a": 1}, "weight": true}',
    "a key given twice": b'{"inputs": {"a": {"b": 1, "b": 2}}}',
    "golden under both its names": b'{"inputs": {"a": 1}, "golden": true, "is_golden": false}',
    "deep nesting": b'{"inputs": {"a": ' + b"[" * 900 + b"]" * 900 + b"}}",
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_bad_line_is_named_and_leaves_no_row(api: Api, line: bytes) -> None:
    before = everything()

    answer = send(api, b'{"inputs": {"n": 1}}\n{"inputs": {"n": 2}}\n' + line + b'\n{"inputs": {"n": 3}}\n')

    assert answer.status_code in (400, 422)
    assert pointers(answer) == ["/3"]
    assert "line 3" in answer.get_json()["detail"]
    assert everything() == before


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ("input.a,inputs.a", "input.a and inputs.a"),
        ("input.a,input.a", "input.a"),
        ("input.a,expected,expected.b", "expected and expected.b"),
        ("input.a,golden,is_golden", "golden and is_golden"),
        ("input.a;input.b", "';'"),
        ("input.a\texpected", "'\\t'"),
    ],
)
def test_csv_columns_that_would_be_lost_or_taken_for_one_are_refused_by_name(api: Api, header: str, named: str) -> None:
    answer = send(api, f"{header}\n{','.join('1' for _ in header.split(','))}\n", "text/csv")

    assert (answer.status_code, pointers(answer)) == (422, ["/1"])
    assert named in answer.get_json()["detail"]
    assert count(TestCase) == 0


BAD_CSV_LINES = {
    "a cell too few": b"1",
    "a cell too many": b"1,2,3",
    "weight 0": b"1,0",
    "a boolean weight": b"1,true",
    "NUL": b"a\x00b,1",
    "invalid UTF-8": b"\xff,1",
    "a stray quote": b'"a"b,1',
}


@pytest.mark.parametrize("line", BAD_CSV_LINES.values(), ids=BAD_CSV_LINES.keys())
def test_a_bad_csv_line_is_named_and_leaves_no_row(api: Api, line: bytes) -> None:
    before = everything()

    answer = send(api, b"input.n,weight\n1,1\n" + line + b"\n2,1\n", "text/csv")

    assert answer.status_code in (400, 422)
    assert pointers(answer) == ["/3"]
    assert everything() == before


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'[{"inputs": {"a": 1}}, {"inputs": {}}]', "/1"),
        (b'[{"inputs": {"a": 1}}, {"inputs": {"a": NaN}}]', "/1/inputs/a"),
        (b'[{"inputs": {"a": 1}}, {"inputs": {"a": "\\u0000"}}]', "/1/inputs/a"),
        (b'{"inputs": {"a": 1}}', ""),
        (b"[]", ""),
    ],
)
def test_a_bad_element_of_an_array_is_named_by_its_pointer(api: Api, body: bytes, named: str) -> None:
    answer = send(api, body, "application/json")

    assert (answer.status_code, pointers(answer)) == (422, [named])
    assert count(TestCase) == 0


@pytest.mark.parametrize("kind", ["application/x-ndjson", "text/csv"])
@pytest.mark.parametrize("raw", [b"", b"\n\n", b"input.n\n"])
def test_a_file_without_a_case_is_refused(api: Api, kind: str, raw: bytes) -> None:
    answer = send(api, raw, kind)

    assert answer.status_code == 422
    assert pointers(answer) == ["/1"]
    assert event_data("dataset.imported") == []


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", ""])
def test_a_body_of_another_kind_is_refused(api: Api, kind: str) -> None:
    answer = send(api, jsonl(*ROWS), kind)

    assert (answer.status_code, pointers(answer)) == (415, ["Content-Type"])
    assert "text/csv" in answer.get_json()["detail"]


def test_a_body_of_20_mb_is_read_and_a_larger_one_is_a_413(api: Api) -> None:
    row = jsonl({"inputs": {"text": "x"}}).encode()
    largest = row + b"\n" * (20_000_000 - len(row))

    too_large = send(api, largest + b"\n")

    assert (too_large.status_code, too_large.get_json()["code"]) == (413, "body_too_large")
    assert "20,000,000" in too_large.get_json()["detail"]
    assert count(TestCase) == 0
    assert imported(send(api, largest)) == (1, [], 1, 1)


def test_cases_are_listed_in_pages_in_the_order_of_import(api: Api) -> None:
    send(api, jsonl(*({"inputs": {"n": n}} for n in (5, 3, 4, 1, 2))))

    found, query = [], ""
    while True:
        page = api.expect(200, "GET", f"{CASES}?limit=2{query}")
        found.append([case["inputs"]["n"] for case in page["data"]])
        if page["next_cursor"] is None:
            break
        query = f"&cursor={page['next_cursor']}"

    assert found == [[5, 3], [4, 1], [2]]


@pytest.mark.parametrize("name", ["nothing", "a%00b"])
def test_an_import_into_a_dataset_that_does_not_exist_is_a_404(api: Api, name: str) -> None:
    for headers in ({}, {"Idempotency-Key": "a-key"}):
        assert api.post(f"/v1/datasets/{name}/cases", ROWS, headers=headers).status_code == 404

    assert count(TestCase) == 0


def test_the_same_key_with_rows_that_differ_in_a_weight_is_another_body(api: Api) -> None:
    headers = {"Idempotency-Key": "a-key"}
    first = send(api, jsonl({"inputs": {"n": 1}, "weight": 1}), headers=headers)

    second = send(api, jsonl({"inputs": {"n": 1}, "weight": 2}), headers=headers)

    assert first.status_code == 201
    assert (second.status_code, second.get_json()["code"]) == (422, "idempotency_mismatch")


def test_imports_at_once_lose_nothing_and_number_the_cases_without_gaps(api: Api, flask_client: FlaskClient) -> None:
    start = threading.Barrier(8)

    def one(part: int) -> TestResponse:
        client = Api(flask_client.application.test_client(), API_KEY)
        start.wait(timeout=30)
        # Every import brings two cases of its own and one that all bring.
        return send(client, jsonl(*({"inputs": {"n": n}} for n in (part * 2, part * 2 + 1, 1_000))))

    with ThreadPoolExecutor(8) as pool:
        answers = [imported(answer) for answer in pool.map(one, range(8))]

    stored = cases(api)
    assert sorted(case["inputs"]["n"] for case in stored) == [*range(16), 1_000]
    assert [case["ordinal"] for case in stored] == list(range(1, 18))
    assert sorted(revision for _, _, revision, _ in answers) == list(range(1, 9))
    assert sorted(added for added, _, _, _ in answers) == [2] * 7 + [3]
