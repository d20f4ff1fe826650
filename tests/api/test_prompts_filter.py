"""GET /v1/prompts with filters: each alone, all together, and pages of what they leave."""

import pytest

from tests.support import Api, make_prompt, pointers


@pytest.fixture(autouse=True)
def prompts(api: Api) -> None:
    """Four prompts, oldest first; `Alpha` lives in code."""
    make_prompt(api, "beta", category="chat", tags=["red", "blue"], owner_team="core")
    make_prompt(api, "alphabet", category="chat", tags=["red"], owner_team="growth")
    make_prompt(api, "al_ha", category="code", tags=["redder", 'quo"te'], owner_team="core")
    code = {"name": "Alpha", "template_source": "Hello", "tags": ["blue"], "owner_team": "core"}
    api.expect(200, "POST", "/v1/prompts/register-code", {"prompts": [code]})


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("mode=full", ["al_ha", "alphabet", "beta"]),
        ("mode=tracking", ["Alpha"]),
        ("category=chat", ["alphabet", "beta"]),
        ("category=Chat", []),
        ("tag=red", ["alphabet", "beta"]),
        ("tag=blue", ["Alpha", "beta"]),
        ("tag=Red", []),
        ('tag=quo"te', ["al_ha"]),
        ("tag=%25", []),
        ("owner_team=core", ["Alpha", "al_ha", "beta"]),
        ("lifecycle=draft", ["Alpha", "al_ha", "alphabet", "beta"]),
        ("lifecycle=archived", []),
        ("name_prefix=al", ["al_ha", "alphabet"]),
        ("name_prefix=Al", ["Alpha"]),
        ("name_prefix=al_", ["al_ha"]),
        ("name_prefix=%25", []),
        ("name_prefix=beta", ["beta"]),
        ("tag=red&owner_team=core", ["beta"]),
        ("tag=blue&mode=full&category=chat&owner_team=core&lifecycle=draft&name_prefix=b", ["beta"]),
    ],
)
def test_a_filter_leaves_what_has_exactly_that(api: Api, query: str, found: list[str]) -> None:
    assert [prompt["name"] for prompt in api.expect(200, "GET", f"/v1/prompts?{query}")["data"]] == found


def test_a_walk_keeps_its_filters(api: Api) -> None:
    path = "/v1/prompts?owner_team=core&limit=2"
    first = api.expect(200, "GET", path)

    second = api.expect(200, "GET", f"{path}&cursor={first['next_cursor']}")

    assert [[prompt["name"] for prompt in page["data"]] for page in (first, second)] == [["Alpha", "al_ha"], ["beta"]]
    assert second["next_cursor"] is None


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("mode=all", "?mode"),
        ("mode=", "?mode"),
        ("name_prefix=", "?name_prefix"),
        ("include_deleted=maybe", "?include_deleted"),
        ("tags=red", "?tags"),
        ("tag=%00", "?tag"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_named(api: Api, query: str, named: str) -> None:
    answer = api.get(f"/v1/prompts?{query}")

    assert (answer.status_code, pointers(answer)) == (422, [named])
