"""The parts of a genetic search: shares of the wheel, sharing, distance, crossover of components."""

import json
from collections import Counter
from random import Random
from typing import Any

import pytest

from shared.hashing import hash_of
from tests.strategies.world import SEED_TEXT, World, make_spec
from worker.strategies import STRATEGIES, breeding, search
from worker.strategies.search import Search

FIT = {"a": 0.6, "b": 0.7, "c": 0.8, "d": 0.9}


def a_search(scores: dict[str, float] | None = None, components: Any = None, **knobs: Any) -> Search:
    """A search after its baseline, with these further texts, each worth the same on every dev case."""
    world = World(flat=0.5)
    problem = world.problem(make_spec("genetic", knobs_=knobs), **({"components": components} if components else {}))
    state = json.loads(json.dumps(search.start(problem, STRATEGIES["genetic"]).state))
    found = Search(problem, {**state, "open": []})
    found.state["scores"][found.seed] = {str(case): [0.5] for case in found.dev}
    for text, score in (scores or {}).items():
        child = found.admit({"template": text}, parents=[found.seed], operator="provided", lineage={"slot": 0})
        assert child
        found.state["scores"][child] = {str(case): [score] for case in found.dev}
    return found


@pytest.mark.parametrize(
    ("knobs", "shares"),
    [
        ({"selection": "rank", "rank_pressure": 2.0}, [0.0, 2 / 3, 4 / 3, 2.0]),
        ({"selection": "rank", "rank_pressure": 1.5}, [0.5, 5 / 6, 7 / 6, 1.5]),
        ({"selection": "roulette", "roulette_scaling": "none"}, [0.6, 0.7, 0.8, 0.9]),
        ({"selection": "roulette", "roulette_scaling": "shift_min"}, [0.0, 0.1, 0.2, 0.3]),
        # The mean is 0.75 and the deviation 0.1118.
        ({"selection": "roulette"}, [0.3292, 0.7764, 1.2236, 1.6708]),
        (
            {"selection": "roulette", "roulette_scaling": "softmax", "softmax_temp": 0.1},
            [0.0498, 0.1353, 0.3679, 1.0],
        ),
    ],
)
def test_the_wheel_has_the_shares_of_its_formula(knobs: dict[str, Any], shares: list[float]) -> None:
    assert list(breeding.wheel(a_search(**knobs), FIT).values()) == pytest.approx(shares, abs=1e-4)


@pytest.mark.parametrize("scaling", ["none", "shift_min", "sigma", "softmax"])
def test_equals_have_equal_shares(scaling: str) -> None:
    shares = breeding.wheel(a_search(selection="roulette", roulette_scaling=scaling), dict.fromkeys("abc", 0.0))

    assert len(set(shares.values())) == 1
    assert min(shares.values()) > 0


def drawn(selection: str, **knobs: Any) -> Counter[str]:
    found = a_search(selection=selection, **knobs)
    return Counter(breeding.draw_parent(found, FIT, Random(i)) for i in range(2_000))


def test_a_tournament_is_won_by_the_best_of_those_who_entered() -> None:
    """Of two out of four the best wins half: in three of six pairs it takes part."""
    shares = drawn("tournament", tournament_size=2)

    assert shares["d"] / 2_000 == pytest.approx(1 / 2, abs=0.04)
    assert shares["a"] == 0
    assert drawn("tournament", tournament_size=4) == {"d": 2_000}


def test_truncation_draws_from_the_better_half_alike() -> None:
    shares = drawn("truncation")

    assert shares.keys() == {"c", "d"}
    assert shares["c"] / 2_000 == pytest.approx(0.5, abs=0.04)


def test_the_front_by_instance_draws_by_the_cases_won() -> None:
    found = a_search(
        {"Be quick. {{ ticket }}": 0.5, "Be slow and sure. {{ ticket }}": 0.5}, selection="pareto_instance"
    )
    seed, quick, slow = found.candidates
    for i, case in enumerate(found.dev):
        found.state["scores"][quick][str(case)] = [0.9 if i < 4 else 0.1]
        found.state["scores"][slow][str(case)] = [0.9 if i < 6 else 0.0]

    shares = breeding.wheel(found, dict.fromkeys((seed, quick, slow), 0.5))

    assert len(found.dev) == 16
    assert shares == pytest.approx({seed: 10.0, quick: 2.0, slow: 4.0})


def test_members_that_are_alike_share_their_fitness() -> None:
    texts = {f"This is one of a kind, number {i}. {{{{ ticket }}}}": 0.6 for i in range(3)}
    found = a_search(texts, sharing_sigma=0.5, near_dup=1.0)
    alone, *family = breeding.fitness(found, list(found.candidates)).items()

    assert alone[1] > max(value for _, value in family)
    assert breeding.fitness(a_search(texts, near_dup=1.0), [family[0][0]])[family[0][0]] == pytest.approx(0.6, abs=0.03)


def test_diversity_is_the_mean_distance_of_two_members() -> None:
    found = a_search({"abcd {{ ticket }}": 0.5, "wxyz {{ ticket }}": 0.5})
    seed, one, other = found.candidates
    pairs = [(seed, one), (seed, other), (one, other)]

    expected = sum(1 - found.similarity(*pair) for pair in pairs) / 3

    assert breeding.diversity(found, [seed, one, other]) == pytest.approx(expected)
    assert breeding.diversity(found, [seed]) == 0.0


def test_components_are_exchanged_whole() -> None:
    seed = {"0_system": "You sort tickets.", "1_user": SEED_TEXT}
    found = a_search(components=seed)
    mate = found.admit(
        {"0_system": "You are exact.", "1_user": f"Look closely.\n{SEED_TEXT}"},
        parents=[found.seed],
        operator="provided",
        lineage={"slot": 0},
    )
    assert mate

    children = {breeding.cross(found, "component", found.seed, mate, slot) for slot in range(20)} - {None}

    assert children == {
        hash_of({"0_system": "You are exact.", "1_user": SEED_TEXT}),
        hash_of({"0_system": "You sort tickets.", "1_user": f"Look closely.\n{SEED_TEXT}"}),
    }
    assert all(found.candidates[child]["parents"] == [found.seed, mate] for child in children if child)


def test_one_component_is_mixed_unit_by_unit_in_place_of_exchanged() -> None:
    found = a_search({f"Be exact.\n{SEED_TEXT}": 0.5, f"Be kind.\nBe fair.\n{SEED_TEXT}": 0.5})
    _, one, other = found.candidates

    children = [child for slot in range(20) if (child := breeding.cross(found, "component", one, other, slot))]

    assert {found.candidates[child]["operator"] for child in children} == {"uniform"}
