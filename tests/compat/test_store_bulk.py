"""/api/v1/bulk: jobs of the fleet, with a result for each item whatever became of the others."""

from typing import Any

import pytest

from shared.models import BulkOperation, Prompt
from tests.compat.store import STORE, at, data, make, refusal
from tests.rows import count, everything
from tests.support import Api, Drain

NOBODY = "00000000-0000-0000-0000-000000000000"


def item(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "category": "c", "content": f"Text of {name}", **fields}


def submit(api: Api, method: str, path: str, body: Any) -> Any:
    return data(api, method, f"/bulk/prompts{path}", body, status=202)


def read(api: Api, operation: Any) -> Any:
    return data(api, "GET", f"/bulk/operations/{operation['id']}")


def outcomes(operation: Any) -> list[str]:
    return [result["status"] for result in operation["operation"]["results"]]


@pytest.mark.parametrize("wrap", [lambda items: items, lambda items: {"prompts": items}])
def test_a_bulk_create_is_accepted_at_once_and_done_by_the_fleet(api: Api, drain: Drain, wrap: Any) -> None:
    items = [item("a", tags=["x"], description="d"), item("b", content=" {{ v }}\n", variables=["v"], is_template=True)]

    answer = api.post(f"{STORE}/bulk/prompts?created_by=ada", wrap(items))

    operation = answer.get_json()["data"]
    assert (answer.status_code, count(Prompt)) == (202, 0)
    assert answer.headers["Location"] == f"{STORE}/bulk/operations/{operation['id']}"
    assert {name: operation[name] for name in ("operation_type", "status", "total_items", "processed_items")} == {
        "operation_type": "create_prompts",
        "status": "pending",
        "total_items": 2,
        "processed_items": 0,
    }
    drain()
    done = read(api, operation)
    assert (done["is_complete"], done["has_errors"], done["progress_percentage"]) == (True, False, 100)
    assert done["operation"]["status"] == "completed"
    made = {one["name"]: one for one in data(api, "GET", "/prompts")["items"]}
    assert (made["a"]["tags"], made["a"]["description"], made["b"]["content"]) == (["x"], "d", " {{ v }}\n")
    assert [one["prompt_id"] for one in done["operation"]["results"]] == [made["a"]["id"], made["b"]["id"]]


def test_an_item_that_fails_leaves_the_results_of_the_others(api: Api, drain: Drain) -> None:
    make(api, "taken")
    operation = submit(api, "POST", "", [item("a"), item("taken"), item("b")])

    drain()

    done = read(api, operation)
    assert outcomes(done) == ["success", "failed", "success"]
    assert (done["operation"]["status"], done["has_errors"]) == ("completed", True)
    counts = {name: done["operation"][name] for name in ("processed_items", "successful_items", "failed_items")}
    assert counts == {"processed_items": 3, "successful_items": 2, "failed_items": 1}
    assert len(done["operation"]["errors"]) == 1  # said once
    assert "taken" in done["operation"]["results"][1]["error"]


def test_an_operation_of_which_every_item_failed_has_failed(api: Api, drain: Drain) -> None:
    operation = submit(api, "DELETE", "", [NOBODY])

    drain()

    assert (read(api, operation)["operation"]["status"], outcomes(read(api, operation))) == ("failed", ["failed"])


def test_a_retry_does_what_failed_and_nothing_again(api: Api, drain: Drain) -> None:
    taken = make(api, "taken")
    first = submit(api, "POST", "", [item("a"), item("taken")])
    drain()
    data(api, "DELETE", at(taken))

    retry = data(api, "POST", f"/bulk/operations/{first['id']}/retry", status=202)
    drain()

    done = read(api, retry)
    assert (retry["metadata"]["retry_of"], retry["total_items"]) == (first["id"], 1)
    assert [(one["name"], one["status"]) for one in done["operation"]["results"]] == [("taken", "success")]
    assert outcomes(read(api, first)) == ["success", "failed"]


def test_what_was_canceled_is_not_done(api: Api, drain: Drain) -> None:
    operation = submit(api, "POST", "", [item("a"), item("b")])

    canceled = data(api, "PUT", f"/bulk/operations/{operation['id']}/cancel")

    drain()
    assert (canceled["status"], read(api, operation)["operation"]["status"]) == ("cancelled", "cancelled")
    assert (outcomes(read(api, operation)), count(Prompt)) == (["cancelled", "cancelled"], 0)
    answer = api.put(f"{STORE}/bulk/operations/{submit(api, 'DELETE', '', [NOBODY])['id']}/cancel")
    assert answer.get_json()["data"]["status"] == "cancelled"


def test_updates_change_what_they_give(api: Api, drain: Drain) -> None:
    one, two = make(api, "one", tags=["old"]), make(api, "two", content="Same")
    updates = [
        {"prompt_id": one["id"], "description": "new"},
        {"prompt_id": two["id"], "content": "Other", "tags": ["x"], "category": "code"},
    ]

    operation = submit(api, "PUT", "", updates)
    drain()

    assert outcomes(read(api, operation)) == ["success", "success"]
    first, second = data(api, "GET", at(one)), data(api, "GET", at(two))
    assert (first["description"], first["tags"], first["version"]) == ("new", ["old"], 1)
    assert (second["content"], second["tags"], second["category"], second["version"]) == ("Other", ["x"], "code", 2)


def test_tags_are_added_and_removed(api: Api, drain: Drain) -> None:
    one, two = make(api, "one", tags=["a", "b"]), make(api, "two")
    body = {"prompt_ids": [one["id"], two["id"]], "tags_to_add": ["c"], "tags_to_remove": ["a"]}

    operation = submit(api, "PUT", "/tags", body)
    drain()

    assert operation["operation_type"] == "tag_prompts"
    assert [data(api, "GET", at(prompt))["tags"] for prompt in (one, two)] == [["b", "c"], ["c"]]


def test_deleted_prompts_can_be_restored(api: Api, drain: Drain) -> None:
    made = make(api)

    operation = submit(api, "DELETE", "", {"prompt_ids": [made["id"]]})
    drain()

    assert outcomes(read(api, operation)) == ["success"]
    assert api.get(STORE + at(made)).status_code == 404
    api.expect(200, "POST", f"/v1/prompts/{made['id']}/restore", {})


def test_operations_are_listed_by_status_and_type(api: Api, drain: Drain) -> None:
    made = submit(api, "POST", "", [item("a")])
    drain()
    waiting = submit(api, "DELETE", "", [NOBODY])

    def ids(query: str) -> list[str]:
        return [one["id"] for one in data(api, "GET", f"/bulk/operations{query}")["items"]]

    assert ids("") == [waiting["id"], made["id"]]
    assert ids("?status=completed") == [made["id"]]
    assert ids("?status=pending&operation_type=delete_prompts") == [waiting["id"]]
    assert ids("?operation_type=tag_prompts") == []
    assert ids("?limit=1&offset=1") == [made["id"]]
    assert data(api, "GET", "/bulk/operations?limit=1")["has_more"] is True


@pytest.mark.parametrize(
    ("method", "path", "body", "pointer"),
    [
        ("POST", "", [], "/prompts"),
        ("POST", "", [item("a"), item("b c")], "/prompts/1/name"),
        ("POST", "", [item("a", content="{{")], "/prompts/0/content"),
        ("POST", "", [item("a", content="{{ v }}", is_template=True)], "/prompts/0/variables"),
        ("POST", "", [item("a"), item("a")], "/prompts/1/name"),
        ("POST", "", [{"name": "a", "category": "c"}], "/prompts/0/content"),
        ("PUT", "", [{"prompt_id": "no-id", "description": "a"}], "/updates/0/prompt_id"),
        ("PUT", "", [{"prompt_id": NOBODY}], "/updates/0"),
        ("PUT", "", [{"prompt_id": NOBODY, "lifecycle_status": "draft"}], "/updates/0/lifecycle_status"),
        ("DELETE", "", [1], "/prompt_ids/0"),
        ("PUT", "/tags", {"prompt_ids": [NOBODY]}, "/tags_to_add"),
        ("GET", "operations?status=done", None, "?status"),
    ],
)
def test_what_makes_no_sense_is_named_and_nothing_is_stored(
    api: Api, method: str, path: str, body: Any, pointer: str
) -> None:
    before = everything()
    address = f"{STORE}/bulk/{path}" if path.startswith("operations") else f"{STORE}/bulk/prompts{path}"

    answer = api.request(method, address, body)

    assert refusal(answer) == (422, "VALIDATION_ERROR", [pointer])
    assert everything() == before


@pytest.mark.parametrize("operation_id", [NOBODY, "no-id"])
def test_an_operation_that_is_not_there_is_a_404(api: Api, operation_id: str) -> None:
    path = f"{STORE}/bulk/operations/{operation_id}"
    answers = [api.get(path), api.put(f"{path}/cancel"), api.post(f"{path}/retry")]

    assert [refusal(answer)[:2] for answer in answers] == [(404, "NOT_FOUND")] * 3


def test_an_idempotency_key_makes_one_operation_of_two_requests(api: Api) -> None:
    key = {"Idempotency-Key": "k"}

    first, second = (api.post(f"{STORE}/bulk/prompts", [item("a")], headers=key) for _ in range(2))

    assert first.get_json()["data"]["id"] == second.get_json()["data"]["id"]
    assert second.headers["Idempotent-Replayed"] == "true"
    assert count(BulkOperation) == 1


def test_ten_thousand_prompts_fit_into_one_request(api: Api) -> None:
    operation = submit(api, "POST", "", [item(f"p{number}", description="d" * 100) for number in range(10_000)])

    assert operation["total_items"] == 10_000
    answer = api.post(f"{STORE}/bulk/prompts", [item(f"q{number}") for number in range(10_001)])
    assert refusal(answer) == (422, "VALIDATION_ERROR", ["/prompts"])
