"""`?project=` of every list: what is in that project, by name or id, and nothing else."""

import pytest

from tests.support import MODEL, Api, evaluation_body, optimization_body, run_body, tickets

RUNS = {
    "/v1/executions": ("/v1/executions:submit", run_body("triage", variables={"ticket": "a"}), "execution_id"),
    "/v1/batches": (
        "/v1/executions:batch",
        {"items": [{"variables": {"ticket": "a"}}], "prompt_name": "triage"},
        "batch_id",
    ),
    "/v1/evaluations": ("/v1/evaluations", evaluation_body(), "evaluation_id"),
    "/v1/optimizations": ("/v1/optimizations", optimization_body(), "optimization_id"),
}


@pytest.mark.parametrize("path", RUNS)
def test_a_list_of_runs_is_limited_to_the_project_that_is_named(api: Api, path: str) -> None:
    submit, body, identity = RUNS[path]
    atlas_id = api.expect(201, "POST", "/v1/projects", {"name": "atlas"})["project_id"]
    made = {}
    for project in ("default", "atlas"):
        scope = {"project": project}
        prompt = {"template_source": "{{ ticket }}", "model": MODEL, "set_active": True}
        api.expect(200, "PUT", "/v1/prompts/triage", {**prompt, **scope})
        api.expect(201, "POST", "/v1/datasets", {"name": "tickets", **scope})
        api.expect(201, "POST", f"/v1/datasets/tickets/cases?project={project}", tickets(12))
        made[project] = api.expect(202, "POST", submit, {**body, **scope})[identity]

    def listed(query: str = "") -> list[str]:
        return [item[identity] for item in api.expect(200, "GET", f"{path}{query}")["data"]]

    assert listed() == [made["atlas"], made["default"]]
    assert listed("?project=atlas") == listed(f"?project={atlas_id}") == [made["atlas"]]
    assert listed("?project=default") == [made["default"]]


def test_an_execution_says_what_it_ran(api: Api) -> None:
    atlas_id = api.expect(201, "POST", "/v1/projects", {"name": "atlas"})["project_id"]
    for source in ("one", "two"):
        api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": source, "project": "atlas"})
    run = api.expect(202, "POST", "/v1/executions:submit", run_body(project="atlas", version_number=2))

    read = api.expect(200, "GET", f"/v1/executions/{run['execution_id']}")

    assert (read["project_id"], read["prompt_name"], read["version_number"]) == (atlas_id, "greeter", 2)
