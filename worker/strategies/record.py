"""The record of a run: its JSON state, and everything that can be read from it. Nothing here changes it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from random import Random
from typing import Any, cast

from rapidfuzz import fuzz

from shared import stats
from shared.splits import balanced, draw, split, stratum_by
from worker.strategies.contract import Evaluate, Genes, Problem, Spent

LEAK_CHARACTERS = 40  # a candidate may not hold so long a piece of a dev or holdout case
_MOST_HIDDEN_CHARACTERS = 500_000


def first_state(problem: Problem) -> dict[str, Any]:
    """The state of a run in which nothing has happened yet."""
    watched = problem.spec["evaluation"].get("generalization_check_every", 0) > 0
    parts = split(problem.cases, problem.spec["split"], watched=watched)
    return {
        "phase": "baseline",
        "round": 0,
        "step": 0,
        "train": parts.train,
        "dev": parts.dev,
        "holdout": parts.holdout,
        **({"watch": parts.watch, "checks": []} if watched else {}),
        "indicative": parts.indicative,
        "candidates": [],
        "scores": {},
        "failures": {},
        "rejected": 0,
        "repairs": [],
        "spent": asdict(Spent()),
        "open": [],
        "incumbent": None,
        "stall": 0,
        "finish_reason": None,
        "finalists": [],
        "own": {},
        "policy": None,
        "curve": [],
        "result": None,
    }


def pieces(text: str) -> Iterator[str]:
    """Every piece of the text that is just long enough to give a case away."""
    return (text[i : i + LEAK_CHARACTERS] for i in range(len(text) - LEAK_CHARACTERS + 1))


def text_of(components: Mapping[str, str]) -> str:
    """The whole text of a candidate, by which its length and its likeness to others are measured."""
    return "\n".join(components[name] for name in sorted(components))


class Record:
    """A run as it stands. Candidates are named by their hash, cases by their ordinal."""

    def __init__(self, problem: Problem, state: dict[str, Any]) -> None:
        self.problem = problem
        self.state = state
        self.knobs: Mapping[str, Any] = problem.spec["knobs"]
        self.evaluation: Mapping[str, Any] = problem.spec["evaluation"]
        self.cases = {case.ordinal: case for case in problem.cases}
        # The items of the state's list, oldest first.
        self.candidates: dict[str, dict[str, Any]] = {item["hash"]: item for item in state["candidates"]}
        self._texts: dict[str, str] = {}  # by candidate, whose text never changes

    @property
    def own(self) -> dict[str, Any]:
        """The strategy's own JSON."""
        return cast("dict[str, Any]", self.state["own"])

    @property
    def round(self) -> int:
        return int(self.state["round"])

    @property
    def is_exhausted(self) -> bool:
        """Whether something that was asked for did not fit the budget."""
        return self.state["finish_reason"] is not None

    def draw(self, *purpose: Any) -> Random:
        """A generator of this round, for one purpose."""
        return draw(self.problem.spec["seed"], self.round, *purpose)

    @property
    def seed(self) -> str:
        return str(self.state["candidates"][0]["hash"])

    @property
    def incumbent(self) -> str:
        """The best candidate so far, by its score on the whole dev split."""
        return str(self.state["incumbent"] or self.seed)

    def children(self) -> list[str]:
        """The candidates admitted in this round, oldest first; a teacher is none of them."""
        return [
            candidate
            for candidate, item in self.candidates.items()
            if item["round"] == self.round and item["operator"] not in ("seed", "teacher")
        ]

    def components(self, candidate: str) -> Mapping[str, str]:
        return cast("Mapping[str, str]", self.candidates[candidate]["components"])

    @cached_property
    def free_components(self) -> list[str]:
        """The names of the components that may be rewritten, in order; a run that began before the knob has all."""
        return sorted(self.knobs.get("components") or self.components(self.seed))

    def free_texts(self, candidate: str) -> dict[str, str]:
        """The components that may be rewritten; the others are the same in every candidate."""
        return {name: self.components(candidate)[name] for name in self.free_components}

    def genes(self, candidate: str) -> Genes:
        item = self.candidates[candidate]
        return Genes(item.get("demos", ()), item.get("params", {}))

    def text(self, candidate: str) -> str:
        if candidate not in self._texts:
            self._texts[candidate] = text_of(self.components(candidate))
        return self._texts[candidate]

    @cached_property
    def hidden_texts(self) -> list[str]:
        """Every input of a dev or holdout case that no proposer may see."""
        hidden = {*self.state["dev"], *self.state["holdout"], *self.state.get("watch", [])} - set(self.state["train"])
        return [value for case in sorted(hidden) for value in self.inputs(case).values()]

    @cached_property
    def hidden_pieces(self) -> frozenset[str] | None:
        """Every piece of these that would give a case away; None where they would take too much memory."""
        if sum(map(len, self.hidden_texts)) > _MOST_HIDDEN_CHARACTERS:
            return None
        return frozenset(piece for value in self.hidden_texts for piece in pieces(value))

    def length(self, candidate: str) -> int:
        """In characters: of its texts, and of the inputs and outputs of the demonstrations that it carries."""
        shown = (
            len(demo["output"]) + sum(map(len, self.inputs(demo["case"]).values()))
            for demo in self.genes(candidate).demos
        )
        return len(self.text(candidate)) + sum(shown)

    def fair(self, candidate: str, cases: Sequence[int]) -> list[int]:
        """Those of the cases that the candidate does not show among its demonstrations."""
        shown = self.genes(candidate).cases
        return [case for case in cases if case not in shown]

    def is_teacher(self, candidate: str) -> bool:
        """Whether it was made to answer train cases for others, and cannot win itself."""
        return bool(self.candidates[candidate]["operator"] == "teacher")

    def similarity(self, one: str, other: str) -> float:
        """In [0, 1], of two candidates' texts."""
        return fuzz.ratio(self.text(one), self.text(other)) / 100

    @property
    def dev(self) -> list[int]:
        limit = self.evaluation["max_cases"]
        return list(self.state["dev"][:limit] if limit else self.state["dev"])

    def case_list(self) -> list[int]:
        """The dev cases in the order in which every candidate of this round is scored."""
        order = self.evaluation["case_order"]
        if order == "fixed":
            return sorted(self.dev)
        key = ("order", self.problem.spec["seed"], *([self.round] if order == "shuffled_per_round" else []))
        return self.balanced(self.dev, *key)

    def balanced(self, cases: Sequence[int], *key: Any) -> list[int]:
        """The cases in an order of which any beginning has about their shares of the strata of the split."""
        stratum = stratum_by(self.problem.spec["split"])
        return [case.ordinal for case in balanced([self.cases[one] for one in cases], *key, stratum=stratum)]

    def inputs(self, case: int) -> dict[str, str]:
        return {str(name): str(value) for name, value in self.cases[case].inputs.items()}

    def scores(self, candidate: str, cases: Sequence[int]) -> list[float]:
        """The candidate's scores on these cases, one per case that has any, in the order given.

        Repeats of a case are averaged first; a case whose every call failed is missing.
        """
        return list(self.by_case(candidate, cases).values())

    def by_case(self, candidate: str, cases: Sequence[int]) -> dict[int, float]:
        """What `scores` gives, by case."""
        known = self.state["scores"].get(candidate)
        found: dict[int, float] = {}
        for case in cases if known else ():  # most candidates of a long search are never asked about
            values = [value for value in known.get(str(case), ()) if value is not None]
            if values:
                found[case] = sum(values) / len(values)
        return found

    def parts(self, candidate: str, case: int) -> dict[str, float]:
        """What each scorer has said of a dev case, the mean of its repeats; empty where no call has succeeded."""
        told = self.state.get("parts", {}).get(candidate, {}).get(str(case), [])
        return {name: sum(one[name] for one in told) / len(told) for name in sorted(told[0])} if told else {}

    def weights(self, candidate: str, cases: Sequence[int]) -> list[float]:
        """The weights of the cases that `scores` has a score for, in the same order."""
        return [self.cases[case].weight for case in self.by_case(candidate, cases)]

    def mean(self, candidate: str, cases: Sequence[int]) -> float:
        """Of the scores on these cases, by the weight of the cases; 0 when there are none."""
        found = self.by_case(candidate, cases)
        total = sum(self.cases[case].weight for case in found)
        if not total:
            return 0.0
        return sum(score * self.cases[case].weight for case, score in found.items()) / total

    def value(self, candidate: str, cases: Sequence[int]) -> float | None:
        """What candidates are ranked by: mean - z·se - length penalty; None when too much is missing."""
        cases = self.fair(candidate, cases)
        scores = self.scores(candidate, cases)
        if not scores or 1 - len(scores) / len(cases) > self.evaluation["missing_tolerance"]:
            return None
        value = self.mean(candidate, cases)
        if self.evaluation["lcb_z"]:
            value -= self.evaluation["lcb_z"] * stats.standard_error(scores, self.weights(candidate, cases))
        growth = self.length(candidate) / max(1, self.length(self.seed))
        value -= self.knobs.get("length_penalty", 0.0) * growth / 10
        return value - self._dearness(candidate)

    def _dearness(self, candidate: str) -> float:
        """What `objective_weights` take away for cost and latency: weight x (mean / mean of the seed) / 10 each."""
        weights = self.knobs.get("objective_weights", {})
        measures = self.state.get("measures", {})
        own, seed = (measures.get(one, {}) for one in (candidate, self.seed))
        total = 0.0
        for name in ("cost", "latency"):
            base = seed.get(name, 0) / max(1, seed.get("calls", 0))
            if weights.get(name) and base and own.get("calls"):
                total += weights[name] / weights["score"] * (own[name] / own["calls"] / base) / 10
        return total

    def is_tried(self, candidate: str, case: int, repeat: int = 0) -> bool:
        """Whether the call was made and has ended, with a score or without one."""
        return len(self.state["scores"].get(candidate, {}).get(str(case), [])) > repeat

    def is_complete(self, candidate: str) -> bool:
        """Whether it was tried on the whole dev split, which makes it comparable with the incumbent."""
        return all(self.is_tried(candidate, case) for case in self.fair(candidate, self.dev))

    def untried(self, candidate: str, cases: Sequence[int]) -> list[Evaluate]:
        """The work that is left until the candidate was tried on every repeat of these cases."""
        # The twin of a candidate has the same text: other sample numbers make its calls other calls.
        first = self.candidates[candidate].get("first_repeat", 0)
        genes = self.genes(candidate)
        return [
            Evaluate(candidate, case, first + repeat, genes)
            for case in self.fair(candidate, cases)
            for repeat in range(self.evaluation["repeats"])
            if not self.is_tried(candidate, case, repeat)
        ]
