"""The evaluation policy: who survives, what it costs, and that nobody is scored twice."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tests.strategies.world import SEED_TEXT, Run, World, drive, fraction, make_cases, make_spec, words
from worker.strategies import policy
from worker.strategies.contract import Evaluate
from worker.strategies.search import Search

# 80 cases make 32 dev cases: 4, 8, 16 and 32 are rungs.
CASES = make_cases(80)
DEV = 32


@dataclass(frozen=True)
class Screening:
    """A strategy that screens a given pool once, and that is all."""

    texts: Sequence[str]
    keep: int
    with_seed: bool = False
    mode: str | None = None

    def begin(self, search: Search) -> None:
        for text in self.texts:
            search.admit({"template": text}, parents=[search.seed], operator="paraphrase", lineage={})

    def advance(self, search: Search) -> None:
        if "survivors" in search.own:
            search.conclude("max_rounds")
            return
        pool = [search.seed, *search.children()] if self.with_seed else search.children()
        policy.screen(search, pool, keep=self.keep, mode=self.mode)


@pytest.mark.parametrize(
    ("pool", "keep", "evaluation", "rungs"),
    [
        (8, 2, {"min_cases": 4}, [(8, 4), (4, 8)]),
        (8, 1, {"min_cases": 4}, [(8, 4), (4, 8), (2, 16)]),
        (9, 1, {"min_cases": 4}, [(9, 4), (5, 8), (3, 16), (2, 32)]),
        (9, 1, {"min_cases": 3, "eta": 3}, [(9, 3), (3, 9)]),
        (16, 1, {"min_cases": 2, "eta": 4}, [(16, 2), (4, 8)]),
        (8, 3, {"min_cases": 20}, [(8, 20), (4, 32)]),
        (8, 2, {"min_cases": 10_000}, [(8, 32)]),
        (8, 2, {"mode": "full"}, [(8, 32)]),
        (8, 2, {"mode": "full", "max_cases": 10}, [(8, 10)]),
        (8, 1, {"min_cases": 4, "max_cases": 6}, [(8, 4), (4, 6)]),
        (3, 3, {"min_cases": 4}, [(3, 4)]),
        (2, 5, {"min_cases": 4}, [(2, 4)]),
    ],
)
def test_each_rung_scores_the_better_part_on_more_cases(
    pool: int, keep: int, evaluation: dict[str, Any], rungs: list[tuple[int, int]]
) -> None:
    run = screened(pool, keep, evaluation)
    steps = screening_steps(run)
    seen: dict[str, set[int]] = {}

    assert len(steps) == len(rungs)
    for (alive, cases), asked in zip(rungs, steps, strict=True):
        for candidate, ordinals in asked.items():
            seen.setdefault(candidate, set()).update(ordinals)
        assert len(asked) == alive
        assert {len(seen[candidate]) for candidate in asked} == {cases}
        assert len({tuple(sorted(seen[candidate])) for candidate in asked}) == 1, "all of a rung see the same cases"


@pytest.mark.parametrize(
    ("evaluation", "cost"),
    [({"min_cases": 4}, 8 * 4 + 4 * 4), ({"mode": "full"}, 8 * DEV), ({"min_cases": 4, "repeats": 3}, 3 * 48)],
)
def test_screening_costs_the_rungs_and_nothing_twice(evaluation: dict[str, Any], cost: int) -> None:
    run = screened(8, 2, evaluation)

    assert sum(len(ordinals) for step in screening_steps(run) for ordinals in step.values()) == cost
    assert len({work.key for work in run.emitted}) == len(run.emitted)


@pytest.mark.parametrize("evaluation", [{"min_cases": 4}, {"min_cases": 4, "eta": 3}, {"mode": "full"}])
def test_the_best_survive_in_their_order(evaluation: dict[str, Any]) -> None:
    run = screened(9, 3, evaluation)

    assert [run.texts[one] for one in run.state["own"]["survivors"]][:3] == [quality(8), quality(7), quality(6)]


def test_those_that_were_dropped_say_at_which_rung() -> None:
    run = screened(8, 2, {"min_cases": 4})
    reasons = {run.texts[item["hash"]]: item["reason"] for item in run.state["candidates"]}

    assert [reasons[quality(i)] for i in range(4)] == ["halving at 4 cases"] * 4
    assert [reasons[quality(i)] for i in (4, 5)] == ["halving at 8 cases"] * 2


def test_a_parent_with_scores_is_ranked_without_another_call() -> None:
    run = screened(7, 2, {"min_cases": 4}, with_seed=True, score=lambda text, case: 0.99 if text == SEED_TEXT else 0.5)

    assert all(SEED_TEXT not in map(run.texts.get, asked) for asked in screening_steps(run))
    assert run.texts[run.state["own"]["survivors"][0]] == SEED_TEXT
    assert [work.candidate for work in run.evaluations if run.texts[work.candidate] == SEED_TEXT] == [
        run.state["candidates"][0]["hash"]
    ] * (DEV + len(run.state["holdout"]))


def test_the_seed_may_lose_a_screening_but_is_never_pruned() -> None:
    run = screened(7, 2, {"min_cases": 4}, with_seed=True, score=lambda text, case: 0.1 if text == SEED_TEXT else 0.5)

    assert SEED_TEXT not in map(run.texts.get, run.state["own"]["survivors"])
    assert run.state["candidates"][0]["decision"] == "seed"


def test_ties_keep_the_older_candidate() -> None:
    run = screened(8, 2, {"min_cases": 4}, score=lambda text, case: 0.5)

    assert [run.texts[one] for one in run.state["own"]["survivors"]] == [quality(0), quality(1)]


def test_a_candidate_whose_calls_fail_is_dropped_and_not_ranked_as_zero() -> None:
    def score(text: str, case: int) -> float | None:
        return None if text == quality(7) and case % 2 else 0.0 if text != quality(7) else 1.0

    run = screened(8, 4, {"min_cases": 8}, score=score)
    failed = next(item for item in run.state["candidates"] if run.texts[item["hash"]] == quality(7))

    assert (failed["decision"], failed["reason"]) == ("pruned", "too many failed calls")
    assert [run.texts[one] for one in run.state["own"]["survivors"]] == [quality(i) for i in range(4)]


def test_a_rung_that_the_budget_does_not_cover_leaves_the_order_of_the_rungs_so_far() -> None:
    # Baseline 32, first rung 8 x 4, holdout 2 x 24: eight calls are left, the second rung needs sixteen.
    run = screened(8, 2, {"min_cases": 4}, budget={"max_task_calls": DEV + 8 * 4 + 2 * 24 + 8})

    assert len(screening_steps(run)[0]) == 8
    assert [run.texts[one] for one in run.state["own"]["survivors"]] == [quality(i) for i in (7, 6, 5, 4)]
    assert len(run.state["own"]["survivor_cases"]) == 4
    assert run.state["finish_reason"] == "budget_task_calls"


def test_a_pool_that_is_too_large_for_the_budget_is_cut_from_its_end() -> None:
    run = screened(8, 2, {"min_cases": 4}, budget={"max_task_calls": DEV + 5 * 4 + 2 * 24 + 3})
    reasons = {run.texts[item["hash"]]: item["reason"] for item in run.state["candidates"]}

    assert [run.texts[one] for one in screening_steps(run)[0]] == [quality(i) for i in range(5)]
    assert [reasons[quality(i)] for i in (5, 6, 7)] == ["the budget does not cover it"] * 3
    assert run.texts[run.state["own"]["survivors"][0]] == quality(4)
    assert run.state["finish_reason"] == "budget_task_calls"


def test_nothing_affordable_leaves_no_survivor() -> None:
    run = screened(8, 2, {"min_cases": 4}, budget={"max_task_calls": DEV + 3 + 2 * 24})

    assert screening_steps(run) == []
    assert run.state["own"]["survivors"] == []
    assert run.result["holdout"]["n"] == 24


# ---- the other modes -----------------------------------------------------------------------------


def test_a_minibatch_is_one_list_of_cases_and_drops_nobody() -> None:
    run = screened(8, 2, {"mode": "minibatch", "min_cases": 5})

    assert [(len(step), {len(cases) for cases in step.values()}) for step in screening_steps(run)] == [(8, {5})]
    assert [run.texts[one] for one in run.state["own"]["survivors"]] == [quality(i) for i in range(7, -1, -1)]


def test_a_race_drops_who_is_surely_worse_and_scores_the_others_on() -> None:
    """The true scores are exact, and so are the differences: the first block settles all of it."""
    run = screened(8, 2, {"mode": "racing", "min_cases": 8, "block_size": 4})

    assert [(len(step), {len(cases) for cases in step.values()}) for step in screening_steps(run)] == [(8, {8})]
    assert [run.texts[one] for one in run.state["own"]["survivors"]] == [quality(7), quality(6)]
    reasons = {item["reason"] for item in run.state["candidates"] if run.texts[item["hash"]] == quality(0)}
    assert reasons == {"racing at 8 cases"}


def test_a_race_of_equals_goes_on_to_the_last_case() -> None:
    run = screened(4, 1, {"mode": "racing", "min_cases": 8, "block_size": 10}, score=lambda text, case: 0.5)

    assert [len(next(iter(step.values()))) for step in screening_steps(run)] == [8, 10, 10, 4]
    assert len(run.state["own"]["survivors"]) == 4, "nobody was surely worse"


@pytest.mark.parametrize("test", ["paired_t", "wilcoxon", "sign", "permutation"])
def test_a_race_keeps_the_best_of_noisy_scores(test: str) -> None:
    def score(text: str, case: int) -> float:
        return min(1.0, max(0.0, worth(text) + 0.8 * (fraction("noise", text, case) - 0.5)))

    run = screened(8, 1, {"mode": "racing", "min_cases": 8, "test": test}, score=score)

    assert run.texts[run.state["own"]["survivors"][0]] == quality(7)
    assert len(screening_steps(run)[-1]) < 8


def test_a_race_is_decided_by_the_same_cases_for_all() -> None:
    run = screened(6, 1, {"mode": "racing", "min_cases": 4, "block_size": 4}, score=lambda text, case: 0.5)

    for step in screening_steps(run):
        assert len(set(map(tuple, step.values()))) == 1


def test_ucb_gives_its_blocks_to_those_that_may_be_the_best() -> None:
    run = screened(8, 2, {"mode": "ucb", "min_cases": 4, "block_size": 4, "ucb_c": 0.05, "ucb_rounds": 4})
    first, *later = screening_steps(run)
    given = [run.texts[one] for step in later for one in step]

    assert {len(cases) for cases in first.values()} == {4}
    assert len(first) == 8
    assert all(len(step) == 2 for step in later)
    assert len(later) == 4
    assert set(given) == {quality(7), quality(6)}
    assert [run.texts[one] for one in run.state["own"]["survivors"]] == [quality(7), quality(6)]
    assert len(run.state["own"]["survivor_cases"]) == 4 * 5


def test_ucb_explores_when_it_is_told_to() -> None:
    run = screened(8, 2, {"mode": "ucb", "min_cases": 4, "block_size": 4, "ucb_c": 10.0, "ucb_rounds": 4})
    given = {one for step in screening_steps(run)[1:] for one in step}

    assert len(given) == 8


def test_successive_rejects_drops_the_last_after_each_phase() -> None:
    run = screened(8, 2, {"block_size": 2, "mode": "ucb"}, mode="successive_rejects")
    steps = screening_steps(run)

    # Audibert, Bubeck and Munos: 2 x 32 / (8 + 1 - k) cases, in blocks of two: 8, 10, 11, 13, 16, 22.
    assert [len(step) for step in steps] == [8, 7, 6, 5, 4, 3]
    assert [len(next(iter(step.values()))) for step in steps] == [8, 2, 2, 2, 2, 6]
    assert [run.texts[one] for one in run.state["own"]["survivors"]] == [quality(7), quality(6)]


@pytest.mark.parametrize("mode", ["racing", "ucb", "successive_rejects"])
def test_no_mode_scores_anybody_twice_or_ranks_who_failed(mode: str) -> None:
    def score(text: str, case: int) -> float | None:
        return None if text == quality(7) and case % 2 else worth(text)

    run = screened(8, 2, {"block_size": 4, "min_cases": 4, "mode": "ucb"}, score=score, mode=mode)

    assert len({work.key for work in run.emitted}) == len(run.emitted)
    assert quality(7) not in [run.texts[one] for one in run.state["own"]["survivors"]]
    assert run.texts[run.state["own"]["survivors"][0]] == quality(6)


def screened(
    pool: int,
    keep: int,
    evaluation: dict[str, Any],
    *,
    with_seed: bool = False,
    score: Any = None,
    mode: str | None = None,
    budget: dict[str, int] | None = None,
) -> Run:
    """One screening of candidates whose quality is known and grows with their number."""
    world = World(cases=CASES, score=score or (lambda text, case: worth(text)))
    spec = make_spec("random", evaluation=evaluation, budget=budget or {"max_task_calls": 10_000})
    # Of the finalists' top-up and of near duplicates nothing is wanted here.
    spec["knobs"] |= {"finalists": 1, "near_dup": 1.0}
    return drive(world, world.problem(spec), Screening([quality(i) for i in range(pool)], keep, with_seed, mode))


def screening_steps(run: Run) -> list[dict[str, list[int]]]:
    """What each rung asked for: the steps between the baseline and the holdout."""
    holdout = set(run.state["holdout"])
    inner = [step.work for step in run.steps[1:]]
    steps: list[dict[str, list[int]]] = []
    for works in inner:
        asked: dict[str, list[int]] = {}
        for work in works:
            if isinstance(work, Evaluate) and work.case not in holdout:
                asked.setdefault(work.candidate, []).append(work.case)
        steps += [asked] if asked else []
    return steps


def quality(number: int) -> str:
    return f"{'abcdefghijklmnopqrst'[number] * 6} is what makes this better. Sort {{{{ ticket }}}}."


def worth(text: str) -> float:
    if text == SEED_TEXT:
        return 0.05
    letter = next(word[0] for word in words(text) if len(set(word)) == 1 and len(word) == 6)
    return 0.1 + "abcdefghijklmnopqrst".index(letter) / 25
