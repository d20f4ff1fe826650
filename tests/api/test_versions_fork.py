"""POST /v1/prompts/{name}/fork and GET /v1/prompts/{name}/lineage."""

from collections.abc import Callable
from typing import Any

import pytest

from shared.models import Prompt, Role
from tests.rows import count, event_data, everything
from tests.support import MODEL, Api, make_prompt, pointers

FORK = "/v1/prompts/greeter/fork"
CONTENT = ("template_source", "messages", "model", "tools", "response_schema", "variables_schema", "variables")


@pytest.fixture(autouse=True)
def greeter(api: Api) -> None:
    """Two versions; production is at 1."""
    fields = {"description": "greets", "category": "chat", "tags": ["kind"], "owner_team": "web"}
    make_prompt(api, template="one {{ name }}", model=MODEL, **fields)
    tool = {"type": "function", "function": {"name": "look_up"}}
    api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": "two {{ name }}", "tools": [tool]})


def lineage(api: Api, name: str, query: str = "") -> Any:
    return api.expect(200, "GET", f"/v1/prompts/{name}/lineage{query}")


def test_a_fork_is_a_prompt_whose_first_version_says_what_its_source_says(api: Api) -> None:
    made = api.expect(201, "POST", FORK, {"name": "welcome"})

    source = api.expect(200, "GET", "/v1/prompts/greeter/versions/2")
    prompt = api.expect(200, "GET", "/v1/prompts/welcome")
    version = api.expect(200, "GET", "/v1/prompts/welcome/versions/1")
    assert made["prompt"] == {"prompt_id": prompt["prompt_id"], "name": "welcome"}
    assert made["version"] == {"version_id": version["version_id"], "version_number": 1}
    assert made["forked_from"]["version_id"] == source["version_id"]
    assert {name: version[name] for name in CONTENT} == {name: source[name] for name in CONTENT}
    assert (version["content_hash"], version["template_hash"]) == (source["content_hash"], source["template_hash"])
    assert version["forked_from_version_id"] == prompt["forked_from_version_id"] == source["version_id"]
    assert version["message"] == "forked from greeter version 2"
    assert (prompt["active_version"], prompt["latest_version_number"]) == (None, 1)
    assert event_data("prompt.forked") == [
        {"from_prompt_id": made["forked_from"]["prompt_id"], "from_version_number": 2}
    ]


def test_what_was_not_forked_is_from_nowhere(api: Api) -> None:
    assert api.expect(200, "GET", "/v1/prompts/greeter")["forked_from_version_id"] is None
    assert api.expect(200, "GET", "/v1/prompts/greeter/versions/1")["forked_from_version_id"] is None


@pytest.mark.parametrize(("version", "number"), [(1, 1), ("v2", 2), ("production", 1), ("latest", 2)])
def test_any_version_may_be_forked(api: Api, version: Any, number: int) -> None:
    made = api.expect(201, "POST", FORK, {"name": "welcome", "version": version})

    assert made["forked_from"]["version_number"] == number


def test_a_fork_takes_over_what_is_not_said_of_it(api: Api) -> None:
    body = {"name": "welcome", "category": "mail", "tags": [], "message": "for mails", "set_active": True}

    api.expect(201, "POST", FORK, {**body, "created_by": "ada"})

    prompt = api.expect(200, "GET", "/v1/prompts/welcome")
    assert {name: prompt[name] for name in ("description", "category", "tags", "owner_team", "created_by")} == {
        "description": "greets",
        "category": "mail",
        "tags": [],
        "owner_team": "web",
        "created_by": "ada",
    }
    assert (prompt["active_version"]["version_number"], prompt["active_version"]["message"]) == (1, "for mails")


def test_a_fork_goes_on_without_its_source(api: Api) -> None:
    api.expect(201, "POST", FORK, {"name": "welcome"})

    changed = api.expect(200, "PUT", "/v1/prompts/welcome", {"template_source": "own"})

    assert changed["version"]["version_number"] == 2
    assert api.expect(200, "GET", "/v1/prompts/welcome/versions/2")["forked_from_version_id"] is None
    assert api.expect(200, "GET", "/v1/prompts/welcome")["forked_from_version_id"] is not None
    assert api.expect(200, "GET", "/v1/prompts/greeter")["latest_version_number"] == 2


def test_a_fork_stays_in_the_project_of_its_source_unless_another_is_named(api: Api) -> None:
    for project in ("atlas", "vault"):
        api.expect(201, "POST", "/v1/projects", {"name": project})
    make_prompt(api, "greeter", template="of atlas", project="atlas")

    api.expect(201, "POST", f"{FORK}?project=atlas", {"name": "welcome"})
    api.expect(201, "POST", f"{FORK}?project=atlas", {"name": "welcome", "project": "vault"})

    for project in ("atlas", "vault"):
        version = api.expect(200, "GET", f"/v1/prompts/welcome/versions/1?project={project}")
        assert version["template_source"] == "of atlas"
    assert api.get("/v1/prompts/welcome").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({}, 422, ["/name"]),
        ({"name": "versions"}, 422, ["/name"]),
        ({"name": "a b"}, 422, ["/name"]),
        ({"name": "greeter"}, 409, []),
        ({"name": "welcome", "version": 3}, 404, ["/version"]),
        ({"name": "welcome", "version": "staging"}, 404, ["/version"]),
        ({"name": "welcome", "project": "nobody"}, 404, ["/project"]),
        ({"name": "welcome", "template_source": "a"}, 422, ["/template_source"]),
    ],
)
def test_what_cannot_be_forked_leaves_no_row(api: Api, body: Any, status: int, named: list[str]) -> None:
    before = everything()

    answer = api.post(FORK, body)

    assert (answer.status_code, pointers(answer)) == (status, named)
    assert everything() == before


def test_the_same_key_forks_once(api: Api) -> None:
    headers = {"Idempotency-Key": "once"}

    first, again = (api.expect(201, "POST", FORK, {"name": "welcome"}, headers=headers) for _ in range(2))

    assert again == first
    assert count(Prompt) == 2
    assert api.post(FORK, {"name": "welcome", "version": 1}, headers=headers).status_code == 422


def test_the_lineage_leads_back_to_the_first_and_on_to_the_forks(api: Api) -> None:
    api.expect(201, "POST", FORK, {"name": "child", "version": 1})
    api.expect(201, "POST", FORK, {"name": "other"})
    api.expect(201, "POST", "/v1/prompts/child/fork", {"name": "grandchild"})

    first, child, grandchild = (lineage(api, name) for name in ("greeter", "child", "grandchild"))

    def named(found: Any) -> list[tuple[str, int]]:
        return [(item["prompt_name"], item["version_number"]) for item in found]

    assert named(first["ancestors"]) == []
    assert [(fork["prompt_name"], fork["from_version_number"]) for fork in first["forks"]] == [
        ("other", 2),
        ("child", 1),
    ]
    assert (named(child["ancestors"]), named(child["forks"])) == ([("greeter", 1)], [("grandchild", 1)])
    assert (named(grandchild["ancestors"]), grandchild["forks"]) == ([("child", 1), ("greeter", 1)], [])


def test_forks_are_listed_page_by_page(api: Api) -> None:
    for number in range(5):
        api.expect(201, "POST", FORK, {"name": f"fork-{number}"})

    names, cursor = [], ""
    while cursor is not None:
        page = lineage(api, "greeter", f"?limit=2&cursor={cursor}" if cursor else "?limit=2")
        names += [fork["prompt_name"] for fork in page["forks"]]
        cursor = page["next_cursor"]

    assert names == [f"fork-{number}" for number in (4, 3, 2, 1, 0)]


def test_a_key_that_is_limited_to_a_project_sees_no_relatives_in_another(api: Api, as_user: Callable[..., Api]) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    api.expect(201, "POST", FORK, {"name": "child", "project": "atlas"})
    api.expect(201, "POST", "/v1/prompts/child/fork?project=atlas", {"name": "grandchild", "project": "default"})
    limited = as_user(projects=["atlas"])

    found = lineage(limited, "child", "?project=atlas")

    assert (found["ancestors"], found["forks"], found["next_cursor"]) == ([], [], None)
    everybodys = lineage(api, "child", "?project=atlas")
    assert [len(everybodys[side]) for side in ("ancestors", "forks")] == [1, 1]


def test_a_key_that_is_limited_to_a_project_forks_neither_from_nor_into_another(
    api: Api, as_user: Callable[..., Api]
) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    make_prompt(api, "greeter", template="of atlas", project="atlas")
    limited = as_user(projects=["atlas"])

    from_another = limited.post(FORK, {"name": "welcome", "project": "atlas"})
    into_another = limited.post(f"{FORK}?project=atlas", {"name": "welcome", "project": "default"})
    limited.expect(201, "POST", f"{FORK}?project=atlas", {"name": "welcome"})

    assert (from_another.status_code, into_another.status_code) == (404, 404)
    assert count(Prompt) == 3


def test_a_viewer_may_not_fork_and_nobody_of_another_workspace_can(as_user: Callable[..., Api]) -> None:
    assert as_user(role=Role.VIEWER).post(FORK, {"name": "welcome"}).status_code == 403
    assert as_user(workspace="elsewhere", role=Role.ADMIN).post(FORK, {"name": "welcome"}).status_code == 404
    assert count(Prompt) == 1
