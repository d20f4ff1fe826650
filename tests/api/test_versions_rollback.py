"""POST /v1/prompts/{name}/rollback: production goes back to older content, which is the older version."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.models import Role, Version
from tests.rows import count, event_data, everything
from tests.support import API_KEY, Api, pointers

ROLLBACK = "/v1/prompts/greeter/rollback"


@pytest.fixture(autouse=True)
def greeter(api: Api) -> None:
    """Three versions; production is at 3, `good` at 1."""
    for source in ("one", "two", "three"):
        api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": source, "set_active": True})
    api.expect(200, "PUT", "/v1/prompts/greeter/labels/good", {"version_number": 1})


def active(api: Api) -> Any:
    return api.expect(200, "GET", "/v1/prompts/greeter")["active_version"]["version_number"]


@pytest.mark.parametrize(("to", "number"), [(1, 1), ("2", 2), ("v2", 2), ("good", 1)])
def test_production_points_at_the_older_version_and_no_version_is_made(api: Api, to: Any, number: int) -> None:
    done = api.expect(200, "POST", ROLLBACK, {"to": to, "message": "the new one is rude"})

    version = api.expect(200, "GET", f"/v1/prompts/greeter/versions/{number}")
    assert done["version"] == {"version_id": version["version_id"], "version_number": number}
    assert (done["prompt"]["name"], done["from_version_number"], done["moved"]) == ("greeter", 3, True)
    assert (active(api), count(Version)) == (number, 3)
    assert event_data("prompt.rolled_back") == [{"from": 3, "to": number, "message": "the new one is rude"}]
    assert event_data("prompt.label_moved")[-1] == {
        "label": "production",
        "from": 3,
        "to": number,
        "reason": "the new one is rude",
    }


def test_a_rollback_to_where_production_is_changes_nothing(api: Api) -> None:
    before = everything()

    done = api.expect(200, "POST", ROLLBACK, {"to": 3})

    assert (done["from_version_number"], done["moved"]) == (3, False)
    assert everything() == before


def test_without_set_active_the_version_is_found_and_nothing_changed(api: Api) -> None:
    before = everything()

    done = api.expect(200, "POST", ROLLBACK, {"to": 1, "set_active": False})

    assert (done["version"]["version_number"], done["moved"]) == (1, False)
    assert everything() == before


def test_a_prompt_that_was_never_active_is_rolled_back_from_nowhere(api: Api) -> None:
    api.expect(200, "PUT", "/v1/prompts/fresh", {"template_source": "one"})

    done = api.expect(200, "POST", "/v1/prompts/fresh/rollback", {"to": "latest"})

    assert (done["from_version_number"], done["moved"]) == (None, True)
    assert event_data("prompt.rolled_back") == [{"from": None, "to": 1, "message": ""}]


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({}, 422, ["/to"]),
        ({"to": None}, 422, ["/to"]),
        ({"to": True}, 422, ["/to"]),
        ({"to": 0}, 422, ["/to"]),
        ({"to": 1.0}, 422, ["/to"]),
        ({"to": ""}, 422, ["/to"]),
        ({"to": 4}, 404, ["/to"]),
        ({"to": "staging"}, 404, ["/to"]),
        ({"to": 1, "message": "x" * 501}, 422, ["/message"]),
        ({"to": 1, "set_active": "no"}, 422, ["/set_active"]),
        ({"to": 1, "label": "good"}, 422, ["/label"]),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(api: Api, body: Any, status: int, named: list[str]) -> None:
    before = everything()

    answer = api.post(ROLLBACK, body)

    assert (answer.status_code, pointers(answer)) == (status, named)
    assert everything() == before


def test_a_viewer_may_not_and_nobody_of_another_workspace_can(api: Api, as_user: Callable[..., Api]) -> None:
    assert as_user(role=Role.VIEWER).post(ROLLBACK, {"to": 1}).status_code == 403
    assert as_user(workspace="elsewhere", role=Role.ADMIN).post(ROLLBACK, {"to": 1}).status_code == 404
    assert active(api) == 3


def test_the_same_key_rolls_back_once(api: Api) -> None:
    headers = {"Idempotency-Key": "back"}
    first = api.expect(200, "POST", ROLLBACK, {"to": 1}, headers=headers)
    api.expect(200, "POST", ROLLBACK, {"to": 2})

    again = api.expect(200, "POST", ROLLBACK, {"to": 1}, headers=headers)

    assert again == first
    assert active(api) == 2
    assert api.post(ROLLBACK, {"to": 2}, headers=headers).status_code == 422


def test_the_events_of_rollbacks_at_once_lead_from_one_to_the_next(api: Api, flask_client: FlaskClient) -> None:
    start = threading.Barrier(8)

    def roll_back(number: int) -> None:
        own = Api(flask_client.application.test_client(), API_KEY)
        start.wait(timeout=30)
        own.expect(200, "POST", ROLLBACK, {"to": 1 + number % 2})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(roll_back, range(8)))

    moves = event_data("prompt.rolled_back")
    assert [move["from"] for move in moves] == [3, *(move["to"] for move in moves[:-1])]
    assert active(api) == moves[-1]["to"]
