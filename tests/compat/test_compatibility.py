"""docs/reference/compatibility.md tells the truth, and names every endpoint of the earlier systems."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient

from app import admin
from app.compat.catalogue import Endpoint
from app.compat.compatibility import ABSENT, CATALOGUES, is_served, page, routes, shape

PAGE = Path(__file__).parents[2] / "docs/reference/compatibility.md"
# Every endpoint that the requirement documents and the research of the earlier systems name: `system: METHOD path`.
LINES = (Path(__file__).parent / "endpoints.txt").read_text().splitlines()
LATER = {"GET /v1/events"}
ALL = [endpoint for catalogue in CATALOGUES.values() for endpoint in catalogue]


def named() -> list[tuple[str, str, str]]:
    found = [re.fullmatch(r"([\w ]+): ([A-Z]+) (\S+)", line) for line in LINES]
    return [(match[1], match[2], match[3]) for match in found if match]


def test_the_page_on_disk_is_what_the_command_prints(flask_client: FlaskClient) -> None:
    assert PAGE.read_text() == page(flask_client.application)


def test_the_command_prints_the_page() -> None:
    done = CliRunner().invoke(admin.main, ["compatibility"])

    assert (done.exit_code, done.output) == (0, PAGE.read_text())


@pytest.mark.parametrize("system", CATALOGUES)
def test_every_endpoint_that_the_documents_name_is_in_a_catalogue(system: str) -> None:
    listed = {(one.method, shape(one.path)) for one in CATALOGUES[system]}
    wanted = {(method, shape(path)) for of, method, path in named() if of == system}

    assert wanted - listed == set()
    assert len(wanted) > 15


def test_the_list_of_what_the_documents_name_is_whole() -> None:
    assert len(named()) == len(LINES) > 150
    assert {of for of, _, _ in named()} == set(CATALOGUES)


def test_every_successor_is_served(flask_client: FlaskClient) -> None:
    served = {f"{method} {path}" for method, path in routes(flask_client.application)}
    successors = {shape(one.successor) for one in ALL if one.successor} - LATER

    assert successors - served == set()
    assert len(successors) > 30


def test_what_has_no_successor_is_served_at_the_same_path_or_says_why_not(flask_client: FlaskClient) -> None:
    served = routes(flask_client.application)

    claims = [one for one in ALL if one.successor is None and not one.note.startswith(ABSENT)]

    assert [(one.method, one.path) for one in claims if not is_served(one, served)] == []
    assert len(claims) > 40


def test_what_is_excepted_is_not_served_meanwhile(flask_client: FlaskClient) -> None:
    served = routes(flask_client.application)
    excepted = [one for one in ALL if one.successor is None and one.note.startswith(ABSENT)]

    assert [(one.method, one.path) for one in excepted if is_served(one, served)] == []


def test_every_address_of_an_older_prefix_is_in_a_catalogue(flask_client: FlaskClient) -> None:
    listed = {(one.method, shape(one.path)) for one in ALL}

    older = {route for route in routes(flask_client.application) if route[1].startswith("/api/v1/")}

    assert older - listed == set()
    assert len(older) > 70


def test_no_endpoint_is_listed_twice() -> None:
    endpoints = [(one.method, shape(one.path)) for one in ALL]

    assert [one for one in endpoints if endpoints.count(one) > 1] == []


def test_every_requirement_of_prompt_store_is_served_but_what_comes_later(flask_client: FlaskClient) -> None:
    """Written out: a route that gets lost is missed here, and not only on the page."""
    served = routes(flask_client.application)
    later = re.compile("ab-tests|refine|webhooks|notifications|cache|optimization|documents")
    left = re.compile("validation|dashboard|performance|satisfaction")

    missing = [
        (method, path)
        for of, method, path in named()
        if of == "Prompt Store" and not later.search(path) and not left.search(path)
        if not is_served(Endpoint(method, path, None, ""), served)
    ]

    assert missing == [("POST", "/api/v1/analytics/usage")]
