"""merge: rewrites of one prompt become one prompt with all their changes, and small steps when that finds nothing."""

import pytest

from tests.strategies.effects import Effect, adds_a_helpful_word, changes_a_tenth, two_sentences_in_a_line
from tests.strategies.world import HELPFUL, SEED_TEXT, Run, World, run_search, words
from worker.strategies import edits
from worker.strategies.contract import Propose

LONG = {"patience": 1000}
PARAPHRASES = {"operators": {"paraphrase": 1}}


def proposals_by_round(run: Run) -> list[int]:
    rounds = [work.round for work in run.proposals]
    return [rounds.count(number) for number in sorted(set(rounds))]


def merged(run: Run, number: int) -> list[str]:
    return [
        item["components"]["template"]
        for item in run.state["candidates"]
        if item["operator"] == "merge" and item["round"] == number
    ]


KNOBS = {
    "max_rounds": Effect(
        see=lambda run: (run.state["round"], run.state["finish_reason"]),
        values=(1, 3),
        seen=((1, "max_rounds"), (3, "max_rounds")),
        world=World(flat=0.5),
        given={"early_stopping": LONG},
    ),
    "proposals_per_step": Effect(
        see=lambda run: proposals_by_round(run)[0],
        values=(2, 5),
        seen=(2, 5),
        given={"knobs_": PARAPHRASES},
    ),
    "merges": Effect(
        see=lambda run: len(merged(run, 1)),
        values=(1, 3),
        seen=(1, 3),
        world=World(rewrite=adds_a_helpful_word),
        given={"knobs_": {"proposals_per_step": 5, "near_dup": 1.0, "max_growth": 50}},
    ),
    "single_proposals": Effect(
        see=lambda run: proposals_by_round(run)[:2],
        values=(1, 5),
        seen=([3, 1], [3, 5]),
        world=World(flat=0.5, rewrite=changes_a_tenth),
        given={"knobs_": PARAPHRASES, "early_stopping": LONG},
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


def test_the_first_merge_of_a_round_has_what_every_rewrite_added() -> None:
    run = run_search("merge", World(rewrite=adds_a_helpful_word), knobs_={"proposals_per_step": 4, "merges": 1})

    added = [set(HELPFUL) & words(text) for text in run.texts.values()]
    (first,) = merged(run, 1)
    assert set(HELPFUL) & words(first) == set().union(*(found for found in added if len(found) == 1))
    assert len(set(HELPFUL) & words(first)) == 4


def test_rewrites_that_were_merged_are_not_scored() -> None:
    run = run_search("merge", World(rewrite=adds_a_helpful_word), knobs_={"proposals_per_step": 4})

    rewrites = [item for item in run.state["candidates"] if item["round"] == 1 and item["operator"] == "reflect"]
    assert len(rewrites) == 4
    assert all(item["hash"] not in run.state["scores"] for item in rewrites)
    assert {item["decision"] for item in rewrites} == {"pruned"}


def test_a_round_that_finds_nothing_is_followed_by_small_steps_and_these_by_merges() -> None:
    run = run_search("merge", World(flat=0.5, rewrite=changes_a_tenth), knobs_=PARAPHRASES, early_stopping=LONG)

    assert [point["merging"] for point in run.state["curve"]] == [True, False, True, False][: run.state["round"]]
    assert merged(run, 1)
    assert not merged(run, 2)


def test_patience_counts_small_steps_only() -> None:
    run = run_search(
        "merge", World(flat=0.5, rewrite=changes_a_tenth), knobs_=PARAPHRASES, early_stopping={"patience": 1}
    )

    assert [point["merging"] for point in run.state["curve"]] == [True, False]
    assert run.state["finish_reason"] == "converged"


def test_a_single_rewrite_is_scored_by_itself() -> None:
    def one_idea(work: Propose, text: str) -> str:
        return f"<prompt>\n{HELPFUL['lowercase']}\n{SEED_TEXT}\n</prompt>"

    run = run_search("merge", World(rewrite=one_idea, score=lambda text, case: 0.8 if "lowercase" in text else 0.2))

    assert not merged(run, 1)
    assert "lowercase" in words(run.best_text)


@pytest.mark.parametrize(
    ("others", "wanted"),
    [
        (["Sort it.\nBe brief.\n{{ x }}\nEnd.\nCheck units."], "Sort it.\nBe brief.\n{{ x }}\nEnd.\nCheck units."),
        (["Sort it.\nCheck units.\n{{ x }}\nEnd."], "Sort it.\nCheck units.\nBe brief.\n{{ x }}\nEnd."),
        (["Sort it.\n{{ x }}\nEnd."], "Sort it.\nBe brief.\n{{ x }}\nEnd."),
        (["Sort it.\n{{ x }}\nEnd.", "Sort it.\n{{ x }}"], "Sort it.\n{{ x }}\nEnd."),
        (["Sort it.\nBe brief.\nNow {{ x }}!\nEnd."], "Sort it.\nBe brief.\n{{ x }}\nEnd."),
        (["Sort it.\nBe very brief.\n{{ x }}\nEnd."], "Sort it.\nBe brief.\n{{ x }}\nEnd."),
    ],
    ids=["at the end", "between", "one forgets", "two leave out", "a fixed line", "nearly the same"],
)
def test_a_merge_keeps_what_one_forgets_and_adds_what_any_adds(others: list[str], wanted: str) -> None:
    assert edits.merged("Sort it.\nBe brief.\n{{ x }}\nEnd.", others, level="sentence") == wanted


@pytest.mark.parametrize("text", ["", "One. Two.\n\n", "{{ x }}", "- a\n- b\n\n{{ x }}\n"])
def test_a_merge_of_nothing_new_is_the_text(text: str) -> None:
    assert edits.merged(text, [text, text], level="sentence") == text


def test_a_sentence_that_is_left_out_leaves_its_line_ended() -> None:
    others = ["Sort it.\n{{ x }}", "Sort it.\n{{ x }}"]

    assert edits.merged("Sort it. Be brief.\n{{ x }}", others, level="sentence") == "Sort it.\n{{ x }}"
