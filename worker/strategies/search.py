"""The search that all strategies share: candidates, scores, checks, budget, early stop, holdout.

    baseline → (strategy: propose, screen, confirm)* → top-up of the finalists → holdout → done

`start` and `step` are a pure reducer over a JSON state. Randomness is drawn from (seed, purpose, round,
slot); results are taken in the order of their keys; so the same answers give the same run, in any order
of arrival and after any crash (I9).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from random import Random
from typing import Any, cast

from rapidfuzz import fuzz

from shared import stats
from shared.hashing import hash_of
from worker.strategies import operators, policy
from worker.strategies.contract import Case, Evaluate, Problem, Propose, Result, Spent, Step, Strategy, Work
from worker.strategies.operators import Failure
from worker.strategies.splits import balanced, draw, split

LEAK_CHARACTERS = 40  # a candidate may not hold so long a piece of a dev or holdout case
GIVE_UP_MISSING = 0.5  # of one barrier's scores
_FEW_FAILURES = 5
_KEPT_FAILURES = 32  # per candidate; the proposer is shown a sample of them
_MEASURES = {
    "task_calls": "max_task_calls",
    "proposer_calls": "max_proposer_calls",
    "tokens": "max_tokens",
    "nano": "max_cost_nano",
}
_REASONS = {
    "task_calls": "budget_task_calls",
    "proposer_calls": "budget_proposer_calls",
    "tokens": "budget_tokens",
    "nano": "budget_cost",
}


def start(problem: Problem, strategy: Strategy) -> Step:
    """The first state, with the baseline's scoring as its work."""
    search = Search(problem, strategy, _empty_state(problem))
    search.admit(dict(problem.components), parents=(), operator="seed", lineage={})
    search.evaluate([search.seed], search.dev)
    return search.as_step()


def step(
    problem: Problem, strategy: Strategy, state: Mapping[str, Any], results: Sequence[Result], spent: Spent
) -> Step:
    """Take the results of the open work and decide what comes next."""
    search = Search(problem, strategy, json.loads(json.dumps(state)))
    search.take(results, spent)
    while not search.work and search.state["phase"] != "done":
        search.advance()
    return search.as_step()


def _empty_state(problem: Problem) -> dict[str, Any]:
    parts = split(problem.cases, problem.spec["split"])
    return {
        "phase": "baseline",
        "round": 0,
        "step": 0,
        "train": parts.train,
        "dev": parts.dev,
        "holdout": parts.holdout,
        "indicative": parts.indicative,
        "candidates": [],
        "scores": {},
        "failures": {},
        "rejected": 0,
        "spent": asdict(Spent()),
        "open": {},
        "incumbent": None,
        "stall": 0,
        "finish_reason": None,
        "finalists": [],
        "own": {},
        "policy": None,
        "curve": [],
        "result": None,
    }


class Search:
    """One step's view of the state, with the verbs that strategies use."""

    def __init__(self, problem: Problem, strategy: Strategy, state: dict[str, Any]) -> None:
        self.problem = problem
        self.strategy = strategy
        self.state = state
        self.knobs: Mapping[str, Any] = problem.spec["knobs"]
        self.evaluation: Mapping[str, Any] = problem.spec["evaluation"]
        self.work: list[Work] = []
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self._cases = {case.ordinal: case for case in problem.cases}
        self._candidates = {candidate["hash"]: candidate for candidate in state["candidates"]}

    # ---- what strategies read ---------------------------------------------------------------

    @property
    def own(self) -> dict[str, Any]:
        """The strategy's own JSON."""
        return cast("dict[str, Any]", self.state["own"])

    @property
    def seed(self) -> str:
        return str(self.state["candidates"][0]["hash"])

    @property
    def incumbent(self) -> str:
        """The best candidate so far, by its score on the whole dev split."""
        return str(self.state["incumbent"] or self.seed)

    @property
    def round(self) -> int:
        return int(self.state["round"])

    @property
    def dev(self) -> list[int]:
        limit = self.evaluation["max_cases"]
        return list(self.state["dev"][:limit] if limit else self.state["dev"])

    @property
    def is_exhausted(self) -> bool:
        """Whether something that was asked for did not fit the budget."""
        return self.state["finish_reason"] is not None

    def draw(self, *purpose: Any) -> Random:
        return draw(self.problem.spec["seed"], self.round, *purpose)

    def case_list(self) -> list[int]:
        """The dev cases in the order in which every candidate of this round is scored."""
        order = self.evaluation["case_order"]
        if order == "fixed":
            return sorted(self.dev)
        key = ("order", self.problem.spec["seed"], *([self.round] if order == "shuffled_per_round" else []))
        return [case.ordinal for case in balanced([self._cases[ordinal] for ordinal in self.dev], *key)]

    def components(self, candidate: str) -> Mapping[str, str]:
        return cast("Mapping[str, str]", self._candidates[candidate]["components"])

    def text(self, candidate: str) -> str:
        return "\n".join(self.components(candidate)[name] for name in sorted(self.components(candidate)))

    def scores(self, candidate: str, cases: Sequence[int]) -> list[float]:
        """The candidate's scores on these cases, one per case that has any, in the order given.

        Repeats of a case are averaged first; a case whose every call failed is missing.
        """
        known = self.state["scores"].get(candidate, {})
        found = []
        for case in cases:
            values = [value for value in known.get(str(case), []) if value is not None]
            if values:
                found.append(sum(values) / len(values))
        return found

    def value(self, candidate: str, cases: Sequence[int]) -> float | None:
        """What candidates are ranked by: mean - z·se - length penalty; None when too much is missing."""
        scores = self.scores(candidate, cases)
        if not scores or 1 - len(scores) / len(cases) > self.evaluation["missing_tolerance"]:
            return None
        value = self._weighted_mean(candidate, cases)
        value -= self.evaluation["lcb_z"] * stats.standard_error(scores)
        growth = len(self.text(candidate)) / max(1, len(self.text(self.seed)))
        return value - self.knobs["length_penalty"] * growth / 10

    def failures(self, candidate: str) -> list[Failure]:
        return [
            Failure(item["case"], _texts(self._cases[item["case"]].inputs), item["output"], item["feedback"])
            for item in self.state["failures"].get(candidate, [])
        ]

    def similarity(self, one: str, other: str) -> float:
        """In [0, 1], of two candidates' texts."""
        return fuzz.ratio(self.text(one), self.text(other)) / 100

    # ---- what strategies do -----------------------------------------------------------------

    def evaluate(self, candidates: Sequence[str], cases: Sequence[int]) -> bool:
        """Ask for every score that is missing; False when the budget does not cover it (nothing is asked)."""
        return self._emit([work for candidate in candidates for work in self._unscored(candidate, cases)])

    def evaluate_affordable(self, candidates: Sequence[str], cases: Sequence[int]) -> list[str]:
        """Like `evaluate`, for as many of the candidates, the first first, as the budget covers: those."""
        return list(candidates[: self._emit_first([self._unscored(candidate, cases) for candidate in candidates])])

    def propose(self, asked: Sequence[tuple[str, str, int]]) -> list[str] | None:
        """Make children: (operator, parent, slot) each. Edits come back at once; proposals as work.

        Returns the hashes of the children made by edits, or None when the budget covers not one proposal.
        Where it covers some, the first are asked for.
        """
        made: list[str] = []
        wanted: list[list[Work]] = []
        for operator, parent, slot in asked:
            chance = self.draw("propose", parent, slot)
            component = chance.choice(sorted(self.components(parent)))
            if operator in ("delete", "swap", "insert_phrase"):
                text = operators.edit(operator, self.components(parent)[component], chance)
                child = self._child(parent, component, text, operator, {"slot": slot})
                made += [child] if child else []
            else:
                wanted.append([self._proposal(operator, parent, component, slot, chance)])
        return made if self._emit_first(wanted) or not wanted else None

    def children(self) -> list[str]:
        """The candidates admitted in this round, oldest first."""
        return [
            candidate["hash"]
            for candidate in self.state["candidates"]
            if candidate["round"] == self.round and candidate["operator"] != "seed"
        ]

    def decide(self, candidate: str, decision: str, reason: str = "") -> None:
        """Record what became of a candidate, so that "why was this dropped" has an answer."""
        self._candidates[candidate]["decision"] = decision
        self._candidates[candidate]["reason"] = reason

    def crown(self, challenger: str) -> None:
        """Make a challenger with a full dev score the incumbent if it is better."""
        former = self.incumbent
        value, best = self.value(challenger, self.dev), self.value(former, self.dev)
        if value is not None and (best is None or value > best):
            self.state["incumbent"] = challenger
            self.decide(challenger, "best", f"{value:.4f} on {len(self.dev)} dev cases")
            if former != self.seed:
                self.decide(former, "kept", f"the best until round {self.round}")
        elif self._candidates[challenger]["decision"] == "proposed":
            found = "too many failed calls" if value is None else f"{value:.4f} on {len(self.dev)} dev cases"
            self.decide(challenger, "pruned", f"{found}: not better than the best")

    def close_round(self) -> str | None:
        """End a round: the curve, patience, targets. A finish reason when the search should end."""
        early = self.problem.spec["early_stopping"]
        best = self._weighted_mean(self.incumbent, self.dev)
        before = self.state["curve"][-1]["best"] if self.state["curve"] else self._weighted_mean(self.seed, self.dev)
        gained = best > before and best >= before + early["min_delta"]
        self.state["stall"] = 0 if gained else self.state["stall"] + 1
        point = {
            "round": self.round,
            "best": best,
            "candidates": len(self.state["candidates"]),
            **{name: self.state["spent"][name] for name in ("task_calls", "proposer_calls", "nano")},
        }
        self.state["curve"].append(point)
        self.events.append(("optimization.round", point))
        if best >= 1.0:
            return "perfect_score"
        if early["target_score"] is not None and best >= early["target_score"]:
            return "target_reached"
        return "converged" if self.state["stall"] >= early["patience"] else None

    def next_round(self) -> None:
        self.state["round"] += 1

    def conclude(self, reason: str) -> None:
        """End the search; the finalists are topped up and the best one goes to the holdout."""
        self.state["finish_reason"] = self.state["finish_reason"] or reason
        self.state["phase"] = "topup"
        count = self.knobs["finalists"]
        ranked = sorted(
            (candidate["hash"] for candidate in self.state["candidates"] if self._screened(candidate["hash"])),
            key=lambda one: (-self._screening_value(one), self._ordinal(one)),
        )
        ahead = [one for one in ranked if one != self.incumbent]
        self.state["finalists"] = [self.incumbent, *ahead[: count - 1]]

    def admit(
        self, components: dict[str, str], *, parents: Sequence[str], operator: str, lineage: Mapping[str, Any]
    ) -> str | None:
        """Add a candidate if it passes the checks that come before any payment; its hash, or None."""
        digest = hash_of(components)
        reason = None if operator == "seed" else self._refusal(components, digest)
        if reason:
            self.state["rejected"] += 1
            self.events.append(("candidate.rejected", {"operator": operator, "reason": reason, "round": self.round}))
            return None
        candidate = {
            "hash": digest,
            "components": components,
            "parents": list(parents),
            "operator": operator,
            "round": self.round,
            "decision": "seed" if operator == "seed" else "proposed",
            "reason": "",
            "lineage": dict(lineage),
        }
        self.state["candidates"].append(candidate)
        self._candidates[digest] = candidate
        return digest

    # ---- the reducer ------------------------------------------------------------------------

    def take(self, results: Sequence[Result], spent: Spent) -> None:
        """Enter the results of the open work, in an order that does not depend on their arrival."""
        self.state["step"] += 1
        self.state["spent"] = asdict(spent)
        waiting: dict[str, Any] = self.state["open"]
        by_key = {result.key: result for result in results if result.key in waiting}
        missing = 0
        for key, item in waiting.items():
            result = by_key.get(key, Result(key))
            if item["kind"] == "evaluate":
                missing += result.score is None
                self._take_score(item, result)
            else:
                self._take_proposal(item, result)
        evaluations = sum(item["kind"] == "evaluate" for item in waiting.values())
        proposals = len(waiting) - evaluations
        answered = sum(1 for key in waiting if key in by_key and by_key[key].output is not None)
        self.state["open"] = {}
        # One or two failures of a small barrier say nothing about the rest; the baseline and the holdout must stand.
        enough = missing >= _FEW_FAILURES or self.state["phase"] in ("baseline", "holdout")
        if evaluations and enough and missing / evaluations > GIVE_UP_MISSING:
            self._give_up("scoring_failed")
        elif proposals and not answered:
            self._give_up("proposer_failed")

    def advance(self) -> None:
        phase = self.state["phase"]
        if phase == "baseline":
            self._after_baseline()
        elif phase == "search":
            if self.state["policy"] is not None:
                policy.advance(self)
            else:
                self.strategy.advance(self)
        elif phase == "topup":
            self._after_topup()
        elif phase == "holdout":
            self._after_holdout()

    def as_step(self) -> Step:
        self.state["open"] = {work.key: _described(work) for work in self.work}
        return Step(self.state, self.work, self.events)

    # ---- phases -----------------------------------------------------------------------------

    def _after_baseline(self) -> None:
        if self.is_exhausted:  # not even the baseline fitted the budget: there is nothing to compare with
            self._finish(self.state["finish_reason"])
            return
        self.state["incumbent"] = self.seed
        baseline = self._weighted_mean(self.seed, self.dev)
        self.events.append(("optimization.baseline", {"score": baseline, "cases": len(self.dev)}))
        if baseline >= 1.0:
            self._finish("no_headroom")
            return
        self.state["phase"] = "search"
        self.state["round"] = 1
        self.strategy.begin(self)

    def _after_topup(self) -> None:
        finalists = self.state["finalists"]
        if any(not self._is_complete(one) for one in finalists) and not self.own.get("topped_up"):
            self.own["topped_up"] = True
            if self.evaluate_affordable(finalists, self.dev):
                return
        for one in finalists:
            if self._is_complete(one):
                self.crown(one)
        self.state["phase"] = "holdout"
        # What was kept back for this is released here, so it is always affordable.
        self.evaluate(list(dict.fromkeys([self.seed, self.incumbent])), self.state["holdout"])

    def _after_holdout(self) -> None:
        self._finish(self.state["finish_reason"])

    def _give_up(self, reason: str) -> None:
        if self.state["phase"] in ("baseline", "holdout", "topup"):
            self._finish(reason)
        else:
            self.state["policy"] = None
            self.conclude(reason)

    def _finish(self, reason: str) -> None:
        self.state["finish_reason"] = reason
        self.state["phase"] = "done"
        for one in [item["hash"] for item in self.state["candidates"] if item["decision"] == "proposed"]:
            scored = len(self.scores(one, self.dev))
            self.decide(one, "pruned", f"the search ended ({reason}) with {scored} of {len(self.dev)} cases scored")
        self.state["result"] = self._result(reason)
        self.events.append(("optimization.concluded", {"reason": reason, "verdict": self.state["result"]["verdict"]}))

    def _result(self, reason: str) -> dict[str, Any]:
        holdout = self._holdout_comparison()
        if reason == "no_headroom":
            verdict = "no_headroom"
        elif holdout is None or holdout["n"] < (1 - GIVE_UP_MISSING) * len(self.state["holdout"]):
            verdict = "not_measured"
        elif holdout["ci_low"] > 0:
            verdict = "improved"
        else:
            verdict = "worse" if holdout["ci_high"] < 0 else "not_significant"
        return {
            "verdict": verdict,
            "baseline_dev": self._mean_or_none(self.seed, self.dev),
            "best_dev": self._mean_or_none(self.incumbent, self.dev),
            "best": self.incumbent,
            "holdout": holdout,
            "indicative": self.state["indicative"],
            "cases": {part: len(self.state[part]) for part in ("train", "dev", "holdout")},
        }

    def _holdout_comparison(self) -> dict[str, Any] | None:
        """Baseline against best, paired over the holdout cases that both have a score for."""
        both = [
            case
            for case in self.state["holdout"]
            if self.scores(self.seed, [case]) and self.scores(self.incumbent, [case])
        ]
        if not both:
            return None
        return asdict(
            stats.compare_paired(
                self.scores(self.seed, both),
                self.scores(self.incumbent, both),
                seed=self.problem.spec["seed"],
            )
        )

    # ---- budget -----------------------------------------------------------------------------

    def _emit(self, wanted: Sequence[Work]) -> bool:
        """Add the work if all of it fits what is left after the reserve for the holdout."""
        exhausted = self._shortage(wanted) if wanted else None
        if exhausted:
            self.state["finish_reason"] = self.state["finish_reason"] or _REASONS[exhausted]
            return False
        self.work += wanted
        return True

    def _emit_first(self, units: Sequence[Sequence[Work]]) -> int:
        """Add as many units of work, the first first, as fit; how many. If not all do, the budget is exhausted."""

        def first(count: int) -> list[Work]:
            return [work for unit in units[:count] for work in unit]

        if self._emit(first(len(units))):
            return len(units)
        fits, too_many = 0, len(units)
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            if self._shortage(first(middle)):
                too_many = middle
            else:
                fits = middle
        self.work += first(fits)
        return fits

    def _shortage(self, wanted: Sequence[Work]) -> str | None:
        """The measure that would run out, on upper bounds; None when the work fits."""
        limits = self.problem.spec["budget"]
        need = self._bound([*self.work, *wanted])
        reserve = self._reserve(wanted)
        for measure, name in _MEASURES.items():
            limit = limits.get(name)
            if limit is not None and self.state["spent"][measure] + need[measure] + reserve[measure] > limit:
                return measure
        return None

    def _bound(self, works: Sequence[Work]) -> dict[str, int]:
        total = dict.fromkeys(_MEASURES, 0)
        for work in works:
            subject = work.candidate if isinstance(work, Evaluate) else work.parent
            tokens, nano = self.problem.price(self.components(subject), work)
            total["task_calls" if isinstance(work, Evaluate) else "proposer_calls"] += 1
            total["tokens"] += tokens
            total["nano"] += nano
        return total

    def _reserve(self, wanted: Sequence[Work]) -> dict[str, int]:
        """What the holdout may cost at most: of the seed, and of the dearest candidate that may become the best.

        Only a candidate with a full dev score can, so whatever is emitted here never outgrows this.
        """
        if self.state["phase"] == "holdout":
            return dict.fromkeys(_MEASURES, 0)
        asked = {(work.candidate, work.case) for work in wanted if isinstance(work, Evaluate)}
        contenders = [
            self._holdout_bound(one)
            for one in self._candidates
            if all(self._has(one, case, 0) or (one, case) in asked for case in self.dev)
        ]
        seed = self._holdout_bound(self.seed)
        return {name: seed[name] + max((bound[name] for bound in contenders), default=0) for name in _MEASURES}

    def _holdout_bound(self, candidate: str) -> Mapping[str, int]:
        """What the holdout of one candidate may cost; kept in the state, because it never changes."""
        item = self._candidates[candidate]
        if "holdout_bound" not in item:
            item["holdout_bound"] = self._bound(self._unscored(candidate, self.state["holdout"]))
        return cast("Mapping[str, int]", item["holdout_bound"])

    # ---- details ----------------------------------------------------------------------------

    def _unscored(self, candidate: str, cases: Sequence[int]) -> list[Work]:
        return [
            Evaluate(candidate, case, repeat)
            for case in cases
            for repeat in range(self.evaluation["repeats"])
            if not self._has(candidate, case, repeat)
        ]

    def _has(self, candidate: str, case: int, repeat: int) -> bool:
        return len(self.state["scores"].get(candidate, {}).get(str(case), [])) > repeat

    def _is_complete(self, candidate: str) -> bool:
        return all(self._has(candidate, case, 0) for case in self.dev)

    def _screened(self, candidate: str) -> bool:
        return bool(self.scores(candidate, self.dev)) and self.value(candidate, self._scored(candidate)) is not None

    def _scored(self, candidate: str) -> list[int]:
        return [case for case in self.dev if self._has(candidate, case, 0)]

    def _screening_value(self, candidate: str) -> float:
        """For the choice of finalists: what few cases say is pulled toward the baseline.

        Shrinkage with the weight of one first rung, so that a lucky 16 of 16 does not displace 120 of 160.
        """
        cases = self._scored(candidate)
        value = self.value(candidate, cases)
        assert value is not None
        baseline = self._weighted_mean(self.seed, self.dev)
        weight = len(cases) / (len(cases) + self.evaluation["min_cases"])
        return weight * value + (1 - weight) * baseline

    def _ordinal(self, candidate: str) -> int:
        return [item["hash"] for item in self.state["candidates"]].index(candidate)

    def _weighted_mean(self, candidate: str, cases: Sequence[int]) -> float:
        known = [case for case in cases if self.scores(candidate, [case])]
        weights = [self._cases[case].weight for case in known]
        if not known or not sum(weights):
            return 0.0
        scores = self.scores(candidate, known)
        return sum(score * weight for score, weight in zip(scores, weights, strict=True)) / sum(weights)

    def _mean_or_none(self, candidate: str, cases: Sequence[int]) -> float | None:
        return self._weighted_mean(candidate, cases) if self.scores(candidate, cases) else None

    def _proposal(self, operator: str, parent: str, component: str, slot: int, chance: Random) -> Propose:
        failures = self.failures(parent)
        count = self.knobs["errors_in_context"]
        shown = chance.sample(failures, min(count, len(failures)))
        if operator == "reflect" and not shown:
            operator = "paraphrase"  # nothing went wrong: there is nothing to reflect on
        examples = [
            self._example(case) for case in chance.sample(self.state["train"], min(count, len(self.state["train"])))
        ]
        messages = operators.request(operator, self.components(parent)[component], shown, examples)
        evidence = {"reflect": [f.case for f in shown], "fresh_start": [e.case for e in examples]}.get(operator, [])
        return Propose(operator, parent, component, messages, self.round, slot, tuple(evidence))

    def _example(self, ordinal: int) -> Failure:
        case: Case = self._cases[ordinal]
        return Failure(ordinal, _texts(case.inputs), "", f"expected {case.expected}")

    def _child(self, parent: str, component: str, text: str, operator: str, lineage: Mapping[str, Any]) -> str | None:
        components = {**self.components(parent), component: text}
        return self.admit(components, parents=[parent], operator=operator, lineage={"component": component, **lineage})

    def _take_score(self, item: Mapping[str, Any], result: Result) -> None:
        if result.score is not None and not (math.isfinite(result.score) and 0 <= result.score <= 1):
            raise ValueError(f"a score must be in [0, 1], this is {result.score}")
        known = self.state["scores"].setdefault(item["candidate"], {})
        known.setdefault(str(item["case"]), []).append(result.score)
        if result.score is not None and not result.passed and item["case"] in self.state["train"]:
            kept = self.state["failures"].setdefault(item["candidate"], [])
            if len(kept) < _KEPT_FAILURES:
                kept.append(
                    {
                        "case": item["case"],
                        "output": (result.output or "")[:1000],
                        "feedback": result.feedback[:1000],
                    }
                )

    def _take_proposal(self, item: Mapping[str, Any], result: Result) -> None:
        if result.output is None:
            return
        text = operators.parse(result.output)
        lineage = {"proposal": result.key, "evidence": item["evidence"], "slot": item["slot"]}
        if text is None:
            self.state["rejected"] += 1
            self.events.append(
                (
                    "candidate.rejected",
                    {"operator": item["operator"], "reason": "no prompt in the answer", "round": self.round},
                )
            )
            return
        self._child(item["parent"], item["component"], text, item["operator"], lineage)

    def _refusal(self, components: Mapping[str, str], digest: str) -> str | None:
        """Why a candidate is not worth a single call; None when it is."""
        if digest in self._candidates:
            return "duplicate"
        problem = self.problem.problem_with(components)
        if problem:
            return problem
        text = "\n".join(components[name] for name in sorted(components))
        if len(text) > self.knobs["max_growth"] * len(self.text(self.seed)):
            return f"longer than {self.knobs['max_growth']:g} times the seed"
        folded = " ".join(text.split())
        for other in self._candidates:
            if fuzz.ratio(folded, " ".join(self.text(other).split())) / 100 >= self.knobs["near_dup"]:
                return "near duplicate"
        return "holds a piece of a held-out case" if self._leaks(text) else None

    def _leaks(self, text: str) -> bool:
        windows = {text[i : i + LEAK_CHARACTERS] for i in range(len(text) - LEAK_CHARACTERS + 1)}
        own = self.text(self.seed)
        hidden = set(self.state["holdout"]) | (set(self.state["dev"]) - set(self.state["train"]))
        for ordinal in sorted(hidden):
            for value in _texts(self._cases[ordinal].inputs).values():
                for i in range(len(value) - LEAK_CHARACTERS + 1):
                    window = value[i : i + LEAK_CHARACTERS]
                    if window in windows and window not in own:
                        return True
        return False


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
    }


def _texts(inputs: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in inputs.items()}
