"""POST /v1/executions:batch: every item its own execution or its own error, and one answer for all of them."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.domain import batches
from shared.models import Batch, Call, Dataset, Event, Execution, Job, TestCase
from tests.rows import count, event_data, everything
from tests.support import MODEL, Api, Drain, batch_body, make_prompt, make_triage, pointers, run_body

PATH = "/v1/executions:batch"
KEY = {"Idempotency-Key": "nightly"}


def post_jsonl(api: Api, lines: list[str], kind: str = "application/x-ndjson") -> Any:
    return api.request("POST", PATH, data="\n".join(lines).encode(), content_type=kind)


def errors_of(answer: Any) -> dict[int, list[str]]:
    """By the index of the item, the fields that its error names."""
    return {
        result["index"]: [error["pointer"] for error in result["error"]["errors"]]
        for result in answer["results"]
        if "error" in result
    }


def members() -> list[Execution]:
    with db.reading() as session:
        return list(session.scalars(sa.select(Execution).order_by(Execution.batch_index)))


def test_each_item_becomes_an_execution_of_its_own_in_the_order_of_the_items(api: Api) -> None:
    make_prompt(api)

    answer = api.post(PATH, batch_body(["Ada", "Bob", "Cleo"]))

    batch = answer.get_json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/v1/batches/{batch['batch_id']}"
    assert (batch["status"], batch["total"], batch["accepted"], batch["rejected"]) == ("queued", 3, 3, 0)
    assert [result["index"] for result in batch["results"]] == [0, 1, 2]
    for result, name in zip(batch["results"], ["Ada", "Bob", "Cleo"], strict=True):
        stored = api.expect(200, "GET", f"/v1/executions/{result['execution_id']}")
        assert stored["messages"][0]["content"] == f"Say hello to {name}."
        assert (stored["status"], stored["batch_id"], stored["batch_index"]) == (
            result["status"],
            batch["batch_id"],
            result["index"],
        )


def test_every_item_is_run(api: Api, drain: Drain) -> None:
    make_prompt(api)
    batch = api.expect(202, "POST", PATH, batch_body(["Ada", "Bob", "Cleo"]))

    assert drain() == 3

    read = api.expect(200, "GET", f"/v1/batches/{batch['batch_id']}")
    assert read["counts"] == {"queued": 0, "running": 0, "succeeded": 3, "failed": 0, "canceled": 0}


def test_what_is_given_beside_the_items_holds_where_an_item_does_not_give_its_own(api: Api) -> None:
    make_prompt(api)
    make_prompt(api, "other", template="Other.")
    shared = {"environment": "prod", "params": {"temperature": 0.5}, "correlation_id": "nightly"}
    items = [
        {"variables": {"name": "Ada"}},
        {"variables": {"name": "Bob"}, "params": {"max_new_tokens": 9}, "correlation_id": "own"},
        {"prompt_name": "other", "environment": "dev"},
    ]

    api.expect(202, "POST", PATH, {"prompt_name": "greeter", "model": MODEL, **shared, "items": items})

    assert [(row.messages[0]["content"], row.environment, row.params, row.correlation_id) for row in members()] == [
        ("Say hello to Ada.", "prod", {"temperature": 0.5}, "nightly"),
        ("Say hello to Bob.", "prod", {"max_new_tokens": 9}, "own"),
        ("Other.", "dev", {"temperature": 0.5}, "nightly"),
    ]


def test_equal_items_are_runs_of_their_own(api: Api, drain: Drain) -> None:
    make_prompt(api)

    batch = api.expect(202, "POST", PATH, batch_body(["Ada", "Ada"]))

    assert len({result["execution_id"] for result in batch["results"]}) == 2
    assert (count(Call), drain()) == (2, 2)


def test_an_item_that_cannot_be_run_is_named_and_stops_no_other(api: Api) -> None:
    make_prompt(api)
    good = {"variables": {"name": "Ada"}}
    bad: list[tuple[Any, str]] = [
        ({**good, "colour": "red"}, "/items/1/colour"),
        ({"variables": {}}, "/items/2/variables/name"),
        ({"variables": {"name": {"deep": [1, float("nan")]}}}, "/items/3/variables/name/deep/1"),
        ({"variables": {"name": "\x00"}}, "/items/4/variables/name"),
        ("Ada", "/items/5"),
        ({**good, "prompt_name": "nobody"}, "/items/6/prompt_name"),
        ({**good, "label": "nowhere"}, "/items/7/label"),
        ({**good, "project": "nowhere"}, "/items/8/project"),
        ({**good, "params": {"top_k": 5}}, "/items/9/params/top_k"),
        ({**good, "params": {"temperature": 3}}, "/items/10/params/temperature"),
        ({**good, "version_number": 1, "label": "production"}, "/items/11/version_number"),
        ({**good, "priority": 1}, "/items/12/priority"),
        ({"variables": {"name": "x" * 300_000}}, "/items/13/variables"),
    ]

    answer = api.expect(202, "POST", PATH, batch_body([], items=[good, *[item for item, _ in bad], good]))

    assert errors_of(answer) == {index: [pointer] for index, (_, pointer) in enumerate(bad, start=1)}
    assert (answer["total"], answer["accepted"], answer["rejected"]) == (15, 2, 13)
    assert [row.batch_index for row in members()] == [0, 14]
    codes = {result["index"]: result["error"]["code"] for result in answer["results"] if "error" in result}
    assert (codes[1], codes[2], codes[6]) == ("invalid_fields", "render_failed", "not_found")


def test_a_key_that_an_item_gives_twice_is_named(api: Api) -> None:
    make_prompt(api)
    good = json.dumps(run_body())
    twice = good.replace('"name": "Ada"', '"name": "Ada", "name": "Bob"')

    answer = api.request("POST", PATH, data=f'{{"items": [{good}, {twice}]}}', content_type="application/json")

    assert errors_of(answer.get_json()) == {1: ["/items/1/variables/name"]}


def test_an_item_without_a_model_or_a_prompt_says_so(api: Api) -> None:
    make_prompt(api)
    items = [run_body(), {"variables": {}, "model": MODEL}, {"prompt_name": "greeter", "variables": {"name": "Ada"}}]

    answer = api.expect(202, "POST", PATH, {"items": items})

    assert errors_of(answer) == {1: ["/items/1/prompt_name"], 2: ["/items/2/model"]}


def test_when_no_item_can_be_run_nothing_is_stored(api: Api) -> None:
    make_prompt(api)
    before = everything()

    answer = api.post(PATH, batch_body([], items=[{"variables": {}}, {"colour": "red"}]), headers=KEY)

    assert answer.status_code == 422
    assert pointers(answer) == ["/items/0/variables/name", "/items/1/colour"]
    assert everything() == before


def test_what_is_wrong_beside_the_items_is_said_once(api: Api) -> None:
    make_prompt(api)

    answer = api.post(PATH, batch_body(["Ada", "Bob", "Cleo"], label="nowhere"))

    assert (answer.status_code, pointers(answer)) == (422, ["/label"])


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"items": []}, "/items"),
        ({"items": None}, "/items"),
        ({"items": {"0": {}}}, "/items"),
        ({"items": [{}] * 10_001}, "/items"),
        ({"dataset": "tickets"}, "/items"),
        ({"priority": 10}, "/priority"),
        ({"priority": "5"}, "/priority"),
        ({"budget": {"max_calls": 5}}, "/budget/max_calls"),
        ({"budget": {"max_cost_usd": 0}}, "/budget/max_cost_usd"),
        ({"params": {"temperature": 3}}, "/params/temperature"),
        ({"variables": {"name": float("inf")}}, "/variables/name"),
        ({"prompt_name": 5}, "/prompt_name"),
        ({"itmes": []}, "/itmes"),
    ],
)
def test_a_batch_that_is_none_is_refused_by_name_and_leaves_no_row(
    api: Api, change: dict[str, Any], pointer: str
) -> None:
    make_prompt(api)
    before = everything()

    answer = api.post(PATH, {**batch_body(["Ada"]), **change})

    assert (answer.status_code, pointers(answer)) == (422, [pointer])
    assert everything() == before


@pytest.mark.parametrize(
    ("body", "pointer"),
    [("{}", "/items"), ("5", ""), ("[]", ""), ("", "/items"), ('{"items": [], "items": [{}]}', "/items")],
)
def test_a_body_without_items_is_refused(api: Api, body: str, pointer: str) -> None:
    answer = api.request("POST", PATH, data=body, content_type="application/json")

    assert (answer.status_code, pointers(answer)) == (422, [pointer])


def test_an_array_of_items_is_a_batch_too(api: Api) -> None:
    make_prompt(api)

    answer = api.expect(202, "POST", PATH, [run_body(), run_body(variables={})])

    assert errors_of(answer) == {1: ["/1/variables/name"]}


@pytest.mark.parametrize("kind", ["application/x-ndjson", "application/jsonl", "application/x-jsonlines"])
def test_jsonl_is_one_item_per_line_and_names_the_line_that_is_broken(api: Api, kind: str) -> None:
    make_prompt(api)
    good = json.dumps(run_body())

    answer = post_jsonl(api, [good, "", '{"prompt_name": ', good, json.dumps(run_body(variables={}))], kind)

    assert answer.status_code == 202
    assert errors_of(answer.get_json()) == {1: ["/3"], 3: ["/5/variables/name"]}
    assert "not JSON" in answer.get_json()["results"][1]["error"]["detail"]
    assert count(Execution) == 2


def test_jsonl_without_a_line_is_refused(api: Api) -> None:
    answer = post_jsonl(api, ["", " "])

    assert (answer.status_code, pointers(answer)) == (422, [""])


def test_a_body_of_another_kind_is_a_415(api: Api) -> None:
    answer = post_jsonl(api, ["a,b"], "text/csv")

    assert (answer.status_code, pointers(answer)) == (415, ["Content-Type"])


def test_ten_thousand_items_are_taken_at_once(api: Api) -> None:
    make_prompt(api)

    answer = api.expect(202, "POST", PATH, batch_body([f"number {n}" for n in range(10_000)]))

    assert (answer["accepted"], len(answer["results"])) == (10_000, 10_000)
    assert [count(model) for model in (Execution, Call, Job)] == [10_000] * 3
    with db.reading() as session:
        last = session.scalar(sa.select(Execution.messages).where(Execution.batch_index == 9_999))
    assert last == [{"role": "user", "content": "Say hello to number 9999."}]


def test_a_batch_may_be_larger_than_other_bodies_but_not_endless(api: Api) -> None:
    make_prompt(api, template="Hello {{ name|truncate(20) }}")
    long = "x" * 900_000

    taken = api.post(PATH, batch_body([long] * 6))
    refused = api.post(PATH, batch_body([long] * 36))

    assert taken.status_code == 202
    assert (refused.status_code, pointers(refused)) == (413, [""])
    assert count(Execution) == 6


def test_prompts_that_are_too_large_together_are_refused(api: Api) -> None:
    make_prompt(api, template="x" * 190_000 + "{{ name }}")
    before = everything()

    answer = api.post(PATH, batch_body(["Ada"] * 700))

    assert (answer.status_code, pointers(answer)) == (422, ["/items"])
    assert everything() == before


def test_a_template_that_is_too_slow_for_so_many_items_is_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    make_prompt(api)
    monkeypatch.setattr(batches, "MAX_PLAN_SECONDS", -1.0)

    answer = api.post(PATH, batch_body(["Ada", "Bob"]))

    assert (answer.status_code, pointers(answer)) == (422, ["/items"])
    assert count(Batch) == 0


def test_the_priority_is_that_of_every_job_and_decides_what_is_claimed_first(api: Api, drain: Drain) -> None:
    make_prompt(api)
    usual = api.expect(202, "POST", "/v1/executions:submit", run_body())
    late = api.expect(202, "POST", PATH, batch_body(["Ada"], priority=9))
    soon = api.expect(202, "POST", PATH, batch_body(["Bob"], priority=0))
    first = api.expect(202, "POST", "/v1/executions:submit", run_body(priority=0))

    order = [str(lease.subject_id) for lease in drain.claim()]

    expected = [soon["results"][0], first, usual, late["results"][0]]
    assert order == [one["execution_id"] for one in expected]


def test_a_run_that_waits_for_its_answer_has_no_priority(api: Api) -> None:
    make_prompt(api)

    answer = api.post("/v1/executions:run", run_body(priority=0))

    assert (answer.status_code, pointers(answer)) == (422, ["/priority"])


def test_a_budget_holds_for_the_batch_as_a_whole(api: Api, drain: Drain) -> None:
    make_prompt(api)
    batch = api.expect(202, "POST", PATH, batch_body("abcde", budget={"max_task_calls": 2}))

    drain()

    read = api.expect(200, "GET", f"/v1/batches/{batch['batch_id']}")
    assert (read["counts"]["succeeded"], read["counts"]["failed"]) == (2, 3)
    assert {row.error_type for row in members() if row.state == "failed"} == {"budget_exceeded"}
    assert all(row.params["max_new_tokens"] == 1_024 for row in members())  # else a call would have no bound


def test_a_budget_in_usd_needs_a_price_for_every_model(api: Api) -> None:
    make_prompt(api)
    before = everything()
    unknown = {"variables": {"name": "Bob"}, "model": {"provider": "openai", "model_name": "unheard-of"}}
    body = batch_body(["Ada"], budget={"max_cost_usd": 1.0})

    answer = api.post(PATH, {**body, "items": [*body["items"], unknown]})

    assert (answer.status_code, pointers(answer)) == (422, ["/budget/max_cost_usd"])
    assert everything() == before


def test_a_repeated_request_is_the_same_batch_as_it_stands(api: Api, drain: Drain) -> None:
    make_prompt(api)
    body = batch_body([], items=[{"variables": {"name": "Ada"}}, {"variables": {}}])
    first = api.post(PATH, body, headers=KEY)
    drain()

    second = api.post(PATH, body, headers=KEY)

    assert (first.status_code, second.status_code) == (202, 202)
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert second.headers["Location"] == first.headers["Location"]
    was, now = first.get_json(), second.get_json()
    assert (was["status"], now["status"]) == ("queued", "succeeded")
    assert now["results"] == [{**was["results"][0], "status": "succeeded"}, was["results"][1]]
    assert (count(Batch), count(Job)) == (1, 1)


def test_the_same_key_with_another_batch_is_refused(api: Api) -> None:
    make_prompt(api)
    api.post(PATH, batch_body(["Ada"]), headers=KEY)

    answer = api.post(PATH, batch_body(["Bob"]), headers=KEY)

    assert (answer.status_code, answer.get_json()["code"]) == (422, "idempotency_mismatch")
    assert count(Batch) == 1


def test_a_batch_writes_an_event_of_its_own_and_one_for_each_execution(api: Api) -> None:
    make_prompt(api)

    batch = api.expect(202, "POST", PATH, batch_body([], items=[{"variables": {"name": "Ada"}}, {"variables": {}}]))

    assert event_data("batch.created") == [{"total": 2, "rejected": 1}]
    with db.reading() as session:
        queued = session.execute(sa.select(Event.subject_id, Event.actor).where(Event.type == "execution.queued")).all()
    assert [(str(row.subject_id), row.actor) for row in queued] == [(batch["results"][0]["execution_id"], "admin")]


def test_a_prompt_over_a_dataset_is_one_execution_per_test_case(api: Api, drain: Drain) -> None:
    make_triage(api, cases=12)

    batch = api.expect(202, "POST", PATH, {"prompt_name": "triage", "dataset": "tickets", "environment": "prod"})

    with db.reading() as session:
        cases = session.scalars(sa.select(TestCase).order_by(TestCase.ordinal)).all()
    read = api.expect(200, "GET", f"/v1/batches/{batch['batch_id']}")
    assert [(row.variables, row.correlation_id, row.environment) for row in members()] == [
        (case.inputs, str(case.id), "prod") for case in cases
    ]
    assert (read["dataset_id"], read["dataset_revision"]) == (str(cases[0].dataset_id), 1)
    assert drain() == 12


def test_a_case_that_does_not_fit_the_prompt_is_named_by_its_number(api: Api) -> None:
    make_triage(api, cases=12)
    odd = [{"inputs": {"subject": "no ticket"}}]
    api.expect(201, "POST", "/v1/datasets/tickets/cases", odd)

    batch = api.expect(202, "POST", PATH, {"prompt_name": "triage", "dataset": "tickets"})

    assert (batch["accepted"], errors_of(batch)) == (12, {12: ["/dataset"]})
    assert "case 13" in batch["results"][12]["error"]["detail"]


@pytest.mark.parametrize(
    ("change", "status", "pointer"),
    [
        ({"dataset": "nowhere"}, 404, "/dataset"),
        ({"prompt_name": "nobody"}, 404, "/prompt_name"),
        ({"project": "nowhere"}, 404, "/project"),
        ({"label": "nowhere"}, 404, "/label"),
        ({"dataset": "empty"}, 422, "/dataset"),
        ({"dataset": "huge"}, 422, "/dataset"),
        ({"prompt_name": None}, 422, "/prompt_name"),
        ({"variables": {"ticket": "a"}}, 422, "/variables"),
        ({"correlation_id": "a"}, 422, "/correlation_id"),
        ({"params": {"top_k": 5}}, 422, "/params/top_k"),
    ],
)
def test_a_dataset_that_cannot_be_run_is_refused_by_name_and_leaves_no_row(
    api: Api, change: dict[str, Any], status: int, pointer: str
) -> None:
    make_triage(api, cases=12)
    for name in ("empty", "huge"):
        api.expect(201, "POST", "/v1/datasets", {"name": name})
    with db.transaction() as session:
        session.execute(sa.update(Dataset).where(Dataset.name == "huge").values(case_count=10_001))
    before = everything()

    answer = api.post(PATH, {"prompt_name": "triage", "dataset": "tickets", **change})

    assert (answer.status_code, pointers(answer)) == (status, [pointer])
    assert everything() == before


def test_a_dataset_without_a_prompt_is_refused(api: Api) -> None:
    make_triage(api, cases=12)

    answer = api.post(PATH, {"dataset": "tickets"})

    assert (answer.status_code, pointers(answer)) == (422, ["/prompt_name"])


def test_a_prompt_of_another_workspace_does_not_exist_for_an_item(api: Api, as_user: Callable[..., Api]) -> None:
    make_prompt(api, "secret")
    stranger = as_user(workspace="elsewhere")
    make_prompt(stranger)

    answer = stranger.expect(202, "POST", PATH, {"items": [run_body(), run_body("secret")]})

    assert errors_of(answer) == {1: ["/items/1/prompt_name"]}
