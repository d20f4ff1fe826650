"""What a request may say in its query: what the route reads, once, in plain words. Anything else is named."""

import pytest
from flask.testing import FlaskClient

from tests.api.routes import addresses, routes, seed, writes
from tests.rows import everything
from tests.support import Api, Drain, make_prompt, pointers, run_body


def test_every_route_names_a_query_parameter_that_it_does_not_read(
    api: Api, flask_client: FlaskClient, drain: Drain
) -> None:
    app = flask_client.application
    seed(api, drain)
    bodies = {(method, rule): body for method, rule, body in writes(app, api)}
    at = addresses(api, {rule for _, rule in routes(app)})
    before = everything()

    for method, rule in routes(app):
        path = at[rule]
        answer = api.request(method, f"{path}{'&' if '?' in path else '?'}nonsense=1", bodies.get((method, rule)))

        assert (answer.status_code, pointers(answer)) == (422, ["?nonsense"]), (method, rule)

    assert everything() == before


@pytest.mark.parametrize("value", ["1_0", "٣", "nan", "1e1"])
def test_a_number_of_seconds_is_written_in_digits(api: Api, value: str) -> None:
    assert pointers(api.get(f"/v1/status?warn_seconds={value}")) == ["?warn_seconds"]


@pytest.mark.parametrize("path", ["/v1/prompts", "/v1/datasets", "/v1/executions:submit"])
def test_an_empty_project_is_not_the_default_project(api: Api, path: str) -> None:
    make_prompt(api)
    bodies = {
        "/v1/prompts": {"name": "a", "template_source": "a"},
        "/v1/datasets": {"name": "a"},
        "/v1/executions:submit": run_body(),
    }
    before = everything()

    answer = api.post(path, {**bodies[path], "project": ""})

    assert (answer.status_code, pointers(answer)) == (422, ["/project"])
    assert pointers(api.get("/v1/prompts?project=")) == ["?project"]
    assert everything() == before
