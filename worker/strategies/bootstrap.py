"""Few-shot search: the texts stay, and sets of demonstrations are tried.

BootstrapFewShotWithRandomSearch (Khattab et al. 2023) with its two controls, the bare prompt and labelled cases
alone, but scored by the shared policy on cases that no set shows. Random choice of examples is a strong opponent of
instruction search (Wan et al. 2024).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from worker.strategies import demos, policy, trials
from worker.strategies.demos import Demo

if TYPE_CHECKING:
    from worker.strategies.search import Search

_AT_ONCE = 4  # sets that the model of earlier scores is asked for at a time


def begin(search: "Search") -> None:
    search.own["stage"] = "teach"
    search.own["rows"] = []  # of a search by a model: [point, candidate] in the order of their trials


def advance(search: "Search") -> None:
    stage = search.own["stage"]
    if stage == "teach":
        if demos.teach(search):
            search.own["stage"] = "sets"
    elif stage == "sets":
        _make_sets(search)
    elif stage == "screen":
        search.own["stage"] = "confirm"
        pool = [one for one in search.candidates if not search.is_teacher(one)]
        policy.screen(search, pool, keep=search.knobs["finalists"])
    elif stage == "confirm":
        search.own["stage"] = "conclude"
        if not search.evaluate(search.own["survivors"][: search.knobs["finalists"]], search.dev):
            search.conclude("budget")
    else:
        for survivor in search.own["survivors"][: search.knobs["finalists"]]:
            search.crown(survivor)
        search.conclude(search.close_round() or "max_rounds")


def _make_sets(search: "Search") -> None:
    knobs = search.knobs
    made = search.own.setdefault("made", 0)
    if not made:
        control = demos.control(search, knobs["max_labeled"])
        demos.admit(search, control, base=search.seed, operator="labeled", lineage={"control": True})
        plain = demos.answered(search)[: knobs["max_bootstrapped"]]
        demos.admit(search, plain, base=search.seed, operator="bootstrap", lineage={"control": True})
    if knobs["selection"] == "optuna" and made < knobs["candidate_sets"]:
        _make_by_model(search)
        return
    for slot in range(made, knobs["candidate_sets"]):
        chance = search.draw("set", slot)
        chosen = demos.random_set(
            search,
            chance,
            bootstrapped=knobs["max_bootstrapped"],
            most=knobs["max_labeled"],
            spread=knobs["selection"] == "diverse",
        )
        _admit(search, demos.ordered(search, chosen, chance), slot)
    search.own["made"] = knobs["candidate_sets"]
    search.own["stage"] = "screen"


def _admit(search: "Search", chosen: Sequence[Demo], slot: int) -> str | None:
    return demos.admit(search, chosen, base=search.seed, operator="bootstrap", lineage={"slot": slot})


def _make_by_model(search: "Search") -> None:
    """The next few sets, by what the first rung says of the sets so far."""
    shown = {**_labels(search), **_answers(search)}
    pool = [case for case in search.state["train"] if case in shown]
    made, wanted = search.own["made"], search.knobs["candidate_sets"]
    if not pool:
        search.own["made"] = wanted
        search.own["stage"] = "screen"
        return
    most = min(max(search.knobs["max_bootstrapped"], search.knobs["max_labeled"]), len(pool))
    space = {
        "size": {"type": "int", "low": 1, "high": most, "step": 1, "log": False},
        **{f"place{i}": {"type": "categorical", "choices": list(range(len(pool)))} for i in range(most)},
    }
    cases = policy.first_rung(search)
    rows = [(point, search.value(one, cases) if one else None) for point, one in search.own["rows"]]
    count = min(_AT_ONCE, wanted - made)
    fresh = []
    for place, point in enumerate(trials.ask("tpe", space, rows, count=count, seed=search.problem.spec["seed"])):
        picked = list(dict.fromkeys(point[f"place{i}"] for i in range(point["size"])))
        slot = made + place
        chosen = demos.ordered(search, _allowed(search, [pool[i] for i in picked]), search.draw("set", slot))
        child = _admit(search, chosen, slot)
        search.own["rows"].append([point, child])
        fresh += [child] if child else []
    search.own["made"] = made + count
    if len(search.evaluate_affordable(fresh, cases)) < len(fresh):
        search.own["stage"] = "screen"
        search.own["made"] = wanted


def _answers(search: "Search") -> dict[int, Demo]:
    return {demo["case"]: demo for demo in demos.answered(search)} if search.knobs["max_bootstrapped"] else {}


def _labels(search: "Search") -> dict[int, Demo]:
    return {demo["case"]: demo for demo in demos.labeled(search)} if search.knobs["max_labeled"] else {}


def _allowed(search: "Search", cases: Sequence[int]) -> list[Demo]:
    """The first `max_bootstrapped` as they were answered, then labelled ones up to `max_labeled` in all."""
    answers, labels = _answers(search), _labels(search)
    chosen: list[Demo] = []
    for case in cases:
        taught = sum(demo is answers.get(demo["case"]) for demo in chosen)
        if case in answers and taught < search.knobs["max_bootstrapped"]:
            chosen.append(answers[case])
        elif case in labels and len(chosen) < search.knobs["max_labeled"]:
            chosen.append(labels[case])
    return chosen
