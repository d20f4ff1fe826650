"""GET /v1/prompts/{name}/history: what a prompt said over time, and how often each version was run."""

from typing import Any

import pytest

from shared.hashing import sha256
from tests.api.test_modes_register import counted
from tests.support import MODEL, Api, Drain, evaluation_body, make_prompt, make_triage, pointers, run_body

SOURCES = ("one", "two", "three")


def make(api: Api, mode: str) -> str:
    """Three versions in this mode; the second is current."""
    for source in (*SOURCES, "two"):
        if mode == "full":
            make_prompt(api, "greeter", template=source, model=MODEL)
        else:
            prompt = {"name": "greeter", "template_source": source, "model": MODEL}
            api.expect(200, "POST", "/v1/prompts/register-code", {"prompts": [prompt]})
    return "/v1/prompts/greeter/history"


@pytest.mark.parametrize("mode", ["full", "tracking"])
def test_the_history_of_either_mode_has_every_version_with_its_runs(api: Api, mode: str) -> None:
    """In the origin `current_version` was the highest, and the mode was not looked at."""
    path = make(api, mode)
    for number in (1, 1, 3):
        api.expect(202, "POST", "/v1/executions:submit", run_body(variables={}, version_number=number))

    history = api.expect(200, "GET", f"{path}?mode={mode}")

    assert (history["prompt_name"], history["mode"], history["current_version"]) == ("greeter", mode, 2)
    assert [(item["version"], item["execution_count"]) for item in history["versions"]] == [(3, 1), (2, 0), (1, 2)]
    newest = history["versions"][0]
    assert (newest["template_source"], newest["template_hash"]) == ("three", sha256("three"))
    assert (newest["created_by"], newest["message"]) == ("admin", "")
    assert history["next_cursor"] is None


@pytest.mark.parametrize(("mode", "other"), [("full", "tracking"), ("tracking", "full")])
def test_the_history_of_the_other_mode_is_a_409_that_says_which_it_is(api: Api, mode: str, other: str) -> None:
    path = make(api, mode)

    answer = api.get(f"{path}?mode={other}")

    assert answer.status_code == 409
    assert f"greeter is in {mode} mode" in answer.get_json()["detail"]
    assert pointers(api.get(f"{path}?mode=code")) == ["?mode"]


def test_a_walk_meets_the_versions_from_the_newest_down_with_their_counts(api: Api) -> None:
    path = make(api, "tracking")
    api.expect(202, "POST", "/v1/executions:submit", run_body(variables={}, version_number=1))

    first = api.expect(200, "GET", f"{path}?limit=2")
    second = api.expect(200, "GET", f"{path}?limit=2&cursor={first['next_cursor']}")

    pages: list[Any] = [
        [(item["version"], item["execution_count"]) for item in page["versions"]] for page in (first, second)
    ]
    assert pages == [[(3, 0), (2, 0)], [(1, 1)]]
    assert second["next_cursor"] is None
    assert second["current_version"] == 2


def test_a_prompt_without_production_has_no_current_version(api: Api) -> None:
    api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": "one"})

    assert api.expect(200, "GET", "/v1/prompts/greeter/history")["current_version"] is None


def test_the_calls_of_an_evaluation_are_not_counted_as_runs(api: Api, drain: Drain) -> None:
    make_triage(api, cases=12)
    api.expect(202, "POST", "/v1/evaluations", evaluation_body())
    drain()
    api.expect(202, "POST", "/v1/executions:submit", run_body("triage", variables={"ticket": "it broke"}))

    (version,) = api.expect(200, "GET", "/v1/prompts/triage/history")["versions"]

    assert version["execution_count"] == 1


def test_the_counts_of_a_page_are_one_statement(api: Api) -> None:
    path = make(api, "full")

    with counted() as statements:
        api.expect(200, "GET", path)

    assert len([statement for statement in statements if "FROM executions" in statement]) == 1


def test_a_history_of_what_is_not_there_is_a_404(api: Api) -> None:
    assert api.get("/v1/prompts/nobody/history").status_code == 404
