"""/api/v1/relationships: rows with ids, that can be found, changed and deleted, and no circles."""

from typing import Any

import pytest

from shared.models import Relationship
from tests.compat.store import STORE, at, data, make, refusal
from tests.rows import count, everything
from tests.support import Api

NOBODY = "00000000-0000-0000-0000-000000000000"
ORIGINAL = "extends references alternative similar depends_on replaces complements conflicts".split()


@pytest.fixture
def pair(api: Api) -> tuple[Any, Any]:
    return make(api, "one"), make(api, "two", category="code")


def relate(api: Api, source: Any, target: Any, kind: str = "similar", **fields: Any) -> Any:
    body = {"target_prompt_id": target["id"], "relationship_type": kind, **fields}
    return data(api, "POST", at(source, "/relationships?user_id=ada"), body, status=201)


def test_a_relationship_has_an_id_and_its_metadata_as_it_was_given(api: Api, pair: Any) -> None:
    one, two = pair

    made = relate(api, one, two, strength=0.5, metadata={"why": ["a", 1]})

    listed = data(api, "GET", at(one, "/relationships"))
    assert made["id"] == made["relationship_id"]
    assert {name: made[name] for name in ("source_prompt_id", "target_prompt_id", "relationship_type", "strength")} == {
        "source_prompt_id": one["id"],
        "target_prompt_id": two["id"],
        "relationship_type": "similar",
        "strength": 0.5,
    }
    assert (made["metadata"], made["created_by"]) == ({"why": ["a", 1]}, "admin")
    assert listed == {
        "prompt_id": one["id"],
        "outgoing_relationships": [made],
        "incoming_relationships": [],
        "total_relationships": 1,
        "has_more": False,
    }


@pytest.mark.parametrize("kind", ORIGINAL)
def test_every_type_of_the_original_is_taken_and_shown_by_its_name(api: Api, pair: Any, kind: str) -> None:
    assert relate(api, *pair, kind)["relationship_type"] == kind
    assert data(api, "GET", "/relationships/stats")["relationship_counts"][kind] == 1


@pytest.mark.parametrize(("direction", "seen"), [("both", (1, 1)), ("outgoing", (1, 0)), ("incoming", (0, 1))])
def test_relationships_are_listed_by_direction(api: Api, pair: Any, direction: str, seen: tuple[int, int]) -> None:
    one, two = pair
    relate(api, one, two)
    relate(api, two, one, "references")

    listed = data(api, "GET", at(one, f"/relationships?direction={direction}"))

    assert (len(listed["outgoing_relationships"]), len(listed["incoming_relationships"])) == seen


@pytest.mark.parametrize("given", ["query", "body"])
def test_a_strength_is_changed_and_stays(api: Api, pair: Any, given: str) -> None:
    made = relate(api, *pair)
    query = "?strength=0.25&user_id=ada" if given == "query" else ""

    path = f"/relationships/{made['id']}/strength{query}"
    changed = data(api, "PUT", path, {"strength": 0.25} if given == "body" else None)

    assert (changed["new_strength"], changed["updated_by"]) == (0.25, "admin")
    assert data(api, "GET", at(pair[1], "/relationships"))["incoming_relationships"][0]["strength"] == 0.25


def test_a_deleted_relationship_is_gone_and_is_not_deleted_twice(api: Api, pair: Any) -> None:
    made = relate(api, *pair)

    deleted = data(api, "DELETE", f"/relationships/{made['id']}")

    assert (deleted["relationship_id"], deleted["deleted"], count(Relationship)) == (made["id"], True, 0)
    assert refusal(api.request("DELETE", f"{STORE}/relationships/{made['id']}"))[:2] == (404, "NOT_FOUND")


@pytest.mark.parametrize("relationship_id", [NOBODY, "none", "None"])
def test_a_relationship_that_is_not_there_is_neither_changed_nor_deleted(api: Api, relationship_id: str) -> None:
    changed = api.put(f"{STORE}/relationships/{relationship_id}/strength?strength=1")
    deleted = api.request("DELETE", f"{STORE}/relationships/{relationship_id}")

    assert [refusal(answer)[:2] for answer in (changed, deleted)] == [(404, "NOT_FOUND")] * 2


def test_the_same_relationship_twice_is_a_409(api: Api, pair: Any) -> None:
    relate(api, *pair, "alternative")
    body = {"target_prompt_id": pair[1]["id"], "relationship_type": "alternative"}

    assert refusal(api.post(f"{STORE}{at(pair[0], '/relationships')}", body))[:2] == (409, "ALREADY_EXISTS")
    assert count(Relationship) == 1


@pytest.mark.parametrize("kind", ["extends", "depends_on", "replaces"])
def test_a_circle_is_refused(api: Api, pair: Any, kind: str) -> None:
    one, two = pair
    relate(api, one, two, kind)
    body = {"target_prompt_id": one["id"], "relationship_type": kind}

    assert refusal(api.post(f"{STORE}{at(two, '/relationships')}", body))[:2] == (409, "RELATIONSHIP_CYCLE")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"relationship_type": "loves"}, (422, "VALIDATION_ERROR", ["/relationship_type"])),
        ({"strength": 1.5}, (422, "VALIDATION_ERROR", ["/strength"])),
        ({"target_prompt_id": NOBODY}, (404, "NOT_FOUND", ["/target_prompt_id"])),
        ({"target_prompt_id": "self"}, (422, "VALIDATION_ERROR", ["/target_prompt_id"])),
        ({"metadata": {"a": "x" * 10_000}}, (422, "VALIDATION_ERROR", ["/metadata"])),
    ],
)
def test_a_relationship_that_cannot_be_stores_nothing(api: Api, pair: Any, fields: Any, expected: Any) -> None:
    one, two = pair
    body = {"target_prompt_id": two["id"], "relationship_type": "similar", **fields}
    body["target_prompt_id"] = one["id"] if body["target_prompt_id"] == "self" else body["target_prompt_id"]

    assert refusal(api.post(f"{STORE}{at(one, '/relationships')}", body)) == expected
    assert count(Relationship) == 0


def test_a_graph_has_each_edge_once(api: Api, pair: Any) -> None:
    one, two = pair
    three = make(api, "three")
    relate(api, one, two)
    relate(api, two, three, "extends")
    relate(api, three, one, "references")

    graph = data(api, "GET", at(one, "/relationships/graph?depth=3"))
    near = data(api, "GET", at(one, "/relationships/graph?depth=1"))

    edges = [(edge["source"], edge["target"], edge["type"]) for edge in graph["edges"]]
    assert len(edges) == len(set(edges)) == graph["total_edges"] == 3
    assert {node["name"] for node in graph["nodes"]} == {"one", "two", "three"}
    assert set(graph["nodes"][0]) == {"id", "name", "category", "lifecycle_status"}
    assert (graph["root_prompt_id"], near["total_nodes"], near["depth"]) == (one["id"], 3, 1)


@pytest.mark.parametrize(
    ("query", "body", "seen"),
    [
        ("", None, ["two", "three"]),
        ("?relationship_types=similar", None, ["two"]),
        ("?relationship_types=similar,extends", None, ["two", "three"]),
        ("", ["extends"], ["three"]),
        ("?min_strength=0.6", None, ["two"]),
    ],
)
def test_related_prompts_are_found_by_type_and_strength(
    api: Api, pair: Any, query: str, body: Any, seen: list[str]
) -> None:
    one, two = pair
    three = make(api, "three")
    relate(api, one, two)
    relate(api, three, one, "extends", strength=0.5)

    found = data(api, "GET", at(one, f"/related{query}"), body)

    assert [item["name"] for item in found["related_prompts"]] == seen
    assert found["total_related"] == len(seen)
    directions = {item["name"]: item["direction"] for item in found["related_prompts"]}
    assert directions.items() <= {"two": "outgoing", "three": "incoming"}.items()


def test_a_type_that_there_is_not_is_named(api: Api, pair: Any) -> None:
    answer = api.get(f"{STORE}{at(pair[0], '/related')}?relationship_types=loves")

    assert refusal(answer) == (422, "VALIDATION_ERROR", ["?relationship_types"])


def test_a_relationship_can_be_tried_without_storing_it(api: Api, pair: Any) -> None:
    one, two = pair
    asked = {"source_prompt_id": one["id"], "target_prompt_id": two["id"], "relationship_type": "extends"}
    query = "&".join(f"{name}={value}" for name, value in asked.items())
    before = everything()

    free = data(api, "POST", f"/relationships/validate?{query}")
    same = data(api, "POST", "/relationships/validate", {**asked, "target_prompt_id": one["id"]})
    nobody = data(api, "POST", "/relationships/validate", {**asked, "source_prompt_id": NOBODY})

    assert everything() == before
    assert free == {"valid": True, "issues": [], **asked}
    assert (same["valid"], nobody["valid"]) == (False, False)
    assert "itself" in same["issues"][0]
    assert NOBODY in nobody["issues"][0]
    relate(api, two, one, "extends")
    assert data(api, "POST", f"/relationships/validate?{query}")["valid"] is False


def test_counts_are_of_relationships_that_can_be_seen(api: Api, pair: Any) -> None:
    relate(api, *pair)

    stats = data(api, "GET", "/relationships/stats")

    assert (stats["total_relationships"], set(ORIGINAL) <= set(stats["valid_types"])) == (1, True)
