"""The compatibility page of Prompt Studio tells the truth: what answers at the same path does, what succeeds exists."""

import re

from flask.testing import FlaskClient

from app.compat.prompt_studio.catalogue import CATALOGUE, PREFIX
from tests.api.routes import routes

LATER = {"GET /v1/events"}


def shape(path: str) -> str:
    """The path with every parameter alike, in whichever of the two notations."""
    return re.sub(r"<[^>]+>|{[^}]+}", "{}", path)


def served(client: FlaskClient) -> set[tuple[str, str]]:
    return {(method, shape(rule)) for method, rule in routes(client.application)}


def test_every_endpoint_at_the_same_path_is_served(flask_client: FlaskClient) -> None:
    wanted = {(item.method, shape(item.path)) for item in CATALOGUE if item.successor is None}

    missing = wanted - served(flask_client)

    assert {path for _, path in missing if "/test-cases/" not in path} == set()
    assert len(wanted) > 40


def test_everything_that_is_served_below_the_prefix_is_in_it(flask_client: FlaskClient) -> None:
    listed = {(item.method, shape(item.path)) for item in CATALOGUE}

    assert {route for route in served(flask_client) if route[1].startswith(PREFIX)} <= listed


def test_every_successor_is_an_address_of_v1(flask_client: FlaskClient) -> None:
    successors = {item.successor for item in CATALOGUE if item.successor} - LATER
    ours = {f"{method} {path}" for method, path in served(flask_client)} | {"GET /health"}

    assert {shape(successor) for successor in successors} <= ours
    assert all(item.note for item in CATALOGUE if item.successor)


def test_no_endpoint_is_listed_twice() -> None:
    endpoints = [(item.method, shape(item.path)) for item in CATALOGUE]

    assert len(endpoints) == len(set(endpoints))
