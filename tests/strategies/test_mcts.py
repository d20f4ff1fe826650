"""mcts: better than random at the same price, and what each of its knobs does."""

from statistics import mean
from typing import Any

from tests.strategies.effects import RISING, Effect, adaptive_effect, two_sentences_in_a_line
from tests.strategies.world import Run, World, gains_and_loses_some, make_cases, run_search, words

PATIENT = {"early_stopping": {"patience": 1000}}


def nodes(run: Run) -> list[dict[str, Any]]:
    return list(run.state["own"]["nodes"].values())


def depths(run: Run) -> int:
    return max(node["depth"] for node in nodes(run))


def nearly_equal(text: str, case: int) -> float:
    """Every text has a score of its own, between 0.1 and 0.4."""
    return 0.1 + 0.3 * (sum(map(ord, text)) % 97) / 97


KNOBS = {
    "simulations": Effect(
        see=lambda run: len(run.state["curve"]), values=(1, 3), seen=(1, 3), world=RISING, given=PATIENT
    ),
    "max_depth": Effect(
        see=depths, values=(1, 3), seen=(1, 3), world=RISING, given={"knobs_": {"exploration_c": 0.05}, **PATIENT}
    ),
    "exploration_c": Effect(
        see=depths,
        values=(0.05, 5.0),
        seen=(5, 3),
        world=World(score=nearly_equal, rewrite=RISING.rewrite),
        given={
            "knobs_": {
                "simulations": 8,
                "max_depth": 9,
                "score_dedup_bin": 0.01,
                "candidates_per_node": 3,
                "early_stop_no_improve": 50,
            },
            "budget": {"max_task_calls": 3_000},
            **PATIENT,
        },
    ),
    "candidates_per_node": Effect(
        see=lambda run: sum(work.round == 1 for work in run.proposals), values=(2, 5), seen=(2, 5)
    ),
    "score_dedup_bin": Effect(
        see=lambda run: sum(node["depth"] == 1 for node in nodes(run)) > 1,
        values=(0.01, 0.5),
        seen=(True, False),
        world=World(score=nearly_equal, rewrite=RISING.rewrite),
        given={"knobs_": {"candidates_per_node": 4, "simulations": 1}},
    ),
    "early_stop_no_improve": Effect(
        see=lambda run: (run.state["finish_reason"], len(run.state["curve"])),
        values=(1, 2),
        seen=(("converged", 1), ("converged", 2)),
        world=World(flat=0.5),
        given=PATIENT,
    ),
    "token_budget": Effect(
        see=lambda run: (run.state["finish_reason"], len(run.state["curve"])),
        values=(None, 1_000),
        seen=(("max_rounds", 3), ("budget_tokens", 1)),
        world=RISING,
        given={"knobs_": {"simulations": 3}, **PATIENT},
    ),
    "evidence_cases": Effect(see=lambda run: len(run.steps[1].work), values=(3, 7), seen=(3, 7)),
    "operators": Effect(
        see=lambda run: {work.operator for work in run.proposals},
        values=({"paraphrase": 1}, {"shorten": 1, "elaborate": 1}),
        seen=({"paraphrase"}, {"shorten", "elaborate"}),
    ),
    "adaptive_operators": adaptive_effect(
        {
            "simulations": 30,
            "max_depth": 10,
            "candidates_per_node": 4,
            "early_stop_no_improve": 50,
            "score_dedup_bin": 0.01,
        }
    ),
    "edit_level": Effect(
        see=two_sentences_in_a_line,
        values=("line", "sentence"),
        seen=(False, True),
        given={"knobs_": {"operators": {"insert_phrase": 1}}},
    ),
}


def test_it_beats_random_at_the_same_budget_of_task_calls() -> None:
    settings: dict[str, dict[str, Any]] = {
        "mcts": {
            "simulations": 200,
            "candidates_per_node": 3,
            "early_stop_no_improve": 50,
            "max_depth": 10,
            "exploration_c": 0.1,
        },
        "random": {"proposals": 160},
    }
    best: dict[str, list[float]] = {"mcts": [], "random": []}

    for seed in range(100, 106):
        world = World(cases=make_cases(100), salt=seed, rewrite=gains_and_loses_some)
        for name, found in best.items():
            run = run_search(
                name,
                world,
                knobs_={**settings[name], "max_growth": 20},
                evaluation={"min_cases": 16},
                budget={"max_task_calls": 2_000},
                seed=seed,
                **PATIENT,
            )
            found.append(world.true_score(run.best_text))
            assert 1_500 < len(run.evaluations) <= 2_000, "neither may win by having more to spend"

    assert mean(best["mcts"]) > mean(best["random"]) + 0.05, best


def test_the_way_back_up_counts_every_simulation_below() -> None:
    run = run_search("mcts", RISING, knobs_={"simulations": 6, "early_stop_no_improve": 50}, **PATIENT)
    root = run.state["own"]["nodes"][run.state["candidates"][0]["hash"]]

    assert root["visits"] == 1 + len(run.state["curve"])
    assert sum(run.state["own"]["nodes"][child]["visits"] for child in root["children"]) == (
        len(root["children"]) + root["visits"] - 2
    )


def test_a_prompt_without_children_is_tried_again_and_not_the_end() -> None:
    world = World(
        rewrite=lambda work, text: (
            "nothing" if work.round == 1 else f"<prompt>\nRound {work.key[:20]}\n{text}\n</prompt>"
        )
    )

    run = run_search("mcts", world, knobs_={"near_dup": 1.0}, **PATIENT)

    assert len(nodes(run)) > 1
    assert words(next(iter(run.texts.values())))
