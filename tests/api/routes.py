"""Every route of the API, with an address and a body that work: for tests that must hold for each of them.

A new route is found by itself. What cannot be made up here (the body of a write) fails the tests until it is added.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from flask import Flask

from tests.support import MODEL, Api, Drain, evaluation_body, make_prompt, make_triage, optimization_body, run_body

# A parameter of a route, and the field of a list's item that holds it, where the names differ.
FIELDS = {"project": "name", "version": "version_number", "candidate": "hash"}
# A route that takes only some of the prompts, by a part of its rule.
WHICH_PROMPT = {"/execute": "?mode=tracking", "/<label>": "?name_prefix=triage"}
# Where what stands in an address is listed, when not by the address before it.
LISTS = {"/v1/analytics/prompts": "/v1/prompts"}
# What a route must be asked, lest it be empty or a 422; {before} is what stands before its last part.
QUERIES = {
    "/v1/events": "?after=begin",
    "/v1/evaluations/<uuid:evaluation_id>/compare": "?with={before}",
    "/v1/evaluations/<uuid:evaluation_id>/gate": "?min_score=0",
}
# What stands in an address of an older prefix, whose lists and fields are not ours: where to take it from.
OLDER = {
    "project_id": ("/v1/projects", "project_id"),
    "prompt_id": ("/v1/prompts/triage/versions", "version_id"),  # to their clients a prompt is one version
    "version": ("/v1/prompts/triage/versions", "version_number"),
    "test_case_id": ("/v1/datasets/tickets/cases", "test_case_id"),
    "evaluation_id": ("/v1/evaluations", "evaluation_id"),
    "optimization_id": ("/v1/optimizations", "optimization_id"),
}
STORE = "/api/v1"
# The same below this prefix, where a prompt is one.
IN_THE_STORE = {
    "prompt_id": ("/v1/prompts?name_prefix=triage", "prompt_id"),
    "category": ("/v1/prompts?name_prefix=triage", "category"),
    "name": ("/v1/prompts?name_prefix=triage", "name"),
    "status": ("/v1/prompts?name_prefix=triage", "lifecycle"),
    "tag": ("/v1/prompts?name_prefix=triage", "owner_team"),
    "version": ("/v1/prompts/triage/versions", "version_number"),
    "operation_id": ("/v1/bulk/operations", "operation_id"),
    "relationship_id": ("/v1/prompts/base/relationships", "relationship_id"),
}
STUDIO = "/api/v1/prompt-studio"
THE_PROMPT = "<the id of triage 1>"  # filled in by `writes`
THE_VAULT = "<the id of the project vault>"
THE_CASES = "<the ids of the first of tickets, in a list>"
THE_PROJECT = "<the id of the project default>"
TRIAGE, ROOT = "<the id of triage>", "<the id of root>"
# They say why they do nothing: 409 to whoever may write and see what they name.
REFUSED = [
    ("DELETE", f"{STUDIO}/evaluations/<uuid:evaluation_id>"),
    ("POST", f"{STUDIO}/optimizations/iterations/<uuid:optimization_id>"),
]
# They read a form, which no body here is: 422 to whoever may write.
FORMS = [("POST", f"{STUDIO}/test-cases/import/csv-upload")]
# They act on what all workspaces share, so no role of a workspace is enough.
OF_THE_FLEET = [
    ("PATCH", "/v1/queues/<name>"),
    ("POST", "/v1/queues/<name>/drain"),
    ("POST", "/v1/queues/<name>/pause"),
    ("POST", "/v1/queues/<name>/resume"),
]
# They only read: what they are asked for is too large for a query.
READ_BY_POST = [
    ("POST", "/v1/prompts/<name>/render"),
    ("POST", "/v1/prompts:search"),
    ("POST", "/v1/render"),
    ("POST", "/v1/suggestions"),
    ("POST", f"{STUDIO}/prompts/preview"),
    ("POST", f"{STUDIO}/prompts/convert"),
    ("POST", f"{STORE}/prompts/search"),
    ("POST", f"{STORE}/prompts/<prompt_id>/lifecycle/validate"),
    ("POST", f"{STUDIO}/test-cases/export/<uuid:project_id>"),
]
# They decide what editors may do.
ABOVE_EDITORS = [
    ("DELETE", "/v1/prompts/<name>/labels/<label>/protection"),
    ("PUT", "/v1/prompts/<name>/labels/<label>/protection"),
]
WRITES: dict[tuple[str, str], Any] = {
    ("POST", "/v1/cache/invalidate"): {},
    ("POST", "/v1/cache/warmup"): {},
    ("POST", "/v1/projects"): {"name": "another"},
    ("PATCH", "/v1/projects/<project>"): {"description": "changed"},
    ("DELETE", "/v1/projects/<project>"): None,
    ("POST", "/v1/projects/<project>/archive"): None,
    ("POST", "/v1/projects/<project>/unarchive"): None,
    ("POST", "/v1/projects/<project>/restore"): {},
    ("POST", "/v1/prompts"): {"name": "another", "template_source": "Hello", "set_active": True},
    ("PUT", "/v1/prompts/<name>"): {"template_source": "Hello", "model": MODEL, "set_active": True},
    ("PUT", "/v1/prompts/<name>/labels/<label>"): {"version_number": 1},
    ("POST", "/v1/prompts/<name>/rollback"): {"to": 1},
    ("POST", "/v1/prompts/<name>/fork"): {"name": "forked"},
    ("POST", "/v1/prompts/<name>/render"): {"label": "latest", "variables": {"ticket": "another"}},
    ("POST", "/v1/render"): {"template_source": "Hello"},
    ("POST", "/v1/prompts:search"): {"q": "ticket"},
    ("PATCH", "/v1/prompts/<name>"): {"description": "another"},
    ("DELETE", "/v1/prompts/<name>"): None,
    ("POST", "/v1/prompts/<uuid:prompt_id>/restore"): {},
    ("POST", "/v1/prompts/<name>/mode"): {"mode": "full"},
    ("POST", "/v1/prompts/<name>/execute"): {"variables": {"name": "Ada"}, "mode": "async"},
    ("POST", "/v1/prompts/register-code"): {"prompts": [{"name": "in-code", "template_source": "Hello"}]},
    ("DELETE", "/v1/prompts/<name>/labels/<label>"): None,
    ("POST", "/v1/prompts/<name>/labels/<label>/undo"): {},
    ("PUT", "/v1/prompts/<name>/labels/<label>/protection"): {"role": "operator"},
    ("DELETE", "/v1/prompts/<name>/labels/<label>/protection"): None,
    ("POST", "/v1/label-requests/<uuid:request_id>/approve"): {},
    ("POST", "/v1/label-requests/<uuid:request_id>/reject"): {},
    ("POST", "/v1/lifecycle:batch"): {"names": ["triage"], "state": "published"},
    ("PUT", "/v1/prompts/<name>/lifecycle"): {"state": "archived"},
    ("POST", "/v1/bulk/prompts"): {"operation": "create", "items": [{"name": "bulky", "template_source": "Hello"}]},
    ("POST", "/v1/bulk/operations/<uuid:operation_id>/cancel"): None,
    ("POST", "/v1/bulk/operations/<uuid:operation_id>/retry"): None,
    ("POST", "/v1/prompts/<name>/relationships"): {"target": "root", "type": "references"},
    ("PATCH", "/v1/prompts/<name>/relationships/<uuid:relationship_id>"): {"strength": 0.25},
    ("DELETE", "/v1/prompts/<name>/relationships/<uuid:relationship_id>"): None,
    ("POST", "/v1/datasets"): {"name": "another"},
    ("PATCH", "/v1/datasets/<name>"): {"description": "another"},
    ("DELETE", "/v1/datasets/<name>"): None,
    ("POST", "/v1/datasets/<uuid:dataset_id>/restore"): {},
    ("POST", "/v1/datasets/<name>/cases"): [{"inputs": {"ticket": "another"}}],
    ("PATCH", "/v1/datasets/<name>/cases/<uuid:test_case_id>"): {"name": "another"},
    ("DELETE", "/v1/datasets/<name>/cases/<uuid:test_case_id>"): None,
    ("POST", "/v1/datasets/<name>/cases/<uuid:test_case_id>/restore"): None,
    ("POST", "/v1/datasets/<name>/cases:generate"): {"prompt_name": "triage", "count": 2},
    ("POST", "/v1/generations/<uuid:generation_id>/cancel"): None,
    ("POST", "/v1/datasets/<name>/cases:from-executions"): {"filter": {"prompt_name": "triage"}, "expected": "none"},
    ("POST", "/v1/executions:run"): run_body("triage", variables={"ticket": "another"}),
    ("POST", "/v1/executions:submit"): run_body("triage", variables={"ticket": "another"}),
    ("POST", "/v1/executions/run"): run_body("triage", variables={"ticket": "another"}),
    ("POST", "/v1/executions/submit"): run_body("triage", variables={"ticket": "another"}),
    ("POST", "/v1/executions:batch"): {"prompt_name": "triage", "dataset": "tickets"},
    ("POST", "/v1/batches/<uuid:batch_id>/cancel"): None,
    ("POST", "/v1/executions/<uuid:execution_id>/cancel"): None,
    ("POST", "/v1/executions/<uuid:execution_id>/feedback"): {"score": 0.5},
    ("DELETE", "/v1/executions/<uuid:execution_id>/feedback"): None,
    ("POST", "/v1/suggestions"): {"template_source": "Hello"},
    ("POST", "/v1/evaluations"): evaluation_body(),
    ("POST", "/v1/evaluations/<uuid:evaluation_id>/cancel"): None,
    ("POST", "/v1/evaluations/<uuid:evaluation_id>/retry"): {},
    ("POST", "/v1/optimizations"): optimization_body(),
    ("POST", "/v1/optimizations/<uuid:optimization_id>/cancel"): None,
    ("POST", "/v1/optimizations/<uuid:optimization_id>/pause"): None,
    ("POST", "/v1/optimizations/<uuid:optimization_id>/resume"): None,
    ("POST", "/v1/optimizations/<uuid:optimization_id>/budget"): {"max_cost_usd": 2.0},
    ("POST", "/v1/optimizations/<uuid:optimization_id>/continue"): {"budget": {"max_task_calls": 1_000}},
    ("POST", "/v1/optimizations/<uuid:optimization_id>/clone"): {"seed": 1},
    ("POST", "/v1/optimizations/<uuid:optimization_id>/replay"): None,
    ("POST", "/v1/optimizations/<uuid:optimization_id>/promote"): {"override": True, "reason": "it reads better"},
    ("POST", "/v1/optimizations:compare"): {
        **evaluation_body(),
        "strategies": [{"strategy": "random", "knobs": {"proposals": 2}}, {"strategy": "beam_search"}],
        "seeds": [1, 2, 3],
        "budget": {"max_task_calls": 1_000},
    },
    ("POST", "/v1/optimization-comparisons/<uuid:comparison_id>/cancel"): None,
    ("POST", "/v1/jobs/<int:job_id>/requeue"): None,
    ("POST", "/v1/jobs/requeue"): {"queue": "executions"},
    ("PATCH", "/v1/queues/<name>"): {"max_running": 1},
    ("POST", "/v1/queues/<name>/drain"): None,
    ("POST", "/v1/queues/<name>/pause"): None,
    ("POST", "/v1/queues/<name>/resume"): None,
    ("POST", f"{STORE}/prompts"): {"name": "in-store", "category": "c", "content": "Hello"},
    ("PUT", f"{STORE}/prompts/<prompt_id>"): {"description": "changed in the store"},
    ("DELETE", f"{STORE}/prompts/<prompt_id>"): None,
    ("POST", f"{STORE}/prompts/search"): {"query": "ticket"},
    ("PUT", f"{STORE}/prompts/<prompt_id>/content"): {"content": "Hello {{ ticket }}, in the store"},
    ("POST", f"{STORE}/prompts/<prompt_id>/versions/<version>/rollback"): {"reason": "it was better"},
    ("POST", f"{STORE}/prompts/<prompt_id>/fork"): {"new_name": "forked-in-store"},
    ("POST", f"{STORE}/prompts/<prompt_id>/relationships"): {
        "target_prompt_id": ROOT,
        "relationship_type": "complements",
    },
    ("PUT", f"{STORE}/relationships/<relationship_id>/strength"): {"strength": 0.75},
    ("DELETE", f"{STORE}/relationships/<relationship_id>"): None,
    ("POST", f"{STORE}/relationships/validate"): {
        "source_prompt_id": TRIAGE,
        "target_prompt_id": ROOT,
        "relationship_type": "similar",
    },
    ("PUT", f"{STORE}/prompts/<prompt_id>/lifecycle"): {"status": "published"},
    ("POST", f"{STORE}/prompts/<prompt_id>/lifecycle/validate"): {"new_status": "archived"},
    ("POST", f"{STORE}/lifecycle/bulk"): {"prompt_ids": [TRIAGE], "status": "published"},
    ("POST", f"{STORE}/bulk/prompts"): {"prompts": [{"name": "bulky-in-store", "category": "c", "content": "Hello"}]},
    ("PUT", f"{STORE}/bulk/prompts"): {"updates": [{"prompt_id": TRIAGE, "description": "changed in bulk"}]},
    ("DELETE", f"{STORE}/bulk/prompts"): {"prompt_ids": [ROOT]},
    ("PUT", f"{STORE}/bulk/prompts/tags"): {"prompt_ids": [TRIAGE], "tags_to_add": ["x"]},
    ("PUT", f"{STORE}/bulk/operations/<operation_id>/cancel"): None,
    ("POST", f"{STORE}/bulk/operations/<operation_id>/retry"): None,
    ("POST", f"{STUDIO}/projects/"): {"name": "their project"},
    ("POST", f"{STUDIO}/projects"): {"name": "their bare project"},
    ("PUT", f"{STUDIO}/projects/update/<uuid:project_id>"): {"description": "changed again"},
    ("POST", f"{STUDIO}/projects/archive/<uuid:project_id>"): None,
    ("POST", f"{STUDIO}/projects/unarchive/<uuid:project_id>"): None,
    ("DELETE", f"{STUDIO}/projects/delete/<uuid:project_id>"): None,
    ("POST", f"{STUDIO}/prompts/create"): {"project_id": THE_PROJECT, "name": "their prompt", "user_prompt": "Hi"},
    ("POST", f"{STUDIO}/prompts"): {"project_id": THE_PROJECT, "name": "their other", "user_prompt": "Hi"},
    ("PUT", f"{STUDIO}/prompts/update/<uuid:prompt_id>"): {"user_prompt": "Hi {ticket}", "change_description": "new"},
    ("POST", f"{STUDIO}/prompts/revert/<uuid:prompt_id>/<int:version>"): None,
    ("POST", f"{STUDIO}/prompts/execute"): {"prompt_id": THE_PROMPT, "inputs": {"ticket": "another"}},
    ("POST", f"{STUDIO}/prompts/preview"): {"user_prompt": "Hi {name}", "variables": {"name": "Ada"}},
    ("POST", f"{STUDIO}/prompts/convert"): {"user_prompt": "Hi $name"},
    ("POST", f"{STUDIO}/test-cases/create"): {"project_id": THE_VAULT, "inputs": {"ticket": "theirs"}},
    ("POST", f"{STUDIO}/test-cases/bulk"): {"project_id": THE_VAULT, "test_cases": [{"inputs": {"ticket": "two"}}]},
    ("PUT", f"{STUDIO}/test-cases/update/<uuid:test_case_id>"): {"name": "changed again"},
    ("DELETE", f"{STUDIO}/test-cases/delete/<uuid:test_case_id>"): None,
    ("POST", f"{STUDIO}/test-cases/import"): {
        "project_id": THE_VAULT,
        "format": "csv",
        "data": "input.a,input.b\n1,2\n",
    },
    ("POST", f"{STUDIO}/test-cases/import/csv-upload"): None,
    ("POST", f"{STUDIO}/test-cases/export/<uuid:project_id>"): {"format": "csv"},
    ("POST", f"{STUDIO}/test-cases/run"): {"prompt_id": THE_PROMPT, "test_case_ids": THE_CASES},
    ("POST", f"{STUDIO}/test-cases/generate"): {"project_id": THE_PROJECT, "prompt_id": THE_PROMPT, "num_cases": 1},
    ("POST", f"{STUDIO}/evaluations"): {"project_id": THE_PROJECT, "prompt_id": THE_PROMPT},
    ("DELETE", f"{STUDIO}/evaluations/<uuid:evaluation_id>"): None,
    ("POST", f"{STUDIO}/optimizations/create"): {
        "project_id": THE_PROJECT,
        "initial_prompt_id": THE_PROMPT,
        "optimization_config": {"optimizer_type": "random", "max_iterations": 2},
    },
    ("POST", f"{STUDIO}/optimizations"): {"prompt_id": THE_PROMPT, "strategy": "random"},
    ("POST", f"{STUDIO}/optimizations/cancel/<uuid:optimization_id>"): {"reason": "no longer needed"},
    ("POST", f"{STUDIO}/optimizations/iterations/<uuid:optimization_id>"): {"iteration_number": 1},
    ("POST", f"{STUDIO}/optimizations/compare"): {"prompt_id": THE_PROMPT, "strategies": ["random"]},
    ("POST", f"{STUDIO}/optimizations/compare-strategies"): {"prompt_id": THE_PROMPT, "strategies": ["random"]},
}


def seed(owner: Api, drain: Drain) -> None:
    """Something of every kind: what has ended, a batch and an execution that wait. The newest project is `vault`."""
    for project in ("atlas", "vault"):
        owner.expect(201, "POST", "/v1/projects", {"name": project})
    in_code = {"name": "in-code", "template_source": "Hello {{ name }}", "model": MODEL}
    owner.expect(200, "POST", "/v1/prompts/register-code", {"prompts": [in_code]})
    for name in ("root", "base"):
        make_prompt(owner, name)
    owner.expect(201, "POST", "/v1/datasets", {"name": "written"})
    make_triage(owner, cases=12)
    owner.expect(200, "PATCH", "/v1/prompts/triage", {"category": "support", "owner_team": "care", "tags": ["care"]})
    owner.expect(200, "PUT", "/v1/prompts/triage/labels/staging/protection", {"approvals": 1})
    owner.expect(202, "PUT", "/v1/prompts/triage/labels/staging", {"version_number": 1})
    for name, target in (("base", "root"), ("triage", "base")):
        for kind in ("extends", "depends_on"):
            owner.expect(201, "POST", f"/v1/prompts/{name}/relationships", {"target": target, "type": kind})
    owner.expect(202, "POST", "/v1/evaluations", evaluation_body())
    owner.expect(202, "POST", "/v1/datasets/written/cases:generate", {"prompt_name": "triage", "count": 1})
    compared = owner.expect(
        202,
        "POST",
        "/v1/optimizations:compare",
        {
            **evaluation_body(),
            "strategies": [{"strategy": "random", "knobs": {"proposals": 2}}] * 2,
            "seeds": [1, 2, 3],
            "budget": {"max_task_calls": 100},
        },
    )
    owner.expect(200, "POST", f"/v1/optimization-comparisons/{compared['comparison_id']}/cancel")
    search = owner.expect(
        202,
        "POST",
        "/v1/optimizations",
        {**evaluation_body(), "strategy": "random", "knobs": {"proposals": 2}, "budget": {"max_task_calls": 100}},
    )
    tags = {"operation": "tag", "add": ["seeded"], "items": [{"name": "triage"}, {"name": "nobody"}]}
    owner.expect(202, "POST", "/v1/bulk/prompts", tags)
    drain()
    owner.expect(202, "POST", f"/v1/optimizations/{search['optimization_id']}/replay")
    drain()
    owner.expect(200, "DELETE", "/v1/datasets/written")  # `tickets` is the only one of the project
    waiting = run_body("triage", variables={"ticket": "it broke"})
    owner.expect(202, "POST", "/v1/executions:batch", {"items": [waiting]})
    owner.expect(202, "POST", "/v1/executions:submit", waiting)


def routes(app: Flask) -> list[tuple[str, str]]:
    """(method, rule) of everything below /v1 and the older prefixes."""
    return sorted(
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule.startswith(("/v1/", "/api/v1/"))
    )


def reads(app: Flask) -> list[str]:
    return [rule for method, rule in routes(app) if method == "GET"]


def writes(app: Flask, owner: Api) -> list[tuple[str, str, Any]]:
    """(method, rule, body) of every route that may change something; what deletes comes last, from the leaves.

    The bodies name things of the owner's.
    """
    found = [route for route in routes(app) if route[0] != "GET"]
    unknown = [route for route in found if route not in WRITES]
    assert not unknown, f"give {unknown} a body that works in tests/api/routes.py"
    found.sort(key=lambda route: route[1].count("/") if route[0] == "DELETE" else 99, reverse=True)
    ids = {
        THE_PROMPT: owner.expect(200, "GET", "/v1/prompts/triage/versions/1")["version_id"],
        THE_CASES: [owner.expect(200, "GET", "/v1/datasets/tickets/cases?limit=1")["data"][0]["test_case_id"]],
        THE_VAULT: owner.expect(200, "GET", "/v1/projects/vault")["project_id"],
        THE_PROJECT: owner.expect(200, "GET", "/v1/projects/default")["project_id"],
        TRIAGE: owner.expect(200, "GET", "/v1/prompts/triage")["prompt_id"],
        ROOT: owner.expect(200, "GET", "/v1/prompts/root")["prompt_id"],
    }
    return [(method, rule, _filled(WRITES[method, rule], ids)) for method, rule in found]


def _filled(body: Any, ids: Mapping[str, Any]) -> Any:
    if isinstance(body, dict):
        return {name: _filled(value, ids) for name, value in body.items()}
    if isinstance(body, list):
        return [_filled(value, ids) for value in body]
    return ids.get(body, body) if isinstance(body, str) else body


def addresses(owner: Api, rules: Iterable[str]) -> dict[str, str]:
    """Of each rule its address, while nothing changes: each list is read once."""
    lists: dict[str, Any] = {}
    return {rule: address(owner, rule, lists) for rule in rules}


def address(owner: Api, rule: str, lists: dict[str, Any] | None = None) -> str:
    """The rule with something of the owner's for each parameter: the first item of the list before it.

    `lists` keeps what has been read for the next address.
    """
    lists = {} if lists is None else lists
    path = ""
    for part in rule.split("/")[1:]:
        parameter = re.fullmatch(r"<(?:\w+:)?(\w+)>", part)
        path += "/" + (_first(owner, path + _which(path, rule), parameter[1], lists) if parameter else part)
    before = path.rpartition("/")[0].rpartition("/")[2]
    return path + QUERIES.get(rule, "").format(before=before)


def _which(path: str, rule: str) -> str:
    found = [query for part, query in WHICH_PROMPT.items() if part in rule]
    return found[0] if found and path == "/v1/prompts" else ""


def _first(owner: Api, path: str, parameter: str, lists: dict[str, Any]) -> str:
    if path.startswith("/api/"):
        path, parameter = (OLDER if path.startswith(STUDIO) else IN_THE_STORE)[parameter]
    path = LISTS.get(path, path)
    if path not in lists:
        lists[path] = owner.expect(200, "GET", path)["data"]
    items = lists[path]
    assert items, f"seed something that {path} lists"
    field = FIELDS.get(parameter, parameter)
    assert field in items[0], f"say in tests/api/routes.py which field of {path} is <{parameter}>"
    return str(items[0][field])
