"""What each setting of a search does, said as data: two values, and what of a run shows the difference.

A strategy's own knobs are in `KNOBS` of its test file; here are those that all strategies share.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from shared.knobs import resolve_split
from shared.splits import split
from tests.strategies.world import HELPFUL, SEED_TEXT, Run, World, fraction, make_cases, run_search, words
from worker.strategies.contract import Propose


@dataclass(frozen=True)
class Effect:
    """With `values[0]` a run shows `seen[0]`, with `values[1]` it shows `seen[1]`, and the two differ."""

    see: Callable[[Run], Any]
    values: tuple[Any, Any]
    seen: tuple[Any, Any]
    world: World = field(default_factory=World)
    given: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # the other settings of both runs
    beside: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {})  # what the rules want changed with the value

    def observed(self, strategy: str, block: str, name: str) -> tuple[Any, ...]:
        return tuple(
            self.see(run_search(strategy, self.world, **{**self.given, block: self._settings(block, name, i)}))
            for i in range(2)
        )

    def _settings(self, block: str, name: str, i: int) -> dict[str, Any]:
        return {**self.given.get(block, {}), **self.beside[i], name: self.values[i]}


def reasons(run: Run) -> set[str]:
    """Why something was refused before it was paid for."""
    return {data["reason"] for kind, data in run.events if kind == "candidate.rejected"}


def rungs(run: Run) -> list[int]:
    """How many cases each candidate of a step was asked for, step by step, without the baseline and the seed."""
    sizes = [[len(cases) for cases in run.cases_of(i, seed=False).values()] for i in range(1, len(run.steps))]
    return [max(size) for size in sizes if size]


def first_rung(run: Run) -> dict[str, list[int]]:
    return next(found for i in range(len(run.steps)) if (found := run.cases_of(i, seed=False)))


def longer_is_better(text: str, case: int) -> float:
    return min(0.9, 0.2 + 0.05 * len(words(text) & set(HELPFUL)))


def adds_a_helpful_word(work: Propose, text: str) -> str:
    fresh = [sentence for word, sentence in HELPFUL.items() if word not in words(text)]
    return f"<prompt>\n{fresh[work.slot % len(fresh)]}\n{text}\n</prompt>" if fresh else "no more ideas"


def grows_tenfold(work: Propose, text: str) -> str:
    padding = " ".join(f"{work.key[i : i + 7]}" for i in range(50))
    return f"<prompt>\n{text}\n{padding}\n{padding[::-1]}\n</prompt>"


def loses_its_placeholder(work: Propose, text: str) -> str:
    return f"<prompt>\nSort it well, {work.key[:9]}.\n</prompt>"


def changes_a_tenth(work: Propose, text: str) -> str:
    return f"<prompt>\n{text}\n(about {work.key[:8]})\n</prompt>"


def only_paraphrases_help(work: Propose, text: str) -> str:
    if work.operator == "paraphrase":
        return adds_a_helpful_word(work, text)
    return f"<prompt>\n{work.key[:30]} hurry.\n{SEED_TEXT}\n</prompt>"


def adaptive_effect(knobs: Mapping[str, Any], weights: str = "operators") -> Effect:
    """Of two operators with the same weight, the one whose children are better is used far more often."""
    return Effect(
        see=lambda run: (
            sum(work.operator == "paraphrase" for work in run.proposals)
            > 2 * sum(work.operator == "shorten" for work in run.proposals)
        ),
        values=(False, True),
        seen=(False, True),
        world=World(score=longer_is_better, rewrite=only_paraphrases_help),
        given={
            "knobs_": {weights: {"paraphrase": 1, "shorten": 1}, "near_dup": 1.0, "max_growth": 50, **knobs},
            "early_stopping": {"patience": 1000},
            "budget": {"max_task_calls": 100_000},
        },
    )


RISING = World(score=longer_is_better, rewrite=adds_a_helpful_word)


def two_sentences_in_a_line(run: Run) -> bool:
    return any(len(re.findall(r"[a-z]\.", line)) > 1 for text in run.texts.values() for line in text.split("\n"))


def operators_used(run: Run) -> set[str]:
    return {item["operator"] for item in run.state["candidates"]} - {"seed"}


def blocks(run: Run) -> list[tuple[int, int]]:
    """(candidates, cases) that each step of the first screening asked for."""
    asked = [run.cases_of(i, seed=False) for i in range(2, len(run.steps))]
    sizes = [(len(cases), max(map(len, cases.values()))) for cases in asked if cases]
    return sizes[:4]


CHAT = {"0_system": "Be a helpful clerk of a shop.", "1_user": SEED_TEXT}


def messages_changed(run: Run) -> set[str]:
    seed = run.state["candidates"][0]["components"]
    return {name for item in run.state["candidates"] for name, text in item["components"].items() if text != seed[name]}


COMMON: Mapping[str, Effect] = {
    "components": Effect(
        see=messages_changed,
        values=(None, ["0_system"]),
        seen=({"0_system", "1_user"}, {"0_system"}),
        world=World(components=CHAT, rewrite=adds_a_helpful_word),
        given={"knobs_": {"near_dup": 1.0, "max_growth": 100}},
    ),
    "errors_in_context": Effect(
        see=lambda run: max(len(work.evidence) for work in run.proposals),
        values=(2, 5),
        seen=(2, 5),
        world=World(base=0.0),
    ),
    "repair_attempts": Effect(
        see=lambda run: max((work.attempt for work in run.repairs), default=0),
        values=(0, 2),
        seen=(0, 2),
        world=World(rewrite=loses_its_placeholder),
    ),
    "length_penalty": Effect(
        see=lambda run: run.best_text == SEED_TEXT,
        values=(0.0, 2.0),
        seen=(False, True),
        world=RISING,
    ),
    "max_growth": Effect(
        see=lambda run: reasons(run) & {"longer than 2 times the seed", "longer than 100 times the seed"},
        values=(2, 100),
        seen=({"longer than 2 times the seed"}, set()),
        world=World(rewrite=grows_tenfold),
    ),
    "max_prompt_tokens": Effect(
        see=lambda run: any("max_prompt_tokens is 60" in reason for reason in reasons(run)),
        values=(None, 60),
        seen=(False, True),
        world=World(rewrite=grows_tenfold),
        given={"knobs_": {"max_growth": 100}},
    ),
    "near_dup": Effect(
        see=lambda run: "near duplicate" in reasons(run),
        values=(0.5, 1.0),
        seen=(True, False),
        world=World(rewrite=changes_a_tenth),
    ),
    "finalists": Effect(
        see=lambda run: len(run.state["finalists"]),
        values=(1, 4),
        seen=(1, 4),
        world=RISING,
    ),
}

LARGE_POOL = {"beam_width": 2, "expansions_per_beam": 12, "near_dup": 1.0, "max_rounds": 2}


def partial_credit(text: str, case: int) -> float:
    return fraction("partial", text, case) if text != SEED_TEXT else 0.5


EVALUATION: Mapping[str, Effect] = {
    "mode": Effect(see=lambda run: rungs(run)[0], values=("halving", "full"), seen=(4, 16)),
    "min_cases": Effect(see=lambda run: rungs(run)[0], values=(3, 6), seen=(3, 6)),
    "max_cases": Effect(see=lambda run: len(run.steps[0].work), values=(None, 9), seen=(16, 9)),
    # The second rung asks for what it adds to the first: 2 x 2 - 2 and 2 x 4 - 2.
    "eta": Effect(
        see=lambda run: rungs(run)[:2],
        values=(2, 4),
        seen=([2, 2], [2, 6]),
        # Nine children and three wanted: some are left to decide between after either rung.
        given={"knobs_": {"beam_width": 2, "expansions_per_beam": 12, "near_dup": 1.0}, "evaluation": {"min_cases": 2}},
        world=World(rewrite=changes_a_tenth),
    ),
    "block_size": Effect(
        see=lambda run: [size for _, size in blocks(run)[:2]],
        values=(2, 6),
        seen=([4, 2], [4, 6]),
        given={"evaluation": {"mode": "racing", "alpha": 0.001}, "knobs_": LARGE_POOL},
        world=World(rewrite=changes_a_tenth),
    ),
    "alpha": Effect(
        see=lambda run: [count for count, _ in blocks(run)[:2]],
        values=(0.001, 0.3),
        seen=([24, 24], [24, 7]),
        given={"evaluation": {"mode": "racing", "block_size": 4}, "knobs_": LARGE_POOL},
        world=World(rewrite=changes_a_tenth),
    ),
    "test": Effect(
        see=lambda run: [count for count, _ in blocks(run)[:3]],
        values=("sign", "permutation"),
        seen=([24, 15, 15], [24, 15, 11]),
        given={"evaluation": {"mode": "racing", "block_size": 6, "alpha": 0.1}, "knobs_": LARGE_POOL},
        world=World(rewrite=changes_a_tenth, score=partial_credit),
    ),
    "ucb_c": Effect(
        see=lambda run: len({work.candidate for i in (4, 5, 6, 7) for work in run.steps[i].work}),
        values=(0.0, 10.0),
        seen=(6, 8),
        given={"evaluation": {"mode": "ucb", "block_size": 2, "ucb_rounds": 30}, "knobs_": LARGE_POOL},
        world=World(rewrite=changes_a_tenth),
    ),
    "ucb_rounds": Effect(
        see=lambda run: next(i for i, step in enumerate(run.steps) if step.state["round"] == 2),
        values=(13, 16),
        seen=(18, 21),
        given={"evaluation": {"mode": "ucb", "block_size": 2, "ucb_c": 10.0}, "knobs_": LARGE_POOL},
        world=World(rewrite=changes_a_tenth),
    ),
    "repeats": Effect(
        see=lambda run: {work.repeat for work in run.evaluations},
        values=(1, 3),
        seen=({0}, {0, 1, 2}),
    ),
    "case_order": Effect(
        see=lambda run: set(map(tuple, first_rung(run).values())) == {tuple(sorted(run.state["dev"])[:4])},
        values=("fixed", "stratified"),
        seen=(True, False),
    ),
    "lcb_z": Effect(
        see=lambda run: "steady" in words(run.best_text),
        values=(0.0, 3.0),
        seen=(False, True),
        world=World(
            # A text that gains much on some cases, and one that gains a little on all.
            score=lambda text, case: (
                (1.0 if case % 2 else 0.2) if "daring" in text else (0.5 if "steady" in text else 0.3)
            ),
            rewrite=lambda work, text: (
                f"<prompt>\n{'Be steady now, always.' if work.slot % 2 else 'Go daring every time.'}"
                f"\n{SEED_TEXT}\n</prompt>"
            ),
        ),
        given={"evaluation": {"mode": "full"}},
    ),
    "missing_tolerance": Effect(
        see=lambda run: run.best_text == SEED_TEXT,
        values=(0.0, 0.5),
        seen=(True, False),
        world=World(
            score=lambda text, case: 0.2 if text == SEED_TEXT else (None if case % 4 == 0 else 0.9),
            rewrite=adds_a_helpful_word,
        ),
    ),
    "generalization_check_every": Effect(
        see=lambda run: [item["round"] for item in run.result.get("generalization", [])],
        values=(0, 2),
        seen=([], [2]),
    ),
}

CUSTOMERS = [
    replace(case, inputs={**case.inputs, "customer": f"c{case.ordinal % 4}", "parity": str(case.ordinal % 2)})
    for case in make_cases()
]

SPLIT: Mapping[str, Effect] = {
    "train_fraction": Effect(
        see=lambda run: len(run.state["train"]),
        values=(0.25, 0.5),
        seen=(10, 20),
        beside=({"dev_fraction": 0.5, "holdout_fraction": 0.25}, {"dev_fraction": 0.25, "holdout_fraction": 0.25}),
    ),
    "dev_fraction": Effect(
        see=lambda run: len(run.steps[0].work),
        values=(0.25, 0.5),
        seen=(10, 20),
        beside=({"train_fraction": 0.5, "holdout_fraction": 0.25}, {"train_fraction": 0.25, "holdout_fraction": 0.25}),
    ),
    "holdout_fraction": Effect(
        see=lambda run: run.result["holdout"]["n"],
        values=(0.25, 0.5),
        seen=(10, 20),
        beside=({"train_fraction": 0.25, "dev_fraction": 0.5}, {"train_fraction": 0.25, "dev_fraction": 0.25}),
    ),
    "split_seed": Effect(
        see=lambda run: sorted(run.state["holdout"]) == sorted(split(make_cases(), resolve_split({})).holdout),
        values=(0, 1),
        seen=(True, False),
    ),
    "stratify_by": Effect(
        see=lambda run: sum(case % 2 for case in run.state["dev"][:8]),
        values=(None, "inputs.parity"),
        seen=(2, 4),
        world=World(cases=CUSTOMERS),
    ),
    "group_by": Effect(
        see=lambda run: {case % 4 for case in run.state["holdout"]} & {case % 4 for case in run.state["dev"]},
        values=(None, "inputs.customer"),
        seen=({0, 1, 2, 3}, set()),
        world=World(cases=CUSTOMERS),
    ),
}

EARLY_STOPPING: Mapping[str, Effect] = {
    "patience": Effect(
        see=lambda run: (run.state["finish_reason"], len(run.state["curve"])),
        values=(1, 2),
        seen=(("converged", 1), ("converged", 2)),
        world=World(flat=0.5),
    ),
    "min_delta": Effect(
        see=lambda run: (run.state["finish_reason"], len(run.state["curve"])),
        values=(0.01, 0.5),
        seen=(("max_rounds", 3), ("converged", 1)),
        world=RISING,
        given={"early_stopping": {"patience": 1}},
    ),
    "target_score": Effect(
        see=lambda run: (run.state["finish_reason"], len(run.state["curve"])),
        values=(None, 0.24),
        seen=(("max_rounds", 3), ("target_reached", 1)),
        world=RISING,
    ),
}
