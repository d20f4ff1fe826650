"""What may stand in a path: what neither database holds, and what names nothing, is a 404 on both."""

import re
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from tests.api.routes import WRITES, routes
from tests.support import Api, Drain, make_prompt, run_body


def with_each_name(client: FlaskClient, text: str) -> Iterator[tuple[str, str]]:
    """(method, path) of each route below /v1 with a name in it, the text in that place."""
    for method, rule in (route for route in routes(client.application) if route[1].startswith("/v1/")):
        filled = re.sub(r"<uuid:\w+>", "00000000-0000-0000-0000-000000000000", rule).replace("<int:job_id>", "1")
        for match in re.finditer(r"<\w+>", filled):
            path = filled[: match.start()] + text + filled[match.end() :]
            yield method, re.sub(r"<\w+>", "triage", path)


@pytest.mark.parametrize("text", ["%00", "a%00b"])
def test_a_nul_in_a_path_is_a_404_where_postgresql_answered_500(api: Api, flask_client: FlaskClient, text: str) -> None:
    """The histories of labels looked for it: SQLite found nothing, PostgreSQL takes no such text."""
    make_prompt(api, "triage")

    for method, path in with_each_name(flask_client, text):
        assert api.request(method, path).status_code == 404, (method, path)


@pytest.mark.parametrize("text", ["%ff", "%ed%a0%80", "%c3"])
def test_a_path_that_is_no_utf_8_is_a_4xx(api: Api, flask_client: FlaskClient, text: str) -> None:
    make_prompt(api, "triage")

    for method, path in with_each_name(flask_client, text):
        answer = api.request(method, path)
        assert 400 <= answer.status_code < 500 or answer.get_json()["data"] == [], (method, path)


@pytest.mark.parametrize("path", ["/v1/prompts//labels", "/v1//prompts", "/v1/prompts/%2Flabels"])
def test_an_empty_name_is_a_404_and_leads_to_nothing_else(api: Api, path: str) -> None:
    """It was a 308 to the address without it: of the prompt `labels`, here."""
    assert api.get(path).status_code == 404


@pytest.mark.parametrize("number", ["%D9%A1", "-1", "+1", "1.0", "9223372036854775808", "9" * 5_000, "%201"])
def test_a_job_has_its_number_in_plain_digits_only(api: Api, drain: Drain, number: str) -> None:
    """١ is 1 in Arabic, to Python too."""
    make_prompt(api)
    api.expect(202, "POST", "/v1/executions:submit", run_body())
    (job,) = api.expect(200, "GET", "/v1/jobs")["data"]

    assert api.get(f"/v1/jobs/{job['job_id']}").status_code == 200
    assert api.get(f"/v1/jobs/{number}").status_code == 404
    assert api.get("/v1/jobs/9223372036854775807").status_code == 404


@pytest.mark.parametrize(
    "query", ["%00=1", "%ff=1", "=1", "limit=%ff", "cursor=a%00", "limit=%D9%A1", "cursor=%ed%a0%80"]
)
def test_a_query_that_is_no_text_is_a_422(api: Api, query: str) -> None:
    assert api.get(f"/v1/prompts?{query}").status_code == 422


def test_no_body_is_read_as_more_than_its_route_takes(api: Api) -> None:
    for (method, rule), body in WRITES.items():
        if isinstance(body, dict) and "<" not in rule:
            answer = api.request(method, rule, {**body, "nobody_reads_this": 1})
            assert answer.status_code == 422, (method, rule)
