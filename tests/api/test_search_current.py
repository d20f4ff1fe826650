"""What search and relationships show follows every change of a prompt, whichever verb made it."""

import pytest

from tests.support import Api, make_prompt


def found(api: Api, q: str, query: str = "") -> list[str]:
    return [row["name"] for row in api.expect(200, "GET", f"/v1/prompts/search?q={q}{query}")["data"]]


@pytest.fixture
def two_projects(api: Api) -> Api:
    """`inside` is in the project atlas, `outside` in the default project, and refers to it."""
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    make_prompt(api, "inside", template="zebra", project="atlas")
    make_prompt(api, "outside", template="zebra")
    relationship = {"target": "inside", "target_project": "atlas", "type": "references"}
    api.expect(201, "POST", "/v1/prompts/outside/relationships", relationship)
    return api


@pytest.mark.parametrize("permanent", ["", "?permanent=true"])
def test_what_is_in_a_deleted_project_is_neither_found_nor_related(two_projects: Api, permanent: str) -> None:
    before = found(two_projects, "zebra")

    answer = two_projects.request("DELETE", f"/v1/projects/atlas{permanent}")

    assert (sorted(before), answer.is_json or answer.status_code == 204) == (["inside", "outside"], True)
    assert found(two_projects, "zebra") == ["outside"]
    assert two_projects.expect(200, "GET", "/v1/prompts/outside/relationships")["data"] == []


def test_a_restored_project_brings_its_prompts_and_relationships_back(two_projects: Api) -> None:
    project_id = two_projects.expect(200, "GET", "/v1/projects/atlas")["project_id"]
    two_projects.request("DELETE", "/v1/projects/atlas")

    two_projects.expect(200, "POST", f"/v1/projects/{project_id}/restore", {})

    assert sorted(found(two_projects, "zebra")) == ["inside", "outside"]
    assert len(two_projects.expect(200, "GET", "/v1/prompts/outside/relationships")["data"]) == 1


def test_a_prompt_is_found_by_what_it_is_called_and_not_by_what_it_was(api: Api) -> None:
    make_prompt(api, "zebra")

    api.expect(200, "PATCH", "/v1/prompts/zebra", {"name": "okapi"})

    assert (found(api, "okapi"), found(api, "zebra")) == (["okapi"], [])


def test_a_change_of_mode_or_lifecycle_moves_a_prompt_from_one_facet_to_another(api: Api) -> None:
    make_prompt(api, "okapi")

    api.expect(200, "POST", "/v1/prompts/okapi/mode", {"mode": "tracking"})
    api.expect(200, "PUT", "/v1/prompts/okapi/lifecycle", {"state": "published"})

    assert (found(api, "okapi", "&mode=tracking"), found(api, "okapi", "&mode=full")) == (["okapi"], [])
    assert (found(api, "okapi", "&lifecycle=published"), found(api, "okapi", "&lifecycle=draft")) == (["okapi"], [])


def test_code_is_found_by_what_was_registered_last(api: Api) -> None:
    code = {"name": "okapi", "template_source": "lion", "description": "small"}
    api.expect(200, "POST", "/v1/prompts/register-code", {"prompts": [code]})

    code = {"name": "okapi", "template_source": "giraffe", "description": "tall"}
    api.expect(200, "POST", "/v1/prompts/register-code", {"prompts": [code]})

    assert [found(api, word) for word in ("giraffe", "tall", "lion", "small")] == [["okapi"], ["okapi"], [], []]


def test_after_a_rollback_the_older_text_is_found(api: Api) -> None:
    make_prompt(api, "okapi", template="lion")
    make_prompt(api, "okapi", template="giraffe")

    api.expect(200, "POST", "/v1/prompts/okapi/rollback", {"to": 1})

    assert (found(api, "lion"), found(api, "giraffe")) == (["okapi"], [])


@pytest.mark.parametrize("permanent", ["", "?permanent=true"])
def test_a_deleted_prompt_is_not_found_and_nothing_is_found_in_its_place(api: Api, permanent: str) -> None:
    make_prompt(api, "zebra")
    make_prompt(api, "lion")
    api.expect(201, "POST", "/v1/prompts/lion/relationships", {"target": "zebra", "type": "references"})

    api.expect(200, "DELETE", f"/v1/prompts/zebra{permanent}")
    make_prompt(api, "tiger")

    assert (found(api, "zebra"), found(api, "tiger")) == ([], ["tiger"])
    assert api.expect(200, "GET", "/v1/prompts/lion/relationships")["data"] == []
