"""Reading projects of Prompt Studio: pages by number, counts, stats."""

import pytest

from tests.compat.studio import NOBODY, Studio
from tests.support import Drain, evaluation_body, make_prompt, make_triage, pointers


@pytest.mark.parametrize("path", ["/projects/", "/projects"])
def test_pages_are_counted_and_cover_every_project_once(studio: Studio, path: str) -> None:
    names = [studio.project(f"p{index}")["name"] for index in range(4)]  # and `default`

    pages = [studio.expect(200, "GET", f"{path}?page={page}&per_page=2") for page in (1, 2, 3, 4)]

    assert [page["metadata"] for page in pages] == [
        {"page": number, "per_page": 2, "total": 5, "total_pages": 3} for number in (1, 2, 3, 4)
    ]
    assert [row["name"] for page in pages for row in page["data"]] == [*reversed(names), "default"]
    assert pages[3]["data"] == []


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("page=0", "?page"),
        ("per_page=101", "?per_page"),
        ("per_page=0", "?per_page"),
        ("page=x", "?page"),
        ("status=open", "?status"),
        ("limit=5", "?limit"),
    ],
)
def test_a_page_that_cannot_be_is_named(studio: Studio, query: str, pointer: str) -> None:
    answer = studio.request("GET", f"/projects?{query}")

    assert (answer.status_code, pointers(answer)) == (422, [pointer])


def test_the_list_says_how_many_prompts_and_test_cases_are_in_each(studio: Studio) -> None:
    make_triage(studio.api, cases=3)
    make_prompt(studio.api, "triage", template="another {{ ticket }}")
    studio.project("empty")

    rows = studio.data(200, "GET", "/projects")

    assert [(row["name"], row["prompt_count"], row["test_case_count"]) for row in rows] == [
        ("empty", 0, 0),
        ("default", 2, 3),
    ]
    default = rows[1]["id"]
    assert studio.expect(200, "GET", f"/prompts/list/{default}")["metadata"]["total"] == 2


def test_the_list_can_be_narrowed(studio: Studio) -> None:
    for name, status in (("alpha", "active"), ("beta", "archived"), ("alphabet", "archived")):
        studio.project(name, status=status)

    def names(query: str) -> list[str]:
        return sorted(row["name"] for row in studio.data(200, "GET", f"/projects?{query}"))

    assert names("search=ALPHA") == ["alpha", "alphabet"]
    assert names("status=archived") == ["alphabet", "beta"]
    assert names("status=archived&search=bet") == ["alphabet", "beta"]


def test_a_deleted_project_is_listed_only_if_asked_for(studio: Studio) -> None:
    made = studio.project()
    studio.data(200, "DELETE", f"/projects/delete/{made['id']}")

    assert [row["name"] for row in studio.data(200, "GET", "/projects")] == ["default"]
    rows = studio.data(200, "GET", "/projects?include_deleted=true")
    assert [(row["name"], row["deleted"]) for row in rows] == [("atlas", True), ("default", False)]
    assert studio.request("GET", f"/projects/get/{made['id']}").status_code == 404


@pytest.mark.parametrize("path", ["/projects/get/", "/projects/", "/projects/stats/"])
def test_what_is_not_there_is_a_404(studio: Studio, path: str) -> None:
    assert studio.expect(404, "GET", path + NOBODY)["error_code"] == "not_found"


def test_an_id_that_is_no_uuid_is_a_404_in_the_envelope(studio: Studio) -> None:
    assert studio.expect(404, "GET", "/projects/get/42")["error_code"] == "not_found"


def test_the_stats_are_counted_and_not_made_up(studio: Studio, drain: Drain) -> None:
    make_triage(studio.api, cases=3)
    studio.api.expect(202, "POST", "/v1/evaluations", evaluation_body())
    drain()
    default = studio.data(200, "GET", "/projects?search=default")[0]["id"]
    ours = studio.api.expect(200, "GET", "/v1/projects/default/stats")

    stats = studio.data(200, "GET", f"/projects/stats/{default}")

    assert stats == {
        "prompt_count": 1,
        "signature_count": 0,
        "test_case_count": 3,
        "golden_test_count": 0,
        "evaluation_count": 1,
        "optimization_count": 0,
        "total_test_runs": 3,
        "total_tokens_used": ours["tokens"],
        "total_cost": ours["cost_usd"],
    }
    assert stats["total_tokens_used"] > 0
