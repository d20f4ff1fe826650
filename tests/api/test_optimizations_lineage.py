"""Where a candidate comes from, what it scored, why it was dropped, and how candidates weigh up."""

import time
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa

from shared import db
from shared.domain import lineages
from shared.models import Execution
from tests.support import Api, Drain, make_triage, optimization_body


@pytest.fixture
def path(api: Api, drain: Drain) -> str:
    make_triage(api, cases=60)
    knobs = {**optimization_body()["knobs"], "max_rounds": 3}
    started = api.expect(202, "POST", "/v1/optimizations", optimization_body(seed=7, knobs=knobs))
    drain()
    return f"/v1/optimizations/{started['optimization_id']}"


def candidates(api: Api, path: str) -> list[Any]:
    return list(api.expect(200, "GET", f"{path}/candidates?limit=100")["data"])


def pages_of(api: Api, path: str) -> list[Any]:
    rows, cursor = [], ""
    while cursor is not None:
        page = api.expect(200, "GET", f"{path}?limit=20{cursor and f'&cursor={cursor}'}")
        rows += page["data"]
        cursor = page["next_cursor"]
    return rows


def test_a_candidate_shows_its_way_from_the_seed_and_the_call_that_wrote_it(api: Api, path: str) -> None:
    listed = candidates(api, path)
    youngest = max((one for one in listed if one["operator"] == "reflect"), key=lambda one: one["round"])

    shown = api.expect(200, "GET", f"{path}/candidates/{youngest['ordinal']}")

    assert {name: shown[name] for name in youngest} == youngest
    assert shown["ancestors"][0]["hash"] == youngest["parents"][0]
    assert shown["ancestors"][-1]["operator"] == "seed"
    assert [one["ordinal"] for one in shown["evidence"]] == sorted(youngest["lineage"]["evidence"])
    (proposal,) = shown["proposals"]
    execution = api.expect(200, "GET", f"/v1/executions/{proposal['execution_id']}")
    assert execution["purpose"] == "proposal"
    assert next(iter(youngest["components"].values())).strip() in execution["response_text"]
    parent = api.expect(200, "GET", f"{path}/candidates/{shown['ancestors'][0]['ordinal']}")
    assert youngest["ordinal"] in parent["children"]


def test_the_hash_names_the_same_candidate(api: Api, path: str) -> None:
    one = candidates(api, path)[1]

    assert api.get(f"{path}/candidates/{one['hash']}").get_json() == api.get(f"{path}/candidates/1").get_json()


def test_what_it_scored_adds_up_to_its_mean(api: Api, path: str) -> None:
    run = api.expect(200, "GET", path)
    shown = api.expect(200, "GET", f"{path}/candidates/0")

    rows = pages_of(api, f"{path}/candidates/0/scores")

    by_part = {part: [row["score"] for row in rows if row["part"] == part] for part in ("train", "dev", "holdout")}
    assert {part: len(scores) for part, scores in by_part.items()} == {"train": 18, "dev": 24, "holdout": 18} | {
        "train": len(by_part["train"])
    }
    assert sum(by_part["dev"]) / 24 == pytest.approx(run["result"]["baseline_dev"])
    assert sum(by_part["holdout"]) / 18 == pytest.approx(run["result"]["holdout"]["baseline"])
    assert shown["measured"]["dev"] == {"cases": 24, "scored": 24, "mean": pytest.approx(shown["mean"])}
    assert all(row["status"] == "succeeded" and row["execution_id"] for row in rows)


@pytest.mark.parametrize("reference", ["99", "seed", "0x1", "f" * 64, "9999999999"])
def test_who_is_not_there_is_not_found(api: Api, path: str, reference: str) -> None:
    assert api.get(f"{path}/candidates/{reference}").status_code == 404
    assert api.get(f"{path}/candidates/{reference}/scores").status_code == 404


def test_the_front_has_whoever_nobody_beats_in_everything(api: Api, path: str) -> None:
    shown = api.expect(200, "GET", f"{path}/pareto")

    points = {one["ordinal"]: one for one in shown["data"]}
    assert len(points) + shown["left_out"] == len(candidates(api, path))
    assert 0 in points
    best = max(points.values(), key=lambda one: (one["score"], -one["prompt_tokens"], -one["cost_usd"]))
    assert best["on_front"]

    def beats(one: Any, other: Any) -> bool:
        mine, theirs = ((it["score"], -it["cost_usd"], -it["prompt_tokens"]) for it in (one, other))
        return all(a >= b for a, b in zip(mine, theirs, strict=True)) and mine != theirs

    for point in points.values():
        beaten_by = [one["ordinal"] for one in points.values() if beats(one, point)]
        assert point["dominated_by"] == beaten_by[:10]
        assert point["on_front"] == (not beaten_by)


def test_cost_and_length_are_those_of_the_calls_on_dev(api: Api, path: str) -> None:
    rows = pages_of(api, f"{path}/candidates/0/scores")
    wanted = [row["execution_id"] for row in rows if row["part"] == "dev"]
    (seed, *_) = api.expect(200, "GET", f"{path}/pareto")["data"]

    used = [api.expect(200, "GET", f"/v1/executions/{one}") for one in wanted]

    assert seed["prompt_tokens"] == pytest.approx(sum(one["telemetry"]["prompt_tokens"] for one in used) / len(used))
    assert seed["cost_usd"] == pytest.approx(sum(one["cost_usd"] for one in used) / len(used), abs=1e-9)


def test_a_cost_that_is_not_known_weighs_nothing(api: Api, path: str) -> None:
    with db.transaction() as session:
        session.execute(sa.update(Execution).values(cost_nano=None))

    points = api.expect(200, "GET", f"{path}/pareto")["data"]

    assert {one["cost_usd"] for one in points} == {None}
    assert any(one["on_front"] for one in points)


def test_nothing_is_weighed_before_the_first_step(api: Api) -> None:
    make_triage(api, cases=40)
    started = api.expect(202, "POST", "/v1/optimizations", optimization_body())

    shown = api.expect(200, "GET", f"/v1/optimizations/{started['optimization_id']}/pareto")

    assert shown == {"data": [], "left_out": 0}


def test_equals_do_not_beat_each_other() -> None:
    same = (0.5, 1.0, 10.0)

    assert lineages.dominators([same, same]) == [[], []]
    assert lineages.dominators([same, (0.5, 0.9, 10.0)]) == [[1], []]
    assert lineages.dominators([same, (0.5, None, 9.0)]) == [[1], []]
    assert lineages.dominators([same, (0.6, 1.1, 10.0)]) == [[], []]
    assert lineages.dominators([]) == []


def test_ten_thousand_points_are_weighed_in_seconds() -> None:
    """Each was held against each in Python: a minute of a request."""
    chance = Random(0)
    axes = [(chance.random(), chance.choice([None, chance.random()]), chance.random()) for _ in range(10_000)]
    began = time.process_time()

    found = lineages.dominators(axes)

    assert time.process_time() - began < 10
    for place in range(0, 10_000, 1_000):
        score, cost, tokens = axes[place]
        assert (
            found[place]
            == [
                i
                for i, (s, c, t) in enumerate(axes)
                if s >= score and t <= tokens and (None in (c, cost) or c <= cost) and (s > score or t < tokens)
            ][:10]
        )


def test_a_candidate_of_several_new_texts_shows_the_call_that_wrote_each(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    messages = [
        {"role": "system", "content": 'Reply with JSON like {"category": "...", "priority": "..."}.'},
        {"role": "user", "content": "Ticket:\n{{ ticket }}"},
    ]
    model = {"provider": "simulated", "model_name": "simulated-small", "params": {"temperature": 0.0}}
    api.expect(200, "PUT", "/v1/prompts/chat", {"messages": messages, "set_active": True, "model": model})
    body = optimization_body(prompt_name="chat", strategy="gepa", knobs={"module_selector": "all"})
    path = f"/v1/optimizations/{api.expect(202, 'POST', '/v1/optimizations', body)['optimization_id']}"
    drain()
    made = next(one for one in candidates(api, path) if len(one["lineage"].get("proposals", [])) == 2)

    shown = api.expect(200, "GET", f"{path}/candidates/{made['ordinal']}")

    assert len(shown["proposals"]) == 2
    asked = [api.expect(200, "GET", f"/v1/executions/{one['execution_id']}") for one in shown["proposals"]]
    written = "".join(one["response_text"] for one in asked)
    assert all(text.strip() in written for text in made["components"].values())
    assert [one["ordinal"] for one in shown["evidence"]] == made["lineage"]["evidence"] != []
