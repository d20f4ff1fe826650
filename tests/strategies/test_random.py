"""random, the control: variations of the seed and of nothing else."""

import pytest

from tests.strategies.effects import Effect, adds_a_helpful_word, two_sentences_in_a_line
from tests.strategies.world import World, run_search

KNOBS = {
    "proposals": Effect(see=lambda run: len(run.proposals), values=(3, 7), seen=(3, 7)),
    "mode": Effect(
        see=lambda run: {work.operator for work in run.proposals},
        values=("paraphrase", "fresh_start"),
        seen=({"paraphrase"}, {"fresh_start"}),
    ),
    "edit_level": Effect(
        see=two_sentences_in_a_line,
        values=("line", "sentence"),
        seen=(False, True),
        given={"knobs_": {"mode": "edit", "near_dup": 1.0}},
    ),
    "errors_in_context": Effect(
        see=lambda run: {len(work.evidence) for work in run.proposals},
        values=(2, 5),
        seen=({2}, {5}),
        given={"knobs_": {"mode": "fresh_start"}},
    ),
}


def test_every_candidate_is_a_child_of_the_seed() -> None:
    run = run_search("random", knobs_={"proposals": 20})
    seed, *others = run.state["candidates"]

    assert len(others) > 5
    assert {tuple(item["parents"]) for item in others} == {(seed["hash"],)}


def test_edits_ask_no_proposer() -> None:
    run = run_search("random", knobs_={"mode": "edit", "proposals": 12, "near_dup": 1.0})

    assert run.proposals == []
    assert {item["operator"] for item in run.state["candidates"]} > {"seed", "insert_phrase"}


def test_the_seed_decides_the_edits() -> None:
    made = [list(run_search("random", knobs_={"mode": "edit", "near_dup": 1.0}, seed=seed).texts) for seed in (7, 7, 8)]

    assert made[0] == made[1]
    assert made[0] != made[2]


@pytest.mark.parametrize(
    ("early_stopping", "reason"),
    [({}, "max_rounds"), ({"target_score": 0.24}, "target_reached"), ({"target_score": 0.9}, "max_rounds")],
)
def test_reaching_the_target_is_said(early_stopping: dict[str, float], reason: str) -> None:
    world = World(score=lambda text, case: 0.2 if text.startswith("Sort") else 0.25, rewrite=adds_a_helpful_word)

    run = run_search("random", world, early_stopping=early_stopping)

    assert run.state["finish_reason"] == reason


def test_every_finalist_is_confirmed_on_the_whole_dev_split() -> None:
    run = run_search("random", knobs_={"finalists": 3})
    dev = {str(case) for case in run.state["dev"]}
    complete = [digest for digest, scores in run.state["scores"].items() if dev <= set(scores)]

    assert len(complete) >= 3
    assert run.result["best"] in complete
