"""What every strategy owes: a pure, resumable, honest search. A strategy that is registered is tested here."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared import knobs
from shared.hashing import hash_of
from tests.strategies.effects import CHAT
from tests.strategies.world import (
    SEARCHES,
    SEED_TEXT,
    Run,
    World,
    drive,
    make_cases,
    make_spec,
    run_search,
    spent_on,
)
from worker.strategies import search
from worker.strategies.contract import Evaluate, Problem, Propose, Result, Spent, Work

WITHOUT_PROPOSALS = {"noop"}  # strategies that have no other text to try


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    left_out = WITHOUT_PROPOSALS if getattr(metafunc.function, "of_new_texts", False) else set()
    metafunc.parametrize("name", sorted(set(SEARCHES) - left_out))


def of_new_texts(test: Any) -> Any:
    """A duty that only who tries other texts can have."""
    test.of_new_texts = True
    return test


few = settings(max_examples=12, deadline=None)
SEEDS = st.integers(0, 2**31 - 1)
LIMITS = {
    "max_task_calls": ("task_calls", "budget_task_calls"),
    "max_proposer_calls": ("proposer_calls", "budget_proposer_calls"),
    "max_judge_calls": ("judge_calls", "budget_judge_calls"),
    "max_tokens": ("tokens", "budget_tokens"),
    "max_cost_nano": ("nano", "budget_cost"),
}
ENDINGS = {
    "converged", "max_rounds", "target_reached", "perfect_score", "no_headroom", "scoring_failed", "proposer_failed",
    "budget_task_calls", "budget_proposer_calls", "budget_judge_calls", "budget_tokens",
    "budget_cost",
}  # fmt: skip


# ---- durable -------------------------------------------------------------------------------------


@few
@given(seed=SEEDS)
def test_every_state_is_json_and_survives_the_round_trip(name: str, seed: int) -> None:
    world, problem = a_problem(name, seed)

    kept = drive(world, problem, SEARCHES[name])
    saved = drive(world, problem, SEARCHES[name], save=lambda state: json.loads(json.dumps(state, allow_nan=False)))

    assert all(json.loads(json.dumps(step.state)) == step.state for step in kept.steps)
    assert saved.canonical == kept.canonical
    assert saved.events == kept.events


@few
@given(seed=SEEDS, shuffle=SEEDS)
def test_the_order_of_the_keys_of_a_saved_object_changes_nothing(name: str, seed: int, shuffle: int) -> None:
    """The results of the open work were once taken in the order of the keys of an object of the state."""
    world, problem = a_problem(name, seed)

    kept = drive(world, problem, SEARCHES[name])
    reordered = drive(world, problem, SEARCHES[name], save=lambda state: shuffled_keys(state, Random(shuffle)))

    assert reordered.canonical == kept.canonical
    assert [work.key for work in reordered.emitted] == [work.key for work in kept.emitted]


@few
@given(seed=SEEDS, shuffle=SEEDS)
def test_order_repetition_and_strangers_among_the_results_change_nothing(name: str, seed: int, shuffle: int) -> None:
    world, problem = a_problem(name, seed)
    chance, late = Random(shuffle), [Result("f" * 64, "a stranger", 1.0, True)]

    def disturbed(results: list[Result]) -> list[Result]:
        mixed = [*results, *chance.choices([*results, *late], k=len(results))]
        chance.shuffle(mixed)
        late.extend(replace(result, score=None, output=None) for result in results)  # come again a step too late
        return mixed

    orderly = drive(world, problem, SEARCHES[name])
    disorderly = drive(world, problem, SEARCHES[name], deliver=disturbed)

    assert disorderly.canonical == orderly.canonical
    assert [work.key for work in disorderly.emitted] == [work.key for work in orderly.emitted]


@settings(max_examples=2, deadline=None)
@given(seed=SEEDS)
def test_a_crash_after_any_step_repeats_no_call_and_ends_the_same(name: str, seed: int) -> None:
    world, problem = a_problem(name, seed)
    whole = drive(world, problem, SEARCHES[name])

    for at in range(len(whole.steps) - 1):
        resumed = drive(world, problem, SEARCHES[name], resume=(whole, at))

        assert resumed.canonical == whole.canonical
        assert list(resumed.paid) == list(whole.paid)
        assert len(resumed.emitted) == len(resumed.paid), "a call was asked for twice"


@few
@given(seed=SEEDS)
def test_step_leaves_the_state_that_it_was_given_alone(name: str, seed: int) -> None:
    world, problem = a_problem(name, seed)
    given_states: list[tuple[dict[str, Any], str]] = []

    def kept(state: dict[str, Any]) -> dict[str, Any]:
        given_states.append((state, json.dumps(state)))
        return state

    drive(world, problem, SEARCHES[name], save=kept)

    assert all(json.dumps(state) == before for state, before in given_states)


@of_new_texts
def test_the_same_seed_gives_the_same_run_and_another_seed_another(name: str) -> None:
    one, again, other = (run_search(name, seed=seed) for seed in (7, 7, 8))

    assert (one.canonical, list(one.paid)) == (again.canonical, list(again.paid))
    assert list(one.paid) != list(other.paid)


def test_the_hash_seed_of_the_process_does_not_matter(name: str) -> None:
    root = Path(__file__).parents[2]

    outputs = [
        subprocess.run(
            [sys.executable, "-m", "tests.strategies.world", name],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]

    assert outputs[0] == outputs[1]
    assert json.loads(outputs[0])["state"]["phase"] == "done"


# ---- within the budget ---------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 20),
    shares=st.dictionaries(st.sampled_from(sorted(LIMITS)), st.floats(0.02, 1.1), min_size=1),
    used=st.sampled_from([0.3, 1.0]),
)
def test_nothing_is_emitted_that_could_pass_a_limit(
    name: str, seed: int, shares: dict[str, float], used: float
) -> None:
    world, problem = a_problem(name, seed, budget={})
    free = drive(world, problem, SEARCHES[name], used=used)
    budget = {limit: int(share * spent(problem, free, free.emitted)[limit]) for limit, share in shares.items()}

    world, problem = a_problem(name, seed, budget=budget)
    run = drive(world, problem, SEARCHES[name], used=used)

    before: list[Work] = []
    for step in run.steps:
        settled, reserved = spent(problem, run, before, used=used), spent(problem, run, step.work)
        assert all(settled[limit] + reserved[limit] <= most for limit, most in budget.items())
        before += step.work


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 20), limit=st.sampled_from(sorted(LIMITS)), share=st.floats(0.02, 1.5))
def test_the_finish_reason_names_the_limit_that_bound(name: str, seed: int, limit: str, share: float) -> None:
    world, problem = a_problem(name, seed, budget={})
    free = drive(world, problem, SEARCHES[name])
    needed = spent(problem, free, free.emitted)[limit]

    world, problem = a_problem(name, seed, budget={limit: int(share * needed)})
    run = drive(world, problem, SEARCHES[name])

    if run.state["finish_reason"] != LIMITS[limit][1]:
        # The search itself was not cut: what it tried and found is what it would have without a limit.
        assert run.state["finish_reason"] == free.state["finish_reason"]
        assert [*run.texts] == [*free.texts]
        assert run.state["curve"] == free.state["curve"]
    else:
        # No more is kept back than the holdout of one candidate beyond what the free run paid for.
        holdout = [Evaluate(free.state["candidates"][0]["hash"], case, 0) for case in free.state["holdout"]]
        assert problem.spec["budget"][limit] < needed + spent(problem, free, holdout)[limit]


@pytest.mark.parametrize("cases", [10, 14, 29, 30, 41, 100])
@pytest.mark.parametrize("evaluation", [{}, {"mode": "full"}, {"repeats": 2}, {"max_cases": 3, "min_cases": 2}])
def test_the_smallest_budget_that_is_accepted_pays_for_a_measured_challenger(
    name: str, cases: int, evaluation: dict[str, Any]
) -> None:
    world = World(cases=make_cases(cases))
    spec = make_spec(name, evaluation=evaluation)
    spec["budget"] = {"max_task_calls": knobs.minimum_task_calls(spec, cases)}

    run = drive(world, world.problem(spec), SEARCHES[name])

    assert {work.candidate for work in run.evaluations} > {run.state["candidates"][0]["hash"]}
    assert run.result["holdout"]["n"] == len(run.state["holdout"])


@settings(max_examples=4, deadline=None)
@given(seed=SEEDS, share=st.floats(0, 1), lost=st.floats(0, 1))
def test_time_that_is_up_ends_a_search_with_what_it_has_and_its_holdout(
    name: str, seed: int, share: float, lost: float
) -> None:
    """At any step, and however many of the calls that it waited for were not begun any more."""
    world, problem = a_problem(name, seed)
    whole = drive(world, problem, SEARCHES[name])
    phases = [step.state["phase"] for step in whole.steps]
    searching = [i + 1 for i, phase in enumerate(phases) if phase == "search"]
    late = searching[min(int(share * len(searching)), len(searching) - 1)]
    steps = iter(range(1, 1_000))

    def cut(results: list[Result]) -> list[Result]:
        return results[int(lost * len(results)) :] if next(steps) == late else results

    run = drive(world, problem, SEARCHES[name], late=late, deliver=cut)

    incumbent = whole.steps[late - 1].state["incumbent"]
    assert run.state["out_of_time"] == late
    assert run.state["finish_reason"] == "budget_time"
    assert run.result["holdout"]["n"] == len(run.state["holdout"])
    assert run.result["best_dev"] >= search_value(whole, incumbent)
    after = [work for step in run.steps[late:] for work in step.work]
    assert {work.case for work in after if isinstance(work, Evaluate)} == set(run.state["holdout"])
    assert not [work for work in after if isinstance(work, Propose)]
    resumed = drive(world, problem, SEARCHES[name], resume=(run, late))
    assert resumed.canonical == run.canonical


@pytest.mark.parametrize("preflight", [False, True])
def test_time_that_is_up_before_the_search_has_begun_claims_nothing(name: str, preflight: bool) -> None:
    world, problem = a_problem(name, 0)
    problem = replace(problem, spec={**problem.spec, **({"preflight": True} if preflight else {})})

    run = drive(world, problem, SEARCHES[name], late=1 + preflight)

    assert (run.state["finish_reason"], run.result["verdict"]) == ("budget_time", "not_measured")
    assert len(run.paid) == (1 + preflight) * len(run.state["dev"])


@of_new_texts
def test_a_budget_for_some_proposals_buys_some(name: str) -> None:
    free = run_search(name)
    if not proposes(name):
        assert free.proposals == []
        return
    first = next(step for step in free.steps if any(isinstance(work, Propose) for work in step.work))
    wanted = sum(isinstance(work, Propose) for work in first.work)

    run = run_search(name, budget={"max_task_calls": 600, "max_proposer_calls": wanted - 1})

    assert len(run.proposals) == wanted - 1
    assert run.state["finish_reason"] == "budget_proposer_calls"


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 20),
    shares=st.dictionaries(st.sampled_from(sorted(LIMITS)), st.floats(0.1, 1.1), min_size=1),
    by_length=st.booleans(),
)
@example(seed=19, shares={"max_cost_nano": 0.6875}, by_length=True)  # an earlier ask of the step completes the best
def test_the_holdout_is_affordable_whenever_the_baseline_was(
    name: str, seed: int, shares: dict[str, float], by_length: bool
) -> None:
    fields = {"price": price_of_rendering} if by_length else {}
    world, problem = a_problem(name, seed, budget={}, **fields)
    world = replace(world, rewrite=shorter_but_dearer) if by_length else world
    free = drive(world, problem, SEARCHES[name])
    budget = {limit: int(share * spent(problem, free, free.emitted)[limit]) for limit, share in shares.items()}

    problem = replace(problem, spec={**problem.spec, "budget": budget})
    run = drive(world, problem, SEARCHES[name])

    if run.steps[0].work:
        assert run.result["holdout"]["n"] == len(run.state["holdout"])
        assert run.result["verdict"] != "not_measured"


@pytest.mark.parametrize("limit", sorted(LIMITS))
def test_a_budget_below_the_baseline_buys_nothing_and_claims_nothing(name: str, limit: str) -> None:
    if limit == "max_proposer_calls":
        limit = "max_tokens"  # the baseline makes no proposal
    run = run_search(name, budget={limit: 20})

    assert run.emitted == []
    assert run.state["finish_reason"] == LIMITS[limit][1]
    assert (run.result["verdict"], run.result["holdout"], run.result["baseline_dev"]) == ("not_measured", None, None)
    assert "optimization.baseline" not in [kind for kind, _ in run.events]


# ---- honest --------------------------------------------------------------------------------------


@pytest.mark.parametrize("flat", [0.0, 0.5, 1 / 3])
def test_equal_scores_end_without_a_winner(name: str, flat: float) -> None:
    run = run_search(name, World(flat=flat))

    assert run.state["finish_reason"] in ENDINGS
    assert run.result["best"] == run.state["candidates"][0]["hash"]
    assert run.result["baseline_dev"] == pytest.approx(flat)
    assert run.result["verdict"] == "not_significant"


def test_a_perfect_baseline_has_no_headroom_and_costs_only_itself(name: str) -> None:
    run = run_search(name, World(flat=1.0))

    assert run.state["finish_reason"] == "no_headroom"
    assert (run.result["verdict"], run.result["baseline_dev"]) == ("no_headroom", 1.0)
    assert len(run.paid) == len(run.state["dev"])


@pytest.mark.parametrize("seed", range(8))
def test_a_tenth_of_calls_failing_is_survived_and_not_scored_as_wrong(name: str, seed: int) -> None:
    world, problem = a_problem(name, seed, evaluation={"missing_tolerance": 1.0})
    run = drive(replace(world, missing=0.1, flat=0.5), problem, SEARCHES[name])

    assert run.state["finish_reason"] in ENDINGS - {"scoring_failed", "proposer_failed"}
    assert (run.result["baseline_dev"], run.result["best_dev"]) == (0.5, 0.5)
    assert {point["best"] for point in run.state["curve"]} == {0.5}


def test_right_answers_among_failed_calls_make_a_perfect_baseline(name: str) -> None:
    run = run_search(name, World(flat=1.0, missing=0.3))

    assert run.state["finish_reason"] == "no_headroom"
    assert run.result["baseline_dev"] == 1.0


def test_a_candidate_whose_calls_fail_too_often_never_becomes_the_best(name: str) -> None:
    def only_the_seed_answers(text: str, case: int) -> float | None:
        return 0.2 if text == SEED_TEXT else (1.0 if case % 5 < 3 else None)

    run = run_search(name, World(score=only_the_seed_answers))

    assert run.result["best"] == run.state["candidates"][0]["hash"]
    assert run.result["baseline_dev"] == pytest.approx(0.2)


@pytest.mark.parametrize(("share", "gives_up"), [(0.5, False), (0.6, True)])
def test_more_than_half_of_the_calls_failing_ends_as_scoring_failed(name: str, share: float, gives_up: bool) -> None:
    # A minibatch may hold more of the failing cases than dev does: where there are any, it is all of dev here.
    whole = {"minibatch_size": 1000} if "minibatch_size" in knobs.STRATEGIES[name.partition(":")[0]] else {}
    problem = a_problem(name, 0, knobs_=whole)[1]
    dev = search.start(problem, SEARCHES[name]).state["dev"]
    failing = dev[: math.ceil(share * len(dev))]

    run = drive(World(score=lambda text, case: None if case in failing else 0.5), problem, SEARCHES[name])

    assert (run.state["finish_reason"] == "scoring_failed") is gives_up
    assert (run.result["verdict"] == "not_measured") is gives_up
    assert run.result["baseline_dev"] == 0.5


@of_new_texts
def test_a_failed_call_of_a_small_step_does_not_end_the_search(name: str) -> None:
    """Where one case is left to score, one failure is all of a step."""
    problem = a_problem(name, 0, evaluation={"max_cases": 5, "min_cases": 4, "case_order": "fixed"})[1]
    dev = search.start(problem, SEARCHES[name]).state["dev"][:5]
    world = World(score=lambda text, case: None if case == max(dev) else 0.2 if text == SEED_TEXT else 0.5)
    run = drive(world, problem, SEARCHES[name])

    assert run.state["finish_reason"] in ENDINGS - {"scoring_failed"}
    assert run.result["best_dev"] == 0.5
    assert run.result["holdout"]["candidate"] == 0.5


@of_new_texts
def test_the_holdout_weighs_the_cases_as_the_ranking_on_dev_does(name: str) -> None:
    """A gain on the heavy cases and a loss on the light ones was once a loss on the holdout."""
    cases = [replace(case, weight=50.0 if case.ordinal % 4 == 0 else 1.0) for case in make_cases()]
    world = World(
        cases=cases,
        score=lambda text, case: 0.5 if text == SEED_TEXT else (0.8 if case % 4 == 0 else 0.4),
        rewrite=lambda work, text: f"<prompt>\n{work.key[:30]} is new.\n{SEED_TEXT}\n</prompt>",
    )

    run = drive(world, world.problem(make_spec(name)), SEARCHES[name])

    heavy = sum(case % 4 == 0 for case in run.state["holdout"])
    light = len(run.state["holdout"]) - heavy
    assert heavy < light
    assert run.result["best_dev"] > run.result["baseline_dev"] == pytest.approx(0.5)
    assert run.result["holdout"]["difference"] == pytest.approx((0.3 * 50 * heavy - 0.1 * light) / (50 * heavy + light))


def test_a_holdout_that_mostly_failed_measures_nothing(name: str) -> None:
    problem = a_problem(name, 0)[1]
    holdout = set(search.start(problem, SEARCHES[name]).state["holdout"])
    answered = sorted(holdout)[:3]

    def better_where_it_answers(text: str, case: int) -> float | None:
        if case in holdout and case not in answered:
            return None
        return 0.2 if text == SEED_TEXT else 0.9

    run = drive(World(score=better_where_it_answers), problem, SEARCHES[name])

    assert run.state["finish_reason"] == "scoring_failed"
    assert run.result["verdict"] == "not_measured"


@of_new_texts
def test_no_answer_to_any_proposal_ends_as_proposer_failed(name: str) -> None:
    run = run_search(name, World(proposer_fails=True))

    if not proposes(name):
        assert run.proposals == []
        return
    assert run.proposals, "the small settings of a strategy that can propose should make it propose"
    assert run.state["finish_reason"] == "proposer_failed"
    assert run.result["verdict"] == "not_significant"


@of_new_texts
@pytest.mark.parametrize(
    "answer", ["I cannot think of anything.", "", " \n", "<prompt></prompt>", "<prompt>\n \n</prompt>", "```\n```"]
)
def test_proposals_without_a_prompt_are_rejected_and_the_seed_stands(name: str, answer: str) -> None:
    run = run_search(name, World(rewrite=lambda work, text: answer))
    reasons = [data["reason"] for kind, data in run.events if kind == "candidate.rejected"]

    assert bool(reasons) is proposes(name) or set(reasons) == {"duplicate"}
    assert set(reasons) <= {"no prompt in the answer", "near duplicate", "duplicate"}
    assert run.state["rejected"] == len(reasons)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, -0.01, 1.01])
def test_a_score_that_is_no_share_is_refused(name: str, score: float) -> None:
    problem = a_problem(name, 0)[1]
    first = search.start(problem, SEARCHES[name])
    results = [Result(work.key, "answer", 0.5) for work in first.work[1:]]
    results.append(Result(first.work[0].key, "answer", score))

    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        search.step(problem, SEARCHES[name], first.state, results, Spent())


# ---- careful with what is held out ---------------------------------------------------------------


@of_new_texts
@few
@given(seed=SEEDS)
def test_the_proposer_sees_train_cases_only(name: str, seed: int) -> None:
    world, problem = a_problem(name, seed)
    run = drive(world, problem, SEARCHES[name])
    train = set(run.state["train"])
    hidden = [case for case in world.cases if case.ordinal not in train]
    shown = "\n".join(message["content"] for work in run.proposals for message in work.messages)

    assert len(hidden) == len(run.state["dev"]) + len(run.state["holdout"])
    assert bool(shown) is proposes(name)
    assert not [case.ordinal for case in hidden if case.inputs["ticket"] in shown]
    assert {case for work in run.proposals for case in work.evidence} <= train


@of_new_texts
@pytest.mark.parametrize(("length", "admitted"), [(39, True), (40, False)])
@pytest.mark.parametrize("part", ["dev", "holdout"])
def test_a_proposal_that_copies_forty_characters_of_a_hidden_case_is_rejected(
    name: str, part: str, length: int, admitted: bool
) -> None:
    world, problem = a_problem(name, 3)
    hidden = search.start(problem, SEARCHES[name]).state[part][0]
    copied = next(case.inputs["ticket"] for case in world.cases if case.ordinal == hidden)[10 : 10 + length]
    world = replace(world, rewrite=lambda work, text: f"<prompt>\n{text}\nFor example: {copied}\n</prompt>")

    run = drive(world, problem, SEARCHES[name])
    rejected = {data["reason"] for kind, data in run.events if kind == "candidate.rejected"}

    assert any(copied in text for text in run.texts.values()) is (admitted and proposes(name))
    assert ("holds a piece of a held-out case" in rejected) is (not admitted and proposes(name))


@few
@given(seed=SEEDS)
def test_holdout_cases_are_run_once_the_search_is_over_and_for_two_texts_at_most(name: str, seed: int) -> None:
    world, problem = a_problem(name, seed)
    run = drive(world, problem, SEARCHES[name])
    holdout = set(run.state["holdout"])
    asked = [[w for w in s.work if isinstance(w, Evaluate) and w.case in holdout] for s in run.steps]

    assert not any(asked[:-2])
    assert {work.candidate for work in asked[-2]} == {run.steps[0].state["candidates"][0]["hash"], run.result["best"]}


# ---- accountable ---------------------------------------------------------------------------------


@few
@given(seed=SEEDS, calls=st.integers(30, 300), missing=st.sampled_from([0.0, 0.1, 0.35]))
def test_every_candidate_that_was_dropped_says_why(name: str, seed: int, calls: int, missing: float) -> None:
    world, problem = a_problem(name, seed, budget={"max_task_calls": calls})
    run = drive(replace(world, missing=missing), problem, SEARCHES[name])

    for candidate in run.state["candidates"][1:]:
        assert candidate["decision"] in ("kept", "pruned", "best"), candidate
        assert candidate["reason"], candidate


@few
@given(seed=SEEDS)
def test_exactly_the_winner_is_called_the_best(name: str, seed: int) -> None:
    world, problem = a_problem(name, seed)
    run = drive(world, problem, SEARCHES[name])
    best = [item["hash"] for item in run.state["candidates"] if item["decision"] == "best"]

    assert best == ([] if run.result["best"] == run.state["candidates"][0]["hash"] else [run.result["best"]])


@few
@given(seed=SEEDS)
def test_every_candidate_has_its_lineage(name: str, seed: int) -> None:
    world, problem = a_problem(name, seed)
    run = drive(world, problem, SEARCHES[name])
    known = set(run.texts)
    proposals = {work.key for work in [*run.proposals, *run.repairs]}

    for candidate in run.state["candidates"][1:]:
        assert candidate["parents"]
        assert set(candidate["parents"]) <= known
        assert candidate["lineage"].get("proposal") in {None, *proposals}


@few
@given(seed=SEEDS)
def test_demonstrations_are_train_cases_and_nobody_is_scored_on_what_it_shows(name: str, seed: int) -> None:
    """With few cases train is dev, and what a candidate shows is among what the others are scored on."""
    for cases in (20, 40):
        world = World(cases=make_cases(cases), salt=seed % 1000)
        run = drive(world, world.problem(make_spec(name, seed=seed)), SEARCHES[name])
        shown = {item["hash"]: {demo["case"] for demo in item.get("demos", ())} for item in run.state["candidates"]}

        assert set().union(*shown.values()) <= set(run.state["train"])
        assert not set().union(*shown.values()) & set(run.state["holdout"])
        assert not [work for work in run.evaluations if work.case in shown[work.candidate]]


@few
@given(seed=SEEDS, every=st.integers(1, 3))
def test_the_cases_set_aside_are_asked_of_the_best_alone_and_shown_to_nobody(name: str, seed: int, every: int) -> None:
    world, problem = a_problem(name, seed, evaluation={"generalization_check_every": every})

    run = drive(world, problem, SEARCHES[name])

    aside = set(run.state["watch"])
    assert aside
    assert not aside & {*run.state["train"], *run.state["dev"], *run.state["holdout"]}
    checked = {item["candidate"] for item in run.state["checks"]}
    assert {work.candidate for work in run.evaluations if work.case in aside} == checked
    assert not {case for work in run.proposals for case in work.evidence} & aside
    shown = [message["content"] for work in run.proposals for message in work.messages]
    assert not [case for case in aside for text in shown if f"Message {case}:" in text]
    told = [data for kind, data in run.events if kind == "optimization.generalization"]
    assert told == run.result["generalization"]
    assert [item["round"] for item in told] == [
        point["round"] for point in run.state["curve"] if point["round"] % every == 0
    ][: len(told)]


@settings(max_examples=2, deadline=None)
@given(seed=SEEDS)
def test_a_run_that_checks_is_as_durable_and_keeps_its_budget(name: str, seed: int) -> None:
    evaluation, budget = {"generalization_check_every": 1}, {"max_task_calls": 200}
    world, problem = a_problem(name, seed, evaluation=evaluation, budget=budget)
    whole = drive(world, problem, SEARCHES[name])

    for at in range(len(whole.steps) - 1):
        resumed = drive(world, problem, SEARCHES[name], resume=(whole, at))
        assert (resumed.canonical, list(resumed.paid)) == (whole.canonical, list(whole.paid))
    assert sum(isinstance(work, Evaluate) for work in whole.paid.values()) <= 200


def test_so_few_cases_that_a_run_must_be_told_to_begin_are_searched_and_prove_nothing(name: str) -> None:
    for count in range(2, 10):
        for salt in range(3):
            world = World(cases=make_cases(count), salt=salt)

            run = run_search(name, world)

            assert run.state["finish_reason"] in ENDINGS
            assert run.result["verdict"] in ("not_significant", "no_headroom", "not_measured")
            assert (run.result["tiny"], run.result["indicative"]) == (True, True)
            assert len({work.case for work in run.evaluations}) <= count


@of_new_texts
def test_only_the_named_messages_are_rewritten_by_whatever_operator(name: str) -> None:
    """A candidate with another text in a message that was not named would become a version with it."""
    world = World(components={**CHAT, "2_assistant": "Ask if in doubt.", "3_user": "Answer now."})
    allowed = ["0_system", "3_user"]
    named = {"components": allowed} if proposes(name) else {}
    everything = {"operators": dict.fromkeys(knobs.OPERATORS, 1)} if "operators" in knobs_of(name) else {}
    parts = {"crossover_operator": "component"} if name.startswith("genetic") else {}
    for seed in range(3):
        run = drive(
            world,
            world.problem(make_spec(name, knobs_={**named, **everything, **parts}, seed=seed)),
            SEARCHES[name],
        )

        for item in run.state["candidates"]:
            assert {part: text for part, text in item["components"].items() if part not in allowed} == {
                part: text for part, text in world.components.items() if part not in allowed
            }


def test_a_candidate_without_genes_has_the_hash_of_its_texts(name: str) -> None:
    run = run_search(name)

    for item in run.state["candidates"]:
        genes = {part: item[part] for part in ("demos", "params") if part in item}
        assert all(genes.values()), "an empty part would be another JSON than before there were genes"
        whole = {"components": item["components"], **genes} if genes else item["components"]
        if "first_repeat" in item:
            whole = [whole, item["first_repeat"]]  # a twin of the seed is told from it by its number
        assert item["hash"] == hash_of(whole)


def search_value(run: Run, candidate: str) -> float:
    """What a candidate has on dev in the end of a run that it was the incumbent of."""
    scores = run.state["scores"][candidate]
    known = [scores[str(case)][0] for case in run.state["dev"] if str(case) in scores]
    return sum(known) / len(known) - 1e-9


# ---- scaffolding ---------------------------------------------------------------------------------


def knobs_of(name: str) -> Any:
    return knobs.STRATEGIES[name.partition(":")[0]]


def proposes(name: str) -> bool:
    """Whether a strategy asks a proposer at all; some leave the texts alone."""
    return "proposer_temperature" in knobs_of(name)


def a_problem(name: str, seed: int, **fields: Any) -> tuple[World, Problem]:
    price = {"price": fields.pop("price")} if "price" in fields else {}
    world = World(cases=make_cases(), salt=seed % 1000)
    return world, world.problem(make_spec(name, seed=seed, **fields), **price)


def spent(problem: Problem, run: Run, works: Iterable[Work], *, used: float = 1.0) -> dict[str, int]:
    """By the name of the limit that it counts against."""
    texts = {item["hash"]: item["components"] for item in run.state["candidates"]}
    total = spent_on(problem, texts, works, used=used)
    return {limit: getattr(total, measure) for limit, (measure, _) in LIMITS.items()}


def shuffled_keys(value: Any, chance: Random) -> Any:
    """The same JSON with the keys of every object in another order, as a database may give it back."""
    if isinstance(value, list):
        return [shuffled_keys(item, chance) for item in value]
    if isinstance(value, dict):
        return {key: shuffled_keys(value[key], chance) for key in chance.sample(sorted(value), len(value))}
    return value


def price_of_rendering(components: Any, work: Work) -> tuple[int, int]:
    """What a provider asks: for the rendered text, whatever the length of the template."""
    rendered = sum(text.count("{{ ticket }}") * 80 + len(text) // 10 for text in components.values())
    return rendered, 10 * rendered


def shorter_but_dearer(work: Propose, text: str) -> str:
    return f"<prompt>\nSort it{' ' + work.key[:9] * 3}: {{{{ ticket }}}} {{{{ ticket }}}} {{{{ ticket }}}}\n</prompt>"
