"""POST /v1/bulk/prompts: each verb does to each item what the single request does, and an item fails alone."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.domain import bulk
from shared.domain.tenants import Caller
from shared.models import ApiKey, BulkItem, BulkOperation, Event, Job, Prompt, Role, Version
from tests.bulk import OPERATIONS, PATH, creates, read, results, statuses, submit
from tests.rows import count, event_data, everything
from tests.support import MODEL, Api, Drain, make_prompt, pointers

KEY = {"Idempotency-Key": "nightly"}


def prompt(api: Api, name: str, query: str = "") -> Any:
    return api.expect(200, "GET", f"/v1/prompts/{name}{query}")


def test_a_submit_answers_at_once_and_the_fleet_does_the_items(api: Api, drain: Drain) -> None:
    answer = api.post(PATH, {"operation": "create", "items": creates(3)})

    submitted = answer.get_json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"{OPERATIONS}/{submitted['operation_id']}"
    assert (submitted["status"], submitted["progress"]["total"], count(Prompt)) == ("queued", 3, 0)
    drain()
    done = read(api, submitted["operation_id"])
    assert (done["status"], done["eta_at"], done["error"]) == ("succeeded", None, None)
    assert done["progress"] == {"total": 3, "done": 3, "succeeded": 3, "failed": 0, "skipped": 0, "canceled": 0}
    assert [row["name"] for row in results(api, submitted["operation_id"])] == ["p0000", "p0001", "p0002"]
    assert prompt(api, "p0001")["prompt_id"] == results(api, submitted["operation_id"])[1]["prompt_id"]


def test_create_takes_all_that_the_single_create_takes(api: Api, drain: Drain) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{{ question }}"}]
    item = {
        "name": "asker",
        "messages": chat,
        "model": {**MODEL, "params": {"temperature": 0.5}},
        "description": "Asks.",
        "category": "support",
        "tags": ["a", "b"],
        "owner_team": "care",
        "message": "first",
        "set_active": True,
        "project": "atlas",
    }

    operation = submit(api, "create", [item])
    drain()

    made = prompt(api, "asker", "?project=atlas")
    assert statuses(api, operation) == ["succeeded"]
    assert [made[name] for name in ("description", "category", "tags", "owner_team")] == [
        "Asks.",
        "support",
        ["a", "b"],
        "care",
    ]
    assert made["active_version"]["messages"] == chat
    assert made["active_version"]["model"]["params"] == {"temperature": 0.5}
    assert made["active_version"]["message"] == "first"


def test_update_adds_a_version_changes_fields_or_finds_nothing_to_do(api: Api, drain: Drain) -> None:
    for name in ("text", "field", "same"):
        make_prompt(api, name, template="Old {{ a }}", category="old")
    items = [
        {"name": "text", "template_source": "New {{ a }}", "message": "newer", "set_active": True},
        {"name": "field", "category": "new"},
        {"name": "same", "template_source": "Old {{ a }}", "category": "old"},
    ]

    operation = submit(api, "update", items)
    drain()

    assert [(row["status"], row["version_number"]) for row in results(api, operation)] == [
        ("succeeded", 2),
        ("succeeded", 1),
        ("skipped", 1),
    ]
    assert prompt(api, "text")["active_version"]["template_source"] == "New {{ a }}"
    assert [prompt(api, name)["category"] for name in ("text", "field", "same")] == ["old", "new", "old"]
    assert count(Version) == 4


def test_an_update_of_one_prompt_twice_is_done_in_the_order_of_the_items(api: Api, drain: Drain) -> None:
    make_prompt(api, "text", template="one")

    operation = submit(api, "update", [{"name": "text", "template_source": text} for text in ("two", "three", "two")])
    drain()

    assert [(row["status"], row["version_number"]) for row in results(api, operation)] == [
        ("succeeded", 2),
        ("succeeded", 3),
        ("skipped", 2),
    ]


def test_tag_adds_and_removes_and_keeps_the_order(api: Api, drain: Drain) -> None:
    make_prompt(api, "a", tags=["x", "y"])
    make_prompt(api, "b", tags=["y"])
    made = make_prompt(api, "c")

    items: list[Any] = [
        {"name": "a"},
        {"name": "b", "add": ["y"], "remove": ["x"]},
        {"prompt_id": made["prompt"]["prompt_id"]},
    ]
    operation = submit(api, "tag", items, add=["z"], remove=["x"])
    drain()

    assert statuses(api, operation) == ["succeeded", "skipped", "succeeded"]
    assert [prompt(api, name)["tags"] for name in ("a", "b", "c")] == [["y", "z"], ["y"], ["z"]]
    assert [row["name"] for row in results(api, operation)] == ["a", "b", "c"]


def test_a_tag_too_many_fails_that_item_and_changes_nothing_of_it(api: Api, drain: Drain) -> None:
    make_prompt(api, "full", tags=[f"t{number}" for number in range(50)])

    operation = submit(api, "tag", [{"name": "full", "add": ["one more"]}])
    drain()

    (result,) = results(api, operation)
    assert (result["status"], result["error"]["errors"][0]["pointer"]) == ("failed", "/add")
    assert len(prompt(api, "full")["tags"]) == 50


def test_label_points_at_the_version_that_is_named_or_at_the_newest(api: Api, drain: Drain) -> None:
    for name in ("a", "b"):
        make_prompt(api, name, template="one")
        make_prompt(api, name, template="two")

    operation = submit(
        api,
        "label",
        [{"name": "a"}, {"name": "b", "version_number": 1}, {"name": "a"}, {"name": "a", "version_number": 9}],
        label="staging",
    )
    drain()

    assert statuses(api, operation) == ["succeeded", "succeeded", "skipped", "failed"]
    labels = {name: {row["label"]: row["version_number"] for row in prompt(api, name)["labels"]} for name in "ab"}
    assert labels == {"a": {"production": 2, "staging": 2}, "b": {"production": 2, "staging": 1}}
    assert len([data for data in event_data("prompt.label_moved") if data["label"] == "staging"]) == 2


def test_a_filter_finds_its_prompts_when_it_is_submitted(api: Api, drain: Drain) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    make_prompt(api, "a", category="support", tags=["x"])
    make_prompt(api, "b", category="support")
    make_prompt(api, "c", category="code", tags=["x"])
    make_prompt(api, "d", category="support", tags=["x"], project="atlas")

    one = submit(api, "tag", filter={"category": "support", "tag": "x", "project": "default"}, add=["one"])
    both = submit(api, "tag", filter={"category": "support", "tag": "x"}, add=["both"])
    make_prompt(api, "e", category="support", tags=["x"])
    drain()

    assert [row["name"] for row in results(api, one)] == ["a"]
    assert [row["name"] for row in results(api, both)] == ["a", "d"]
    assert read(api, one)["filter"] == {"category": "support", "tag": "x", "project": "default"}
    assert prompt(api, "a")["tags"] == ["x", "one", "both"]
    assert prompt(api, "e")["tags"] == ["x"]


def test_an_item_that_cannot_be_done_fails_alone_and_says_why(api: Api, drain: Drain) -> None:
    make_prompt(api, "taken")
    items = [
        {"name": "first", "template_source": "a"},
        {"name": "taken", "template_source": "a"},
        {"name": "hot", "template_source": "a", "model": {**MODEL, "params": {"top_k": 5}}},
        {"name": "last", "template_source": "a"},
    ]

    operation = submit(api, "create", items)
    drain()

    found = results(api, operation)
    assert [row["status"] for row in found] == ["succeeded", "failed", "failed", "succeeded"]
    assert found[1]["error"]["code"] == "already_exists"
    assert "taken" in found[1]["error"]["detail"]
    assert [problem["pointer"] for problem in found[2]["error"]["errors"]] == ["/model/params/top_k"]
    assert read(api, operation)["status"] == "succeeded"
    assert api.get("/v1/prompts/hot").status_code == 404
    assert [row["name"] for row in results(api, operation, "status=failed")] == ["taken", "hot"]


def test_what_single_requests_say_of_a_prompt_that_is_not_there_its_result_says(api: Api, drain: Drain) -> None:
    nobody = "00000000-0000-0000-0000-000000000000"

    operation = submit(api, "tag", [{"name": "nobody"}, {"prompt_id": nobody}], add=["x"])
    drain()

    assert [(row["status"], row["error"]["code"]) for row in results(api, operation)] == [("failed", "not_found")] * 2
    assert [row["prompt_id"] for row in results(api, operation)] == [None, nobody]


def test_an_operation_of_which_every_item_failed_has_failed(api: Api, drain: Drain) -> None:
    operation = submit(api, "tag", [{"name": "nobody"}], add=["x"])

    drain()

    done = read(api, operation)
    assert (done["status"], done["error"]["code"]) == ("failed", "every_item_failed")


def test_a_dry_run_tells_what_would_come_of_each_item_and_stores_nothing_else(api: Api, drain: Drain) -> None:
    make_prompt(api, "taken", template="one")
    before = everything()

    created = submit(
        api,
        "create",
        [{"name": "fresh", "template_source": "a"}, {"name": "taken", "template_source": "a"}],
        dry_run=True,
    )
    updated = submit(api, "update", [{"name": "taken", "template_source": "two"}], dry_run=True)
    drain()

    after = everything()
    assert [after[name] for name in ("prompts", "versions", "labels")] == [
        before[name] for name in ("prompts", "versions", "labels")
    ]
    assert [(row["status"], row["prompt_id"]) for row in results(api, created)] == [
        ("succeeded", None),
        ("failed", None),
    ]
    assert [(row["status"], row["version_number"]) for row in results(api, updated)] == [("succeeded", 2)]
    assert read(api, created)["dry_run"] is True
    kind = Event.__table__.columns.keys().index("type")
    assert [row for row in after["events"] if not row[kind].startswith("bulk.")] == before["events"]


WRONG: list[tuple[Any, list[str]]] = [
    ([], [""]),
    ({}, ["/operation"]),
    ({"operation": "explode", "items": [{}]}, ["/operation"]),
    ({"operation": "tag"}, ["/items"]),
    ({"operation": "tag", "items": [{"name": "a"}], "filter": {}}, ["/items"]),
    ({"operation": "tag", "items": "a"}, ["/items"]),
    ({"operation": "tag", "items": []}, ["/items"]),
    ({"operation": "tag", "items": ["a"], "add": ["x"]}, ["/items/0"]),
    ({"operation": "tag", "items": [{"name": "a"}]}, ["/items/0/add"]),
    ({"operation": "tag", "items": [{"name": "a"}], "add": "x"}, ["/add"]),
    ({"operation": "tag", "items": [{"name": "a"}], "add": ["x"], "colour": "red"}, ["/colour"]),
    ({"operation": "tag", "items": [{"name": "a", "add": ["x"], "remove": ["x"]}]}, ["/items/0/remove"]),
    ({"operation": "tag", "items": [{"add": ["x"]}]}, ["/items/0/prompt_id"]),
    ({"operation": "tag", "items": [{"prompt_id": "a", "add": ["x"]}]}, ["/items/0/prompt_id"]),
    ({"operation": "tag", "filter": {"colour": "red"}, "add": ["x"]}, ["/filter/colour"]),
    ({"operation": "tag", "filter": {"category": "none"}, "add": ["x"]}, ["/filter"]),
    ({"operation": "tag", "filter": {}, "add": ["x"], "name": "a"}, ["/name"]),
    ({"operation": "tag", "filter": {"mode": "full"}}, ["/add"]),
    ({"operation": "delete", "filter": {}}, ["/filter"]),
    ({"operation": "label", "filter": {}}, ["/label"]),
    ({"operation": "label", "items": [{"name": "a"}]}, ["/items/0/label"]),
    ({"operation": "label", "items": [{"name": "a", "label": "v1"}]}, ["/items/0/label"]),
    ({"operation": "update", "items": [{"name": "a"}]}, ["/items/0"]),
    ({"operation": "create", "filter": {}, "template_source": "a"}, ["/filter"]),
    ({"operation": "create", "items": [{"name": "new", "template_source": "a"}]}, ["/items/0/name"]),
    ({"operation": "create", "items": [{"template_source": "a"}, {"name": "a"}]}, ["/items/0/name"]),
    ({"operation": "create", "items": [{"name": "a", "template_source": "{{ a"}]}, ["/items/0/template_source"]),
    ({"operation": "create", "items": [{"name": "a", "template_source": "\x00"}]}, ["/items/0/template_source"]),
    ({"operation": "create", "items": creates(1) * 2}, ["/items/1/name"]),
    ({"operation": "tag", "items": [{"name": "a"}], "add": ["x"], "dry_run": "yes"}, ["/dry_run"]),
]


@pytest.mark.parametrize(("body", "named"), WRONG)
def test_what_makes_no_sense_is_named_and_nothing_is_stored(api: Api, body: Any, named: list[str]) -> None:
    make_prompt(api, "a")
    before = everything()

    answer = api.post(PATH, body)

    assert (answer.status_code, pointers(answer)) == (422, named), answer.get_data(as_text=True)
    assert everything() == before


def test_a_project_that_does_not_exist_is_a_404_and_nothing_is_stored(api: Api) -> None:
    by_item = api.post(PATH, {"operation": "create", "items": [{**creates(1)[0], "project": "nowhere"}]})
    by_filter = api.post(PATH, {"operation": "tag", "filter": {"project": "nowhere"}, "add": ["x"]})

    assert [by_item.status_code, by_filter.status_code] == [404, 404]
    assert (count(BulkOperation), count(BulkItem), count(Job)) == (0, 0, 0)


def test_ten_thousand_items_are_taken_and_one_more_is_not(api: Api) -> None:
    too_many = api.post(PATH, {"operation": "tag", "items": [{"name": "a"}] * 10_001, "add": ["x"]})
    taken = submit(api, "tag", [{"name": "a"}] * 10_000, add=["x"])

    assert (too_many.status_code, pointers(too_many)) == (422, ["/items"])
    assert read(api, taken)["progress"]["total"] == count(BulkItem) == 10_000


def test_a_filter_that_finds_too_many_is_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "MAX_ITEMS", 2)
    for name in "abc":
        make_prompt(api, name, category="all")
    make_prompt(api, "d")

    answer = api.post(PATH, {"operation": "tag", "filter": {"category": "all"}, "add": ["x"]})

    assert (answer.status_code, pointers(answer)) == (422, ["/filter"])
    assert count(BulkOperation) == 0


def test_the_same_key_and_body_is_one_operation(api: Api, drain: Drain) -> None:
    body = {"operation": "create", "items": creates(2)}
    first = api.post(PATH, body, headers=KEY)
    drain()

    again = api.post(PATH, body, headers=KEY)
    other = api.post(PATH, {**body, "dry_run": True}, headers=KEY)

    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (202, "true")
    assert again.get_json() == first.get_json()
    assert again.headers["Location"] == first.headers["Location"]
    assert (other.status_code, other.get_json()["code"]) == (422, "idempotency_mismatch")
    assert (count(BulkOperation), count(Prompt)) == (1, 2)


def test_a_draining_queue_takes_no_operation(api: Api) -> None:
    api.expect(200, "POST", "/v1/queues/maintenance/drain")

    answer = api.post(PATH, {"operation": "create", "items": creates(1)})

    assert (answer.status_code, answer.get_json()["code"]) == (503, "queue_draining")
    assert count(BulkOperation) == 0


def test_items_are_done_with_the_rights_of_who_submitted_them(
    api: Api, as_user: Callable[..., Api], drain: Drain
) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    ours = make_prompt(api, "ours", project="atlas")["prompt"]["prompt_id"]
    theirs = make_prompt(api, "theirs")["prompt"]["prompt_id"]
    limited = as_user(projects=["atlas"], user="ann")

    operation = submit(limited, "tag", [{"prompt_id": ours}, {"prompt_id": theirs}], add=["x"])
    drain()

    assert statuses(limited, operation) == ["succeeded", "failed"]
    assert prompt(api, "theirs")["tags"] == []
    assert read(limited, operation)["created_by"] == "ann"


def test_another_workspaces_prompt_does_not_exist_for_an_item(
    api: Api, as_user: Callable[..., Api], drain: Drain
) -> None:
    stranger = as_user(workspace="elsewhere", role=Role.ADMIN)
    theirs = make_prompt(stranger, "theirs")["prompt"]["prompt_id"]

    operation = submit(api, "tag", [{"prompt_id": theirs}], add=["x"])
    drain()

    (result,) = results(api, operation)
    assert (result["error"]["code"], result["name"]) == ("not_found", None)
    assert prompt(stranger, "theirs")["tags"] == []


def test_the_rest_is_not_done_once_the_key_that_submitted_it_is_revoked(
    api: Api, as_user: Callable[..., Api], drain: Drain
) -> None:
    operation = submit(as_user(name="leaked"), "create", creates(bulk.PAGE + 50))
    drain(most=1)
    with db.transaction() as session:
        session.execute(sa.update(ApiKey).where(ApiKey.name == "leaked").values(revoked_at=db.db_now()))

    drain()

    stopped = read(api, operation)
    assert (stopped["status"], stopped["error"]["code"]) == ("failed", "key_revoked")
    assert (stopped["progress"]["succeeded"], stopped["progress"]["canceled"]) == (bulk.PAGE, 50)
    assert count(Prompt) == bulk.PAGE


def test_an_operation_goes_on_after_its_key_has_only_expired(
    api: Api, as_user: Callable[..., Api], drain: Drain
) -> None:
    operation = submit(as_user(expires_at=datetime.now(UTC) + timedelta(hours=1)), "create", creates(2))

    db.offset_clock(3601)
    drain()

    assert read(api, operation)["status"] == "succeeded"


def test_each_change_writes_its_event_and_the_operation_its_own(api: Api, admin: Caller, drain: Drain) -> None:
    submit(api, "create", creates(bulk.PAGE + 1))

    drain()

    assert len(event_data("prompt.created")) == bulk.PAGE + 1
    assert event_data("bulk.queued") == [{"operation": "create", "total": bulk.PAGE + 1, "dry_run": False}]
    assert len(event_data("bulk.running")) == 1
    assert [data["succeeded"] for data in event_data("bulk.progressed")] == [bulk.PAGE]
    assert [data["succeeded"] for data in event_data("bulk.succeeded")] == [bulk.PAGE + 1]
