"""Simulated annealing under noise: chains of moves, which may go downhill while the temperature is high.

A round is one move of every chain: evidence → propose → score → decide → close. All chains of a round are scored on
the same cases, so that a move is judged by paired differences. What looks better than the best so far is scored on the
whole dev split before it becomes the incumbent. A crash decides nothing anew: chance is drawn from round and chain.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shared import stats
from shared.knob_rules import WITH_TEMPERATURE, screening_mode
from shared.knobs import EDITS
from worker.strategies import children, credit, policy, schedules
from worker.strategies.children import Wanted

if TYPE_CHECKING:
    from worker.strategies.search import Search

_LARGE = ("fresh_start", "elaborate", "restructure", "induce_rules", "opro", "crossover_llm")  # rewrites for the heat
_FIRST_DEVIATION = 0.5  # of the difference of one case, until some were seen: that of a fair coin
_COOLEST = 0.05  # least share of large rewrites when cold, and of small ones when hot


def begin(search: "Search") -> None:
    knobs = search.knobs
    measured = _is_hot(search) and knobs["initial_temp"] is None
    search.own.update(
        {
            "stage": "calibrate" if measured else "evidence",
            "initial": None if measured or not _is_hot(search) else knobs["initial_temp"],
            "deviation": _FIRST_DEVIATION,
            "moves": 0,
            "chains": [_new_chain(search) for _ in range(knobs["chains"])],
        }
    )
    if not measured:
        _set_out(search)


def _new_chain(search: "Search") -> dict[str, Any]:
    return {
        "current": search.seed,
        "best": search.seed,
        "k": 0,
        "temp": 0.0,
        "stall": 0,
        "reheats": 0,
        "accepts": [],
        "values": [],
    }


def _set_out(search: "Search") -> None:
    for chain in search.own["chains"]:
        chain["temp"] = search.own["initial"] or 0.0


def advance(search: "Search") -> None:
    stages = {
        "calibrate": _calibrate,
        "calibrate_propose": _propose_calibration,
        "calibrate_score": _score_calibration,
        "calibrated": _take_calibration,
        "evidence": _gather,
        "propose": _propose,
        "score": _score,
        "decide": _decide,
        "close": _close,
    }
    stages[search.own["stage"]](search)


def _calibrate(search: "Search") -> None:
    search.own["stage"] = "calibrate_propose"
    if not policy.gather_evidence(search, [search.seed]):
        search.conclude("budget")


def _propose_calibration(search: "Search") -> None:
    search.own["stage"] = "calibrate_score"
    asked = [_wanted(search, search.seed, slot, 1.0) for slot in range(search.knobs["calibration_moves"])]
    if search.propose(asked) is None:
        search.conclude("budget")


def _score_calibration(search: "Search") -> None:
    search.own["stage"] = "calibrated"
    made = search.children()
    if made and not search.evaluate_affordable(made, _cases(search)):
        search.conclude("budget")


def _take_calibration(search: "Search") -> None:
    """The first temperature, from what moves away from the seed lose."""
    cases = _cases(search)
    before = search.value(search.seed, cases) or 0.0
    values = [search.value(child, cases) for child in search.children()]
    found = [value - before for value in values if value is not None]
    least = search.knobs["min_temp"]
    measured = schedules.initial_temperature(found, search.knobs["initial_acceptance"])
    search.own["initial"] = max(measured, least)
    credit.settle(search, search.children())
    _set_out(search)
    search.next_round()
    search.own["stage"] = "evidence"


def _gather(search: "Search") -> None:
    search.own["stage"] = "propose"
    currents = list(dict.fromkeys(chain["current"] for chain in search.own["chains"]))
    if not policy.gather_evidence(search, currents):
        search.conclude("budget")


def _propose(search: "Search") -> None:
    search.own["stage"] = "score"
    each = search.knobs["proposals_per_step"]
    asked = [
        _wanted(search, chain["current"], number * each + i, _heat(search, chain))
        for number, chain in enumerate(search.own["chains"])
        for i in range(each)
    ]
    if search.propose(asked) is None:
        search.conclude("budget")


def _wanted(search: "Search", parent: str, slot: int, heat: float) -> Wanted:
    """One move away from the parent: by an edit or by a rewrite, large or small, as the neighbourhood says."""
    knobs = search.knobs
    scaled = knobs["neighbourhood_scale"] == "temperature"
    share = {"llm": 0.0, "edit": 1.0}.get(knobs["neighbourhood"])
    if share is None:
        share = min(1.0, 2 * knobs["edit_weight"] * (1 - heat)) if scaled else knobs["edit_weight"]
    by_edit = search.draw("kind", slot).random() < share
    weights = {name: weight for name, weight in knobs["operators"].items() if (name in EDITS) == by_edit}
    if scaled and not by_edit:
        weights = {name: weight * _fitting(name, heat) for name, weight in weights.items()}
    operator = credit.choose(search, weights, "move", slot)
    if not by_edit:
        return Wanted(operator, parent, slot)
    count = max(1, round(knobs["edits_per_move"] * heat)) if scaled else knobs["edits_per_move"]
    return Wanted(
        operator, parent, slot, further=tuple(credit.choose(search, weights, "move", slot, i) for i in range(1, count))
    )


def _fitting(operator: str, heat: float) -> float:
    return max(_COOLEST, heat if operator in _LARGE else 1 - heat)


def _score(search: "Search") -> None:
    """The chains' prompts and their children, on one list of cases."""
    search.own["stage"] = "decide"
    cases = search.own["cases"] = _cases(search)
    pool = list(dict.fromkeys([*(chain["current"] for chain in search.own["chains"]), *search.children()]))
    paid = search.evaluate_affordable(pool, cases)
    for child in pool[len(paid) :]:
        if child not in (search.seed, search.incumbent) and child in search.children():
            search.decide(child, "pruned", "the budget does not cover it")


def _cases(search: "Search") -> list[int]:
    """A first rung; more as it cools for `noisy_metropolis`; the whole dev split in mode full."""
    cases = search.case_list()
    if screening_mode(search.knobs, search.evaluation) == "full":
        return cases
    least = min(search.evaluation["min_cases"], len(cases))
    if search.knobs["acceptance"] != "noisy_metropolis" or search.own["initial"] is None:
        return cases[:least]
    coldest = min(_temperature(search, chain) for chain in search.own["chains"])
    return cases[: schedules.cases_for(coldest, search.own["deviation"], least, len(cases))]


def _decide(search: "Search") -> None:
    search.own["stage"] = "close"
    credit.settle(search, search.children())
    each = search.knobs["proposals_per_step"]
    for number, chain in enumerate(search.own["chains"]):
        own = [one for one in search.children() if children.slot_of(search, one) // each == number]
        _move(search, chain, number, own)
    _exchange(search)
    leader = _leader(search)
    search.own["leader"] = leader
    if leader != search.incumbent and not search.evaluate([leader], search.dev):
        search.conclude("budget")


def _move(search: "Search", chain: dict[str, Any], number: int, own: list[str]) -> None:
    """Draw one of the children of a chain, and go there or stay."""
    cases, temp = search.own["cases"], _temperature(search, chain)
    here = search.value(chain["current"], cases)
    found = {one: value for one in own if (value := search.value(one, cases)) is not None}
    accepted = False
    if found and here is not None:
        weights = schedules.draw_weights(list(found.values()), temp)
        drawn = search.draw("try", number).choices(list(found), weights)[0]
        differences = policy.differences(search, drawn, chain["current"], cases)
        error = stats.standard_error(differences)
        search.own["deviation"] = max(0.05, error * len(differences) ** 0.5)
        history = [here, *chain["values"]]
        accepted = schedules.accepts(
            search.knobs,
            delta=found[drawn] - here,
            variance=error**2,
            temp=temp,
            uniform=search.draw("accept", number).random(),
            progress=_progress(search),
            value=found[drawn],
            before=history[-min(len(history), search.knobs["history"])],
        )
        if accepted:
            search.decide(drawn, "kept", f"chain {number} moved to it in round {search.round}, T {temp:.4f}")
            chain["current"] = drawn
    for one in own:
        if one != chain["current"] and one not in (search.seed, search.incumbent):
            search.decide(one, "pruned", f"chain {number} did not move to it in round {search.round}, T {temp:.4f}")
    _remember(search, chain, cases, accepted)


def _remember(search: "Search", chain: dict[str, Any], cases: list[int], accepted: bool) -> None:
    """The best of a chain is compared on what both were tried on: the cases of a round need not be those of its own."""
    value = search.value(chain["current"], cases)
    both = [case for case in search.dev if all(search.is_tried(chain[one], case) for one in ("current", "best"))]
    found, best = search.value(chain["current"], both), search.value(chain["best"], both)
    if found is not None and best is not None and found > best:
        chain |= {"best": chain["current"], "stall": 0}
    else:
        chain["stall"] += 1
    chain["accepts"] = [*chain["accepts"], int(accepted)][-search.knobs["window"] :]
    chain["values"] = [*chain["values"], value if value is not None else 0.0][-search.knobs["history"] :]


def _exchange(search: "Search") -> None:
    """The worst chain goes on from where the best is."""
    every = search.knobs["exchange_every"] * search.knobs["moves_per_temp"]
    if not every or (search.own["moves"] + 1) % every:
        return
    cases, chains = search.own["cases"], search.own["chains"]
    values = [search.value(chain["current"], cases) or 0.0 for chain in chains]
    best, worst = values.index(max(values)), values.index(min(values))
    if values[best] > values[worst]:
        chains[worst]["current"] = chains[best]["current"]


def _leader(search: "Search") -> str:
    """The best of where the chains are, if it looks better than the incumbent on the cases of the round."""
    cases, best = search.own["cases"], search.incumbent
    for chain in search.own["chains"]:
        value, before = search.value(chain["current"], cases), search.value(best, cases)
        if value is not None and (before is None or value > before):
            best = chain["current"]
    return str(best)


def _close(search: "Search") -> None:
    if search.own["leader"] != search.incumbent:
        search.crown(search.own["leader"])
    chains = search.own["chains"]
    temps = {"temperature": max(_temperature(search, chain) for chain in chains)} if _is_hot(search) else {}
    moved = sum(chain["accepts"][-1] for chain in chains) / len(chains)
    reason = search.close_round(**temps, accepted=moved)
    search.own["moves"] += 1
    at_end = search.own["moves"] >= search.knobs["epochs"] * search.knobs["moves_per_temp"] or search.is_exhausted
    can_reheat = any(chain["reheats"] < search.knobs["reheat_max"] for chain in chains)
    if reason == "converged" and can_reheat and not at_end:
        # Patience ends a run only when no chain can be reheated any more.
        search.state["stall"], reason = 0, None
        for chain in chains:
            chain["stall"] = max(chain["stall"], search.knobs["reheat_stall_steps"])
    if reason or at_end:
        search.conclude(reason or "max_rounds")
        return
    for chain in chains:
        _cool(search, chain)
    search.next_round()
    search.own["stage"] = "evidence"


def _cool(search: "Search", chain: dict[str, Any]) -> None:
    """On to the next temperature, or back to a higher one and to the best where the chain has stalled."""
    knobs, initial = search.knobs, search.own["initial"]
    if chain["stall"] >= knobs["reheat_stall_steps"] and chain["reheats"] < knobs["reheat_max"]:
        chain |= {"reheats": chain["reheats"] + 1, "stall": 0, "current": chain["best"]}
        if initial is not None and _temperature(search, chain) < knobs["reheat_factor"] * initial:
            _heat_up(chain, knobs, initial)
        return
    if search.own["moves"] % knobs["moves_per_temp"] == 0:
        chain["k"] += 1
    if initial is not None and knobs["schedule"] == "adaptive":
        chain["temp"] = schedules.adapted(knobs, chain["temp"], chain["accepts"], _progress(search))


def _heat_up(chain: dict[str, Any], knobs: Mapping[str, Any], initial: float) -> None:
    """T = reheat_factor x T0: the schedule goes on from where it was that hot."""
    wanted = knobs["reheat_factor"] * initial
    chain["temp"] = wanted
    while chain["k"] > 0 and schedules.temperature(knobs, initial, chain["k"] - 1) <= wanted:
        chain["k"] -= 1


def _is_hot(search: "Search") -> bool:
    return search.knobs["acceptance"] in WITH_TEMPERATURE


def _progress(search: "Search") -> float:
    """0 at the first move, 1 at the last."""
    return float(min(1.0, search.own["moves"] / max(1, search.knobs["epochs"] * search.knobs["moves_per_temp"] - 1)))


def _temperature(search: "Search", chain: Mapping[str, Any]) -> float:
    initial = search.own["initial"]
    if initial is None:
        return 0.0
    if search.knobs["schedule"] == "adaptive":
        return float(chain["temp"])
    return schedules.temperature(search.knobs, initial, chain["k"])


def _heat(search: "Search", chain: Mapping[str, Any]) -> float:
    """In [0, 1]: how hot a chain is, by its temperature, or by what is left of the run where there is none."""
    initial = search.own["initial"]
    if initial is None:
        return 1 - _progress(search)
    return min(1.0, _temperature(search, chain) / initial)
