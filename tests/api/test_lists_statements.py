"""Lists of runs: as many statements for a page of many rows as for one of a single row."""

import re
from typing import Any

import pytest

from tests.compat.studio import PREFIX
from tests.domain.test_plans import caught
from tests.support import MODEL, Api, evaluation_body, make_triage, optimization_body

LISTS = {
    "/v1/evaluations?limit=": ("/v1/evaluations", evaluation_body()),
    "/v1/optimizations?limit=": ("/v1/optimizations", optimization_body()),
    "/v1/generations?limit=": (
        "/v1/datasets/tickets/cases:generate",
        {"prompt_name": "triage", "count": 1, "model": MODEL},
    ),
    "/v1/optimization-comparisons?limit=": (
        "/v1/optimizations:compare",
        {
            **{name: value for name, value in optimization_body().items() if name not in ("strategy", "knobs")},
            "strategies": [{"strategy": "noop"}, {"strategy": "random"}],
            "seeds": [1, 2, 3],
        },
    ),
    PREFIX + "/evaluations?limit=": ("/v1/evaluations", evaluation_body()),
    PREFIX + "/optimizations/list/PROJECT?per_page=": ("/v1/optimizations", optimization_body()),
}


def asked(api: Api, path: str) -> tuple[int, list[str]]:
    """How many rows there are on the page, and the statements that read runs and what they have cost."""
    with caught() as sent:
        answer: Any = api.expect(200, "GET", path)
    of_runs = [one.statement for one in sent if re.search("executions|barriers|versions|optimizations", one.statement)]
    return len(answer["data"]), of_runs


@pytest.mark.parametrize("path", LISTS)
def test_a_page_of_runs_takes_as_many_statements_as_one_run(api: Api, path: str) -> None:
    make_triage(api, cases=12)
    submit, body = LISTS[path]
    for _ in range(3):
        api.expect(202, "POST", submit, body)
    path = path.replace("PROJECT", api.expect(200, "GET", "/v1/projects/default")["project_id"])

    one, three = asked(api, f"{path}1"), asked(api, f"{path}3")

    assert (one[0], three[0]) == (1, 3)
    assert one[1]
    assert len(one[1]) == len(three[1])


def test_a_list_of_searches_does_not_read_what_they_remember(api: Api) -> None:
    make_triage(api, cases=12)
    api.expect(202, "POST", "/v1/optimizations", optimization_body())

    for path in ("/v1/optimizations", "/v1/optimization-comparisons"):
        assert not any("search_state" in statement for statement in asked(api, path)[1])
