"""beam_search: better than random at the same price, and what each of its knobs does."""

import json
from dataclasses import replace
from itertools import count

import pytest

from shared.knobs import resolve_split
from shared.splits import split
from tests.strategies.effects import (
    Effect,
    adaptive_effect,
    adds_a_helpful_word,
    blocks,
    changes_a_tenth,
    first_rung,
    operators_used,
    two_sentences_in_a_line,
)
from tests.strategies.world import (
    HARMFUL,
    HELPFUL,
    SEED_TEXT,
    Run,
    World,
    drive,
    make_cases,
    make_spec,
    run_search,
    words,
)
from worker.strategies import STRATEGIES, search
from worker.strategies.contract import Propose, Result
from worker.strategies.record import Record

PARAPHRASES = {"operators": {"paraphrase": 1}}
FAMILY = "This family of prompts says nearly the same, with a number at its end, which is"


def beam(run: Run) -> list[str]:
    return [run.texts[one] for one in run.state["own"]["beam"]]


def is_worse(work: Propose, text: str) -> str:
    sentences = list(HARMFUL.values())
    return f"<prompt>\n{sentences[work.slot % len(sentences)]}\n{text}\n</prompt>"


def graded(text: str, case: int) -> float:
    """Each helpful word is worth more than the one before it."""
    found = [i for i, word in enumerate(HELPFUL) if word in words(text)]
    return 0.1 + 0.1 * max(found, default=-1) if found else 0.05


def of_one_family_but_for_one(work: Propose, text: str) -> str:
    if work.slot == 3:
        return "<prompt>\nQuite different words for a change: {{ ticket }}\n</prompt>"
    return f"<prompt>\n{FAMILY} {work.slot}{work.slot}{work.slot}{work.slot}{work.slot}{work.slot}.\n{text}\n</prompt>"


def family_is_better(text: str, case: int) -> float:
    return 0.6 if FAMILY in text else 0.5 if "Quite different" in text else 0.1


ONE_ROUND = {"max_rounds": 1, "beam_width": 2, "expansions_per_beam": 4, **PARAPHRASES}
KNOBS = {
    "beam_width": Effect(
        see=lambda run: max(len(step.state["own"].get("beam", [])) for step in run.steps), values=(2, 4), seen=(2, 4)
    ),
    "expansions_per_beam": Effect(
        see=lambda run: sum(work.round == 1 for work in run.proposals),
        values=(1, 3),
        seen=(2, 6),
        given={"knobs_": PARAPHRASES},
    ),
    "max_rounds": Effect(
        see=lambda run: (run.state["round"], run.state["finish_reason"]),
        values=(1, 4),
        seen=((1, "max_rounds"), (4, "max_rounds")),
        given={"early_stopping": {"patience": 1000}},
    ),
    "max_candidates": Effect(
        # The seed is one of the two, and has its scores already.
        see=lambda run: len(first_rung(run)),
        values=(None, 2),
        seen=(6, 1),
        world=World(rewrite=adds_a_helpful_word),
        given={"knobs_": PARAPHRASES},
    ),
    "keep_parents": Effect(
        see=lambda run: SEED_TEXT in beam(run),
        values=(True, False),
        seen=(True, False),
        world=World(
            rewrite=is_worse, score=lambda text, case: 0.5 if text == SEED_TEXT else 0.1 + len(words(text)) / 1000
        ),
        given={"knobs_": ONE_ROUND},
    ),
    "prune_threshold": Effect(
        see=lambda run: len(beam(run)),
        values=(0.0, 0.15),
        seen=(4, 2),
        world=World(rewrite=adds_a_helpful_word, score=graded),
        given={"knobs_": {**ONE_ROUND, "beam_width": 4}},
    ),
    "candidate_reranker": Effect(
        see=lambda run: sum(FAMILY in text for text in beam(run)),
        values=("score", "diversity"),
        seen=(2, 1),
        beside=({}, {"diversity_rate": 0.9}),
        world=World(rewrite=of_one_family_but_for_one, score=family_is_better),
        given={"knobs_": {**ONE_ROUND, "near_dup": 1.0}, "evaluation": {"mode": "full"}},
    ),
    "diversity_rate": Effect(
        see=lambda run: sum(FAMILY in text for text in beam(run)),
        values=(0.05, 0.9),
        seen=(2, 1),
        world=World(rewrite=of_one_family_but_for_one, score=family_is_better),
        given={
            "knobs_": {**ONE_ROUND, "near_dup": 1.0, "candidate_reranker": "diversity"},
            "evaluation": {"mode": "full"},
        },
    ),
    "stochastic_temp": Effect(
        see=lambda run: (
            [max(words(text) & set(HELPFUL), default="seed") for text in beam(run)] == ["lowercase", "quoted"]
        ),
        values=(0.0, 10.0),
        seen=(True, False),
        world=World(rewrite=adds_a_helpful_word, score=graded),
        given={"knobs_": ONE_ROUND, "evaluation": {"mode": "full"}},
    ),
    "evidence_cases": Effect(see=lambda run: len(run.steps[1].work), values=(3, 7), seen=(3, 7)),
    "operators": Effect(
        see=lambda run: {work.operator for work in run.proposals},
        values=({"paraphrase": 1}, {"shorten": 1, "fresh_start": 1}),
        seen=({"paraphrase"}, {"shorten", "fresh_start"}),
    ),
    "pruning": Effect(
        # One list of cases for all, or rungs that fewer and fewer reach.
        see=lambda run: [count for count, _ in blocks(run)[:3]],
        values=("top_k", "halving"),
        seen=([8, 1, 1], [8, 4, 2]),
        world=World(rewrite=changes_a_tenth),
        given={"knobs_": {**ONE_ROUND, "near_dup": 1.0}},
    ),
    "gradients_per_beam": Effect(
        see=lambda run: (
            sum(work.operator == "gradient" and work.round == 1 for work in run.proposals),
            "apply_gradient" in operators_used(run),
        ),
        values=(0, 2),
        seen=((0, False), (4, True)),
        world=World(base=0.0, rewrite=adds_a_helpful_word),
    ),
    "errors_per_gradient": Effect(
        see=lambda run: max(len(work.evidence) for work in run.proposals if work.operator == "gradient"),
        values=(2, 5),
        seen=(2, 5),
        world=World(base=0.0),
        given={"knobs_": {"gradients_per_beam": 1}},
    ),
    "paraphrases_per_child": Effect(
        see=lambda run: sum(work.round == 1 and work.slot >= 6 for work in run.proposals),
        values=(0, 2),
        seen=(0, 12),
        world=World(rewrite=changes_a_tenth),
        given={"knobs_": {"near_dup": 1.0, **PARAPHRASES}},
    ),
    "stagnation_restart": Effect(
        see=lambda run: [work.round for work in run.proposals if work.operator == "fresh_start"][:1],
        values=(0, 1),
        seen=([], [2]),
        world=World(flat=0.5),
        given={"knobs_": PARAPHRASES, "early_stopping": {"patience": 9}},
    ),
    "adaptive_operators": adaptive_effect({"max_rounds": 12, "beam_width": 2, "expansions_per_beam": 4}),
    "edit_level": Effect(
        see=two_sentences_in_a_line,
        values=("line", "sentence"),
        seen=(False, True),
        given={"knobs_": {"operators": {"insert_phrase": 1}}},
    ),
}


def test_a_prune_threshold_filters_the_front_too() -> None:
    """It was accepted with pruning pareto, and did nothing."""

    def by_case(text: str, case: int) -> float:
        """Odd is the best on every fourth case, and bad on the whole."""
        if "odd" in text:
            return 0.9 if case % 4 == 0 else 0.0
        return 0.5 if text == SEED_TEXT else 0.6

    def odd_or_even(work: Propose, text: str) -> str:
        return f"<prompt>\nBe {'odd' if work.slot == 0 else 'even'} about it, {work.key[:20]}.\n{SEED_TEXT}\n</prompt>"

    def is_odd_kept(threshold: float) -> bool:
        knobs = {**ONE_ROUND, "pruning": "pareto", "prune_threshold": threshold, "near_dup": 1.0}
        world = World(score=by_case, rewrite=odd_or_even)
        run = run_search("beam_search", world, knobs_=knobs, evaluation={"mode": "full"})
        return any("odd" in text for text in beam(run))

    assert is_odd_kept(0.0)
    assert not is_odd_kept(0.2)


def test_no_call_is_asked_for_twice_where_there_is_nothing_to_criticize() -> None:
    """A critique of no failure is a child at once; its slot was once asked for again, with the same call."""
    world = World(score=lambda text, case: 1.0 if case in split(make_cases(), resolve_split({})).train else 0.5)

    run = run_search("beam_search", world, knobs_={"gradients_per_beam": 3, **PARAPHRASES})

    assert {work.operator for work in run.proposals} == {"paraphrase"}
    assert len({work.key for work in run.emitted}) == len(run.emitted)


def test_a_critique_is_applied_to_the_prompt_that_it_is_about() -> None:
    run = run_search("beam_search", World(base=0.0), knobs_={"gradients_per_beam": 3})
    critiques = {(work.round, work.slot): work for work in run.proposals if work.operator == "gradient"}
    applied = [work for work in run.proposals if work.operator == "apply_gradient"]

    assert applied
    assert all(critiques[work.round, work.slot].parent == work.parent for work in applied)
    assert all("what to do in case of doubt" in work.messages[-1]["content"] for work in applied)


def test_a_round_makes_children_of_each_member_of_the_beam_from_its_own_failures() -> None:
    run = run_search("beam_search", World(base=0.1), knobs_={"operators": {"reflect": 1}})
    second = [work for work in run.proposals if work.round == 2]
    failed = {digest: {item["case"] for item in items} for digest, items in run.state["failures"].items()}

    assert len({work.parent for work in second}) == 2
    assert all(work.evidence and set(work.evidence) <= failed[work.parent] for work in second)


def test_the_seed_decides_what_the_proposer_is_shown() -> None:
    """Also where the order of the cases is fixed, and so no draw is left but those of the proposals."""
    shown = [
        [work.evidence for work in run_search("beam_search", evaluation={"case_order": "fixed"}, seed=seed).proposals]
        for seed in (7, 7, 8)
    ]

    assert shown[0] == shown[1]
    assert shown[0] != shown[2]


def test_a_round_winner_becomes_the_best_only_with_every_dev_case_scored() -> None:
    run = run_search("beam_search")
    dev = {str(case) for case in run.state["dev"]}

    for step in run.steps:
        incumbent = step.state["incumbent"]
        assert incumbent is None or dev <= set(step.state["scores"][incumbent])


def test_the_curve_never_falls() -> None:
    for seed in range(5):
        run = run_search("beam_search", World(salt=seed), knobs_={"max_rounds": 6}, early_stopping={"patience": 1000})
        curve = [point["best"] for point in run.state["curve"]]

        assert len(curve) == 6
        assert curve == sorted(curve)


def test_a_parent_without_failures_is_paraphrased_in_place_of_reflected_on() -> None:
    train = split(make_cases(), resolve_split({})).train
    world = World(score=lambda text, case: 1.0 if case in train else 0.5)

    run = run_search("beam_search", world, knobs_={"operators": {"reflect": 1}})

    assert {work.operator for work in run.proposals} == {"paraphrase"}


@pytest.mark.parametrize("reranker", ["score", "diversity"])
def test_a_round_in_which_every_child_failed_falls_back_to_the_best(reranker: str) -> None:
    """With parents out of the running, the re-ranking once had nobody to rank and stopped the run."""
    world = World(
        score=lambda text, case: 0.3 if text == SEED_TEXT else (None if case % 5 < 2 else 0.9),
        rewrite=adds_a_helpful_word,
    )

    run = run_search(
        "beam_search", world, knobs_={"keep_parents": False, "candidate_reranker": reranker, **PARAPHRASES}
    )

    assert beam(run) == [SEED_TEXT]
    assert run.best_text == SEED_TEXT


def test_a_top_up_that_failed_leaves_the_best_so_far_to_the_holdout() -> None:
    """It once ended the run as not measured, with the holdout already paid for in the budget."""
    world = World(rewrite=adds_a_helpful_word)
    spec = make_spec("beam_search", knobs_={"finalists": 4, **PARAPHRASES}, evaluation={"missing_tolerance": 1.0})
    whole = drive(world, world.problem(spec), STRATEGIES["beam_search"])
    at = next(i for i, step in enumerate(whole.steps) if step.state["phase"] == "topup")
    barriers = count()

    def mostly_fails(results: list[Result]) -> list[Result]:
        """The few answers are perfect, which must not make anybody the best."""
        return [replace(result, score=1.0) for result in results[: len(results) // 3]]

    run = drive(
        world,
        world.problem(spec),
        STRATEGIES["beam_search"],
        deliver=lambda results: mostly_fails(results) if next(barriers) == at else results,
    )

    topup = whole.steps[at]
    assert len(topup.work) >= 5
    assert run.result["best"] == topup.state["incumbent"] != run.state["candidates"][0]["hash"]
    assert run.result["holdout"]["n"] == len(run.state["holdout"])
    assert run.state["finish_reason"] == whole.state["finish_reason"] == "max_rounds"
    reasons = {item["hash"]: item["reason"] for item in run.state["candidates"]}
    assert all(reasons[work.candidate] == "too many calls of its top-up failed" for work in topup.work)


def test_edits_are_scored_when_no_proposal_is_affordable() -> None:
    run = run_search(
        "beam_search",
        knobs_={"operators": {"reflect": 1, "insert_phrase": 3}, "expansions_per_beam": 6},
        budget={"max_task_calls": 600, "max_proposer_calls": 0},
    )
    seed, *edits = run.state["candidates"]

    assert edits
    assert {work.candidate for work in run.evaluations} == {seed["hash"], *(item["hash"] for item in edits)}
    assert run.state["finish_reason"] == "budget_proposer_calls"
    assert run.proposals == []


def test_a_round_with_a_better_value_is_no_stall_though_its_mean_is_lower() -> None:
    """With a length penalty a shorter prompt may win that scores a little less."""

    def shorter(work: Propose, text: str) -> str:
        size = int(len(SEED_TEXT) * (1 - 0.2 * work.round)) - len("{{ ticket }}")
        return f"<prompt>\n{(work.key * 4)[:size]}{{{{ ticket }}}}\n</prompt>"

    world = World(rewrite=shorter, score=lambda text, case: 0.4 + 0.1 * len(text) / len(SEED_TEXT))

    run = run_search(
        "beam_search",
        world,
        knobs_={"length_penalty": 2.0, "near_dup": 1.0, **PARAPHRASES},
        early_stopping={"patience": 1},
    )

    curve = run.state["curve"]
    assert run.state["finish_reason"] == "max_rounds"
    assert [point["value"] for point in curve] == sorted({point["value"] for point in curve})
    assert curve[-1]["best"] < curve[0]["best"]


def test_the_standard_error_of_a_value_is_that_of_the_weighted_mean() -> None:
    cases = [replace(case, weight=3.0 if case.ordinal % 2 else 1.0) for case in make_cases()]
    world = World(cases=cases)
    problem = world.problem(make_spec("beam_search", evaluation={"lcb_z": 1.0}))
    record = Record(problem, json.loads(json.dumps(search.start(problem, STRATEGIES["beam_search"]).state)))
    record.state["scores"] = {record.seed: {"1": [0.0], "2": [1.0]}}

    value = record.value(record.seed, [1, 2])

    # The mean is 1/4; its standard error sqrt(2 ((3 * 1/4)^2 + (1 * 3/4)^2)) / 4 = 0.375.
    assert value == pytest.approx(0.25 - 0.375)
