"""Reading optimizations of Prompt Studio: what was really searched, measured and paid."""

from collections.abc import Callable
from typing import Any

import pytest

from shared import knobs
from shared.models import Role
from tests.compat.studio import NOBODY, Studio, triage
from tests.rows import everything
from tests.support import Api, Drain, pointers


@pytest.fixture
def done(studio: Studio, drain: Drain) -> Any:
    """A search that has ended, as its creation answered it."""
    project_id, prompt_id = triage(studio, cases=40)
    config = {"optimizer_type": "random", "max_iterations": 4}
    body = {"project_id": project_id, "initial_prompt_id": prompt_id, "optimization_config": config}
    made = studio.data(201, "POST", "/optimizations/create", body)["optimization"]
    drain()
    return made


def test_the_row_tells_what_was_measured(studio: Studio, done: Any) -> None:
    found = studio.data(200, "GET", f"/optimizations/get/{done['id']}")

    ours = studio.api.expect(200, "GET", f"/v1/optimizations/{done['id']}")
    result, holdout = ours["result"], ours["result"]["holdout"]
    assert (found["status"], found["optimized_prompt_id"]) == ("completed", ours["best_version_id"])
    assert found["initial_metrics"] == {"score": result["baseline_dev"], "holdout_score": holdout["baseline"]}
    assert (found["final_metrics"]["score"], found["final_metrics"]["verdict"]) == (
        result["best_dev"],
        result["verdict"],
    )
    assert found["improvement_percentage"] == pytest.approx(100 * holdout["difference"] / holdout["baseline"])
    assert (found["total_tokens"], found["total_cost"]) == (ours["spent"]["tokens"], ours["spent"]["cost_usd"])
    assert found["iterations_completed"] == ours["progress"]["round"]
    assert len(found["test_case_ids"]) == 40


def test_the_iterations_are_the_candidates_that_were_tried_each_once(studio: Studio, done: Any) -> None:
    path = f"/optimizations/iterations/{done['id']}"
    ours = studio.api.expect(200, "GET", f"/v1/optimizations/{done['id']}/candidates")["data"]

    page = studio.expect(200, "GET", f"{path}?per_page=2")
    rows = studio.data(200, "GET", f"{path}?per_page=200")

    assert page["metadata"]["total"] == len(ours) == len(rows)
    assert [row["iteration_number"] for row in rows] == list(range(1, len(ours) + 1))
    assert page["data"] == rows[:2]
    assert [row["prompt_variant"] for row in rows] == [candidate["components"] for candidate in ours]
    assert [row["metrics"]["score"] for row in rows] == [candidate["mean"] for candidate in ours]
    tried = [row for row in rows if row["metrics"]["cases"]]
    assert tried
    assert all(row["tokens_used"] > 0 for row in tried)
    spent = studio.api.expect(200, "GET", f"/v1/optimizations/{done['id']}")["spent"]
    assert 0 < sum(row["tokens_used"] for row in rows) <= spent["tokens"]


def test_iterations_cannot_be_told_from_outside(studio: Studio, done: Any) -> None:
    before = everything()

    answer = studio.expect(
        409,
        "POST",
        f"/optimizations/iterations/{done['id']}",
        {"iteration_number": 1, "prompt_variant": {"system": "x"}, "metrics": {"accuracy": 1.0}, "tokens_used": 5},
    )

    assert "measured" in answer["error"]
    assert everything() == before


def test_the_history_tells_the_progress_and_the_jobs(studio: Studio, done: Any) -> None:
    found = studio.data(200, "GET", f"/optimizations/history/{done['id']}")

    row = studio.data(200, "GET", f"/optimizations/get/{done['id']}")
    assert found["optimization"] == {name: value for name, value in row.items() if name != "test_case_ids"}
    assert found["job"] == studio.data(200, "GET", f"/optimizations/{done['id']}")
    assert found["progress"] == {
        "iterations_completed": row["iterations_completed"],
        "max_iterations": 4,
        "status": "completed",
    }
    assert [entry["step"] for entry in found["timeline"]] == list(range(1, len(found["timeline"]) + 1))
    assert {entry["status"] for entry in found["timeline"]} == {"completed"}
    assert all(entry["completed_at"] >= entry["created_at"] for entry in found["timeline"])


def test_the_job_view_has_the_words_of_a_queue(studio: Studio) -> None:
    project_id, prompt_id = triage(studio)
    made = studio.request("POST", "/optimizations", {"prompt_id": prompt_id, "strategy": "random"}).get_json()

    job = studio.data(200, "GET", f"/optimizations/{made['id']}")

    assert (job["id"], job["entity_id"], job["project_id"]) == (made["id"], made["id"], project_id)
    assert (job["job_type"], job["status"], job["result"]) == ("optimization", "queued", None)


def test_the_list_counts_pages_and_can_be_narrowed_by_status(studio: Studio, done: Any) -> None:
    body = {"prompt_id": done["initial_prompt_id"], "strategy": "random"}
    waiting = studio.request("POST", "/optimizations", body).get_json()["id"]
    path = f"/optimizations/list/{done['project_id']}"

    def ids(query: str = "") -> list[str]:
        return [row["id"] for row in studio.data(200, "GET", path + query)]

    assert ids() == [waiting, done["id"]]
    assert (ids("?status=completed"), ids("?status=pending"), ids("?status=failed")) == ([done["id"]], [waiting], [])
    page = studio.expect(200, "GET", f"{path}?per_page=1&page=2")
    assert page["metadata"] == {"page": 2, "per_page": 1, "total": 2, "total_pages": 2}
    assert [row["id"] for row in page["data"]] == [done["id"]]
    assert pointers(studio.request("GET", f"{path}?status=succeeded")) == ["?status"]


def test_the_strategies_are_reachable_and_all_of_them_search(studio: Studio) -> None:
    rows = studio.data(200, "GET", "/optimizations/strategies")

    assert [row["name"] for row in rows] == list(knobs.STRATEGIES)
    for row in rows:
        assert set(row) == {"name", "display_name", "description", "parameters"}
        assert list(row["parameters"]) == list(knobs.STRATEGIES[row["name"]])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/optimizations/get/"),
        ("GET", "/optimizations/"),
        ("GET", "/optimizations/history/"),
        ("GET", "/optimizations/iterations/"),
        ("GET", "/optimizations/list/"),
        ("POST", "/optimizations/cancel/"),
        ("POST", "/optimizations/iterations/"),
    ],
)
def test_a_stranger_finds_nothing_there(studio: Studio, as_user: Callable[..., Api], method: str, path: str) -> None:
    project_id, prompt_id = triage(studio)
    made = studio.request("POST", "/optimizations", {"prompt_id": prompt_id, "strategy": "random"}).get_json()["id"]
    stranger = Studio(as_user(workspace="elsewhere", role=Role.ADMIN))
    body = {"iteration_number": 1} if "iterations" in path else {}
    before = everything()

    for wanted in (project_id if "list" in path else made, NOBODY):
        answer = stranger.request(method, path + wanted, body if method == "POST" else None)
        assert (answer.status_code, answer.get_json()["error_code"]) == (404, "not_found")
    assert everything() == before
