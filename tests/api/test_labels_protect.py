"""Protected labels: a role, or a second person, decides on their moves, whatever asks for the move."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from shared import db
from shared.domain import tenants
from shared.models import Role
from tests.rows import event_data, everything
from tests.support import Api, pointers

LABELS = "/v1/prompts/greeter/labels"
PRODUCTION = f"{LABELS}/production"
PROTECTION = f"{PRODUCTION}/protection"


@pytest.fixture(autouse=True)
def greeter(api: Api) -> None:
    """A prompt with versions 1, 2 and 3; `production` points at 1."""
    for source in ("one", "two", "three"):
        api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": source})
    api.expect(200, "PUT", PRODUCTION, {"version_number": 1})


def put(api: Api, number: int, **fields: Any) -> TestResponse:
    return api.put(PRODUCTION, {"version_number": number, **fields})


def ask(api: Api, number: int, **fields: Any) -> Any:
    return api.expect(202, "PUT", PRODUCTION, {"version_number": number, **fields})


def serves(api: Api) -> int | None:
    number: int | None = api.get(PRODUCTION).get_json().get("version_number")
    return number


def states(api: Api) -> list[str]:
    """Of the requests, oldest first."""
    return [request["state"] for request in api.expect(200, "GET", "/v1/label-requests")["data"]][::-1]


def decide(api: Api, request: Any, verdict: str, **body: Any) -> TestResponse:
    return api.post(f"/v1/label-requests/{request['request_id']}/{verdict}", body)


@pytest.fixture
def for_operators(api: Api) -> None:
    api.expect(200, "PUT", PROTECTION, {"role": "operator"})


@pytest.fixture
def with_approval(api: Api) -> None:
    api.expect(200, "PUT", PROTECTION, {"approvals": 1})


@pytest.fixture
def ada(as_user: Callable[..., Api]) -> Api:
    return as_user(user="ada")


@pytest.fixture
def ben(as_user: Callable[..., Api]) -> Api:
    return as_user(user="ben")


@pytest.mark.usefixtures("for_operators")
def test_a_lower_role_hears_which_role_it_takes(api: Api, ada: Api) -> None:
    before = everything()

    answer = put(ada, 2)

    assert (answer.status_code, answer.get_json()["code"]) == (403, "forbidden")
    assert "role operator" in answer.get_json()["detail"]
    assert everything() == before


@pytest.mark.usefixtures("for_operators")
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", PRODUCTION, None),
        ("POST", f"{PRODUCTION}/undo", {}),
        ("PUT", "/v1/prompts/greeter", {"template_source": "two", "set_active": True}),
        ("PUT", "/v1/prompts/greeter", {"template_source": "a new one", "set_active": True}),
        ("PUT", "/v1/prompts/greeter/lifecycle", {"state": "archived"}),
    ],
)
def test_no_way_leads_around_the_role(api: Api, ada: Api, method: str, path: str, body: Any) -> None:
    put(api, 2)
    put(api, 3)
    before = everything()

    answer = ada.request(method, path, body)

    assert answer.status_code == 403
    assert everything() == before


@pytest.mark.usefixtures("for_operators")
@pytest.mark.parametrize("role", [Role.OPERATOR, Role.ADMIN])
def test_the_role_and_those_above_it_move_the_label(api: Api, as_user: Callable[..., Api], role: Role) -> None:
    assert put(as_user(role=role), 2).status_code == 200
    assert serves(api) == 2


@pytest.mark.usefixtures("for_operators")
def test_other_labels_of_the_prompt_stay_free(api: Api, ada: Api) -> None:
    ada.expect(200, "PUT", f"{LABELS}/staging", {"version_number": 2})


@pytest.mark.usefixtures("for_operators")
def test_new_versions_are_still_anybodys_to_write(api: Api, ada: Api) -> None:
    ada.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": "four"})

    assert serves(api) == 1


def test_a_label_may_be_protected_before_it_is_made(api: Api, ada: Api) -> None:
    api.expect(200, "PUT", f"{LABELS}/eu/protection", {"role": "operator"})

    assert ada.put(f"{LABELS}/eu", {"version_number": 1}).status_code == 403
    api.expect(200, "PUT", f"{LABELS}/eu", {"version_number": 1})


def test_a_protection_outlives_the_label(api: Api, ada: Api) -> None:
    api.expect(200, "PUT", PROTECTION, {"role": "operator"})
    api.expect(204, "DELETE", PRODUCTION)

    assert put(ada, 2).status_code == 403


def test_a_label_shows_its_protection(api: Api) -> None:
    free = api.expect(200, "GET", PRODUCTION)
    api.expect(200, "PUT", PROTECTION, {"role": "admin"})
    held = api.expect(200, "GET", PRODUCTION)

    assert (free["protected"], free["protection"]) == (False, None)
    assert (held["protected"], held["protection"]) == (True, {"role": "admin", "approvals": None})
    assert api.expect(200, "GET", LABELS)["data"] == [held]
    assert api.expect(200, "GET", PROTECTION) == held["protection"]
    assert api.expect(200, "GET", f"{LABELS}/staging/protection") == {"role": None, "approvals": None}


def test_each_change_of_a_protection_is_an_event_and_the_same_again_is_none(api: Api) -> None:
    for body in ({"role": "operator"}, {"role": "operator"}, {"approvals": 1}):
        api.expect(200, "PUT", PROTECTION, body)
    for _ in range(2):
        api.expect(200, "DELETE", PROTECTION)

    assert event_data("prompt.label_protected") == [
        {"label": "production", "role": "operator", "approvals": None},
        {"label": "production", "role": None, "approvals": 1},
    ]
    assert event_data("prompt.label_unprotected") == [{"label": "production", "role": None, "approvals": None}]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "/role"),
        ({"role": "operator", "approvals": 1}, "/role"),
        ({"role": "editor"}, "/role"),
        ({"role": "king"}, "/role"),
        ({"approvals": 0}, "/approvals"),
        ({"approvals": 2}, "/approvals"),
        ({"approvals": True}, "/approvals"),
        ({"people": 1}, "/people"),
    ],
)
def test_a_protection_that_makes_no_sense_is_named(api: Api, body: Any, named: str) -> None:
    before = everything()

    answer = api.put(PROTECTION, body)

    assert (answer.status_code, pointers(answer)) == (422, [named])
    assert everything() == before


def test_latest_cannot_be_protected(api: Api) -> None:
    assert pointers(api.put(f"{LABELS}/latest/protection", {"role": "admin"})) == ["/label"]


def test_an_editor_neither_sets_nor_lifts_a_protection(api: Api, ada: Api) -> None:
    api.expect(200, "PUT", PROTECTION, {"approvals": 1})
    before = everything()

    assert ada.put(PROTECTION, {"role": "operator"}).status_code == 403
    assert ada.request("DELETE", PROTECTION).status_code == 403
    assert everything() == before


def test_what_takes_an_administrator_to_move_takes_one_to_free(api: Api, as_user: Callable[..., Api]) -> None:
    operator = as_user(role=Role.OPERATOR)
    api.expect(200, "PUT", PROTECTION, {"role": "admin"})
    before = everything()

    assert operator.request("DELETE", PROTECTION).status_code == 403
    assert operator.put(PROTECTION, {"approvals": 1}).status_code == 403
    assert operator.put(f"{LABELS}/staging/protection", {"role": "admin"}).status_code == 403
    assert everything() == before


@pytest.mark.usefixtures("with_approval")
def test_a_move_that_takes_approval_is_asked_for_and_moves_nothing(api: Api, ada: Api) -> None:
    answer = put(ada, 2, reason="scored better")

    request = answer.get_json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/v1/label-requests/{request['request_id']}"
    assert api.expect(200, "GET", answer.headers["Location"]) == request
    assert {key: request[key] for key in ("state", "prompt_name", "label", "from_version", "to_version")} == {
        "state": "pending",
        "prompt_name": "greeter",
        "label": "production",
        "from_version": 1,
        "to_version": 2,
    }
    assert (request["asked_by"], request["reason"], request["decided_by"]) == ("ada", "scored better", None)
    assert serves(api) == 1
    assert event_data("label_request.created") == [{"label": "production", "from": 1, "to": 2}]


@pytest.mark.usefixtures("with_approval")
def test_an_approval_by_a_second_person_makes_the_move(api: Api, ada: Api, ben: Api) -> None:
    request = ask(ada, 2, reason="scored better")

    approved = decide(ben, request, "approve", reason="agreed").get_json()

    assert (approved["state"], approved["decided_by"], approved["decision"]) == ("approved", "ben", "agreed")
    assert serves(api) == 2
    newest = api.expect(200, "GET", f"{PRODUCTION}/history")["data"][0]
    assert {key: newest[key] for key in ("moved_by", "approved_by", "reason")} == {
        "moved_by": "ada",
        "approved_by": "ben",
        "reason": "scored better",
    }
    assert event_data("prompt.label_moved")[-1] == {
        "label": "production",
        "from": 1,
        "to": 2,
        "reason": "scored better",
        "approved_by": "ben",
    }
    assert event_data("label_request.approved") == [{}]


@pytest.mark.usefixtures("with_approval")
def test_nobody_approves_what_he_asked_for_himself_whatever_his_role(api: Api) -> None:
    request = ask(api, 2)
    before = everything()

    assert decide(api, request, "approve").status_code == 403
    assert everything() == before


@pytest.mark.usefixtures("with_approval")
def test_another_key_of_the_same_person_is_no_second_person(api: Api, as_user: Callable[..., Api], ada: Api) -> None:
    request = ask(ada, 2)

    assert decide(as_user(user="ada", role=Role.ADMIN), request, "approve").status_code == 403
    assert serves(api) == 1


@pytest.mark.usefixtures("with_approval")
def test_a_viewer_approves_and_rejects_nothing(ada: Api, as_user: Callable[..., Api]) -> None:
    request = ask(ada, 2)
    viewer = as_user(user="eve", role=Role.VIEWER)

    assert decide(viewer, request, "approve").status_code == 403
    assert decide(viewer, request, "reject").status_code == 403


@pytest.mark.usefixtures("with_approval")
def test_a_rejected_request_moves_nothing_and_stays_rejected(api: Api, ada: Api, ben: Api) -> None:
    request = ask(ada, 2)

    rejected = decide(ben, request, "reject", reason="too early").get_json()

    assert (rejected["state"], rejected["decided_by"], rejected["decision"]) == ("rejected", "ben", "too early")
    assert decide(ben, request, "approve").status_code == 409
    assert serves(api) == 1
    assert event_data("label_request.rejected") == [{}]


@pytest.mark.usefixtures("with_approval")
def test_whoever_asked_withdraws_it_by_rejecting(ada: Api) -> None:
    assert decide(ada, ask(ada, 2), "reject").get_json()["state"] == "rejected"


@pytest.mark.usefixtures("with_approval")
def test_the_same_person_who_asks_again_is_given_the_request_that_waits(api: Api, ada: Api, ben: Api) -> None:
    first = ask(ada, 2)

    assert ask(ada, 2) == first
    assert ask(ada, 3)["request_id"] != first["request_id"]
    assert ask(ben, 2)["request_id"] != first["request_id"]


@pytest.mark.usefixtures("with_approval")
def test_what_was_asked_before_a_move_is_not_approved_after_it(api: Api, ada: Api, ben: Api) -> None:
    late, other = ask(ada, 2), ask(ada, 3)
    decide(ben, other, "approve")

    answer = decide(ben, late, "approve")

    assert (answer.status_code, answer.get_json()["code"]) == (409, "conflict")
    assert states(api) == ["superseded", "approved"]
    assert serves(api) == 3
    assert event_data("label_request.superseded") == [{}]


def test_a_request_is_superseded_even_when_the_label_came_back_to_where_it_was(api: Api, ada: Api, ben: Api) -> None:
    api.expect(200, "PUT", PROTECTION, {"approvals": 1})
    request = ask(ada, 2)
    api.expect(200, "DELETE", PROTECTION)
    for number in (3, 1):
        assert put(api, number).status_code == 200

    assert decide(ben, request, "approve").status_code == 409
    assert serves(api) == 1


def test_a_move_of_one_label_leaves_requests_of_another_alone(api: Api, ada: Api) -> None:
    api.expect(200, "PUT", PROTECTION, {"approvals": 1})
    ask(ada, 2)

    api.expect(200, "PUT", f"{LABELS}/staging", {"version_number": 3})

    assert states(api) == ["pending"]


@pytest.mark.usefixtures("with_approval")
def test_a_delete_and_an_undo_are_asked_for_too(api: Api, ada: Api, ben: Api) -> None:
    decide(ben, ask(ada, 2), "approve")
    back = ada.expect(202, "POST", f"{PRODUCTION}/undo")
    undone = decide(ben, back, "approve").status_code
    first = serves(api)
    gone = ada.expect(202, "DELETE", PRODUCTION)
    deleted = decide(ben, gone, "approve").status_code

    assert (undone, first, deleted, serves(api)) == (200, 1, 200, None)
    assert (back["to_version"], gone["to_version"]) == (1, None)


@pytest.mark.usefixtures("with_approval")
def test_an_approved_undo_is_one_of_the_undos_that_walk_back(api: Api, ada: Api, ben: Api) -> None:
    for number in (2, 3):
        decide(ben, ask(ada, number), "approve")

    for expected in (2, 1):
        decide(ben, ada.expect(202, "POST", f"{PRODUCTION}/undo"), "approve")
        assert serves(api) == expected


@pytest.mark.usefixtures("with_approval")
def test_a_delete_that_was_asked_for_is_not_approved_once_the_prompt_is_published(api: Api, ada: Api, ben: Api) -> None:
    gone = ada.expect(202, "DELETE", PRODUCTION)
    ada.expect(200, "PUT", "/v1/prompts/greeter/lifecycle", {"state": "published"})

    assert decide(ben, gone, "approve").status_code == 409
    assert (serves(api), states(api)) == (1, ["pending"])


@pytest.mark.usefixtures("with_approval")
def test_set_active_makes_the_version_and_asks_for_the_move(api: Api, ada: Api, ben: Api) -> None:
    answer = ada.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": "four", "set_active": True})

    assert answer["version"]["version_number"] == 4
    assert serves(api) == 1
    assert decide(ben, {"request_id": answer["label_request_id"]}, "approve").status_code == 200
    assert serves(api) == 4


def test_an_answer_without_a_request_names_none(api: Api) -> None:
    answer = api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": "two", "set_active": True})

    assert set(answer) == {"prompt", "version", "version_change"}


@pytest.mark.usefixtures("with_approval")
def test_archiving_what_a_second_person_decides_on_is_refused(api: Api) -> None:
    before = everything()

    answer = api.put("/v1/prompts/greeter/lifecycle", {"state": "archived"})

    assert (answer.status_code, answer.get_json()["code"]) == (409, "conflict")
    assert everything() == before


@pytest.mark.usefixtures("with_approval")
def test_a_move_to_where_the_label_is_asks_nobody(api: Api, ada: Api) -> None:
    assert put(ada, 1).status_code == 200
    assert states(api) == []


@pytest.mark.usefixtures("with_approval")
def test_a_request_holds_to_the_etag_when_it_is_made(api: Api, ada: Api) -> None:
    answer = ada.put(PRODUCTION, {"version_number": 2}, headers={"If-Match": '"x"'})

    assert answer.status_code == 412
    assert states(api) == []


def test_an_approval_obeys_a_role_that_was_set_meanwhile(api: Api, ada: Api, ben: Api) -> None:
    api.expect(200, "PUT", PROTECTION, {"approvals": 1})
    request = ask(ada, 2)
    api.expect(200, "PUT", PROTECTION, {"role": "operator"})

    assert decide(ben, request, "approve").status_code == 403
    assert decide(api, request, "approve").status_code == 200


@pytest.mark.usefixtures("with_approval")
def test_requests_are_listed_by_state_and_by_project(api: Api, ada: Api, ben: Api) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    rejected, pending = ask(ada, 2), ask(ada, 3)
    decide(ben, rejected, "reject")

    def listed(query: str) -> list[str]:
        return [each["request_id"] for each in api.expect(200, "GET", f"/v1/label-requests{query}")["data"]]

    assert listed("") == [pending["request_id"], rejected["request_id"]]
    assert listed("?state=pending") == [pending["request_id"]]
    assert listed("?project=atlas") == []
    assert listed("?project=default&state=rejected") == [rejected["request_id"]]
    assert pointers(api.get("/v1/label-requests?state=open")) == ["?state"]


@pytest.mark.usefixtures("with_approval")
def test_of_two_who_decide_at_once_one_wins(api: Api, ada: Api, flask_client: FlaskClient) -> None:
    request = ask(ada, 2)
    verdicts = ["approve"] * 3 + ["reject"] * 2

    answers = at_once(flask_client, [lambda api, each=verdict: decide(api, request, each) for verdict in verdicts])

    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
    verdict = next(answer.get_json()["state"] for answer in answers if answer.status_code == 200)
    assert states(api) == [verdict]
    assert serves(api) == (2 if verdict == "approved" else 1)


def test_an_approval_that_races_with_a_move_leaves_one_story(api: Api, ada: Api, flask_client: FlaskClient) -> None:
    api.expect(200, "PUT", PROTECTION, {"approvals": 1})
    request = ask(ada, 2)
    api.expect(200, "DELETE", PROTECTION)

    approval, moved = at_once(flask_client, [lambda api: decide(api, request, "approve"), lambda api: put(api, 3)])

    moves = [
        (move["from_version"], move["to_version"])
        for move in api.expect(200, "GET", f"{PRODUCTION}/history")["data"][::-1]
    ]
    assert moved.status_code == 200
    assert serves(api) == 3
    assert (approval.status_code, states(api), moves) in [
        (200, ["approved"], [(None, 1), (1, 2), (2, 3)]),
        (409, ["superseded"], [(None, 1), (1, 3)]),
    ]


def at_once(client: FlaskClient, calls: list[Callable[[Api], TestResponse]]) -> list[TestResponse]:
    """Each call by a person of its own, all at the same moment."""
    keys = [tenants.new_key() for _ in calls]
    for number, key in enumerate(keys):
        with db.transaction() as session:
            tenants.create_key(session, workspace="default", user=f"person-{number}", role=Role.EDITOR, key=key)
    start = threading.Barrier(len(calls))

    def one(key: str, call: Callable[[Api], TestResponse]) -> TestResponse:
        api = Api(client.application.test_client(), key)
        start.wait(timeout=30)
        return call(api)

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, keys, calls))
