"""anneal: chains that move by the rule and the temperature that the knobs ask for."""

from dataclasses import replace
from itertools import pairwise

import pytest

from tests.strategies.effects import COMMON as SHARED
from tests.strategies.effects import (
    Effect,
    adaptive_effect,
    changes_a_tenth,
    two_sentences_in_a_line,
)
from tests.strategies.world import SEED_TEXT, Run, World, fraction, make_cases, run_search
from worker.strategies.contract import Propose

LONG = {"patience": 1000}
REWRITES = {"neighbourhood": "llm", "operators": {"paraphrase": 1}, "near_dup": 1.0}
ONE_CHAIN = {**REWRITES, "chains": 1, "proposals_per_step": 1, "epochs": 6, "reheat_max": 0}
WARM = {**ONE_CHAIN, "initial_temp": 0.1}
FLAT = World(flat=0.5, rewrite=changes_a_tenth)


def temperatures(run: Run) -> list[float]:
    return [round(point["temperature"], 4) for point in run.state["curve"]]


def moves(run: Run) -> list[float]:
    return [point["accepted"] for point in run.state["curve"]]


def a_tenth_worse(text: str, case: int) -> float:
    return 0.5 if text == SEED_TEXT else 0.4


def up_and_down(text: str, case: int) -> float:
    return 0.5 if text == SEED_TEXT else 0.3 + 0.4 * fraction("wild", text)


def split_in_two(text: str, case: int) -> float:
    """The same on average as the seed on many cases, and far from it on each."""
    return 0.5 if text == SEED_TEXT else float(fraction("split", text, case) < 0.55)


def phrases(run: Run) -> int:
    return max(text.count("\n") for text in run.texts.values()) - SEED_TEXT.count("\n")


KNOBS = {
    **{
        name: replace(SHARED[name], given={"knobs_": {"neighbourhood": "llm", "operators": {"reflect": 1}}})
        for name in ("length_penalty", "errors_in_context", "finalists")
    },
    "epochs": Effect(
        see=lambda run: (len(run.state["curve"]), run.state["finish_reason"]),
        values=(1, 3),
        seen=((1, "max_rounds"), (3, "max_rounds")),
        given={"early_stopping": LONG},
    ),
    "moves_per_temp": Effect(
        see=temperatures,
        values=(1, 2),
        seen=([0.1, 0.092], [0.1, 0.1, 0.092, 0.092]),
        world=FLAT,
        given={"knobs_": {**WARM, "epochs": 2}, "early_stopping": LONG},
    ),
    "proposals_per_step": Effect(
        see=lambda run: sum(work.round == 1 for work in run.proposals),
        values=(1, 3),
        seen=(2, 6),
        given={"knobs_": {**REWRITES, "initial_temp": 0.1}},
    ),
    "chains": Effect(see=lambda run: len(run.state["own"]["chains"]), values=(1, 3), seen=(1, 3)),
    "exchange_every": Effect(
        see=lambda run: len({chain["current"] for chain in run.state["own"]["chains"]}),
        values=(0, 1),
        seen=(2, 1),
        world=World(score=up_and_down, rewrite=changes_a_tenth),
        given={
            "knobs_": {**REWRITES, "acceptance": "greedy", "proposals_per_step": 1, "epochs": 6},
            "early_stopping": LONG,
        },
    ),
    "acceptance": Effect(
        see=lambda run: any(moves(run)), values=("greedy", "metropolis"), seen=(False, True), world=FLAT
    ),
    "schedule": Effect(
        see=temperatures,
        values=("geometric", "linear"),
        seen=([0.1, 0.092, 0.0846, 0.0779], [0.1, 0.0673, 0.0347, 0.002]),
        world=FLAT,
        given={"knobs_": {**WARM, "epochs": 4}, "early_stopping": LONG},
    ),
    "initial_temp": Effect(
        see=lambda run: temperatures(run)[0],
        values=(0.05, 0.5),
        seen=(0.05, 0.5),
        world=FLAT,
        given={"knobs_": ONE_CHAIN},
    ),
    "min_temp": Effect(
        see=temperatures,
        values=(0.002, 0.09),
        seen=([0.1, 0.092, 0.0846, 0.0779], [0.1, 0.092, 0.09, 0.09]),
        world=FLAT,
        given={"knobs_": {**WARM, "epochs": 4}, "early_stopping": LONG},
    ),
    "cooling_rate": Effect(
        see=lambda run: temperatures(run)[:3],
        values=(0.5, 0.9),
        seen=([0.1, 0.05, 0.025], [0.1, 0.09, 0.081]),
        world=FLAT,
        given={"knobs_": WARM, "early_stopping": LONG},
    ),
    "step_size": Effect(
        see=lambda run: temperatures(run)[:3],
        values=(None, 0.01),
        seen=([0.1, 0.0804, 0.0608], [0.1, 0.09, 0.08]),
        world=FLAT,
        given={"knobs_": {**WARM, "schedule": "linear"}, "early_stopping": LONG},
    ),
    "target_acceptance": Effect(
        see=lambda run: temperatures(run)[-1],
        values=(0.02, 0.9),
        seen=(0.0098, 0.0147),
        world=World(score=up_and_down, rewrite=changes_a_tenth),
        given={"knobs_": {**WARM, "initial_temp": 0.02, "schedule": "adaptive"}, "early_stopping": LONG},
    ),
    "window": Effect(
        see=lambda run: temperatures(run)[-1],
        values=(2, 20),
        seen=(0.0417, 0.0055),
        world=World(score=up_and_down, rewrite=changes_a_tenth),
        given={"knobs_": {**WARM, "schedule": "adaptive", "epochs": 14}, "early_stopping": LONG},
    ),
    "calibration_moves": Effect(
        see=lambda run: sum(work.round == 1 for work in run.proposals),
        values=(2, 5),
        seen=(2, 5),
        given={"knobs_": REWRITES},
    ),
    "initial_acceptance": Effect(
        see=lambda run: round(run.state["own"]["initial"], 4),
        values=(0.1, 0.9),
        seen=(0.0434, 0.9491),  # -0.1 / ln of it
        world=World(score=a_tenth_worse, rewrite=changes_a_tenth),
        given={"knobs_": ONE_CHAIN},
    ),
    "noise_penalty": Effect(
        see=lambda run: any(moves(run)),
        values=(0.0, 4.0),
        seen=(True, False),
        world=World(score=split_in_two, rewrite=changes_a_tenth),
        given={"knobs_": {**WARM, "acceptance": "noisy_metropolis", "initial_temp": 0.02}, "early_stopping": LONG},
    ),
    "threshold": Effect(
        see=lambda run: moves(run)[0],
        values=(0.01, 0.2),
        seen=(0.0, 1.0),
        world=World(score=a_tenth_worse, rewrite=changes_a_tenth),
        given={"knobs_": {**ONE_CHAIN, "acceptance": "threshold"}},
    ),
    "history": Effect(
        see=lambda run: sum(moves(run)),
        values=(1, 6),
        seen=(2.0, 6.0),
        world=World(score=up_and_down, rewrite=changes_a_tenth),
        given={"knobs_": {**ONE_CHAIN, "epochs": 12, "acceptance": "late_acceptance"}, "early_stopping": LONG},
    ),
    "reheat_stall_steps": Effect(
        see=lambda run: next(
            s.state["round"] for s in run.steps if any(c["reheats"] for c in s.state["own"].get("chains", []))
        ),
        values=(1, 3),
        seen=(2, 4),
        world=FLAT,
        given={"knobs_": {**WARM, "reheat_max": 1}, "early_stopping": LONG},
    ),
    "reheat_factor": Effect(
        see=lambda run: temperatures(run)[:4],
        values=(0.3, 0.9),
        seen=([0.1, 0.05, 0.025, 0.025], [0.1, 0.05, 0.025, 0.05]),
        world=FLAT,
        given={
            "knobs_": {**WARM, "reheat_max": 1, "reheat_stall_steps": 3, "cooling_rate": 0.5},
            "early_stopping": LONG,
        },
    ),
    "reheat_max": Effect(
        see=lambda run: run.state["own"]["chains"][0]["reheats"],
        values=(0, 2),
        seen=(0, 2),
        world=FLAT,
        given={"knobs_": {**WARM, "reheat_stall_steps": 2}, "early_stopping": LONG},
    ),
    "neighbourhood": Effect(see=lambda run: bool(run.proposals), values=("llm", "edit"), seen=(True, False)),
    "edit_weight": Effect(
        see=lambda run: bool(run.proposals),
        values=(0.0, 1.0),
        seen=(True, False),
        given={"knobs_": {"neighbourhood_scale": "fixed"}},
    ),
    "edits_per_move": Effect(
        see=phrases,
        values=(1, 4),
        seen=(1, 4),
        given={
            "knobs_": {
                "neighbourhood": "edit",
                "operators": {"insert_phrase": 1},
                "neighbourhood_scale": "fixed",
                "acceptance": "greedy",
                "chains": 1,
                "edit_level": "line",
                "epochs": 1,
            }
        },
    ),
    "neighbourhood_scale": Effect(
        # At the first temperature every move is a large one.
        see=lambda run: sum(work.round == 2 for work in run.proposals) == 12,
        values=("fixed", "temperature"),
        seen=(False, True),
        given={
            "knobs_": {"operators": {"restructure": 1, "insert_phrase": 1}, "edit_weight": 0.9, "proposals_per_step": 6}
        },
    ),
    "evidence_cases": Effect(see=lambda run: len(run.steps[1].work), values=(3, 7), seen=(3, 7)),
    "operators": Effect(
        see=lambda run: {work.operator for work in run.proposals},
        values=({"paraphrase": 1}, {"shorten": 1, "elaborate": 1}),
        seen=({"paraphrase"}, {"shorten", "elaborate"}),
        given={"knobs_": {"neighbourhood": "llm", "neighbourhood_scale": "fixed"}},
    ),
    "adaptive_operators": adaptive_effect(
        {"neighbourhood": "llm", "neighbourhood_scale": "fixed", "acceptance": "greedy", "epochs": 14}
    ),
    "edit_level": Effect(
        see=two_sentences_in_a_line,
        values=("line", "sentence"),
        seen=(False, True),
        given={"knobs_": {"neighbourhood": "edit", "operators": {"insert_phrase": 1}}},
    ),
}


def good_once_then_worse(work: Propose, text: str) -> str:
    return f"<prompt>\n{'Good' if work.round == 1 else 'Other'} {work.key[:30]}.\n{SEED_TEXT}\n</prompt>"


WANDERS = World(
    rewrite=good_once_then_worse,
    score=lambda text, case: 0.8 if "Good" in text else 0.75 if "Other" in text else 0.4,
)


def test_a_chain_that_stalls_goes_on_from_its_best_and_counts_anew() -> None:
    run = run_search(
        "anneal",
        WANDERS,
        knobs_={**WARM, "initial_temp": 10.0, "reheat_max": 1, "reheat_stall_steps": 3, "epochs": 6},
        early_stopping=LONG,
    )
    parents = [run.texts[work.parent] for work in run.proposals]

    assert "Good" in parents[1]
    assert all("Other" in parent for parent in parents[2:4])
    assert "Good" in parents[4], "after three moves without a new best"
    assert "Other" in parents[5]


def test_it_returns_the_best_though_its_chains_are_elsewhere() -> None:
    run = run_search("anneal", WANDERS, knobs_={**WARM, "initial_temp": 10.0}, early_stopping=LONG)

    assert "Other" in run.texts[run.state["own"]["chains"][0]["current"]]
    assert "Good" in run.best_text
    assert [point["best"] for point in run.state["curve"]] == pytest.approx([0.8] * 6)


def test_all_moves_of_a_round_are_compared_on_the_same_cases() -> None:
    run = run_search("anneal", knobs_={"chains": 3}, early_stopping=LONG)
    dev = set(run.state["dev"])

    for i, step in enumerate(run.steps):
        fresh = {item["hash"] for item in step.state["candidates"] if item["round"] == step.state["round"]}
        lists = {
            tuple(cases)
            for one, cases in run.cases_of(i).items()
            if one in fresh and len(cases) < 8 and set(cases) <= dev
        }
        assert len(lists) <= 1


def test_noise_makes_later_rounds_larger() -> None:
    run = run_search(
        "anneal",
        World(rewrite=changes_a_tenth),
        knobs_={**WARM, "acceptance": "noisy_metropolis", "initial_temp": 1.0, "cooling_rate": 0.4, "epochs": 5},
        early_stopping=LONG,
    )
    sizes = [len(step.state["own"]["cases"]) for step in run.steps if "cases" in step.state["own"]]

    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (4, 16)


def test_patience_reheats_before_it_ends_a_run() -> None:
    knobs = {**WARM, "epochs": 12, "reheat_stall_steps": 100}
    ended = {
        most: run_search("anneal", FLAT, knobs_={**knobs, "reheat_max": most}, early_stopping={"patience": 2})
        for most in (0, 2)
    }

    assert {most: len(run.state["curve"]) for most, run in ended.items()} == {0: 2, 2: 6}
    assert {run.state["finish_reason"] for run in ended.values()} == {"converged"}


def test_a_chain_forgets_its_best_only_for_what_is_better_where_both_were_tried() -> None:
    """Each round has other cases here, so the best was hardly ever tried on all of them."""
    replaced = 0
    for salt in range(6):
        run = run_search(
            "anneal",
            World(cases=make_cases(120), salt=salt),
            knobs_={**REWRITES, "operators": {"reflect": 1}, "initial_temp": 0.3, "epochs": 8, "reheat_max": 0},
            evaluation={"case_order": "shuffled_per_round", "min_cases": 8},
            early_stopping=LONG,
        )
        for before, after in pairwise(run.steps):
            was, became = (step.state["own"].get("chains", [])[:1] for step in (before, after))
            if not was or not became or was[0]["best"] == became[0]["best"]:
                continue
            scores = [after.state["scores"][chain["best"]] for chain in (became[0], was[0])]
            both = [case for case in map(str, after.state["dev"]) if all(case in known for known in scores)]
            new, old = (sum(known[case][0] for case in both) / len(both) for known in scores)
            assert new > old
            replaced += 1
    assert replaced > 5
