"""PUT and GET of /v1/prompts/{name}/labels: movable pointers, one event per move."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient

from shared.models import Label
from tests.rows import count, event_data, everything
from tests.support import API_KEY, Api, pointers

LABELS = "/v1/prompts/greeter/labels"


@pytest.fixture(autouse=True)
def greeter(api: Api) -> None:
    """A prompt with versions 1, 2 and 3 and no label."""
    for source in ("one", "two", "three"):
        api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": source})


def move(api: Api, label: str, number: int) -> Any:
    return api.expect(200, "PUT", f"{LABELS}/{label}", {"version_number": number})


def listed(api: Api) -> dict[str, int]:
    return {row["label"]: row["version_number"] for row in api.expect(200, "GET", LABELS)["data"]}


def test_a_label_is_made_by_its_first_move(api: Api) -> None:
    moved = move(api, "staging", 2)

    assert (moved["label"], moved["version_number"], moved["moved_by"]) == ("staging", 2, "admin")
    assert moved["protected"] is False
    assert listed(api) == {"staging": 2}
    assert api.expect(200, "GET", "/v1/prompts/greeter/versions/staging")["template_source"] == "two"


def test_every_move_is_one_event_with_from_and_to(api: Api) -> None:
    for number in (1, 3, 2):
        move(api, "staging", number)

    assert event_data("prompt.label_moved") == [
        {"label": "staging", "from": None, "to": 1},
        {"label": "staging", "from": 1, "to": 3},
        {"label": "staging", "from": 3, "to": 2},
    ]


def test_a_move_to_where_the_label_is_changes_nothing(api: Api) -> None:
    first = move(api, "staging", 2)
    before = everything()

    assert move(api, "staging", 2) == first
    assert everything() == before


def test_labels_move_one_by_one_and_are_listed_by_name(api: Api) -> None:
    for label, number in [("staging", 1), ("production", 2), ("beta.eu-1_x", 3), ("staging", 3)]:
        move(api, label, number)

    assert list(listed(api).items()) == [("beta.eu-1_x", 3), ("production", 2), ("staging", 3)]


def test_production_moved_by_hand_is_the_active_version(api: Api) -> None:
    move(api, "production", 2)

    assert api.expect(200, "GET", "/v1/prompts/greeter")["active_version"]["version_number"] == 2


def test_a_label_of_one_prompt_is_no_label_of_another(api: Api) -> None:
    api.expect(200, "PUT", "/v1/prompts/other", {"template_source": "one"})
    move(api, "staging", 1)

    assert api.get("/v1/prompts/other/versions/staging").status_code == 404


@pytest.mark.parametrize("number", [4, 999_999_999])
def test_a_move_to_a_version_that_does_not_exist_is_a_404(api: Api, number: int) -> None:
    answer = api.put(f"{LABELS}/staging", {"version_number": number})

    assert answer.status_code == 404
    assert count(Label) == 0


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "/version_number"),
        ({"version_number": 0}, "/version_number"),
        ({"version_number": -1}, "/version_number"),
        ({"version_number": "1"}, "/version_number"),
        ({"version_number": 1.0}, "/version_number"),
        ({"version_number": True}, "/version_number"),
        ({"version_number": None}, "/version_number"),
        ({"version_number": 2**31}, "/version_number"),
        ({"version_number": 10**30}, "/version_number"),
        ({"version_number": 1, "force": True}, "/force"),
    ],
)
def test_a_body_that_names_no_version_is_refused(api: Api, body: Any, named: str) -> None:
    answer = api.put(f"{LABELS}/staging", body)

    assert (answer.status_code, pointers(answer)) == (422, [named])
    assert count(Label) == 0


@pytest.mark.parametrize(
    "label", ["latest", "v2", "2", "Staging", "x" * 37, "a%20b", "123e4567-e89b-12d3-a456-426614174000"]
)
def test_a_bad_label_is_refused(api: Api, label: str) -> None:
    answer = api.put(f"{LABELS}/{label}", {"version_number": 1})

    assert (answer.status_code, pointers(answer)) == (422, ["/label"])
    assert count(Label) == 0


def test_moves_at_once_make_one_label_and_an_unbroken_chain_of_events(api: Api, flask_client: FlaskClient) -> None:
    numbers = [1, 2, 3] * 4
    start = threading.Barrier(len(numbers))

    def one(number: int) -> None:
        client = Api(flask_client.application.test_client(), API_KEY)
        start.wait(timeout=30)
        move(client, "staging", number)

    with ThreadPoolExecutor(len(numbers)) as pool:
        list(pool.map(one, numbers))

    moves = event_data("prompt.label_moved")
    assert [change["from"] for change in moves] == [None, *(change["to"] for change in moves[:-1])]
    assert all(change["from"] != change["to"] for change in moves)
    assert listed(api) == {"staging": moves[-1]["to"]}
