"""Which project a prompt is in: the body's or the query's `project`, else `default`."""

import pytest

from shared.models import Prompt
from tests.rows import count
from tests.support import Api, pointers


@pytest.fixture
def atlas(api: Api) -> str:
    """The id of a second project."""
    return str(api.expect(201, "POST", "/v1/projects", {"name": "atlas"})["project_id"])


def source(api: Api, query: str = "") -> str:
    return str(api.expect(200, "GET", f"/v1/prompts/greeter/versions/latest{query}")["template_source"])


def test_one_name_in_two_projects_is_two_prompts(api: Api, atlas: str) -> None:
    api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": "of default"})
    api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": "of atlas", "project": "atlas"})

    assert source(api) == "of default"
    assert source(api, "?project=default") == "of default"
    assert source(api, "?project=atlas") == "of atlas"
    assert source(api, f"?project={atlas}") == "of atlas"
    assert api.expect(200, "GET", "/v1/prompts/greeter?project=atlas")["project_id"] == atlas


def test_the_query_names_the_project_of_a_put_too(api: Api, atlas: str) -> None:
    api.expect(200, "PUT", "/v1/prompts/greeter?project=atlas", {"template_source": "of atlas"})

    assert source(api, "?project=atlas") == "of atlas"
    assert api.get("/v1/prompts/greeter").status_code == 404


def test_a_put_whose_body_and_query_name_two_projects_is_refused(api: Api, atlas: str) -> None:
    body = {"template_source": "of which?", "project": "default"}

    answer = api.put("/v1/prompts/greeter?project=atlas", body)

    assert (answer.status_code, pointers(answer)) == (422, ["/project"])
    assert count(Prompt) == 0


def test_a_put_whose_body_and_query_agree_is_taken(api: Api, atlas: str) -> None:
    body = {"template_source": "of atlas", "project": "atlas"}

    api.expect(200, "PUT", "/v1/prompts/greeter?project=atlas", body)

    assert source(api, "?project=atlas") == "of atlas"


def test_a_put_with_an_unknown_query_parameter_is_refused(api: Api) -> None:
    answer = api.put("/v1/prompts/greeter?projct=atlas", {"template_source": "a"})

    assert (answer.status_code, pointers(answer)) == (422, ["?projct"])
    assert count(Prompt) == 0


@pytest.mark.parametrize("project", ["nowhere", "00000000-0000-0000-0000-000000000000"])
def test_a_project_that_does_not_exist_is_a_404_and_stores_nothing(api: Api, project: str) -> None:
    by_body = api.put("/v1/prompts/greeter", {"template_source": "a", "project": project})
    by_query = api.put(f"/v1/prompts/greeter?project={project}", {"template_source": "a"})
    read = api.get(f"/v1/prompts/greeter?project={project}")

    assert [answer.status_code for answer in (by_body, by_query, read)] == [404, 404, 404]
    assert count(Prompt) == 0


def test_labels_are_moved_in_the_project_that_the_query_names(api: Api, atlas: str) -> None:
    for project in ("default", "atlas"):
        api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": f"of {project}", "project": project})

    api.expect(200, "PUT", "/v1/prompts/greeter/labels/staging?project=atlas", {"version_number": 1})

    assert source(api, "?project=atlas") == "of atlas"
    assert len(api.expect(200, "GET", "/v1/prompts/greeter/labels?project=atlas")["data"]) == 1
    assert api.expect(200, "GET", "/v1/prompts/greeter/labels")["data"] == []
