"""bootstrap: better than random where demonstrations decide, and what each of its knobs does."""

import json
from dataclasses import replace
from statistics import mean
from typing import Any

import pytest
from rapidfuzz import fuzz

from shared.knobs import resolve_split
from shared.splits import split
from tests.strategies.effects import Effect
from tests.strategies.world import SEED_TEXT, Run, World, make_cases, make_spec, run_search
from tests.strategies.worlds_genes import demonstrations_decide, true_demonstrated, with_genes
from worker.strategies import demos, search
from worker.strategies.contract import Genes

TRAIN = split(make_cases(), resolve_split({})).train
GOOD_TEACHER = World(score=lambda text, case: 1.0 if case in TRAIN else 0.5)


def sets(run: Run) -> list[list[dict[str, Any]]]:
    return [item["demos"] for item in run.state["candidates"] if "demos" in item]


def answered(demos: list[dict[str, Any]]) -> int:
    return sum(demo["output"].startswith("answer ") for demo in demos)


def models(run: Run) -> set[str]:
    return {work.genes.params["model_name"] for work in run.evaluations if "model_name" in work.genes.params}


def taught_by(run: Run) -> list[str]:
    """The texts of those who answered train cases."""
    return [run.texts[work.candidate] for work in run.evaluations if work.case in run.state["train"]]


def typicality(case: int) -> float:
    texts = {one.ordinal: one.inputs["ticket"] for one in make_cases()}
    return mean(fuzz.ratio(texts[case], texts[other]) for other in TRAIN)


def is_ordered(demos: list[dict[str, Any]]) -> bool:
    found = [typicality(demo["case"]) for demo in demos]
    return found == sorted(found)


KNOBS = {
    "teacher": Effect(see=models, values=(None, "larger"), seen=(set(), {"larger"})),
    "metric_threshold": Effect(
        see=lambda run: any(map(answered, sets(run))), values=(0.5, 1.0), seen=(True, False), world=World(flat=0.6)
    ),
    "rounds": Effect(
        see=lambda run: [item["params"] for item in run.state["candidates"] if item["operator"] == "teacher"],
        values=(1, 2),
        seen=([], [{"temperature": 1.0}]),
    ),
    "max_bootstrapped": Effect(
        see=lambda run: max(map(answered, sets(run))), values=(1, 4), seen=(1, 4), world=GOOD_TEACHER
    ),
    "max_labeled": Effect(see=lambda run: max(map(len, sets(run))), values=(1, 5), seen=(1, 5), world=World(flat=0.5)),
    "include_reasoning": Effect(
        see=lambda run: {"step by step" in text for text in taught_by(run)},
        values=(False, True),
        seen=({False}, {True}),
        world=GOOD_TEACHER,
    ),
    "candidate_sets": Effect(
        see=lambda run: sum("slot" in item["lineage"] for item in run.state["candidates"]), values=(2, 6), seen=(2, 6)
    ),
    "selection": Effect(see=lambda run: len(run.state["own"]["rows"]), values=("random", "optuna"), seen=(0, 5)),
    "order": Effect(
        see=lambda run: all(is_ordered(item["demos"]) for item in run.state["candidates"] if "slot" in item["lineage"]),
        values=("random", "by_similarity"),
        seen=(False, True),
    ),
    "length_penalty": Effect(
        see=lambda run: run.result["best"] == run.state["candidates"][0]["hash"],
        values=(0.0, 2.0),
        seen=(False, True),
        world=World(score=lambda text, case: 0.45 if "Example" in text else 0.4),
    ),
    # Here a word is a token; a demonstration adds four.
    "max_prompt_tokens": Effect(
        see=lambda run: max(map(len, sets(run))),
        values=(None, len(SEED_TEXT.split()) + 9),
        seen=(4, 2),
        world=GOOD_TEACHER,
        given={"knobs_": {"max_labeled": 4, "candidate_sets": 12}},
    ),
    "finalists": Effect(see=lambda run: len(run.state["finalists"]), values=(1, 4), seen=(1, 4)),
}


def test_it_beats_random_at_the_same_budget_where_demonstrations_decide() -> None:
    settings: dict[str, dict[str, Any]] = {"bootstrap": {"candidate_sets": 24}, "random": {"proposals": 60}}
    true: dict[str, list[float]] = {"bootstrap": [], "random": []}

    for seed in range(6):
        world = World(cases=make_cases(100), salt=seed)
        base = lambda text, case, world=world: world.true_score(text)  # noqa: E731
        world = World(cases=world.cases, salt=seed, score=demonstrations_decide(seed, base))
        for name, found in true.items():
            run = run_search(
                name,
                world,
                knobs_=settings[name],
                evaluation={"min_cases": 16},
                budget={"max_task_calls": 700},
                seed=seed,
            )
            best = next(item for item in run.state["candidates"] if item["hash"] == run.result["best"])
            text = with_genes(best["components"]["template"], Genes(best.get("demos", ()), best.get("params", {})))
            found.append(true_demonstrated(text, 0, base))
            assert len(run.evaluations) <= 700

    assert mean(true["bootstrap"]) > mean(true["random"]) + 0.05, true


class Reasoning(World):
    """Who is told to reason step by step does, and is right; who is shown reasoning reasons, and is mostly right."""

    def answer(self, work: Any, texts: Any) -> Any:
        result = super().answer(work, texts)
        if work.key == result.key and result.score is not None and "step by step" in texts[work.candidate]["template"]:
            return replace(result, output=f"Because of this and that: answer {work.case}", score=1.0, passed=True)
        return result


def test_what_is_shown_is_the_reasoning_of_a_teacher_that_cannot_win() -> None:
    world = Reasoning(score=lambda text, case: 0.6 if "Because of" in text else 0.3)

    run = run_search("bootstrap", world, knobs_={"include_reasoning": True, "max_labeled": 0})

    (teacher,) = (item for item in run.state["candidates"] if item["operator"] == "teacher")
    shown = [demo["output"] for chosen in sets(run) for demo in chosen]
    best = next(item for item in run.state["candidates"] if item["hash"] == run.result["best"])
    assert "params" not in teacher
    assert shown
    assert all(output.startswith("Because of this and that") for output in shown)
    assert {item["components"]["template"] for item in run.state["candidates"] if "demos" in item} == {SEED_TEXT}
    assert "demos" in best


def test_the_answers_of_the_seed_are_no_reasoning_where_train_is_dev() -> None:
    world = Reasoning(cases=make_cases(20), score=lambda text, case: 1.0 if case % 2 else 0.4)

    run = run_search("bootstrap", world, knobs_={"include_reasoning": True, "max_labeled": 0})

    assert all(demo["output"].startswith("Because of") for chosen in sets(run) for demo in chosen)
    assert sets(run)


@pytest.mark.parametrize("selection", ["random", "optuna"])
def test_the_controls_are_always_there(selection: str) -> None:
    """The bare prompt is the baseline; labelled cases alone, and the teacher's answers as they come, are sets."""
    run = run_search("bootstrap", GOOD_TEACHER, knobs_={"selection": selection})
    controls = [item for item in run.state["candidates"] if item["lineage"].get("control")]

    assert [item["operator"] for item in controls] == ["labeled", "bootstrap"]
    assert [demo["case"] for demo in controls[0]["demos"]] == TRAIN[:3]
    assert answered(controls[0]["demos"]) == 0
    assert answered(controls[1]["demos"]) == len(controls[1]["demos"]) == 2


@pytest.mark.parametrize("selection", ["random", "diverse", "optuna"])
@pytest.mark.parametrize(("taught", "most"), [(1, 4), (3, 1), (2, 0)])
def test_no_set_holds_more_of_a_kind_than_it_may(selection: str, taught: int, most: int) -> None:
    """Sets that a model of the scores picked held answers of the teacher up to `max_labeled`."""
    knobs = {"selection": selection, "max_bootstrapped": taught, "max_labeled": most, "candidate_sets": 12}
    run = run_search("bootstrap", GOOD_TEACHER, knobs_=knobs, budget={"max_task_calls": 5_000})

    assert len(sets(run)) > 3
    assert max(map(answered, sets(run))) <= taught
    assert max(map(len, sets(run))) <= max(taught, most)


def test_diverse_sets_hold_cases_that_are_less_alike() -> None:
    texts = {case.ordinal: case.inputs["ticket"] for case in make_cases()}

    def alike(selection: str) -> float:
        run = run_search("bootstrap", knobs_={"selection": selection, "candidate_sets": 12, "max_labeled": 4})
        chosen = [item["demos"] for item in run.state["candidates"] if "slot" in item["lineage"]]
        pairs = [
            fuzz.ratio(texts[one["case"]], texts[other["case"]])
            for demos in chosen
            for i, one in enumerate(demos)
            for other in demos[:i]
        ]
        return mean(pairs)

    assert alike("diverse") < alike("random")


def test_a_teacher_is_asked_again_only_for_what_it_got_wrong() -> None:
    wrong = TRAIN[:4]
    world = World(score=lambda text, case: 0.3 if case in wrong else 1.0 if case in TRAIN else 0.5)

    run = run_search("bootstrap", world, knobs_={"rounds": 3, "max_bootstrapped": 4})

    (warm,) = (item["hash"] for item in run.state["candidates"] if item["operator"] == "teacher")
    asked = [(work.case, work.repeat) for work in run.evaluations if work.candidate == warm]
    assert sorted(asked) == sorted((case, repeat) for case in wrong for repeat in (0, 1))


def test_a_teacher_never_wins_though_it_scores_best() -> None:
    """With few cases train is dev, and the teacher has scores there."""
    world = World(
        cases=make_cases(20), score=lambda text, case: 1.0 if "larger" in text else 0.4 if "Example" in text else 0.3
    )

    run = run_search("bootstrap", world, knobs_={"teacher": "larger", "max_bootstrapped": 8})

    best = next(item for item in run.state["candidates"] if item["hash"] == run.result["best"])
    assert best["operator"] != "teacher"
    assert "demos" in best


def test_a_long_answer_is_no_demonstration() -> None:
    class Verbose(World):
        def answer(self, work: Any, texts: Any) -> Any:
            return replace(super().answer(work, texts), output="x" * 4_001)

    run = run_search("bootstrap", Verbose(score=GOOD_TEACHER.score), knobs_={"max_labeled": 0})

    assert sets(run) == []
    assert run.result["best"] == run.state["candidates"][0]["hash"]


@pytest.mark.parametrize("part", ["dev", "holdout"])
def test_a_demonstration_out_of_dev_or_holdout_is_refused(part: str) -> None:
    world = World()
    state = run_search("bootstrap", world).steps[0].state
    running = search.Search(world.problem(make_spec("bootstrap")), json.loads(json.dumps(state)))
    demo = {"case": state[part][0], "output": "billing"}

    admitted = demos.admit(running, [demo], base=running.seed, operator="bootstrap", lineage={})

    assert admitted is None
    assert running.events[-1][1]["reason"] == "shows a case that is not for training"


@pytest.mark.parametrize("mode", ["minibatch", "racing", "ucb"])
def test_sets_are_screened_as_the_evaluation_says_also_where_train_is_dev(mode: str) -> None:
    for cases in (20, 40):
        run = run_search("bootstrap", World(cases=make_cases(cases)), evaluation={"mode": mode})

        assert run.state["finish_reason"] == "max_rounds"
        assert run.result["holdout"]["n"] == len(run.state["holdout"])


def test_blocks_go_on_past_the_cases_that_a_set_shows_where_train_is_dev() -> None:
    run = run_search(
        "bootstrap",
        World(cases=make_cases(29)),
        knobs_={"finalists": 1, "candidate_sets": 8},
        evaluation={"mode": "ucb", "min_cases": 2, "block_size": 2, "ucb_rounds": 60, "ucb_c": 5.0},
        budget={"max_task_calls": 5_000},
    )

    dev = {str(case) for case in run.state["dev"]}
    tried = [len(dev & set(run.state["scores"].get(item["hash"], {}))) for item in run.state["candidates"]]
    assert min(tried) > 2
