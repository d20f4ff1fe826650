"""GET cases:export and cases:template: files that an import takes."""

from typing import Any

import pytest

from shared.domain.test_cases import PAGE
from tests.support import Api, make_prompt, pointers

ROWS: list[dict[str, Any]] = [
    {"inputs": {"a": "=1+1", "b": 1}, "expected": {"c": "1"}, "name": "-x", "tags": ["a,b", "c"], "golden": True},
    {"inputs": {"a": "", "b": "1"}, "expected": None, "weight": 2.5, "group": "g", "description": "d"},
    {"inputs": {"a": [1, None], "b": "two\nlines"}, "expected": {"c": ""}, "generated": True},
]
KINDS = {"csv": "text/csv", "json": "application/json", "jsonl": "application/x-ndjson"}
CASES = "/v1/datasets/tickets/cases"


@pytest.fixture(autouse=True)
def dataset(api: Api) -> None:
    api.expect(201, "POST", "/v1/datasets", {"name": "tickets"})
    api.expect(201, "POST", CASES, ROWS)


def content(api: Api, name: str) -> list[Any]:
    own = ("test_case_id", "added_in")
    cases = api.expect(200, "GET", f"/v1/datasets/{name}/cases?limit=100")["data"]
    return [{field: value for field, value in case.items() if field not in own} for case in cases]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_exported_imports_as_the_same_cases(api: Api, kind: str) -> None:
    api.expect(201, "POST", "/v1/datasets", {"name": "copy"})

    file = api.get(f"{CASES}:export?format={kind}")
    api.expect(201, "POST", "/v1/datasets/copy/cases", data=file.data, content_type=KINDS[kind])

    assert (file.status_code, file.mimetype) == (200, KINDS[kind])
    assert file.headers["Content-Disposition"] == f'attachment; filename="tickets-1.{kind}"'
    assert content(api, "copy") == content(api, "tickets")


def test_a_csv_has_a_column_for_each_field_and_marks_what_would_be_computed(api: Api) -> None:
    lines = api.get(f"{CASES}:export").get_data(as_text=True).split("\r\n")

    assert lines[0] == "name,input.a,input.b,expected.c,tags,group,weight,golden,generated,description"
    assert lines[1] == '\'-x,\'=1+1,1,\'1,"[""a,b"", ""c""]",,1.0,true,false,'


def test_an_export_takes_the_filters_of_the_list_and_an_older_revision(api: Api) -> None:
    case_id = api.expect(200, "GET", CASES)["data"][0]["test_case_id"]
    api.expect(200, "DELETE", f"{CASES}/{case_id}")

    def names(query: str) -> list[Any]:
        return [case["inputs"]["b"] for case in api.expect(200, "GET", f"{CASES}:export?format=json&{query}")]

    assert names("") == ["1", "two\nlines"]
    assert names("revision=1") == [1, "1", "two\nlines"]
    assert names("revision=1&golden=true") == [1]
    assert names("group=g") == ["1"]
    assert names("q=lines") == ["two\nlines"]
    assert names("q=nothing") == []


def test_more_cases_than_are_read_at_a_time_are_exported_in_order(api: Api) -> None:
    api.expect(201, "POST", "/v1/datasets", {"name": "many"})
    api.expect(201, "POST", "/v1/datasets/many/cases", [{"inputs": {"n": n}} for n in range(PAGE + 1)])

    exported = api.expect(200, "GET", "/v1/datasets/many/cases:export?format=json")

    assert [case["inputs"]["n"] for case in exported] == list(range(PAGE + 1))


@pytest.mark.parametrize("query", ["format=xml", "revision=9", "golden=1", "limit=3"])
def test_a_parameter_that_is_wrong_is_named(api: Api, query: str) -> None:
    answer = api.get(f"{CASES}:export?{query}")

    assert (answer.status_code, pointers(answer)) == (422, ["?" + query.partition("=")[0]])


def test_a_template_has_the_variables_of_the_prompt_and_the_fields_of_its_answer(api: Api) -> None:
    schema = {"type": "object", "properties": {"kind": {"type": "string"}, "urgent": {"type": "boolean"}}}
    make_prompt(api, "triage", template="{{ ticket }} of {{ sender }}", response_schema=schema)
    make_prompt(api, "triage", template="{{ ticket }}")

    newest = api.get(f"{CASES}:template?prompt_name=triage")
    older = api.get(f"{CASES}:template?prompt_name=triage@v1")

    rest = "tags,group,weight,golden,generated,description\r\n"
    assert newest.get_data(as_text=True) == f"name,input.ticket,expected,{rest}"
    assert older.get_data(as_text=True) == (f"name,input.sender,input.ticket,expected.kind,expected.urgent,{rest}")
    assert (newest.mimetype, newest.headers["Content-Disposition"]) == (
        "text/csv",
        'attachment; filename="tickets-template.csv"',
    )


def test_without_a_prompt_a_template_has_the_columns_of_the_cases(api: Api) -> None:
    template = api.get(f"{CASES}:template").get_data(as_text=True)

    assert template.startswith("name,input.a,input.b,expected.c,tags,")


def test_a_template_of_a_prompt_that_does_not_exist_is_a_404(api: Api) -> None:
    assert api.get(f"{CASES}:template?prompt_name=nobody").status_code == 404
    assert api.get("/v1/datasets/nothing/cases:template").status_code == 404
    assert api.get("/v1/datasets/nothing/cases:export").status_code == 404
