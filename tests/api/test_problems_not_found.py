"""What a request names that is not there: the 404 says where in the request the name stood."""

import uuid
from typing import Any

import pytest

from tests.judged import evaluate
from tests.support import Api, Drain, evaluation_body, make_triage, optimization_body, pointers, run_body

BODIES = {
    "/v1/executions:submit": run_body("triage", variables={"ticket": "it broke"}),
    "/v1/evaluations": evaluation_body(),
    "/v1/optimizations": optimization_body(),
}
REFERENCES: list[tuple[dict[str, Any], str]] = [
    ({"prompt_name": "nope"}, "/prompt_name"),
    ({"prompt_name": "triage@nope"}, "/prompt_name"),
    ({"prompt_name": "triage@v9"}, "/prompt_name"),
    ({"prompt_name": "triage@sha256:abcdef"}, "/prompt_name"),
    ({"version_number": 9}, "/version_number"),
    ({"label": "nope"}, "/label"),
    ({"project": "nope"}, "/project"),
]


@pytest.mark.parametrize("path", BODIES)
def test_a_reference_of_the_body_is_named_by_its_pointer(api: Api, path: str) -> None:
    make_triage(api, cases=1)
    references = REFERENCES if path == "/v1/executions:submit" else [*REFERENCES, ({"dataset": "nope"}, "/dataset")]

    for wrong, pointer in references:
        answer = api.post(path, {**BODIES[path], **wrong})

        assert (answer.status_code, pointers(answer)) == (404, [pointer]), wrong


@pytest.mark.parametrize(
    ("method", "path", "body", "named"),
    [
        ("GET", "/v1/prompts?project=nope", None, ["?project"]),
        ("GET", "/v1/datasets?project=nope", None, ["?project"]),
        ("GET", "/v1/executions?project=nope", None, ["?project"]),
        ("GET", "/v1/evaluations?project=nope", None, ["?project"]),
        ("GET", "/v1/optimizations?project=nope", None, ["?project"]),
        ("GET", "/v1/executions?prompt_name=nope", None, ["?prompt_name"]),
        ("PUT", "/v1/prompts/a?project=nope", {"template_source": "a"}, ["?project"]),
        ("PUT", "/v1/prompts/triage/labels/a", {"version_number": 9}, ["/version_number"]),
        ("POST", "/v1/prompts", {"name": "a", "template_source": "a", "project": "nope"}, ["/project"]),
        ("POST", "/v1/datasets", {"name": "a", "project": "nope"}, ["/project"]),
        ("GET", "/v1/prompts/nope", None, []),
        ("PUT", "/v1/prompts/nope/labels/a", {"version_number": 1}, []),
        ("GET", "/v1/datasets/nope", None, []),
        ("GET", "/v1/projects/nope", None, []),
    ],
)
def test_a_name_is_placed_where_it_stood_and_one_of_the_path_nowhere(
    api: Api, method: str, path: str, body: Any, named: list[str]
) -> None:
    make_triage(api, cases=1)

    answer = api.request(method, path, body)

    assert (answer.status_code, pointers(answer)) == (404, named)


def test_another_evaluation_that_is_not_there_is_named_where_it_stood(api: Api, drain: Drain) -> None:
    make_triage(api, cases=10)
    path = f"/v1/evaluations/{evaluate(api, drain)['evaluation_id']}"
    nobodys = uuid.UUID(int=1)

    compared = api.get(f"{path}/compare?with={nobodys}")
    asked = api.get(f"{path}/gate?non_inferior_to={nobodys}")

    assert [answer.status_code for answer in (compared, asked)] == [404, 404]
    assert [pointers(answer) for answer in (compared, asked)] == [["?with"], ["?non_inferior_to"]]


def test_the_prompt_of_a_filter_is_named_by_the_filter(api: Api) -> None:
    make_triage(api, cases=1)

    answer = api.post("/v1/datasets/tickets/cases:from-executions", {"filter": {"prompt_name": "nope"}})

    assert (answer.status_code, pointers(answer)) == (404, ["/filter"])


def test_what_is_not_there_is_called_by_its_words(api: Api) -> None:
    nobodys = uuid.UUID(int=1)

    answer = api.get(f"/v1/optimization-comparisons/{nobodys}")

    assert answer.get_json()["detail"] == f"no optimization comparison {nobodys}"


def test_a_null_label_and_a_null_version_are_as_if_left_out(api: Api) -> None:
    make_triage(api, cases=12)

    for path, body in BODIES.items():
        api.expect(202, "POST", path, {**body, "label": None, "version_number": None})
