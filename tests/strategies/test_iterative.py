"""iterative: hill climbing that accepts by its rule, restarts, and returns the best that it ever found."""

import pytest

from tests.strategies.effects import (
    Effect,
    adaptive_effect,
    adds_a_helpful_word,
    changes_a_tenth,
    two_sentences_in_a_line,
)
from tests.strategies.world import SEED_TEXT, Run, World, run_search
from worker.strategies.contract import Propose

PARAPHRASES = {"operators": {"paraphrase": 1}}
LONG = {"patience": 1000}


def moved(run: Run) -> bool:
    return bool(run.state["own"]["current"] != run.state["candidates"][0]["hash"])


def fresh_rounds(run: Run) -> list[int]:
    return sorted({work.round for work in run.proposals if work.operator == "fresh_start"})


def a_little_worse(text: str, case: int) -> float:
    return 0.5 if text == SEED_TEXT else 0.45


def better_on_most(text: str, case: int) -> float:
    return 0.3 if text == SEED_TEXT else (0.75 if case % 3 else 0.0)


KNOBS = {
    "max_rounds": Effect(
        see=lambda run: (run.state["round"], run.state["finish_reason"]),
        values=(1, 3),
        seen=((1, "max_rounds"), (3, "max_rounds")),
        given={"early_stopping": LONG},
    ),
    "proposals_per_step": Effect(
        see=lambda run: sum(work.round == 1 for work in run.proposals),
        values=(2, 5),
        seen=(2, 5),
        given={"knobs_": PARAPHRASES},
    ),
    "evidence_cases": Effect(see=lambda run: len(run.steps[1].work), values=(3, 7), seen=(3, 7)),
    "acceptance": Effect(
        see=moved, values=("strict", "at_least"), seen=(False, True), world=World(flat=0.5, rewrite=changes_a_tenth)
    ),
    "tolerance": Effect(
        see=moved,
        values=(0.02, 0.1),
        seen=(False, True),
        world=World(score=a_little_worse, rewrite=changes_a_tenth),
        given={"knobs_": {"acceptance": "tolerance", "restarts": 0, "max_stall": 8}},
    ),
    "paired_z": Effect(
        see=moved,
        values=(0.0, 3.0),
        seen=(True, False),
        world=World(score=better_on_most, rewrite=changes_a_tenth),
        given={"knobs_": {"acceptance": "paired"}, "evaluation": {"mode": "full"}},
    ),
    "confirm_cases": Effect(
        see=lambda run: max(len(step.state["own"].get("compared", [])) for step in run.steps),
        values=(0, 5),
        seen=(4, 9),
        given={"evaluation": {"mode": "minibatch"}},
    ),
    "max_stall": Effect(
        see=lambda run: fresh_rounds(run)[:1],
        values=(1, 3),
        seen=([2], [4]),
        world=World(flat=0.5, rewrite=changes_a_tenth),
        given={"knobs_": {**PARAPHRASES, "max_rounds": 6}, "early_stopping": LONG},
    ),
    "restarts": Effect(
        see=lambda run: (len(fresh_rounds(run)), run.state["finish_reason"]),
        values=(0, 2),
        seen=((0, "converged"), (2, "converged")),
        world=World(flat=0.5, rewrite=changes_a_tenth),
        given={"knobs_": {**PARAPHRASES, "max_rounds": 9, "max_stall": 8}, "early_stopping": {"patience": 1}},
    ),
    "operators": Effect(
        see=lambda run: {work.operator for work in run.proposals} - {"fresh_start"},
        values=({"paraphrase": 1}, {"shorten": 1, "elaborate": 1}),
        seen=({"paraphrase"}, {"shorten", "elaborate"}),
    ),
    "adaptive_operators": adaptive_effect({"max_rounds": 12, "proposals_per_step": 6, "max_stall": 100}),
    "edit_level": Effect(
        see=two_sentences_in_a_line,
        values=("line", "sentence"),
        seen=(False, True),
        given={"knobs_": {"operators": {"insert_phrase": 1}}},
    ),
}


def test_it_returns_the_best_and_not_the_last() -> None:
    """Accepting what is a little worse, it wanders away from the one good step."""

    def good_once(work: Propose, text: str) -> str:
        return f"<prompt>\n{'Good' if work.round == 1 else 'Other'} {work.key[:9]}.\n{SEED_TEXT}\n</prompt>"

    run = run_search(
        "iterative",
        World(rewrite=good_once, score=lambda text, case: 0.8 if "Good" in text else 0.75 if "Other" in text else 0.2),
        knobs_={"acceptance": "tolerance", "tolerance": 0.1, "near_dup": 1.0, **PARAPHRASES},
        early_stopping=LONG,
    )

    assert "Other" in run.texts[run.state["own"]["current"]]
    assert "Good" in run.best_text


def test_a_restart_goes_on_from_the_best() -> None:
    world = World(rewrite=changes_a_tenth, score=a_little_worse)

    run = run_search(
        "iterative",
        world,
        knobs_={"acceptance": "tolerance", "tolerance": 0.2, "max_stall": 8, "max_rounds": 6, "near_dup": 1.0},
        early_stopping={"patience": 2},
    )

    assert {work.parent for work in run.proposals if work.operator == "fresh_start"} == {
        run.state["candidates"][0]["hash"]
    }


@pytest.mark.parametrize("rule", ["strict", "at_least", "tolerance", "paired"])
def test_what_is_clearly_better_is_accepted_by_every_rule(rule: str) -> None:
    world = World(rewrite=adds_a_helpful_word, score=lambda text, case: 0.2 if text == SEED_TEXT else 0.6 + case / 1000)

    run = run_search("iterative", world, knobs_={"acceptance": rule, **PARAPHRASES})

    assert moved(run)
    assert run.result["verdict"] == "improved"


def test_each_step_works_on_the_failures_of_the_current_prompt() -> None:
    run = run_search("iterative", World(base=0.1), knobs_={"operators": {"reflect": 1}}, early_stopping=LONG)
    failed = {digest: {item["case"] for item in items} for digest, items in run.state["failures"].items()}
    shown = [work for work in run.proposals if work.operator == "reflect"]

    assert shown
    assert all(work.evidence and set(work.evidence) <= failed[work.parent] for work in shown)
    assert all(len({work.parent for work in shown if work.round == number}) == 1 for number in {w.round for w in shown})
