"""Relationships over HTTP: what is taken, what is refused, and who sees what."""

from collections.abc import Callable
from typing import Any

import pytest

from shared.domain.relationships import ALIASES, TYPES
from shared.models import Relationship
from tests.rows import count, event_data, everything
from tests.support import Api, make_prompt, pointers

PROMPT_STORE = "extends references alternative similar depends_on replaces complements conflicts".split()


@pytest.fixture
def trio(api: Api) -> Api:
    for name in ("a", "b", "c"):
        make_prompt(api, name, template=f"I am {name}")
    return api


def relate(api: Api, source: str, target: str, type: str = "extends", **fields: Any) -> Any:  # noqa: A002
    return api.expect(201, "POST", f"/v1/prompts/{source}/relationships", {"target": target, "type": type, **fields})


def listed(api: Api, name: str, query: str = "") -> list[tuple[str, str, str]]:
    rows = api.expect(200, "GET", f"/v1/prompts/{name}/relationships{query}")["data"]
    return [(row["source"], row["type"], row["target"]) for row in rows]


def test_a_relationship_can_be_made_read_changed_and_deleted(trio: Api) -> None:
    made = relate(trio, "a", "b", "depends_on", strength=0.5, note="the header", metadata={"section": 2})
    address = f"/v1/prompts/a/relationships/{made['relationship_id']}"
    read = trio.expect(200, "GET", address)
    changed = trio.expect(200, "PATCH", address, {"strength": 0.25, "metadata": {"section": 3}})
    deleted = trio.request("DELETE", address)

    assert read == made
    assert (made["source"], made["type"], made["target"], made["strength"]) == ("a", "depends_on", "b", 0.5)
    assert (made["note"], made["metadata"], made["created_by"]) == ("the header", {"section": 2}, "admin")
    assert (changed["strength"], changed["note"], changed["metadata"]) == (0.25, "the header", {"section": 3})
    assert changed["updated_at"] > made["updated_at"]
    assert (deleted.status_code, trio.get(address).status_code, count(Relationship)) == (204, 404, 0)


def test_each_change_is_an_event_and_a_change_of_nothing_is_none(trio: Api) -> None:
    made = relate(trio, "a", "b")
    address = f"/v1/prompts/a/relationships/{made['relationship_id']}"
    trio.expect(200, "PATCH", address, {"strength": 1.0})
    trio.expect(200, "PATCH", address, {"strength": 0.5, "note": "less"})
    trio.request("DELETE", address)

    ends = {"source": "a", "target": "b", "source_id": made["source_id"], "target_id": made["target_id"]}
    assert event_data("relationship.created") == [{**ends, "type": "extends", "strength": 1.0}]
    assert event_data("relationship.updated") == [
        {**ends, "type": "extends", "strength": 0.5, "changed": ["note", "strength"]}
    ]
    assert event_data("relationship.deleted") == [{**ends, "type": "extends", "strength": 0.5}]


@pytest.mark.parametrize("name", [*TYPES, *ALIASES])
def test_every_type_and_every_older_name_is_taken(trio: Api, name: str) -> None:
    assert relate(trio, "a", "b", name)["type"] == ALIASES.get(name, name)


def test_every_type_of_prompt_store_has_a_place() -> None:
    assert [name for name in PROMPT_STORE if ALIASES.get(name, name) not in TYPES] == []
    assert len({ALIASES.get(name, name) for name in PROMPT_STORE}) == len(PROMPT_STORE)


def test_a_pair_has_each_type_once_and_each_direction_for_itself(trio: Api) -> None:
    relate(trio, "a", "b", "alternative")
    before = everything()

    again = trio.post("/v1/prompts/a/relationships", {"target": "b", "type": "alternative_to", "strength": 0.5})

    assert (again.status_code, again.get_json()["code"]) == (409, "already_exists")
    assert everything() == before
    relate(trio, "a", "b", "references")
    relate(trio, "b", "a", "alternative_to")


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({"target": "a", "type": "extends"}, 422, "/target"),
        ({"target": "nope", "type": "extends"}, 404, "/target"),
        ({"target": "b", "type": "extends", "target_project": "nope"}, 404, "/target_project"),
        ({"target": "b", "type": "likes"}, 422, "/type"),
        ({"target": "b"}, 422, "/type"),
        ({"type": "extends"}, 422, "/target"),
        ({"target": "b", "type": "extends", "strength": 1.1}, 422, "/strength"),
        ({"target": "b", "type": "extends", "strength": -0.1}, 422, "/strength"),
        ({"target": "b", "type": "extends", "strength": "1"}, 422, "/strength"),
        ({"target": "b", "type": "extends", "strength": True}, 422, "/strength"),
        ({"target": "b", "type": "extends", "metadata": []}, 422, "/metadata"),
        ({"target": "b", "type": "extends", "metadata": {"a": "x" * 10_000}}, 422, "/metadata"),
        ({"target": "b", "type": "extends", "note": "x" * 2_001}, 422, "/note"),
        ({"target": "b", "type": "extends", "weight": 1}, 422, "/weight"),
    ],
)
def test_a_wrong_field_is_named_and_leaves_no_row(trio: Api, body: Any, status: int, pointer: str) -> None:
    before = everything()

    answer = trio.post("/v1/prompts/a/relationships", body)

    assert (answer.status_code, pointers(answer)) == (status, [pointer])
    assert everything() == before


@pytest.mark.parametrize("kind", ["extends", "depends_on", "part_of", "replaces"])
def test_a_circle_of_one_type_is_refused_where_it_makes_no_sense(trio: Api, kind: str) -> None:
    relate(trio, "a", "b", kind)
    relate(trio, "b", "c", kind)
    before = everything()

    direct = trio.post("/v1/prompts/b/relationships", {"target": "a", "type": kind})
    through = trio.post("/v1/prompts/c/relationships", {"target": "a", "type": kind})

    assert [answer.status_code for answer in (direct, through)] == [409, 409]
    assert {answer.get_json()["code"] for answer in (direct, through)} == {"relationship_cycle"}
    assert everything() == before


def test_a_circle_of_several_types_or_of_one_that_may_go_round_is_taken(trio: Api) -> None:
    relate(trio, "a", "b", "depends_on")

    relate(trio, "b", "a", "part_of")
    for kind in ("references", "alternative_to", "similar_to", "complements", "conflicts_with", "derived_from"):
        relate(trio, "a", "b", kind)
        relate(trio, "b", "a", kind)

    assert len(listed(trio, "a")) == 2 + 2 * 6


def test_a_list_shows_either_direction_and_the_types_that_are_asked_for(trio: Api) -> None:
    relate(trio, "a", "b", "extends", strength=0.9)
    relate(trio, "b", "c", "references", strength=0.4)
    relate(trio, "c", "b", "similar", strength=0.6)

    assert listed(trio, "b") == [("c", "similar_to", "b"), ("b", "references", "c"), ("a", "extends", "b")]
    assert listed(trio, "b", "?direction=out") == [("b", "references", "c")]
    assert listed(trio, "b", "?direction=in") == [("c", "similar_to", "b"), ("a", "extends", "b")]
    assert listed(trio, "b", "?type=similar,extends") == [("c", "similar_to", "b"), ("a", "extends", "b")]
    assert listed(trio, "b", "?min_strength=0.5") == [("c", "similar_to", "b"), ("a", "extends", "b")]
    assert listed(trio, "a", "?type=references") == []


def test_pages_list_every_relationship_once(trio: Api) -> None:
    for kind in TYPES:
        relate(trio, "a", "b", kind)

    seen: list[str] = []
    cursor = ""
    while True:
        page = trio.expect(200, "GET", f"/v1/prompts/a/relationships?limit=3{cursor}")
        seen += [row["type"] for row in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"

    assert seen == [*reversed(TYPES)]


@pytest.mark.parametrize(
    "query", ["direction=up", "type=likes", "type=extends,", "min_strength=2", "min_strength=x", "limit=0", "cursor=x"]
)
def test_a_wrong_parameter_is_named(trio: Api, query: str) -> None:
    answer = trio.get(f"/v1/prompts/a/relationships?{query}")

    assert (answer.status_code, pointers(answer)) == (422, [f"?{query.partition('=')[0]}"])


@pytest.mark.parametrize("query", ["depth=0", "depth=6", "depth=x", "type=likes", "direction=out"])
def test_a_wrong_parameter_of_a_graph_is_named(trio: Api, query: str) -> None:
    answer = trio.get(f"/v1/prompts/a/graph?{query}")

    assert (answer.status_code, pointers(answer)) == (422, [f"?{query.partition('=')[0]}"])


def test_a_relationship_is_found_at_both_of_its_ends_and_nowhere_else(trio: Api) -> None:
    made = relate(trio, "a", "b")["relationship_id"]

    statuses = [trio.get(f"/v1/prompts/{name}/relationships/{made}").status_code for name in ("a", "b", "c")]
    by_another = trio.request("DELETE", f"/v1/prompts/c/relationships/{made}")

    assert (statuses, by_another.status_code, count(Relationship)) == ([200, 200, 404], 404, 1)


def test_the_same_key_and_body_make_one_relationship(trio: Api) -> None:
    body, once = {"target": "b", "type": "extends"}, {"headers": {"Idempotency-Key": "once"}}

    first = trio.expect(201, "POST", "/v1/prompts/a/relationships", body, **once)
    second = trio.expect(201, "POST", "/v1/prompts/a/relationships", body, **once)

    assert (first, count(Relationship)) == (second, 1)


@pytest.fixture
def across(trio: Api) -> Api:
    """`a` of the default project, related to `far` of atlas in each direction."""
    trio.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    make_prompt(trio, "far", template="far", project="atlas")
    relate(trio, "a", "far", "depends_on", target_project="atlas")
    relate(trio, "a", "b", "references")
    trio.expect(
        201,
        "POST",
        "/v1/prompts/far/relationships?project=atlas",
        {"target": "a", "type": "references", "target_project": "default"},
    )
    return trio


def test_a_relationship_may_lead_into_another_project(across: Api) -> None:
    assert ("a", "depends_on", "far") in listed(across, "a")
    assert ("a", "depends_on", "far") in listed(across, "far", "?project=atlas")
    assert {node["name"] for node in across.expect(200, "GET", "/v1/prompts/a/graph")["nodes"]} == {"a", "b", "far"}


def test_a_limited_key_sees_no_end_outside_of_its_projects(across: Api, as_user: Callable[..., Api]) -> None:
    limited = as_user(projects=["default"])

    graph = limited.expect(200, "GET", "/v1/prompts/a/graph")
    impact = limited.expect(200, "GET", "/v1/prompts/a/impact")
    into = limited.post("/v1/prompts/b/relationships", {"target": "far", "type": "extends", "target_project": "atlas"})

    assert listed(limited, "a") == [("a", "references", "b")]
    assert [node["name"] for node in graph["nodes"]] == ["a", "b"]
    assert [(edge["source"], edge["target"]) for edge in graph["edges"]] == [("a", "b")]
    assert impact["dependents"] == []
    assert (into.status_code, pointers(into)) == (404, ["/target_project"])


def test_a_limited_key_is_refused_a_hidden_circle_without_a_word_of_who_closes_it(
    across: Api, as_user: Callable[..., Api]
) -> None:
    body = {"target": "b", "type": "depends_on", "target_project": "default"}
    across.expect(201, "POST", "/v1/prompts/far/relationships?project=atlas", body)
    limited = as_user(projects=["default"])

    answer = limited.post("/v1/prompts/b/relationships", {"target": "a", "type": "depends_on"})

    assert (answer.status_code, answer.get_json()["code"]) == (409, "relationship_cycle")
    assert "far" not in answer.get_json()["detail"]


def test_another_workspace_relates_to_nothing_here(trio: Api, as_user: Callable[..., Api]) -> None:
    made = relate(trio, "a", "b")["relationship_id"]
    stranger = as_user(workspace="elsewhere")
    make_prompt(stranger, "a", template="mine")
    before = everything()

    statuses = [
        stranger.request(method, f"/v1/prompts/a/relationships/{made}", body).status_code
        for method, body in (("GET", None), ("PATCH", {"strength": 0.1}), ("DELETE", None))
    ]
    answer = stranger.post("/v1/prompts/a/relationships", {"target": "b", "type": "extends"})

    assert (statuses, answer.status_code) == ([404] * 3, 404)
    assert everything() == before
    assert listed(stranger, "a") == []
