"""One case of a dataset: read, changed, removed and restored, each in a revision of its own; and lists by filters."""

import uuid
from typing import Any

import pytest

from tests.rows import event_data, everything
from tests.support import Api, Drain, evaluation_body, make_triage, pointers

CASES = "/v1/datasets/tickets/cases"
ROWS = [
    {"inputs": {"ticket": "It broke"}, "expected": "bug", "name": "first", "tags": ["a", "b"], "golden": True},
    {"inputs": {"ticket": 'say "hi"\nthere'}, "expected": {"kind": "Thanks"}, "group": "kind", "tags": ["ab"]},
    {"inputs": {"ticket": "100% sure"}, "description": "rare", "group": "kind", "generated": True},
]


@pytest.fixture
def cases(api: Api) -> list[Any]:
    """Three cases in revision 1."""
    api.expect(201, "POST", "/v1/datasets", {"name": "tickets"})
    api.expect(201, "POST", CASES, ROWS)
    return list(api.expect(200, "GET", CASES)["data"])


def path(case: Any) -> str:
    return f"{CASES}/{case['test_case_id']}"


def test_a_case_is_read_by_its_id(api: Api, cases: list[Any]) -> None:
    answer = api.get(path(cases[0]))

    assert answer.get_json() == cases[0]
    assert answer.headers["ETag"]


def test_a_changed_case_is_another_only_from_the_new_revision_on(api: Api, cases: list[Any]) -> None:
    body = {"inputs": {"ticket": "It works"}, "expected": None, "tags": ["c"], "weight": 3, "group": "g"}

    changed = api.expect(200, "PATCH", path(cases[1]), body)

    assert {**changed, **{name: cases[1][name] for name in (*body, "content_hash", "added_in")}} == cases[1]
    assert {name: changed[name] for name in body} == body
    assert (changed["added_in"], changed["ordinal"]) == (2, 2)
    assert api.expect(200, "GET", f"{path(cases[1])}?revision=1") == {**cases[1], "removed_in": 2}
    assert [case["ordinal"] for case in api.expect(200, "GET", CASES)["data"]] == [1, 2, 3]
    assert event_data("dataset.changed") == [
        {"revision": 2, "case_id": cases[1]["test_case_id"], "fields": sorted(body)}
    ]


def test_a_case_can_be_changed_again_and_back(api: Api, cases: list[Any]) -> None:
    for expected in ("x", "y", "bug"):
        api.expect(200, "PATCH", path(cases[0]), {"expected": expected})

    seen = [api.expect(200, "GET", f"{path(cases[0])}?revision={number}")["expected"] for number in (1, 2, 3, 4)]

    assert seen == ["bug", "x", "y", "bug"]


def test_what_a_case_says_already_makes_no_revision(api: Api, cases: list[Any]) -> None:
    before = everything()

    api.expect(200, "PATCH", path(cases[0]), {"expected": "bug", "golden": True, "tags": ["a", "b"]})

    assert everything() == before


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, ""),
        ({"inputs": {}}, "/inputs"),
        ({"inputs": "text"}, "/inputs"),
        ({"tags": [1]}, "/tags/0"),
        ({"weight": 0}, "/weight"),
        ({"weight": "1"}, "/weight"),
        ({"golden": "true"}, "/golden"),
        ({"group": ""}, "/group"),
        ({"name": "x" * 256}, "/name"),
        ({"ordinal": 3}, "/ordinal"),
        ({"inputs": {"a": "x" * 200_001}}, ""),
        ({"inputs": {"a": "\x00"}}, "/inputs/a"),
    ],
)
def test_a_bad_change_is_refused_and_changes_nothing(api: Api, cases: list[Any], body: Any, named: str) -> None:
    before = everything()

    answer = api.request("PATCH", path(cases[0]), body)

    assert (answer.status_code, pointers(answer)) == (422, [named])
    assert everything() == before


def test_a_case_does_not_become_the_same_as_another(api: Api, cases: list[Any]) -> None:
    before = everything()

    answer = api.request("PATCH", path(cases[0]), {"inputs": ROWS[2]["inputs"], "expected": None})

    assert answer.status_code == 409
    assert cases[2]["test_case_id"] in answer.get_json()["detail"]
    assert everything() == before


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_case_that_changed_since_it_was_read_is_not_changed(api: Api, cases: list[Any], method: str) -> None:
    stale = api.get(path(cases[0])).headers["ETag"]
    api.expect(200, "PATCH", path(cases[0]), {"name": "meanwhile"}, headers={"If-Match": stale})
    before = everything()
    body = {"name": "late"} if method == "PATCH" else None

    answer = api.request(method, path(cases[0]), body, headers={"If-Match": stale})

    assert answer.status_code == 412
    assert everything() == before


def test_a_removed_case_is_only_in_older_revisions(api: Api, cases: list[Any]) -> None:
    removed = api.expect(200, "DELETE", path(cases[0]))

    assert removed["removed_in"] == 2
    assert api.get(path(cases[0])).status_code == 404
    assert [case["ordinal"] for case in api.expect(200, "GET", CASES)["data"]] == [2, 3]
    assert [case["ordinal"] for case in api.expect(200, "GET", f"{CASES}?revision=1")["data"]] == [1, 2, 3]
    assert api.expect(200, "GET", "/v1/datasets/tickets")["case_count"] == 2
    assert event_data("dataset.removed") == [{"revision": 2, "case_id": cases[0]["test_case_id"]}]


def test_a_restored_case_is_back_at_its_place_as_it_was_last(api: Api, cases: list[Any]) -> None:
    api.expect(200, "PATCH", path(cases[0]), {"name": "changed"})
    api.expect(200, "DELETE", path(cases[0]))

    restored = api.expect(200, "POST", f"{path(cases[0])}/restore")

    assert restored == {**cases[0], "name": "changed", "added_in": 4, "removed_in": None}
    assert [case["ordinal"] for case in api.expect(200, "GET", CASES)["data"]] == [1, 2, 3]
    assert event_data("dataset.restored") == [{"revision": 4, "case_id": cases[0]["test_case_id"]}]


def test_a_case_whose_content_came_back_meanwhile_is_not_restored(api: Api, cases: list[Any]) -> None:
    api.expect(200, "DELETE", path(cases[0]))
    api.expect(201, "POST", CASES, [ROWS[0]])
    before = everything()

    assert api.post(f"{path(cases[0])}/restore").status_code == 409
    assert everything() == before


def test_a_case_that_is_there_stays_as_it_is_when_it_is_restored(api: Api, cases: list[Any]) -> None:
    before = everything()

    assert api.expect(200, "POST", f"{path(cases[0])}/restore") == cases[0]
    assert everything() == before


def test_a_case_of_another_dataset_is_not_found(api: Api, cases: list[Any]) -> None:
    api.expect(201, "POST", "/v1/datasets", {"name": "other"})
    before = everything()

    for case_id in (cases[0]["test_case_id"], uuid.uuid4()):
        other = f"/v1/datasets/other/cases/{case_id}"
        assert api.get(other).status_code == 404
        assert api.request("PATCH", other, {"name": "x"}).status_code == 404
        assert api.request("DELETE", other).status_code == 404
        assert api.post(f"{other}/restore").status_code == 404
    assert everything() == before


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("tag=a", [1]),
        ("tag=ab", [2]),
        ("tag=A", []),
        ("golden=true", [1]),
        ("golden=false", [2, 3]),
        ("generated=true", [3]),
        ("group=kind", [2, 3]),
        ("group=kind&golden=true", []),
        ("q=it+broke", [1]),
        ("q=FIRST", [1]),
        ("q=thanks", [2]),
        ("q=rare", [3]),
        ("q=say+%22hi%22%0Athere", [2]),
        ("q=100%25", [3]),
        ("q=1_0", []),
        ("q=nothing", []),
    ],
)
def test_cases_are_found_by_tag_flags_group_and_text(api: Api, cases: list[Any], query: str, found: list[int]) -> None:
    assert [case["ordinal"] for case in api.expect(200, "GET", f"{CASES}?{query}")["data"]] == found


@pytest.mark.parametrize(
    ("query", "named"),
    [("revision=2", "?revision"), ("revision=-1", "?revision"), ("golden=1", "?golden"), ("q=", "?q")],
)
def test_a_filter_that_makes_no_sense_is_named(api: Api, cases: list[Any], query: str, named: str) -> None:
    answer = api.get(f"{CASES}?{query}")

    assert (answer.status_code, pointers(answer)) == (422, [named])


def test_the_empty_revision_0_has_no_case(api: Api, cases: list[Any]) -> None:
    assert api.expect(200, "GET", f"{CASES}?revision=0")["data"] == []


def test_an_evaluation_runs_on_the_cases_that_it_began_with(api: Api, drain: Drain) -> None:
    make_triage(api, cases=12)
    cases = api.expect(200, "GET", CASES)["data"]
    started = api.expect(202, "POST", "/v1/evaluations", evaluation_body())
    api.expect(200, "PATCH", path(cases[0]), {"inputs": {"ticket": "quite another"}})
    api.expect(200, "DELETE", path(cases[1]))
    drain()

    results = api.expect(200, "GET", f"/v1/evaluations/{started['evaluation_id']}/results")["data"]
    done = api.expect(200, "GET", f"/v1/evaluations/{started['evaluation_id']}")

    assert (done["status"], done["aggregate"]["scored"]) == ("succeeded", 12)
    assert [row["inputs"] for row in results] == [case["inputs"] for case in cases]
    again = api.expect(202, "POST", "/v1/evaluations", evaluation_body())
    drain()
    later = api.expect(200, "GET", f"/v1/evaluations/{again['evaluation_id']}/results")["data"]
    assert [row["ordinal"] for row in later] == [1, *range(3, 13)]
    assert later[0]["inputs"] == {"ticket": "quite another"}
