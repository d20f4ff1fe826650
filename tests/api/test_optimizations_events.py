"""An optimization over server-sent events and by polling: the same facts in the same order, also over broken lines."""

from collections.abc import Iterator
from itertools import cycle
from typing import Any

import pytest

from shared.knobs import STRATEGIES
from tests.api.test_events import EVENTS, STREAM, Reader, page, types
from tests.strategies.world import SMALL
from tests.support import Api, Drain, make_triage, optimization_body


class Follower:
    """A client that streams, over a line that breaks after 1, 2 or 3 events, and one that polls."""

    def __init__(self, api: Api, run_id: str) -> None:
        self._api, self._query = api, f"?subject={run_id}"
        self._breaks: Iterator[int] = cycle((1, 2, 3))
        self.streamed: list[Any] = []
        self.polled: list[Any] = []

    def catch_up(self) -> None:
        """Poll for what is new, then read as much from streams, each of which goes on where the last one broke."""
        after = self.polled[-1]["cursor"] if self.polled else "begin"
        while fresh := page(self._api, f"{self._query}&after={after}&limit=2")["data"]:
            self.polled += fresh
            after = fresh[-1]["cursor"]
        while missing := len(self.polled) - len(self.streamed):
            reader = Reader(self._api, self._query, **self._place())
            taken = reader.next(min(missing, next(self._breaks)))
            reader.close()
            assert taken, "a stream ended before it gave what a page has"
            assert [kind for kind, _ in taken] == [event["type"] for _, event in taken]
            self.streamed += [event for _, event in taken]
        assert self.streamed == self.polled

    def is_over(self) -> bool:
        """Whether a stream is told not to come back, and a page is empty, where both have read all."""
        answer = self._api.request("GET", f"{EVENTS}{self._query}", headers={**STREAM, **self._place()})
        return answer.status_code == 204 and not page(self._api, f"{self._query}&after={self._last()}")["data"]

    def of(self, kind: str) -> list[Any]:
        return [event["data"] for event in self.streamed if event["type"] == f"optimization.{kind}"]

    def _place(self) -> dict[str, str]:
        return {"Last-Event-ID": self._last()} if self.streamed else {}

    def _last(self) -> str:
        return str(self.streamed[-1]["cursor"])


def start(api: Api, **fields: Any) -> str:
    return str(api.expect(202, "POST", "/v1/optimizations", optimization_body(**fields))["optimization_id"])


def steer(api: Api, run_id: str, verb: str, body: Any = None) -> Any:
    return api.expect(200, "POST", f"/v1/optimizations/{run_id}/{verb}", body)


def test_a_run_that_is_steered_tells_both_the_same_all_the_way(api: Api, drain: Drain) -> None:
    make_triage(api, cases=60)
    run_id = start(api, preflight=True, budget={"max_task_calls": 250}, seed=7)
    follower = Follower(api, run_id)

    follower.catch_up()
    drain(most=1)
    follower.catch_up()
    steer(api, run_id, "pause")
    drain()
    follower.catch_up()
    steer(api, run_id, "resume")
    drain(most=30)
    follower.catch_up()
    steer(api, run_id, "budget", {"max_task_calls": 1_000})
    while drain(most=25):
        follower.catch_up()

    done = api.expect(200, "GET", f"/v1/optimizations/{run_id}")
    told = [kind for kind in (event["type"] for event in follower.streamed) if kind.startswith("optimization.")]
    rounds = ["optimization.round"] * len(done["progress"]["curve"])
    assert told == [
        *(f"optimization.{kind}" for kind in ("queued", "running", "paused", "resumed", "baseline", "budget_raised")),
        *("optimization.preflight", *rounds, "optimization.concluded", "optimization.succeeded"),
    ]
    assert follower.is_over()
    assert follower.of("baseline")[0]["score"] == done["result"]["baseline_dev"]
    assert follower.of("preflight") == [done["result"]["preflight"]]
    assert follower.of("round") == done["progress"]["curve"]
    assert follower.of("budget_raised")[0]["to"] == done["spec"]["budget"]
    assert follower.of("succeeded") == [{"finish_reason": done["finish_reason"], "verdict": done["result"]["verdict"]}]


def test_what_happens_after_the_end_is_told_to_who_comes_back(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    run_id = start(api, seed=7)
    drain()
    follower = Follower(api, run_id)
    follower.catch_up()
    assert follower.is_over()

    best = api.expect(200, "GET", f"/v1/optimizations/{run_id}")["best_version_number"]
    move = {"label": "staging", "override": True, "reason": "to see it"}
    promoted = api.request("POST", f"/v1/optimizations/{run_id}/promote", move)
    assert promoted.status_code == 200, promoted.get_data(as_text=True)
    follower.catch_up()
    api.expect(202, "POST", f"/v1/optimizations/{run_id}/replay")
    drain()
    follower.catch_up()

    assert types({"data": follower.streamed})[-3:] == [
        "optimization.promoted",
        "optimization.replay_queued",
        "optimization.replayed",
    ]
    (told,) = follower.of("promoted")
    assert (told["label"], told["to_version"]) == ("staging", best)
    assert follower.of("replayed") == [{"identical": True}]
    assert follower.is_over()


def test_a_continuation_says_what_it_goes_on_from_and_is_followed_like_any_run(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    first = start(api, budget={"max_task_calls": 80}, seed=7)
    drain()
    before = types(page(api, f"?subject={first}"))

    body = {"budget": {"max_task_calls": 1_000}}
    again = str(api.expect(202, "POST", f"/v1/optimizations/{first}/continue", body)["optimization_id"])
    follower = Follower(api, again)
    while drain(most=30):
        follower.catch_up()

    assert follower.of("queued") == [{"strategy": "beam_search", "source_id": first, "relation": "continuation"}]
    assert len(follower.of("succeeded")) == 1
    assert types(page(api, f"?subject={first}")) == before


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_tells_each_of_its_rounds_while_it_goes_on(api: Api, drain: Drain, strategy: str) -> None:
    make_triage(api, cases=40)
    run_id = start(api, strategy=strategy, knobs=SMALL.get(strategy, {}), evaluation={}, budget={"max_task_calls": 900})
    follower = Follower(api, run_id)
    while drain(most=100):
        follower.catch_up()
        shown = api.expect(200, "GET", f"/v1/optimizations/{run_id}")
        assert follower.of("round") == shown["progress"].get("curve", [])

    assert follower.of("round")
    assert (len(follower.of("baseline")), len(follower.of("concluded"))) == (1, 1)
    assert follower.is_over()


def test_progress_by_polling_counts_the_calls_of_a_step_between_two_events(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    run_id = start(api)
    steps = [api.expect(200, "GET", f"/v1/optimizations/{run_id}")["progress"]["step"]]

    for _ in range(3):
        drain(most=1)
        steps.append(api.expect(200, "GET", f"/v1/optimizations/{run_id}")["progress"]["step"])

    assert steps == [{"done": done, "total": 16 * (i > 0)} for i, done in enumerate((0, 0, 1, 2))]
    assert types(page(api, f"?subject={run_id}")) == ["optimization.queued", "optimization.running"]
