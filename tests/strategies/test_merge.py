"""merge: the sentences of many rewrites form a pool, and what each is worth decides which of them a prompt holds."""

from typing import Any

from tests.strategies.effects import (
    RISING,
    Effect,
    adds_a_helpful_word,
    longer_is_better,
    two_sentences_in_a_line,
)
from tests.strategies.world import (
    GAIN,
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
from worker.strategies import STRATEGIES
from worker.strategies.contract import Evaluate, Propose

LONG = {"patience": 1000}
PARAPHRASES = {"operators": {"paraphrase": 1}}
RICH = {"max_task_calls": 3_000}


def batches(run: Run) -> list[dict[str, list[int]]]:
    """The cases that each prompt of a batch was asked about, batch after batch."""
    merges = {item["hash"] for item in run.state["candidates"] if item["operator"] == "merge"}
    asked = [
        {one: cases for one, cases in run.cases_of(i).items() if one in merges or len(run.cases_of(i)) > 1}
        for i in range(3, len(run.steps))
        if run.steps[i].state["phase"] == "search"
    ]
    return [one for one in asked if one]


def proposals_by_step(run: Run) -> list[int]:
    found = [sum(isinstance(work, Propose) and not work.repair_of for work in step.work) for step in run.steps]
    return [count for count in found if count]


def everything(work: Propose, text: str) -> str:
    """Each rewrite adds one sentence of the bank, good ones and bad ones in turns."""
    bank = [*HELPFUL.values(), *HARMFUL.values()]
    return f"<prompt>\n{bank[work.slot % len(bank)]}\n{text}\n</prompt>"


def held_at_most(run: Run) -> int:
    """By how many sentences the first batch differs from the seed at most."""
    seed = set(SEED_TEXT.split("\n"))
    return max(len(set(run.texts[one].split("\n")) ^ seed) for one in batches(run)[0])


def are_nested(run: Run) -> bool:
    """Whether of each two prompts of the first batch one holds all that the other does."""
    held = [set(run.texts[one].split("\n")) for one in batches(run)[0]]
    return all(one <= other or other <= one for one in held for other in held)


BANK = World(cases=make_cases(100), rewrite=everything)
WIDE: dict[str, Any] = {"first_proposals": 11, "max_growth": 50, "merges": 6}

KNOBS = {
    "max_rounds": Effect(
        see=lambda run: (run.state["round"], run.state["finish_reason"]),
        values=(1, 3),
        seen=((1, "max_rounds"), (3, "max_rounds")),
        world=World(flat=0.5),
        given={"early_stopping": LONG},
    ),
    "batches_per_round": Effect(
        see=lambda run: run.state["own"]["batch"] / len(run.state["curve"]),
        values=(1, 3),
        seen=(1, 3),
        world=BANK,
        given={"early_stopping": LONG, "budget": RICH, "knobs_": {**WIDE, "max_rounds": 2}},
    ),
    "first_proposals": Effect(
        see=lambda run: proposals_by_step(run)[0],
        values=(2, 5),
        seen=(2, 5),
        given={"knobs_": PARAPHRASES},
    ),
    "proposals_per_step": Effect(
        see=lambda run: set(proposals_by_step(run)[1:]),
        values=(1, 4),
        seen=({1}, {4}),
        world=BANK,
        given={"knobs_": WIDE, "budget": RICH, "early_stopping": LONG},
    ),
    "merges": Effect(
        see=lambda run: max(map(len, batches(run))),
        values=(1, 5),
        seen=(1, 5),
        world=BANK,
        given={"knobs_": WIDE, "budget": RICH},
    ),
    "probe_cases": Effect(
        see=lambda run: min(map(len, batches(run)[0].values())),
        values=(2, 5),
        seen=(2, 5),
        world=BANK,
        given={"knobs_": WIDE, "budget": RICH},
    ),
    "max_changes": Effect(see=held_at_most, values=(1, 4), seen=(1, 4), world=BANK, given={"knobs_": WIDE}),
    "exploration": Effect(
        see=are_nested, values=(0.0, 1.0), seen=(True, False), world=BANK, given={"knobs_": WIDE, "budget": RICH}
    ),
    "length_penalty": Effect(
        see=lambda run: len(words(run.best_text) & set(HELPFUL)) > 4,
        values=(0.0, 2.0),
        seen=(True, False),
        world=RISING,
        given={"budget": RICH, "knobs_": {"max_growth": 50}},
    ),
    "evidence_cases": Effect(see=lambda run: len(run.steps[1].work), values=(3, 7), seen=(3, 7)),
    "operators": Effect(
        see=lambda run: {work.operator for work in run.proposals},
        values=({"paraphrase": 1}, {"shorten": 1, "elaborate": 1}),
        seen=({"paraphrase"}, {"shorten", "elaborate"}),
    ),
    "edit_level": Effect(
        see=two_sentences_in_a_line,
        values=("line", "sentence"),
        seen=(False, True),
        given={"knobs_": {"operators": {"insert_phrase": 1}}},
    ),
}


def test_rewrites_are_not_scored_unless_a_batch_wants_just_their_sentences() -> None:
    run = run_search("merge", BANK, knobs_=WIDE, budget=RICH)

    rewrites = {item["hash"]: item for item in run.state["candidates"] if item["operator"] == "reflect"}
    scored = set(run.state["scores"]) & set(rewrites)
    assert len(rewrites) > 10
    assert len(scored) < len(rewrites) / 2
    assert {item["decision"] for one, item in rewrites.items() if one not in scored} == {"pruned"}


def test_good_sentences_are_kept_and_bad_ones_left_out() -> None:
    """Eight of eleven sentences are worth 0.07 each, the others cost as much; four calls in ten are answered right."""
    run = run_search(
        "merge",
        BANK,
        knobs_={**WIDE, "max_rounds": 10, "batches_per_round": 5, "probe_cases": 8, "evidence_cases": 16},
        evaluation={"min_cases": 16},
        early_stopping=LONG,
        budget={"max_task_calls": 2_000},
    )

    found = words(run.best_text)
    assert len(found & set(HELPFUL)) - len(found & set(HARMFUL)) >= 5
    assert BANK.true_score(run.best_text) >= 0.3 + 5 * GAIN


def test_prompts_of_a_batch_are_asked_about_the_same_cases() -> None:
    run = run_search("merge", BANK, knobs_={**WIDE, "merges": 4}, budget=RICH)

    (_, *drawn) = batches(run)[0].values()
    assert len(drawn) >= 2
    assert len({tuple(cases) for cases in drawn}) == 1


def test_what_may_lead_next_is_asked_about_train_cases_first() -> None:
    run = run_search("merge", BANK, knobs_=WIDE, budget=RICH)

    first = next(iter(batches(run)[0].values()))
    assert len(first) == 6
    assert set(first) <= set(run.state["train"])


def test_the_best_is_rewritten_again_and_not_only_the_seed() -> None:
    run = run_search("merge", World(score=longer_is_better, rewrite=adds_a_helpful_word), budget=RICH)

    assert run.proposals[0].parent == run.state["candidates"][0]["hash"]
    assert len({work.parent for work in run.proposals}) > 1


def test_no_prompt_outgrows_the_limit() -> None:
    run = run_search("merge", BANK, knobs_={**WIDE, "max_growth": 2}, budget=RICH)

    merges = [item["components"]["template"] for item in run.state["candidates"] if item["operator"] == "merge"]
    assert merges
    assert max(map(len, merges)) <= 2 * len(SEED_TEXT)


def test_a_round_without_gain_is_counted_by_patience() -> None:
    run = run_search("merge", World(flat=0.5, rewrite=everything), early_stopping={"patience": 2}, budget=RICH)

    assert run.state["finish_reason"] == "converged"
    assert len(run.state["curve"]) == 2


def test_a_prompt_that_nothing_may_be_left_out_of_is_rewritten_all_the_same() -> None:
    """All of it stands in one line with its placeholder: the pool is empty until a rewrite adds something."""
    world = World(score=longer_is_better, rewrite=adds_a_helpful_word)
    texts = {"template": "Sort it: {{ ticket }}"}
    spec = make_spec("merge", knobs_={"max_growth": 50}, budget=RICH)
    run = drive(world, world.problem(spec, components=texts), STRATEGIES["merge"])

    assert words(run.best_text) & set(HELPFUL)


def test_every_call_counts_for_the_model_also_those_on_train_cases() -> None:
    run = run_search("merge", BANK, knobs_=WIDE, budget=RICH)

    asked = {work.case for work in run.emitted if isinstance(work, Evaluate)}
    assert asked & set(run.state["train"])
    assert asked & set(run.state["dev"])


def test_fewer_cases_than_a_probe_asks_about_end_no_search() -> None:
    """Nobody had as many scores as `probe_cases`, and the step failed for it."""
    run = run_search("merge", World(cases=make_cases(12)), knobs_={"probe_cases": 8})

    assert run.state["finish_reason"] == "max_rounds"
    assert any(item["operator"] == "merge" for item in run.state["candidates"])


def test_the_search_goes_on_with_its_pool_when_no_more_rewrites_may_be_asked_for() -> None:
    run = run_search(
        "merge",
        BANK,
        knobs_={**WIDE, "max_rounds": 50},
        early_stopping=LONG,
        budget={"max_task_calls": 1_000, "max_proposer_calls": 15},
    )

    assert len(run.proposals) == 15
    assert run.state["finish_reason"] == "budget_task_calls"
