"""Test cases at Prompt Studio's addresses: the cases of the project's dataset `test-cases`."""

import base64
import csv
import io
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.models import Dataset, TestCase
from tests.rows import count, everything
from tests.support import MODEL, Api, Drain, make_prompt, pointers

PREFIX = "/api/v1/prompt-studio"
CASE = {
    "name": "first",
    "description": "plain",
    "inputs": {"ticket": "It broke"},
    "expected_outputs": {"kind": "bug"},
    "tags": ["a", "b"],
    "is_golden": True,
}


@pytest.fixture
def project(api: Api) -> str:
    return str(api.expect(201, "POST", f"{PREFIX}/projects/", {"name": "atlas"})["data"]["id"])


def data(api: Api, status: int, method: str, path: str, body: Any = None, **options: Any) -> Any:
    answer = api.expect(status, method, f"{PREFIX}/test-cases{path}", body, **options)
    assert answer["success"] is True
    return answer["data"]


def created(api: Api, project: str, **fields: Any) -> Any:
    return data(api, 201, "POST", "/create", {"project_id": project, **CASE, **fields})


def listed(api: Api, project: str, query: str = "") -> list[Any]:
    return [case["name"] for case in data(api, 200, "GET", f"/list/{project}?{query}")]


def test_a_created_case_is_read_as_it_was_given_and_is_one_of_v1(api: Api, project: str) -> None:
    made = created(api, project)

    assert {name: made[name] for name in CASE} == CASE
    assert (made["id"], made["project_id"], made["is_generated"]) == (made["uuid"], project, False)
    assert data(api, 200, "GET", f"/get/{made['id']}") == made
    [ours] = api.expect(200, "GET", "/v1/datasets/test-cases/cases?project=atlas")["data"]
    assert (ours["test_case_id"], ours["expected"]) == (made["id"], {"kind": "bug"})


def test_revisions_that_had_a_case_that_is_gone_for_good_count_one_less(api: Api, project: str) -> None:
    """They said how many they had held; what they hold is what can be read of them."""
    ours = "/v1/datasets/test-cases"
    first, second, third = (created(api, project, inputs={"n": n})["id"] for n in range(3))
    api.expect(200, "PATCH", f"{ours}/cases/{first}?project=atlas", {"name": "one"})
    api.expect(200, "DELETE", f"{ours}/cases/{second}?project=atlas")
    api.expect(200, "POST", f"{ours}/cases/{second}/restore?project=atlas")

    for case_id in (second, first, third):
        data(api, 200, "DELETE", f"/delete/{case_id}?permanent=true")
        rows = api.expect(200, "GET", f"{ours}/revisions?project=atlas")["data"]
        counted = {row["revision"]: row["case_count"] for row in rows}
        read = {
            number: len(api.expect(200, "GET", f"{ours}/cases?project=atlas&revision={number}")["data"])
            for number in counted
        }
        assert counted == read
    assert set(counted.values()) == {0}


def test_the_same_content_again_is_a_409_that_names_the_case(api: Api, project: str) -> None:
    made = created(api, project)
    before = everything()

    answer = api.post(f"{PREFIX}/test-cases/create", {"project_id": project, **CASE, "name": "other"})

    assert (answer.status_code, answer.get_json()["success"]) == (409, False)
    assert made["id"] in answer.get_json()["error"]
    assert everything() == before


def test_a_bulk_makes_all_cases_and_leaves_out_what_is_there(api: Api, project: str) -> None:
    created(api, project)
    new = {"inputs": {"n": 1}}

    answer = api.expect(
        201,
        "POST",
        f"{PREFIX}/test-cases/bulk",
        {"project_id": project, "test_cases": [CASE, new, {"inputs": {"n": 2}}]},
    )

    assert [case["inputs"] for case in answer["data"]] == [{"n": 1}, {"n": 2}]
    assert answer["metadata"]["warnings"] == ["1 have inputs and expected outputs that are there already"]


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/create", {"inputs": {}}, "/inputs"),
        ("/create", {"inputs": "x"}, "/inputs"),
        ("/create", {"inputs": {"a": 1}, "signature_id": 3}, "/signature_id"),
        ("/create", {"inputs": {"a": 1}, "name": "x" * 256}, "/name"),
        ("/create", {"inputs": {"a": 1}, "description": "x" * 1001}, "/description"),
        ("/create", {"inputs": {"a": 1}, "is_golden": "true"}, "/is_golden"),
        ("/bulk", {"test_cases": []}, "/test_cases"),
        ("/bulk", {"test_cases": [{"inputs": {"a": 1}}, {"inputs": {"a": "x" * 200_001}}]}, "/test_cases/1"),
        ("/import", {"format": "xml", "data": "x"}, "/format"),
        ("/import", {"format": "json", "data": "{"}, "/data"),
        ("/run", {"test_case_ids": []}, "/test_case_ids"),
    ],
)
def test_a_bad_body_is_refused_where_it_is_bad(api: Api, project: str, path: str, body: Any, named: str) -> None:
    own = {"prompt_id": str(uuid.uuid4())} if path == "/run" else {"project_id": project}

    answer = api.post(f"{PREFIX}/test-cases{path}", {**own, **body})

    assert answer.status_code in (400, 422)
    assert pointers(answer) == [named]
    assert (count(TestCase), count(Dataset)) == (0, 0)


def test_cases_are_listed_by_page_flag_tag_and_text(api: Api, project: str) -> None:
    assert listed(api, project) == []
    for number, tags in enumerate([["x"], ["y"], ["z"]]):
        created(api, project, name=f"n{number}", inputs={"n": number}, tags=tags, is_golden=number == 1)

    page = api.expect(200, "GET", f"{PREFIX}/test-cases/list/{project}?page=2&per_page=2")

    assert [case["name"] for case in page["data"]] == ["n2"]
    assert page["metadata"] == {"page": 2, "per_page": 2, "total": 3, "total_pages": 2}
    assert listed(api, project, "is_golden=true") == ["n1"]
    assert listed(api, project, "tags=x,%20z") == ["n0", "n2"]
    assert listed(api, project, "search=N1") == ["n1"]
    answer = api.get(f"{PREFIX}/test-cases/list/{project}?signature_id=3")
    assert (answer.status_code, pointers(answer)) == (422, ["?signature_id"])


def test_an_updated_case_keeps_its_id_and_place(api: Api, project: str) -> None:
    made, other = created(api, project), created(api, project, name="other", inputs={"n": 1})

    changed = data(api, 200, "PUT", f"/update/{made['id']}", {"inputs": {"n": 2}, "tags": None, "is_golden": False})

    assert changed == {**made, "inputs": {"n": 2}, "tags": [], "is_golden": False}
    assert [case["id"] for case in data(api, 200, "GET", f"/list/{project}")] == [made["id"], other["id"]]


def test_a_deleted_case_is_gone_and_for_good_leaves_no_row(api: Api, project: str) -> None:
    soft, hard = created(api, project), created(api, project, inputs={"n": 1})

    data(api, 200, "DELETE", f"/delete/{soft['id']}")
    data(api, 200, "DELETE", f"/delete/{hard['id']}?permanent=true")

    assert api.get(f"{PREFIX}/test-cases/get/{soft['id']}").status_code == 404
    assert api.get(f"{PREFIX}/test-cases/get/{hard['id']}").status_code == 404
    assert (listed(api, project), count(TestCase)) == ([], 1)
    assert api.expect(200, "GET", "/v1/datasets/test-cases?project=atlas")["case_count"] == 0


def test_nobody_sees_or_changes_a_case_of_another_workspace(
    api: Api, project: str, as_user: Callable[..., Api]
) -> None:
    made, other = created(api, project), as_user(workspace="other")
    before = everything()

    for method, path in [("GET", "get"), ("PUT", "update"), ("DELETE", "delete")]:
        body = {"name": "x"} if method == "PUT" else None
        assert other.request(method, f"{PREFIX}/test-cases/{path}/{made['id']}", body).status_code == 404
    assert other.get(f"{PREFIX}/test-cases/list/{project}").status_code == 404
    assert other.post(f"{PREFIX}/test-cases/create", {"project_id": project, **CASE}).status_code == 404
    assert other.post(f"{PREFIX}/test-cases/export/{project}", {}).status_code == 404
    assert everything() == before


CSV = 'name,description,input.a,expected.b,tags,is_golden\nn,d,1,x,"t, u",true\n,,2,y,,\n,,3\n'
JSON = [{"inputs": {"a": 1}, "expected_outputs": {"b": "x"}, "signature_id": None}, {"inputs": {}}]


@pytest.mark.parametrize("encode", [str, lambda text: base64.b64encode(text.encode()).decode()], ids=["text", "base64"])
def test_a_csv_is_imported_and_its_bad_rows_are_told(api: Api, project: str, encode: Callable[[str], str]) -> None:
    body = {"project_id": project, "format": "csv", "data": encode(CSV)}

    result = data(api, 200, "POST", "/import", body)

    assert (result["imported"], result["total_test_cases"], result["duplicates"]) == (2, 2, 0)
    assert [error[:7] for error in result["errors"]] == ["line 4:"]
    first, second = data(api, 200, "GET", f"/list/{project}")
    assert (first["name"], first["tags"], first["is_golden"]) == ("n", ["t", "u"], True)
    assert (second["name"], second["inputs"], second["expected_outputs"]) == ("Test case 2", {"a": 2}, {"b": "y"})


def test_a_json_array_is_imported_without_names_where_none_are_wanted(api: Api, project: str) -> None:
    body = {"project_id": project, "format": "json", "data": json.dumps(JSON), "auto_generate_names": False}

    result = data(api, 200, "POST", "/import", body)

    assert (result["imported"], [error[:10] for error in result["errors"]]) == (1, ["element 1:"])
    assert listed(api, project) == [""]


def upload(api: Api, **form: Any) -> Any:
    fields = {"file": (io.BytesIO(b"input.a\n1\n"), "cases.csv"), **form}
    return api.post(f"{PREFIX}/test-cases/import/csv-upload", data=fields, content_type="multipart/form-data")


def test_a_csv_file_of_a_form_is_imported(api: Api, project: str) -> None:
    answer = upload(api, project_id=project)

    assert (answer.status_code, answer.get_json()["data"]["imported"]) == (200, 1)
    assert listed(api, project) == ["Test case 1"]


@pytest.mark.parametrize(
    ("form", "named"),
    [({}, "/project_id"), ({"other": "x"}, "/other"), ({"signature_id": "3"}, "/signature_id")],
)
def test_a_form_that_says_something_else_is_refused(api: Api, form: Any, named: str) -> None:
    answer = upload(api, **form)

    assert (answer.status_code, pointers(answer)) == (422, [named])
    assert count(TestCase) == 0


def test_an_import_into_a_project_that_is_not_there_is_a_404_that_the_document_lists(api: Api) -> None:
    nowhere = str(uuid.UUID(int=1))
    body = {"project_id": nowhere, "format": "json", "data": json.dumps(JSON)}

    assert api.request("POST", f"{PREFIX}/test-cases/import", body).status_code == 404
    assert upload(api, project_id=nowhere).status_code == 404

    paths = api.expect(200, "GET", "/openapi.json")["paths"]
    for path in ("import", "import/csv-upload"):
        assert "404" in paths[f"{PREFIX}/test-cases/{path}"]["post"]["responses"]


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_what_is_exported_is_imported_as_the_same_cases(api: Api, project: str, kind: str) -> None:
    created(api, project, name="=1+1")
    created(api, project, inputs={"ticket": "-1"}, expected_outputs={"kind": "1"}, is_golden=False)
    copy = str(api.expect(201, "POST", f"{PREFIX}/projects/", {"name": "copy"})["data"]["id"])

    exported = data(api, 200, "POST", f"/export/{project}", {"format": kind})
    data(api, 200, "POST", "/import", {"project_id": copy, "format": kind, "data": exported["data"]})

    own = ("id", "uuid", "project_id", "created_at")
    pair = [
        [{name: value for name, value in case.items() if name not in own} for case in rows]
        for rows in (data(api, 200, "GET", f"/list/{project}"), data(api, 200, "GET", f"/list/{copy}"))
    ]
    assert pair[0] == pair[1]
    assert exported["content_type"] == {"csv": "text/csv", "json": "application/json"}[kind]


def test_an_export_takes_the_golden_ones_and_those_with_a_tag(api: Api, project: str) -> None:
    created(api, project)
    created(api, project, inputs={"n": 1}, is_golden=False, tags=["z"])

    golden = data(api, 200, "POST", f"/export/{project}", {"include_golden_only": True})
    tagged = data(api, 200, "POST", f"/export/{project}", {"tag_filter": ["z", "y"]})
    header = next(csv.reader(io.StringIO(data(api, 200, "POST", f"/export/{project}", {"format": "csv"})["data"])))

    assert [row["inputs"] for row in json.loads(golden["data"])] == [CASE["inputs"]]
    assert [row["inputs"] for row in json.loads(tagged["data"])] == [{"n": 1}]
    assert {"is_golden", "is_generated", "expected.kind"} <= set(header)


def test_a_template_has_the_columns_of_an_import(api: Api) -> None:
    make_prompt(api, "triage", template="{{ ticket }}")
    version_id = api.expect(200, "GET", "/v1/prompts/triage/versions/1")["version_id"]

    plain = api.get(f"{PREFIX}/test-cases/import/template")
    of_prompt = api.get(f"{PREFIX}/test-cases/import/template?prompt_id={version_id}")

    rest = "tags,group,weight,is_golden,is_generated,description\r\n"
    assert plain.get_data(as_text=True) == f"name,input.input,expected.output,{rest}"
    assert of_prompt.get_data(as_text=True) == f"name,input.ticket,expected,{rest}"
    assert api.get(f"{PREFIX}/test-cases/import/template?signature_id=1").status_code == 422


@pytest.fixture
def prompt(api: Api, project: str) -> str:
    """A prompt of the project, and five cases."""
    make_prompt(api, "echo", template="Repeat: {{ text }}", model=MODEL, project="atlas")
    for number in range(5):
        created(api, project, name=f"n{number}", inputs={"text": f"text {number}"}, expected_outputs=f"text {number}")
    return str(api.expect(200, "GET", "/v1/prompts/echo/versions/1?project=atlas")["version_id"])


def ended_run(api: Api, drain: Drain, prompt: str, ids: list[str]) -> Any:
    """Started without waiting, worked, and asked for again by its key."""
    body = {"prompt_id": prompt, "test_case_ids": ids, "scorers": [{"type": "contains"}]}
    headers = {"Prefer": "wait=0", "Idempotency-Key": str(uuid.uuid4())}
    started = data(api, 202, "POST", "/run", body, headers=headers)
    assert (started["status"], started["results"]) == ("pending", [])
    drain()
    return data(api, 200, "POST", "/run", body, headers=headers)


def test_a_run_evaluates_the_chosen_cases_and_no_others(api: Api, project: str, prompt: str, drain: Drain) -> None:
    cases = data(api, 200, "GET", f"/list/{project}")
    ids = [cases[3]["id"], cases[1]["id"]]

    done = ended_run(api, drain, prompt, ids)
    other = ended_run(api, drain, prompt, [cases[0]["id"]])
    every = ended_run(api, drain, prompt, [case["id"] for case in cases])

    assert done["status"] == "completed"
    assert [row["test_case_id"] for row in done["results"]] == sorted(ids, key=ids[::-1].index)
    assert [row["inputs"] for row in done["results"]] == [{"text": "text 1"}, {"text": "text 3"}]
    assert all(row["execution_id"] and row["score"] is not None for row in done["results"])
    assert [row["inputs"] for row in other["results"]] == [{"text": "text 0"}]
    assert [row["test_case_id"] for row in every["results"]] == [case["id"] for case in cases]
    evaluation = api.expect(200, "GET", f"/v1/evaluations/{done['evaluation_id']}")
    assert (evaluation["status"], evaluation["dataset_revision"]) == ("succeeded", 1)


def test_a_run_of_cases_that_are_not_there_is_refused(api: Api, project: str, prompt: str) -> None:
    before = everything()

    answer = api.post(f"{PREFIX}/test-cases/run", {"prompt_id": prompt, "test_case_ids": [str(uuid.uuid4())]})

    assert (answer.status_code, pointers(answer)) == (422, ["/test_case_ids/0"])
    assert everything() == before


def test_a_case_that_was_run_is_not_deleted_for_good(api: Api, project: str, prompt: str, drain: Drain) -> None:
    cases = data(api, 200, "GET", f"/list/{project}")
    ended_run(api, drain, prompt, [case["id"] for case in cases])

    answer = api.request("DELETE", f"{PREFIX}/test-cases/delete/{cases[0]['id']}?permanent=true")

    assert answer.status_code == 409
    data(api, 200, "DELETE", f"/delete/{cases[0]['id']}")
    assert len(listed(api, project)) == 4


def test_a_model_writes_cases_into_the_project(api: Api, project: str, prompt: str, drain: Drain) -> None:
    body = {"project_id": project, "prompt_id": prompt, "num_cases": 4, "generation_strategy": "minimal"}
    headers = {"Prefer": "wait=0", "Idempotency-Key": str(uuid.uuid4())}

    started = data(api, 202, "POST", "/generate", body, headers=headers)
    drain()
    done = data(api, 200, "POST", "/generate", body, headers=headers)

    assert (started["status"], done["status"]) == ("pending", "completed")
    assert done["test_cases"]
    assert all(case["is_generated"] and case["inputs"]["text"] for case in done["test_cases"])
    assert listed(api, project)[5:] == [case["name"] for case in done["test_cases"]]


def test_cases_that_there_is_no_room_for_are_refused_by_the_name_of_their_number(
    api: Api, project: str, prompt: str
) -> None:
    with db.transaction() as session:
        session.execute(sa.update(Dataset).values(case_count=99_998))
    body = {"project_id": project, "prompt_id": prompt, "num_cases": 3}

    answer = api.post(f"{PREFIX}/test-cases/generate", body)

    assert (answer.status_code, pointers(answer)) == (422, ["/num_cases"])


def test_without_a_prompt_no_case_is_written(api: Api, project: str) -> None:
    answer = api.post(f"{PREFIX}/test-cases/generate", {"project_id": project})

    assert (answer.status_code, pointers(answer)) == (422, ["/prompt_id"])
