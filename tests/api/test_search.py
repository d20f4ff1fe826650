"""Search over HTTP: what is taken and refused, who finds what, and what a page holds."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.rows import everything
from tests.support import Api, make_prompt, pointers


def names(answer: Any) -> list[str]:
    return [hit["name"] for hit in answer["data"]]


def search(api: Api, query: str) -> Any:
    return api.expect(200, "GET", f"/v1/prompts/search?{query}")


@pytest.fixture
def library(api: Api) -> Api:
    for project in ("atlas", "vault"):
        api.expect(201, "POST", "/v1/projects", {"name": project})
    make_prompt(api, "refund-reply", template="Dear {{ name }}", category="support", tags=["mail"], owner_team="care")
    make_prompt(api, "triage", template="Is it a refund?", category="support", tags=["urgent"], owner_team="care")
    make_prompt(api, "atlas-refund", template="Of atlas", project="atlas", tags=["secret-tag"], category="hidden")
    make_prompt(api, "vault-refund", template="Of vault", project="vault")
    return api


def test_a_hit_is_the_prompt_with_the_version_and_the_place_where_it_was_found(library: Api) -> None:
    library.expect(200, "PUT", "/v1/prompts/triage", {"template_source": "Another one."})

    answer = search(library, "q=is it a refund&project=default")

    (hit,) = answer["data"]
    summary = library.expect(200, "GET", "/v1/prompts/triage")
    assert {key: hit[key] for key in hit if key in summary} == {key: summary[key] for key in hit if key in summary}
    assert (hit["version_number"], hit["latest_version_number"], hit["matched_in"]) == (1, 2, "content")
    assert hit["highlights"] == {
        "content": [
            {"text": "Is", "match": True},
            {"text": " ", "match": False},
            {"text": "it", "match": True},
            {"text": " ", "match": False},
            {"text": "a", "match": True},
            {"text": " ", "match": False},
            {"text": "refund", "match": True},
            {"text": "?", "match": False},
        ]
    }
    assert (answer["total"], answer["total_is_exact"], answer["did_you_mean"]) == (1, True, None)


def test_a_body_asks_for_the_same_as_a_query(library: Api) -> None:
    by_query = search(library, "q=refund&category=support&limit=1")

    by_body = library.expect(200, "POST", "/v1/prompts:search", {"q": "refund", "category": "support", "limit": 1})

    assert by_body == by_query
    assert names(by_body) == ["refund-reply"]


def test_a_long_text_that_was_copied_from_a_prompt_finds_it(api: Api) -> None:
    text = " ".join(f"sentence {number} says nothing new," for number in range(1_000))[:9_990]
    make_prompt(api, "long", template=text)
    make_prompt(api, "short", template="sentence 1 says nothing new,")

    assert names(api.expect(200, "POST", "/v1/prompts:search", {"q": text})) == ["long"]


def test_filters_narrow_and_facets_count_what_else_there_would_be(library: Api) -> None:
    answer = search(library, "q=refund&tag=mail&project=default")

    assert names(answer) == ["refund-reply"]
    assert answer["facets"] == {
        "category": [{"value": "support", "count": 1}],
        "tag": [{"value": "mail", "count": 1}, {"value": "urgent", "count": 1}],
        "mode": [{"value": "full", "count": 1}],
        "lifecycle": [{"value": "draft", "count": 1}],
        "owner_team": [{"value": "care", "count": 1}],
    }
    assert names(search(library, "mode=tracking")) == []
    assert names(search(library, "lifecycle=draft&owner_team=care&category=support&tag=urgent")) == ["triage"]


def test_pages_follow_each_other_and_only_the_first_counts(library: Api) -> None:
    first = search(library, "q=refund&limit=3")
    last = search(library, f"q=refund&limit=3&cursor={first['next_cursor']}")

    assert names(first) + names(last) == ["vault-refund", "atlas-refund", "refund-reply", "triage"]
    assert (first["total"], last["total"], last["facets"], last["next_cursor"]) == (4, None, None, None)


def test_a_search_of_all_projects_names_none_and_of_one_only_its_own(library: Api) -> None:
    assert len(names(search(library, "q=refund"))) == 4
    assert names(search(library, "q=refund&project=atlas")) == ["atlas-refund"]


def test_a_limited_key_finds_counts_and_completes_its_projects_only(library: Api, as_user: Callable[..., Api]) -> None:
    limited = as_user(projects=["default", "vault"])

    answer = search(limited, "q=refund")
    misspelt = search(limited, "q=sekret")
    suggested = limited.expect(200, "GET", "/v1/prompts/search/suggest?q=se")["data"]
    suggested += limited.expect(200, "GET", "/v1/prompts/search/suggest?q=atl")["data"]
    named = limited.get("/v1/prompts/search?q=refund&project=atlas")

    assert names(answer) == ["vault-refund", "refund-reply", "triage"]
    assert answer["total"] == 3
    assert [facet["value"] for facet in answer["facets"]["category"]] == ["support"]
    assert "secret-tag" not in [facet["value"] for facet in answer["facets"]["tag"]]
    assert (misspelt["did_you_mean"], suggested) == (None, [])
    assert (named.status_code, pointers(named)) == (404, ["?project"])
    assert search(library, "q=sekret")["did_you_mean"] == "secret"


def test_another_workspace_finds_counts_and_completes_nothing_of_this_one(
    library: Api, as_user: Callable[..., Api]
) -> None:
    stranger = as_user(workspace="elsewhere")
    make_prompt(stranger, "refund", template="mine")

    answer = search(stranger, "q=refund")

    assert names(answer) == ["refund"]
    assert (answer["total"], answer["facets"]["category"], answer["facets"]["tag"]) == (1, [], [])
    assert search(stranger, "q=triagee")["did_you_mean"] is None
    assert stranger.expect(200, "GET", "/v1/prompts/search/suggest?q=tri")["data"] == []
    assert search(library, "q=mine")["data"] == []


def test_a_cursor_of_another_search_shows_nothing_that_is_not_the_callers(
    library: Api, as_user: Callable[..., Api]
) -> None:
    cursor = search(library, "q=refund&limit=1")["next_cursor"]
    stranger = as_user(workspace="elsewhere")

    assert search(stranger, f"q=refund&cursor={cursor}")["data"] == []


def test_suggestions_name_their_kind(library: Api) -> None:
    assert library.expect(200, "GET", "/v1/prompts/search/suggest?q=tri")["data"] == [
        {"kind": "name", "text": "triage"}
    ]
    assert library.expect(200, "GET", "/v1/prompts/search/suggest?q=urg")["data"] == [{"kind": "tag", "text": "urgent"}]
    assert library.expect(200, "GET", "/v1/prompts/search/suggest?q=ref&project=vault")["data"] == [
        {"kind": "name", "text": "vault-refund"}
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0},
        {"limit": 101},
        {"cursor": "x"},
        {"cursor": "WyIxIiwgIi0xIl0"},
        {"mode": "half"},
        {"lifecycle": "gone"},
        {"category": ""},
        {"tag": "x" * 65},
        {"owner_team": ""},
        {"q": "x" * 10_001},
        {"sort": "name"},
    ],
)
def test_a_wrong_field_is_named_wherever_it_stands(api: Api, wrong: dict[str, Any]) -> None:
    ((field, value),) = wrong.items()

    by_query = api.get(f"/v1/prompts/search?{field}={quote(str(value))}")
    by_body = api.post("/v1/prompts:search", wrong)

    assert (by_query.status_code, pointers(by_query)) == (422, [f"?{field}"])
    assert by_body.status_code == 422
    assert pointers(by_body) in ([f"/{field}"], [f"?{field}"])


def test_a_search_changes_nothing(library: Api) -> None:
    before = everything()

    search(library, "q=refund")
    library.expect(200, "POST", "/v1/prompts:search", {"q": "refund"})
    library.expect(200, "GET", "/v1/prompts/search/suggest?q=re")

    assert everything() == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(q=st.text(st.characters(exclude_characters="\x00\ufffd", exclude_categories=["Cs"]), max_size=60))
@example(q="100% 'quoted' \"and\" (grouped) AND OR NOT * : ^ \\ ; --")
def test_whatever_is_typed_is_answered(library: Api, q: str) -> None:
    by_query = library.get(f"/v1/prompts/search?q={quote(q)}")
    by_body = library.post("/v1/prompts:search", {"q": q})
    suggested = library.get(f"/v1/prompts/search/suggest?q={quote(q)}")

    assert (by_query.status_code, by_body.status_code, suggested.status_code) == (200, 200, 200)
    assert by_query.get_json() == by_body.get_json()


def test_a_name_that_a_search_could_be_taken_for_is_still_refused(api: Api) -> None:
    answer = api.post("/v1/prompts", {"name": "search", "template_source": "x"})

    assert (answer.status_code, pointers(answer)) == (422, ["/name"])
