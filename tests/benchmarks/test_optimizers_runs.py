"""The comparison of searches still runs, and its worlds are what they say. What it finds is for docs/performance.md."""

import itertools
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.optimizers import figures, formats, lexicon, ours, outcomes, record, reducer, runs, worlds, writer
from benchmarks.optimizers.outcomes import Outcome
from benchmarks.optimizers.worlds import World
from shared.knobs import DEFAULT
from worker.strategies.contract import Evaluate

ROOT = Path(__file__).parents[2]
BUDGET = {"max_task_calls": 360, "max_proposer_calls": 40}


def test_a_small_run_compares_in_process_and_over_http_and_under_kills(tmp_path: Path) -> None:
    plotted = tmp_path / "calls.svg"
    command = [sys.executable, "-m", "benchmarks.optimizers", "--smoke", "--plot", str(plotted)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=220)
    report = json.loads(done.stdout)

    found = report["http"]["named"]["figures"][DEFAULT]
    assert 0 < found["calls"]["value"] <= 400
    assert {"random", "beam_search"} <= set(report["reducer"]["named"]["figures"])
    assert len(report["kills"]["kills"]) == 2
    assert report["kills"]["within"]
    assert f"{DEFAULT} (1 runs)" in plotted.read_text(encoding="utf-8")


@pytest.mark.parametrize("family", worlds.FAMILIES)
def test_no_prompt_is_worth_more_than_the_best(family: str) -> None:
    world = worlds.world(7, family, 0)
    chance = random.Random(1)
    points = (*world.features, *world.burdens)

    tried = [chance.sample(points, chance.randint(0, len(points))) for _ in range(300)]
    scores = [world.true_score("\n".join(lexicon.sentence(point, chance) for point in each)) for each in tried]

    assert max(scores) <= world.best_score + 1e-12
    assert (world.best_score > world.seed_score + worlds.LEAST_GAIN) == (family != "null")


def test_in_a_null_world_the_seed_is_the_best() -> None:
    world = worlds.world(7, "null", 0)

    assert world.best_score == pytest.approx(world.seed_score)


def test_in_a_deceptive_world_a_pair_helps_and_either_half_harms() -> None:
    world = worlds.world(7, "deceptive", 0)
    first, second, _ = world.pairs[0]
    texts = [[], [first], [second], [first, second]]
    neither, one, other, both = (
        world.true_score("\n".join(lexicon.sentence(world.features[place], random.Random(1)) for place in each))
        for each in texts
    )

    assert max(one, other) < neither < both


def test_a_world_is_decided_by_its_seed() -> None:
    worlds.world.cache_clear()
    first = worlds.world(3, "nk", 1).seed_text
    worlds.world.cache_clear()

    assert worlds.world(3, "nk", 1).seed_text == first
    assert worlds.world(4, "nk", 1).seed_text != first


def test_answers_are_right_as_often_as_the_world_says_whoever_asks() -> None:
    world = worlds.world(7, "additive", 0)
    texts = [f"{world.seed_text}\nVariant {n}." for n in range(40)]

    rights = [world.answer(text, case, 0)[1] for text in texts for case in range(worlds.CASES)]

    assert sum(rights) / len(rights) == pytest.approx(world.seed_score_on_given_cases, abs=0.05)


def test_a_symptom_never_holds_a_word_of_a_prompt() -> None:
    world = worlds.world(7, "additive", 0)
    said = " ".join(itertools.chain.from_iterable(lexicon.POINTS)).split()

    assert {word for words in (*world.symptoms, *world.topics) for word in words}.isdisjoint(said)


@pytest.mark.parametrize(
    ("ending", "opening"),
    [
        ("Give the complete new prompt between <prompt> and </prompt>.", "<prompt>\n"),
        ("Provide the new instructions within ``` blocks.", "```\n"),
        (
            "Respond with the corresponding output fields, starting with the field `[[ ## proposed_instruction ## ]]`,"
            " and then ending with the marker for `[[ ## completed ## ]]`.",
            "[[ ## proposed_instruction ## ]]\n",
        ),
        ("Respond with a JSON object in the following order of fields: `new_instruction`.", '{"new_instruction": '),
        ("Write a better one.", "Sort"),
    ],
)
def test_a_rewrite_comes_in_the_form_that_was_asked_for_and_keeps_what_it_is_about(ending: str, opening: str) -> None:
    world = worlds.world(7, "additive", 0)
    shown = f"```\n{world.seed_text}\nA line of its own.\n```\n\n{ending}"
    asked = [{"role": "system", "content": "```\nnot this\n```"}, {"role": "user", "content": shown}]
    answers = [writer.answer(world, "strong", asked, random.Random(n)) for n in range(20)]

    formed = [answer for answer in answers if answer.startswith(opening)]
    assert len(formed) >= 16  # now and then the form is wrong
    assert all("A line of its own." in answer for answer in formed)


def test_scores_that_are_shown_are_read_in_either_form() -> None:
    copro = "[1] «Instruction #1: do it»\n[2] «Resulting Score #1: 40.0»\n[3] «Instruction #2: do more»\n"
    copro += "[4] «Resulting Score #2: 60.0»"
    opro = "Score 0.40:\n<earlier>\ndo it\n</earlier>\n\nScore 0.60:\n<earlier>\ndo more\n</earlier>"

    for text in (copro, opro):
        asked = formats.read([{"role": "user", "content": text}])
        assert list(asked.scored) == [("do it", 0.4), ("do more", 0.6)]


def test_wrong_answers_lead_to_what_is_missing_more_often_than_whims() -> None:
    world = worlds.world(7, "additive", 0)
    missing = next(place for place, point in enumerate(world.features) if point not in world.seed_points)
    words = " ".join(world.symptoms[missing] * 3)
    about = f"<prompt>\n{world.seed_text}\n</prompt>\nGive the complete new prompt between <prompt> and </prompt>."

    def share(text: str) -> float:
        answers = [writer.answer(world, "strong", _user(text), random.Random(n)) for n in range(200)]
        return sum(world.features[missing] in lexicon.points_in(answer) for answer in answers) / 200

    assert share(f"Wrong answers: {words}\n{about}") > share(about) + 0.3


def test_the_record_counts_calls_by_role_and_answers_alike_at_temperature_0() -> None:
    world = worlds.world(7, "additive", 0)
    run = record.Run(world, "medium")
    asked = _user(f"{world.seed_text}\n{world.cases[0].text}")

    assert run.call("task", asked, temperature=0) == run.call("task", asked, temperature=0)
    wanted = _user(f"<prompt>\n{world.seed_text}\n</prompt> Give it between <prompt> and </prompt>.")
    assert len({run.call("proposer", wanted, temperature=1) for _ in range(5)}) > 1
    assert len({run.call("proposer", wanted, temperature=1, sample=3) for _ in range(5)}) == 1
    assert record.counts(run.told()) == {"task": 2, "proposer": 10, "total": 12}


def test_the_curve_rises_when_a_better_prompt_has_been_tried_often_enough() -> None:
    world = worlds.world(7, "additive", 0)
    told: dict[str, Any] = {"prompts": {"seed": {"true": world.seed_score}, "best": {"true": world.best_score}}}
    told["calls"] = [{"role": "task", "prompt": "seed", "case": n, "right": False} for n in range(10)]
    told["calls"] += [{"role": "task", "prompt": "best", "case": n, "right": n > 0} for n in range(10)]

    curve = record.curve(world, told, budget=40)

    assert curve.reached
    assert 11 < curve.calls_to_80 <= 20
    assert 0 < curve.regret < 0.5


def test_two_lucky_answers_do_not_displace_a_prompt_that_is_mostly_right() -> None:
    world = worlds.world(7, "additive", 0)
    told: dict[str, Any] = {"prompts": {"good": {"true": world.best_score}, "lucky": {"true": world.seed_score}}}
    told["calls"] = [{"role": "task", "prompt": "good", "case": n, "right": n > 0} for n in range(20)]
    told["calls"] += [{"role": "task", "prompt": "lucky", "case": n, "right": True} for n in range(2)]

    assert record.curve(world, told, budget=40).gains[-1] == pytest.approx(1.0)


def test_a_run_that_never_reaches_counts_with_the_whole_budget() -> None:
    world = worlds.world(7, "additive", 0)
    told = {"prompts": {}, "calls": [{"role": "proposer", "points": None}]}

    curve = record.curve(world, told, budget=40)

    assert (curve.reached, curve.calls_to_80, curve.regret) == (False, 40, 1.0)


def test_the_reducer_alone_pays_each_call_once_and_keeps_to_its_budget() -> None:
    world = worlds.world(7, "additive", 0)
    runs = [reducer.run("beam_search", world, seed=0, budget=BUDGET, total=400, level="medium") for _ in range(2)]

    calls = [call for call in told(world)["calls"] if call["role"] == "task"]
    assert runs[0] == runs[1]
    assert len(calls) == len({(call["prompt"], call["case"]) for call in calls}) == 2
    assert runs[0].task_calls <= BUDGET["max_task_calls"]
    assert runs[0].proposer_calls <= BUDGET["max_proposer_calls"]


def test_ratios_are_paired_by_world_and_ranks_follow_the_calls() -> None:
    made = [_outcome("beam_search", n, 100 * (n + 1)) for n in range(4)] + [
        _outcome("other", n, 200 * (n + 1)) for n in range(4)
    ]

    ratio = figures.ratios(made, "beam_search", seed=1)["other"]
    assert (ratio["value"], ratio["low"], ratio["high"], ratio["worlds"]) == (0.5, 0.5, 0.5, 4)
    assert figures.ranking(made) == ["beam_search", "other"]


def test_a_run_that_a_file_has_is_not_made_again_unless_what_it_depends_on_has_changed(tmp_path: Path) -> None:
    world, size = worlds.world(7, "additive", 0), {"seed": 0, "budget": 400, "level": "medium"}
    known_by = runs.identity("other", world, **size, versions="1")
    first = _outcome("other", 1, 100)
    runs.Runs(tmp_path / "runs.jsonl").take(known_by, lambda: first)

    again = runs.Runs(tmp_path / "runs.jsonl")
    kept = again.take(known_by, lambda: _outcome("other", 1, 200))
    made = again.take({**known_by, "versions": "2"}, lambda: _outcome("other", 1, 300))

    assert (kept, made.calls, again.taken) == (first, 300, 1)
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 2


def test_a_call_that_is_made_again_is_put_to_the_kill_that_it_was_under_way_at() -> None:
    calls = [{"role": "task", "prompt": "p", "case": case} for case in (1, 2, 3, 2, 4, 3, 4)]
    calls.insert(3, {"role": "proposer", "points": None})
    kills = [{"at_call": 3, "slots_open": 2}, {"at_call": 5, "slots_open": 1}]

    # 2 and 3 were under way at the first kill; 4 began after the second.
    assert ours.repeats(calls, kills) == ([2, 0], 1)


def test_a_digest_is_of_the_files_that_are_named() -> None:
    found = runs.digest("worker/**/*.py")

    assert found == runs.digest("worker/**/*.py")
    assert found != runs.digest("worker/strategies/*.py")


def told(world: World) -> dict[str, Any]:
    """The record after one piece of work was asked for twice and another once."""
    run = record.Run(world, "medium")
    caller = reducer.Caller(run, world)
    for case in (1, 1, 2):
        caller.result(Evaluate("seed", case, 0), {"seed": world.seed_text + outcomes.PROMPT_END})
    return run.told()


def _outcome(method: str, number: int, calls: int) -> Outcome:
    return Outcome(method, f"w{number}", "additive", 0, calls, calls, 0, calls, True, 0.5, 0.9, False, True, None)


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_worlds_are_of_the_families_in_turns() -> None:
    chosen: list[World] = worlds.many(5, ["additive", "null"], 4)

    assert [world.name for world in chosen] == ["additive-5-0", "null-5-0", "additive-5-1", "null-5-1"]
