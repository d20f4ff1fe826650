"""Which operator makes a child: by weight, or by what its children were worth."""

import json
from collections import Counter
from typing import Any

import pytest

from tests.strategies.world import World, make_spec
from worker.strategies import STRATEGIES, credit, search
from worker.strategies.search import Search

WEIGHTS = {"paraphrase": 3.0, "shorten": 1.0, "reflect": 0.0}


def a_search(**knobs: Any) -> Search:
    problem = World(flat=0.5).problem(make_spec("iterative", knobs_={"near_dup": 1.0, **knobs}))
    found = Search(problem, json.loads(json.dumps(search.start(problem, STRATEGIES["iterative"]).state)))
    found.state["scores"][found.seed] = {str(case): [0.5] for case in found.dev}
    return found


def chosen(found: Search, weights: dict[str, float]) -> Counter[str]:
    return Counter(credit.choose(found, weights, slot) for slot in range(2_000))


def test_operators_are_drawn_by_their_weights() -> None:
    shares = chosen(a_search(), WEIGHTS)

    assert shares.keys() == {"paraphrase", "shorten"}
    assert shares["paraphrase"] / 2_000 == pytest.approx(0.75, abs=0.03)


def test_credit_prefers_what_improved_and_leaves_everybody_a_floor() -> None:
    found = a_search(adaptive_operators=True)
    found.own["credit"] = {"paraphrase": [40, 1], "shorten": [40, 30]}

    shares = chosen(found, WEIGHTS)

    assert shares.keys() == {"paraphrase", "shorten"}
    assert shares["paraphrase"] / 2_000 == pytest.approx(credit.FLOOR, abs=0.015)


def test_without_experience_all_that_take_part_are_alike_whatever_their_weights() -> None:
    shares = chosen(a_search(adaptive_operators=True), WEIGHTS)

    assert shares["paraphrase"] / 2_000 == pytest.approx(0.5, abs=0.04)


def test_all_edits_together_are_the_operator_edit() -> None:
    found = a_search(adaptive_operators=True)
    found.own["credit"] = {"delete": [30, 0], "swap": [30, 1], "paraphrase": [60, 50]}

    assert chosen(found, {"edit": 1, "paraphrase": 1})["edit"] / 2_000 == pytest.approx(credit.FLOOR, abs=0.015)


def test_a_child_is_counted_as_better_than_its_parent_on_the_cases_of_both() -> None:
    found = a_search()
    made = {}
    for text, operator, scores in [
        ("Better {{ ticket }}", "paraphrase", [0.9, 0.9]),
        ("Worse {{ ticket }}", "paraphrase", [0.1, 0.9]),
        ("The same {{ ticket }}", "shorten", [0.5, 0.5]),
        ("Not scored {{ ticket }}", "shorten", []),
    ]:
        child = found.admit({"template": text}, parents=[found.seed], operator=operator, lineage={"slot": 0})
        assert child
        found.state["scores"][child] = {str(case): [score] for case, score in zip(found.dev, scores, strict=False)}
        made[text] = child
    # Where the parent was better than the child: on the second case it has another score than the seed's.
    found.state["scores"][found.seed][str(found.dev[1])] = [0.95]

    credit.settle(found, list(made.values()))

    assert found.own["credit"] == {"paraphrase": [2, 1], "shorten": [1, 0]}


def test_the_same_place_in_the_same_run_draws_the_same_operator() -> None:
    one, again = a_search(adaptive_operators=True), a_search(adaptive_operators=True)

    assert [credit.choose(one, WEIGHTS, i) for i in range(50)] == [credit.choose(again, WEIGHTS, i) for i in range(50)]
