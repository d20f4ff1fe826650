"""genetic: a population whose members are drawn, crossed, changed and replaced as the knobs say."""

from itertools import pairwise
from typing import Any

import pytest

from tests.strategies.effects import COMMON as SHARED
from tests.strategies.effects import (
    Effect,
    adaptive_effect,
    adds_a_helpful_word,
    changes_a_tenth,
    longer_is_better,
    operators_used,
    two_sentences_in_a_line,
)
from tests.strategies.world import SEED_TEXT, Run, World, fraction, run_search
from worker.strategies.contract import Propose

LONG = {"patience": 1000}
CHANGED = World(rewrite=changes_a_tenth)
FLAT = World(flat=0.5, rewrite=changes_a_tenth)
PARAPHRASES = {"mutation_mix": {"paraphrase": 1}, "near_dup": 1.0, "min_distance": 0.0}
ALONE = {**PARAPHRASES, "crossover_rate": 0.0}  # no child has two parents


def generation(run: Run, number: int = 2) -> list[dict[str, Any]]:
    """The candidates of a round; the first round is the first population."""
    return [item for item in run.state["candidates"] if item["round"] == number]


def parents_of(run: Run) -> list[int]:
    """By their places among all candidates, how often each of the first population was a first parent."""
    order = list(run.texts)
    found = [order.index(item["parents"][0]) for item in run.state["candidates"] if item["round"] > 1]
    return sorted(found)


def in_steps(text: str, case: int) -> float:
    """Each text has its own worth, between 0.3 and 0.7."""
    return 0.5 if text == SEED_TEXT else 0.3 + 0.4 * fraction("worth", text)


STEPS = World(score=in_steps, rewrite=changes_a_tenth)
WIDE = {**ALONE, "population_size": 8, "generations": 1, "elitism": 0, "immigrants": 0.0, "offspring": 40}


def wheel(selection: dict[str, Any], see: Any = None) -> dict[str, Any]:
    return {"given": {"knobs_": {**WIDE, **selection}, "budget": {"max_task_calls": 5000}}, "world": STEPS}


def worth_of_parents(run: Run) -> float:
    """The mean true worth of the first parents of the first generation, to the second digit."""
    found = [in_steps(run.texts[item["parents"][0]], 0) for item in generation(run)]
    return round(sum(found) / len(found), 2)


def of_one_family_but_for_one(work: Propose, text: str) -> str:
    if work.slot == 3:
        return "<prompt>\nQuite different words for a change: {{ ticket }}\n</prompt>"
    return f"<prompt>\nThis family of prompts says nearly the same, with {work.slot}.\n{SEED_TEXT}\n</prompt>"


def most_on_their_way(run: Run) -> int:
    return max(len(step.state["own"].get("flight", [])) for step in run.steps)


def distinct_parents(run: Run) -> int:
    return len(set(parents_of(run)))


KNOBS = {
    "length_penalty": Effect(
        **{**vars(SHARED["length_penalty"]), "given": {"knobs_": {**ALONE, "immigrants": 0.0}}},
    ),
    "errors_in_context": Effect(
        **{
            **vars(SHARED["errors_in_context"]),
            "given": {"knobs_": {"mutation_mix": {"reflect": 1}, "crossover_rate": 0.0}},
        },
    ),
    "population_size": Effect(
        see=lambda run: max(len(step.state["own"].get("population", [])) for step in run.steps),
        values=(3, 6),
        seen=(3, 6),
        world=CHANGED,
        given={"knobs_": PARAPHRASES},
    ),
    "generations": Effect(
        see=lambda run: (run.state["round"], run.state["finish_reason"]),
        values=(1, 3),
        seen=((2, "max_rounds"), (4, "max_rounds")),
        given={"early_stopping": LONG},
    ),
    "offspring": Effect(
        see=lambda run: len(generation(run)),
        values=(2, 5),
        seen=(2, 5),
        world=CHANGED,
        given={"knobs_": {**ALONE, "immigrants": 0.0}},
    ),
    "init": Effect(
        see=lambda run: {item["operator"] for item in generation(run, 1)} - {"seed"},
        values=("paraphrase", "fresh_start"),
        seen=({"paraphrase"}, {"fresh_start"}),
        world=CHANGED,
        given={"knobs_": {"near_dup": 1.0}},
    ),
    "initial_prompts": Effect(
        see=lambda run: [run.texts[item["hash"]] for item in generation(run, 1) if item["operator"] == "provided"],
        values=(["Sort this: {{ ticket }}"], ["Which is it? {{ ticket }}", "Label it. {{ ticket }}"]),
        seen=(["Sort this: {{ ticket }}"], ["Which is it? {{ ticket }}", "Label it. {{ ticket }}"]),
        given={"knobs_": {"init": "provided"}},
    ),
    "selection": Effect(see=distinct_parents, values=("tournament", "truncation"), seen=(5, 4), **wheel({})),
    "tournament_size": Effect(see=distinct_parents, values=(2, 8), seen=(6, 1), **wheel({})),
    "rank_pressure": Effect(see=worth_of_parents, values=(1.01, 2.0), seen=(0.56, 0.6), **wheel({"selection": "rank"})),
    "roulette_scaling": Effect(
        see=worth_of_parents, values=("none", "softmax"), seen=(0.56, 0.59), **wheel({"selection": "roulette"})
    ),
    "softmax_temp": Effect(
        see=distinct_parents,
        values=(0.01, 10.0),
        seen=(1, 8),
        **wheel({"selection": "roulette", "roulette_scaling": "softmax"}),
    ),
    "crossover_rate": Effect(
        see=lambda run: max(len(item["parents"]) for item in run.state["candidates"]),
        values=(0.0, 1.0),
        seen=(1, 2),
        world=CHANGED,
        given={"knobs_": PARAPHRASES},
    ),
    "crossover_operator": Effect(
        see=lambda run: operators_used(run) & {"one_point", "uniform", "crossover_llm", "de_llm"},
        values=("llm", "one_point"),
        seen=({"crossover_llm"}, {"one_point"}),
        world=CHANGED,
        given={"knobs_": {**PARAPHRASES, "crossover_rate": 1.0, "mutation_rate": 0.0, "edit_level": "line"}},
    ),
    "uniform_prob": Effect(
        see=lambda run: any(item["operator"] == "uniform" for item in run.state["candidates"]),
        values=(0.001, 0.5),
        seen=(False, True),
        world=CHANGED,
        given={
            "knobs_": {
                **PARAPHRASES,
                "crossover_operator": "uniform",
                "crossover_rate": 1.0,
                "mutation_rate": 0.0,
                "edit_level": "line",
            }
        },
    ),
    "mutation_rate": Effect(
        see=lambda run: sum(
            item["reason"] == "changed further before it was scored" for item in run.state["candidates"]
        ),
        values=(0.0, 1.0),
        seen=(0, 6),
        world=World(rewrite=changes_a_tenth),
        given={"knobs_": {**PARAPHRASES, "crossover_rate": 1.0}},
    ),
    "adaptive_mutation": Effect(
        see=lambda run: [point["mutation_rate"] for point in run.state["curve"]],
        values=(False, True),
        seen=([0.5, 0.5, 0.5, 0.5], [0.5, 0.75, 0.8, 0.8]),
        world=FLAT,
        given={"early_stopping": LONG},
    ),
    "mutation_min": Effect(
        see=lambda run: run.state["curve"][1]["mutation_rate"],
        values=(0.1, 0.45),
        seen=(0.4, 0.45),
        world=World(rewrite=adds_a_helpful_word, score=longer_is_better),
        given={"knobs_": {"adaptive_mutation": True, **PARAPHRASES}},
    ),
    "mutation_max": Effect(
        see=lambda run: run.state["curve"][1]["mutation_rate"],
        values=(0.6, 0.9),
        seen=(0.6, 0.75),
        world=FLAT,
        given={"knobs_": {"adaptive_mutation": True}},
    ),
    "mutation_mix": Effect(
        see=lambda run: {item["operator"] for item in run.state["candidates"] if item["round"] > 1},
        values=({"paraphrase": 1}, {"shorten": 1, "elaborate": 1}),
        seen=({"paraphrase"}, {"shorten", "elaborate"}),
        world=CHANGED,
        given={"knobs_": {"crossover_rate": 0.0, "immigrants": 0.0, "restart_stall": 0, "near_dup": 1.0}},
    ),
    "adaptive_operators": adaptive_effect(
        {"generations": 12, "population_size": 8, "crossover_rate": 0.0, "immigrants": 0.0}, "mutation_mix"
    ),
    "elitism": Effect(
        see=lambda run: SEED_TEXT in [run.texts[one] for one in run.state["own"]["population"]],
        values=(0, 1),
        seen=(False, True),
        world=World(rewrite=changes_a_tenth, score=lambda text, case: 0.5 if text == SEED_TEXT else 0.2),
        given={"knobs_": {**ALONE, "replacement": "generational", "generations": 1, "offspring": 5, "immigrants": 0.0}},
    ),
    "replacement": Effect(
        see=lambda run: len(generation(run)),
        values=("plus", "steady_state"),
        seen=(5, 3),
        world=CHANGED,
        given={"knobs_": {**ALONE, "population_size": 6, "immigrants": 0.0}},
    ),
    "async_window": Effect(
        see=most_on_their_way,
        values=(1, 5),
        seen=(1, 5),
        world=CHANGED,
        given={"knobs_": {**ALONE, "population_size": 6, "immigrants": 0.0, "replacement": "steady_state"}},
    ),
    "min_distance": Effect(
        see=lambda run: any("to a member" in item["reason"] for item in run.state["candidates"]),
        values=(0.0, 0.9),
        seen=(False, True),
        world=CHANGED,
        given={"knobs_": {"near_dup": 1.0}},
    ),
    "diversity_threshold": Effect(
        see=lambda run: sum(item["operator"] == "fresh_start" for item in run.state["candidates"]) > 0,
        values=(0.0, 1.0),
        seen=(False, True),
        world=CHANGED,
        given={"knobs_": {"near_dup": 1.0, "restart_stall": 0}},
    ),
    "immigrants": Effect(
        see=lambda run: sum(work.operator == "fresh_start" and work.round == 2 for work in run.proposals),
        values=(0.0, 0.5),
        seen=(0, 2),
        world=CHANGED,
        given={"knobs_": {"diversity_threshold": 1.0, "near_dup": 1.0}},
    ),
    "sharing_sigma": Effect(
        # Seven of a kind share what they are worth; the one that is not of their kind has children.
        see=lambda run: {run.texts[item["parents"][0]].split()[0] for item in generation(run)},
        values=(0.0, 0.6),
        seen=({"This"}, {"Quite"}),
        world=World(
            rewrite=of_one_family_but_for_one,
            score=lambda text, case: 0.6 if "family" in text else 0.5 if "Quite" in text else 0.1,
        ),
        given={"knobs_": {**WIDE, "tournament_size": 8}},
    ),
    "restart_stall": Effect(
        see=lambda run: next((work.round for work in run.proposals if work.operator == "fresh_start"), None),
        values=(0, 1),
        seen=(None, 2),
        world=FLAT,
        given={"knobs_": {"immigrants": 0.0}, "early_stopping": LONG},
    ),
    "restart_keep": Effect(
        see=lambda run: sum(work.operator == "fresh_start" and work.round == 3 for work in run.proposals),
        values=(1, 3),
        seen=(3, 1),
        world=FLAT,
        given={"knobs_": {"immigrants": 0.0, "restart_stall": 1}, "early_stopping": LONG},
    ),
    "survivors_by": Effect(
        see=lambda run: max(map(len, run.cases_of(2).values())),
        values=("score", "halving"),
        seen=(16, 4),
        world=CHANGED,
    ),
    "evidence_cases": Effect(
        see=lambda run: next(
            len(run.cases_of(i, seed=True)[work.parent])
            for i, step in enumerate(run.steps)
            for work in [w for w in run.proposals if w.operator == "reflect"][:1]
            if set(run.cases_of(i).get(work.parent, [])) <= set(run.state["train"]) and run.cases_of(i).get(work.parent)
        ),
        values=(3, 7),
        seen=(3, 7),
        world=World(base=0.0),
        given={"knobs_": {"mutation_mix": {"reflect": 1}, "crossover_rate": 0.0}},
    ),
    "edit_level": Effect(
        see=two_sentences_in_a_line,
        values=("line", "sentence"),
        seen=(False, True),
        given={"knobs_": {"mutation_mix": {"edit": 1}, "init": "edit"}},
    ),
}


@pytest.mark.parametrize("operator", ["llm", "de", "one_point", "two_point", "uniform", "component"])
def test_every_child_has_an_operator_of_its_own_and_no_clone_is_scored(operator: str) -> None:
    run = run_search(
        "genetic",
        World(rewrite=changes_a_tenth),
        knobs_={
            "crossover_operator": operator,
            "population_size": 6,
            "edit_level": "line",
            "near_dup": 1.0,
            "crossover_rate": 0.5,
            "mutation_rate": 0.1,
        },
        early_stopping=LONG,
    )
    scored = {work.candidate for work in run.evaluations}

    assert len(set(run.texts.values())) == len(run.texts)
    assert all(item["parents"] and item["operator"] for item in run.state["candidates"][1:])
    assert not scored & {
        item["hash"] for item in run.state["candidates"] if item["reason"] == "changed further before it was scored"
    }
    assert any(len(item["parents"]) > 1 for item in run.state["candidates"])


def test_a_child_of_differences_has_its_base_two_others_and_the_best() -> None:
    run = run_search(
        "genetic",
        World(score=in_steps, rewrite=changes_a_tenth),
        knobs_={
            **PARAPHRASES,
            "crossover_operator": "de",
            "crossover_rate": 1.0,
            "population_size": 5,
            "immigrants": 0.0,
        },
        early_stopping=LONG,
    )
    asked = [work for work in run.proposals if work.operator == "de_llm"]

    assert asked
    assert all(len(work.mates) == 3 and work.mates[0] != work.mates[1] for work in asked)
    assert all(work.messages[-1]["content"].count("<other>") == 3 for work in asked)


@pytest.mark.parametrize("replacement", ["generational", "plus", "steady_state"])
def test_the_population_keeps_its_size_and_its_elite(replacement: str) -> None:
    run = run_search(
        "genetic",
        STEPS,
        knobs_={
            **ALONE,
            "population_size": 5,
            "elitism": 2,
            "replacement": replacement,
            "immigrants": 0.0,
            "restart_stall": 0,
        },
        early_stopping=LONG,
    )
    populations = {step.state["round"]: step.state["own"]["population"] for step in run.steps if step.state["curve"]}
    worth = {one: in_steps(text, 0) for one, text in run.texts.items()}

    assert {len(members) for members in populations.values()} == {5}
    rounds = sorted(populations)
    for before, after in pairwise(rounds):
        elite = sorted(populations[before], key=lambda one: -worth[one])[:1]
        assert set(elite) <= set(populations[after])


STEADY: dict[str, Any] = {**ALONE, "population_size": 6, "replacement": "steady_state", "restart_stall": 0}


def test_children_are_asked_for_while_others_are_scored() -> None:
    run = run_search(
        "genetic",
        STEPS,
        knobs_={**STEADY, "mutation_mix": {"paraphrase": 1, "edit": 1}, "async_window": 4, "generations": 6},
        early_stopping=LONG,
    )

    kinds = [{type(work).__name__ for work in step.work} for step in run.steps]
    assert {"Evaluate", "Propose"} in kinds


def test_a_child_is_bred_from_all_that_were_seated_before_its_birth() -> None:
    """With one on its way each may be the parent of the next; a generation would have to end first."""

    def fast_heirs(window: int) -> int:
        """Children of a child that was born in the same round."""
        knobs = {**STEADY, "population_size": 8, "immigrants": 0.0, "async_window": window, "tournament_size": 8}
        world = World(rewrite=adds_a_helpful_word, score=longer_is_better)
        run = run_search("genetic", world, knobs_=knobs, early_stopping=LONG)
        rounds = {item["hash"]: item["round"] for item in run.state["candidates"]}
        later = [item for item in run.state["candidates"] if item["round"] > 1]
        return sum(rounds[item["parents"][0]] == item["round"] for item in later)

    assert fast_heirs(1) > 0
    assert fast_heirs(1) > fast_heirs(8)


def test_a_child_takes_the_place_of_the_worst_and_only_if_it_is_better() -> None:
    run = run_search("genetic", STEPS, knobs_={**STEADY, "generations": 6, "elitism": 0}, early_stopping=LONG)
    worth = {one: in_steps(text, 0) for one, text in run.texts.items()}
    members = [step.state["own"].get("population") for step in run.steps if "flight" in step.state["own"]]

    changes = [(before, after) for before, after in pairwise(members) if before != after]
    assert changes
    for before, after in changes:
        gone, come = set(before) - set(after), set(after) - set(before)
        assert len(gone) == len(come)
        assert min(worth[one] for one in come) > max(worth[one] for one in gone)
        assert max(worth[one] for one in gone) <= min(worth[one] for one in set(before) & set(after))


def test_it_ends_after_as_many_children_as_generations_of_half_a_population_have() -> None:
    run = run_search(
        "genetic", STEPS, knobs_={**STEADY, "generations": 4, "near_dup": 1.0, "immigrants": 0.0}, early_stopping=LONG
    )
    born = [item for item in run.state["candidates"] if item["round"] > 1]

    assert (run.state["finish_reason"], len(run.state["curve"])) == ("max_rounds", 5)
    assert 4 * 3 <= run.state["own"]["born"] <= 4 * 3 + 3
    assert len([item for item in born if not item["reason"].startswith("the search ended")]) <= 4 * 3 + 3


def test_the_best_of_a_crowd_is_confirmed_though_it_shares_its_fitness() -> None:
    """With sharing_sigma the leader was once the member with the most shared fitness, and not the best."""
    run = run_search(
        "genetic",
        World(
            rewrite=of_one_family_but_for_one,
            score=lambda text, case: 0.6 if "family" in text else 0.5 if "Quite" in text else 0.1,
        ),
        knobs_={**WIDE, "sharing_sigma": 0.6},
    )
    first = next(step.state for step in run.steps if step.state["curve"])

    assert first["curve"][0]["best"] == pytest.approx(0.6)


def test_what_was_provided_fills_up_with_paraphrases() -> None:
    run = run_search(
        "genetic",
        World(rewrite=changes_a_tenth),
        knobs_={"init": "provided", "initial_prompts": ["Sort this: {{ ticket }}", "No variable."], "near_dup": 1.0},
    )
    first = [item["operator"] for item in generation(run, 1)]

    assert first == ["provided", "paraphrase", "paraphrase"]
