"""The moves of a label: kept, shown, undone, and looked up by time."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.models import Label, LabelMove, LabelRequest
from tests.rows import count, event_data, everything
from tests.support import Api, make_prompt, pointers

LABELS = "/v1/prompts/greeter/labels"
STAGING = f"{LABELS}/staging"


@pytest.fixture(autouse=True)
def greeter(api: Api) -> None:
    """A prompt with versions 1 to 5 and no label."""
    for source in ("one", "two", "three", "four", "five"):
        api.expect(200, "PUT", "/v1/prompts/greeter", {"template_source": source})


def move(api: Api, number: int, label: str = "staging", **fields: Any) -> Any:
    return api.expect(200, "PUT", f"{LABELS}/{label}", {"version_number": number, **fields})


def undo(api: Api, label: str = "staging") -> int:
    number: int = api.expect(200, "POST", f"{LABELS}/{label}/undo")["version_number"]
    return number


def history(api: Api, label: str = "staging") -> list[tuple[int | None, int | None]]:
    moves = api.expect(200, "GET", f"{LABELS}/{label}/history")["data"]
    return [(each["from_version"], each["to_version"]) for each in moves]


def shown_at(api: Api, time: str, label: str = "staging") -> int | None:
    answer = api.get(f"{LABELS}/{label}", query_string={"at": time})
    assert answer.status_code in (200, 404)
    return answer.get_json().get("version_number")


def test_every_move_and_every_delete_is_kept_with_who_when_and_why(api: Api) -> None:
    move(api, 1)
    move(api, 3, reason="scored better")
    api.expect(204, "DELETE", f"{STAGING}?reason=not needed")

    moves = api.expect(200, "GET", f"{STAGING}/history")["data"]

    assert [(each["from_version"], each["to_version"], each["reason"]) for each in moves] == [
        (3, None, "not needed"),
        (1, 3, "scored better"),
        (None, 1, ""),
    ]
    assert {each["moved_by"] for each in moves} == {"admin"}
    assert sorted(each["moved_at"] for each in moves) == [each["moved_at"] for each in moves][::-1]
    assert event_data("prompt.label_moved")[1:] == [
        {"label": "staging", "from": 1, "to": 3, "reason": "scored better"},
        {"label": "staging", "from": 3, "to": None, "reason": "not needed"},
    ]


def test_a_move_to_where_the_label_is_is_no_move(api: Api) -> None:
    move(api, 2)

    move(api, 2)

    assert history(api) == [(None, 2)]


def test_set_active_is_a_move_like_any_other(api: Api) -> None:
    make_prompt(api, template="two")
    make_prompt(api, template="six")

    assert history(api, "production") == [(2, 6), (None, 2)]


def test_the_history_is_read_in_pages(api: Api) -> None:
    for number in (1, 2, 3):
        move(api, number)

    first = api.expect(200, "GET", f"{STAGING}/history?limit=2")
    second = api.expect(200, "GET", f"{STAGING}/history?limit=2&cursor={first['next_cursor']}")

    assert [each["to_version"] for each in first["data"] + second["data"]] == [3, 2, 1]
    assert second["next_cursor"] is None


def test_the_history_of_a_label_that_never_was_is_a_404(api: Api) -> None:
    assert api.get(f"{STAGING}/history").status_code == 404
    assert api.get("/v1/prompts/nope/labels/staging/history").status_code == 404


def test_an_undo_points_at_what_the_label_pointed_at_before(api: Api) -> None:
    move(api, 2)
    move(api, 5)

    back = api.expect(200, "POST", f"{STAGING}/undo", {"reason": "it broke"})

    assert (back["version_number"], back["moved_by"]) == (2, "admin")
    assert api.expect(200, "GET", "/v1/prompts/greeter/versions/staging")["template_source"] == "two"
    newest = api.expect(200, "GET", f"{STAGING}/history")["data"][0]
    assert (newest["from_version"], newest["to_version"], newest["reason"]) == (5, 2, "it broke")
    assert event_data("prompt.label_moved")[-1] == {
        "label": "staging",
        "from": 5,
        "to": 2,
        "reason": "it broke",
        "undo": True,
    }


def test_two_undos_walk_back_two_moves_and_not_to_and_fro(api: Api) -> None:
    for number in (1, 2, 3):
        move(api, number)

    assert [undo(api), undo(api)] == [2, 1]


def test_a_move_after_an_undo_is_undone_before_what_came_earlier(api: Api) -> None:
    for number in (1, 2, 3):
        move(api, number)
    undo(api)
    move(api, 5)

    assert [undo(api), undo(api)] == [2, 1]


def test_what_the_first_move_made_cannot_be_undone_further(api: Api) -> None:
    move(api, 1)
    before = everything()

    answer = api.post(f"{STAGING}/undo")

    assert (answer.status_code, answer.get_json()["code"]) == (409, "conflict")
    assert everything() == before


def test_the_undo_of_a_delete_makes_the_label_again(api: Api) -> None:
    move(api, 4)
    api.expect(204, "DELETE", STAGING)

    assert undo(api) == 4
    assert api.expect(200, "GET", STAGING)["version_number"] == 4


def test_an_undo_of_a_label_that_never_was_is_a_404(api: Api) -> None:
    assert api.post(f"{STAGING}/undo").status_code == 404


def test_a_deleted_label_is_gone_and_its_history_is_not(api: Api) -> None:
    move(api, 1)

    api.expect(204, "DELETE", STAGING)

    assert api.get(STAGING).status_code == 404
    assert api.expect(200, "GET", LABELS)["data"] == []
    assert api.get("/v1/prompts/greeter/versions/staging").status_code == 404
    assert api.request("DELETE", STAGING).status_code == 404
    assert history(api) == [(1, None), (None, 1)]


def test_production_of_a_published_prompt_is_not_deleted(api: Api) -> None:
    move(api, 1, "production")
    api.expect(200, "PUT", "/v1/prompts/greeter/lifecycle", {"state": "published"})
    before = everything()

    answer = api.request("DELETE", f"{LABELS}/production")

    assert answer.status_code == 409
    assert everything() == before


@pytest.fixture
def an_hour_apart(api: Api) -> list[str]:
    """`staging` pointed at 1, an hour later at 3, then was deleted, then at 2. The times of the moves."""
    times = []
    for hour, number in enumerate((1, 3, None, 2)):
        db.offset_clock(hour * 3600)
        if number is None:
            api.expect(204, "DELETE", STAGING)
        else:
            move(api, number)
        times.append(api.expect(200, "GET", f"{STAGING}/history")["data"][0]["moved_at"])
    return times


def later(time: str, seconds: float) -> str:
    return (datetime.fromisoformat(time) + timedelta(seconds=seconds)).isoformat()


def test_a_label_is_shown_as_it_was_at_a_time(api: Api, an_hour_apart: list[str]) -> None:
    made, moved, deleted, again = an_hour_apart

    assert shown_at(api, later(made, -1)) is None
    assert shown_at(api, made) == 1
    assert shown_at(api, later(moved, -1)) == 1
    assert shown_at(api, later(moved, 1)) == 3
    assert shown_at(api, later(deleted, 1)) is None
    assert shown_at(api, later(again, 1)) == 2


def test_the_same_moment_may_be_named_with_another_offset(api: Api, an_hour_apart: list[str]) -> None:
    moved = datetime.fromisoformat(an_hour_apart[1])
    elsewhere = moved.astimezone(datetime.fromisoformat("2026-01-01T00:00:00+05:30").tzinfo)

    assert shown_at(api, elsewhere.isoformat()) == 3


@pytest.mark.parametrize("time", ["yesterday", "2026-01-01T00:00:00", "", "0001-01-01T00:00:00+10:00"])
def test_a_time_that_is_none_is_named(api: Api, time: str) -> None:
    move(api, 1)

    answer = api.get(STAGING, query_string={"at": time})

    assert (answer.status_code, pointers(answer)) == (422, ["?at"])


@pytest.fixture
def several(api: Api) -> None:
    """`production` of `first` and `second`, moved; `greeter` never had one; `third` is in another project."""
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    for name in ("first", "second"):
        make_prompt(api, name, template="one")
    make_prompt(api, "third", template="one", project="atlas")
    db.offset_clock(3600)
    make_prompt(api, "first", template="two")
    api.expect(204, "DELETE", "/v1/prompts/second/labels/production")


def placed(api: Api, **query: Any) -> dict[str, int]:
    page = api.expect(200, "GET", "/v1/labels", query_string=query)
    return {row["prompt_name"]: row["version_number"] for row in page["data"]}


@pytest.mark.usefixtures("several")
def test_one_request_says_what_production_is_of_every_prompt(api: Api) -> None:
    assert placed(api) == {"first": 2, "third": 1}
    assert placed(api, project="default") == {"first": 2}
    assert placed(api, project="atlas") == {"third": 1}
    assert placed(api, label="staging") == {}


@pytest.mark.usefixtures("several")
def test_one_request_says_what_production_served_at_a_time(api: Api) -> None:
    then = later(api.expect(200, "GET", "/v1/prompts/first/labels/production")["moved_at"], -1800)

    assert placed(api, at=then, project="default") == {"first": 1, "second": 1}
    assert placed(api, at=later(then, -7200)) == {}


@pytest.mark.usefixtures("several")
def test_what_every_prompt_serves_is_read_in_pages(api: Api) -> None:
    first = api.expect(200, "GET", "/v1/labels?limit=1")
    second = api.expect(200, "GET", f"/v1/labels?limit=1&cursor={first['next_cursor']}")

    assert [row["prompt_name"] for row in first["data"] + second["data"]] == ["third", "first"]
    assert second["next_cursor"] is None


def test_latest_is_computed_and_has_no_history(api: Api) -> None:
    assert pointers(api.get("/v1/labels?label=latest")) == ["?label"]


def test_the_tables_agree_on_where_each_label_points(api: Api, as_user: Callable[..., Api]) -> None:
    for number, label in ((1, "a"), (2, "a"), (1, "b"), (3, "b")):
        move(api, number, label)
    undo(api, "a")
    api.expect(204, "DELETE", f"{LABELS}/b")
    move(as_user(), 5, "b")

    with db.reading() as session:
        newest = sa.select(sa.func.max(LabelMove.id)).group_by(LabelMove.prompt_id, LabelMove.label)
        last = session.execute(
            sa.select(LabelMove.label, LabelMove.moved_by, LabelMove.moved_at).where(LabelMove.id.in_(newest))
        ).all()
        labels = session.execute(sa.select(Label.name, Label.moved_by, Label.moved_at)).all()

    assert sorted(map(tuple, last)) == sorted(map(tuple, labels))
    assert count(LabelRequest) == 0
