"""Imports that skip bad rows, that only try, and that come as a file of a form: with a report per row."""

import io
import json
from typing import Any

import pytest

from shared.models import TestCase
from tests.rows import count, everything
from tests.support import Api, pointers

CASES = "/v1/datasets/tickets/cases"
GOOD, BAD = {"inputs": {"n": 1}}, {"inputs": {}}
MIXED = b'{"inputs": {"n": 1}}\n{"inputs": {}}\nno json\n{"inputs": {"n": 1}}\n{"inputs": {"n": 2}}\n'


@pytest.fixture(autouse=True)
def dataset(api: Api) -> None:
    """An empty dataset."""
    api.expect(201, "POST", "/v1/datasets", {"name": "tickets"})


def send(api: Api, raw: bytes, query: str = "", kind: str = "application/x-ndjson", **options: Any) -> Any:
    return api.post(f"{CASES}?{query}", data=raw, content_type=kind, **options)


def upload(api: Api, name: str, raw: bytes, query: str = "", **options: Any) -> Any:
    return api.post(f"{CASES}?{query}", data={"file": (io.BytesIO(raw), name)}, **options)


def test_bad_rows_are_skipped_and_told_where_that_is_asked_for(api: Api) -> None:
    answer = send(api, MIXED, "on_error=skip")

    report = answer.get_json()
    assert (answer.status_code, report["added"], report["duplicates"], report["rejected"]) == (201, 2, [4], 2)
    assert [(row["line"], row["detail"][:6]) for row in report["errors"]] == [(2, "inputs"), (3, "not JS")]
    assert [case["inputs"] for case in api.expect(200, "GET", CASES)["data"]] == [{"n": 1}, {"n": 2}]


def test_a_file_of_bad_rows_alone_adds_nothing_and_says_so(api: Api) -> None:
    report = send(api, b"1\n2\n", "on_error=skip").get_json()

    assert (report["added"], report["rejected"], report["dataset"]["revision"]) == (0, 2, 0)


def test_what_no_database_holds_is_told_of_its_row_where_rows_are_skipped(api: Api) -> None:
    raw = b'[{"inputs": {"a": 1}}, {"inputs": {"a": NaN}}, {"inputs": {"a": "\\u0000"}}]'

    report = send(api, raw, "on_error=skip", "application/json").get_json()

    assert (report["added"], [row["line"] for row in report["errors"]]) == (1, [1, 2])


def test_a_report_shows_the_first_thousand_bad_rows_and_counts_all(api: Api) -> None:
    report = send(api, b"{}\n" * 1_500, "on_error=skip").get_json()

    assert (report["rejected"], len(report["errors"])) == (1_500, 1_000)


@pytest.mark.parametrize(("query", "added"), [("dry_run=true", 0), ("dry_run=true&on_error=skip", 1)])
def test_a_dry_run_says_what_would_be_done_and_does_nothing(api: Api, query: str, added: int) -> None:
    api.expect(201, "POST", CASES, [{"inputs": {"n": 2}}])
    before = everything()

    answer = send(api, MIXED, query, headers={"Idempotency-Key": "a-key"})

    report = answer.get_json()
    assert (answer.status_code, report["dry_run"], report["added"]) == (200, True, added)
    assert (report["duplicates"], [row["line"] for row in report["errors"]]) == ([4, 5], [2, 3])
    assert everything() == before


def test_a_dry_run_of_a_good_file_says_what_the_import_then_does(api: Api) -> None:
    raw = json.dumps(GOOD).encode()

    tried, done = send(api, raw, "dry_run=true").get_json(), send(api, raw).get_json()

    assert (tried["added"], tried["rejected"]) == (done["added"], done["rejected"]) == (1, 0)


@pytest.mark.parametrize("query", ["", "on_error=skip", "dry_run=true"])
def test_a_file_that_cannot_be_read_at_all_is_refused_whatever_is_asked(api: Api, query: str) -> None:
    answer = send(api, b'input.n\n1\n"a"b\n', query, "text/csv")

    assert (answer.status_code, pointers(answer)) == (422, ["/3"])
    assert count(TestCase) == 0


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("cases.csv", b"input.n\n1\n2\n"),
        ("cases.jsonl", b'{"inputs": {"n": 1}}\n{"inputs": {"n": 2}}\n'),
        ("cases.json", b'[{"inputs": {"n": 1}}, {"inputs": {"n": 2}}]'),
    ],
)
def test_a_form_sends_a_file_whose_name_says_its_kind(api: Api, name: str, raw: bytes) -> None:
    assert upload(api, name, raw).get_json()["added"] == 2
    assert [case["inputs"] for case in api.expect(200, "GET", CASES)["data"]] == [{"n": 1}, {"n": 2}]


def test_a_bad_line_of_a_forms_file_is_named(api: Api) -> None:
    answer = upload(api, "cases.csv", b"input.n,weight\n1,1\n2,0\n")

    assert (answer.status_code, pointers(answer)) == (422, ["/3"])


@pytest.mark.parametrize(
    ("form", "status", "named"),
    [
        ({}, 422, "/file"),
        ({"other": "a.csv"}, 422, "/file"),
        ({"file": "a.pdf"}, 415, "Content-Type"),
    ],
)
def test_a_form_without_a_file_that_is_read_here_is_refused(api: Api, form: Any, status: int, named: str) -> None:
    files = {field: (io.BytesIO(b"x"), name) for field, name in form.items()}

    answer = api.post(CASES, data=files, content_type="multipart/form-data")

    assert (answer.status_code, pointers(answer)) == (status, [named])


def test_the_same_file_with_the_same_key_is_imported_once(api: Api) -> None:
    headers = {"Idempotency-Key": "a-key"}

    first = upload(api, "cases.csv", b"input.n\n1\n", headers=headers)
    second = upload(api, "cases.csv", b"input.n\n1\n", headers=headers)
    other = upload(api, "cases.csv", b"input.n\n2\n", headers=headers)

    assert first.get_json() == second.get_json()
    assert second.headers["Idempotent-Replayed"] == "true"
    assert (other.status_code, other.get_json()["code"]) == (422, "idempotency_mismatch")


@pytest.mark.parametrize("query", ["on_error=ignore", "dry_run=1"])
def test_a_parameter_that_is_wrong_is_named(api: Api, query: str) -> None:
    answer = send(api, MIXED, query)

    assert (answer.status_code, pointers(answer)) == (422, ["?" + query.partition("=")[0]])
