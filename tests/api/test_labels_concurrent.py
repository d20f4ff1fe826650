"""Two who change the same label: the ETag of what each saw decides, and one of them hears that he was late."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.rows import event_data, everything
from tests.support import API_KEY, Api, pointers

LABELS = "/v1/prompts/greeter/labels"
STAGING = f"{LABELS}/staging"


@pytest.fixture(autouse=True)
def greeter(api: Api) -> None:
    """A prompt with versions 1 to 4; `staging` points at 1."""
    for source in ("one", "two", "three", "four"):
        api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": source})
    api.expect(200, "PUT", STAGING, {"version_number": 1})


def put(api: Api, number: int, label: str = "staging", **headers: str) -> TestResponse:
    return api.put(f"{LABELS}/{label}", {"version_number": number}, headers=headers)


def etag(api: Api) -> str:
    return api.get(STAGING).headers["ETag"]


def at_once(client: FlaskClient, calls: list[Callable[[Api], TestResponse]]) -> list[TestResponse]:
    start = threading.Barrier(len(calls))

    def one(call: Callable[[Api], TestResponse]) -> TestResponse:
        api = Api(client.application.test_client(), API_KEY)
        start.wait(timeout=30)
        return call(api)

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


def test_a_read_and_a_move_give_the_etag_that_the_next_move_needs(api: Api) -> None:
    read = etag(api)
    moved = put(api, 2, **{"If-Match": read})

    assert moved.status_code == 200
    assert moved.headers["ETag"] == etag(api) != read
    assert put(api, 3, **{"If-Match": moved.headers["ETag"]}).status_code == 200


def test_a_move_with_the_etag_of_before_is_a_412_with_the_current_one(api: Api) -> None:
    old = etag(api)
    put(api, 2)
    before = everything()

    answer = put(api, 3, **{"If-Match": old})

    assert (answer.status_code, answer.get_json()["code"]) == (412, "precondition_failed")
    assert answer.headers["ETag"] == etag(api)
    assert everything() == before


def test_a_label_that_came_back_to_a_version_has_another_etag(api: Api) -> None:
    old = etag(api)
    put(api, 2)
    put(api, 1)

    assert put(api, 3, **{"If-Match": old}).status_code == 412


def test_a_label_that_was_deleted_and_made_again_has_another_etag(api: Api) -> None:
    old = etag(api)
    api.expect(204, "DELETE", STAGING)
    put(api, 1)

    assert put(api, 3, **{"If-Match": old}).status_code == 412


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ('"{}", "x"', 200),
        ('"x"', 412),
        ("*", 200),
        ('W/"{}"', 412),
        ("", 412),
    ],
)
def test_if_match_takes_several_etags_a_star_and_no_weak_one(api: Api, condition: str, status: int) -> None:
    current = etag(api).strip('"')

    assert put(api, 2, **{"If-Match": condition.format(current)}).status_code == status


def test_if_match_of_a_label_that_is_not_there_is_a_412_without_an_etag(api: Api) -> None:
    answer = put(api, 2, "other", **{"If-Match": "*"})

    assert answer.status_code == 412
    assert "ETag" not in answer.headers


def test_if_none_match_makes_a_label_and_moves_none(api: Api) -> None:
    made = put(api, 2, "other", **{"If-None-Match": "*"})
    again = put(api, 3, "other", **{"If-None-Match": "*"})

    assert (made.status_code, again.status_code) == (200, 412)
    assert again.headers["ETag"] == made.headers["ETag"]
    assert api.expect(200, "GET", f"{LABELS}/other")["version_number"] == 2


def test_if_none_match_takes_only_a_star(api: Api) -> None:
    answer = put(api, 2, **{"If-None-Match": '"1"'})

    assert (answer.status_code, pointers(answer)) == (400, ["If-None-Match"])


@pytest.mark.parametrize(("method", "path"), [("DELETE", STAGING), ("POST", f"{STAGING}/undo")])
def test_a_delete_and_an_undo_hold_to_the_etag_too(api: Api, method: str, path: str) -> None:
    put(api, 2)
    old = etag(api)
    put(api, 3)

    late = api.request(method, path, headers={"If-Match": old})
    current = api.request(method, path, headers={"If-Match": etag(api)})

    assert (late.status_code, current.status_code // 100) == (412, 2)


def test_an_undo_that_is_repeated_with_its_etag_walks_back_once(api: Api) -> None:
    put(api, 2)
    put(api, 3)
    headers = {"If-Match": etag(api)}

    statuses = [api.post(f"{STAGING}/undo", headers=headers).status_code for _ in range(2)]

    assert statuses == [200, 412]
    assert api.expect(200, "GET", STAGING)["version_number"] == 2


def test_of_movers_with_the_same_etag_one_wins(api: Api, flask_client: FlaskClient) -> None:
    seen = etag(api)

    def mover(number: int) -> Callable[[Api], TestResponse]:
        return lambda client: put(client, number, **{"If-Match": seen})

    answers = at_once(flask_client, [mover(number) for number in (2, 3, 4) * 3])

    winners = [answer.get_json()["version_number"] for answer in answers if answer.status_code == 200]
    assert sorted(answer.status_code for answer in answers) == [200, *[412] * 8]
    assert api.expect(200, "GET", STAGING)["version_number"] == winners[0]
    assert event_data("prompt.label_moved")[1:] == [{"label": "staging", "from": 1, "to": winners[0]}]
    assert {answer.headers["ETag"] for answer in answers} == {etag(api)}


def test_of_makers_of_the_same_label_one_makes_it(api: Api, flask_client: FlaskClient) -> None:
    def maker(number: int) -> Callable[[Api], TestResponse]:
        return lambda client: put(client, number, "other", **{"If-None-Match": "*"})

    answers = at_once(flask_client, [maker(number) for number in (1, 2, 3, 4) * 2])

    assert sorted(answer.status_code for answer in answers) == [200, *[412] * 7]


def test_undos_at_once_each_take_back_a_move_of_its_own(api: Api, flask_client: FlaskClient) -> None:
    for number in (2, 3, 4):
        put(api, number)

    answers = at_once(flask_client, [lambda client: client.post(f"{STAGING}/undo")] * 3)

    assert [answer.status_code for answer in answers] == [200] * 3
    assert sorted(answer.get_json()["version_number"] for answer in answers) == [1, 2, 3]
    moves: list[Any] = api.expect(200, "GET", f"{STAGING}/history")["data"]
    assert len({move["undoes"] for move in moves if move["undoes"]}) == 3


def test_moves_deletes_and_undos_at_once_leave_an_unbroken_chain(api: Api, flask_client: FlaskClient) -> None:
    calls: list[Callable[[Api], TestResponse]] = [
        lambda client: put(client, 2),
        lambda client: put(client, 3),
        lambda client: client.request("DELETE", STAGING),
        lambda client: client.post(f"{STAGING}/undo"),
    ]

    answers = at_once(flask_client, calls * 3)

    assert {answer.status_code for answer in answers} <= {200, 204, 404, 409}
    moves = api.expect(200, "GET", f"{STAGING}/history?limit=100")["data"][::-1]
    assert [move["from_version"] for move in moves] == [None, *(move["to_version"] for move in moves[:-1])]
    assert api.get(STAGING).get_json().get("version_number") == moves[-1]["to_version"]
