"""Asking for points without a memory: from the rows alone, the same for the same rows, distinct within a batch."""

import itertools
import time
from random import Random
from typing import Any

import pytest

from shared import spaces
from worker.strategies import trials

SPACE = spaces.plain(
    {
        "temperature": {"low": 0.0, "high": 2.0},
        "max_new_tokens": {"low": 16, "high": 1024},
        "model_name": {"choices": ["a", "b", "c"]},
    }
)
METHODS = ["tpe", "gp", "random", "qmc"]


def worth(point: dict[str, Any]) -> float:
    return 1 - abs(point["temperature"] - 1.5) / 2 - 0.3 * (point["model_name"] != "b")


def course(method: str, *, rounds: int = 12, batch: int = 3, seed: int = 0) -> list[Any]:
    rows: list[Any] = []
    for _ in range(rounds):
        rows += [(point, worth(point)) for point in trials.ask(method, SPACE, rows, count=batch, seed=seed)]
    return rows


@pytest.mark.parametrize("method", METHODS)
def test_the_same_rows_have_the_same_answer_and_another_seed_another(method: str) -> None:
    rows = course(method, rounds=4)

    answers = [trials.ask(method, SPACE, rows, count=3, seed=seed) for seed in (0, 0, 1)]

    assert answers[0] == answers[1] != answers[2]


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_holds_no_point_twice_and_only_points_of_the_space(method: str) -> None:
    for point in trials.ask(method, SPACE, course(method, rounds=4), count=8, seed=3):
        assert 0.0 <= point["temperature"] <= 2.0
        assert isinstance(point["max_new_tokens"], int)
        assert 16 <= point["max_new_tokens"] <= 1024
        assert point["model_name"] in ("a", "b", "c")
    asked = trials.ask(method, SPACE, course(method, rounds=4), count=8, seed=3)
    assert len({str(point) for point in asked}) == 8


@pytest.mark.parametrize("method", ["tpe", "gp"])
def test_a_model_of_the_scores_asks_for_better_points_than_chance(method: str) -> None:
    def late(method: str) -> float:
        return sum(value for seed in range(3) for _, value in course(method, seed=seed)[-12:])

    assert late(method) > late("random") + 5


@pytest.mark.parametrize("method", METHODS)
def test_a_row_without_a_value_is_no_obstacle(method: str) -> None:
    rows = [(point, None if i % 2 else value) for i, (point, value) in enumerate(course(method, rounds=5))]

    assert len(trials.ask(method, SPACE, rows, count=2, seed=0)) == 2


def test_the_points_of_halton_fill_a_range_more_evenly_than_chance() -> None:
    space = spaces.plain({"temperature": {"low": 0.0, "high": 1.0}})

    def widest_gap(method: str) -> float:
        rows: list[Any] = []
        for _ in range(20):
            rows += [(point, 0.0) for point in trials.ask(method, space, rows, count=1, seed=5)]
        places = sorted([0.0, *(point["temperature"] for point, _ in rows), 1.0])
        return max(after - before for before, after in itertools.pairwise(places))

    assert widest_gap("qmc") < 0.11 < widest_gap("random")


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_settings_of_a_space_changes_nothing(method: str) -> None:
    turned = dict(reversed(SPACE.items()))
    rows = course(method, rounds=4)

    assert trials.ask(method, turned, rows, count=4, seed=1) == trials.ask(method, SPACE, rows, count=4, seed=1)


def test_a_gaussian_process_of_thousands_of_rows_models_the_newest() -> None:
    """With all 5,000 that a search may have, one question took minutes and gigabytes."""
    chance = Random(0)
    units = [[chance.random() for _ in SPACE] for _ in range(3_000)]
    points = [trials._point(dict(sorted(SPACE.items())), unit) for unit in units]
    rows = [(point, worth(point)) for point in points]
    began = time.process_time()

    asked = trials.ask("gp", SPACE, rows, count=4, seed=0)

    assert time.process_time() - began < 10
    forgotten = [({**point, "model_name": "a"}, -1.0) for point, _ in rows[:2_500]]
    best = max(rows, key=lambda row: row[1])
    assert trials.ask("gp", SPACE, [*forgotten[:-1], best, *rows[2_500:]], count=4, seed=0) == asked
