"""What is told beside a result: how far dev flattered the chosen one, and each warning where it belongs."""

from dataclasses import replace
from typing import Any

import pytest

from tests.strategies.effects import adds_a_helpful_word, reasons
from tests.strategies.world import SEED_TEXT, Run, World, drive, make_cases, make_spec, run_search
from tests.support import Api, Drain, make_triage, optimization_body
from worker.strategies import STRATEGIES, cautions
from worker.strategies.record import Record

MANY = make_cases(200)  # 60 of them are held out


def told(run: Run, world: World, **settings: Any) -> dict[str, Any]:
    return cautions.told_of(Record(world.problem(make_spec("random", **settings)), run.state))


def codes(world: World, **settings: Any) -> set[str]:
    run = run_search("random", world, **settings)
    return {warning["code"] for warning in told(run, world, **settings)["warnings"]}


def flattered_on_dev(cases: Any, dev_gain: float) -> World:
    """A rewrite gains on the dev cases alone."""
    dev = set(
        Record(World(cases=cases).problem(make_spec("random")), run_search("random", World(cases=cases)).state).dev
    )

    def score(text: str, case: int) -> float:
        low = 0.3 + 0.1 * (case % 5)
        return low if text == SEED_TEXT or case not in dev else min(1.0, low + dev_gain)

    return World(cases=cases, score=score, rewrite=adds_a_helpful_word)


def test_a_best_that_dev_alone_likes_is_called_overfit_with_the_gap_and_its_interval() -> None:
    world = flattered_on_dev(MANY, 0.25)
    run = run_search("random", world)
    found = told(run, world)

    overfit = found["overfit"]
    assert overfit["gap"] == pytest.approx(run.result["best_dev"] - run.result["holdout"]["candidate"])
    assert overfit["gap"] == pytest.approx(0.25, abs=0.03)
    assert 0 < overfit["ci_low"] < overfit["gap"] < overfit["ci_high"]
    assert overfit["ci_high"] - overfit["gap"] == pytest.approx(overfit["gap"] - overfit["ci_low"])
    assert "overfit" in {warning["code"] for warning in found["warnings"]}


def test_a_gap_that_its_interval_covers_is_told_without_a_warning() -> None:
    world = flattered_on_dev(MANY, 0.02)
    found = told(run_search("random", world), world)

    assert found["overfit"]["ci_low"] < 0 < found["overfit"]["ci_high"]
    assert "overfit" not in {warning["code"] for warning in found["warnings"]}


def test_the_seed_was_not_chosen_by_dev_and_cannot_be_overfit() -> None:
    dev = set(run_search("random", World(cases=MANY)).state["dev"])
    world = World(cases=MANY, score=lambda text, case: (0.9 if case in dev else 0.1) if text == SEED_TEXT else 0.0)
    found = told(run_search("random", world), world)

    assert found["overfit"]["ci_low"] > 0
    assert "overfit" not in {warning["code"] for warning in found["warnings"]}


def test_a_result_that_nothing_speaks_against_has_no_warning() -> None:
    assert codes(World(cases=MANY)) == set()


@pytest.mark.parametrize(
    ("cases", "expected"),
    [(20, {"train_is_dev", "small_holdout"}), (40, {"small_holdout"}), (160, {"small_holdout"}), (170, set())],
)
def test_few_cases_are_told_by_how_many_are_held_out(cases: int, expected: set[str]) -> None:
    assert codes(World(cases=make_cases(cases))) & {"train_is_dev", "small_holdout"} == expected


def test_a_small_holdout_says_what_it_could_show() -> None:
    world = World(rewrite=adds_a_helpful_word)
    run = run_search("random", world)
    holdout = run.result["holdout"]

    (warning,) = (one for one in told(run, world)["warnings"] if one["code"] == "small_holdout")

    assert holdout["ci_high"] > holdout["ci_low"]
    assert f"{(holdout['ci_high'] - holdout['ci_low']) / 2:.2f}" in warning["text"]


@pytest.mark.parametrize("flat", [0.0, 0.5, 1.0])
def test_scores_that_are_all_the_same_are_named(flat: float) -> None:
    assert "constant_scores" in codes(World(cases=MANY, flat=flat))


@pytest.mark.parametrize(("missing", "is_told"), [(0.05, False), (0.25, True)])
def test_calls_that_failed_are_named_from_a_tenth_on(missing: float, is_told: bool) -> None:
    assert ("many_failed_calls" in codes(World(cases=MANY, missing=missing))) is is_told


def test_noise_above_the_headroom_is_named() -> None:
    world = World(cases=MANY, base=0.98, salt=2)
    problem = world.problem({**make_spec("random"), "preflight": True})
    run = drive(world, problem, STRATEGIES["random"])

    found = cautions.told_of(Record(problem, run.state))

    assert run.state["finish_reason"] == "no_headroom"
    assert "noise_above_headroom" in {warning["code"] for warning in found["warnings"]}


def test_a_search_that_did_not_come_to_its_end_says_so() -> None:
    assert "budget_ended" in codes(World(cases=MANY), budget={"max_task_calls": 250})
    assert "calls_ended" in codes(World(cases=MANY, proposer_fails=True))


def test_a_baseline_without_a_score_has_no_gap() -> None:
    world, budget = World(cases=MANY), {"max_task_calls": 10}
    run = run_search("random", world, budget=budget)

    assert told(run, world, budget=budget)["overfit"] is None


def test_they_stand_in_the_result_and_a_replay_is_not_about_them(api: Api, drain: Drain) -> None:
    make_triage(api, cases=40)
    path = f"/v1/optimizations/{api.expect(202, 'POST', '/v1/optimizations', optimization_body())['optimization_id']}"
    drain()
    result = api.expect(200, "GET", path)["result"]
    api.expect(202, "POST", f"{path}/replay")
    drain()

    assert set(result["overfit"]) == {"dev", "holdout", "gap", "ci_low", "ci_high"}
    assert "small_holdout" in {warning["code"] for warning in result["warnings"]}
    assert all(warning["text"] for warning in result["warnings"])
    assert api.expect(200, "GET", f"{path}/replay")["identical"]


CHECKED = {"evaluation": {"generalization_check_every": 1}}


def worse_aside(loss: float) -> World:
    """A rewrite gains everywhere but on the cases that are set aside."""
    aside = set(run_search("beam_search", World(cases=MANY), **CHECKED).state["watch"])

    def score(text: str, case: int) -> float:
        low = 0.3 + 0.1 * (case % 5)
        return low if text == SEED_TEXT or case in aside else min(1.0, low + loss)

    return World(cases=MANY, score=score, rewrite=adds_a_helpful_word)


def warnings_of(world: World, **settings: Any) -> tuple[Run, dict[str, str]]:
    run = run_search("beam_search", world, **settings)
    record = Record(world.problem(make_spec("beam_search", **settings)), run.state)
    return run, {warning["code"]: warning["text"] for warning in cautions.told_of(record)["warnings"]}


def test_a_best_that_is_worse_on_the_cases_set_aside_is_warned_of_with_the_round() -> None:
    run, told = warnings_of(worse_aside(0.25), **CHECKED)

    first = run.result["generalization"][0]
    assert first["round"] == 1
    assert first["gap"] == pytest.approx(first["dev"] - first["watch"])
    assert first["gap"] == pytest.approx(0.25, abs=0.03)
    assert 0 < first["ci_low"] < first["gap"] < first["ci_high"]
    assert first["cases"] == len(run.state["watch"]) == 20
    assert "first in round 1" in told["generalization"]
    assert "in 3 of 3 checks" in told["generalization"]
    assert run.result["cases"] == {"train": 60, "dev": 60, "holdout": 60, "watch": 20}


def test_a_best_that_is_as_good_there_is_told_without_a_warning() -> None:
    run, told = warnings_of(worse_aside(0.01), **CHECKED)

    assert len(run.result["generalization"]) == 3
    assert "generalization" not in told


def test_the_seed_is_checked_and_not_warned_of() -> None:
    aside = set(run_search("beam_search", World(cases=MANY), **CHECKED).state["watch"])
    run, told = warnings_of(World(cases=MANY, score=lambda text, case: 0.2 + 0.5 * (case not in aside)), **CHECKED)

    assert run.result["best"] == run.state["candidates"][0]["hash"]
    assert run.result["generalization"][0]["ci_low"] > 0
    assert "generalization" not in told


def test_a_check_whose_calls_failed_says_so_and_warns_of_nothing() -> None:
    aside = set(run_search("beam_search", World(cases=MANY), **CHECKED).state["watch"])
    run, told = warnings_of(
        World(cases=MANY, score=lambda text, case: None if case in aside else 0.5, rewrite=adds_a_helpful_word),
        **CHECKED,
    )

    assert run.result["generalization"][0]["gap"] is None
    assert run.result["generalization"][0]["cases"] == 0
    assert "generalization" not in told


def test_a_check_that_the_budget_does_not_cover_is_left_out() -> None:
    plenty = run_search("beam_search", World(cases=MANY), **CHECKED)
    fewest = len(plenty.state["dev"]) + 2 * len(plenty.state["holdout"])
    found = []

    for limit in range(fewest, len(plenty.evaluations), 5):
        run = run_search("beam_search", World(cases=MANY), budget={"max_task_calls": limit}, **CHECKED)
        assert len({work.key for work in run.evaluations}) <= limit
        found.append(len(run.result["generalization"]))

    assert {0, 1} <= set(found)
    assert len(plenty.result["generalization"]) == 3


def test_a_rewrite_that_quotes_a_case_set_aside_is_no_candidate() -> None:
    cases = [replace(case, inputs={"ticket": f"{case.ordinal:05}" * 10}) for case in MANY]
    aside = run_search("beam_search", World(cases=cases), **CHECKED).state["watch"][0]

    run = run_search(
        "beam_search",
        World(
            cases=cases,
            rewrite=lambda work, text: f"<prompt>\n{f'{aside:05}' * 10} {work.key[:9]}\n{text}\n</prompt>",
        ),
        **CHECKED,
    )

    assert reasons(run) == {"holds a piece of a held-out case"}
