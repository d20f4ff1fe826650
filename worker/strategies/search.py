"""The course of a run, which all strategies share, and the verbs by which a strategy steers it.

    baseline → (pre-flight) → (strategy: propose, screen, confirm)* → top-up of the finalists → holdout → done

`start` and `step` are a pure reducer over a JSON state. Randomness is drawn from (seed, purpose, round,
slot); results are taken in the order in which their work was asked for, which the state holds as a list;
so the same answers give the same run, in any order of arrival, after any crash, and whatever a database
does to the order of the keys of an object (I9).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from shared import stats
from shared.hashing import hash_of
from shared.knobs import EDITS
from worker.strategies import budget, children, operators, outcome, policy, preflight, watch
from worker.strategies.contract import (
    NO_GENES,
    Evaluate,
    Genes,
    Problem,
    Propose,
    Result,
    Spent,
    Step,
    Strategy,
    Work,
    identity,
)
from worker.strategies.record import Record, first_state

_FEW_FAILURES = 5
_MUST_STAND = ("baseline", "preflight", "holdout")
_KEPT_FAILURES = 32  # per candidate; the proposer is shown a sample of them
_LONGEST_DEMONSTRATION = 4_000  # characters of an answer; a longer one is no example to send with each call


def start(problem: Problem, strategy: Strategy, *, charged: Spent | None = None) -> Step:
    """The first state, with the baseline's scoring as its work."""
    search = Search(problem, first_state(problem))
    _hold(search, charged)
    search.admit(dict(problem.components), parents=(), operator="seed", lineage={})
    search.evaluate([search.seed], search.dev)
    return _as_step(search)


def step(
    problem: Problem,
    strategy: Strategy,
    state: Mapping[str, Any],
    results: Sequence[Result],
    spent: Spent,
    *,
    charged: Spent | None = None,
    late: bool = False,
) -> Step:
    """Take the results of the open work and decide what comes next. `late`: time is up, and the search ends here.

    `charged` is what the ledger holds where that is not what was `spent`: a continuation pays for what its source
    has bought and it does not ask for again.

    A search has no clock: who drives it says so, and the state keeps at which step, so that a replay says the same.
    """
    search = Search(problem, json.loads(json.dumps(state)))
    if late:
        search.state["out_of_time"] = search.state["step"] + 1
    _hold(search, charged)
    _take(search, results, spent)
    if late:
        _stop(search)
    if search.state["repairs"]:
        _repair(search)
    while not search.work and search.state["phase"] != "done":
        _advance(search, strategy)
    if search.state["phase"] != "done":
        search.work += watch.wanted(search, search.work)
        _tell_checks(search)
    return _as_step(search)


class Search(Record):
    """The record of a run, with the verbs that write to it. A strategy is given this and nothing else."""

    def __init__(self, problem: Problem, state: dict[str, Any]) -> None:
        super().__init__(problem, state)
        self.work: list[Work] = []
        self.events: list[tuple[str, Mapping[str, Any]]] = []

    def evaluate(self, candidates: Sequence[str], cases: Sequence[int]) -> bool:
        """Ask for every score that is missing; False when the budget does not cover it (nothing is asked)."""
        return self.ask([[work for candidate in candidates for work in self.untried(candidate, cases)]]) == 1

    def evaluate_affordable(self, candidates: Sequence[str], cases: Sequence[int]) -> list[str]:
        """Like `evaluate`, for as many of the candidates, the first first, as the budget covers: those."""
        return list(candidates[: self.ask([self.untried(candidate, cases) for candidate in candidates])])

    def probe(self) -> bool:
        """Ask for a second scoring of the seed; False when the budget does not cover it."""
        return self.ask([preflight.probe_of(self)]) == 1

    def propose(self, asked: Sequence[children.Asked]) -> list[str] | None:
        """Make children: (operator, parent, slot) each, or a `Wanted`. Edits come back at once; proposals as work.

        Returns the hashes of the children made by edits, or None when there is none and the budget covers not
        one proposal. Where it covers some, the first are asked for.
        """
        made: list[str] = []
        wanted: list[list[Work]] = []
        for item in asked:
            ask = children.Wanted(*item)
            chance = self.draw("propose", ask.parent, ask.slot)
            component = chance.choice(self.free_components)
            if ask.operator in EDITS:
                component, text = children.edited(self, ask, component, chance)
                child = self.admit_child(ask.parent, component, text, operator=ask.operator, lineage={"slot": ask.slot})
                made += [child] if child else []
            else:
                wanted.append([children.request(self, ask, component, chance)])
        return made if self.ask(wanted) or made or not wanted else None

    def sample(self, candidate: str, cases: Sequence[int], answers: int) -> None:
        """Ask until each case has so many answers, whatever `repeats` says; the first cases first, while they fit."""
        genes = self.genes(candidate)
        self.ask(
            [
                [
                    Evaluate(candidate, case, repeat, genes)
                    for repeat in range(answers)
                    if not self.is_tried(candidate, case, repeat)
                ]
                for case in self.fair(candidate, cases)
            ]
        )

    def ask_proposals(self, wanted: Sequence[Propose]) -> int:
        """Ask for proposals that the strategy has worded itself, the first first, as many as fit; how many."""
        return self.ask([[work] for work in wanted])

    def ask(self, units: Sequence[Sequence[Work]]) -> int:
        """Ask for as many units of work, the first first, as fit; how many. If not all do, the budget is exhausted."""
        count, short_of = budget.affordable(self, self.work, units)
        self.state["finish_reason"] = self.state["finish_reason"] or short_of
        self.work += [work for unit in units[:count] for work in unit]
        return count

    def admit(
        self,
        components: dict[str, str],
        *,
        parents: Sequence[str],
        operator: str,
        lineage: Mapping[str, Any],
        twin: int = 0,
        genes: Genes = NO_GENES,
    ) -> str | None:
        """Add a candidate if it passes the checks that come before any payment; its hash, or None.

        A `twin`, by its number, is a candidate that already is one, to be measured once more.
        """
        digest = hash_of([components, twin]) if twin else identity(components, genes)
        reason = None if operator == "seed" or twin else children.refusal(self, components, digest, genes)
        if reason:
            self.reject(operator, reason)
            return None
        candidate = {
            "hash": digest,
            "components": components,
            **genes.described(),
            "parents": list(parents),
            "operator": operator,
            "round": self.round,
            "decision": "seed" if operator == "seed" else "proposed",
            "reason": "",
            "lineage": dict(lineage),
        }
        if twin:
            candidate["first_repeat"] = twin * self.evaluation["repeats"]
        self.state["candidates"].append(candidate)
        self.candidates[digest] = candidate
        return digest

    def admit_child(
        self,
        parent: str,
        component: str,
        text: str,
        *,
        operator: str,
        lineage: Mapping[str, Any],
        mates: Sequence[str] = (),
    ) -> str | None:
        """Like `admit`, for the parent with another text in one component."""
        components = {**self.components(parent), component: text}
        parents = list(dict.fromkeys([parent, *mates]))
        lineage = {"component": component, **lineage}
        return self.admit(components, parents=parents, operator=operator, lineage=lineage, genes=self.genes(parent))

    def reject(self, operator: str, reason: str) -> None:
        """Record that what an operator made is no candidate."""
        self.state["rejected"] += 1
        self.events.append(("candidate.rejected", {"operator": operator, "reason": reason, "round": self.round}))

    def decide(self, candidate: str, decision: str, reason: str = "") -> None:
        """Record what became of a candidate, so that "why was this dropped" has an answer."""
        self.candidates[candidate]["decision"] = decision
        self.candidates[candidate]["reason"] = reason

    def crown(self, challenger: str) -> None:
        """Make a challenger with a full dev score the incumbent if it is better."""
        former = self.incumbent
        cases = self.fair(challenger, self.fair(former, self.dev))  # the same for both
        value, best = self.value(challenger, cases), self.value(former, cases)
        if value is not None and (best is None or value > best):
            self.state["incumbent"] = challenger
            self.decide(challenger, "best", f"{value:.4f} on {len(cases)} dev cases")
            if former != self.seed:
                self.decide(former, "kept", f"the best until round {self.round}")
        elif self.candidates[challenger]["decision"] == "proposed":
            found = "too many failed calls" if value is None else f"{value:.4f} on {len(cases)} dev cases"
            self.decide(challenger, "pruned", f"{found}: not better than the best")

    def close_round(self, **told: Any) -> str | None:
        """End a round: the curve, patience, targets. A finish reason when the search should end.

        What is `told` of the round (a temperature, a diversity) stands in its event and in its point of the curve.

        Whether a round gained anything is told by `value`, by which `crown` decides too: with a length penalty
        or `lcb_z` a new best may have a lower mean. The curve holds both; its `value` never falls.
        """
        early = self.problem.spec["early_stopping"]
        best, value = self.mean(self.incumbent, self.dev), self.value(self.incumbent, self.dev)
        before = self.state["curve"][-1]["value"] if self.state["curve"] else self.value(self.seed, self.dev)
        gained = value is not None and (before is None or (value > before and value >= before + early["min_delta"]))
        self.state["stall"] = 0 if gained else self.state["stall"] + 1
        point = {
            "round": self.round,
            "best": best,
            "value": value,
            "candidates": len(self.state["candidates"]),
            **{name: self.state["spent"][name] for name in ("task_calls", "proposer_calls", "nano")},
            **told,
        }
        self.state["curve"].append(point)
        self.events.append(("optimization.round", point))
        watch.note(self)
        if best >= 1.0:
            return "perfect_score"
        if early["target_score"] is not None and stats.reaches(best, early["target_score"]):
            return "target_reached"
        return "converged" if self.state["stall"] >= early["patience"] else None

    def next_round(self) -> None:
        self.state["round"] += 1

    def conclude(self, reason: str) -> None:
        """End the search; the finalists are topped up and the best one goes to the holdout."""
        self.state["finish_reason"] = self.state["finish_reason"] or reason
        self.state["phase"] = "topup"
        self.state["finalists"] = outcome.finalists(self)


def _hold(search: Search, charged: Spent | None) -> None:
    if charged is not None:
        search.state["charged"] = asdict(charged)


def _take(search: Search, results: Sequence[Result], spent: Spent) -> None:
    """Enter the results of the open work, in an order that does not depend on their arrival."""
    search.state["step"] += 1
    search.state["spent"] = asdict(spent)
    waiting: list[dict[str, Any]] = search.state["open"]
    keys = {item["key"] for item in waiting}
    by_key = {result.key: result for result in results if result.key in keys}
    missing, is_cut = 0, "out_of_time" in search.state and search.state["phase"] != "holdout"
    for item in waiting:
        result = by_key.get(item["key"], Result(item["key"]))
        if is_cut and result.output is None:
            continue  # it was not begun any more; that is no failed call
        if item["kind"] == "evaluate":
            missing += result.score is None
            _take_score(search, item, result)
        else:
            _take_proposal(search, item, result)
    _tell_checks(search)
    evaluations = sum(item["kind"] == "evaluate" for item in waiting)
    proposals = sum(item["kind"] == "propose" and not item["repair_of"] for item in waiting)
    answered = sum(result.output is not None for result in by_key.values())
    search.state["open"] = []
    # One or two failures of a small barrier say nothing about the rest; the baseline and the holdout must stand.
    enough = missing >= _FEW_FAILURES or search.state["phase"] in _MUST_STAND
    if evaluations and enough and missing / evaluations > outcome.GIVE_UP_MISSING:
        _give_up(search, "scoring_failed")
    elif proposals and not answered and not is_cut:
        _give_up(search, "proposer_failed")


def _tell_checks(search: Search) -> None:
    search.events += [("optimization.generalization", item) for item in watch.settle(search)]


def _take_score(search: Search, item: Mapping[str, Any], result: Result) -> None:
    if result.score is not None and not (math.isfinite(result.score) and 0 <= result.score <= 1):
        raise ValueError(f"a score must be in [0, 1], this is {result.score}")
    if search.state["phase"] == "preflight":  # kept apart: it must not make the seed's score a better known one
        search.state["probe"].setdefault(str(item["case"]), []).append(result.score)
        return
    known = search.state["scores"].setdefault(item["candidate"], {})
    known.setdefault(str(item["case"]), []).append(result.score)
    _keep_answer(search, item, result)
    _keep_measures(search, item, result)
    _keep_parts(search, item, result)
    if result.score is not None and not result.passed and item["case"] in search.state["train"]:
        kept = search.state["failures"].setdefault(item["candidate"], [])
        if len(kept) < _KEPT_FAILURES:
            kept.append(
                {
                    "case": item["case"],
                    "output": (result.output or "")[:1000],
                    "feedback": result.feedback[:1000],
                }
            )


def _keep_answer(search: Search, item: Mapping[str, Any], result: Result) -> None:
    """Where demonstrations are wanted: the first answer of the teacher to a train case that is good enough."""
    threshold = search.knobs.get("metric_threshold")
    if threshold is None or result.score is None or result.output is None or item["case"] not in search.state["train"]:
        return
    own_teacher = search.knobs["teacher"] is not None or search.knobs.get("include_reasoning")
    teaches = "teacher" if own_teacher else "seed"
    is_teacher = search.candidates[item["candidate"]]["operator"] in ("teacher", teaches)
    is_short = bool(result.output.strip()) and len(result.output) <= _LONGEST_DEMONSTRATION
    if is_teacher and is_short and result.score >= threshold:
        search.state.setdefault("answers", {}).setdefault(str(item["case"]), result.output)


def _keep_measures(search: Search, item: Mapping[str, Any], result: Result) -> None:
    """Where cost or latency count: their sums over the answered calls of a candidate."""
    weights = search.knobs.get("objective_weights", {})
    if result.score is None or not (weights.get("cost") or weights.get("latency")):
        return
    sums = search.state.setdefault("measures", {}).setdefault(item["candidate"], {"calls": 0, "cost": 0, "latency": 0})
    for name, amount in (("calls", 1), ("cost", result.nano), ("latency", result.latency_ms)):
        sums[name] += amount


def _keep_parts(search: Search, item: Mapping[str, Any], result: Result) -> None:
    """Where a front is made of scorers: what each of them said of a dev case, one entry per answer."""
    if search.knobs.get("frontier", "instance") == "instance" or not result.parts or item["case"] not in search.dev:
        return
    known = search.state.setdefault("parts", {}).setdefault(item["candidate"], {})
    known.setdefault(str(item["case"]), []).append(dict(sorted(result.parts.items())))


def _take_proposal(search: Search, item: Mapping[str, Any], result: Result) -> None:
    operator = item["repair_of"] or item["operator"]
    if result.output is None:
        if item["repair_of"]:
            search.reject(operator, "its repair was not answered")
        return
    lineage = {"proposal": result.key, "evidence": item["evidence"], "slot": item["slot"]}
    if operator in operators.NOTES:
        note = {**lineage, "parent": item["parent"], "component": item["component"]}
        search.own.setdefault("notes", []).append({**note, "text": operators.parse_note(result.output)})
        return
    text = operators.parse(result.output)
    if text is None:
        search.reject(operator, "no prompt in the answer")
        return
    problem = search.problem.problem_with({**search.components(item["parent"]), item["component"]: text})
    if problem and item["attempt"] < search.knobs.get("repair_attempts", 0):
        search.state["repairs"].append({**item, "repair_of": operator, "text": text, "problem": problem})
        return
    repaired = {"repairs": item["attempt"], "asked": item["origin"]} if item["attempt"] else {}
    search.admit_child(
        item["parent"],
        item["component"],
        text,
        operator=operator,
        lineage={**lineage, **repaired},
        mates=item["mates"],
    )


def _repair(search: Search) -> None:
    """Send back what broke the template, once more each, if the search goes on and can pay for it."""
    waiting, search.state["repairs"] = search.state["repairs"], []
    asked = 0
    if search.state["phase"] == "search":
        asked = search.ask([[children.repair(search, item)] for item in waiting])
    for item in waiting[asked:]:
        search.reject(item["repair_of"], item["problem"])


def _give_up(search: Search, reason: str) -> None:
    phase = search.state["phase"]
    if phase in _MUST_STAND:
        _finish(search, reason)
    elif phase == "topup":
        # The incumbent has its full dev score and the holdout is paid for in advance: it goes there alone.
        for one in search.state["finalists"]:
            if one not in (search.seed, search.incumbent):
                search.decide(one, "pruned", "too many calls of its top-up failed")
        search.state["finalists"] = [search.incumbent]
    else:
        search.state["policy"] = None
        search.conclude(reason)


def _stop(search: Search) -> None:
    """Time is up: what has a full dev score may be chosen, and the holdout says what it is worth."""
    phase = search.state["phase"]
    if phase in ("baseline", "preflight"):
        _finish(search, "budget_time")
    elif phase == "search":
        search.state["policy"] = None
        search.conclude("budget_time")


def _advance(search: Search, strategy: Strategy) -> None:
    """Go on from where no work is open: ask for more, or enter the next phase."""
    phase = search.state["phase"]
    if phase == "baseline":
        _after_baseline(search, strategy)
    elif phase == "preflight":
        _after_preflight(search, strategy)
    elif phase == "search":
        if search.state["policy"] is not None:
            policy.advance(search)
        else:
            strategy.advance(search)
    elif phase == "topup":
        _after_topup(search)
    elif phase == "holdout":
        _finish(search, search.state["finish_reason"])


def _after_baseline(search: Search, strategy: Strategy) -> None:
    if search.is_exhausted:  # not even the baseline fitted the budget: there is nothing to compare with
        _finish(search, search.state["finish_reason"])
        return
    search.state["incumbent"] = search.seed
    baseline = search.mean(search.seed, search.dev)
    search.events.append(("optimization.baseline", {"score": baseline, "cases": len(search.dev)}))
    if baseline >= 1.0:
        _finish(search, "no_headroom")
        return
    if search.problem.spec.get("preflight"):
        search.state |= {"phase": "preflight", "probe": {}}
        search.probe()
        return
    _begin(search, strategy)


def _after_preflight(search: Search, strategy: Strategy) -> None:
    if search.is_exhausted:
        _finish(search, search.state["finish_reason"])
        return
    found = search.state["preflight"] = preflight.measured(search)
    search.events.append(("optimization.preflight", found))
    if preflight.has_headroom(found):
        _begin(search, strategy)
    else:
        _finish(search, "no_headroom")


def _begin(search: Search, strategy: Strategy) -> None:
    search.state["phase"] = "search"
    search.state["round"] = 1
    strategy.begin(search)


def _after_topup(search: Search) -> None:
    finalists = search.state["finalists"]
    is_left = "out_of_time" not in search.state and not search.own.get("topped_up")
    if is_left and any(not search.is_complete(one) for one in finalists):
        search.own["topped_up"] = True
        if search.evaluate_affordable(finalists, search.dev):
            return
    for one in finalists:
        if search.is_complete(one):
            search.crown(one)
    search.state["phase"] = "holdout"
    # What was kept back for this is released here, so it is always affordable.
    search.evaluate(list(dict.fromkeys([search.seed, search.incumbent])), search.state["holdout"])


def _finish(search: Search, reason: str) -> None:
    search.state["finish_reason"] = reason
    search.state["phase"] = "done"
    for one in [one for one, item in search.candidates.items() if item["decision"] == "proposed"]:
        scored = len(search.scores(one, search.dev))
        search.decide(one, "pruned", f"the search ended ({reason}) with {scored} of {len(search.dev)} cases scored")
    search.state["result"] = outcome.result(search, reason)
    search.events.append(("optimization.concluded", {"reason": reason, "verdict": search.state["result"]["verdict"]}))


def _as_step(search: Search) -> Step:
    unique = {work.key: work for work in search.work}
    search.state["open"] = [{"key": key, **_described(work)} for key, work in unique.items()]
    return Step(search.state, list(unique.values()), search.events)


def _described(work: Work) -> dict[str, Any]:
    if isinstance(work, Evaluate):
        return {"kind": "evaluate", "candidate": work.candidate, "case": work.case, "repeat": work.repeat}
    return {
        "kind": "propose",
        "operator": work.operator,
        "parent": work.parent,
        "component": work.component,
        "slot": work.slot,
        "evidence": list(work.evidence),
        "mates": list(work.mates),
        "repair_of": work.repair_of,
        "attempt": work.attempt,
        "origin": work.origin,
    }
