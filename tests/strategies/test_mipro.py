"""mipro: better than random where demonstrations decide, and what each of its knobs does."""

import json
from statistics import mean
from typing import Any

from shared.knobs import TIPS
from tests.strategies.effects import Effect
from tests.strategies.test_bootstrap import GOOD_TEACHER, answered, models
from tests.strategies.world import HELPFUL, Run, World, drive, make_cases, make_spec, run_search
from tests.strategies.worlds_genes import demonstrations_decide, true_demonstrated, with_genes
from worker.strategies import STRATEGIES
from worker.strategies.contract import Genes, Propose

PATIENT = {"early_stopping": {"patience": 1000}}


def rows(run: Run) -> list[list[Any]]:
    """(instruction, set, candidate, round) of every trial."""
    return list(run.state["own"]["rows"])


def first_trials(run: Run) -> Any:
    return next(step for step in run.steps if step.state["own"].get("rows"))


def one_is_much_better(text: str, case: int) -> float:
    return 0.9 if "lowercase" in text else 0.3


def each_its_own(work: Propose, text: str) -> str:
    return f"<prompt>\n{list(HELPFUL.values())[work.slot % len(HELPFUL)]}\n{text}\n</prompt>"


KNOBS = {
    "num_instructions": Effect(see=lambda run: len(run.proposals), values=(2, 5), seen=(2, 5)),
    "num_demo_sets": Effect(see=lambda run: len(run.state["own"]["sets"]), values=(0, 4), seen=(0, 4)),
    "max_bootstrapped_demos": Effect(
        see=lambda run: max(map(answered, run.state["own"]["sets"])),
        values=(1, 4),
        seen=(1, 4),
        world=GOOD_TEACHER,
        given={"knobs_": {"num_demo_sets": 12}},
    ),
    "max_labeled_demos": Effect(
        see=lambda run: max(map(len, run.state["own"]["sets"])),
        values=(1, 5),
        seen=(1, 5),
        world=World(flat=0.5),
        given={"knobs_": {"num_demo_sets": 12}},
    ),
    "teacher": Effect(see=models, values=(None, "larger"), seen=(set(), {"larger"})),
    "metric_threshold": Effect(
        see=lambda run: any(map(answered, run.state["own"]["sets"])),
        values=(0.5, 1.0),
        seen=(True, False),
        world=World(flat=0.6),
    ),
    "trials": Effect(see=lambda run: len(rows(run)), values=(5, 9), seen=(5, 9), given=PATIENT),
    "minibatch_size": Effect(
        see=lambda run: max(
            sum(work.candidate == one for work in first_trials(run).work)
            for one in {work.candidate for work in first_trials(run).work}
        ),
        values=(4, 9),
        seen=(4, 9),
    ),
    "full_eval_every": Effect(see=lambda run: len(run.state["curve"]), values=(4, 8), seen=(2, 1), given=PATIENT),
    "batch": Effect(see=lambda run: len(first_trials(run).state["own"]["rows"]), values=(1, 4), seen=(1, 4)),
    "sampler": Effect(
        see=lambda run: mean("lowercase" in run.texts[row[2]] for row in rows(run)[-10:]) > 0.35,
        values=("random", "tpe"),
        seen=(False, True),
        world=World(score=one_is_much_better, rewrite=each_its_own),
        given={"knobs_": {"num_instructions": 8, "trials": 40, "num_demo_sets": 2}, **PATIENT},
    ),
    "refresh_instructions_every": Effect(
        see=lambda run: "reflect" in {work.operator for work in run.proposals},
        values=(0, 1),
        seen=(False, True),
        given=PATIENT,
    ),
    "tips": Effect(
        see=lambda run: any(TIPS["persona"] in work.messages[-1]["content"] for work in run.proposals),
        values=(["none"], ["none", "persona"]),
        seen=(False, True),
    ),
    "length_penalty": Effect(
        see=lambda run: run.result["best"] == run.state["candidates"][0]["hash"],
        values=(0.0, 2.0),
        seen=(False, True),
        world=World(score=lambda text, case: 0.45 if "Example" in text else 0.4),
    ),
}


def test_it_beats_random_at_the_same_budget_where_demonstrations_decide() -> None:
    settings: dict[str, dict[str, Any]] = {
        "mipro": {"num_instructions": 6, "num_demo_sets": 8, "trials": 30, "minibatch_size": 16},
        "random": {"proposals": 60},
    }
    true: dict[str, list[float]] = {"mipro": [], "random": []}

    for seed in range(6):
        plain = World(cases=make_cases(100), salt=seed)
        base = lambda text, case, plain=plain: plain.true_score(text)  # noqa: E731
        world = World(cases=plain.cases, salt=seed, score=demonstrations_decide(seed, base))
        for name, found in true.items():
            run = run_search(
                name,
                world,
                knobs_=settings[name],
                evaluation={"min_cases": 16},
                budget={"max_task_calls": 900},
                seed=seed,
                **PATIENT,
            )
            best = next(item for item in run.state["candidates"] if item["hash"] == run.result["best"])
            text = with_genes(best["components"]["template"], Genes(best.get("demos", ())))
            found.append(true_demonstrated(text, 0, base))
            assert len(run.evaluations) <= 900

    assert mean(true["mipro"]) > mean(true["random"]) + 0.05, true


def test_a_pair_is_one_candidate_however_often_it_is_tried() -> None:
    run = run_search("mipro", knobs_={"num_instructions": 1, "num_demo_sets": 1, "trials": 20}, **PATIENT)
    pairs = {(row[0], row[1]): row[2] for row in rows(run)}

    assert len(rows(run)) == 20
    assert len(set(pairs.values())) == len(pairs) <= 4
    assert len(run.paid) == len(run.emitted)


def test_minibatches_use_every_dev_case_before_any_comes_again() -> None:
    run = run_search("mipro", knobs_={"minibatch_size": 4, "batch": 1, "trials": 4, "full_eval_every": 100}, **PATIENT)
    asked = [set(step.state["own"]["rows"][-1:] and [work.case for work in step.work]) for step in run.steps[3:]]
    dev = set(run.state["dev"])
    batches = [cases & dev for cases in asked if 0 < len(cases & dev) <= 4]

    assert sum(len(batch) for batch in batches[:3]) == len(set().union(*batches[:3]))


def test_a_refreshed_instruction_can_be_paired_with_every_set() -> None:
    run = run_search("mipro", knobs_={"refresh_instructions_every": 1, "trials": 24}, **PATIENT)
    fresh = {item["hash"] for item in run.state["candidates"] if item["operator"] == "reflect"}
    instructions = run.state["own"]["instructions"]

    assert fresh
    assert fresh <= set(instructions)
    assert {row[0] for row in rows(run)} & {i for i, one in enumerate(instructions) if one in fresh}


def test_the_number_of_trials_follows_that_of_the_instructions_unless_it_is_said() -> None:
    """MIPROv2: max(2 V log2 N, 1.5 N), V = 2 with demonstrations."""
    counted = [
        len(rows(run_search("mipro", knobs_={"trials": None, "num_instructions": n, "num_demo_sets": sets}, **PATIENT)))
        for n, sets in ((8, 2), (8, 0), (1, 2))
    ]

    assert counted == [12, 12, 2]


def test_a_crash_in_the_middle_of_minibatches_repeats_no_call() -> None:
    world = World(cases=make_cases(60))
    spec = make_spec("mipro", knobs_={"minibatch_size": 5, "trials": 12, "refresh_instructions_every": 1}, **PATIENT)
    whole = drive(world, world.problem(spec), STRATEGIES["mipro"])

    for at in range(len(whole.steps) - 1):
        saved = json.loads(json.dumps(whole.steps[at].state))
        assert saved == whole.steps[at].state
        resumed = drive(world, world.problem(spec), STRATEGIES["mipro"], resume=(whole, at))
        assert resumed.canonical == whole.canonical
        assert list(resumed.paid) == list(whole.paid)


def test_in_mode_full_a_trial_takes_all_of_dev() -> None:
    whole, part = (run_search("mipro", evaluation={"mode": mode}) for mode in ("full", "halving"))

    sizes = [
        {len(cases) for i in range(1, len(run.steps)) for cases in run.cases_of(i, seed=False).values()}
        for run in (whole, part)
    ]
    assert 6 in sizes[1]
    assert 6 not in sizes[0]
