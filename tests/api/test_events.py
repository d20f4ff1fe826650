"""/v1/events: pages and streams of the same events, in an order to which nothing is added behind a reader."""

import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest
import sqlalchemy as sa

import app.api.events
import app.auth
from app import waiting
from shared import db
from shared.config import settings
from shared.domain import events
from shared.domain.events import Change
from shared.domain.tenants import Caller
from shared.models import ApiKey, new_id
from tests.domain.test_plans import caught, is_postgres
from tests.support import (
    MODEL,
    Api,
    Drain,
    evaluation_body,
    make_prompt,
    make_triage,
    optimization_body,
    pointers,
    run_body,
)

EVENTS = "/v1/events"
STREAM = {"Accept": "text/event-stream"}


def page(api: Api, query: str = "", **options: Any) -> Any:
    return api.expect(200, "GET", f"{EVENTS}{query}", **options)


def types(answer: Any) -> list[str]:
    return [event["type"] for event in answer["data"]]


def prompt_id_of(api: Api, name: str = "greeter") -> str:
    return str(api.expect(200, "GET", f"/v1/prompts/{name}")["prompt_id"])


class Reader:
    """An open stream, frame by frame."""

    def __init__(self, api: Api, query: str, **headers: str) -> None:
        self.answer = api.request("GET", f"{EVENTS}{query}", headers={**STREAM, **headers}, buffered=False)
        assert self.answer.status_code == 200, self.answer.get_data(as_text=True)
        self._frames = self._read()

    def next(self, count: int) -> list[tuple[str, Any]]:
        """(type, data) of so many events; what is no event is passed over."""
        return [(frame["event"], json.loads(frame["data"])) for frame in islice(self._frames, count)]

    def rest(self) -> list[str]:
        """The types up to the end of the stream."""
        found = [frame["event"] for frame in self._frames]
        self.close()
        return found

    def close(self) -> None:
        self.answer.close()

    def _read(self) -> Iterator[dict[str, str]]:
        for piece in self.answer.response:
            text = piece.decode() if isinstance(piece, bytes) else piece
            lines = dict(line.split(": ", 1) for line in text.strip().split("\n") if not line.startswith(":"))
            if "event" in lines:
                yield lines


def test_a_page_without_a_place_begins_now_and_says_where_to_go_on(api: Api) -> None:
    make_prompt(api)

    first = page(api)
    make_prompt(api, "waver")
    second = page(api, f"?after={first['next_cursor']}")
    third = page(api, f"?after={second['next_cursor']}")

    assert first["data"] == []
    assert types(second) == ["prompt.created", "prompt.version_created", "prompt.label_moved"]
    assert (third["data"], third["next_cursor"]) == ([], second["next_cursor"])


def test_pages_follow_each_other_without_a_gap(api: Api) -> None:
    for number in range(5):
        make_prompt(api, f"prompt-{number}")
    whole = page(api, "?after=begin&limit=100")

    pieces, cursor = [], "begin"
    for _ in range(10):
        piece = page(api, f"?after={cursor}&limit=2")
        pieces += piece["data"]
        cursor = piece["next_cursor"]

    assert len(whole["data"]) > 15
    assert pieces == whole["data"][:20]


def test_the_events_of_one_subject_are_given_from_the_beginning(api: Api) -> None:
    make_prompt(api)
    make_prompt(api, "waver")
    api.expect(200, "PATCH", "/v1/prompts/greeter", {"description": "hello"})

    found = page(api, f"?subject={prompt_id_of(api)}")

    assert types(found) == ["prompt.created", "prompt.version_created", "prompt.label_moved", "prompt.updated"]
    assert (found["data"][-1]["actor"], found["data"][-1]["data"]) == ("admin", {"description": "hello"})


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("prompt", {"prompt.created", "prompt.version_created", "prompt.label_moved"}),
        ("prompt.created", {"prompt.created"}),
        ("prompt.created,execution", {"prompt.created", "execution.queued"}),
        ("prom", set()),
    ],
)
def test_types_are_whole_ones_or_subjects(api: Api, asked: str, expected: set[str]) -> None:
    make_prompt(api)
    api.expect(202, "POST", "/v1/executions:submit", run_body())

    assert set(types(page(api, f"?after=begin&types={asked}"))) == expected


def test_a_stream_shows_what_a_page_shows_and_ends_with_the_run(api: Api, drain: Drain) -> None:
    make_triage(api, cases=4)
    run_id = api.expect(202, "POST", "/v1/evaluations", evaluation_body())["evaluation_id"]
    drain()

    reader = Reader(api, f"?subject={run_id}")
    shown = reader.rest()

    assert reader.answer.mimetype == "text/event-stream"
    assert shown == types(page(api, f"?subject={run_id}"))
    assert (shown[0], shown[-1]) == ("evaluation.queued", "evaluation.succeeded")


def test_a_stream_goes_on_while_things_happen_and_from_where_it_was_broken_off(api: Api, drain: Drain) -> None:
    make_prompt(api)
    run_id = api.expect(202, "POST", "/v1/executions:submit", run_body())["execution_id"]

    reader = Reader(api, f"?subject={run_id}")
    before = reader.next(1)
    reader.close()
    drain()
    again = Reader(api, f"?subject={run_id}", **{"Last-Event-ID": before[0][1]["cursor"]})

    assert [kind for kind, _ in before] == ["execution.queued"]
    assert again.rest() == ["execution.running", "execution.succeeded"]


def test_an_open_stream_shows_what_happens_next(api: Api) -> None:
    make_prompt(api)
    reader = Reader(api, "?after=now")
    next(iter(reader.answer.response))  # it has begun

    make_prompt(api, "waver")

    assert [kind for kind, _ in reader.next(3)] == ["prompt.created", "prompt.version_created", "prompt.label_moved"]
    reader.close()


def test_a_stream_of_a_key_that_was_revoked_ends_though_there_is_always_more(
    api: Api, as_user: Callable[..., Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is never idle is asked for the key all the same."""
    monkeypatch.setattr(app.api.events, "BEAT_SECONDS", 0.0)
    monkeypatch.setattr(app.auth, "KNOWN_SECONDS", 0.0)
    other = as_user(name="to be revoked")
    reader = Reader(other, "?after=now")
    next(iter(reader.answer.response))  # it has begun
    make_prompt(api, "first")
    assert len(reader.next(3)) == 3

    with db.transaction() as session:
        session.execute(sa.update(ApiKey).where(ApiKey.name == "to be revoked").values(revoked_at=db.db_now()))
    seen = 0
    for number in range(20):
        make_prompt(api, f"later-{number}")
        if not (found := reader.next(3)):
            break
        seen += len(found)

    assert seen <= 3  # what was read before the key was asked for
    assert reader.rest() == []


def test_who_has_read_all_of_a_run_that_has_ended_is_told_not_to_come_back(api: Api, drain: Drain) -> None:
    make_prompt(api)
    run_id = api.expect(202, "POST", "/v1/executions:submit", run_body())["execution_id"]
    drain()
    last = page(api, f"?subject={run_id}")["next_cursor"]

    answer = api.request("GET", f"{EVENTS}?subject={run_id}", headers={**STREAM, "Last-Event-ID": last})

    assert (answer.status_code, answer.get_data()) == (204, b"")


def test_streams_take_no_more_than_half_of_the_threads(api: Api) -> None:
    most = settings().web_threads // 2
    readers = [Reader(api, "?after=now") for _ in range(most)]

    refused = api.request("GET", EVENTS, headers=STREAM)
    readers[0].close()
    again = Reader(api, "?after=now")
    for reader in [*readers, again]:
        reader.close()

    assert (refused.status_code, refused.get_json()["code"]) == (503, "too_many_streams")
    assert refused.headers["Retry-After"] == "5"
    assert [waiting.take_place() for _ in range(most + 1)] == [True] * most + [False]
    for _ in range(most):
        waiting.leave_place()


def test_what_commits_late_is_not_skipped(api: Api, admin: Caller) -> None:
    """Two transactions, the first of which commits last: its events have lower ids than what could be read before."""
    slow, quick = new_id(), new_id()
    begin = page(api)["next_cursor"]

    def add(session: Any, subject: Any) -> None:
        events.record(session, [Change(admin.workspace_id, "prompt.updated", subject)])

    if is_postgres():
        with db.transaction() as session:
            add(session, slow)
            with db.transaction() as other:
                add(other, quick)
            meanwhile = page(api, f"?after={begin}")
    else:  # writers are serial
        for subject in (slow, quick):
            with db.transaction() as session:
                add(session, subject)
        meanwhile = page(api, f"?after={begin}&limit=1")
    after = page(api, f"?after={meanwhile['next_cursor']}")

    assert {event["subject_id"] for event in meanwhile["data"] + after["data"]} == {str(slow), str(quick)}


def test_who_wants_a_few_types_does_not_read_the_others_again(api: Api, admin: Caller) -> None:
    begin = page(api)["next_cursor"]
    make_prompt(api)
    behind_the_others = page(api, f"?after={begin}&types=evaluation")
    assert behind_the_others["data"] == []
    assert behind_the_others["next_cursor"] == page(api, "?after=now")["next_cursor"] != begin

    make_prompt(api, "other")
    assert "other" in str(page(api, f"?after={behind_the_others['next_cursor']}&types=prompt.created"))
    one = page(api, f"?after={begin}&types=prompt.created&limit=1")
    assert one["next_cursor"] == one["data"][0]["cursor"]


def test_a_type_that_commits_late_is_not_passed_over(api: Api, admin: Caller) -> None:
    begin, subject = page(api)["next_cursor"], new_id()
    with db.transaction() as session:
        events.record(session, [Change(admin.workspace_id, "prompt.updated", subject)])
        meanwhile = page(api, f"?after={begin}&types=prompt.updated")
    after = page(api, f"?after={meanwhile['next_cursor']}&types=prompt.updated")

    assert meanwhile["data"] == []
    assert [event["subject_id"] for event in after["data"]] == [str(subject)]


def test_nothing_of_another_workspace_is_shown(api: Api, as_user: Callable[..., Api]) -> None:
    make_prompt(api)
    stranger = as_user(workspace="elsewhere")

    assert {event["type"] for event in page(stranger, "?after=begin")["data"]} == {"api_key.created"}
    assert page(stranger, f"?subject={prompt_id_of(api)}")["data"] == []


def test_a_key_limited_to_projects_names_what_it_wants_of_them(api: Api, as_user: Callable[..., Api]) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    make_prompt(api)
    make_prompt(api, "inside", project="atlas")
    limited = as_user(user="limited", projects=["atlas"])
    inside = api.expect(200, "GET", "/v1/prompts/inside?project=atlas")

    whole = limited.request("GET", EVENTS)
    outside = limited.request("GET", f"{EVENTS}?subject={prompt_id_of(api)}")

    assert (whole.status_code, outside.status_code) == (403, 404)
    assert "prompt.created" in types(page(limited, f"?subject={inside['prompt_id']}"))
    assert "project.created" in types(page(limited, f"?subject={inside['project_id']}"))


def test_a_key_limited_to_projects_follows_a_generation_to_its_end(api: Api, as_user: Callable[..., Api]) -> None:
    api.expect(201, "POST", "/v1/projects", {"name": "atlas"})
    make_prompt(api, "inside", project="atlas")
    api.expect(201, "POST", "/v1/datasets", {"name": "cases", "project": "atlas"})
    limited = as_user(user="limited", projects=["atlas"])
    body = {"prompt_name": "inside", "count": 1, "model": MODEL}
    started = limited.expect(202, "POST", "/v1/datasets/cases/cases:generate?project=atlas", body)["generation_id"]
    limited.expect(200, "POST", f"/v1/generations/{started}/cancel")

    assert Reader(limited, f"?subject={started}").rest() == ["generation.queued", "generation.canceled"]


def test_a_key_limited_to_projects_follows_a_comparison_of_strategies(api: Api, as_user: Callable[..., Api]) -> None:
    make_triage(api, cases=12)
    limited = as_user(user="limited", projects=["default"])
    body = {name: value for name, value in optimization_body().items() if name not in ("strategy", "knobs")}
    arms = [{"strategy": "noop"}, {"strategy": "random"}]
    started = limited.expect(202, "POST", "/v1/optimizations:compare", {**body, "strategies": arms, "seeds": [1, 2, 3]})

    assert types(page(limited, f"?subject={started['comparison_id']}")) == ["optimization_comparison.created"]


@pytest.mark.parametrize("after", ["x", "1", "1-", "-1", "1-2-3", "99999999999999999999-1", "9223372036854775807-1"])
def test_a_place_that_is_none_is_refused(api: Api, after: str) -> None:
    answers = [
        api.request("GET", f"{EVENTS}?after={after}"),
        api.request("GET", EVENTS, headers={"Last-Event-ID": after}),
    ]

    assert [(answer.status_code, pointers(answer)) for answer in answers] == [
        (422, ["?after"]),
        (422, ["Last-Event-ID"]),
    ]


def test_a_page_reads_an_index_in_its_order(api: Api) -> None:
    make_prompt(api)
    with caught() as sent:
        page(api, "?after=begin&limit=2")

    asked = [one for one in sent if "FROM events" in one.statement and "LIMIT" in one.statement]
    assert len(asked) == 1
    with db.engine().connect() as connection:
        if is_postgres():
            for way in ("seqscan", "bitmapscan", "sort"):  # of so few rows any way is cheap
                connection.exec_driver_sql(f"SET enable_{way} = off")
        prefix = "EXPLAIN " if is_postgres() else "EXPLAIN QUERY PLAN "
        plan = "\n".join(map(str, connection.exec_driver_sql(prefix + asked[0].statement, asked[0].parameters)))
    # On SQLite every xid is 0: an index of (xid, id) would be read from its beginning at every poll.
    looked_up = "ix_events_workspace_id_xid_id" if is_postgres() else "(workspace_id=? AND id>?)"
    assert looked_up in plan
    assert "Sort" not in plan
    assert "TEMP B-TREE" not in plan
