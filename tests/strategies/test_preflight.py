"""The pre-flight: an A/A probe of the seed that says what is noise, and ends a search that could show nothing."""

from typing import Any

import pytest

from shared import stats
from tests.strategies.world import World, drive, make_spec
from worker.strategies import STRATEGIES


def searched(world: World, *, preflight: bool, **fields: Any) -> Any:
    spec = make_spec("beam_search", **fields)
    if preflight:
        spec["preflight"] = True
    return drive(world, world.problem(spec), STRATEGIES["beam_search"])


def test_it_costs_one_more_scoring_of_dev_and_changes_nothing_else() -> None:
    plain, probed = (searched(World(), preflight=flag) for flag in (False, True))

    assert len(probed.paid) == len(plain.paid) + len(plain.state["dev"])
    assert probed.state["scores"] == plain.state["scores"]
    assert [one["hash"] for one in probed.state["candidates"]] == [one["hash"] for one in plain.state["candidates"]]
    assert probed.result["holdout"] == plain.result["holdout"]
    assert "preflight" not in plain.result


def test_noise_is_the_standard_error_of_the_difference_of_two_scorings() -> None:
    run = searched(World(), preflight=True)

    seed = run.state["candidates"][0]["hash"]
    first = [run.state["scores"][seed][str(case)][0] for case in run.state["dev"]]
    second = [run.state["probe"][str(case)][0] for case in run.state["dev"]]
    deltas = [b - a for a, b in zip(first, second, strict=True)]
    found = run.result["preflight"]
    assert any(deltas)
    assert found["difference"] == pytest.approx(sum(deltas) / len(deltas))
    assert found["noise_floor"] == pytest.approx(stats.standard_error(deltas))
    assert found["headroom"] == pytest.approx(1 - run.result["baseline_dev"])
    assert (found["cases"], found["missing"], found["constant"]) == (len(deltas), 0.0, False)


def test_repeats_of_the_probe_are_other_samples_and_averaged() -> None:
    run = searched(World(), preflight=True, evaluation={"repeats": 2})

    assert {len(values) for values in run.state["probe"].values()} == {2}
    assert run.result["preflight"]["cases"] == len(run.state["dev"])


def test_a_score_that_is_always_the_same_is_said_to_be_constant() -> None:
    found = searched(World(flat=0.5), preflight=True).result["preflight"]

    assert (found["constant"], found["noise_floor"], found["headroom"]) == (True, 0.0, 0.5)


def test_without_room_above_the_noise_the_search_does_not_begin() -> None:
    """One case is wrong, and on a second look that one is right and four others are wrong."""
    seen: list[int] = []

    def score(_: str, case: int) -> float:
        if case not in seen:
            seen.append(case)
            return float(len(seen) > 1)
        return float(seen.index(case) not in (1, 2, 3, 4))

    run = searched(World(score=score), preflight=True)

    found = run.result["preflight"]
    assert 0 < found["headroom"] <= found["noise_floor"]
    assert (run.state["finish_reason"], run.result["verdict"]) == ("no_headroom", "no_headroom")
    assert len(run.paid) == 2 * len(run.state["dev"])


def test_failed_calls_of_the_probe_are_missing_and_half_of_them_end_it() -> None:
    some = searched(World(missing=0.2), preflight=True)
    most = searched(World(missing=0.7), preflight=True)

    assert 0 < some.result["preflight"]["missing"] < 0.5
    assert most.state["finish_reason"] == "scoring_failed"


def test_a_budget_that_does_not_cover_it_ends_the_run_before_the_search() -> None:
    dev = len(searched(World(), preflight=False).state["dev"])

    run = searched(World(), preflight=True, budget={"max_task_calls": 2 * dev})

    assert run.state["finish_reason"] == "budget_task_calls"
    assert len(run.paid) <= 2 * dev
