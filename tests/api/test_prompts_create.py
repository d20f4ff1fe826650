"""POST /v1/prompts: only for a name that is free."""

from shared.models import Prompt, Version
from tests.rows import count, everything
from tests.support import Api, pointers


def test_a_free_name_makes_a_prompt_with_version_1(api: Api) -> None:
    body = {"name": "greeter", "template_source": "Hello", "set_active": True, "description": "greets"}

    created = api.expect(201, "POST", "/v1/prompts", body)

    read = api.expect(200, "GET", "/v1/prompts/greeter")
    assert created["version_change"] is True
    assert created["version"]["version_number"] == 1
    assert created["prompt"]["prompt_id"] == read["prompt_id"]
    assert read["active_version"]["version_number"] == 1
    assert read["description"] == "greets"


def test_a_taken_name_is_refused_and_nothing_changes(api: Api) -> None:
    api.expect(201, "POST", "/v1/prompts", {"name": "greeter", "template_source": "one"})
    before = everything()

    answers = [
        api.post(
            "/v1/prompts", {"name": "greeter", "template_source": source, "set_active": True, "description": "new"}
        )
        for source in ("one", "two")
    ]

    assert [answer.status_code for answer in answers] == [409, 409]
    assert {answer.get_json()["code"] for answer in answers} == {"already_exists"}
    assert everything() == before


def test_a_name_is_taken_within_its_project_only(api: Api) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    api.expect(201, "POST", "/v1/prompts", {"name": "greeter", "template_source": "one"})

    api.expect(201, "POST", "/v1/prompts", {"name": "greeter", "template_source": "one", "project": "atlas"})

    assert count(Prompt) == 2


def test_a_prompt_without_a_name_is_refused(api: Api) -> None:
    answer = api.post("/v1/prompts", {"template_source": "one"})

    assert (answer.status_code, pointers(answer)) == (422, ["/name"])
    assert count(Version) == 0
