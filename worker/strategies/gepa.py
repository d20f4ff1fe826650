"""GEPA (Agrawal et al. 2025), the library itself, made to ask in place of calling: it is replayed.

`gepa.optimize` is one loop that calls a model and waits; killed, it loses work and pays again. Here it runs from
its start whenever results have come: what it wants to know is looked up in the record of the run, and the first
thing that is not there stops it with what is missing, which becomes work for the fleet. Same answers, same course;
the state of this strategy is the record, and a few lists of what was asked. That holds for one version of the
library only, so the version is kept and checked.
"""

import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, cast

from gepa.api import optimize
from gepa.core.adapter import EvaluationBatch
from gepa.proposer.reflective_mutation.reflection_lm import ReflectionProposal
from gepa.strategies.proposal_sampling import PxNSampling

from worker.strategies import operators
from worker.strategies.contract import Evaluate, Propose, identity
from worker.strategies.gepa_rules import Gate, seed_of, selection

if TYPE_CHECKING:
    from worker.strategies.search import Search

VERSION = importlib.metadata.version("gepa")
_OVERLAP = 5  # cases of the front that two candidates to be merged must have in common; the library's own number


class Missing(BaseException):
    """What the library wants to know and the record does not say yet. No Exception: the library catches those."""

    def __init__(self, evaluations: Sequence[tuple[str, int]] = (), proposals: Sequence[Propose] = ()) -> None:
        super().__init__()
        self.evaluations = evaluations  # (candidate, case)
        self.proposals = proposals


def begin(search: "Search") -> None:
    # `proposals` were asked for and have ended; of `accepted` the library has said that they passed its gate;
    # `refused` are children of several new texts that may not become candidates.
    search.own.update({"version": VERSION, "proposals": [], "refused": [], "accepted": [], "quiet": 0})


def advance(search: "Search") -> None:
    if search.own["version"] != VERSION:
        search.conclude("library_changed")
        return
    replay = _Replay(search)
    try:
        replay.run()
        missing = None
    except Missing as found:
        missing = found
    if _confirm(search, replay):
        return
    reason = _close_iterations(search, replay)
    if reason or missing is None:
        search.conclude(reason or "max_rounds")
        return
    _ask(search, missing)


def _confirm(search: "Search", replay: "_Replay") -> bool:
    """Where the library has looked at a part of dev only: ask for the rest, for what may be the new best."""
    if search.is_exhausted:
        return False
    fresh = [one for one in replay.accepted if not search.is_complete(one)]
    best = search.value(search.incumbent, replay.val)
    rivals = [one for one in fresh if best is None or (search.value(one, replay.val) or 0.0) > best]
    return bool(rivals) and bool(search.evaluate(rivals, search.dev)) and bool(search.work)


def _close_iterations(search: "Search", replay: "_Replay") -> str | None:
    """Enter what the iterations that are over have come to: one round each."""
    while search.round < replay.iteration:
        passed = [one for one, iteration in replay.accepted.items() if iteration == search.round]
        for one in passed:
            if one != search.incumbent and search.is_complete(one):
                search.crown(one)
            if search.candidates[one]["decision"] == "proposed":
                search.decide(one, "kept", f"through the gate in iteration {search.round}")
        search.own["accepted"] += passed
        search.own["quiet"] = 0 if passed else search.own["quiet"] + 1
        reason = search.close_round()
        if search.own["quiet"] >= search.knobs["stall_iterations"]:
            reason = reason or "converged"
        if reason or search.round >= search.knobs["max_rounds"]:
            return reason or "max_rounds"
        search.next_round()
    return None


def _ask(search: "Search", missing: Missing) -> None:
    if missing.proposals:
        # Those that the budget does not cover are as good as unanswered, and the rest of them goes on.
        bought = search.ask_proposals(missing.proposals)
        search.own["proposals"] += [work.key for work in missing.proposals]
        if not bought:
            search.conclude("budget")
        return
    by_candidate: dict[str, list[int]] = {}
    for candidate, case in missing.evaluations:
        by_candidate.setdefault(candidate, []).append(case)
    for candidate, cases in by_candidate.items():
        if not search.evaluate([candidate], cases):
            search.conclude("budget")
            return


class _Name(str):
    """The name of a text, with the same hash in every process: merges follow the order of sets of them."""

    __slots__ = ()

    def __hash__(self) -> int:
        return int.from_bytes(hashlib.sha256(self.encode()).digest()[:7], "big")


class _Replay:
    """One run of the library from its start, over the record of a search; its adapter and its reflection in one."""

    propose_new_texts = None  # the library asks whether the adapter proposes; `reflect_many` does

    def __init__(self, search: "Search") -> None:
        self._search = search
        self.iteration = 1  # which is going on; one more than the last when all are over
        self.accepted: dict[str, int] = {}  # by candidate, the iteration that let it through
        self.val = search.case_list()[: search.knobs["val_cases"]]
        self._programs: dict[int, str] = {}  # by the library's index, who is in its pool
        self._mates: list[str] = []  # whose merge it is looking at
        self._merges = 0  # that have passed its gate
        # The library is shown what may be rewritten, and knows of no other text.
        self._by_texts = {_key(search.free_texts(one)): one for one in search.candidates}
        self._by_proposal = {
            item["lineage"].get("asked", item["lineage"]["proposal"]): one
            for one, item in search.candidates.items()
            if "proposal" in item["lineage"]
        }

    def run(self) -> None:
        search, knobs = self._search, self._search.knobs
        optimize(
            seed_candidate={_Name(name): text for name, text in sorted(search.free_texts(search.seed).items())},
            trainset=list(search.state["train"]),
            valset=list(self.val),
            adapter=cast("Any", self),
            reflection_strategy=self,
            candidate_selection_strategy=cast("Any", selection(knobs, search.problem.spec["seed"])),
            frontier_type=knobs.get("frontier", "instance"),  # a run that began before there was a choice has none
            reflection_minibatch_size=knobs["reflection_minibatch_size"],
            skip_perfect_score=knobs["skip_perfect"],
            perfect_score=knobs["perfect_score"],
            module_selector=knobs["module_selector"],
            sampling_strategy=PxNSampling(knobs["parents_per_step"], knobs["mutations_per_step"]),
            acceptance_criterion=Gate(knobs["acceptance"], knobs["tolerance"], knobs["paired_z"]),
            stop_callbacks=lambda state: state.i + 1 >= knobs["max_rounds"],
            callbacks=[cast("Any", self)],
            logger=self,
            seed=seed_of(search.problem.spec["seed"]),
            use_merge=knobs.get("use_merge", False),  # a run that began before there were merges has no such knob
            max_merge_invocations=knobs.get("max_merges", 0),
            merge_val_overlap_floor=min(_OVERLAP, len(self.val)),
            track_best_outputs=False,
        )
        self.iteration = knobs["max_rounds"] + 1

    # ---- what the library tells ----

    def log(self, message: str) -> None:
        """The library reports to a logger; a search has none."""

    def on_iteration_start(self, event: Mapping[str, Any]) -> None:
        self.iteration = event["iteration"]

    def on_valset_evaluated(self, event: Mapping[str, Any]) -> None:
        self._programs[event["candidate_idx"]] = self._named(event["candidate"])
        if event["iteration"]:
            self.accepted.setdefault(self._named(event["candidate"]), event["iteration"])

    def on_merge_accepted(self, event: Mapping[str, Any]) -> None:
        self._merges += 1

    def on_evaluation_start(self, event: Mapping[str, Any]) -> None:
        self._mates = [self._programs[index] for index in event["parent_ids"]]

    # ---- what the library asks: its adapter ----

    def evaluate(
        self, batch: list[int], candidate: dict[str, str], capture_traces: bool = False
    ) -> "EvaluationBatch[int, str]":
        return self.batch_evaluate([(candidate, batch)])[0]

    def batch_evaluate(self, items: Sequence[tuple[dict[str, str], list[int]]]) -> "list[EvaluationBatch[int, str]]":
        pairs = [(self._named(texts), cases) for texts, cases in items]
        paid = [(one, cases) for one, cases in pairs if one in self._search.candidates]
        missing = [(work.candidate, work.case) for one, cases in paid for work in self._untried(one, cases)]
        if missing:
            raise Missing(evaluations=list(dict.fromkeys(missing)))
        return [
            EvaluationBatch(
                outputs=[""] * len(cases),
                scores=self._scores(one, cases),
                trajectories=list(cases),
                objective_scores=self._objectives(one, cases),
            )
            for one, cases in pairs
        ]

    def _untried(self, candidate: str, cases: Sequence[int]) -> list[Evaluate]:
        return self._search.untried(candidate, list(dict.fromkeys(cases)))

    def _scores(self, candidate: str, cases: Sequence[int]) -> list[float]:
        return self._completed(candidate, cases, self._search.by_case(candidate, cases))

    def _objectives(self, candidate: str, cases: Sequence[int]) -> list[dict[str, float]] | None:
        """By scorer, where the front is made of them; that of a train case is never asked for."""
        search = self._search
        if search.knobs.get("frontier", "instance") == "instance":
            return None
        names = dict.fromkeys(name for case in self.val for name in search.parts(search.seed, case))
        known = {case: found for case in cases if (found := search.parts(candidate, case))}
        by_name = {
            name: self._completed(candidate, cases, {case: found[name] for case, found in known.items()})
            for name in names
        }
        return [{name: values[place] for name, values in by_name.items()} for place in range(len(cases))]

    def _completed(self, candidate: str, cases: Sequence[int], known: Mapping[int, float]) -> list[float]:
        """The library knows no missing score: a failed call counts as the mean of the others; all failed, as 0."""
        if candidate not in self._search.candidates:
            return [-1.0] * len(cases)  # a merge that may be no candidate: below whatever its parents have
        share = 1 - len(known) / max(1, len(set(cases)))
        is_valid = bool(known) and share <= self._search.evaluation["missing_tolerance"]
        middle = fmean(known.values()) if is_valid else 0.0
        return [known.get(case, middle) if is_valid else 0.0 for case in cases]

    def make_reflective_dataset(
        self, candidate: dict[str, str], batch: "EvaluationBatch[int, str]", components: list[str]
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        return {component: [{"case": case} for case in batch.trajectories or ()] for component in components}

    # ---- what the library asks: its reflection ----

    def reflect(self, candidate: Any, dataset: Any, components: Any) -> tuple[ReflectionProposal, "_Replay"]:
        return self.reflect_many([(candidate, dataset, components)])[0]

    def reflect_many(self, jobs: Sequence[Any]) -> list[tuple[ReflectionProposal, "_Replay"]]:
        wanted = [
            [self._request(self._named(texts), str(component), dataset[component], slot) for component in components]
            for slot, (texts, dataset, components) in enumerate(jobs)
        ]
        ended = set(self._search.own["proposals"])
        missing = [work for works in wanted for work in works if work.key not in ended]
        if missing:
            raise Missing(proposals=missing)
        answers = [self._answers(works) for works in wanted]
        return [(ReflectionProposal({_Name(name): text for name, text in one.items()}), self) for one in answers]

    def _answers(self, works: Sequence[Propose]) -> dict[str, str]:
        """The new texts that became candidates; the library makes no child where there are none."""
        texts = {}
        for work in works:
            child = self._by_proposal.get(work.key)
            if child is not None:
                texts[work.component] = self._search.components(child)[work.component]
        if len(texts) < 2 or self._is_admitted(works, texts):
            return texts
        return dict([next(iter(texts.items()))])  # together they are no candidate; the first alone is

    def _is_admitted(self, works: Sequence[Propose], texts: Mapping[str, str]) -> bool:
        """Whether the parent with several new texts is a candidate; it becomes one when it is first seen."""
        search, parent = self._search, works[0].parent
        merged = {**search.components(parent), **texts}
        named = identity(merged, search.genes(parent))
        if named not in search.candidates and named not in search.own["refused"]:
            evidence = sorted({case for work in works for case in work.evidence})
            lineage = {"proposals": [work.key for work in works], "evidence": evidence, "slot": works[0].slot}
            genes = search.genes(parent)
            if search.admit(merged, parents=[parent], operator="reflect", lineage=lineage, genes=genes) is None:
                search.own["refused"].append(named)
        self._by_texts[_key({name: merged[name] for name in search.free_components})] = named
        return named in search.candidates

    def _request(self, parent: str, component: str, shown: Sequence[Mapping[str, Any]], slot: int) -> Propose:
        """The same words as every strategy's, about what went wrong on the minibatch."""
        search = self._search
        cases = [item["case"] for item in shown]
        kept = search.state["failures"].get(parent, [])
        of_batch = [item for item in kept if item["case"] in cases] or kept
        failures = [
            operators.Failure(item["case"], search.inputs(item["case"]), item["output"], item["feedback"])
            for item in of_batch[: search.knobs["errors_in_context"]]
        ]
        operator = "reflect" if failures else "paraphrase"
        messages = operators.request(operator, search.components(parent)[component], operators.Shown(failures))
        evidence = tuple(failure.case for failure in failures)
        return Propose(operator, parent, component, messages, self.iteration, slot, evidence)

    def _named(self, texts: Mapping[str, str]) -> str:
        """The candidate of these texts. Those that are new are a merge of two, which becomes one if it may."""
        if _key(texts) not in self._by_texts:
            self._by_texts[_key(texts)] = self._merged({str(name): text for name, text in texts.items()})
        return self._by_texts[_key(texts)]

    def _merged(self, texts: dict[str, str]) -> str:
        search = self._search
        texts = {**search.components(search.seed), **texts}
        named = identity(texts, search.genes(search.seed))
        # Several may be due by the time the first is made, and the library makes them all.
        if self._merges < search.knobs["max_merges"] and named not in search.own["refused"]:
            mates = [one for one in self._mates if one in search.candidates]
            if search.admit(texts, parents=mates, operator="merge", lineage={}) is None:
                search.own["refused"].append(named)
            else:  # the rounds are closed after the replay, which may be an iteration ahead of them
                search.candidates[named]["round"] = self.iteration
        return named


def _key(texts: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((str(name), text) for name, text in texts.items()))
