"""GET /v1/bulk/operations and what is below it: who sees which, how far it is, and a result for each item."""

from collections.abc import Callable

import pytest

from shared import db
from shared.domain import bulk
from shared.models import Role
from tests.bulk import OPERATIONS, creates, read, results, submit
from tests.support import Api, Drain, make_prompt, pointers


def test_progress_and_eta_are_there_between_two_pages(api: Api, drain: Drain) -> None:
    operation = submit(api, "create", creates(3 * bulk.PAGE))
    before = read(api, operation)
    lease = drain.claim()[0]
    db.offset_clock(10)
    drain.run(lease)

    during = read(api, operation)

    assert (before["status"], before["started_at"], before["eta_at"]) == ("queued", None, None)
    assert (during["status"], during["completed_at"]) == ("running", None)
    assert (during["progress"]["done"], during["progress"]["total"]) == (bulk.PAGE, 3 * bulk.PAGE)
    assert during["started_at"] < during["eta_at"]
    found = results(api, operation, f"limit={bulk.PAGE}")
    assert {row["status"] for row in found} == {"succeeded"}
    queued = results(api, operation, "status=queued&limit=1")
    assert [(row["index"], row["status"]) for row in queued] == [(bulk.PAGE, "queued")]


def test_results_are_paged_in_the_order_of_the_items(api: Api, drain: Drain) -> None:
    operation = submit(api, "create", creates(7))
    drain()

    seen: list[int] = []
    cursor = ""
    while cursor is not None:
        page = api.expect(200, "GET", f"{OPERATIONS}/{operation}/results?limit=3{cursor}")
        seen += [row["index"] for row in page["data"]]
        cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"

    assert seen == list(range(7))


def test_operations_are_listed_newest_first_and_filtered(api: Api, drain: Drain) -> None:
    make_prompt(api, "a")
    failed = submit(api, "tag", [{"name": "nobody"}], add=["x"])
    tagged = submit(api, "tag", [{"name": "a"}], add=["x"])
    drain()
    waits = submit(api, "create", creates(1))

    def ids(query: str = "") -> list[str]:
        return [row["operation_id"] for row in api.expect(200, "GET", f"{OPERATIONS}{query}")["data"]]

    assert ids() == [waits, tagged, failed]
    assert ids("?operation=tag") == [tagged, failed]
    assert ids("?status=failed") == [failed]
    assert ids("?status=queued&operation=create") == [waits]
    assert ids("?status=queued&operation=tag") == []


@pytest.mark.parametrize("query", ["status=done", "operation=explode", "limit=0", "cursor=nope", "project=default"])
def test_a_filter_that_makes_no_sense_is_named(api: Api, query: str) -> None:
    answer = api.get(f"{OPERATIONS}?{query}")

    assert (answer.status_code, pointers(answer)) == (422, [f"?{query.partition('=')[0]}"])


def test_a_status_that_no_item_has_is_named(api: Api, drain: Drain) -> None:
    operation = submit(api, "create", creates(1))

    answer = api.get(f"{OPERATIONS}/{operation}/results?status=running")

    assert (answer.status_code, pointers(answer)) == (422, ["?status"])


@pytest.mark.parametrize("part", ["", "/results"])
def test_an_operation_that_is_not_there_is_a_404(api: Api, part: str) -> None:
    assert api.get(f"{OPERATIONS}/00000000-0000-0000-0000-000000000000{part}").status_code == 404


def test_another_workspace_sees_nothing_of_it(api: Api, as_user: Callable[..., Api], drain: Drain) -> None:
    operation = submit(api, "create", creates(1))
    drain()
    stranger = as_user(workspace="elsewhere", role=Role.ADMIN)

    assert stranger.expect(200, "GET", OPERATIONS)["data"] == []
    for method, part in (("GET", ""), ("GET", "/results"), ("POST", "/cancel"), ("POST", "/retry")):
        assert stranger.request(method, f"{OPERATIONS}/{operation}{part}").status_code == 404, part


def test_a_key_limited_to_a_project_sees_what_is_all_in_it_and_its_own(api: Api, as_user: Callable[..., Api]) -> None:
    for project in ("atlas", "vault"):
        api.expect(201, "POST", "/v1/projects", {"name": project})
    ids = {project: make_prompt(api, "a", project=project)["prompt"]["prompt_id"] for project in ("atlas", "vault")}
    inside = submit(api, "create", [{**creates(1)[0], "project": "atlas"}])
    elsewhere = submit(api, "create", [{**creates(1)[0], "project": "vault"}])
    across = submit(api, "tag", [{"prompt_id": prompt_id} for prompt_id in ids.values()], add=["x"])
    limited = as_user(projects=["atlas"])
    own = submit(limited, "tag", [{"prompt_id": prompt_id} for prompt_id in ids.values()], add=["y"])

    seen = [row["operation_id"] for row in limited.expect(200, "GET", OPERATIONS)["data"]]

    assert seen == [own, inside]
    for hidden in (elsewhere, across):
        assert limited.get(f"{OPERATIONS}/{hidden}/results").status_code == 404
    assert len(api.expect(200, "GET", OPERATIONS)["data"]) == 4


def test_its_jobs_lead_to_it_and_stand_among_the_others(api: Api, drain: Drain) -> None:
    operation = submit(api, "create", creates(1))

    (job,) = api.expect(200, "GET", "/v1/jobs?kind=bulk")["data"]

    assert (job["queue"], job["state"], job["step_no"]) == ("maintenance", "queued", 1)
    assert job["subject_url"] == f"{OPERATIONS}/{operation}"
    assert api.get(job["subject_url"]).status_code == 200
    assert api.expect(200, "GET", "/v1/status")["queue_depth_by_kind"]["bulk"] == 1
